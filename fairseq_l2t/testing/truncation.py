"""Truncated hypergradients: the share of every update in the full one, and how two hypergradients compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fairseq_l2t.unroll.adjoint_sweep import adjoint_sweep
from fairseq_l2t.unroll.trajectory import Trajectory

__all__ = ["Sweep", "compare", "sweep", "window_lengths"]

WINDOWS = (1, 2, 5, 10, 20, 40, 80, 160, 320)
"""Window lengths W, in updates."""


@dataclass(frozen=True)
class Sweep:
    """Results of one sweep back through T updates.

    Args:
        shares: (T, values + queries) float64, the share of each update in the hypergradient, oldest first.
        adjoint_norms: (T + 1,) norms of d measure / d omega_t, from t = T back to t = 0.
        entries, keys: shape of the teacher's values, which come first in a row of ``shares``.
    """

    shares: Tensor
    adjoint_norms: list[float]
    entries: int
    keys: int

    def components(self, theta: Tensor) -> dict[str, Tensor]:
        """Return all of ``theta``, the part all words share (keys,), and each word's deviation from it."""
        values = theta[: self.entries * self.keys].view(self.entries, self.keys)
        return {"all": theta, "shared": values.sum(dim=0), "words": (values - values.mean(dim=0)).flatten()}


def sweep(trajectory: Trajectory, grad_omega: Tensor, after_step: Callable[[], object] = lambda: None) -> Sweep:
    """Return the share of every update in the hypergradient.

    Args:
        trajectory: T updates.
        grad_omega: d measure / d omega_T (n,).
        after_step: called after each update gone back through.
    """
    teacher = trajectory.teacher
    named = dict(teacher.named_parameters())
    order = ["values", *(name for name in named if name != "values")]
    shares, norms = [], [float(grad_omega.norm())]
    for step in adjoint_sweep(trajectory, grad_omega):
        theta = step.theta or {name: torch.zeros_like(parameter) for name, parameter in named.items()}
        shares.append(torch.cat([theta[name].detach().double().flatten() for name in order]))
        norms.append(float(step.adjoint.norm()))
        after_step()
    return Sweep(torch.stack(shares[::-1]), norms, teacher.entries, teacher.keys)


def compare(found: Sweep, part: Tensor, whole: Tensor) -> dict[str, dict[str, float]]:
    """Return cosine and norm ratio of the hypergradient ``part`` against ``whole``, by component.

    ``level`` of the shared component is the slope of the measure when all coefficients rise alike, with its sign;
    ``whole_level`` is the same of ``whole``.
    """
    parts, wholes = found.components(part), found.components(whole)
    result: dict[str, dict[str, float]] = {}
    for name in parts:
        one, other = float(parts[name].norm()), float(wholes[name].norm())
        dot = float(parts[name] @ wholes[name])
        result[name] = {"cosine": dot / (one * other) if one * other else 0.0, "ratio": one / other if other else 0.0}
    result["shared"].update(level=float(parts["shared"].sum()), whole_level=float(wholes["shared"].sum()))
    return result


def window_lengths(updates: int) -> list[int]:
    """Return the window lengths to report for ``updates`` = T; T itself is last."""
    return [*(length for length in WINDOWS if length < updates), updates]

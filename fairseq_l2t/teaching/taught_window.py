"""What one life contributes to a teacher update, and the mean over the lives of an update."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fairseq_l2t.teaching.processes import Message, Processes
from fairseq_l2t.unroll.adjoint_sweep import Hypergradient

__all__ = ["TaughtWindow", "gathered_windows", "mean_hypergradient", "standard_error"]


@dataclass(frozen=True)
class TaughtWindow:
    """The result of one window of one life.

    Args:
        life: number of the life, from 0.
        student_update: updates of the life so far.
        measure: on the dev examples of the update, at the end of the window.
        holdout: on the held-back dev examples, where the life judges the teacher; otherwise None.
        found: the hypergradient of the window.
        coefficients: statistics of the last coefficients, see `loss.teacher.Teacher.statistics`.
        recomputed: student updates that were computed again.
        error: relative error of a hypergradient that is not exact; None where it is not measured.
        states: states of the student, see `teaching.lives.Lives.take_states`.
    """

    life: int
    student_update: int
    measure: float
    holdout: float | None
    found: Hypergradient
    coefficients: Mapping[str, float]
    recomputed: int
    error: float | None
    states: list[dict[str, float]]

    def plain(self) -> dict[str, Any]:
        """Return everything but the tensors, JSON-able."""
        rest = {name: value for name, value in vars(self).items() if name != "found"}
        return {**rest, "adjoint_norm": self.found.adjoint_norm, "pulls": list(self.found.pulls)}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any], theta: dict[str, Tensor]) -> TaughtWindow:
        """Return the window of the result of `plain` and the tensors of its hypergradient."""
        rest = dict(values)
        return cls(found=Hypergradient(theta, rest.pop("adjoint_norm"), tuple(rest.pop("pulls"))), **rest)


def gathered_windows(
    processes: Processes, own: Mapping[int, TaughtWindow | str], device: torch.device
) -> dict[int, TaughtWindow | str]:
    """Return the windows of all processes by the number of their life; the text of an error in place of a window.

    Args:
        processes: those of the run.
        own: what this process has.
        device: that of the hypergradients that are returned.
    """
    if processes.size == 1:
        return dict(own)
    tensors, values = {}, {}
    for life, window in own.items():
        values[str(life)] = window if isinstance(window, str) else window.plain()
        parts = {} if isinstance(window, str) else window.found.theta
        tensors.update({f"{life}.{name}": part for name, part in parts.items()})
    found: dict[int, TaughtWindow | str] = {}
    for message in processes.gather(Message(tensors, values)):
        for life, told in message.values.items():
            parts = {name: part.to(device) for name, part in message.tensors.items() if name.startswith(f"{life}.")}
            theta = {name.partition(".")[2]: part for name, part in parts.items()}
            found[int(life)] = told if isinstance(told, str) else TaughtWindow.from_plain(told, theta)
    return found


def mean_hypergradient(windows: Sequence[TaughtWindow]) -> Hypergradient:
    """Return the mean over lives, added in their order, so that it does not depend on the number of processes.

    The adjoint norm is the mean of the norms.
    """
    if len(windows) == 1:
        return windows[0].found
    count = len(windows)
    theta = {name: part.clone() for name, part in windows[0].found.theta.items()}
    for window in windows[1:]:
        for name, part in theta.items():
            part += window.found.theta[name]
    pulls = [sum(one) / count for one in zip(*(window.found.pulls for window in windows), strict=True)]
    adjoint_norm = sum(window.found.adjoint_norm for window in windows) / count
    return Hypergradient({name: part / count for name, part in theta.items()}, adjoint_norm, tuple(pulls))


def standard_error(windows: Sequence[TaughtWindow], mean: Hypergradient) -> float | None:
    """Return the standard error of the mean hypergradient over lives, as a norm; None for a single life.

    ``sqrt(sum_k ||h_k - mean||^2 / (K (K - 1)))``: compared with the norm of the mean it says how much of the mean is
    chance.
    """
    count = len(windows)
    if count < 2:
        return None
    squares = sum(
        float((window.found.theta[name].double() - part.double()).square().sum())
        for window in windows
        for name, part in mean.theta.items()
    )
    return math.sqrt(squares / (count * (count - 1)))

"""Checks of the update rule: against fairseq's own optimizer, and of its adjoint against finite differences."""

from __future__ import annotations

import torch
from fairseq.optim import build_optimizer

from fairseq_l2t.checks.differences import compare_adjoint
from fairseq_l2t.plugin.doctor.findings import BOUND, DIRECTIONS, Check, largest
from fairseq_l2t.plugin.student.fairseq_student import FairseqStudent
from fairseq_l2t.plugin.student.optimizers import SUPPORTED
from fairseq_l2t.unroll.update_rules import Clipping, StepSize

__all__ = ["adjoint_check", "update_check"]

_SEED = 0
_VECTOR_LENGTH, _LARGEST_GAP = 64, 1e-6
"""Length of the random vectors; largest accepted difference from fairseq's optimizer, relative to the step."""

_SIZE_OF_ADJOINT = StepSize(0.5, 1.0, 2)
"""Learning rates of the checked update, independent of --lr. They are large, because at a small rate omega' is nearly
omega, and a wrong slope of the rest would not be visible. The rate halves, because nag corrects its momentum then."""

_REMEDY = f"another --optimizer ({SUPPORTED})"


def update_check(student: FairseqStudent) -> Check:
    """Compare three updates of the rule with those of fairseq's own optimizer, from the same start and gradients."""
    rule = student.rule
    generator = torch.Generator().manual_seed(_SEED)
    start = omega = torch.randn(_VECTOR_LENGTH, generator=generator, dtype=torch.float64)
    parameter = torch.nn.Parameter(omega.clone())
    buffers = tuple(torch.zeros_like(omega) for _ in range(rule.buffer_count))
    optimizer = build_optimizer(student.options.cfg.optimizer, [parameter])
    lr = previous = optimizer.get_lr()
    for count in (1, 2, 3):
        gradient = torch.randn(_VECTOR_LENGTH, generator=generator, dtype=torch.float64)
        omega, buffers = rule.apply(omega, buffers, gradient, StepSize(lr, previous, count))
        parameter.grad = gradient.clone()
        optimizer.set_lr(lr)
        optimizer.step()
        lr, previous = lr / 2, lr
    # Relative to the movement, which at a small --lr is a small part of omega.
    gap = float((parameter.detach() - omega).abs().max() / (omega - start).abs().max())
    name = student.options.cfg.optimizer._name
    return Check(f"update by {name}", gap <= _LARGEST_GAP, f"{gap:.0e} from fairseq's own after 3 updates", _REMEDY)


def adjoint_check(student: FairseqStudent) -> Check:
    """Compare the adjoint of the rule and of gradient clipping with finite differences."""
    clipping = Clipping(student.clipping.max_norm)
    error = largest(compare_adjoint(student.rule, clipping, _SIZE_OF_ADJOINT, seed) for seed in range(DIRECTIONS))
    return Check("adjoint of optimizer and clipping", error <= BOUND, f"{error:.0e} from differences", _REMEDY)

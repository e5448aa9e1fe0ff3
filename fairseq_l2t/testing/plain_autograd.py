"""The hypergradient of a fairseq student by plain autograd through a functional unroll: slow, large, independent.

Of this package it uses the recorded batches and the corrected fairseq modules (`plugin.student.second_derivatives`),
without the hand-written nodes. Only finite differences can show that the modules are corrected rightly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from fairseq_l2t.kernels.twice_differentiable import outer_gradient
from fairseq_l2t.plugin import FairseqStudent
from fairseq_l2t.plugin.student.second_derivatives import fairseq_twice_differentiable
from fairseq_l2t.testing.differentiable_rules import differentiable_clipping, differentiable_rule
from fairseq_l2t.unroll.trajectory import Step, Trajectory

__all__ = ["every_use", "plain_hypergradient"]


def every_use(student: FairseqStudent, omega: Tensor) -> dict[str, Tensor]:
    """Return the parts of ``omega`` (n,) under every name of a parameter, each module once.

    torch.func.functional_call, if it ties weights itself, does not restore the embedding of a *module* with two names
    (``--share-all-embeddings``): the module would keep the graph of an unroll that is over.
    """
    parts = student.parameters.split(omega)
    part_of = {id(parameter): part for parameter, part in zip(student.parameters.parameters, parts, strict=True)}
    return {
        f"{path}.{key}": part_of[id(parameter)]
        for path, module in student.model.named_modules()
        for key, parameter in module._parameters.items()
        if id(parameter) in part_of
    }


def target_log_probs(
    student: FairseqStudent, omega: Tensor, sample: Mapping[str, Any]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log p of the target tokens, the mean log p of all words there, and the tokens, padding left out.

    All are (tokens,); the first two are differentiable in ``omega`` (n,).
    """
    with student.precision():
        named = every_use(student, omega)
        output = functional_call(student.model, named, (), sample["net_input"], tie_weights=False)
        log_probs = student.model.get_normalized_probs(output, log_probs=True)
    target = sample["target"]
    keep = target.ne(student.task.target_dictionary.pad())
    return log_probs.gather(-1, target.unsqueeze(-1)).squeeze(-1)[keep], log_probs.mean(-1)[keep], target[keep]


def plain_gradient(student: FairseqStudent, omega: Tensor, step: Step, phi: Tensor | None) -> Tensor:
    """Return the gradient (n,) of one update's loss per token, with its graph; ``phi`` None: cross-entropy."""
    total, tokens, scale = omega.new_zeros(()), 0, student.options.loss_shape.scale
    student.model.train()
    with student.replay(step.update):
        for sample in step.batch:
            log_probs, means, targets = target_log_probs(student, omega, sample)
            if phi is None:
                loss = -log_probs
            else:
                smoothing = phi[-1] * means if len(phi) > student.coefficient_count else 0.0
                loss = -scale / (1 + torch.exp(-phi[targets] * log_probs - smoothing))
            total, tokens = total + loss.sum(), tokens + len(targets)
    return torch.autograd.grad(total, omega, create_graph=True)[0] / tokens


def plain_hypergradient(trajectory: Trajectory) -> dict[str, Tensor]:
    """Return the hypergradient by one backward pass through a second, functional unroll from the same start.

    fconv's gradient scaling is the corrected node in both; finite differences check the node.

    Raises:
        TypeError: the trajectory is of another student than a `FairseqStudent`.
    """
    student, teacher = trajectory.student, trajectory.teacher
    if not isinstance(student, FairseqStudent):
        raise TypeError(f"trajectory: student {type(student).__name__}; expected FairseqStudent")
    first = trajectory.steps[0]
    omega, buffers = first.omega.clone().requires_grad_(), first.buffers
    with fairseq_twice_differentiable(fused=False):
        for step in trajectory.steps:
            phi = None if step.state is None else teacher(step.state)
            gradient = plain_gradient(student, omega, step, phi)
            gradient = differentiable_clipping(gradient, student.clipping.max_norm)
            omega, buffers = differentiable_rule(student.rule, omega, buffers, gradient, step.size)
        student.model.eval()
        pairs = student.dev.teaching[: student.options.namespace.dev_batch]
        log_probs, _, _ = target_log_probs(student, omega, student.dev.sample(pairs))
        with outer_gradient():
            parts = torch.autograd.grad(log_probs.exp().mean(), list(teacher.parameters()))
    return dict(zip((name for name, _ in teacher.named_parameters()), parts, strict=True))

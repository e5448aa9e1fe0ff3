"""The gradient of a student's update: as a plain vector, or with its graph, and the product with its Jacobian.

An update of the student begins with ``g(omega_t, Phi_t)``, the gradient of its loss per target token. The reverse
pass (Wu et al., NeurIPS 2018, equation (5)) asks for ``J^T v``, J the Jacobian of g: one backward pass through the
graph of g.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fairseq_l2t.kernels.twice_differentiable import outer_gradient
from fairseq_l2t.unroll.student import Batch, BatchLoss, Student

__all__ = [
    "Graph",
    "MeasuredGradient",
    "Wanted",
    "differentiable_gradient",
    "graphs_of",
    "measured_gradient",
    "plain_gradient",
    "pull_back_through",
    "student_gradient",
]


class Wanted(enum.Enum):
    """What the sweep will want of an update beside its gradient: nothing, its graphs, or what differences need."""

    VECTOR = enum.auto()
    GRAPHS = enum.auto()
    FOR_DIFFERENCES = enum.auto()


@dataclass(frozen=True)
class MeasuredGradient:
    """The gradient of one update, before clipping, and what the student's state observes of it.

    Args:
        vector: (n,), per target token.
        nll: negative log-likelihood in nats per target token.
        accuracy: share of the target tokens that are the student's first choice.
        graphs: of the micro-batches, where they were asked for.
        of_coefficients: (entries,) d loss per target token / d Phi, where it was asked for.
        notes: of the student's gradient scaling, where it has one and differences will be taken.
    """

    vector: Tensor
    nll: float
    accuracy: float
    graphs: list[Graph] | None = None
    of_coefficients: Tensor | None = None
    notes: Any = None


@dataclass(frozen=True)
class Graph:
    """The gradient of one micro-batch with its graph.

    Args:
        gradients: one tensor a parameter, summed over target tokens; None where the loss does not reach it.
        phi: the leaf (entries,) they depend on; None under plain cross-entropy.
    """

    gradients: tuple[Tensor | None, ...]
    phi: Tensor | None


def student_gradient(student: Student, batch: Batch, coefficients: Tensor | None, update: int) -> Tensor:
    """Return the gradient (n,) of the student's loss per target token, before clipping, at its parameters.

    Measures nothing and changes no state; dropout is that of update number ``update``.
    """
    return plain_gradient(student, batch, coefficients, update)[0]


def plain_gradient(
    student: Student, batch: Batch, coefficients: Tensor | None, update: int, *, of_coefficients: bool = False
) -> tuple[Tensor, Tensor | None]:
    """As `student_gradient`; ``of_coefficients``: with the derivative of the same loss by Phi (entries,) beside it."""
    total, phi_bar = _summed_gradient(student, batch, coefficients, update, of_coefficients=of_coefficients)
    scale = 1.0 / student.sample_size(batch)
    return total.mul_(scale), None if phi_bar is None else phi_bar * scale


def measured_gradient(
    student: Student, batch: Batch, coefficients: Tensor | None, update: int, *, wanted: Wanted = Wanted.VECTOR
) -> MeasuredGradient:
    """Return the gradient of an update that is being made.

    Args:
        student, batch, coefficients, update: see `student_gradient`.
        wanted: what the sweep will ask for. Under GRAPHS the gradient is computed by kernels that have second
            derivatives: its rounding may be another one than fairseq's own.
    """
    measures, scale = _Measures(), 1.0 / student.sample_size(batch)
    if wanted is Wanted.GRAPHS:
        graphs = list(graphs_of(student, batch, coefficients, update, measures))
        total = differentiable_gradient(student, graphs, batch)
        return MeasuredGradient(total, measures.nll, measures.accuracy, graphs)
    for_differences = wanted is Wanted.FOR_DIFFERENCES
    scaling = student.gradient_scaling if for_differences else None
    with nullcontext() if scaling is None else scaling.noting() as notes:
        total, phi_bar = _summed_gradient(
            student, batch, coefficients, update, of_coefficients=for_differences, measures=measures
        )
    phi_bar = None if phi_bar is None else phi_bar * scale
    # Summed first and scaled once, as fairseq's Trainer does: the same rounding.
    return MeasuredGradient(total.mul_(scale), measures.nll, measures.accuracy, of_coefficients=phi_bar, notes=notes)


def _summed_gradient(student, batch, coefficients, update, *, of_coefficients: bool, measures: _Measures | None = None):
    """Return the gradient (n,) and, where it is asked for, that of Phi (entries,), summed over target tokens."""
    phi = coefficients.clone().requires_grad_() if of_coefficients and coefficients is not None else None
    inputs = [*student.parameters.parameters, *([] if phi is None else [phi])]
    total, phi_bar = None, None
    with student.replay(update), torch.enable_grad():
        losses = student.losses(batch, coefficients if phi is None else phi, measure=measures is not None)
        for loss in losses if measures is None else measures.of(losses):
            gradients = torch.autograd.grad(loss.total, inputs, allow_unused=True)
            if phi is not None:
                *gradients, share = gradients
                phi_bar = _added(phi_bar, share)
            total = _added(total, student.parameters.gather(gradients).to(student.omega.dtype))
    return total, phi_bar


def graphs_of(
    student: Student, batch: Batch, coefficients: Tensor | None, update: int, measures: _Measures | None = None
) -> Iterator[Graph]:
    """Yield the graph of each micro-batch at the student's parameters, with the dropout of ``update``."""
    phi = None if coefficients is None else coefficients.clone().requires_grad_()
    with student.replay(update), student.second_derivatives(), torch.enable_grad():
        losses = student.losses(batch, phi, measure=measures is not None)
        for loss in losses if measures is None else measures.of(losses):
            gradients = torch.autograd.grad(
                loss.total, student.parameters.parameters, create_graph=True, allow_unused=True
            )
            yield Graph(gradients, phi)


def differentiable_gradient(student: Student, graphs: Iterable[Graph], batch: Batch) -> Tensor:
    """Return the gradient (n,) per target token that ``graphs`` add up to, detached."""
    total = None
    for graph in graphs:
        total = _added(total, _flat(student, graph))
    return total.mul_(1.0 / student.sample_size(batch))


def pull_back_through(
    student: Student, graphs: Iterable[Graph], cotangent: Tensor, scale: float, *, keep_graph: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return ``J^T v`` (n,) and the cotangent of Phi (entries,), summed over the micro-batches.

    Args:
        student: at the parameters at which the graphs were made.
        graphs: of the micro-batches of one update.
        cotangent: v (n,), of the gradient before clipping.
        scale: 1 / sample size: the graphs hold sums over target tokens.
        keep_graph: whether the graphs are to be used again.
    """
    scaled = cotangent * scale
    omega_bar, phi_bar = None, None
    parameters = student.parameters
    parts = parameters.split(scaled.to(parameters.buffer.dtype))
    for graph in graphs:
        used = [(g, part) for g, part in zip(graph.gradients, parts, strict=True) if g is not None and g.requires_grad]
        if not used:
            continue
        inputs = [*parameters.parameters, *([] if graph.phi is None else [graph.phi])]
        with student.second_derivatives(), outer_gradient():
            pulled = torch.autograd.grad(
                [g for g, _ in used],
                inputs,
                grad_outputs=[part for _, part in used],
                allow_unused=True,
                retain_graph=keep_graph,
            )
        if graph.phi is not None:
            *pulled, share = pulled
            phi_bar = _added(phi_bar, share)
        omega_bar = _added(omega_bar, parameters.gather(pulled).to(cotangent.dtype))
    return torch.zeros_like(cotangent) if omega_bar is None else omega_bar, phi_bar


class _Measures:
    """Adds up what the micro-batches of one update tell of the student."""

    def __init__(self) -> None:
        self._nll, self._correct, self._tokens = 0.0, 0.0, 0

    def of(self, losses: Iterable[BatchLoss]) -> Iterator[BatchLoss]:
        """Yield ``losses``, each counted when the next is asked for: its gradient is on its way by then."""
        for loss in losses:
            yield loss
            self._nll, self._correct = self._nll + float(loss.nll), self._correct + float(loss.correct)
            self._tokens += loss.tokens

    @property
    def nll(self) -> float:
        return self._nll / max(self._tokens, 1)

    @property
    def accuracy(self) -> float:
        return self._correct / max(self._tokens, 1)


def _added(total: Tensor | None, part: Tensor | None) -> Tensor | None:
    if total is None or part is None:
        return part if total is None else total
    return total.add_(part)


def _flat(student: Student, graph: Graph) -> Tensor:
    gradients = [None if gradient is None else gradient.detach() for gradient in graph.gradients]
    return student.parameters.gather(gradients).to(student.omega.dtype)


def bytes_of_graph(student: Student, batch: Batch, coefficients: Tensor | None, update: int) -> int:
    """Return the bytes that the graph of one update keeps beside the parameters, by making it once."""
    storages: dict[int, int] = {}
    own = student.parameters.buffer.untyped_storage().data_ptr()

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() != own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # itself would be a cycle that is never freed

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        graphs = list(graphs_of(student, batch, coefficients, update))
    del graphs
    return sum(storages.values())

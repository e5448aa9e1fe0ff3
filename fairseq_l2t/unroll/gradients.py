"""The gradient of a student's update, as a vector or with its graph, and the product with its Jacobian.

An update of the student begins with ``g(omega_t, Phi_t)``, the gradient of its loss per target token. The reverse
pass (Wu et al., NeurIPS 2018, equation (5)) needs ``J^T v``, J the Jacobian of g: one backward pass through the graph
of g.
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
    "GradientKind",
    "Graph",
    "MeasuredGradient",
    "bytes_of_graph",
    "differentiable_gradient",
    "graphs_of",
    "measured_gradient",
    "plain_gradient",
    "pull_back_through",
    "student_gradient",
]


class GradientKind(enum.Enum):
    """Data that an update provides for the sweep: its gradient alone, its graphs, or the data for differences."""

    VECTOR = enum.auto()
    GRAPHS = enum.auto()
    FOR_DIFFERENCES = enum.auto()


@dataclass(frozen=True)
class MeasuredGradient:
    """The gradient of one update, before clipping, with the measures for the student's state.

    Args:
        vector: (n,), per target token.
        nll: negative log-likelihood in nats per target token.
        accuracy: share of the target tokens that are the student's first choice.
        graphs: graphs of the micro-batches, if requested.
        of_coefficients: (entries,) d loss per target token / d Phi, if requested.
        notes: notes of the student's gradient scaling, if it has one and data for differences is requested.
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
        gradients: one tensor per parameter, summed over target tokens; None where the loss does not reach it.
        phi: the leaf (entries,) on which the gradients depend; None under plain cross-entropy.
    """

    gradients: tuple[Tensor | None, ...]
    phi: Tensor | None


def student_gradient(student: Student, batch: Batch, coefficients: Tensor | None, update: int) -> Tensor:
    """Return the gradient (n,) of the student's loss per target token, before clipping, at its current parameters.

    No measure is computed and no state changes.

    Args:
        student: the student.
        batch: micro-batches of one update.
        coefficients: Phi (entries,); None: plain cross-entropy.
        update: number of the update whose dropout is used.

    Raises:
        ValueError: no micro-batches.
    """
    return plain_gradient(student, batch, coefficients, update)[0]


def plain_gradient(
    student: Student, batch: Batch, coefficients: Tensor | None, update: int, *, of_coefficients: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return the gradient (n,) of `student_gradient` and, if requested, d of the same loss / d Phi (entries,)."""
    total, phi_bar = _summed_gradient(student, batch, coefficients, update, of_coefficients=of_coefficients)
    scale = 1.0 / student.sample_size(batch)
    return total.mul_(scale), None if phi_bar is None else phi_bar * scale


def measured_gradient(
    student: Student,
    batch: Batch,
    coefficients: Tensor | None,
    update: int,
    *,
    kind: GradientKind = GradientKind.VECTOR,
) -> MeasuredGradient:
    """Return the gradient of a new update, with its measures.

    Args:
        student, batch, coefficients, update: see `student_gradient`.
        kind: data for the sweep. Under GRAPHS, kernels with second derivatives compute the gradient; its rounding may
            differ from fairseq's own.

    Raises:
        ValueError: no micro-batches.
    """
    measures, scale = _Measures(), 1.0 / student.sample_size(batch)
    if kind is GradientKind.GRAPHS:
        graphs = list(graphs_of(student, batch, coefficients, update, measures))
        total = differentiable_gradient(student, graphs, batch)
        return MeasuredGradient(total, measures.nll, measures.accuracy, graphs)
    for_differences = kind is GradientKind.FOR_DIFFERENCES
    scaling = student.gradient_scaling if for_differences else None
    with nullcontext() if scaling is None else scaling.noting() as notes:
        total, phi_bar = _summed_gradient(
            student, batch, coefficients, update, of_coefficients=for_differences, measures=measures
        )
    phi_bar = None if phi_bar is None else phi_bar * scale
    # The sum is scaled once at the end, as in fairseq's Trainer, for the same rounding.
    return MeasuredGradient(total.mul_(scale), measures.nll, measures.accuracy, of_coefficients=phi_bar, notes=notes)


def _summed_gradient(
    student: Student,
    batch: Batch,
    coefficients: Tensor | None,
    update: int,
    *,
    of_coefficients: bool,
    measures: _Measures | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return the gradient (n,) and, if requested, that of Phi (entries,), both summed over target tokens."""
    phi = coefficients.clone().requires_grad_() if of_coefficients and coefficients is not None else None
    inputs = [*student.parameters.parameters, *([] if phi is None else [phi])]
    total: Tensor | None = None
    phi_bar: Tensor | None = None
    with student.replay(update), torch.enable_grad():
        losses = student.losses(batch, coefficients if phi is None else phi, measure=measures is not None)
        for loss in losses if measures is None else measures.of(losses):
            gradients: list[Tensor | None] = list(torch.autograd.grad(loss.total, inputs, allow_unused=True))
            if phi is not None:
                phi_bar = _added(phi_bar, gradients.pop())
            total = _added(total, student.parameters.gather(gradients).to(student.omega.dtype))
    return _required(total), phi_bar


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
    """Return the sum (n,) of the gradients of ``graphs`` per target token, detached.

    Raises:
        ValueError: no micro-batches.
    """
    total: Tensor | None = None
    for graph in graphs:
        total = _added(total, _flat(student, graph))
    return _required(total).mul_(1.0 / student.sample_size(batch))


def pull_back_through(
    student: Student, graphs: Iterable[Graph], cotangent: Tensor, scale: float, *, keep_graph: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return ``J^T v`` (n,) and the cotangent of Phi (entries,), summed over the micro-batches.

    Args:
        student: at the parameters of the graphs.
        graphs: graphs of the micro-batches of one update.
        cotangent: v (n,), of the gradient before clipping.
        scale: 1 / sample size; the graphs hold sums over target tokens.
        keep_graph: whether the graphs will be used again.
    """
    scaled = cotangent * scale
    omega_bar: Tensor | None = None
    phi_bar: Tensor | None = None
    parameters = student.parameters
    parts = parameters.split(scaled.to(parameters.buffer.dtype))
    for graph in graphs:
        used = [(g, part) for g, part in zip(graph.gradients, parts, strict=True) if g is not None and g.requires_grad]
        if not used:
            continue
        inputs = [*parameters.parameters, *([] if graph.phi is None else [graph.phi])]
        with student.second_derivatives(), outer_gradient():
            pulled: list[Tensor | None] = list(
                torch.autograd.grad(
                    [g for g, _ in used],
                    inputs,
                    grad_outputs=[part for _, part in used],
                    allow_unused=True,
                    retain_graph=keep_graph,
                )
            )
        if graph.phi is not None:
            phi_bar = _added(phi_bar, pulled.pop())
        omega_bar = _added(omega_bar, parameters.gather(pulled).to(cotangent.dtype))
    return torch.zeros_like(cotangent) if omega_bar is None else omega_bar, phi_bar


class _Measures:
    """Sums of the measures of the micro-batches of one update."""

    def __init__(self) -> None:
        self._nll, self._correct, self._tokens = 0.0, 0.0, 0

    def of(self, losses: Iterable[BatchLoss]) -> Iterator[BatchLoss]:
        """Yield ``losses``; add the measures of each one when the caller asks for the next.

        A GPU then computes the gradient while the measures are read.
        """
        for loss in losses:
            yield loss
            if loss.nll is None or loss.correct is None:
                raise ValueError("student losses: no nll or no number of correct tokens under measure=True")
            self._nll, self._correct = self._nll + float(loss.nll), self._correct + float(loss.correct)
            self._tokens += loss.tokens

    @property
    def nll(self) -> float:
        """Nats per target token."""
        return self._nll / max(self._tokens, 1)

    @property
    def accuracy(self) -> float:
        """Share of correct target tokens."""
        return self._correct / max(self._tokens, 1)


def _added(total: Tensor | None, part: Tensor | None) -> Tensor | None:
    if total is None or part is None:
        return part if total is None else total
    return total.add_(part)


def _required(total: Tensor | None) -> Tensor:
    if total is None:
        raise ValueError("batch: no micro-batches; expected at least one")
    return total


def _flat(student: Student, graph: Graph) -> Tensor:
    gradients = [None if gradient is None else gradient.detach() for gradient in graph.gradients]
    return student.parameters.gather(gradients).to(student.omega.dtype)


def bytes_of_graph(student: Student, batch: Batch, coefficients: Tensor | None, update: int) -> int:
    """Return the bytes of the graph of one update, without the parameters; the graph is made once and freed."""
    storages: dict[int, int] = {}
    own = student.parameters.buffer.untyped_storage().data_ptr()

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() != own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would form a reference cycle that is never freed

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        graphs = list(graphs_of(student, batch, coefficients, update))
    del graphs
    return sum(storages.values())

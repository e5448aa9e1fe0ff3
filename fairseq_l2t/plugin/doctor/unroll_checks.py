"""Checks of whole updates: replay of dropout, the hypergradient of a short unroll, the student's own precision."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fairseq_l2t.checks.differences import Comparison, compare_hypergradient, slope_at_zero, unit_direction
from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.plugin.doctor.examined_student import ExaminedStudent
from fairseq_l2t.plugin.doctor.findings import (
    DIRECTIONS,
    HALVINGS,
    LEAVE_OUT,
    SHRINK,
    Check,
    described,
    is_trusted,
    largest,
)
from fairseq_l2t.plugin.doctor.padded_pairs import described_lengths, dev_pairs
from fairseq_l2t.unroll.adjoint_sweep import hypergradient, pull_back
from fairseq_l2t.unroll.gradients import student_gradient
from fairseq_l2t.unroll.trajectory import Step, Trajectory, unroll

__all__ = [
    "GENTLER",
    "UPDATES",
    "dev_gradient_check",
    "dropout_check",
    "hypergradient_checks",
    "pairs_check",
    "short_unroll",
]

UPDATES = 2
"""Number of updates of the unroll whose hypergradient is checked."""

GENTLER = "a smaller --lr, --clip-norm, or a larger --adam-eps"
"""Remedy for numbers that are not finite and for derivatives that are too rough for differences."""

_SEED = 0
_DEV_PAIRS = 2
_TOLERANCE = 1e-5
"""Relative uncertainty of differences of whole unrolls below which no smaller distance is tried."""

_BOUND_OF_DTYPE = {"float32": 1e-3, "bfloat16": 0.3}
"""Largest accepted relative error in the dtype of the student's training."""


def short_unroll(examined: ExaminedStudent, teacher: Teacher, updates: int = UPDATES) -> Trajectory:
    """Make a few updates under the teacher and save each completely.

    Raises:
        NonFiniteError: NaN or infinity in a loss or gradient.
    """
    trajectory = unroll(examined, teacher, updates)
    if not isinstance(trajectory, Trajectory):
        raise TypeError(f"unroll without a memory plan: {type(trajectory).__name__}; expected a Trajectory")
    return trajectory


def pairs_check(examined: ExaminedStudent, step: Step) -> Check:
    """Return a check with the lengths of the pairs of an update, which differ if the data have such pairs."""
    (sample,) = step.batch
    padding = examined.student.task.target_dictionary.pad()
    lengths = torch.stack((sample["net_input"]["src_lengths"], sample["target"].ne(padding).sum(1)), 1)
    return Check("pairs", True, described_lengths(lengths.tolist()))


def dropout_check(examined: ExaminedStudent, step: Step) -> Check:
    """Compute the gradient of an update twice: the bits must be the same."""

    def gradient(update: int) -> Tensor:
        return student_gradient(examined, step.batch, step.coefficients, update)

    first, again, other = gradient(step.update), gradient(step.update), gradient(step.update + 1)
    is_same = torch.equal(first, again)
    draws = "another update draws other masks" if not torch.equal(first, other) else "nothing is drawn"
    return Check(
        "replay of dropout",
        is_same,
        f"the same bits twice; {draws}" if is_same else "another gradient from the same seed",
        "a module without state of its own, that draws from torch's global generator alone",
    )


def dev_gradient_check(examined: ExaminedStudent) -> Check:
    """Compare the gradient of the dev measure at the student's parameters, in float64, with its differences."""
    student = examined.student
    pairs, start = dev_pairs(student.dev, _DEV_PAIRS), student.omega.clone()
    gradient = student.dev_objective("likelihood", pairs=pairs)[1]

    def compare(seed: int) -> Comparison:
        direction = unit_direction(start, seed)

        def moved(distance: float) -> float:
            student.set_omega(start + distance * direction)
            return student.dev_objective("likelihood", pairs=pairs)[0]

        slope = slope_at_zero(moved, 1e-3, tolerance=_TOLERANCE, halvings=HALVINGS, shrink=SHRINK)
        return Comparison(float(torch.dot(gradient, direction)), slope)

    try:
        one = compare(_SEED)
        is_good = is_trusted(one) or all(is_trusted(compare(_SEED + more)) for more in range(1, DIRECTIONS))
    finally:
        student.set_omega(start)
    return Check("gradient of the dev measure", is_good, described(one), LEAVE_OUT)


def hypergradient_checks(examined: ExaminedStudent, teacher: Teacher) -> Iterator[Check]:
    """Yield checks of the hypergradient of a short unroll, in float64 and in the student's own dtype.

    Args:
        examined: in float64; a new life begins.
        teacher: in float64.
    """
    student = examined.student
    pairs = dev_pairs(student.dev, _DEV_PAIRS)

    def measure() -> float:
        return student.dev_objective("likelihood", pairs=pairs)[0]

    student.restart(student.seed)
    examined.settle()
    start = measure()
    trajectory = short_unroll(examined, teacher)
    end, grad_omega = student.dev_objective("likelihood", pairs=pairs)
    yield Check(
        "dev measure follows the weights",
        end != start,
        f"moves by {end - start:.0e} in {UPDATES} updates",
        "a model that evaluates with the weights it is given",
    )
    ours = hypergradient(trajectory, grad_omega)

    def compare(seed: int) -> Comparison:
        direction = unit_direction(ours["values"], seed)
        return compare_hypergradient(
            trajectory, ours, measure, "values", direction, tolerance=_TOLERANCE, halvings=HALVINGS, shrink=SHRINK
        )

    one = compare(_SEED)
    is_good = is_trusted(one) or all(is_trusted(compare(_SEED + more)) for more in range(1, DIRECTIONS))
    yield Check(f"hypergradient of {UPDATES} updates", is_good, described(one), GENTLER)
    yield from _own_precision_checks(examined, teacher, pairs)


def _own_precision_checks(examined: ExaminedStudent, teacher: Teacher, pairs: Sequence[int]) -> Iterator[Check]:
    """Compare second derivatives and hypergradient in the student's own dtype with float64 along the same path."""
    student = examined.student.to_dtype(None)
    dtype = str(student.parameters.buffer.dtype).removeprefix("torch.")
    examined.settle()
    trajectory = short_unroll(examined, copy.deepcopy(teacher).to(student.omega.dtype))
    end = student.omega.clone()
    own = hypergradient(trajectory, student.dev_objective("likelihood", pairs=pairs)[1])
    own_pulled = _pulled(examined, trajectory.steps[0])
    student.to_dtype(torch.float64)
    student.set_omega(end.double())
    again = Trajectory(examined, teacher, [step.to(student.omega) for step in trajectory.steps])
    exact = hypergradient(again, student.dev_objective("likelihood", pairs=pairs)[1])
    # The second derivatives have little part in the hypergradient of two updates: they are compared by themselves.
    for name, found, expected in (
        ("second derivatives", {"": own_pulled}, {"": _pulled(examined, again.steps[0])}),
        ("hypergradient", own, exact),
    ):
        error = largest(float((found[key].double() - part).norm() / part.norm()) for key, part in expected.items())
        text = f"{error:.0e} from float64 along the same path"
        yield Check(f"{name} in {dtype}", error <= _BOUND_OF_DTYPE[dtype], text, GENTLER)


def _pulled(examined: ExaminedStudent, step: Step) -> Tensor:
    """Return ``J^T v`` (n,) of an update for a random v."""
    random = torch.randn(len(step.omega), generator=torch.Generator().manual_seed(_SEED)).to(step.omega)
    ((pulled, _),) = pull_back(examined, step, [random])
    return pulled

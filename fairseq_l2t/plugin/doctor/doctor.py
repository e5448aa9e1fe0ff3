"""Can the hypergradients of this student be trusted? Checks at small size, on real batches, each with its remedy.

Every check compares what the program computes with something that cannot share its mistakes: finite differences of the
student's real gradient, fairseq's own optimizer, a second run from the same seed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from fairseq.optim import build_optimizer
from torch import Tensor

from fairseq_l2t.checks.differences import (
    Comparison,
    compare_adjoint,
    compare_hypergradient,
    spread,
    unit_direction,
)
from fairseq_l2t.kernels.twice_differentiable import attribute_replaced
from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.plugin.doctor.findings import BOUND, DIRECTIONS, DISTANCES, Check, is_trusted, said
from fairseq_l2t.plugin.doctor.module_checks import places_by_owner, second_derivative_checks
from fairseq_l2t.plugin.student.fairseq_student import FairseqStudent
from fairseq_l2t.plugin.student.second_derivatives import unvouched_fairseq_modules
from fairseq_l2t.unroll.adjoint_sweep import hypergradient, pull_back
from fairseq_l2t.unroll.gradients import student_gradient
from fairseq_l2t.unroll.student import NonFiniteError
from fairseq_l2t.unroll.trajectory import Step, Trajectory, unroll
from fairseq_l2t.unroll.update_rules import NAG, SGD, Clipping, StepSize

__all__ = ["Doctor", "DoctorError", "quick_check"]

_OWN_BOUND = {"float32": 1e-3, "bfloat16": 0.3}
"""Largest relative error that is trusted in the dtype the student is trained in."""

_PAIRS, _STEPS, _SEED = 2, 2, 0
_OPTIMIZER_NUMBERS, _OPTIMIZER_BOUND = 64, 1e-6
_ADJOINT_SIZE = StepSize(0.5, 1.0, 2)
"""Large, whatever --lr is: at a small rate omega' is omega, and a wrong slope of the rest would drown. And halved, as
nag corrects its momentum for changes of the rate."""

_WHOLE_TOLERANCE = 1e-5
"""Where differences of whole unrolls are known so well, no smaller distance is tried."""

_GENTLER = "a smaller --lr, --clip-norm, or a larger --adam-eps"


class DoctorError(ValueError):
    """A student whose hypergradients cannot be trusted; the message holds the checks that failed."""


class Doctor:
    """The checks of one student.

    Args:
        student: at the beginning of its life; when the checks are over a new one begins, in the student's own dtype.
    """

    def __init__(self, student: FairseqStudent) -> None:
        self._student = student

    def checks(self) -> Iterator[Check]:
        """Yield every check as it is made."""
        try:
            yield from self._all_checks()
        except NonFiniteError as error:
            yield Check("finite numbers", False, str(error), _GENTLER)

    def _all_checks(self) -> Iterator[Check]:
        student = self._student
        yield from self._modules()
        yield self._reached()
        yield self._optimizer()
        try:
            student.to_dtype(torch.float64)
            teacher = self._teacher()
            with self._small_updates():
                trajectory = unroll(student, teacher, _STEPS)
                step = trajectory.steps[0]
                has_second_derivatives = yield from second_derivative_checks(student, step, places_by_owner(student))
                yield self._adjoint_of_the_rule()
                yield self._dropout(step)
                if has_second_derivatives:
                    yield from self._whole(teacher)
        finally:
            student.to_dtype(None)

    def quick_checks(self) -> Iterator[Check]:
        """Yield the quick form: the optimizer, and the second derivatives at one update, all modules at once."""
        student = self._student
        yield self._optimizer()
        try:
            student.to_dtype(torch.float64)
            with self._small_updates():
                step = unroll(student, self._teacher(), 1).steps[0]
                yield from second_derivative_checks(student, step, {"all modules": [slice(None)]})
        finally:
            student.to_dtype(None)

    # --- the parts --------------------------------------------------------------------------------------------

    def _teacher(self) -> Teacher:
        form = self._student.options.namespace.coefficient_form
        teacher = Teacher.for_student(self._student, keys=3, seed=_SEED, form=form)
        return spread(teacher, _SEED).to(self._student.omega.device)

    @contextmanager
    def _small_updates(self) -> Iterator[None]:
        """Updates on a few pairs of each real batch, under the teacher, at --lr, from a settled optimizer state.

        A warm-up's first rates move nothing that differences could see; and from a state of zeros adam and adagrad
        move by the sign of the gradient, which jumps.
        """
        student, real = self._student, self._student.next_batch
        with ExitStack() as stack:
            # Cross-entropy at the start of a life would leave the coefficients out of the check.
            stack.enter_context(attribute_replaced(student, "cross_entropy_updates", 0))
            stack.enter_context(
                attribute_replaced(student, "next_batch", lambda: student.few_pairs(real()[:1], _PAIRS))
            )
            # triangular's --lr is its lowest rate.
            given = vars(student.options.namespace).get("max_lr")
            lr = float(given or student.options.cfg.optimization.lr[0])
            stack.enter_context(attribute_replaced(student, "step_size", lambda: StepSize(lr, lr, student.update + 1)))
            self._settle()
            yield

    def _settle(self) -> None:
        """Give adam and adagrad the second moments they would have after large gradients everywhere: a gentle start."""
        student = self._student
        if student.rule.buffer_count and not isinstance(student.rule, SGD | NAG):
            batch = student.next_batch()
            square = student_gradient(student, batch, None, 0).square().max()
            student.buffers = (*student.buffers[:-1], torch.full_like(student.omega, float(square)))

    def _modules(self) -> Iterator[Check]:
        model = self._student.model
        unvouched = unvouched_fairseq_modules(model)
        trusted = set(self._student.options.namespace.trust_module)
        classes = {type(part) for part in model.modules()}
        first_of = {name: path for path, name in reversed(unvouched)}
        yield Check("modules", True, f"{len(classes)} classes, {len(first_of)} of them unknown here")
        for name, path in first_of.items():
            found = "you answer for it" if name in trusted else "nobody has vouched for it"
            remedy = f"if what is measured below is right, --trust-module {name}"
            yield Check(f"module {name}", name in trusted, f"at {path}: {found}", remedy)

    def _reached(self) -> Check:
        names = [name for name, parameter in self._student.model.named_parameters() if parameter.requires_grad]
        left_out = sorted(set(names) - set(self._student.parameters.names))
        found = f"{len(self._student.parameters):,} parameters; never reached by the loss and left out: "
        return Check("parameters", True, found + (", ".join(left_out) or "none"))

    def _optimizer(self) -> Check:
        """Three updates of the rule and of fairseq's own optimizer, from the same start, by the same gradients."""
        student, rule = self._student, self._student.rule
        generator = torch.Generator().manual_seed(_SEED)
        start = omega = torch.randn(_OPTIMIZER_NUMBERS, generator=generator, dtype=torch.float64)
        parameter = torch.nn.Parameter(omega.clone())
        buffers = tuple(torch.zeros_like(omega) for _ in range(rule.buffer_count))
        optimizer = build_optimizer(student.options.cfg.optimizer, [parameter])
        lr = previous = optimizer.get_lr()
        for count in (1, 2, 3):
            gradient = torch.randn(_OPTIMIZER_NUMBERS, generator=generator, dtype=torch.float64)
            omega, buffers = rule.apply(omega, buffers, gradient, StepSize(lr, previous, count))
            parameter.grad = gradient.clone()
            optimizer.set_lr(lr)
            optimizer.step()
            lr, previous = lr / 2, lr
        # Against the movement, which at a small --lr is a small part of omega.
        gap = float((parameter.detach() - omega).abs().max() / (omega - start).abs().max())
        name = student.options.cfg.optimizer._name
        return Check(
            f"update by {name}",
            gap <= _OPTIMIZER_BOUND,
            f"{gap:.0e} from fairseq's own after 3 updates",
            "another --optimizer (adam, nag, sgd, adagrad)",
        )

    def _adjoint_of_the_rule(self) -> Check:
        rule, clipping = self._student.rule, Clipping(self._student.clipping.max_norm)
        error = _largest(compare_adjoint(rule, clipping, _ADJOINT_SIZE, seed) for seed in range(DIRECTIONS))
        return Check(
            "adjoint of optimizer and clipping",
            error <= BOUND,
            f"{error:.0e} from differences",
            "another --optimizer (adam, nag, sgd, adagrad)",
        )

    def _dropout(self, step: Step) -> Check:
        def gradient(update: int) -> Tensor:
            return student_gradient(self._student, step.batch, step.coefficients, update)

        first, again, other = gradient(step.update), gradient(step.update), gradient(step.update + 1)
        is_same = torch.equal(first, again)
        draws = "another update draws other masks" if not torch.equal(first, other) else "nothing is drawn"
        found = f"the same bits twice; {draws}" if is_same else "another gradient from the same seed"
        return Check(
            "replay of dropout",
            is_same,
            found,
            "a module without state of its own, that draws from torch's global generator alone",
        )

    def _whole(self, teacher: Teacher) -> Iterator[Check]:
        student = self._student
        pairs = student.dev.teaching[:_PAIRS]

        def measure() -> float:
            return student.dev_objective("likelihood", pairs=pairs)[0]

        student.restart(student.seed)
        self._settle()
        start = measure()
        trajectory = unroll(student, teacher, _STEPS)
        end, grad_omega = student.dev_objective("likelihood", pairs=pairs)
        yield Check(
            "dev measure follows the weights",
            end != start,
            f"moves by {end - start:.0e} in {_STEPS} updates",
            "a model that evaluates with the weights it is given",
        )
        ours = hypergradient(trajectory, grad_omega)

        def compare(seed: int) -> Comparison:
            return compare_hypergradient(
                trajectory,
                ours,
                measure,
                "values",
                unit_direction(ours["values"], seed),
                tolerance=_WHOLE_TOLERANCE,
                **DISTANCES,
            )

        one = compare(_SEED)
        is_good = is_trusted(one) or all(is_trusted(compare(_SEED + more)) for more in range(1, DIRECTIONS))
        yield Check(f"hypergradient of {_STEPS} updates", is_good, said(one), _GENTLER)
        yield from self._own_precision(teacher, pairs)

    def _own_precision(self, teacher: Teacher, pairs: Sequence[int]) -> Iterator[Check]:
        """Second derivatives and hypergradient in the student's own dtype, against float64 along the same path."""
        student = self._student.to_dtype(None)
        kind = str(student.parameters.buffer.dtype).removeprefix("torch.")
        self._settle()
        trajectory = unroll(student, copy.deepcopy(teacher).to(student.omega.dtype), _STEPS)
        end = student.omega.clone()
        own = hypergradient(trajectory, student.dev_objective("likelihood", pairs=pairs)[1])
        own_pulled = self._pulled(trajectory.steps[0])
        student.to_dtype(torch.float64)
        student.set_omega(end.double())
        again = Trajectory(student, teacher, [step.to(student.omega) for step in trajectory.steps])
        exact = hypergradient(again, student.dev_objective("likelihood", pairs=pairs)[1])
        # Two updates hold little of the second derivatives: they are compared by themselves.
        for name, found, expected in (
            ("second derivatives", {"": own_pulled}, {"": self._pulled(again.steps[0])}),
            ("hypergradient", own, exact),
        ):
            error = _largest(float((found[key].double() - part).norm() / part.norm()) for key, part in expected.items())
            said = f"{error:.0e} from float64 along the same path"
            yield Check(f"{name} in {kind}", error <= _OWN_BOUND[kind], said, _GENTLER)

    def _pulled(self, step: Step) -> Tensor:
        random = torch.randn(len(step.omega), generator=torch.Generator().manual_seed(_SEED)).to(step.omega)
        ((pulled, _),) = pull_back(self._student, step, [random])
        return pulled


def _largest(errors: Iterable[float]) -> float:
    """Return the largest error; NaN, which ``max`` would pass over, is larger than any bound."""
    return max(math.inf if math.isnan(error) else error for error in errors)


def quick_check(student: FairseqStudent) -> list[Check]:
    """Make the quick checks of a student that is about to be taught; its life begins anew.

    Raises:
        DoctorError: a check failed.
    """
    try:
        checks = list(Doctor(student).quick_checks())
    except NonFiniteError as error:
        raise DoctorError(f"quick check: {error}") from error
    failed = [str(check) for check in checks if not check.is_good]
    if failed:
        raise DoctorError("hypergradients cannot be trusted (l2t-doctor tells more): " + " | ".join(failed))
    return checks

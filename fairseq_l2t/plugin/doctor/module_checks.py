"""Checks of a student's modules: verified classes, parameters with a gradient, second derivatives."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from fairseq_l2t.checks.differences import Comparison, compare_update
from fairseq_l2t.plugin.doctor.findings import DIRECTIONS, HALVINGS, LEAVE_OUT, SHRINK, Check, described, is_trusted
from fairseq_l2t.plugin.student.fairseq_student import FairseqStudent
from fairseq_l2t.plugin.student.second_derivatives import unverified_fairseq_modules
from fairseq_l2t.unroll.student import Student
from fairseq_l2t.unroll.trajectory import Step

__all__ = ["class_checks", "places_by_owner", "reached_check", "second_derivative_checks"]

Places = dict[str, list[slice]]
"""Parts of the vector of parameters (n,), by name."""

_SEED = 0
_COEFFICIENTS = "coefficients"
"""Name of the check along Phi; the others have the names of places."""

_TOLERANCE = 1e-6
"""Relative uncertainty of differences below which no smaller distance is tried."""

_REACH = (
    "a model whose output depends on its parameters, with derivatives, and options with which the loss uses the "
    "coefficients (--cross-entropy-mix below 1)"
)
"""Remedy for a teacher without influence."""

_WORDS_OF_DERIVATIVES = ("derivative", "differentia", "backward", "grad")
"""Words in PyTorch's errors about missing derivatives; each such error contains one of them."""


def class_checks(student: FairseqStudent) -> Iterator[Check]:
    """Yield one check of all module classes, then one for each class that is not verified."""
    model = student.model
    unverified = unverified_fairseq_modules(model)
    trusted = set(student.options.namespace.trust_module)
    classes = {type(part) for part in model.modules()}
    first_of = {name: path for path, name in reversed(unverified)}
    yield Check("modules", True, f"{len(classes)} classes, {len(first_of)} of them not verified")
    for name, path in first_of.items():
        found = "accepted by --trust-module" if name in trusted else "not verified"
        remedy = f"if the checks below pass, --trust-module {name}"
        yield Check(f"module {name}", name in trusted, f"at {path}: {found}", remedy)


def reached_check(student: FairseqStudent) -> Check:
    """Return a check with the number of parameters and the names of those without a gradient."""
    names = [name for name, parameter in student.model.named_parameters() if parameter.requires_grad]
    left_out = sorted(set(names) - set(student.parameters.names))
    found = f"{len(student.parameters):,} parameters; never reached by the loss and left out: "
    return Check("parameters", True, found + (", ".join(left_out) or "none"))


def places_by_owner(student: FairseqStudent) -> Places:
    """Return the places of the parameters of each module class in the vector."""
    places: Places = {}
    offset = 0
    for name, size in zip(student.parameters.names, student.parameters.sizes, strict=True):
        path = name.rpartition(".")[0]
        owner = type(student.model.get_submodule(path)).__name__
        places.setdefault(f"{path.split('.')[0]} {owner}", []).append(slice(offset, offset + size))
        offset += size
    return places


def second_derivative_checks(student: Student, step: Step, places: Places) -> Generator[Check, None, bool]:
    """Yield a check for each place and for the coefficients; return whether both have second derivatives.

    Args:
        student: in float64.
        step: the examined update.
        places: the parts of the parameters, which are checked separately.
    """
    random = torch.randn(len(step.omega), generator=torch.Generator().manual_seed(_SEED)).to(step.omega)
    whole = {_COEFFICIENTS: [slice(None)]}
    try:
        found = _verdicts(student, step, random, places, "parameters")
        found |= _verdicts(student, step, random, whole, "coefficients")
    except torch.cuda.OutOfMemoryError:  # a RuntimeError that says nothing of derivatives
        raise
    except RuntimeError as error:
        if not any(word in str(error) for word in _WORDS_OF_DERIVATIVES):
            raise
        yield Check(
            "second derivatives",
            False,
            " ".join(str(error).split())[:200],
            "a module written with operations that are differentiable twice",
        )
        return False
    for name, (is_good, one) in found.items():
        if name == _COEFFICIENTS and one.ours == one.slope.value == 0:
            unused = "the student's update does not depend on them: the teacher would learn nothing"
            yield Check(f"second derivatives, {name}", False, unused, _REACH)
            return False
        yield Check(f"second derivatives, {name}", is_good, described(one), LEAVE_OUT)
    return True


def _verdicts(
    student: Student, step: Step, vector: Tensor, places: Places, along: Literal["parameters", "coefficients"]
) -> dict[str, tuple[bool, Comparison]]:
    """Return for each place whether its second derivatives are correct, and the comparison."""

    def compare(names: Iterable[str], seed: int) -> dict[str, Comparison]:
        confined = _Confined(vector, {name: places[name] for name in names})
        return compare_update(
            student, step, confined, seed=seed, along=along, tolerance=_TOLERANCE, halvings=HALVINGS, shrink=SHRINK
        )

    first = compare(places, _SEED)
    verdicts = {name: (is_trusted(one), one) for name, one in first.items()}
    doubtful = [name for name, one in first.items() if not is_trusted(one)]
    if doubtful:
        others = [compare(doubtful, seed) for seed in range(_SEED + 1, _SEED + DIRECTIONS)]
        for name in doubtful:
            is_good = all(is_trusted(other[name]) for other in others)
            verdicts[name] = (is_good, others[0][name] if is_good else first[name])
    return verdicts


class _Confined(Mapping[str, Tensor]):
    """A vector (n,) restricted to one of its places, by name; built on demand, so that only one is in memory."""

    def __init__(self, vector: Tensor, places: Places) -> None:
        self._vector, self._places = vector, places

    def __getitem__(self, name: str) -> Tensor:
        confined = torch.zeros_like(self._vector)
        for place in self._places[name]:
            confined[place] = self._vector[place]
        return confined

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

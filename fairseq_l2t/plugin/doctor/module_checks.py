"""The second derivatives of a student's modules against differences of its real gradient: part of `plugin.doctor.doctor`."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from fairseq_l2t.checks.differences import Comparison, compare_update
from fairseq_l2t.plugin.doctor.findings import DIRECTIONS, DISTANCES, Check, is_trusted, said
from fairseq_l2t.plugin.student.fairseq_student import FairseqStudent
from fairseq_l2t.unroll.trajectory import Step

__all__ = ["places_by_owner", "second_derivative_checks"]

_SEED = 0
_UPDATE_TOLERANCE = 1e-6
"""Where differences are known so well, no smaller distance is tried."""

_LEAVE_OUT = "leave out what is new in it, one module or option at a time (README: What is taught exactly)"

_OF_DERIVATIVES = ("derivative", "differentia", "backward", "grad")
"""One of them is in whatever PyTorch says of a derivative it does not have."""


def places_by_owner(student: FairseqStudent) -> dict[str, list[slice]]:
    """Return where the parameters of each kind of module lie in the vector."""
    places: dict[str, list[slice]] = {}
    offset = 0
    for name, size in zip(student.parameters.names, student.parameters.sizes, strict=True):
        path = name.rpartition(".")[0]
        owner = type(student.model.get_submodule(path)).__name__
        places.setdefault(f"{path.split('.')[0]} {owner}", []).append(slice(offset, offset + size))
        offset += size
    return places


def second_derivative_checks(
    student: FairseqStudent, step: Step, places: dict[str, list[slice]]
) -> Generator[Check, None, bool]:
    """Yield a check for each place, and for the coefficients; return whether PyTorch has all the derivatives.

    Args:
        student: in float64.
        step: the update that is looked at.
        places: parts of the vector of parameters, by name.
    """
    random = torch.randn(len(step.omega), generator=torch.Generator().manual_seed(_SEED)).to(step.omega)
    whole = {"coefficients": [slice(None)]}
    try:
        found = _agreement(student, step, random, places, "parameters")
        found |= _agreement(student, step, random, whole, "coefficients")
    except torch.cuda.OutOfMemoryError:  # a RuntimeError too, which says nothing of derivatives
        raise
    except RuntimeError as error:
        if not any(word in str(error) for word in _OF_DERIVATIVES):
            raise
        yield Check(
            "second derivatives",
            False,
            " ".join(str(error).split())[:200],
            "a module written with operations that are differentiable twice",
        )
        return False
    for name, (is_good, one) in found.items():
        yield Check(f"second derivatives, {name}", is_good, said(one), _LEAVE_OUT)
    return True


def _agreement(
    student: FairseqStudent, step: Step, vector: Tensor, places: dict[str, list[slice]], along: str
) -> dict[str, tuple[bool, Comparison]]:
    def compare(names: Iterable[str], seed: int) -> dict[str, Comparison]:
        confined = _Confined(vector, {name: places[name] for name in names})
        return compare_update(student, step, confined, seed=seed, along=along, tolerance=_UPDATE_TOLERANCE, **DISTANCES)

    first = compare(places, _SEED)
    verdicts = {name: (is_trusted(one), one) for name, one in first.items()}
    doubtful = [name for name, one in first.items() if not is_trusted(one)]
    if doubtful:
        others = [compare(doubtful, seed) for seed in range(_SEED + 1, _SEED + DIRECTIONS)]
        for name in doubtful:
            is_good = all(is_trusted(other[name]) for other in others)
            verdicts[name] = (is_good, others[0][name] if is_good else first[name])
    return verdicts


class _Confined(Mapping):
    """A vector (n,) confined to some of its places, by name; made when it is asked for, to keep only one at a time."""

    def __init__(self, vector: Tensor, places: dict[str, list[slice]]) -> None:
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

"""The teacher network, a function from a student's state to the coefficients of its loss.

Source: Wu et al., "Learning to Teach with Dynamic Loss Functions", NeurIPS 2018, section 3.2 and
Figure 2b: ``Phi_t = W softmax(V s_t)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

__all__ = [
    "COEFFICIENT_FORMS",
    "DEFAULT_INITIAL_COEFFICIENT",
    "DEFAULT_KEYS",
    "VOCABULARY_FORMS",
    "Teacher",
    "coefficient_count",
]

COEFFICIENT_FORMS = ("diagonal", "smoothed", "full")
"""Forms of Phi. ``diagonal``: a vector, one coefficient per entry (translation). ``smoothed``: that vector followed by
one coefficient of the mean log-probability of all entries, the additional term of label smoothing; it equals a full Phi
with equal off-diagonal elements. ``full``: a matrix, row after row (classification)."""

VOCABULARY_FORMS = COEFFICIENT_FORMS[:2]
"""Forms small enough for a vocabulary."""


def coefficient_count(form: str, entries: int) -> int:
    """Return the number of coefficients of a Phi of ``form``, one of `COEFFICIENT_FORMS`, for ``entries`` entries."""
    return {"diagonal": entries, "smoothed": entries + 1, "full": entries**2}[form]


DEFAULT_KEYS = 5
"""Number of keys N for translation (the paper's appendix, as recalled in our notes)."""

DEFAULT_INITIAL_COEFFICIENT = 0.1
"""Initial Phi. ``-sigmoid(Phi log p)`` is cross-entropy times Phi / 4, minus 1/2, while ``Phi |log p|`` is small; at
0.1 its gradient for a token of p = 1e-4 is 81 % of that of the scaled cross-entropy."""

KEY_SPREAD = 0.1
"""Largest relative difference between the initial values of a key and ``initial_coefficient``."""

QUERY_DEVIATION = 0.5
"""Standard deviation of the initial queries."""

STAGE_DIRECTIONS = {"progress": 1.0, "train_loss": -1.0}
"""Features that show the stage of a student's life, with the sign of their change."""


class _SizedState(Protocol):
    @property
    def features(self) -> tuple[str, ...]: ...


class TaughtStudent(Protocol):
    """The part of `unroll.student.Student` that determines the size, dtype and device of a teacher."""

    @property
    def state(self) -> _SizedState: ...

    @property
    def coefficient_count(self) -> int: ...

    @property
    def omega(self) -> Tensor: ...


class Teacher(nn.Module):
    """Coefficients ``Phi_t = W softmax(V s_t)`` of a dynamic loss.

    Args:
        features: names of the student features in the state, in order.
        entries: number of target entries (size of the target vocabulary, or number of classes).
        keys: number N of keys of the attention.
        initial_coefficient: mean initial value of every coefficient; for a full Phi, of those on its diagonal.
        seed: seed of the initial queries V.
        stage_spread: initial spread of the keys over the stages of a life. Multiples of (progress minus training
            loss), from -stage_spread to stage_spread, are added to V. At 0 all keys share the whole life, and
            hypergradients change them together. At about 4 the first key applies to its beginning and the last to its
            end, so that the coefficients of one stage can be learned independently of another.
        form: one of `COEFFICIENT_FORMS`.
        initial_off_diagonal: initial value of the off-diagonal coefficients of a full Phi, or of the last coefficient
            of a smoothed Phi, equal for all keys.

    The columns of W start at *different* multiples of ``initial_coefficient`` (within 10 % of it). Equal columns
    would make ``Phi`` independent of V, whose hypergradient would then be exactly zero: the teacher could never
    become dynamic. For the same reason V starts random, not at zero.

    Raises:
        ValueError: no features, repeated features, a size below 1, an unknown form, a spread below 0 or not finite,
            or an off-diagonal start of a diagonal Phi.

    Example:
        >>> import torch
        >>> from fairseq_l2t.core import Teacher
        >>> teacher = Teacher(["progress", "train_loss"], entries=4, keys=3)
        >>> teacher(torch.tensor([0.0, 1.0])).shape
        torch.Size([4])
    """

    def __init__(
        self,
        features: Sequence[str],
        entries: int,
        *,
        keys: int = DEFAULT_KEYS,
        initial_coefficient: float = DEFAULT_INITIAL_COEFFICIENT,
        seed: int = 0,
        stage_spread: float = 0.0,
        form: str = "diagonal",
        initial_off_diagonal: float = 0.0,
    ) -> None:
        super().__init__()
        if form not in COEFFICIENT_FORMS:
            raise ValueError(f"coefficient form: {form!r}; expected {' or '.join(COEFFICIENT_FORMS)}")
        if not features or len(set(features)) != len(features):
            raise ValueError(f"features: {list(features)}; expected at least one name, none twice")
        if entries < 1:
            raise ValueError(f"entries: {entries}; expected at least 1")
        if keys < 1:
            raise ValueError(f"keys: {keys}; expected at least 1")
        if not (stage_spread >= 0 and math.isfinite(stage_spread)):
            raise ValueError(f"--stage-spread: {stage_spread}; expected a finite number of at least 0")
        if initial_off_diagonal and form == "diagonal":
            raise ValueError(f"initial off-diagonal coefficient: {initial_off_diagonal}; expected 0 for a diagonal Phi")
        self.features, self.entries, self.form = tuple(features), entries, form
        spread = torch.linspace(-KEY_SPREAD, KEY_SPREAD, keys) if keys > 1 else torch.zeros(1)
        generator = torch.Generator().manual_seed(seed)
        queries = torch.randn(keys, len(features), generator=generator) * QUERY_DEVIATION
        values = (initial_coefficient * (1 + spread)).repeat(entries, 1)
        if form == "full":
            off_diagonal = ~torch.eye(entries, dtype=torch.bool).reshape(-1)
            values = values.repeat_interleave(entries, dim=0)
            values = values.masked_fill(off_diagonal.unsqueeze(1), initial_off_diagonal)
        elif form == "smoothed":
            values = torch.cat([values, torch.full((1, keys), float(initial_off_diagonal))])
        self.values = nn.Parameter(values)
        stages = torch.tensor([STAGE_DIRECTIONS.get(name, 0.0) for name in features])
        if keys > 1:
            queries += stage_spread * torch.linspace(-1.0, 1.0, keys).unsqueeze(1) * stages
        self.queries = nn.Parameter(queries)

    @classmethod
    def for_student(
        cls,
        student: TaughtStudent,
        keys: int = DEFAULT_KEYS,
        seed: int = 0,
        initial_coefficient: float = DEFAULT_INITIAL_COEFFICIENT,
        stage_spread: float = 0.0,
        form: str = "diagonal",
        initial_off_diagonal: float = 0.0,
    ) -> Teacher:
        """Return a teacher for ``student``, with its features, vocabulary, dtype and device; see `Teacher`."""
        teacher = cls(
            student.state.features,
            student.coefficient_count,
            keys=keys,
            seed=seed,
            initial_coefficient=initial_coefficient,
            stage_spread=stage_spread,
            form=form,
            initial_off_diagonal=initial_off_diagonal,
        )
        return teacher.to(device=student.omega.device, dtype=student.omega.dtype)

    @property
    def coefficient_count(self) -> int:
        """Number of coefficients: ``entries`` (diagonal), ``entries + 1`` (smoothed) or ``entries ** 2`` (full)."""
        return coefficient_count(self.form, self.entries)

    @property
    def keys(self) -> int:
        """Number N of keys."""
        return self.values.shape[1]

    @property
    def rows(self) -> dict[str, slice | Tensor]:
        """Index of the coefficients ``of_targets`` and, unless Phi is diagonal, of the others, ``off_diagonal``."""
        if self.form == "diagonal":
            return {"of_targets": slice(None)}
        if self.form == "smoothed":
            return {"of_targets": slice(self.entries), "off_diagonal": slice(self.entries, None)}
        diagonal = torch.eye(self.entries, dtype=torch.bool, device=self.values.device).reshape(-1)
        return {"of_targets": diagonal, "off_diagonal": ~diagonal}

    def statistics(self, coefficients: Tensor) -> dict[str, float]:
        """Return minimum, mean and maximum of ``coefficients`` (coefficient_count,), by their names in logs.

        Unless Phi is diagonal, also the mean of the off-diagonal coefficients; for a smoothed Phi the other numbers do
        not include the last coefficient.
        """
        phi, rows = coefficients.detach(), self.rows
        words = phi[rows["of_targets"]] if self.form == "smoothed" else phi
        found = {"phi_min": float(words.min()), "phi_mean": float(words.mean()), "phi_max": float(words.max())}
        if "off_diagonal" in rows:
            found["phi_off_diagonal"] = float(phi[rows["off_diagonal"]].mean())
        return found

    def forward(self, state: Tensor) -> Tensor:
        """Return the coefficients ``Phi_t`` (coefficient_count,) for the state ``s_t`` (features,)."""
        return self.values @ torch.softmax(self.queries @ state, dim=0)

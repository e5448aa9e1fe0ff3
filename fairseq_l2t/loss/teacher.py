"""The teacher network: the state of a student in, the coefficients of its loss out.

Source: Wu et al., "Learning to Teach with Dynamic Loss Functions", NeurIPS 2018, section 3.2 and
Figure 2b: ``Phi_t = W softmax(V s_t)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
"""Phi as a vector, one coefficient an entry (translation); that vector and, last, the one coefficient of the mean
log-probability of all entries, which is what label smoothing has beside the target; or Phi as a matrix, row after row
(classification). A smoothed Phi is a full one whose off-diagonals are all the same."""

VOCABULARY_FORMS = COEFFICIENT_FORMS[:2]
"""Those that a vocabulary has room for."""


def coefficient_count(form: str, entries: int) -> int:
    """Return how many coefficients a Phi of ``form``, one of `COEFFICIENT_FORMS`, has for so many entries."""
    return {"diagonal": entries, "smoothed": entries + 1, "full": entries**2}[form]


DEFAULT_KEYS = 5
"""Number of keys N for translation (the paper's appendix, as recalled in our notes)."""

DEFAULT_INITIAL_COEFFICIENT = 0.1
"""Phi at the start. ``-sigmoid(Phi log p)`` is cross-entropy times Phi / 4, less 1/2, while ``Phi |log p|``
is small; at 0.1 its gradient for a token of p = 1e-4 is still 81 % of the scaled cross-entropy's."""

_KEY_SPREAD = 0.1
_QUERY_DEVIATION = 0.5
_STAGES = {"progress": 1.0, "train_loss": -1.0}
"""Features that tell how far a student is, and the direction they move in."""


class Teacher(nn.Module):
    """Coefficients ``Phi_t = W softmax(V s_t)`` of a dynamic loss.

    Args:
        features: names of the student features that make up the state, in order.
        entries: number of target entries (size of the target vocabulary, or number of classes).
        keys: number N of keys the attention chooses from.
        initial_coefficient: value around which every coefficient starts; of a full Phi those on its diagonal, the
            others start at ``initial_off_diagonal``.
        seed: seed of the initial queries V.
        stage_spread: how far the keys are spread over the stages of a life at the start: added to V are multiples
            from -stage_spread to stage_spread of progress minus training loss. At 0 all keys share all of a life, and
            hypergradients move them together; at 4 or so the first key has its beginning and the last its end, so
            that the coefficients of one stage can learn without those of another.
        form: one of `COEFFICIENT_FORMS`.
        initial_off_diagonal: where the coefficients beside the diagonal start, all columns alike: those of a full
            Phi, or the last one of a smoothed Phi.

    The columns of W start at *different* multiples of ``initial_coefficient`` (within 10 % of it). Equal columns
    would make ``Phi`` independent of V, whose hypergradient were then exactly zero: the teacher could never
    become dynamic. For the same reason V starts random, not at zero.

    Raises:
        ValueError: no features, repeated features, a size below 1, an unknown form, a spread below 0 or not finite,
            or a start beside the diagonal of a Phi that has nothing there.
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
            raise ValueError(f"start beside the diagonal: {initial_off_diagonal}; a diagonal Phi has nothing there")
        self.features, self.entries, self.form = tuple(features), entries, form
        spread = torch.linspace(-_KEY_SPREAD, _KEY_SPREAD, keys) if keys > 1 else torch.zeros(1)
        generator = torch.Generator().manual_seed(seed)
        queries = torch.randn(keys, len(features), generator=generator) * _QUERY_DEVIATION
        values = (initial_coefficient * (1 + spread)).repeat(entries, 1)
        if form == "full":
            off_diagonal = ~torch.eye(entries, dtype=torch.bool).reshape(-1)
            values = values.repeat_interleave(entries, dim=0)
            values = values.masked_fill(off_diagonal.unsqueeze(1), initial_off_diagonal)
        elif form == "smoothed":
            values = torch.cat([values, torch.full((1, keys), float(initial_off_diagonal))])
        self.values = nn.Parameter(values)
        stages = torch.tensor([_STAGES.get(name, 0.0) for name in features])
        if keys > 1:
            queries += stage_spread * torch.linspace(-1.0, 1.0, keys).unsqueeze(1) * stages
        self.queries = nn.Parameter(queries)

    @classmethod
    def for_student(
        cls,
        student,
        keys: int = DEFAULT_KEYS,
        seed: int = 0,
        initial_coefficient: float = DEFAULT_INITIAL_COEFFICIENT,
        stage_spread: float = 0.0,
        form: str = "diagonal",
        initial_off_diagonal: float = 0.0,
    ) -> Teacher:
        """Return a teacher for ``student`` (a `unroll.student.Student`): its features, vocabulary, dtype, device."""
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
        """Number of coefficients: ``entries``, of a smoothed Phi one more, of a full one their square."""
        return coefficient_count(self.form, self.entries)

    @property
    def keys(self) -> int:
        """Number N of keys."""
        return self.values.shape[1]

    @property
    def rows(self) -> dict[str, slice | Tensor]:
        """What selects the coefficients ``of_targets`` and, where there are any, the others, ``off_diagonal``."""
        if self.form == "diagonal":
            return {"of_targets": slice(None)}
        if self.form == "smoothed":
            return {"of_targets": slice(self.entries), "off_diagonal": slice(self.entries, None)}
        diagonal = torch.eye(self.entries, dtype=torch.bool, device=self.values.device).reshape(-1)
        return {"of_targets": diagonal, "off_diagonal": ~diagonal}

    def statistics(self, coefficients: Tensor) -> dict[str, float]:
        """Return least, mean and greatest of ``coefficients`` (coefficient_count,), by the names of our logs.

        Where there are coefficients beside the diagonal, their mean as well; a smoothed Phi's is in no other number.
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

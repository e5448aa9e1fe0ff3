"""Expected sentence BLEU on dev, ``sum_y* m(y*, y) p(y* | x)``, estimated from samples of the student.

Source of the measure: Wu et al., NeurIPS 2018, section 3.3. The sum cannot be enumerated for translation. S hypotheses
are sampled for each source, for one of two estimators:

- ``reinforce`` (Williams 1992), unbiased: ``1/S sum_k (m_k - b_k) grad log p(y_k)`` with the leave-one-out
  baseline ``b_k`` of the other S - 1 rewards (Kool et al. 2019);
- ``risk`` (Shen et al. 2016, minimum risk training), biased, low variance: ``sum Q m`` with ``Q ∝ p^alpha``
  renormalised over the distinct hypotheses, differentiated exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from fairseq_l2t.objectives.dev_student import DevStudent, Hypotheses, Objective, add_gradient, required_gradient

__all__ = ["ESTIMATORS", "expected_bleu"]

Reward: TypeAlias = Callable[[str, str], float]
"""Function from (hypothesis, reference) to a reward in [0, 1]."""

Tokens: TypeAlias = tuple[int, ...]


def expected_bleu(
    student: DevStudent,
    pairs: Sequence[int],
    *,
    reward: Reward,
    samples: int,
    estimator: str,
    generator: torch.Generator,
    alpha: float = 1.0,
) -> Objective:
    """Return the estimated expected reward of ``pairs`` (numbers of dev pairs) and its gradient.

    Args:
        student: student at the parameters of interest.
        pairs: dev pairs, with equal weights.
        reward: function from (hypothesis, reference) to a reward in [0, 1], such as `SentenceBleu`.
        samples: hypotheses S for each pair.
        estimator: a name in `ESTIMATORS`.
        generator: random generator, on the student's device.
        alpha: sharpness of ``risk``; 1 is the student's own distribution over the hypotheses (Edunov et al. 2018).

    Raises:
        ValueError: no pairs, an unknown estimator, or too few samples for it.
    """
    if not pairs:
        raise ValueError("pairs: none; expected at least one dev pair")
    if estimator not in ESTIMATORS:
        raise ValueError(f"--estimator: {estimator}; expected one of {', '.join(ESTIMATORS)}")
    if samples < 2:
        raise ValueError(f"--samples: {samples}; {estimator} needs at least 2")
    drawn = student.draw(pairs, samples, generator)
    rewards = [_rewards(student, pair, row, reward) for pair, row in zip(pairs, drawn, strict=True)]
    value = 0.0
    gradient: Tensor | None = None
    for chunk in student.hypothesis_chunks(drawn):
        chunk_value, scalar = ESTIMATORS[estimator](
            student,
            [pairs[position] for position in chunk],
            [drawn[position] for position in chunk],
            [rewards[position] for position in chunk],
            alpha,
        )
        value += chunk_value
        gradient = add_gradient(gradient, student, scalar)
    return Objective(value / len(pairs), required_gradient(gradient) / len(pairs))


def _rewards(student: DevStudent, pair: int, drawn: Sequence[Tokens], reward: Reward) -> list[float]:
    """Return the reward of each hypothesis of one pair; equal hypotheses are scored once."""
    reference = student.reference_text(pair)
    known = {tokens: reward(student.hypothesis_text(tokens), reference) for tokens in dict.fromkeys(drawn)}
    return [known[tokens] for tokens in drawn]


def _reinforce(
    student: DevStudent,
    pairs: Sequence[int],
    drawn: Sequence[Sequence[Tokens]],
    rewards: Sequence[Sequence[float]],
    alpha: float,
) -> tuple[float, Tensor]:
    """Return the sum of the mean rewards and a scalar whose gradient is the estimate; ``alpha`` is not used."""
    weights: dict[tuple[int, Tokens], float] = {}
    for position, (row, values) in enumerate(zip(drawn, rewards, strict=True)):
        for tokens, value in zip(row, values, strict=True):
            # The mean difference to the others is m_k - b_k, and exactly 0 if all rewards are equal.
            advantage = sum(value - other for other in values) / (len(values) - 1)
            key = (position, tokens)
            weights[key] = weights.get(key, 0.0) + advantage / len(values)
    hypotheses = Hypotheses([owner for owner, _ in weights], [tokens for _, tokens in weights])
    with torch.enable_grad():
        log_probs = student.hypothesis_log_probs(pairs, hypotheses)
        scalar = (log_probs * log_probs.new_tensor(list(weights.values()))).sum()
    return sum(sum(values) / len(values) for values in rewards), scalar


def _risk(
    student: DevStudent,
    pairs: Sequence[int],
    drawn: Sequence[Sequence[Tokens]],
    rewards: Sequence[Sequence[float]],
    alpha: float,
) -> tuple[float, Tensor]:
    """Return the sum of the renormalised expectations, and the scalar whose gradient is the estimate."""
    distinct: dict[tuple[int, Tokens], float] = {}
    for position, (row, values) in enumerate(zip(drawn, rewards, strict=True)):
        distinct.update({(position, tokens): value for tokens, value in zip(row, values, strict=True)})
    hypotheses = Hypotheses([owner for owner, _ in distinct], [tokens for _, tokens in distinct])
    lowest = [min(values) for values in rewards]
    # Rewards relative to the lowest: Q sums to 1, so that the gradient is the same, and exactly 0 for equal rewards
    # (relative to the mean it would be its rounding error).
    relative = [value - lowest[owner] for (owner, _), value in distinct.items()]
    with torch.enable_grad():
        log_probs = student.hypothesis_log_probs(pairs, hypotheses) * alpha
        owner = torch.tensor(hypotheses.owner, device=log_probs.device)
        normaliser = _log_sum_exp_by_owner(log_probs, owner, len(pairs))
        scalar = ((log_probs - normaliser.index_select(0, owner)).exp() * log_probs.new_tensor(relative)).sum()
    return float(scalar.detach()) + sum(lowest), scalar


def _log_sum_exp_by_owner(values: Tensor, owner: Tensor, owners: int) -> Tensor:
    """Return log sum exp of ``values`` (k,) within each owner, (owners,); every owner has a value."""
    highest = torch.full((owners,), -torch.inf, device=values.device, dtype=values.dtype)
    highest = highest.scatter_reduce(0, owner, values.detach(), "amax")
    shifted = (values - highest.index_select(0, owner)).exp()
    return torch.zeros_like(highest).index_add(0, owner, shifted).log() + highest


ESTIMATORS: dict[str, Callable[..., tuple[float, Tensor]]] = {"reinforce": _reinforce, "risk": _risk}

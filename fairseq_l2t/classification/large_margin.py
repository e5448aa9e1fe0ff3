"""The large-margin softmax: the score of the label must win by an angular margin.

Source: Liu, Wen, Yu and Yang, "Large-Margin Softmax Loss for Convolutional Neural Networks", ICML 2016, sections 4.1 to
4.3. The target's score ``|w_y| |x| cos t`` becomes ``|w_y| |x| psi(t)``, psi(t) = (-1)^k cos(m t) - 2 k for t in
[k pi / m, (k + 1) pi / m]. Training begins near the plain softmax: the score is ``(lambda cos t + psi(t)) / (1 +
lambda)`` times the norms, and lambda falls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["LargeMarginSoftmax", "angular_margin"]

_LEAST_NORM = 1e-12


@dataclass(frozen=True)
class LargeMarginSoftmax:
    """Cross-entropy of scores with an angular margin.

    Args:
        margin: m, 1 to 4; 1 is the plain softmax.
        anneal_updates: updates in which lambda falls from ``lambda_start`` to ``lambda_end``, by the same factor each.
        lambda_start: 1,000 as in the authors' code (github.com/wy1iu/LargeMargin_Softmax_Loss, README.md).
        lambda_end: our choice. The authors' schedule, ``max(lambda_min, 1000 (1 + gamma k)^-power)`` at iteration k,
            suits one number of updates; ours suits any. Their examples of 30,000 iterations end close to 0: MNIST,
            m = 4, gamma 2.5e-5, power 35, lambda_min 0; CIFAR-10, m = 2, gamma 2e-5, power 45. Their README advises
            lambda_min 5 or 10 only for large and difficult data.

    Raises:
        ValueError: a margin other than 1 to 4, no updates, or lambdas out of order.
    """

    margin: int = 2
    anneal_updates: int = 1000
    lambda_start: float = 1000.0
    lambda_end: float = 0.001
    needs_bias = False

    def __post_init__(self) -> None:
        if self.margin not in (1, 2, 3, 4):
            raise ValueError(f"--margin: {self.margin}; expected 1, 2, 3 or 4")
        if self.anneal_updates < 1:
            raise ValueError(f"anneal_updates: {self.anneal_updates}; expected a whole number of at least 1")
        if not 0 < self.lambda_end <= self.lambda_start < math.inf:
            raise ValueError(
                f"--lambda-min: {self.lambda_end}; expected a number above 0 and at most {self.lambda_start:g}"
            )

    def annealed(self, update: int) -> float:
        """Return lambda at update number ``update``, counted from 0."""
        share = min(1.0, update / self.anneal_updates)
        return float(self.lambda_start ** (1 - share) * self.lambda_end**share)

    def per_example(
        self, features: Tensor, classifier: nn.Linear, labels: Tensor, update: int
    ) -> tuple[Tensor, Tensor]:
        """See `classification.losses.Criterion.per_example`.

        Raises:
            ValueError: the last layer has a bias, which has no angle.
        """
        if classifier.bias is not None:
            raise ValueError("large-margin: the last layer has a bias; expected one without")
        logits = classifier(features)
        own = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        norms = features.norm(dim=-1) * classifier.weight[labels].norm(dim=-1)
        cosine = (own / norms.clamp(min=_LEAST_NORM)).clamp(-1.0, 1.0)
        weight = self.annealed(update)
        # (lambda cos t + psi) / (1 + lambda) = cos t + (psi - cos t) / (1 + lambda): for m = 1 the second term is 0.
        target = own + norms * (angular_margin(cosine, self.margin) - cosine) / (1 + weight)
        scores = logits.scatter(-1, labels.unsqueeze(-1), target.unsqueeze(-1))
        return nn.functional.cross_entropy(scores, labels, reduction="none"), logits


def angular_margin(cosine: Tensor, margin: int) -> Tensor:
    """Return psi(t) of equation (6) for ``cosine`` = cos t in [-1, 1], any shape.

    By multiple-angle polynomials, because the slope of arccos is infinite at both ends.

    Args:
        cosine: of the angle t.
        margin: m, 1 to 4.
    """
    square = cosine.square()
    multiple = {
        1: cosine,
        2: 2 * square - 1,
        3: (4 * square - 3) * cosine,
        4: 8 * square.square() - 8 * square + 1,
    }[margin]
    # k is the number of borders cos(j pi / m) above cos t.
    borders = [math.cos(j * math.pi / margin) for j in range(1, margin)]
    k = torch.zeros_like(cosine)
    for border in borders:
        k = k + (cosine.detach() < border)
    return (1 - 2 * (k % 2)) * multiple - 2 * k

"""The toy student: a `unroll.student.Student` on plain torch modules with 11 words, fast enough for every check."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairseq_l2t.kernels.twice_differentiable import ScaledGradient, twice_differentiable
from fairseq_l2t.loss.dynamic_loss import LossShape, dynamic_loss
from fairseq_l2t.loss.student_state import StudentState
from fairseq_l2t.unroll.flat_parameters import FlatParameters
from fairseq_l2t.unroll.student import Batch, BatchLoss
from fairseq_l2t.unroll.update_rules import SGD, Clipping, StepSize, UpdateRule

WORDS = 11
WIDTH = 4
PAD = 0
UNSEEN = WORDS - 1
"""A word that occurs in no batch."""

LEARNING_RATES = (0.31, 0.27, 0.27, 0.11, 0.43)
"""A schedule that falls, stays and rises, so that rules which look at the previous rate are exercised."""


class Perceptron(nn.Module):
    """Embedding, linear, dropout, an activation, linear."""

    def __init__(self, activation: nn.Module, dropout: float = 0.2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.activation = activation
        self.output = nn.Linear(WIDTH, WORDS)

    def middle(self, sources: Tensor) -> Tensor:
        """Return the hidden layer (batch, length, width) for words (batch, length)."""
        hidden: Tensor = self.activation(self.dropout(self.hidden(self.embedding(sources))))
        return hidden

    def forward(self, sources: Tensor) -> Tensor:
        """Return logits (batch, length, words) for words (batch, length)."""
        logits: Tensor = self.output(self.middle(sources))
        return logits


class Tied(Perceptron):
    """One parameter, two uses: the embedding is the output matrix too."""

    def __init__(self) -> None:
        super().__init__(nn.Tanh())
        self.output.weight = self.embedding.weight


class WeightNormed(Perceptron):
    """Weight normalisation over the first dimension, where torch takes its fused kernel."""

    def __init__(self) -> None:
        super().__init__(nn.Tanh())
        with warnings.catch_warnings():  # deprecated in torch, and what fairseq's fconv is made of
            warnings.simplefilter("ignore", FutureWarning)
            self.hidden = nn.utils.weight_norm(self.hidden, dim=0)
            self.output = nn.utils.weight_norm(self.output, dim=0)


class PlainScaling(torch.autograd.Function):
    """The node that `ScaledGradient` replaces, as fairseq's GradMultiply: it scales every gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, scale: float) -> Tensor:
        """Return ``value`` unchanged."""
        ctx.scale = scale
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None]:
        """Return the cotangent, scaled."""
        return cotangents[0] * ctx.scale, None


class Scaled(Perceptron):
    """A gradient scaled in the middle: the update is a vector field that is the gradient of nothing."""

    def __init__(self, node: type[torch.autograd.Function] = ScaledGradient) -> None:
        super().__init__(nn.Tanh())
        self.node = node

    def forward(self, sources: Tensor) -> Tensor:
        """Return logits (batch, length, words) for words (batch, length)."""
        logits: Tensor = self.output(self.node.apply(self.middle(sources), 0.3))  # type: ignore[no-untyped-call]  # torch
        return logits


class Recurrent(nn.Module):
    """An LSTM, then attention through torch's fused kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.dropout = nn.Dropout(0.2)
        self.output = nn.Linear(WIDTH, WORDS)

    def forward(self, sources: Tensor) -> Tensor:
        """Return logits (batch, length, words) for words (batch, length)."""
        hidden = self.lstm(self.embedding(sources))[0]
        attended = self.attention(hidden, hidden, hidden, need_weights=False)[0]
        query = hidden.unsqueeze(1)
        direct = F.scaled_dot_product_attention(query, query, query).squeeze(1)
        logits: Tensor = self.output(self.dropout(attended + direct))
        return logits


MODELS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: Perceptron(nn.ReLU()),
    "tanh": lambda: Perceptron(nn.Tanh()),
    "tied": Tied,
    "weight_norm": WeightNormed,
    "scaled": Scaled,
    "recurrent": Recurrent,
}


@dataclass(frozen=True)
class MicroBatch:
    """Source and target words, (batch, length) each; `PAD` targets do not count."""

    sources: Tensor
    targets: Tensor

    @property
    def keep(self) -> Tensor:
        """True for the targets that count."""
        return self.targets != PAD

    @property
    def tokens(self) -> int:
        """Number of targets that count."""
        return int(self.keep.sum())


def draw_batch(generator: torch.Generator, sentences: int = 3, length: int = 4) -> MicroBatch:
    """Return random sentences, the last of them padded."""
    size = (sentences, length)
    sources, targets = (torch.randint(1, UNSEEN, size, generator=generator) for _ in range(2))
    targets[-1, length // 2 :] = PAD
    return MicroBatch(sources, targets)


class RecordedState(StudentState):
    """States recorded in another unroll, so that finite differences do not move them: states are data.

    Args:
        recorded: s_t (features,) before each update; None where the update used cross-entropy and nobody may ask.
    """

    def __init__(self, recorded: Sequence[Tensor | None]) -> None:
        super().__init__(WORDS, 20)
        self._recorded = recorded

    def vector(self, update: int) -> Tensor:
        """Return the recorded state (features,) before ``update``."""
        state = self._recorded[update]
        if state is None:
            raise ValueError(f"update {update}: no state was recorded; it used cross-entropy")
        return state


class ToyStudent:
    """A `unroll.student.Student` that repeats five fixed updates of ``update_freq`` micro-batches.

    Args:
        model: a name in `MODELS`.
        rule: the optimizer; None: plain SGD.
        max_norm: gradient norm to clip to; 0: no clipping.
        update_freq: micro-batches of an update.
        cross_entropy_updates: updates at the start of a life that use plain cross-entropy.
        shape: the sigmoid loss; None: a scale of 40.
        seed: seed of the first life.
        dtype: floating type of the parameters.
    """

    gradient_scaling: Any = None

    def __init__(
        self,
        model: str = "tanh",
        rule: UpdateRule | None = None,
        *,
        max_norm: float = 0.0,
        update_freq: int = 2,
        cross_entropy_updates: int = 0,
        shape: LossShape | None = None,
        seed: int = 3,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self._make_model = MODELS[model]
        self._dtype = dtype
        self.rule: UpdateRule = rule or SGD()
        self.clipping = Clipping(max_norm)
        self.cross_entropy_updates = cross_entropy_updates
        self.coefficient_count = WORDS
        self.shape = shape or LossShape(scale=40.0)
        generator = torch.Generator().manual_seed(99)
        self.batches = [[draw_batch(generator) for _ in range(update_freq)] for _ in LEARNING_RATES]
        self.dev = draw_batch(generator, sentences=5)
        self.state: StudentState = StudentState(WORDS, 20)
        self.restart(seed)

    def restart(self, seed: int) -> None:
        """Begin a new life: parameters from ``seed``, no optimizer state, the first batch."""
        self.seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = self._make_model().to(self._dtype)
        self.parameters = FlatParameters(self.model.named_parameters())
        self.omega = self.parameters.buffer
        self.buffers: tuple[Tensor, ...] = tuple(torch.zeros_like(self.omega) for _ in range(self.rule.buffer_count))
        self.update = 0
        self.state.reset()

    def next_batch(self) -> list[MicroBatch]:
        """See `unroll.student.Student`."""
        return self.batches[self.update % len(self.batches)]

    def step_size(self) -> StepSize:
        """See `unroll.student.Student`."""
        rates = [LEARNING_RATES[k % len(LEARNING_RATES)] for k in (self.update, max(0, self.update - 1))]
        return StepSize(lr=rates[0], previous_lr=rates[1], count=self.update + 1)

    def losses(self, batch: Batch, coefficients: Tensor | None, *, measure: bool) -> Iterator[BatchLoss]:
        """See `unroll.student.Student`."""
        for part in batch:
            log_probs = F.log_softmax(self.model(part.sources), dim=-1)
            of_targets = log_probs.gather(-1, part.targets.unsqueeze(-1)).squeeze(-1)
            nll = -of_targets.masked_fill(~part.keep, 0.0).sum()
            total = nll
            if coefficients is not None:
                total = dynamic_loss(of_targets, part.targets, coefficients, part.keep, self.shape)
            correct = ((log_probs.argmax(-1) == part.targets) & part.keep).sum()
            yield BatchLoss(total, nll.detach() if measure else None, correct if measure else None, part.tokens)

    def sample_size(self, batch: Batch) -> float:
        """See `unroll.student.Student`."""
        return float(sum(part.tokens for part in batch))

    def set_omega(self, omega: Tensor) -> None:
        """See `unroll.student.Student`."""
        self.parameters.set(omega)

    def finish_update(self, omega: Tensor, buffers: tuple[Tensor, ...]) -> None:
        """See `unroll.student.Student`."""
        self.set_omega(omega)
        self.buffers = buffers
        self.update += 1

    @contextmanager
    def replay(self, update: int) -> Iterator[None]:
        """See `unroll.student.Student`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000 * self.seed + update)
            yield

    def second_derivatives(self) -> AbstractContextManager[None]:
        """See `unroll.student.Student`."""
        return twice_differentiable()

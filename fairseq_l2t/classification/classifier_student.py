"""An image classifier as a `unroll.student.Student`, without fairseq.

Batch normalisation: an update normalises by the statistics of its batch, through which derivatives flow. The running
statistics are the last elements of omega. Their update is one of SGD (`unroll.piecewise_rules.RunningAverage`), so that
the unroll keeps, replays and differentiates them with the weights, and the hypergradient of a measure in eval mode
includes the teacher's effect on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fairseq_l2t.classification.batches import Minibatch, TrainBatches
from fairseq_l2t.classification.data import ImageSet, Splits, normalise
from fairseq_l2t.classification.losses import Criterion, CrossEntropy
from fairseq_l2t.classification.recipe import Recipe
from fairseq_l2t.classification.state import ClassifierState
from fairseq_l2t.classification.students import VERIFIED, build_student
from fairseq_l2t.classification.students.batch_norm import (
    CarriedBatchNorm2d,
    collect_statistics,
    running_loss,
    statistic_names,
)
from fairseq_l2t.kernels.twice_differentiable import refuse_unverified, twice_differentiable
from fairseq_l2t.loss.dynamic_loss import LossShape
from fairseq_l2t.loss.full_loss import full_dynamic_loss
from fairseq_l2t.unroll.flat_parameters import FlatParameters
from fairseq_l2t.unroll.piecewise_rules import PiecewiseRule, RunningAverage
from fairseq_l2t.unroll.student import BatchLoss
from fairseq_l2t.unroll.update_rules import Clipping, StepSize, UpdateRule

__all__ = ["ClassifierStudent"]

_IMAGES_AT_ONCE = 500
"""Images of a dev set in one forward pass."""


class ClassifierStudent:
    """A classifier under training.

    ``teaching`` and ``holdout`` are the numbers of the dev images in two parts: those that train the teacher, and those
    that are held back.

    Args:
        splits: training, dev and test images.
        recipe: network, batches, optimizer and learning rates.
        loss_shape: scale and cross-entropy share of the taught loss.
        criterion: the loss of updates without coefficients.
        dev_holdout: share of the dev images, in [0, 1), that is held back from teacher and state.
        dtype: of the parameters.

    Raises:
        ValueError: an option that does not fit the data.
        NotTwiceDifferentiableError: a module whose second derivatives are not verified.
    """

    gradient_scaling = None

    def __init__(
        self,
        splits: Splits,
        recipe: Recipe,
        *,
        loss_shape: LossShape | None = None,
        criterion: Criterion | None = None,
        dev_holdout: float = 0.5,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.splits, self.recipe = splits, recipe
        self.loss_shape, self.criterion = loss_shape or LossShape(), criterion or CrossEntropy()
        self._dtype = dtype
        self.classes = len(splits.train.classes)
        self.coefficient_count = self.classes**2
        self.cross_entropy_updates = recipe.cross_entropy_updates
        self.state = ClassifierState(self.classes, recipe.total_updates)
        self.dev_holdout = dev_holdout
        self.teaching, self.holdout = _halves(len(splits.dev.labels), dev_holdout)
        self.restart(0)

    def restart(self, seed: int) -> None:
        """Begin a new life: initial parameters and order of the images are those of ``seed``."""
        self.seed = seed
        channels, height, width = self.splits.train.images.shape[1:]
        shape = (channels, height, width)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.model = build_student(
                self.recipe.student, classes=self.classes, image_shape=shape, bias=self.criterion.needs_bias
            ).to(self._dtype)
        refuse_unverified(self.model, VERIFIED)
        statistics = statistic_names(self.model)
        named = sorted(self.model.named_parameters(), key=lambda pair: pair[0] in statistics)
        self.parameters = FlatParameters(named)
        self.omega = self.parameters.buffer
        self.clipping = Clipping()
        self.rule = self._rule(sum(p.numel() for name, p in named if name not in statistics))
        self.buffers = tuple(torch.zeros_like(self.omega) for _ in range(self.rule.buffer_count))
        self.update = 0
        self.state.reset()
        self._batches = TrainBatches(
            self.splits.train,
            self.recipe.batch_size,
            self.splits.mean,
            self.splits.std,
            augment=self.recipe.augment,
            seed=seed,
        )

    # --- what the engine asks for -----------------------------------------------------------------------------

    def next_batch(self) -> list[Minibatch]:
        """Return the images of the next update."""
        return [self._batches.of_update(self.update)]

    def step_size(self) -> StepSize:
        """Return the learning rate of the next update."""
        return self.recipe.step_size(self.update)

    def losses(self, batch: Sequence[Minibatch], coefficients: Tensor | None, *, measure: bool) -> Iterator[BatchLoss]:
        """Yield the loss of each part of the batch, in train mode; without coefficients, by the student's criterion."""
        self.model.train()
        for part in batch:
            images, labels = self._batches.tensors(part, self._dtype)
            with collect_statistics() as collected:
                features = self.model.features(images)
            if coefficients is None:
                losses, logits = self.criterion.per_example(features, self.model.classifier, labels, self.update)
                total = losses.sum()
            else:
                logits = self.model.classifier(features)
                total = full_dynamic_loss(logits.log_softmax(-1), labels, coefficients, self.loss_shape)
            if collected:
                # The sum is divided by the number of images later; the loss of running statistics must not be.
                total = total + len(labels) * running_loss(collected)
            nll, correct = _measures(logits, labels) if measure else (None, None)
            yield BatchLoss(total, nll, correct, len(labels))

    def sample_size(self, batch: Sequence[Minibatch]) -> float:
        """Return the number of images."""
        return float(sum(len(part.indices) for part in batch))

    def set_omega(self, omega: Tensor) -> None:
        """Write the parameters (n,)."""
        self.parameters.set(omega)

    def finish_update(self, omega: Tensor, buffers: tuple[Tensor, ...]) -> None:
        """Store the result of an update."""
        self.set_omega(omega)
        self.buffers = buffers
        self.update += 1

    @contextmanager
    def replay(self, update: int) -> Iterator[None]:
        """Return an empty context: an update draws nothing, `batches` determines augmentation."""
        yield

    def second_derivatives(self) -> AbstractContextManager[None]:
        """See `kernels.twice_differentiable`."""
        return twice_differentiable()

    # --- what objectives ask for ------------------------------------------------------------------------------

    def dev_chunks(self, pairs: Sequence[int]) -> Iterator[list[int]]:
        """Yield the numbers of dev images in lists small enough for one forward pass."""
        for first in range(0, len(pairs), _IMAGES_AT_ONCE):
            yield list(pairs[first : first + _IMAGES_AT_ONCE])

    def reference_log_probs(self, pairs: Sequence[int], inverse_temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return ``log p(y | x)`` of the labels (images, 1), as of sequences of one token, in eval mode."""
        self.model.eval()
        logits, labels = self._logits(self.splits.dev, pairs)
        log_probs = (inverse_temperature * logits).log_softmax(-1).gather(1, labels.unsqueeze(1))
        return log_probs, torch.ones_like(log_probs, dtype=torch.bool)

    def reference_distributions(self, pairs: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``log p(. | x)`` (images, 1, classes), labels and mask (images, 1), in eval mode."""
        self.model.eval()
        logits, labels = self._logits(self.splits.dev, pairs)
        labels = labels.unsqueeze(1)
        return logits.log_softmax(-1).unsqueeze(1), labels, torch.ones_like(labels, dtype=torch.bool)

    def observe_dev(self) -> None:
        """Bring the dev measures of the state up to date, on the images that are not held back."""
        self.state.observe_dev(self.predict(self.splits.dev, self.teaching), self.splits.dev.labels[self.teaching])

    def predict(self, images: ImageSet, indices: Sequence[int] | None = None) -> Tensor:
        """Return the most probable class (images,) of each image, in eval mode; ``indices``: of these images only."""
        self.model.eval()
        indices = range(len(images.labels)) if indices is None else indices
        with torch.no_grad():
            parts = [self._logits(images, chunk)[0].argmax(-1) for chunk in self.dev_chunks(indices)]
        return torch.cat(parts)

    def accuracy(self, images: ImageSet, indices: Sequence[int] | None = None) -> float:
        """Return the share of correct predictions, in [0, 1]; ``indices``: of these images only."""
        labels = images.labels if indices is None else images.labels[list(indices)]
        return float((self.predict(images, indices) == labels).double().mean())

    # --- interruption -----------------------------------------------------------------------------------------

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return everything a life consists of: tensors, and values of plain types."""
        tensors = {"omega": self.omega, **{f"buffer{i}": buffer for i, buffer in enumerate(self.buffers)}}
        return tensors, {"seed": self.seed, "update": self.update, "measures": self.state.state_dict()}

    def load_state_dict(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Continue the life `state_dict` described.

        Raises:
            ValueError: it is the life of a student of another size.
        """
        if tensors["omega"].shape != self.omega.shape:
            raise ValueError(f"student: {len(tensors['omega'])} parameters saved, {len(self.omega)} here")
        self.restart(values["seed"])
        self.set_omega(tensors["omega"].to(self.omega))
        self.buffers = tuple(tensors[f"buffer{i}"].to(self.omega) for i in range(len(self.buffers)))
        self.update = values["update"]
        self.state.load_state_dict(values["measures"])

    # --- parts ------------------------------------------------------------------------------------------------

    def _rule(self, weights: int) -> UpdateRule:
        rule = self.recipe.rule()
        shares = {module.momentum for module in self.model.modules() if isinstance(module, CarriedBatchNorm2d)}
        if not shares:
            return rule
        if len(shares) > 1:
            raise ValueError(f"momentum of batch normalisation: {sorted(shares)}; expected one for all layers")
        return PiecewiseRule(((weights, rule), (len(self.omega) - weights, RunningAverage(shares.pop()))))

    def _logits(self, images: ImageSet, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        chosen = torch.as_tensor(list(indices))
        pixels = normalise(images.images[chosen], images.levels, self.splits.mean, self.splits.std, self._dtype)
        return self.model(pixels), images.labels[chosen]


def _halves(count: int, holdout: float) -> tuple[list[int], list[int]]:
    """Return the numbers of the dev images that teach, and of those held back; dev images are in random order."""
    if not 0 <= holdout < 1:
        raise ValueError(f"--dev-holdout: {holdout}; expected a number in [0, 1)")
    teaching = count - round(count * holdout)
    if not teaching >= 1:
        raise ValueError(f"--dev-holdout: {holdout} of {count} dev images; expected at least one that teaches")
    return list(range(teaching)), list(range(teaching, count))


def _measures(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return summed cross-entropy (nats) and number of correct predictions, scalars."""
    with torch.no_grad():
        return nn.functional.cross_entropy(logits, labels, reduction="sum"), (logits.argmax(-1) == labels).sum()

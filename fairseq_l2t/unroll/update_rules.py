"""Student update rules as pure functions on flat vectors, each with its exact adjoint.

An update consists of the gradient ``g = gradient(omega_t)``, clipping, and the rule ``(omega_{t+1}, buffers_{t+1}) =
rule(omega_t, buffers_t, g, lr)``. The adjoint of a rule maps the cotangents of its outputs to those of its inputs
(Maclaurin et al. 2015, "Gradient-based Hyperparameter Optimization through Reversible Learning", give it for
momentum SGD; the others follow by differentiating the formulas below line by line).

Where fairseq's optimizer deviates from the textbook, the rule follows fairseq: its Adam decays the weights by
``lr * weight_decay`` and adds eps outside the bias correction (fairseq 0.12.2, optim/adam.py), its NAG corrects the
momentum buffer for changes of the learning rate (optim/nag.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

__all__ = ["NAG", "SGD", "Adagrad", "Adam", "Buffers", "Clipping", "StepSize", "UpdateRule"]

Buffers: TypeAlias = tuple[Tensor, ...]
"""Vectors of optimizer state, (n,) each."""


@dataclass(frozen=True)
class StepSize:
    """Learning rate and number of one update.

    Args:
        lr: learning rate of this update.
        previous_lr: learning rate of the update before (of this one, at the first).
        count: number of this update, counted from 1 (Adam's bias correction).
    """

    lr: float
    previous_lr: float
    count: int


class UpdateRule(Protocol):
    """A student optimizer on flat vectors (n,)."""

    @property
    def buffer_count(self) -> int:
        """Number of vectors of optimizer state; all start at zero."""

    def apply(self, omega: Tensor, buffers: Buffers, gradient: Tensor, size: StepSize) -> tuple[Tensor, Buffers]:
        """Return (omega', buffers') as new tensors; the arguments do not change."""

    def adjoint(
        self, omega: Tensor, buffers: Buffers, gradient: Tensor, size: StepSize, omega_bar: Tensor, buffers_bar: Buffers
    ) -> tuple[Tensor, Buffers, Tensor]:
        """Return the cotangents of (omega, buffers, gradient), given those of (omega', buffers')."""


@dataclass(frozen=True)
class Clipping:
    """Scale the gradient to a norm of at most ``max_norm``, to the bit as fairseq.utils.clip_grad_norm_ does.

    Args:
        max_norm: maximum of the norm; 0: no clipping.
        sizes: lengths of the parameters in the flat vector. fairseq computes the norm of the parameters' norms, whose
            rounding differs from the norm of the whole vector. Empty: one parameter.
    """

    max_norm: float = 0.0
    sizes: tuple[int, ...] = ()

    def _norm_and_factor(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        norms = torch._foreach_norm(gradient.split_with_sizes(self.sizes)) if self.sizes else [gradient.norm()]
        norm = torch.stack(norms).norm() if len(norms) > 1 else norms[0]
        return norm, self.max_norm / (norm + 1e-6)

    def apply(self, gradient: Tensor) -> Tensor:
        """Return the clipped gradient (n,)."""
        if not self.max_norm > 0:
            return gradient
        return gradient * self._norm_and_factor(gradient)[1].clamp(max=1)

    def adjoint(self, gradient: Tensor, clipped_bar: Tensor) -> Tensor:
        """Return the cotangent of the gradient (n,), given that of the clipped gradient."""
        if not self.max_norm > 0:
            return clipped_bar
        norm, factor = self._norm_and_factor(gradient)
        if not bool(factor < 1):
            return clipped_bar
        # d factor / d g = -factor / (norm + 1e-6) * g / norm
        pull = torch.dot(clipped_bar, gradient) * factor / ((norm + 1e-6) * norm)
        return torch.mul(clipped_bar, factor).addcmul_(gradient, pull, value=-1)


@dataclass(frozen=True)
class SGD:
    """torch.optim.SGD with momentum and coupled weight decay (fairseq's ``--optimizer sgd``)."""

    momentum: float = 0.0
    weight_decay: float = 0.0
    buffer_count = 1

    def apply(self, omega: Tensor, buffers: Buffers, gradient: Tensor, size: StepSize) -> tuple[Tensor, Buffers]:
        """See `UpdateRule.apply`: ``b' = momentum b + g + decay omega; omega' = omega - lr b'``."""
        direction = gradient.add(omega, alpha=self.weight_decay) if self.weight_decay else gradient
        velocity = buffers[0].mul(self.momentum).add_(direction)
        return omega.sub(velocity, alpha=size.lr), (velocity,)

    def adjoint(
        self, omega: Tensor, buffers: Buffers, gradient: Tensor, size: StepSize, omega_bar: Tensor, buffers_bar: Buffers
    ) -> tuple[Tensor, Buffers, Tensor]:
        """See `UpdateRule.adjoint`."""
        gradient_bar = buffers_bar[0].sub(omega_bar, alpha=size.lr)
        decayed_bar = omega_bar.add(gradient_bar, alpha=self.weight_decay) if self.weight_decay else omega_bar
        return decayed_bar, (gradient_bar * self.momentum,), gradient_bar


@dataclass(frozen=True)
class NAG:
    """fairseq.optim.nag.NAG: Nesterov's accelerated gradient with decoupled weight decay."""

    momentum: float = 0.99
    weight_decay: float = 0.0
    buffer_count = 1

    def _correction(self, size: StepSize) -> float:
        return size.lr / size.previous_lr if size.previous_lr > 0 else size.lr

    def apply(self, omega: Tensor, buffers: Buffers, gradient: Tensor, size: StepSize) -> tuple[Tensor, Buffers]:
        """See `UpdateRule.apply`; c is the learning rate of this update divided by that of the last:

        ``omega' = (1 - lr decay) omega + momentum^2 c b - (1 + momentum) lr g; b' = momentum c b - lr g``.
        """
        correction = self._correction(size)
        moved = omega * (1 - size.lr * self.weight_decay)
        moved.add_(buffers[0], alpha=self.momentum * self.momentum * correction)
        moved.add_(gradient, alpha=-(1 + self.momentum) * size.lr)
        return moved, (buffers[0].mul(self.momentum * correction).sub_(gradient, alpha=size.lr),)

    def adjoint(
        self, omega: Tensor, buffers: Buffers, gradient: Tensor, size: StepSize, omega_bar: Tensor, buffers_bar: Buffers
    ) -> tuple[Tensor, Buffers, Tensor]:
        """See `UpdateRule.adjoint`."""
        correction = self._correction(size)
        buffer_bar = omega_bar * (self.momentum * self.momentum * correction)
        buffer_bar.add_(buffers_bar[0], alpha=self.momentum * correction)
        gradient_bar = omega_bar * (-(1 + self.momentum) * size.lr)
        gradient_bar.sub_(buffers_bar[0], alpha=size.lr)
        return omega_bar * (1 - size.lr * self.weight_decay), (buffer_bar,), gradient_bar


@dataclass(frozen=True)
class Adam:
    """fairseq.optim.adam.Adam: Adam with decoupled weight decay (Loshchilov & Hutter 2019, AdamW)."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    buffer_count = 2

    def _step_size(self, size: StepSize) -> float:
        return size.lr * math.sqrt(1 - self.beta2**size.count) / (1 - self.beta1**size.count)

    def _moments(self, buffers: Buffers, gradient: Tensor) -> Buffers:
        mean = buffers[0].mul(self.beta1).add_(gradient, alpha=1 - self.beta1)
        square = buffers[1].mul(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        return mean, square

    def apply(self, omega: Tensor, buffers: Buffers, gradient: Tensor, size: StepSize) -> tuple[Tensor, Buffers]:
        """See `UpdateRule.apply`; a = lr sqrt(1 - beta2^k) / (1 - beta1^k) at the k-th update:

        ``m' = beta1 m + (1 - beta1) g; v' = beta2 v + (1 - beta2) g^2;
        omega' = (1 - lr decay) omega - a m' / (sqrt(v') + eps)``.
        """
        mean, square = self._moments(buffers, gradient)
        decayed = omega.add(omega, alpha=-self.weight_decay * size.lr) if self.weight_decay else omega
        moved = decayed.addcdiv(mean, square.sqrt().add_(self.eps), value=-self._step_size(size))
        return moved, (mean, square)

    def adjoint(
        self, omega: Tensor, buffers: Buffers, gradient: Tensor, size: StepSize, omega_bar: Tensor, buffers_bar: Buffers
    ) -> tuple[Tensor, Buffers, Tensor]:
        """See `UpdateRule.adjoint`.

        Where v' is 0, the gradient was 0 at every step, so that m' is 0 too. The cotangent of v' is 0/0 there and set
        to 0; the derivative with respect to g is then the finite one through m'.
        """
        mean, square = self._moments(buffers, gradient)
        root = square.sqrt_()
        denominator = root.add(self.eps)
        step = self._step_size(size)
        mean_bar = buffers_bar[0].addcdiv(omega_bar, denominator, value=-step)
        slope = mean.mul_(omega_bar).div_(denominator)
        square_bar = buffers_bar[1].addcdiv(slope, _infinite_for_zero(root).mul_(denominator), value=step / 2)
        gradient_bar = mean_bar * (1 - self.beta1)
        gradient_bar.addcmul_(square_bar, gradient, value=2 * (1 - self.beta2))
        decayed_bar = omega_bar * (1 - self.weight_decay * size.lr) if self.weight_decay else omega_bar
        return decayed_bar, (mean_bar.mul_(self.beta1), square_bar.mul_(self.beta2)), gradient_bar


@dataclass(frozen=True)
class Adagrad:
    """torch.optim.Adagrad with coupled weight decay (fairseq's ``--optimizer adagrad``; Duchi et al. 2011)."""

    weight_decay: float = 0.0
    eps: float = 1e-10
    buffer_count = 1

    def _decayed(self, omega: Tensor, gradient: Tensor) -> Tensor:
        return gradient.add(omega, alpha=self.weight_decay) if self.weight_decay else gradient

    def apply(self, omega: Tensor, buffers: Buffers, gradient: Tensor, size: StepSize) -> tuple[Tensor, Buffers]:
        """See `UpdateRule.apply`: ``d = g + decay omega; s' = s + d^2; omega' = omega - lr d / (sqrt(s') + eps)``."""
        direction = self._decayed(omega, gradient)
        square = buffers[0].addcmul(direction, direction, value=1)
        return omega.addcdiv(direction, square.sqrt().add_(self.eps), value=-size.lr), (square,)

    def adjoint(
        self, omega: Tensor, buffers: Buffers, gradient: Tensor, size: StepSize, omega_bar: Tensor, buffers_bar: Buffers
    ) -> tuple[Tensor, Buffers, Tensor]:
        """See `UpdateRule.adjoint`. Where s' is 0, so is d, and the slope of ``d / (|d| + eps)`` there is 1 / eps."""
        direction = self._decayed(omega, gradient)
        square = buffers[0].addcmul(direction, direction, value=1)
        root = square.sqrt_()
        denominator = root.add(self.eps)
        pull = omega_bar.div(denominator).mul_(size.lr)  # -d omega' / d d at a fixed s', times omega_bar
        ratio = direction.div(denominator).div_(_infinite_for_zero(root).mul_(2))
        square_bar = (pull * ratio).add_(buffers_bar[0])
        direction_bar = torch.addcmul(-pull, square_bar, direction, value=2)
        decayed_bar = omega_bar.add(direction_bar, alpha=self.weight_decay) if self.weight_decay else omega_bar
        return decayed_bar, (square_bar,), direction_bar


def _infinite_for_zero(root: Tensor) -> Tensor:
    """Replace 0 by infinity in place, so that a quotient by it is 0. A Boolean mask takes ten times as long."""
    return torch.threshold_(root, 0.0, math.inf)

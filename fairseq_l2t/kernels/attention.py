"""The attention of a recurrent decoder, its gradient, and the tangents of both, step by step.

One step, for the state h (batch, width) of the decoder (global attention of Luong et al., EMNLP 2015, section 3.1)::

    s = K h + bias    a = softmax(s)    u = V a + W h    t = tanh(u)

K and V (batch, source, width) are the encoder's outputs multiplied by the matrices of the attention, once per
sequence. The classes correspond to those of `kernels.lstm_cells`: terms that do not depend on the step before are
computed for all steps at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Attention", "AttentionGradients", "AttentionSecondOrder", "AttentionTangents"]


def _softmax_product(weights: Tensor, vector: Tensor) -> Tensor:
    """Return the symmetric Jacobian of the softmax ``weights`` (batch, source) times ``vector``."""
    return torch._softmax_backward_data(vector, weights, -1, weights.dtype)


def _times(matrices: Tensor, vector: Tensor) -> Tensor:
    """Return (batch, source) for ``matrices`` (batch, source, width) and ``vector`` (batch, width)."""
    # Rows times matrices: BLAS is several times faster here than with matrices times columns.
    return torch.bmm(vector.unsqueeze(1), matrices.transpose(1, 2)).squeeze(1)


def _weighted(weights: Tensor, matrices: Tensor) -> Tensor:
    """Return (batch, width) for ``weights`` (batch, source) and ``matrices`` (batch, source, width)."""
    return torch.bmm(weights.unsqueeze(1), matrices).squeeze(1)


def _all_times(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Return (steps, batch, source) for ``matrices`` (batch, source, width) and ``vectors`` (steps, batch, width)."""
    return torch.bmm(vectors.transpose(0, 1), matrices.transpose(1, 2)).transpose(0, 1)


def _outer(weights: Tensor, vectors: Tensor) -> Tensor:
    """Return (batch, source, width), summed over the steps of ``weights`` (steps, batch, source) and ``vectors``."""
    return torch.bmm(weights.permute(1, 2, 0), vectors.transpose(0, 1))


def _flat(steps: Tensor) -> Tensor:
    return steps.reshape(-1, steps.shape[-1])


class Attention:
    """The attention of all steps.

    Args:
        length: number of steps.
        keys, values: K and V (batch, source, width).
        bias: term (batch, source) of the scores: 0, or minus infinity at padding.
        weight: W (width, width).
    """

    def __init__(self, length: int, keys: Tensor, values: Tensor, bias: Tensor, weight: Tensor) -> None:
        batch, source, width = keys.shape
        self.keys, self.values, self.weight = keys, values, weight
        self._bias = bias
        self._transposed = weight.t()
        self.weights = keys.new_empty(length, batch, source)
        self.outputs = keys.new_empty(length, batch, width)
        self.slopes = torch.empty(0)
        """Slopes of tanh (steps, batch, width); empty before `finish`."""

    def step(self, k: int, hidden: Tensor) -> Tensor:
        """Return t (batch, width) for h (batch, width)."""
        weights = torch.softmax(_times(self.keys, hidden).add_(self._bias), -1, out=self.weights[k])
        summed = torch.addmm(_weighted(weights, self.values), hidden, self._transposed)
        return torch.tanh(summed, out=self.outputs[k])

    def kept(self) -> tuple[Tensor, ...]:
        """Return all tensors held here except the inputs; call it after `finish`."""
        return (self.weights, self.outputs, self.slopes)

    def finish(self) -> None:
        """Compute the slopes of tanh; call it after the last step."""
        self.slopes = 1 - self.outputs * self.outputs


class AttentionGradients:
    """The gradient of the steps of `Attention`, last step first.

    ``outputs``, ``summed`` (steps, batch, width) and ``scores`` (steps, batch, source) hold dt, du and ds.
    """

    def __init__(self, attention: Attention) -> None:
        self.attention = attention
        self.outputs, self.summed = torch.empty_like(attention.outputs), torch.empty_like(attention.outputs)
        self.scores = torch.empty_like(attention.weights)

    def step(self, k: int, d_output: Tensor) -> Tensor:
        """Return dh (batch, width) for dt (batch, width)."""
        done = self.attention
        self.outputs[k] = d_output
        d_summed = torch.mul(d_output, done.slopes[k], out=self.summed[k])
        d_scores = _softmax_product(done.weights[k], _times(done.values, d_summed))
        self.scores[k] = d_scores
        return torch.addmm(_weighted(d_scores, done.keys), d_summed, done.weight)

    def kept(self) -> tuple[Tensor, ...]:
        """Return all tensors held here, including those of the attention."""
        return (self.outputs, self.summed, self.scores, *self.attention.kept())

    def of_inputs(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of K, V and W, for h of all steps (steps, batch, width)."""
        summed = self.summed
        return (
            _outer(self.scores, hidden),
            _outer(self.attention.weights, summed),
            _flat(summed).t() @ _flat(hidden),
        )


class AttentionTangents:
    """The tangents of the steps of `Attention`.

    Args:
        attention: the attention.
        hidden: h of all steps (steps, batch, width).
        keys, values, weight: directions of K, V and W.
    """

    def __init__(self, attention: Attention, hidden: Tensor, keys: Tensor, values: Tensor, weight: Tensor) -> None:
        self.attention, self.directions = attention, (keys, values, weight)
        self._into_scores = _all_times(keys, hidden)
        into = torch.bmm(attention.weights.transpose(0, 1), values).transpose(0, 1)
        self.summed = into + hidden @ weight.t()
        self.weights = torch.empty_like(attention.weights)
        self._transposed = attention.weight.t()

    def step(self, k: int, hidden: Tensor) -> Tensor:
        """Return the tangent of t for that of h, (batch, width) each."""
        done = self.attention
        scores = _times(done.keys, hidden).add_(self._into_scores[k])
        self.weights[k] = weights = _softmax_product(done.weights[k], scores)
        summed = self.summed[k].add_(_weighted(weights, done.values)).addmm_(hidden, self._transposed)
        return summed * done.slopes[k]


class AttentionSecondOrder:
    """The tangent of `AttentionGradients` along `AttentionTangents`; its arrays correspond to those of the former."""

    def __init__(self, tangents: AttentionTangents, gradients: AttentionGradients) -> None:
        self._tangents, self._gradients = tangents, gradients
        self.attention = done = tangents.attention
        keys, values, weight = tangents.directions
        moved_slopes = (done.outputs * (done.slopes * tangents.summed)).mul_(-2)
        self.summed = gradients.outputs * moved_slopes
        self._into_weights = _all_times(values, gradients.summed)
        d_weights = _all_times(done.values, gradients.summed)
        mean = (done.weights * d_weights).sum(-1, keepdim=True)
        shift = (tangents.weights * d_weights).sum(-1, keepdim=True)
        self.scores = tangents.weights * (d_weights - mean) - done.weights * shift
        by_keys = torch.bmm(gradients.scores.transpose(0, 1), keys).transpose(0, 1)
        self._into_hidden = by_keys + gradients.summed @ weight

    def step(self, k: int, d_output: Tensor) -> Tensor:
        """Return the tangent of dh for that of dt, (batch, width) each."""
        done = self.attention
        summed = self.summed[k].addcmul_(d_output, done.slopes[k])
        d_weights = _times(done.values, summed).add_(self._into_weights[k])
        scores = self.scores[k].add_(_softmax_product(done.weights[k], d_weights))
        return _weighted(scores, done.keys).add_(self._into_hidden[k]).addmm_(summed, done.weight)

    def of_inputs(self, hidden: Tensor, moved: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the tangents of the gradients of K, V and W, for h and its tangent (steps, batch, width)."""
        first, tangents, summed = self._gradients, self._tangents, self.summed
        return (
            _outer(self.scores, hidden) + _outer(first.scores, moved),
            _outer(self.attention.weights, summed) + _outer(tangents.weights, first.summed),
            torch.addmm(_flat(summed).t() @ _flat(hidden), _flat(first.summed).t(), _flat(moved)),
        )

"""T updates and the measure after them, written for each peer as its documentation recommends.

Each function takes a `PeerTask` and a teacher, and returns the measure with its graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.peers.task import PeerTask, Rule
from fairseq_l2t.core import Teacher

__all__ = ["INSTALL", "UNROLLS", "module_of"]

_EPS_ROOT = 1e-30
"""Inside the root of Adam: words that do not occur have v = 0, where the slope of the root is infinite and the
hypergradient NaN. TorchOpt documents ``eps_root`` for this; so small, it changes no update."""


class _Functional:
    """A fairseq model called with other weights, with what a loss asks of a model beside the call.

    ``names``: the key in ``weights`` of every name a weight is used by; None: ``functional_call`` shall find them.
    """

    def __init__(self, model: nn.Module, weights: dict[str, Tensor], names: dict[str, str] | None) -> None:
        self._model, self.weights, self._names = model, weights, names

    def __call__(self, **inputs: Any) -> Any:
        if self._names is None:
            return functional_call(self._model, self.weights, (), inputs)
        named = {name: self.weights[key] for name, key in self._names.items()}
        return functional_call(self._model, named, (), inputs, tie_weights=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _start_of(task: PeerTask) -> _Functional:
    model = task.student()
    weights = {name: parameter.detach().clone().requires_grad_() for name, parameter in model.named_parameters()}
    return _Functional(model, weights, _every_name(model) if task.every_name else None)


def _every_name(model: nn.Module) -> dict[str, str]:
    key_of = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{path}.{name}": key_of[id(parameter)]
        for path, module in model.named_modules()
        for name, parameter in module._parameters.items()
        if parameter is not None
    }


def unroll_plain(task: PeerTask, teacher: Teacher, eps_root: float = _EPS_ROOT) -> Tensor:
    """``torch.func.functional_call``, and SGD and Adam written out by hand."""
    rule, model = task.rule, _start_of(task)
    means = {name: torch.zeros_like(weight) for name, weight in model.weights.items()}
    squares = dict(means)
    for update in range(len(task.batches)):
        loss = task.loss(model, update, teacher)
        gradients = torch.autograd.grad(loss, list(model.weights.values()), create_graph=True, allow_unused=True)
        moved = {}
        for (name, weight), gradient in zip(model.weights.items(), gradients, strict=True):
            if gradient is None:
                moved[name] = weight
            elif rule.betas is None:
                means[name] = rule.momentum * means[name] + gradient
                moved[name] = weight - rule.lr * means[name]
            else:
                beta1, beta2 = rule.betas
                means[name] = beta1 * means[name] + (1 - beta1) * gradient
                squares[name] = beta2 * squares[name] + (1 - beta2) * gradient**2
                size, eps = rule.adam_step(update + 1)
                moved[name] = weight - size * means[name] / ((squares[name] + eps_root).sqrt() + eps)
        model.weights = moved
    return task.measure(model)


def unroll_plain_textbook(task: PeerTask, teacher: Teacher) -> Tensor:
    """As `unroll_plain`, with Adam as the textbook has it: nothing inside the root."""
    return unroll_plain(task, teacher, eps_root=0.0)


def unroll_higher(task: PeerTask, teacher: Teacher) -> Tensor:
    """``higher.innerloop_ctx`` around the stock model and PyTorch's optimizer, graphs kept."""
    import higher

    model = task.student()
    # copy_initial_weights (the default): the start is no part of the question.
    with higher.innerloop_ctx(model, task.rule.make(model.parameters()), track_higher_grads=True) as (student, inner):
        for update in range(len(task.batches)):
            inner.step(task.loss(student, update, teacher))
        return task.measure(student)


def unroll_torchopt_meta(task: PeerTask, teacher: Teacher) -> Tensor:
    """``torchopt.MetaSGD`` or ``MetaAdam``, which put new tensors into the model itself."""
    import torchopt

    rule, student = task.rule, task.student()
    if rule.betas is None:
        inner = torchopt.MetaSGD(student, lr=rule.lr, momentum=rule.momentum)
    else:
        inner = torchopt.MetaAdam(student, lr=rule.lr, betas=rule.betas, eps=rule.eps, eps_root=_EPS_ROOT)
    for update in range(len(task.batches)):
        inner.step(task.loss(student, update, teacher))
    return task.measure(student)


def unroll_torchopt_functional(task: PeerTask, teacher: Teacher) -> Tensor:
    """``torchopt.FuncOptimizer`` on the weights of ``torch.func.functional_call``."""
    import torchopt

    rule, model = task.rule, _start_of(task)
    if rule.betas is None:
        method = torchopt.sgd(rule.lr, momentum=rule.momentum, moment_requires_grad=True)
    elif rule.fairseq_eps:
        method = _torchopt_fairseq_adam(rule)
    else:
        method = torchopt.adam(rule.lr, rule.betas, rule.eps, eps_root=_EPS_ROOT, moment_requires_grad=True)
    inner = torchopt.FuncOptimizer(method)
    for update in range(len(task.batches)):
        moved = inner.step(task.loss(model, update, teacher), tuple(model.weights.values()))
        model.weights = dict(zip(model.weights, moved, strict=True))
    return task.measure(model)


def _torchopt_fairseq_adam(rule: Rule):
    """Adam with eps where fairseq has it, as TorchOpt's users write a rule of their own."""
    from torchopt import pytree
    from torchopt.base import GradientTransformation

    beta1, beta2 = rule.betas

    def start(params: Any) -> tuple:
        zeros = pytree.tree_map(torch.zeros_like, params)
        return zeros, zeros, 0

    def update(updates: Any, state: tuple, *, params: Any = None, inplace: bool = True) -> tuple:
        means, squares, count = state
        size, eps = rule.adam_step(count + 1)
        means = pytree.tree_map(lambda m, g: beta1 * m + (1 - beta1) * g, means, updates)
        squares = pytree.tree_map(lambda v, g: beta2 * v + (1 - beta2) * g**2, squares, updates)
        moves = pytree.tree_map(lambda m, v: -size * m / ((v + _EPS_ROOT).sqrt() + eps), means, squares)
        return moves, (means, squares, count + 1)

    return GradientTransformation(start, update)


UNROLLS: dict[str, Callable[[PeerTask, Teacher], Tensor]] = {
    "plain": unroll_plain,
    "plain-textbook": unroll_plain_textbook,
    "higher": unroll_higher,
    "torchopt-meta": unroll_torchopt_meta,
    "torchopt-functional": unroll_torchopt_functional,
}
INSTALL = {"higher": "pip install 'higher>=0.2'", "torchopt": "pip install 'torchopt>=0.7'"}


def module_of(peer: str) -> str | None:
    """Return the module a peer needs beside PyTorch, or None."""
    name = peer.partition("-")[0]
    return name if name in INSTALL else None

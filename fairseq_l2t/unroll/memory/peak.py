"""How much memory tensors take at most while something is computed, on any device, counted storage by storage.

The operating system's high-water mark would also hold what was freed and not given back, and on a CPU it cannot be set
back; what kernels take for themselves inside an operation is not seen here.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["peak_bytes"]


def peak_bytes(work: Callable[[], Any]) -> int:
    """Call ``work`` and return the most bytes that tensors made in it took at a time; its result included.

    Tensors that were there before are not counted. It is slower than without: every operation is looked at.
    """
    counting = _Counting()
    try:
        with counting:
            work()
    finally:
        counting.let_go()
    return counting.most


class _Counting(TorchDispatchMode):
    """Sees every operation, in backward passes too."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._now = 0
        # By address: a storage's Python object lives as long as the memory, so that none is taken for another.
        self._known: dict[int, weakref.finalize] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """See `TorchDispatchMode`."""
        for tensor in _tensors_within((args, kwargs)):
            self._note(tensor, counted=False)
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors_within(result):
            self._note(tensor, counted=True)
        self.most = max(self.most, self._now)
        return result

    def _note(self, tensor: Tensor, *, counted: bool) -> None:
        storage: UntypedStorage = tensor.untyped_storage()
        key = id(storage)
        if key not in self._known:
            size = storage.nbytes() if counted else 0
            self._now += size
            self._known[key] = weakref.finalize(storage, self._forget, key, size)

    def let_go(self) -> None:
        """Be told no more of storages that live on."""
        for known in self._known.values():
            known.detach()

    def _forget(self, key: int, size: int) -> None:
        self._now -= size
        del self._known[key]


def _tensors_within(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors_within(tuple(value.values()))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors_within(part)

"""Peak memory of the tensors of a computation, on any device, counted per storage.

The operating system's high-water mark also contains memory that was freed and not returned, and on a CPU it cannot be
reset. Memory that kernels allocate inside an operation is not counted here.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["peak_bytes"]


def peak_bytes(work: Callable[[], object]) -> int:
    """Call ``work`` and return the peak of the bytes of all tensors made in it, its result included.

    Tensors made before are not counted. ``work`` runs slower than usual, because every operation is intercepted.
    """
    counting = _StorageCounter()
    try:
        with counting:
            work()
    finally:
        counting.detach()
    return counting.peak


class _StorageCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch does not annotate __init_subclass__
    """Counter of the storages made by operations, in backward passes too."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch does not annotate it
        self.peak = 0
        self._now = 0
        # By id: a storage's Python object lives as long as its memory, so that no two storages share an id.
        self._known: dict[int, weakref.finalize[[int, int], UntypedStorage]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """See `TorchDispatchMode`."""
        for tensor in _tensors_within((args, kwargs)):
            self._note(tensor, counted=False)
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors_within(result):
            self._note(tensor, counted=True)
        self.peak = max(self.peak, self._now)
        return result

    def _note(self, tensor: Tensor, *, counted: bool) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key not in self._known:
            size = storage.nbytes() if counted else 0
            self._now += size
            self._known[key] = weakref.finalize(storage, self._forget, key, size)

    def detach(self) -> None:
        """Ignore the end of storages that are still alive."""
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

"""The task's state on resume, which fairseq writes into checkpoints and never reads back.

Versions: fairseq 0.12.2. ``Trainer.state_dict`` stores ``task_state``; ``Trainer.load_checkpoint`` ignores it
(only ``checkpoint_utils.load_model_ensemble_and_task``, used for decoding, restores it), so that a resumed
run starts with the state of a new task.
Without it fails: tests/compat/test_task_state.py::test_resume_restores_task_state.
"""

import functools
import zipfile
from typing import Any

_MARK = "fairseq_l2t_restores_task_state"


def restore_task_state() -> None:
    """Make ``fairseq.trainer.Trainer.load_checkpoint`` restore the task's state; a second call does nothing.

    The state is restored where the optimizer's is: not with ``--reset-optimizer`` (a new training from old weights),
    and not without a checkpoint.
    """
    from fairseq.trainer import Trainer

    original = Trainer.load_checkpoint
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def load_checkpoint(self: Any, filename: str, reset_optimizer: bool = False, *args: Any, **kwargs: Any) -> Any:
        extra_state = original(self, filename, reset_optimizer, *args, **kwargs)
        if extra_state is not None and not reset_optimizer:
            task_state = _read_task_state(filename)
            if task_state is not None:
                self.task.load_state_dict(task_state)
        return extra_state

    setattr(load_checkpoint, _MARK, True)
    Trainer.load_checkpoint = load_checkpoint


def _read_task_state(filename: str) -> dict[str, Any] | None:
    """Return the checkpoint's ``task_state``, or None where it has none.

    Every rank reads the file, as ``load_checkpoint`` looks for it on every rank too. The file is memory-mapped, so that
    the weights, which are most of it, are not read a second time.
    """
    import torch
    from fairseq.file_io import PathManager

    local_path = PathManager.get_local_path(filename)
    # torch.load maps only the zip format; checkpoints in the older one (PyTorch < 1.6) are read whole.
    is_mappable = zipfile.is_zipfile(local_path)
    state = torch.load(local_path, map_location="cpu", weights_only=True, mmap=is_mappable)
    task_state: dict[str, Any] | None = state.get("task_state")
    return task_state

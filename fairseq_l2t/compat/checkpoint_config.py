"""Checkpoints that only the plugin of their training can load.

Versions: fairseq 0.12.2. ``Trainer.state_dict`` stores the names of the run's task and criterion, and no task can store
others. ``hub_utils.from_pretrained``, ``fairseq-validate`` and converters of other programs build both by
name, and fail where the plugin is not imported: ``Could not infer task type``, ``KeyError: 'l2t_dlf'``.
Without it fails: tests/end_to_end/test_stock_programs.py::test_programs_without_the_plugin.
"""

import functools
from typing import Any

_MARK = "fairseq_l2t_asks_the_task"


def patch_checkpoint_config() -> None:
    """Let a task that has a method ``checkpoint_entries`` change a checkpoint's entries; a second call does nothing.

    The method gets the entries that ``fairseq.trainer.Trainer.state_dict`` returns, and returns those to store.
    """
    from fairseq.trainer import Trainer

    original = Trainer.state_dict
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def state_dict(self: Any) -> dict[str, Any]:
        entries: dict[str, Any] = original(self)
        if hasattr(self.task, "checkpoint_entries"):
            changed: dict[str, Any] = self.task.checkpoint_entries(entries)
            return changed
        return entries

    setattr(state_dict, _MARK, True)
    Trainer.state_dict = state_dict

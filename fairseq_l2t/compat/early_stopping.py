"""``--patience`` and ``--max-update`` on resume, which fairseq does not restore.

Versions: fairseq 0.12.2. The number of validations without improvement is an attribute of the function
``fairseq_cli.train.should_stop_early`` and is not in checkpoints: a resumed run waits for ``--patience`` further ones.
A run that had ended (the machine stopped before the caller knew) does one more update on resume, because ``train``
checks neither limit before it begins; that update may even become the best checkpoint.
Without it fails: tests/compat/test_early_stopping.py::test_a_resumed_run_ends_where_an_uninterrupted_one_does.

This file is loaded by path, before the package may be imported.
"""

import functools
import logging
from types import ModuleType
from typing import Any

_MARK = "fairseq_l2t_remembers_patience"
_KEY = "early_stopping"

logger = logging.getLogger("fairseq_cli.train")


def patch_resume(train: ModuleType) -> None:
    """Store the count in checkpoints, and train nothing where a limit has been reached.

    A count is restored together with fairseq's own best value: not with ``--reset-optimizer`` or ``--reset-meters``. A
    larger ``--patience`` or ``--max-update`` continues. ``train`` is the module ``fairseq_cli.train``, just executed.
    """
    if hasattr(train.train, _MARK):
        return
    _patch_checkpoints(train)
    original = train.train

    @functools.wraps(original)
    def train_epoch(cfg: Any, trainer: Any, *args: Any, **kwargs: Any) -> Any:
        reason = _reason_to_stop(cfg, trainer.get_num_updates(), getattr(train.should_stop_early, "num_runs", 0))
        if reason:
            logger.info(f"nothing left to train: {reason}")
            return [None], True
        return original(cfg, trainer, *args, **kwargs)

    setattr(train_epoch, _MARK, True)
    train.train = train_epoch  # type: ignore[attr-defined]  # replaces a function of the module


def _patch_checkpoints(train: ModuleType) -> None:
    trainer, count = train.Trainer, train.should_stop_early
    save, load = trainer.save_checkpoint, trainer.load_checkpoint

    @functools.wraps(save)
    def save_checkpoint(self: Any, filename: Any, extra_state: dict[str, Any]) -> Any:
        if hasattr(count, "num_runs"):
            extra_state = {**extra_state, _KEY: {"best": count.best, "num_runs": count.num_runs}}
        return save(self, filename, extra_state)

    @functools.wraps(load)
    def load_checkpoint(
        self: Any,
        filename: Any,
        reset_optimizer: bool = False,
        reset_lr_scheduler: bool = False,
        optimizer_overrides: Any = None,
        reset_meters: bool = False,
    ) -> Any:
        extra_state = load(self, filename, reset_optimizer, reset_lr_scheduler, optimizer_overrides, reset_meters)
        if extra_state is not None and _KEY in extra_state and not (reset_optimizer or reset_meters):
            count.best, count.num_runs = extra_state[_KEY]["best"], extra_state[_KEY]["num_runs"]
        return extra_state

    trainer.save_checkpoint, trainer.load_checkpoint = save_checkpoint, load_checkpoint


def _reason_to_stop(cfg: Any, updates: int, validations_without_improvement: int) -> str:
    if cfg.optimization.max_update and updates >= cfg.optimization.max_update:
        return f"{updates} updates, --max-update {cfg.optimization.max_update}"
    if 0 < cfg.checkpoint.patience <= validations_without_improvement:
        return (
            f"{validations_without_improvement} validations without a better one, --patience {cfg.checkpoint.patience}"
        )
    return ""

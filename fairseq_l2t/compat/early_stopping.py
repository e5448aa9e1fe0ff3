"""``--patience`` and ``--max-update`` on resume, which fairseq forgets.

Versions: fairseq 0.12.2. The validations without a better one are counted on the function
``fairseq_cli.train.should_stop_early``, not in checkpoints: a resumed run waits for ``--patience`` further ones. And a
run that had come to its end (the machine stopped before anyone knew) does one more update, as ``train`` looks at
neither before it begins; that update may even be the best checkpoint.
Without it fails: tests/compat/test_early_stopping.py::test_a_resumed_run_ends_where_an_uninterrupted_one_does.

This file is loaded by path, before the package may be imported.
"""

import functools
import logging

_MARK = "fairseq_l2t_remembers_patience"
_KEY = "early_stopping"

logger = logging.getLogger("fairseq_cli.train")


def mend_resume(train):
    """Keep the count in checkpoints, and do nothing where nothing is left to do.

    A count comes back where fairseq's own best value does: not with ``--reset-optimizer`` or ``--reset-meters``. A
    longer ``--patience`` or ``--max-update`` goes on. ``train`` is the module ``fairseq_cli.train``, just executed.
    """
    if hasattr(train.train, _MARK):
        return
    _mend_checkpoints(train)
    original = train.train

    @functools.wraps(original)
    def train_epoch(cfg, trainer, *args, **kwargs):
        ended = _why_ended(cfg, trainer.get_num_updates(), getattr(train.should_stop_early, "num_runs", 0))
        if ended:
            logger.info(f"nothing left to train: {ended}")
            return [None], True
        return original(cfg, trainer, *args, **kwargs)

    setattr(train_epoch, _MARK, True)
    train.train = train_epoch


def _mend_checkpoints(train):
    trainer, count = train.Trainer, train.should_stop_early
    save, load = trainer.save_checkpoint, trainer.load_checkpoint

    @functools.wraps(save)
    def save_checkpoint(self, filename, extra_state):
        if hasattr(count, "num_runs"):
            extra_state = {**extra_state, _KEY: {"best": count.best, "num_runs": count.num_runs}}
        return save(self, filename, extra_state)

    @functools.wraps(load)
    def load_checkpoint(
        self, filename, reset_optimizer=False, reset_lr_scheduler=False, optimizer_overrides=None, reset_meters=False
    ):
        extra_state = load(self, filename, reset_optimizer, reset_lr_scheduler, optimizer_overrides, reset_meters)
        if extra_state is not None and _KEY in extra_state and not (reset_optimizer or reset_meters):
            count.best, count.num_runs = extra_state[_KEY]["best"], extra_state[_KEY]["num_runs"]
        return extra_state

    trainer.save_checkpoint, trainer.load_checkpoint = save_checkpoint, load_checkpoint


def _why_ended(cfg, updates, without_better):
    if cfg.optimization.max_update and updates >= cfg.optimization.max_update:
        return f"{updates} updates, --max-update {cfg.optimization.max_update}"
    if 0 < cfg.checkpoint.patience <= without_better:
        return f"{without_better} validations without a better one, --patience {cfg.checkpoint.patience}"
    return ""

"""Validation of a student whose hypotheses are all empty, which ends the run.

Versions: fairseq 0.12.2. With ``--eval-bleu``, ``bleu`` is logged only if some hypothesis has a word. If all
are empty, which happens early in training, ``--best-checkpoint-metric bleu`` ends fairseq-train in
``KeyError: 'bleu'`` (fairseq_cli/train.py, ``validate``).
Without it fails: tests/compat/test_empty_hypotheses.py::test_bleu_of_nothing_is_zero.

This file is loaded by path, before the package may be imported.
"""

import functools
from types import ModuleType
from typing import Any

_MARK = "fairseq_l2t_knows_empty_hypotheses"


def patch_validation(train: ModuleType) -> None:
    """Set the BLEU of empty hypotheses to 0; ``train`` is the module ``fairseq_cli.train``, just executed."""
    original = train.get_valid_stats
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def get_valid_stats(cfg: Any, trainer: Any, stats: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if cfg.checkpoint.best_checkpoint_metric == "bleu" and cfg.task.get("eval_bleu", False):
            stats.setdefault("bleu", 0.0)
        return original(cfg, trainer, stats, *args, **kwargs)

    setattr(get_valid_stats, _MARK, True)
    train.get_valid_stats = get_valid_stats  # type: ignore[attr-defined]  # replaces a function of the module

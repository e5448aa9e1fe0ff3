"""Validation of a student that says nothing yet, which ends the run.

Versions: fairseq 0.12.2. With ``--eval-bleu``, ``bleu`` is logged only if some hypothesis has a word; where every one
is empty, as those of a young student may be, ``--best-checkpoint-metric bleu`` ends fairseq-train in
``KeyError: 'bleu'`` (fairseq_cli/train.py, ``validate``).
Without it fails: tests/compat/test_empty_hypotheses.py::test_bleu_of_nothing_is_zero.

This file is loaded by path, before the package may be imported.
"""

import functools

_MARK = "fairseq_l2t_knows_empty_hypotheses"


def mend_validation(train):
    """Have the BLEU of hypotheses without a word be 0; ``train`` is the module ``fairseq_cli.train``, just executed."""
    original = train.get_valid_stats
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def get_valid_stats(cfg, trainer, stats, *args, **kwargs):
        if cfg.checkpoint.best_checkpoint_metric == "bleu" and cfg.task.get("eval_bleu", False):
            stats.setdefault("bleu", 0.0)
        return original(cfg, trainer, stats, *args, **kwargs)

    setattr(get_valid_stats, _MARK, True)
    train.get_valid_stats = get_valid_stats

"""The options in a taught student's checkpoint, by names of stock fairseq: no program needs the plugin to load it.

The student is a model of fairseq's translation task. Its validation loss is that of fairseq's criterion
``label_smoothed_cross_entropy`` without smoothing, which also reports ``nll_loss`` and ``accuracy``.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

from fairseq.tasks.translation import TranslationConfig

__all__ = ["TAUGHT_WITH", "with_stock_names"]

TAUGHT_WITH = "taught_with"
"""Entry of a checkpoint's ``extra_state``: {"task": options, "criterion": options} of the training itself."""

_TASK = "translation"
_CRITERION = {
    "_name": "label_smoothed_cross_entropy",
    "label_smoothing": 0.0,
    "report_accuracy": True,
    "ignore_prefix_size": 0,
}


def with_stock_names(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's entries with stock fairseq's task and criterion, the trained ones kept in ``extra_state``.

    Args:
        entries: those of ``fairseq.trainer.Trainer.state_dict`` of the task ``l2t_dlf``; not changed.
    """
    cfg = entries["cfg"]
    stock = {option.name for option in dataclasses.fields(TranslationConfig)}
    task = {name: value for name, value in cfg["task"].items() if name in stock}
    criterion = {**_CRITERION, "sentence_avg": cfg["criterion"]["sentence_avg"]}
    # The task also has copies of fairseq's options, such as max_update of the section "optimization".
    of_fairseq = {
        name
        for section, options in cfg.items()
        if section not in ("task", "criterion", "model") and isinstance(options, Mapping)
        for name in options
    }
    own = {*cfg["task"], *cfg["criterion"]} - stock - criterion.keys() - of_fairseq
    changed = {
        **cfg,
        "task": {**task, "_name": _TASK},
        "criterion": criterion,
        "model": _stock_model(cfg["model"], own, criterion),
    }
    taught_with = {"task": dict(cfg["task"]), "criterion": dict(cfg["criterion"])}
    return {**entries, "cfg": changed, "extra_state": {**entries["extra_state"], TAUGHT_WITH: taught_with}}


def _stock_model(model: Any, own: set[str], criterion: Mapping[str, Any]) -> Any:
    """Return a model's options; those of older model classes are a namespace of all options, ours among them."""
    if not isinstance(model, argparse.Namespace):
        return model
    kept = {name: value for name, value in vars(model).items() if name not in own}
    stock = {name: value for name, value in criterion.items() if name != "_name"}
    return argparse.Namespace(**{**kept, **stock, "task": _TASK, "criterion": criterion["_name"]})

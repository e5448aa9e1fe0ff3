"""Which splits fairseq-train reads, and checks of their files before fairseq loads them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fairseq.data import data_utils, indexed_dataset
from fairseq.tasks.translation import TranslationTask

from fairseq_l2t.plugin.student_options import OptionError

__all__ = ["dev_splits", "load_split"]


def dev_splits(cfg: Any) -> list[str]:
    """Return the names of the dev splits, as fairseq-train reads ``--valid-subset``.

    Raises:
        ValueError: fairseq's message for numbered dev splits that are neither named nor combined.
        OptionError: a split that is named twice, or ``--combine-valid-subsets`` with another split than valid.
    """
    data_utils.raise_if_valid_subsets_unintentionally_ignored(cfg)
    given = cfg.dataset.valid_subset
    names: list[str] = given.split(",")
    if cfg.dataset.combine_valid_subsets and names != ["valid"]:
        raise OptionError(f"--combine-valid-subsets: --valid-subset is {given}; only valid, valid1, ... are combined")
    twice = [name for position, name in enumerate(names) if name in names[:position]]
    if twice:
        raise OptionError(f"--valid-subset: {given} names {twice[0]} twice; expected different splits")
    return names


def load_split(task: TranslationTask, split: str, *, combine: bool) -> None:
    """Load a split into ``task`` as fairseq's Trainer does.

    Args:
        task: a translation task with a single data folder.
        split: name of the split.
        combine: whether ``split1``, ``split2``, ... belong to it as well.

    Raises:
        OptionError: a part of the split is empty, has one side only, or sides of different length; names the files.
        FileNotFoundError: no such split.
    """
    for prefix in _parts(task, split, combine):
        _check_part(task, split, prefix)
    task.load_dataset(split, combine=combine, epoch=1)


def _parts(task: TranslationTask, split: str, combine: bool) -> Iterator[str]:
    """Yield the paths of the parts of a split, without the language at their end, in fairseq's order."""
    source, target, kind = task.cfg.source_lang, task.cfg.target_lang, task.cfg.dataset_impl
    for number in itertools.count():
        name = f"{split}{number or ''}"
        directions = (f"{source}-{target}", f"{target}-{source}")
        prefixes = [str(Path(task.cfg.data, f"{name}.{direction}.")) for direction in directions]
        found = [prefix for prefix in prefixes if indexed_dataset.dataset_exists(prefix + source, kind)]
        if not found:
            return
        yield found[0]
        if not combine:
            return


def _check_part(task: TranslationTask, split: str, prefix: str) -> None:
    sides = ((task.cfg.source_lang, task.src_dict), (task.cfg.target_lang, task.tgt_dict))
    counts = []
    for language, dictionary in sides:
        path = prefix + language
        content = Path(path + ".bin")
        if content.is_file() and content.stat().st_size == 0:  # which fairseq cannot map into memory
            raise OptionError(f"split {split}: {content} is empty; expected at least one pair, for dev at least 2")
        kind = task.cfg.dataset_impl or indexed_dataset.infer_dataset_impl(path) or "cached"
        found = indexed_dataset.make_dataset(path, kind, fix_lua_indexing=True, dictionary=dictionary)
        if found is None:
            raise OptionError(f"split {split}: {path} not found; expected both sides of the pairs")
        counts.append(len(found))
    if counts[0] != counts[1]:
        raise OptionError(
            f"split {split}: {prefix}{sides[0][0]} has {counts[0]} sentences and {prefix}{sides[1][0]} has "
            f"{counts[1]}; expected equal numbers"
        )

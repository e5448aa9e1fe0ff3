"""Command lines of the programs that plans start."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import fairseq_l2t
from fairseq_l2t.pairs.programs import console_script

__all__ = [
    "data_words",
    "generate",
    "hypotheses_in_order",
    "inspect",
    "taught_criterion",
    "validation",
    "words",
    "worker",
]

Words = tuple[str, ...]
LENGTH_LIMIT = {"max_len_a": 1.2, "max_len_b": 10}
"""At most a times the source's length plus b pieces: up to fairseq's 200 a few translations repeat themselves."""


def words(template: str, *values: object) -> Words:
    """Return the words of a command line; each ``{}`` is one of the values, whatever characters it has."""
    given = iter(values)
    return tuple(str(next(given)) if word == "{}" else word for word in template.split())


def worker(name: str) -> Words:
    """Return the beginning of a command that runs a worker of this package."""
    return (sys.executable, "-m", "experiments", name)


def data_words(data_bin: Path, languages: tuple[str, str]) -> Words:
    """Return DATA_BIN and its languages, as fairseq's programs take them."""
    return words("{} --source-lang {} --target-lang {}", data_bin, *languages)


def validation(interval: int, beam: int) -> Words:
    """Return options for dev BLEU every ``interval`` updates; it chooses the best checkpoint; another one is kept.

    fairseq also validates and saves at the end of epochs; the large epoch intervals switch that off, so that all
    students are validated equally often.
    """
    return words(
        "--validate-interval 1000000 --save-interval 1000000 --validate-interval-updates {} --save-interval-updates {} "
        "--keep-interval-updates 1 --no-epoch-checkpoints --eval-bleu --eval-bleu-remove-bpe sentencepiece "
        "--eval-bleu-args {} --best-checkpoint-metric bleu --maximize-best-checkpoint-metric",
        interval,
        interval,
        json.dumps({"beam": beam, **LENGTH_LIMIT}),
    )


def taught_criterion(teacher: Path) -> Words:
    """Return the options of a student under the loss of a teacher file."""
    plugin = Path(fairseq_l2t.__file__).parent
    options = "--user-dir {} --task l2t_dlf --criterion dynamic_teacher_loss --teacher-path {}"
    return words(options, plugin, teacher)


def generate(data: Words, split: str, beam: int, is_limited: bool) -> Words:
    """Return the command that decodes a split; the checkpoint's ``--path`` is not in it.

    ``is_limited``: as validations are; without a limit a few sentences that repeat themselves cost one student 2 BLEU.
    ``--task translation``: a taught student is an ordinary checkpoint and needs no plugin.
    """
    options = "--task translation --gen-subset {} --beam {} --remove-bpe sentencepiece --batch-size 64"
    limit = "--max-len-a {max_len_a} --max-len-b {max_len_b}".format(**LENGTH_LIMIT) if is_limited else ""
    return (console_script("fairseq-generate"), *data, *words(options, split, beam), *limit.split())


def inspect(teacher: Path, dictionary: Path, plots: Path, more: str = "") -> Words:
    """Return the command that describes a teacher in words and plots; ``teacher`` is its folder."""
    return (
        console_script("l2t-inspect"),
        str(teacher / "teacher.safetensors"),
        *words("--dict {} --log {}", dictionary, teacher / "teacher_log.jsonl"),
        *words(more),
        *words("--plots {}", plots),
    )


def hypotheses_in_order(lines: Sequence[str]) -> list[str]:
    """Return the detokenised hypotheses (``D-`` lines) of fairseq-generate's output, in the order of the test set."""
    found = {}
    for line in lines:
        if line.startswith("D-"):
            number, _, text = line.split("\t", 2)
            found[int(number[2:])] = text
    return [found[number] for number in sorted(found)]

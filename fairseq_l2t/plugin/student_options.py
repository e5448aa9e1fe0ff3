"""From a fairseq command line to a checked configuration of a student that is taught.

Everything that cannot be unrolled and differentiated exactly is refused here, by the name of its option, before
any data is read.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from fairseq import options
from fairseq.data.data_utils import infer_language_pair
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import open_dict

from fairseq_l2t.loss.dynamic_loss import LOSS_LEVELS, LossShape
from fairseq_l2t.loss.teacher import DEFAULT_INITIAL_COEFFICIENT, VOCABULARY_FORMS

__all__ = ["DEFAULT_TOTAL_UPDATES", "OptionError", "StudentOptions", "add_student_options", "parse_student_options"]

DEFAULT_TOTAL_UPDATES = 1000
"""Length of a student's life where neither --total-updates nor --max-update says it."""

_OWN_FOLDER = str(Path(__file__).resolve().parent.parent)
_LARGEST_SEED = 2**31 - 1
"""NumPy, which fairseq seeds for the data order, takes 32 bits; lives count up from the seed."""
_CRITERIA = ("cross_entropy", "dynamic_teacher_loss")
"""What a command line shared with ``fairseq-train`` may name; any other would be ignored in silence."""
_SCHEDULES_WITHOUT_REPLAY = ("reduce_lr_on_plateau", "pass_through")


class OptionError(ValueError):
    """An option that is missing, out of range or not supported; the message names it and what is allowed."""


@dataclass(frozen=True)
class StudentOptions:
    """A checked configuration.

    Args:
        cfg: fairseq's configuration (omegaconf).
        namespace: every parsed option, ours included.
        loss_shape: scale, cross-entropy share and level of the dynamic loss.
        total_updates: horizon, the length of a student's life in updates.
        cross_entropy_updates: updates of plain cross-entropy at its start.
    """

    cfg: Any
    namespace: argparse.Namespace
    loss_shape: LossShape
    total_updates: int
    cross_entropy_updates: int


def add_student_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a taught student that fairseq does not have."""
    group = parser.add_argument_group("L2T student")
    group.add_argument(
        "--total-updates",
        type=int,
        metavar="H",
        help=f"length of a student's life in updates (default: --max-update, else {DEFAULT_TOTAL_UPDATES})",
    )
    group.add_argument(
        "--cross-entropy-updates",
        type=int,
        metavar="N",
        help="updates of plain cross-entropy at the start of each life "
        "(default: --warmup-updates where it is given, else 0)",
    )
    group.add_argument(
        "--student-init", metavar="CHECKPOINT", help="fairseq checkpoint whose weights every student starts from"
    )
    group.add_argument(
        "--initial-coefficient",
        type=float,
        default=DEFAULT_INITIAL_COEFFICIENT,
        metavar="PHI",
        help="coefficient Phi a new teacher starts from (default: %(default)s)",
    )
    group.add_argument(
        "--coefficient-form",
        choices=VOCABULARY_FORMS,
        default=VOCABULARY_FORMS[0],
        help="a coefficient for each target word (the paper's), or one more, of the mean log-probability of all words: "
        "what label smoothing has beside the target (default: %(default)s)",
    )
    group.add_argument(
        "--initial-off-diagonal",
        type=float,
        metavar="PSI",
        help="coefficient of that mean a new teacher starts from; label smoothing E would have PHI * E / (1 - E) "
        "(default: 0; l2t-train-teacher's preset whole-life: 0.075 where the form is smoothed)",
    )
    group.add_argument(
        "--loss-scale",
        type=float,
        metavar="C",
        help="factor of the sigmoid loss (default: 4 / PHI, which makes its gradient that of "
        "cross-entropy where PHI log p is small)",
    )
    group.add_argument(
        "--cross-entropy-mix",
        type=float,
        default=0.0,
        metavar="ALPHA",
        help="share in [0, 1] of plain cross-entropy in the loss",
    )
    group.add_argument(
        "--loss-level",
        choices=LOSS_LEVELS,
        default=LOSS_LEVELS[0],
        help="what one sigmoid is taken of: a token (the paper's loss), or the mean over a sentence, so that all "
        "tokens of an implausible pair count for less (default: %(default)s)",
    )
    group.add_argument(
        "--dev-holdout",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="share of the dev pairs that choose the teacher instead of training it (default: %(default)s)",
    )
    group.add_argument(
        "--dev-batch",
        type=int,
        default=64,
        metavar="B",
        help="dev pairs a teacher update measures on (default: %(default)s)",
    )
    group.add_argument(
        "--trust-module",
        action="append",
        default=[],
        metavar="CLASS",
        help="full name of a module class (my_plugin.MyLayer) whose second derivatives you answer for; "
        "l2t-doctor measures them",
    )
    group.add_argument(
        "--allow-dev-overlap", action="store_true", help="go on although dev pairs also stand in the training data"
    )


def parse_student_options(
    arguments: Sequence[str],
    add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
    settle: Callable[[argparse.Namespace], None] = lambda given: None,
) -> StudentOptions:
    """Parse fairseq's training options and ours, and refuse what cannot be taught exactly.

    Args:
        arguments: the command line, without the program's name.
        add_options: adds further options to the parser (the trainer's own), or other defaults.
        settle: puts values where none are given and what is right depends on other options.

    Raises:
        OptionError: names the option, its value and what is allowed.
    """
    try:
        parser = options.get_training_parser()
        parser.set_defaults(criterion="cross_entropy")
        parser.error = _refuse_command_line
        add_student_options(parser)
        add_options(parser)
        namespace = options.parse_args_and_arch(parser, input_args=_without_own_user_dir(arguments))
    except FileNotFoundError as error:  # fairseq's message is the path alone
        raise OptionError(f"--user-dir: {error} not found; expected a folder of fairseq plugins") from error
    except RuntimeError as error:
        if error.args:
            raise
        # fairseq's way to say that it was given no architecture
        raise OptionError("--arch: not given; expected an architecture such as transformer_iwslt_de_en") from error
    settle(namespace)
    if namespace.initial_off_diagonal is None:
        namespace.initial_off_diagonal = 0.0
    if namespace.criterion not in _CRITERIA:
        raise OptionError(f"--criterion: {namespace.criterion}; expected {' or '.join(_CRITERIA)}")
    # The student's loss is ours and so is its teacher: fairseq's Trainer is built around plain translation.
    namespace.criterion = "cross_entropy"
    namespace.task = "translation" if namespace.task == "l2t_dlf" else namespace.task
    _refuse_precision(namespace)
    namespace.tpu = False  # fairseq 0.12.2 sets it for --bf16
    cfg = convert_namespace_to_omegaconf(namespace)
    _refuse_unsupported(cfg, namespace)
    _refuse_numbers(cfg)
    _refuse_heads(namespace)
    if cfg.task._name == "translation":  # any other task is refused later, by name
        _refuse_data(cfg)
    with open_dict(cfg):
        # In the main process and without a reader thread: the same batches, and nothing beside us draws numbers.
        cfg.dataset.num_workers, cfg.dataset.data_buffer_size = 0, 0
        cfg.distributed_training.distributed_world_size = 1
    return StudentOptions(cfg, namespace, *_checked_numbers(cfg, namespace, arguments))


def _without_own_user_dir(arguments: Sequence[str]) -> list[str]:
    """Drop a ``--user-dir`` that names this very package: it is loaded already."""
    kept, skip = [], False
    for position, argument in enumerate(arguments):
        value = arguments[position + 1] if position + 1 < len(arguments) else ""
        if skip:
            skip = False
        elif argument == "--user-dir" and str(Path(value).resolve()) == _OWN_FOLDER:
            skip = True
        elif not argument.startswith("--user-dir=") or str(Path(argument[11:]).resolve()) != _OWN_FOLDER:
            kept.append(argument)
    return kept


def _refuse_command_line(message: str) -> NoReturn:
    """Stand in for `argparse.ArgumentParser.error`, which prints two hundred lines of usage before what is wrong."""
    # fairseq parses --lr with a lambda that fails on NaN and infinity.
    message = message.replace("invalid <lambda> value", "invalid value")
    raise OptionError(message + ("; expected finite numbers above 0" if "argument --lr:" in message else ""))


def _refuse_precision(namespace: argparse.Namespace) -> None:
    for name in ("fp16", "memory_efficient_fp16", "amp"):
        if vars(namespace).get(name):
            raise OptionError(
                f"--{name.replace('_', '-')}: half precision has no trustworthy second derivatives; "
                "use --bf16 or float32 (neither option)"
            )
    if vars(namespace).get("memory_efficient_bf16"):
        raise OptionError("--memory-efficient-bf16: not supported; use --bf16 or float32 (neither option)")


def _refuse_unsupported(cfg: Any, namespace: argparse.Namespace) -> None:
    if cfg.dataset.max_tokens is None and cfg.dataset.batch_size is None:
        raise OptionError("--max-tokens / --batch-size: neither given; expected at least one")
    if cfg.lr_scheduler._name in _SCHEDULES_WITHOUT_REPLAY:
        raise OptionError(
            f"--lr-scheduler: {cfg.lr_scheduler._name}; the unroll needs a schedule of the update number alone, "
            "such as fixed, inverse_sqrt, cosine, polynomial_decay, triangular or tri_stage"
        )
    for name in ("grouped_shuffling", "update_epoch_batch_itr", "update_ordered_indices_seed"):
        if cfg.dataset[name]:
            raise OptionError(f"--{name.replace('_', '-')}: not supported; the unroll shuffles without it")
    given = vars(namespace)
    for name in ("encoder_layerdrop", "decoder_layerdrop", "quant_noise_pq", "quant_noise_scalar"):
        if given.get(name):
            raise OptionError(f"--{name.replace('_', '-')}: {given[name]}; expected 0 under a teacher")
    for name in ("checkpoint_activations", "use_bmuf", "store_ema"):
        if given.get(name):
            raise OptionError(f"--{name.replace('_', '-')}: {given[name]}; not supported under a teacher")


def _refuse_numbers(cfg: Any) -> None:
    """fairseq takes these as they come, and then fails late or trains on nothing."""
    for name, value in (("--max-tokens", cfg.dataset.max_tokens), ("--batch-size", cfg.dataset.batch_size)):
        if value is not None and value < 1:
            raise OptionError(f"{name}: {value}; expected at least 1")
    if not 0 <= cfg.common.seed <= _LARGEST_SEED:
        raise OptionError(f"--seed: {cfg.common.seed}; expected 0 to {_LARGEST_SEED}")
    if not (cfg.optimization.clip_norm >= 0 and math.isfinite(cfg.optimization.clip_norm)):
        raise OptionError(f"--clip-norm: {cfg.optimization.clip_norm}; expected a finite number of at least 0 (0: off)")
    for lr in cfg.optimization.lr:
        if not (lr > 0 and math.isfinite(lr)):
            raise OptionError(f"--lr: {lr}; expected finite numbers above 0")


def _refuse_heads(namespace: argparse.Namespace) -> None:
    """fairseq checks it by an ``assert``, which ``python -O`` drops."""
    given = vars(namespace)
    for side in ("encoder", "decoder"):
        heads, width = given.get(f"{side}_attention_heads"), given.get(f"{side}_embed_dim")
        if heads is not None and width is not None and (heads < 1 or width % heads):
            raise OptionError(f"--{side}-attention-heads: {heads}; expected a divisor of --{side}-embed-dim {width}")


def _refuse_data(cfg: Any) -> None:
    folder = cfg.task.data.split(":")[0]
    if not Path(folder).is_dir():
        raise OptionError(f"data: {folder} is not a folder; expected one that fairseq-preprocess has written")
    if None in (cfg.task.source_lang, cfg.task.target_lang) and None in infer_language_pair(folder):
        raise OptionError(
            f"data: {folder} has no file such as train.de-en.de.idx; expected a folder that fairseq-preprocess has "
            "written, or --source-lang and --target-lang"
        )


def _checked_numbers(cfg: Any, namespace: argparse.Namespace, arguments: Sequence[str]):
    total = namespace.total_updates
    if total is None:
        total = cfg.optimization.max_update or DEFAULT_TOTAL_UPDATES
    if total < 1:
        raise OptionError(f"--total-updates: {total}; expected at least 1")
    warmup = namespace.cross_entropy_updates
    if warmup is None:
        is_given = any(argument.split("=")[0] == "--warmup-updates" for argument in arguments)
        warmup = int(vars(namespace).get("warmup_updates") or 0) if is_given else 0
    if not 0 <= warmup < total:
        raise OptionError(
            f"--cross-entropy-updates / --warmup-updates: {warmup}; expected 0 to {total - 1}, "
            "less than --total-updates"
        )
    if not 0 < namespace.dev_holdout < 1:
        raise OptionError(f"--dev-holdout: {namespace.dev_holdout}; expected a share above 0 and below 1")
    if namespace.dev_batch < 1:
        raise OptionError(f"--dev-batch: {namespace.dev_batch}; expected at least 1")
    initial = namespace.initial_coefficient
    if not (initial > 0 and math.isfinite(initial)):
        raise OptionError(f"--initial-coefficient: {initial}; expected a finite number above 0")
    beside = namespace.initial_off_diagonal
    if not math.isfinite(beside) or (beside and namespace.coefficient_form == "diagonal"):
        raise OptionError(
            f"--initial-off-diagonal: {beside}; expected a finite number, 0 unless --coefficient-form is smoothed"
        )
    scale = 4.0 / initial if namespace.loss_scale is None else namespace.loss_scale
    return LossShape(scale, namespace.cross_entropy_mix, namespace.loss_level), total, warmup

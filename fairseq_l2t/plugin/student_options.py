"""Conversion of a command line to the checked configuration of a taught student.

Options that cannot be unrolled and differentiated exactly are refused here by name, before any data is read.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from fairseq.data.data_utils import infer_language_pair
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf, open_dict

from fairseq_l2t.loss.dynamic_loss import LossShape
from fairseq_l2t.objectives.bleu_tokenizers import tokenizer_of, why_unusable
from fairseq_l2t.plugin.fairseq_options import parse_fairseq_options, print_help
from fairseq_l2t.teaching.options.command_line import parse_options
from fairseq_l2t.teaching.options.declaration import OptionError
from fairseq_l2t.teaching.options.presets import PRESETS, TRANSLATION_PRESETS
from fairseq_l2t.teaching.options.translation_options import TranslationOptions
from fairseq_l2t.teaching.plan import TeachingPlan, plan_of, resolve

__all__ = ["OptionError", "StudentOptions", "parse_student_options"]

_PRESETS = {name: PRESETS[name] for name in TRANSLATION_PRESETS}

_LARGEST_SEED = 2**31 - 1
"""Largest ``--seed``: fairseq seeds NumPy, which accepts 32 bits, for the data order, and lives count up from it."""

_CRITERIA = ("cross_entropy", "dynamic_teacher_loss")
"""Allowed values of ``--criterion``, for a command line shared with ``fairseq-train``; others would be ignored."""

_SCHEDULES_WITHOUT_REPLAY = ("reduce_lr_on_plateau", "pass_through")


@dataclass(frozen=True)
class StudentOptions:
    """A checked configuration.

    Args:
        cfg: fairseq's configuration (omegaconf).
        namespace: every option, fairseq's and ours, ours resolved.
        own: our options, resolved.
        plan: the numbers of teaching, computed from them.
        given: names of our options that are given, on the command line or in a file.
        of_fairseq: fairseq's options that are given, by name, in plain types.
    """

    cfg: Any
    namespace: argparse.Namespace
    own: TranslationOptions
    plan: TeachingPlan
    given: frozenset[str]
    of_fairseq: Mapping[str, Any]

    @property
    def loss_shape(self) -> LossShape:
        """Scale, cross-entropy share and level of the dynamic loss."""
        return self.plan.loss_shape(self.own.loss_level)

    @property
    def bleu_tokenizer(self) -> str:
        """sacrebleu's tokenizer for the reward of ``expected-bleu``."""
        return self.own.bleu_tokenizer or "13a"

    @property
    def total_updates(self) -> int:
        """Length of a student's life in updates."""
        return self.plan.total_updates

    @property
    def cross_entropy_updates(self) -> int:
        """Updates of plain cross-entropy at the start of a life."""
        return self.plan.cross_entropy_updates


def parse_student_options(arguments: Sequence[str], preset: str = "short-windows") -> StudentOptions:
    """Parse our options and fairseq's training options, and refuse those without an exact hypergradient.

    Args:
        arguments: the command line, without the program's name.
        preset: name of the preset if ``--preset`` is not given.

    Raises:
        OptionError: names the option, its value and the values allowed.
        SystemExit: ``--help`` was asked for.
    """
    if {"-h", "--help"} & set(arguments):
        print_help()
    given = parse_options(TranslationOptions, arguments, _PRESETS, preset)
    namespace, of_fairseq = parse_fairseq_options(given)
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
    own = resolve(
        given.options,
        given.names,
        max_update=cfg.optimization.max_update or None,
        warmup_updates=int(namespace.warmup_updates) if of_fairseq.get("warmup_updates") else None,
    )
    own = _with_tokenizer(own, OmegaConf.to_container(cfg.task))
    vars(namespace).update({field.name: getattr(own, field.name) for field in fields(own)})
    return StudentOptions(cfg, namespace, own, plan_of(own, cfg.common.seed), given.names, of_fairseq)


def _with_tokenizer(own: TranslationOptions, task: Any) -> TranslationOptions:
    """Return the options with the tokenizer of the reward; refuse one that is needed and not installed."""
    language = task.get("target_lang") or ""
    if not language and task["_name"] == "translation":
        language = infer_language_pair(task["data"].split(":")[0])[1]
    of_language = "none" if task.get("eval_tokenized_bleu") else tokenizer_of(language)
    chosen: Any = own.bleu_tokenizer or of_language
    if own.objective == "expected-bleu" and (reason := why_unusable(chosen)):
        known = "" if own.bleu_tokenizer else f" (of target language {language})"
        raise OptionError(f"--bleu-tokenizer: {chosen}{known} {reason}")
    return replace(own, bleu_tokenizer=chosen)


def _refuse_precision(namespace: argparse.Namespace) -> None:
    for name in ("fp16", "memory_efficient_fp16", "amp"):
        if vars(namespace).get(name):
            raise OptionError(
                f"--{name.replace('_', '-')}: second derivatives in half precision are not accurate; "
                "use --bf16 or float32 (neither option)"
            )
    if vars(namespace).get("memory_efficient_bf16"):
        raise OptionError("--memory-efficient-bf16: not supported; use --bf16 or float32 (neither option)")


def _refuse_unsupported(cfg: Any, namespace: argparse.Namespace) -> None:
    if cfg.dataset.max_tokens is None and cfg.dataset.batch_size is None:
        raise OptionError("--max-tokens / --batch-size: neither given; expected at least one")
    if cfg.lr_scheduler._name in _SCHEDULES_WITHOUT_REPLAY:
        raise OptionError(
            f"--lr-scheduler: {cfg.lr_scheduler._name}; the unroll needs a schedule that depends only on the update "
            "number, such as fixed, inverse_sqrt, cosine, polynomial_decay, triangular or tri_stage"
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
    """Refuse numbers that fairseq accepts without a check, although it then fails late or trains on no data."""
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
    """Refuse a number of heads that does not divide the width; fairseq's ``assert`` is dropped by ``python -O``."""
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

"""Conversion of a command line to the checked configuration of a taught student.

Options that cannot be unrolled and differentiated exactly are refused here by name, before any data is read.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from fairseq.data.data_utils import infer_language_pair
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.models.lstm import LSTMModel
from fairseq.registry import REGISTRIES
from omegaconf import OmegaConf, open_dict

from fairseq_l2t.loss.dynamic_loss import LossShape
from fairseq_l2t.objectives.bleu_tokenizers import tokenizer_of, why_unusable
from fairseq_l2t.plugin.fairseq_options import parse_fairseq_options, print_help
from fairseq_l2t.plugin.option_ranges import refuse_out_of_range
from fairseq_l2t.plugin.schedule_check import refuse_schedule
from fairseq_l2t.plugin.student.optimizers import SUPPORTED, WITHOUT_ADJOINT
from fairseq_l2t.teaching.options.command_line import Given, parse_options
from fairseq_l2t.teaching.options.declaration import OptionError, flag_of
from fairseq_l2t.teaching.options.presets import PRESETS, TRANSLATION_PRESETS
from fairseq_l2t.teaching.options.teacher_help import asks_for_help
from fairseq_l2t.teaching.options.translation_options import TranslationOptions
from fairseq_l2t.teaching.plan import TeachingPlan, plan_of, resolve

__all__ = ["OptionError", "StudentOptions", "parse_student_options"]

_PRESETS = {name: PRESETS[name] for name in TRANSLATION_PRESETS}

_CRITERIA = ("cross_entropy", "dynamic_teacher_loss")
"""Allowed values of ``--criterion``, for a command line shared with ``fairseq-train``; others would be ignored."""

_STARTING_WEIGHTS = ("restore_file", "finetune_from_model", "continue_once")
"""fairseq's options for the checkpoint of one training run; a teacher is trained with many students."""

_SCHEDULES_WITHOUT_REPLAY = ("reduce_lr_on_plateau", "pass_through")

_JSON_EXAMPLES = {"eval_bleu_args": """'{"beam": 4}'""", "eval_bleu_detok_args": """'{"target_lang": "en"}'"""}


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
    if asks_for_help(arguments):
        print_help(arguments)
    given = parse_options(TranslationOptions, arguments, _PRESETS, preset)
    with given.naming_file(arguments):
        return _checked(given)


def _checked(given: Given[TranslationOptions]) -> StudentOptions:
    namespace, of_fairseq = parse_fairseq_options(given)
    if namespace.criterion not in _CRITERIA:
        raise OptionError(f"--criterion: {namespace.criterion}; expected {' or '.join(_CRITERIA)}")
    _refuse_unsupported(namespace)
    refuse_out_of_range(of_fairseq, vars(namespace))
    _refuse_heads(namespace)
    _refuse_starting_weights(of_fairseq)
    _refuse_evaluation(namespace)
    own = resolve(
        given.options,
        given.names,
        max_update=namespace.max_update or None,
        warmup_updates=int(namespace.warmup_updates) if of_fairseq.get("warmup_updates") else None,
    )
    _set_for_teaching(namespace, own)
    cfg = convert_namespace_to_omegaconf(namespace)
    refuse_schedule(cfg, of_fairseq)
    _refuse_padded_items(cfg, namespace.arch)
    if cfg.task._name == "translation":  # any other task is refused later, by name
        _refuse_data(cfg)
    with open_dict(cfg):
        # In the main process and without a reader thread: the same batches, and nothing beside us draws numbers.
        cfg.dataset.num_workers, cfg.dataset.data_buffer_size = 0, 0
        cfg.distributed_training.distributed_world_size = 1
    own = _with_tokenizer(own, OmegaConf.to_container(cfg.task))
    _refuse_unused(own, given.names)
    vars(namespace).update({field.name: getattr(own, field.name) for field in fields(own)})
    return StudentOptions(cfg, namespace, own, plan_of(own, cfg.common.seed), given.names, of_fairseq)


def _set_for_teaching(namespace: argparse.Namespace, own: TranslationOptions) -> None:
    """Set the options of fairseq that teacher training determines."""
    # The student's loss is ours and so is its teacher: fairseq's Trainer is built around plain translation.
    namespace.criterion = "cross_entropy"
    namespace.task = "translation" if namespace.task == "l2t_dlf" else namespace.task
    namespace.tpu = False  # fairseq 0.12.2 sets it for --bf16
    namespace.tokenizer = namespace.bpe = None  # they are for decoding; fairseq needs their files even so
    # The default of schedules that need the length of training is that of a life.
    namespace.max_update = namespace.max_update or own.total_updates
    if "total_num_update" in namespace and namespace.total_num_update is None:
        namespace.total_num_update = namespace.max_update


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
    if own.objective != "expected-bleu" and chosen != of_language:
        raise OptionError(f"--bleu-tokenizer: {chosen}; has no effect with --objective {own.objective}")
    return replace(own, bleu_tokenizer=chosen)


def _refuse_unused(own: TranslationOptions, given: Collection[str]) -> None:
    """Refuse options of one objective that are given with another; the values of the preset are no request."""
    for name in ("estimator", "samples", "risk_alpha"):
        value = getattr(own, name)
        if name not in given or value == getattr(_PRESETS[own.preset], name):
            continue
        if own.objective != "expected-bleu":
            raise OptionError(f"{flag_of(name)}: {value}; has no effect with --objective {own.objective}")
        if name == "risk_alpha" and own.estimator != "risk":
            raise OptionError(f"{flag_of(name)}: {value}; has no effect with --estimator {own.estimator}")


def _refuse_unsupported(namespace: argparse.Namespace) -> None:
    if namespace.optimizer is None or namespace.optimizer in WITHOUT_ADJOINT:
        shown = "not given" if namespace.optimizer is None else f"{namespace.optimizer} has no adjoint"
        raise OptionError(f"--optimizer: {shown}; expected {SUPPORTED}")
    if namespace.max_tokens is None and namespace.batch_size is None:
        raise OptionError("--max-tokens / --batch-size: neither given; expected at least one")
    if namespace.lr_scheduler in _SCHEDULES_WITHOUT_REPLAY:
        raise OptionError(
            f"--lr-scheduler: {namespace.lr_scheduler}; the unroll needs a schedule that depends only on the update "
            "number, such as fixed, inverse_sqrt, cosine, polynomial_decay, triangular or tri_stage"
        )


def _refuse_heads(namespace: argparse.Namespace) -> None:
    """Refuse a number of heads that does not divide the width; fairseq's ``assert`` is dropped by ``python -O``."""
    given = vars(namespace)
    for side in ("encoder", "decoder"):
        heads, width = given.get(f"{side}_attention_heads"), given.get(f"{side}_embed_dim")
        if heads is not None and width is not None and (heads < 1 or width % heads):
            raise OptionError(f"--{side}-attention-heads: {heads}; expected a divisor of --{side}-embed-dim {width}")


def _refuse_evaluation(namespace: argparse.Namespace) -> None:
    """Refuse options of BLEU on dev that fairseq reads too late, and without naming them."""
    given = vars(namespace)
    for name in ("eval_bleu_args", "eval_bleu_detok_args"):
        text = given.get(name) or "{}"
        try:
            is_object = isinstance(json.loads(text), dict)
        except json.JSONDecodeError:
            is_object = False
        if not is_object:
            raise OptionError(f"{flag_of(name)}: {text}; expected a JSON object such as {_JSON_EXAMPLES[name]}")
    detokenizers = REGISTRIES["tokenizer"]["registry"]
    if given.get("eval_bleu_detok") and given["eval_bleu_detok"] not in detokenizers:
        raise OptionError(f"--eval-bleu-detok: {given['eval_bleu_detok']}; expected one of {', '.join(detokenizers)}")


def _refuse_data(cfg: Any) -> None:
    folder = cfg.task.data.split(":")[0]
    if not Path(folder).is_dir():
        raise OptionError(f"data: {folder} is not a folder; expected one that fairseq-preprocess has written")
    if None in (cfg.task.source_lang, cfg.task.target_lang) and None in infer_language_pair(folder):
        raise OptionError(
            f"data: {folder} has no file such as train.de-en.de.idx; expected a folder that fairseq-preprocess has "
            "written, or --source-lang and --target-lang"
        )


def _refuse_starting_weights(of_fairseq: Mapping[str, Any]) -> None:
    for name in _STARTING_WEIGHTS:
        if name in of_fairseq:
            raise OptionError(
                f"--{name.replace('_', '-')}: {of_fairseq[name]}; students of a teacher start with random weights or "
                "with those of --student-init CHECKPOINT"
            )


def _refuse_padded_items(cfg: Any, arch: str) -> None:
    """Refuse what ends in an ``assert`` of fairseq without a message, or is dropped by ``python -O``."""
    buckets, multiple = cfg.task.get("num_batch_buckets") or 0, cfg.dataset.required_seq_len_multiple
    for name, value, least in (("--num-batch-buckets", buckets, 0), ("--required-seq-len-multiple", multiple, 1)):
        if value > least and issubclass(ARCH_MODEL_REGISTRY[arch], LSTMModel):
            raise OptionError(f"{name}: {value}; --arch {arch} takes {least} only: its encoder refuses more padding")
    if buckets and cfg.dataset.max_tokens is None:
        raise OptionError(f"--num-batch-buckets: {buckets}; expected together with --max-tokens")

"""Ranges of fairseq's numbers, which fairseq does not check: it then fails late, or trains on no data.

Each range is declared in one place, as for our own options (`teaching.options.declaration`); values outside of it end
in an error that names the option.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from fairseq_l2t.teaching.options.declaration import OptionError, as_given, flag_of, range_of
from fairseq_l2t.teaching.options.limits import (
    LARGEST_COUNT,
    LARGEST_LAYERS,
    LARGEST_NORM,
    LARGEST_RATE,
    LARGEST_SEED,
    LARGEST_WIDTH,
)

__all__ = ["RANGES", "refuse_out_of_range"]

_WHOLE_NUMBERS = (
    (
        Field(ge=1, le=LARGEST_COUNT),
        "max_tokens batch_size required_batch_size_multiple required_seq_len_multiple update_freq "
        "max_source_positions max_target_positions lr_deacy_period",
    ),
    (
        Field(ge=0, le=LARGEST_COUNT),
        "num_batch_buckets curriculum warmup_updates max_update warmup_steps hold_steps decay_steps force_anneal",
    ),
    (
        Field(ge=1, le=LARGEST_WIDTH),
        "encoder_embed_dim encoder_ffn_embed_dim encoder_hidden_size encoder_conv_dim encoder_attention_heads "
        "decoder_embed_dim decoder_ffn_embed_dim decoder_hidden_size decoder_conv_dim decoder_attention_heads "
        "decoder_out_embed_dim decoder_output_dim",
    ),
    (Field(ge=1, le=LARGEST_LAYERS), "encoder_layers decoder_layers"),
    (Field(ge=0, le=LARGEST_SEED), "seed"),
)
_NUMBERS = (
    (Field(gt=0, le=LARGEST_RATE), "lr max_lr adam_eps"),
    (Field(ge=0, le=LARGEST_RATE), "weight_decay min_lr end_learning_rate"),
    (Field(ge=-1, le=LARGEST_RATE), "warmup_init_lr"),
    (Field(ge=0, le=LARGEST_NORM), "clip_norm"),
    (
        Field(ge=0, lt=1),
        "momentum adam_betas dropout attention_dropout activation_dropout relu_dropout input_dropout weight_dropout "
        "encoder_dropout_in encoder_dropout_out decoder_dropout_in decoder_dropout_out",
    ),
    (Field(ge=0, le=1), "lr_shrink lr_decay phase_ratio init_lr_scale"),
    (Field(gt=0, le=1), "final_lr_scale"),
    (Field(ge=1, le=1000), "t_mult"),
    (Field(ge=0, le=1000), "power"),
    (Field(ge=2, le=LARGEST_COUNT), "lr_period_updates"),
    (Field(ge=1, le=LARGEST_COUNT), "total_num_update"),
)

RANGES: dict[str, Any] = {
    name: Annotated[kind, field]
    for kind, table in ((int, _WHOLE_NUMBERS), (float, _NUMBERS))
    for field, names in table
    for name in names.split()
}
"""Type and range of each number, by option; of each value of an option that takes several."""

_SEVERAL = {"lr": 0, "update_freq": 0, "adam_betas": 2, "phase_ratio": 3}
"""Options with several values, and how many; 0: one or more."""

_TEXT = ("encoder_layers", "decoder_layers")
"""Options that are a number for some models and a list of layers for others (fconv)."""


def refuse_out_of_range(given: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Refuse a given number outside of its range.

    Args:
        given: the options that are given, by name.
        values: all options by name, as parsed.

    Raises:
        OptionError: names the option, the value and the range.
    """
    for name in given:
        value = values.get(name)
        if name not in RANGES or value is None or (name in _TEXT and isinstance(value, str)):
            continue
        if name in _SEVERAL:
            _refuse_list(name, value)
        elif not _is_inside(RANGES[name], value):
            raise OptionError(f"{flag_of(name)}: {value}; expected {_words(name)}")


def _refuse_list(name: str, value: Any) -> None:
    count = _SEVERAL[name]
    parts = _parts(value)
    inside = all(_is_inside(RANGES[name], part) for part in parts)
    if inside and parts and (not count or len(parts) == count):
        return
    shown = as_given(parts) or "no value"
    amount = f"{count} values, each" if count else "one value or more, separated by commas, each"
    raise OptionError(f"{flag_of(name)}: {shown}; expected {amount} {_words(name)}")


def _parts(value: Any) -> tuple[Any, ...]:
    """Return the values of a list; fairseq leaves ``--adam-betas '(0.9, 0.98)'`` a text."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return (value,)
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _is_inside(kind: Any, value: Any) -> bool:
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


def _words(name: str) -> str:
    kind = RANGES[name]
    words: str = range_of(kind.__origin__, kind.__metadata__[0].metadata)
    return words

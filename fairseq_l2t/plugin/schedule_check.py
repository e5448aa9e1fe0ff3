"""A trial of optimizer and learning rate schedule, so that fairseq's refusals come before any data and name options."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from fairseq import optim
from fairseq.optim.lr_scheduler import build_lr_scheduler
from omegaconf import DictConfig

from fairseq_l2t.teaching.options.declaration import OptionError, as_given, flag_of

__all__ = ["refuse_schedule"]

_TRIED_UPDATES = 3
"""Updates whose learning rate is computed; errors of a schedule appear in the first ones."""

_MANUAL = ("epoch2lr", "update2lr")
"""Options of fairseq's only supported schedule without a dataclass."""

_REFUSALS = (AssertionError, ValueError, TypeError, ArithmeticError, LookupError, ImportError, NotImplementedError)
"""How fairseq's optimizers and schedules refuse values."""


def refuse_schedule(cfg: Any, given: Mapping[str, Any]) -> None:
    """Refuse values that fairseq's optimizer or schedule refuses.

    Args:
        cfg: fairseq's configuration; it is not changed.
        given: fairseq's options that are given, by name.

    Raises:
        OptionError: names the optimizer or the schedule, its given options, and fairseq's reason.
    """
    trial = copy.deepcopy(cfg)  # some schedules write into their configuration
    step = "optimizer"
    try:
        optimizer = optim.build_optimizer(trial.optimizer, [torch.nn.Parameter(torch.zeros(1))])
        step = "lr_scheduler"
        schedule = build_lr_scheduler(trial.lr_scheduler, optimizer)
        schedule.step_begin_epoch(1)
        for update in range(_TRIED_UPDATES):
            schedule.step_update(update)
    except _REFUSALS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OptionError(f"{flag_of(step)}: {_described(trial[step], given)}: {reason}") from error


def _described(chosen: Any, given: Mapping[str, Any]) -> str:
    """Return the name of an optimizer or schedule with its options that are given."""
    # Schedules without a dataclass get all options of the command line.
    own = tuple(chosen) if isinstance(chosen, DictConfig) and "seed" not in chosen else _MANUAL
    names = [name for name in dict.fromkeys(("lr", *own)) if name in given]
    return f"{chosen._name} with {' '.join(f'{flag_of(name)} {as_given(given[name])}' for name in names) or 'defaults'}"

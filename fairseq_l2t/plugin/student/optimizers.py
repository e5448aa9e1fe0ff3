"""Which update rule a fairseq optimizer is."""

from __future__ import annotations

import torch
from fairseq.optim import FP16Optimizer
from fairseq.optim.adam import Adam as FairseqAdam
from fairseq.optim.nag import NAG as FairseqNAG

from fairseq_l2t.plugin.student_options import OptionError
from fairseq_l2t.unroll.update_rules import NAG, SGD, Adagrad, Adam, UpdateRule

__all__ = ["rule_of"]


def rule_of(optimizer, name: str) -> UpdateRule:
    """Return the rule (with adjoint) that does exactly what a fairseq optimizer does.

    Args:
        optimizer: a ``fairseq.optim.FairseqOptimizer`` with one parameter group.
        name: its ``--optimizer`` name, for the message.

    Raises:
        OptionError: an optimizer without an adjoint, by name.
    """
    inner = optimizer.fp32_optimizer.optimizer if isinstance(optimizer, FP16Optimizer) else optimizer.optimizer
    group = inner.param_groups[0]
    if type(inner) is FairseqAdam and not group["amsgrad"]:
        beta1, beta2 = group["betas"]
        return Adam(beta1, beta2, group["eps"], group["weight_decay"])
    if type(inner) is FairseqNAG:
        return NAG(group["momentum"], group["weight_decay"])
    if type(inner) is torch.optim.SGD and not group["nesterov"] and not group["dampening"]:
        return SGD(group["momentum"], group["weight_decay"])
    if type(inner) is torch.optim.Adagrad and not (group["lr_decay"] or group["initial_accumulator_value"]):
        return Adagrad(group["weight_decay"], group["eps"])
    raise OptionError(
        f"--optimizer: {name} ({type(inner).__module__}.{type(inner).__qualname__}) has no adjoint; "
        "expected adam, nag, sgd or adagrad"
    )

"""The update rule (with adjoint) of each fairseq optimizer.

To add a student optimizer:

1. Write its rule, a frozen dataclass with ``buffer_count``, ``apply`` and ``adjoint``, in ``unroll/update_rules.py``.
2. Map fairseq's optimizer to it in `rule_of`. Compare the type exactly, and refuse settings the rule does not cover.
   Name it in `SUPPORTED`.
3. Test it: a row in ``RULES`` of ``tests/unroll/test_update_rules.py`` and of
   ``tests/checks/test_differences_of_students.py``, and its options in ``OPTIMIZERS`` of ``testing/tiny_students.py``,
   which tests and benchmarks compare with fairseq's own training. A second version, of differentiable operations,
   goes into ``testing/differentiable_rules.py``.

``l2t-doctor`` then compares the rule with fairseq's own optimizer, and its adjoint with finite differences.
"""

from __future__ import annotations

import torch
from fairseq.optim import FairseqOptimizer, FP16Optimizer
from fairseq.optim.adam import Adam as FairseqAdam
from fairseq.optim.nag import NAG as FairseqNAG

from fairseq_l2t.teaching.options.declaration import OptionError
from fairseq_l2t.unroll.update_rules import NAG, SGD, Adagrad, Adam, UpdateRule

__all__ = ["SUPPORTED", "WITHOUT_ADJOINT", "rule_of"]

SUPPORTED = "adam, nag, sgd or adagrad"
"""Values of ``--optimizer`` that have a rule, for messages."""

WITHOUT_ADJOINT = ("adadelta", "adafactor", "adamax", "composite", "cpu_adam", "lamb")
"""fairseq's other values of ``--optimizer``, refused before fairseq builds them; some need further packages."""


def rule_of(optimizer: FairseqOptimizer, name: str) -> UpdateRule:
    """Return the rule whose updates equal those of a fairseq optimizer.

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
        f"expected {SUPPORTED}"
    )

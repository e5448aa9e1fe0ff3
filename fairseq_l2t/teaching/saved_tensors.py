"""Checks of the tensors in the saved state of a teacher training: names, shapes, dtypes, finite values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PlanShape", "student_tensor_problems", "tensor_problems"]

_COUNTS = (torch.float32, torch.float64)
"""Dtypes in which torch's Adam counts its steps."""
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""Names of the state of torch's Adam for one parameter."""


@dataclass(frozen=True)
class PlanShape:
    """The values that the tensors depend on.

    Args:
        keys, features: sizes of the teacher.
        teacher_update: number of teacher updates made.
        has_gone_back: whether the teacher returned to the best one, whose optimizer had made fewer steps.
        has_best: whether the best teacher is recorded.
        student_is_spoilt: whether the student is discarded before the next window, so that it may hold NaN.
        has_student: whether the student is saved; with several lives in an update it is not.
    """

    keys: int
    features: int
    teacher_update: int
    has_gone_back: bool
    has_best: bool
    student_is_spoilt: bool
    has_student: bool = True


def tensor_problems(tensors: Mapping[str, Tensor], shape: PlanShape) -> Iterator[str]:
    """Yield one line for each problem; the number of parameters and of coefficients is not known here."""
    parts, others = _by_prefix(tensors, ("student", "teacher", "optimizer", "best"))
    yield from (f"tensor {name} is not expected" for name in others)
    if shape.has_student:
        yield from student_tensor_problems(parts["student"], "student.", may_be_nan=shape.student_is_spoilt)
    elif parts["student"]:
        yield f"tensors student.*: {len(parts['student'])}; expected none"
    values = parts["teacher"].get("values")
    if values is None or values.dim() != 2 or not values.is_floating_point():
        yield "tensor teacher.values is missing or not a matrix of numbers"
        return
    sizes = {"values": (values.shape[0], shape.keys), "queries": (shape.keys, shape.features)}
    yield from _named("teacher.", parts["teacher"], sizes, values.dtype, finite=True)
    yield from _optimizer_problems(
        "optimizer.", parts["optimizer"], sizes, values.dtype, shape, fresh=not shape.teacher_update
    )
    if shape.has_best != bool(parts["best"]):
        wanted = "those of the best teacher" if shape.has_best else "none"
        yield f"tensors best.*: {len(parts['best'])}; expected {wanted}"
    elif shape.has_best:
        best, others = _by_prefix(parts["best"], ("teacher", "optimizer"))
        yield from (f"tensor best.{name} is not expected" for name in others)
        yield from _named("best.teacher.", best["teacher"], sizes, values.dtype, finite=True)
        yield from _optimizer_problems("best.optimizer.", best["optimizer"], sizes, values.dtype, shape, is_best=True)


def student_tensor_problems(
    tensors: Mapping[str, Tensor], prefix: str = "", *, may_be_nan: bool = False
) -> Iterator[str]:
    """Yield one line for each problem of the tensors of a life: ``omega`` (n,), ``buffer0`` (n,) and so on."""
    omega = tensors.get("omega")
    if omega is None or omega.dim() != 1 or not omega.is_floating_point():
        yield f"tensor {prefix}omega is missing or not a vector of numbers"
        return
    buffers = {f"buffer{number}": tuple(omega.shape) for number in range(len(tensors) - 1)}
    problems = list(_named(prefix, tensors, {"omega": tuple(omega.shape), **buffers}, omega.dtype))
    yield from problems
    if may_be_nan or problems:
        return
    if not bool(torch.isfinite(omega).all()):
        yield f"tensor {prefix}omega holds NaN or infinity"
    # A second moment may be infinite: the step is then 0.
    yield from (f"tensor {prefix}{name} holds NaN" for name in buffers if bool(torch.isnan(tensors[name]).any()))


def _by_prefix(
    tensors: Mapping[str, Tensor], prefixes: tuple[str, ...]
) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Return the tensors of each prefix by the rest of their names, and the names with another prefix."""
    parts: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in prefixes}
    others = []
    for full_name, tensor in tensors.items():
        prefix, _, name = full_name.partition(".")
        if prefix in parts:
            parts[prefix][name] = tensor
        else:
            others.append(full_name)
    return parts, others


def _optimizer_problems(
    prefix: str,
    tensors: Mapping[str, Tensor],
    sizes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
    shape: PlanShape,
    *,
    fresh: bool = False,
    is_best: bool = False,
) -> Iterator[str]:
    """Yield the problems of `teaching.teacher_optimizer.TeacherOptimizer.state_dict`."""
    levels = {name: (shape.keys,) for name in ("shared", "off_diagonal") if name == "shared" or name in tensors}
    parameters = {**levels, "word": sizes["values"]}
    moments: dict[str, tuple[int, ...]] = {}
    for name, size in {**parameters, "queries": sizes["queries"]}.items():
        moments.update({f"{name}.{key}": () if key == "step" else size for key in _MOMENTS})
    stepped = any(name in tensors for name in moments)
    may_be_fresh = fresh or is_best or shape.has_gone_back
    if stepped or not may_be_fresh:
        parameters.update(moments)
    yield from _named(prefix, tensors, parameters, dtype, finite=True)
    if stepped and fresh:
        yield f"tensors {prefix}*.step; expected none before the first teacher update"
    exact = not (is_best or shape.has_gone_back)
    for name in (name for name in tensors if name.endswith(".step") and tensors[name].numel() == 1):
        step = float(tensors[name])
        if not (step == shape.teacher_update if exact else step in range(shape.teacher_update + 1)):
            most = "" if exact else "at most "
            yield f"tensor {prefix}{name}: {step:g}; expected {most}the {shape.teacher_update} teacher updates made"


def _named(
    prefix: str,
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
    *,
    finite: bool = False,
) -> Iterator[str]:
    """Yield the missing, unexpected and ill-shaped tensors, and with ``finite`` those with NaN or infinity.

    A count of steps has a dtype of its own, and a second moment may be infinite: Adam's step is then 0.
    """
    yield from (f"tensor {prefix}{name} is missing" for name in expected if name not in tensors)
    yield from (f"tensor {prefix}{name} is not expected" for name in tensors if name not in expected)
    for name, size in expected.items():
        tensor = tensors.get(name)
        if tensor is None:
            continue
        is_count = name.endswith(".step")
        if tuple(tensor.shape) != size or (tensor.dtype != dtype and not (is_count and tensor.dtype in _COUNTS)):
            found = f"{_name_of(tensor.dtype)} {list(tensor.shape)}"
            yield f"tensor {prefix}{name}: {found}; expected {_name_of(dtype)} {list(size)}"
        elif name.endswith(".exp_avg_sq"):
            if not bool((tensor >= 0).all()):
                yield f"tensor {prefix}{name} holds NaN or numbers below 0"
        elif finite and not bool(torch.isfinite(tensor).all()):
            yield f"tensor {prefix}{name} holds NaN or infinity"


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

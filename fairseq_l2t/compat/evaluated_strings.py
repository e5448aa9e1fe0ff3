"""Options and checkpoints whose text fairseq passes to ``eval``, which runs any code in it.

Versions: fairseq 0.12.2. Layer lists (``--encoder-layers '[(512, 3)] * 20'``), Adam's betas, true/false values and
dictionaries of overrides are evaluated when an option is parsed and when a model is built from a checkpoint. A
checkpoint that ``torch.load(weights_only=True)`` accepts can therefore run code in fairseq-generate.
Without it fails: tests/compat/test_evaluated_strings.py::test_a_checkpoint_runs_no_code.

This file is loaded by path, before the package may be imported.
"""

import ast
import operator
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

# A call of the built-in function, in contrast to `model.eval()` and `reset_eval()`.
_EVAL_CALL = re.compile(r"(?<![\w.])eval\(")

_MOST_ELEMENTS = 10_000
"""Limit of a repeated list: `[0] * 10**12` would take all memory."""
_LONGEST_SHOWN = 100
"""Characters of the text that an error shows."""

_SEQUENCES = (list, tuple)
_NUMBERS = (int, float, complex)
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_SIGNS: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def patch_eval(module: ModuleType) -> None:
    """Make the name ``eval`` in ``module``, a module of fairseq just executed, mean `literal_value`.

    A module whose source does not call ``eval`` is left unchanged. Other modules keep the built-in function.
    """
    origin = getattr(module.__spec__, "origin", None)
    if origin is None or not origin.endswith(".py"):
        return
    if _EVAL_CALL.search(Path(origin).read_text(encoding="utf-8")):
        module.eval = literal_value  # type: ignore[attr-defined]  # found before the built-in function of this name


def literal_value(text: str) -> Any:
    """Return the value of a Python literal, in which lists, tuples and numbers may be added and multiplied.

    Raises:
        TypeError: ``text`` is not a string, as with ``eval``: fairseq's ``eval_bool`` depends on it.
        ValueError: not a literal, for example a call or a name; nothing in it is executed.
    """
    if not isinstance(text, str):
        raise TypeError(f"{text!r}: {type(text).__name__}; expected a string")
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    # The parser raises SyntaxError, MemoryError and RecursionError for deep nesting, ValueError for a null byte.
    except (SyntaxError, MemoryError, RecursionError, ValueError, TypeError, ArithmeticError) as error:
        shown = text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."
        raise ValueError(
            f"{shown!r}: {error}; expected a literal such as (0.9, 0.98) or [(512, 3)] * 20; "
            "code in options and checkpoints is not executed"
        ) from None


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.List():
            return [_value(element) for element in node.elts]
        case ast.Tuple():
            return tuple(_value(element) for element in node.elts)
        case ast.Set():
            return {_value(element) for element in node.elts}
        case ast.Dict():
            return _dictionary(node)
        case ast.UnaryOp(op=operation) if type(operation) in _SIGNS:
            operand = _value(node.operand)
            if isinstance(operand, _NUMBERS):
                return _SIGNS[type(operation)](operand)
        case ast.BinOp(op=operation) if type(operation) in _ARITHMETIC:
            left, right = _value(node.left), _value(node.right)
            if _is_supported(operation, left, right):
                return _ARITHMETIC[type(operation)](left, right)
    raise ValueError(f"{ast.unparse(node)[:_LONGEST_SHOWN]!r} is not a literal")


def _dictionary(node: ast.Dict) -> dict[Any, Any]:
    items = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if key is None:
            raise ValueError("'**' is not part of a literal")
        items[_value(key)] = _value(value)
    return items


def _is_supported(operation: ast.operator, left: Any, right: Any) -> bool:
    """Return whether the operation is arithmetic of numbers, or a concatenation or repetition of limited length."""
    if isinstance(left, _NUMBERS) and isinstance(right, _NUMBERS):
        return True
    if isinstance(operation, ast.Add):
        return isinstance(left, _SEQUENCES) and type(left) is type(right)
    sequence, count = (right, left) if isinstance(left, int) else (left, right)
    if not isinstance(operation, ast.Mult) or not isinstance(sequence, _SEQUENCES) or not isinstance(count, int):
        return False
    if len(sequence) * count > _MOST_ELEMENTS:
        raise ValueError(f"a list of more than {_MOST_ELEMENTS} elements")
    return True

"""Edits of saved states: every value and tensor removed, and changed in several ways."""

import copy
import math

import torch

WRONG = [
    None,
    -1,
    0,
    1,
    -0.5,
    2.5,
    10**30,
    10**400,
    math.nan,
    math.inf,
    "text\nof two lines",
    True,
    [],
    [-1],
    {},
    {"x": 1},
]


def edited_values(values, wrong=WRONG):
    """Yield (name of the edit, values) with one place removed, added or changed, never equal to the given values."""
    for path in _places(values):
        holder, key = path[:-1], path[-1]
        for label, edit in _edits(_at(values, path), wrong):
            changed = copy.deepcopy(values)
            edit(_at(changed, holder), key)
            if changed != values:
                yield f"{'.'.join(map(str, path))}: {label}", changed


def edited_tensors(tensors):
    """Yield (name of the edit, tensors) with one tensor removed, renamed, or of another shape, dtype or content."""
    for name, tensor in tensors.items():
        rest = {other: own for other, own in tensors.items() if other != name}
        yield f"{name} removed", rest
        yield f"{name} renamed", {**rest, f"{name}x": tensor}
        yield f"{name} of whole numbers", {**tensors, name: tensor.long()}
        yield f"{name} in another dtype", {**tensors, name: tensor.to(torch.float16)}
        yield f"{name} with another dimension", {**tensors, name: tensor.unsqueeze(0)}
        yield f"{name} doubled", {**tensors, name: torch.stack([tensor, tensor])}
        yield f"{name} with NaN", {**tensors, name: torch.full_like(tensor, math.nan)}
        if tensor.dim():
            yield f"{name} shortened", {**tensors, name: tensor[:-1]}
            yield f"{name} emptied", {**tensors, name: tensor[:0]}
        if tensor.dim() == 2:
            yield f"{name} narrowed", {**tensors, name: tensor[:, :-1]}


def _places(values, path=()):
    """The path of every entry; of a list the first and the last."""
    keys = values if isinstance(values, dict) else sorted({0, len(values) - 1} if values else ())
    for key in keys:
        yield (*path, key)
        if isinstance(values[key], (dict, list)):
            yield from _places(values[key], (*path, key))


def _edits(value, wrong):
    def put(new):
        return lambda holder, key: holder.__setitem__(key, new)

    yield "removed", lambda holder, key: holder.pop(key)
    yield from ((f"is {new!r:.30}", put(new)) for new in wrong)
    if isinstance(value, dict):
        yield "has one more", lambda holder, key: holder[key].__setitem__("one_more", 0.5)
    if isinstance(value, (list, str)) and value:
        yield "shortened", put(value[:-1])


def _at(values, path):
    for key in path:
        values = values[key]
    return values

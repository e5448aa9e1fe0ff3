"""The teacher file: a teacher, the vocabulary it belongs to and the settings its students need.

It is a safetensors file (see `container`) with metadata in JSON and two tensors, both float32 or both float64:
``queries`` (keys, features) and ``values``, which is (entries, keys) for a diagonal Phi, (entries + 1, keys) for a
smoothed Phi and (entries squared, keys) for a full Phi. No pickle is written or opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairseq_l2t.loss.dynamic_loss import LossShape
from fairseq_l2t.loss.teacher import VOCABULARY_FORMS, Teacher, coefficient_count
from fairseq_l2t.storage.container import Container, ContainerError, open_container, write_container
from fairseq_l2t.storage.json_values import require_plain_json

__all__ = [
    "FORMAT_VERSION",
    "TeacherFile",
    "TeacherFileError",
    "TeacherSettings",
    "Vocabulary",
    "load_teacher",
    "save_teacher",
    "vocabulary_fingerprint",
]

FORMAT_VERSION = 1
_KIND = "teacher"
_MOST_UPDATES = 10**9
"""Largest length of a life that a file may name, far above that of any training."""
_DTYPES = {"F32": torch.float32, "F64": torch.float64}


class TeacherFileError(ValueError):
    """A teacher file that cannot be used; the message is one line that begins with its path."""


def vocabulary_fingerprint(symbols: Iterable[str]) -> str:
    """Return the SHA-256, in hexadecimal, of the symbols in the order of their indices.

    Each symbol is hashed as its length in UTF-8 bytes, a colon and these bytes (a netstring without the comma). So two
    different lists never give the same bytes, whatever the symbols contain; a separator would not ensure that.
    """
    digest = hashlib.sha256()
    for symbol in symbols:
        encoded = symbol.encode("utf-8")
        digest.update(b"%d:" % len(encoded) + encoded)
    return digest.hexdigest()


@dataclass(frozen=True)
class Vocabulary:
    """A target vocabulary, identified by its size and its fingerprint.

    Args:
        size: number of entries, special symbols included.
        sha256: `vocabulary_fingerprint` of the symbols.

    Raises:
        ValueError: a size below 1 or a fingerprint that is not a SHA-256.
    """

    size: int
    sha256: str

    def __post_init__(self) -> None:
        if type(self.size) is not int or self.size < 1:
            raise ValueError(f"vocabulary size: {self.size!r}; expected a whole number above 0")
        text = self.sha256
        if not isinstance(text, str) or len(text) != 64 or not set(text) <= set(string.hexdigits.lower()):
            raise ValueError(f"vocabulary fingerprint: {text!r}; expected 64 lower-case hexadecimal digits")

    @classmethod
    def of_symbols(cls, symbols: Iterable[str]) -> Vocabulary:
        """Return the vocabulary of ``symbols``, in the order of their indices, special ones included."""
        symbols = list(symbols)
        return cls(len(symbols), vocabulary_fingerprint(symbols))


@dataclass(frozen=True)
class TeacherSettings:
    """The settings under which the teacher was trained, and its students are taught.

    Args:
        loss_scale, cross_entropy_mix: see `loss.dynamic_loss.LossShape`.
        total_updates: length of a student's life in updates, for the progress feature.
        cross_entropy_updates: updates of plain cross-entropy at the start of a life.
        extra: further training settings as plain JSON (objective, unroll length, seeds, command).
        loss_level: see `loss.dynamic_loss.LossShape`.

    Raises:
        ValueError: a value outside its range, or ``extra`` is not plain JSON.
    """

    loss_scale: float
    cross_entropy_mix: float
    total_updates: int
    cross_entropy_updates: int
    extra: dict[str, Any] = field(default_factory=dict)
    loss_level: str = "token"

    def __post_init__(self) -> None:
        for name in ("loss_scale", "cross_entropy_mix"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{name}: {value!r}; expected a number")
        LossShape(self.loss_scale, self.cross_entropy_mix, self.loss_level)
        for name, least in (("total_updates", 1), ("cross_entropy_updates", 0)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= _MOST_UPDATES:
                raise ValueError(f"{name}: {value!r}; expected a whole number from {least} to {_MOST_UPDATES}")
        if not self.cross_entropy_updates < self.total_updates:
            raise ValueError(
                f"cross_entropy_updates: {self.cross_entropy_updates}; expected less than the {self.total_updates} "
                "updates of a life"
            )
        if not isinstance(self.extra, dict):
            raise ValueError(f"extra: {type(self.extra).__name__}; expected a dictionary")
        require_plain_json(self.extra, "extra", allow_infinity=False)

    @property
    def loss_shape(self) -> LossShape:
        """Scale, cross-entropy share and level as one argument of `loss.dynamic_loss`."""
        return LossShape(self.loss_scale, self.cross_entropy_mix, self.loss_level)


@dataclass(frozen=True)
class TeacherFile:
    """The content of a teacher file; the teacher is frozen and in eval mode.

    ``sha256`` identifies what a student is taught: coefficients, features, vocabulary and shape of the loss. It depends
    neither on the place of the file nor on the record of its training (``settings.extra``).
    """

    teacher: Teacher
    vocabulary: Vocabulary
    settings: TeacherSettings
    path: Path
    sha256: str


def save_teacher(
    path: str | os.PathLike[str], teacher: Teacher, vocabulary: Vocabulary, settings: TeacherSettings
) -> None:
    """Write ``teacher`` to ``path`` atomically, in its dtype (float32 or float64).

    The same arguments give the same bytes.

    Raises:
        ValueError: the vocabulary has another size than the teacher, the dtype is another, or a coefficient is not
            finite; the old file is unchanged.
        OSError: the file could not be written (path named); the old file is unchanged.
    """
    tensors = {name: parameter.detach() for name, parameter in teacher.named_parameters()}
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) != 1 or not dtypes <= set(_DTYPES.values()):
        raise ValueError(f"{path}: teacher of {sorted(map(str, dtypes))}; expected float32 or float64")
    if vocabulary.size != teacher.entries:
        raise ValueError(f"{path}: teacher of {teacher.entries} entries; the vocabulary has {vocabulary.size}")
    bad = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise ValueError(f"{path}: tensors {', '.join(bad)} hold NaN or infinity; the file is unchanged")
    content = {
        "coefficient_form": teacher.form,
        "features": list(teacher.features),
        "keys": teacher.keys,
        "vocabulary": asdict(vocabulary),
        "settings": asdict(settings),
    }
    write_container(path, _KIND, FORMAT_VERSION, content, tensors)


def load_teacher(
    path: str | os.PathLike[str],
    *,
    vocabulary: Vocabulary | None = None,
    dtype: torch.dtype = torch.float32,
    forms: Sequence[str] = VOCABULARY_FORMS,
) -> TeacherFile:
    """Read and check a teacher file.

    Args:
        path: the file.
        vocabulary: vocabulary of the student; it must equal the teacher's.
        dtype: dtype of the teacher returned, whatever the file holds.
        forms: the forms of `loss.teacher.COEFFICIENT_FORMS` that are accepted.

    Raises:
        TeacherFileError: the file is absent, incomplete, damaged, of another format version or vocabulary, or its
            tensors are wrong (all problems are listed).
    """
    try:
        with open_container(path, _KIND, FORMAT_VERSION) as container:
            return _teacher_of(container, vocabulary, dtype, forms)
    except ContainerError as error:
        raise TeacherFileError(str(error)) from error


def _teacher_of(
    container: Container, vocabulary: Vocabulary | None, dtype: torch.dtype, forms: Sequence[str]
) -> TeacherFile:
    path = container.path
    try:
        form, features, keys, own, settings = _parse_content(container.content, forms)
    except (KeyError, TypeError, ValueError) as error:
        problem = f"lacks {error}" if isinstance(error, KeyError) else error
        raise TeacherFileError(f"{path}: metadata: {problem}") from error
    if vocabulary is not None:
        _require_same_vocabulary(path, own, vocabulary)
    # The shapes are compared before a Teacher is created, because its constructor allocates what the metadata say.
    expected = {"values": (coefficient_count(form, own.size), keys), "queries": (keys, len(features))}
    problems = _layout_problems(container, expected)
    if not problems:
        tensors, problems = container.read()
        problems += [f"tensor {name!r} holds NaN or infinity" for name in sorted(_not_finite(tensors, dtype))]
    if problems:
        raise TeacherFileError(f"{path}: {'; '.join(problems)}")
    teacher = Teacher(features, own.size, keys=keys, form=form).to(dtype)
    teacher.load_state_dict(tensors)
    return TeacherFile(
        teacher.requires_grad_(False).eval(), own, settings, path, _fingerprint(container.content, tensors)
    )


def _fingerprint(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    taught = {**content, "settings": {**content["settings"], "extra": {}}}
    digest = hashlib.sha256(json.dumps(taught, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype}\n".encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _parse_content(
    content: Mapping[str, Any], forms: Sequence[str]
) -> tuple[str, list[str], int, Vocabulary, TeacherSettings]:
    form, features, keys = content["coefficient_form"], content["features"], content["keys"]
    if form not in forms:
        of_whom = {"full": " (of a classifier)", **dict.fromkeys(VOCABULARY_FORMS, " (of a translation model)")}
        known = of_whom.get(str(form), "")
        raise ValueError(f"coefficient form {form!r}{known}; this program reads {' and '.join(map(repr, forms))}")
    if not isinstance(features, list) or not all(isinstance(name, str) for name in features):
        raise ValueError(f"features {json.dumps(features)}; expected a list of names")
    if not features or len(set(features)) != len(features):
        raise ValueError(f"features {json.dumps(features)}; expected at least one name, none twice")
    if type(keys) is not int or keys < 1:
        raise ValueError(f"keys {keys!r}; expected a whole number above 0")
    return form, features, keys, _vocabulary_of(content["vocabulary"]), _settings_of(content["settings"])


def _vocabulary_of(values: Any) -> Vocabulary:
    if not isinstance(values, dict) or set(values) != {"size", "sha256"}:
        raise ValueError(f"vocabulary {json.dumps(values)}; expected an object of size and sha256")
    return Vocabulary(**values)


def _settings_of(values: Any) -> TeacherSettings:
    if not isinstance(values, dict):
        raise ValueError(f"settings {values!r}; expected an object")
    names = {setting.name for setting in fields(TeacherSettings)}
    if set(values) != names:
        raise ValueError(f"settings {json.dumps(sorted(values))}; expected {', '.join(sorted(names))}")
    return TeacherSettings(**values)


def _require_same_vocabulary(path: Path, own: Vocabulary, wanted: Vocabulary) -> None:
    if own.size != wanted.size:
        raise TeacherFileError(
            f"{path}: the teacher is for a vocabulary of {own.size} entries; this one has {wanted.size} "
            f"(fingerprints {own.sha256} and {wanted.sha256})"
        )
    if own.sha256 != wanted.sha256:
        raise TeacherFileError(
            f"{path}: the teacher is for another vocabulary of the same {own.size} entries, or for the same "
            f"symbols in another order: fingerprint {own.sha256}; this one has {wanted.sha256}"
        )


def _layout_problems(container: Container, expected: Mapping[str, tuple[int, int]]) -> list[str]:
    entries = container.entries
    problems = [f"tensor {name!r} is missing" for name in expected if name not in entries]
    problems += [f"tensor {name!r} is not expected" for name in sorted(entries) if name not in expected]
    for name, shape in expected.items():
        if name not in entries:
            continue
        if entries[name].shape != shape:
            problems.append(f"tensor {name!r} has shape {list(entries[name].shape)}; expected {list(shape)}")
        if entries[name].dtype not in _DTYPES:
            problems.append(f"tensor {name!r} has dtype {entries[name].dtype}; expected {' or '.join(_DTYPES)}")
    return problems


def _not_finite(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> list[str]:
    # In the dtype requested: a float64 of 1e300 becomes infinite in float32.
    return [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor.to(dtype)).all())]

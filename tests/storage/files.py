"""Teachers, and files made wrong in known ways."""

import contextlib
import hashlib
import json
import math
import os
import resource
import struct

import safetensors.torch
import torch

from fairseq_l2t.core import Teacher
from fairseq_l2t.storage import TeacherSettings, Vocabulary, save_teacher
from fairseq_l2t.storage.container import write_container

SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", "the", "house", "is", "small"]
VOCABULARY = Vocabulary.of_symbols(SYMBOLS)
FEATURES = ["progress", "train_accuracy", "train_loss"]
SETTINGS = TeacherSettings(40.0, 0.25, 1000, 50, {"objective": "likelihood", "seeds": [1, 2]})


def make_teacher(seed=0, dtype=torch.float32, keys=3):
    teacher = Teacher(FEATURES, len(SYMBOLS), keys=keys, seed=seed).to(dtype)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        teacher.values += 0.05 * torch.randn(teacher.values.shape, generator=generator).to(dtype)
    return teacher


def save(path, seed=0):
    save_teacher(path, make_teacher(seed), VOCABULARY, SETTINGS)
    return path


def content(**changes):
    """The metadata of a whole teacher file, with changes."""
    return {
        "coefficient_form": "diagonal",
        "features": FEATURES,
        "keys": 3,
        "vocabulary": {"size": VOCABULARY.size, "sha256": VOCABULARY.sha256},
        "settings": {
            "loss_scale": 40.0,
            "cross_entropy_mix": 0.25,
            "loss_level": "token",
            "total_updates": 1000,
            "cross_entropy_updates": 50,
            "extra": {},
        },
        **changes,
    }


def write(path, tensors=None, version=1, kind="teacher", **changes):
    """A file with right digests around whatever is put in: wrong on purpose, not by damage."""
    if tensors is None:
        tensors = dict(make_teacher().named_parameters())
    write_container(path, kind, version, content(**changes), tensors)
    return path


def raw_safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def foreign_safetensors():
    return safetensors.torch.save({"weight": torch.ones(3)})


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, path):
        self.path = os.fspath(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@contextlib.contextmanager
def files_end_at(size):
    """Within, no file of this process grows beyond ``size`` bytes: a disk that is full at a chosen byte."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def without_privileges():
    """Within, permission bits bind, also where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)  # nobody
    try:
        yield
    finally:
        os.seteuid(0)


def sealed_header(shapes, **changes):
    """The header of a teacher file of these shapes in float32, with its right digest and wrong digests of tensors."""
    document = {"header_sha256": "0" * 64, "kind": "teacher", "format_version": 1, "content": content(**changes)}
    document["tensor_sha256"] = dict.fromkeys(shapes, "0" * 64)
    header, position = {"__metadata__": {"fairseq_l2t": json.dumps(document, separators=(",", ":"))}}, 0
    for name, shape in shapes.items():
        is_shape = isinstance(shape, list) and all(type(size) is int for size in shape)
        end = position + 4 * (math.prod(shape) if is_shape else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    unsealed = struct.pack("<Q", len(text)) + text
    place = unsealed.index(b"header_sha256") + len(rb"header_sha256\":\"")
    return unsealed[:place] + hashlib.sha256(unsealed).hexdigest().encode() + unsealed[place + 64 :]

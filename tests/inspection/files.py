"""A small teacher, its dictionary and the log of its training."""

import json

import torch

from fairseq_l2t.core import Teacher
from fairseq_l2t.storage import TeacherSettings, Vocabulary, save_teacher

FEATURES = ("progress", "train_accuracy", "train_loss", "dev_accuracy", "dev_loss")
WORDS = {"the": 900, "house": 200, "▁small": 50, "$5": 20, "東京": 12, "rare": 2, "madeupword0000": 0}
SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", *WORDS]


def write_dictionary(path, words=None):
    words = WORDS if words is None else words
    path.write_text("".join(f"{word} {count}\n" for word, count in words.items()), encoding="utf-8")
    return path


def make_teacher(form="diagonal"):
    """Two keys: the first is chosen at the start of a life, the second at its end, but for a factor e^-40."""
    teacher = Teacher(FEATURES, len(SYMBOLS), keys=2, form=form)
    with torch.no_grad():
        teacher.queries.zero_()
        teacher.queries[1, 0] = 80.0
        teacher.queries[0, 2] = teacher.queries[0, 4] = 0.0
        teacher.values.fill_(0.1)
        for word, start, end in (("the", 0.1, 0.3), ("house", 0.2, 0.05), ("rare", -0.1, -0.1)):
            teacher.values[SYMBOLS.index(word)] = torch.tensor([2 * start - end, end])
        if form == "smoothed":
            teacher.values[-1] = torch.tensor([2 * 0.02 - 0.1, 0.1])
    return teacher


def write_teacher(path, extra=None, symbols=SYMBOLS, form="diagonal"):
    settings = TeacherSettings(40.0, 0.0, 1000, 100, {"objective": "likelihood", **(extra or {})})
    save_teacher(path, make_teacher(form), Vocabulary.of_symbols(symbols), settings)
    return path


def log_line(update, progress, **changes):
    life = update // 4
    line = {
        "teacher_update": update,
        "student_life": life,
        "student_update": int(1000 * progress),
        "progress": progress,
        "measure": 0.2 + 0.5 * progress + 0.01 * life,
        "holdout_measure": None if update % 2 else 0.2 + 0.4 * progress,
        "hypergradient_norm": 1.0 / (1 + update),
        "adjoint_norm": 2.0,
        "phi_min": 0.05,
        "phi_mean": 0.1,
        "phi_max": 0.2,
        "seconds": 1.5,
        "states": [state(progress, life)],
    }
    return {**line, **changes}


def state(progress, life=0):
    values = (progress, 0.5 * progress, 1 - 0.6 * progress, 0.4 * progress, 1 - 0.5 * progress)
    return dict(zip(FEATURES, values, strict=True)) | {"train_accuracy": min(1.0, 0.5 * progress + 0.1 * life)}


def write_log(path, lines=None, tail=""):
    if lines is None:
        lines = [log_line(update, update % 4 / 4) for update in range(12)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail, encoding="utf-8")
    return path

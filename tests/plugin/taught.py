"""A task ``l2t_dlf`` with its model, criterion and teacher file, as ``fairseq-train`` would build them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fairseq import tasks

from fairseq_l2t.core import Teacher
from fairseq_l2t.loss.student_state import BASE_FEATURES, BLEU_FEATURE
from fairseq_l2t.storage import TeacherSettings, Vocabulary, save_teacher
from fairseq_l2t.testing.fairseq_reference import configuration
from fairseq_l2t.testing.tiny_students import FAMILIES, OPTIMIZERS, RECIPE

SETTINGS = TeacherSettings(loss_scale=40.0, cross_entropy_mix=0.1, total_updates=100, cross_entropy_updates=10)


@dataclass
class Taught:
    """What ``fairseq-train`` has before the first update."""

    cfg: Any
    task: Any
    model: Any
    criterion: Any

    def sample(self, numbers) -> dict[str, Any]:
        """Return a batch of dev pairs."""
        dataset = self.task.dataset("valid")
        return dataset.collater([dataset[number] for number in numbers])


def symbols_of(data: Path) -> list[str]:
    """Return the target symbols in the order of their indices."""
    words = [line.rsplit(" ", 1)[0] for line in (data / "dict.en.txt").read_text("utf-8").splitlines()]
    return ["<s>", "<pad>", "</s>", "<unk>", *words]


def write_teacher(
    path: Path, symbols: list[str], *, with_bleu: bool = False, form: str = "diagonal", seed: int = 2
) -> Teacher:
    """Write a teacher with coefficients between 0.05 and 0.45, drawn with ``seed``, and return it."""
    features = (*BASE_FEATURES, BLEU_FEATURE) if with_bleu else BASE_FEATURES
    teacher = Teacher(features, len(symbols), keys=3, seed=2, form=form)
    with torch.no_grad():
        teacher.values.copy_(
            0.05 + 0.4 * torch.rand(teacher.values.shape, generator=torch.Generator().manual_seed(seed))
        )
        teacher.queries.mul_(4)
    save_teacher(path, teacher, Vocabulary.of_symbols(symbols), SETTINGS)
    return teacher


def task_arguments(data: Path, *more: str) -> list[str]:
    """Return a ``fairseq-train`` command line without ``--teacher-path``."""
    return [
        *(str(data), *FAMILIES["fconv"], *OPTIMIZERS["nag"], *RECIPE, "--max-update", "20", "--num-workers", "0"),
        *("--task", "l2t_dlf", "--criterion", "dynamic_teacher_loss", *more),
    ]


def build_taught(arguments: list[str]) -> Taught:
    """Build task, model and criterion and read the dev data, in fairseq's order."""
    cfg = configuration(arguments)
    task = tasks.setup_task(cfg.task)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = task.build_model(cfg.model)
    criterion = task.build_criterion(cfg.criterion)
    task.load_dataset("valid", combine=False, epoch=1)
    return Taught(cfg, task, model, criterion)

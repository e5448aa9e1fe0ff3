"""Small classifiers in float64 on a few real digits, and teachers whose every coefficient matters."""

from functools import cache

import torch

from fairseq_l2t.classification.classifier_student import ClassifierStudent
from fairseq_l2t.classification.data import load_data
from fairseq_l2t.classification.recipe import Recipe
from fairseq_l2t.classification.teaching import new_teacher
from fairseq_l2t.core import LossShape


@cache
def digits(label_noise=0.0):
    return load_data("digits", seed=1, label_noise=label_noise, train_limit=64)


def classifier(name="mlp-5", *, dtype=torch.float64, seed=3, **recipe):
    """Return a student at the beginning of a life."""
    recipe = {"total_updates": 40, "batch_size": 8, "lr": 0.02, "weight_decay": 1e-3, "augment": True, **recipe}
    student = ClassifierStudent(digits(), Recipe(student=name, **recipe), loss_shape=LossShape(8.0, 0.1), dtype=dtype)
    student.restart(seed)
    return student


def teacher_for(student, seed=1):
    """Return a teacher with coefficients beside the diagonal, too."""
    teacher = new_teacher(student, keys=3, initial_coefficient=0.5, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        noise = torch.randn(teacher.values.shape, generator=generator, dtype=torch.float64)
        teacher.values.add_(0.02 * noise.to(teacher.values))
    return teacher

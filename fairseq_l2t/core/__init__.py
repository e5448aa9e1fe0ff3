"""The mathematics: teacher, dynamic loss, unroll and reverse pass. torch and the standard library only."""

from fairseq_l2t.core.dynamic_loss import LOSS_LEVELS, LossShape, dynamic_loss
from fairseq_l2t.core.reverse import Hypergradient, hypergradient, hypergradient_with_adjoint
from fairseq_l2t.core.student import BatchLoss, NonFiniteError, Student
from fairseq_l2t.core.student_state import StudentState
from fairseq_l2t.core.teacher import Teacher
from fairseq_l2t.core.unroll import Trajectory, student_gradient, unroll

__all__ = [
    "BatchLoss",
    "Hypergradient",
    "LOSS_LEVELS",
    "LossShape",
    "NonFiniteError",
    "Student",
    "StudentState",
    "Teacher",
    "Trajectory",
    "dynamic_loss",
    "hypergradient",
    "hypergradient_with_adjoint",
    "student_gradient",
    "unroll",
]

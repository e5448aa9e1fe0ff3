"""The Python interface of the engine: teacher, dynamic loss, unroll and hypergradient. It does not import fairseq."""

from fairseq_l2t.loss.dynamic_loss import LOSS_LEVELS, LossShape, dynamic_loss
from fairseq_l2t.loss.student_state import StudentState
from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.unroll.adjoint_sweep import Hypergradient, hypergradient, hypergradient_with_adjoint
from fairseq_l2t.unroll.gradients import student_gradient
from fairseq_l2t.unroll.memory.budget import memory_plan
from fairseq_l2t.unroll.student import BatchLoss, NonFiniteError, Student
from fairseq_l2t.unroll.trajectory import Trajectory, unroll

__all__ = [
    "LOSS_LEVELS",
    "BatchLoss",
    "Hypergradient",
    "LossShape",
    "NonFiniteError",
    "Student",
    "StudentState",
    "Teacher",
    "Trajectory",
    "dynamic_loss",
    "hypergradient",
    "hypergradient_with_adjoint",
    "memory_plan",
    "student_gradient",
    "unroll",
]

"""The rooms that know fairseq: task, criterion, and fairseq models as students. Importing registers both names."""

from fairseq_l2t.plugin.criterion import DynamicTeacherLoss
from fairseq_l2t.plugin.student.fairseq_student import FairseqStudent
from fairseq_l2t.plugin.student_options import OptionError
from fairseq_l2t.plugin.task import L2TTask

__all__ = ["DynamicTeacherLoss", "FairseqStudent", "L2TTask", "OptionError"]

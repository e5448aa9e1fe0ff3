"""All code that knows fairseq: task, criterion, fairseq models as students. Importing it registers the first two."""

from fairseq_l2t.plugin.criterion import DynamicTeacherLoss
from fairseq_l2t.plugin.student.fairseq_student import FairseqStudent
from fairseq_l2t.plugin.student_options import OptionError
from fairseq_l2t.plugin.task import L2TTask

__all__ = ["DynamicTeacherLoss", "FairseqStudent", "L2TTask", "OptionError"]

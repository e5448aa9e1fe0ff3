"""All code that depends on fairseq: task and criterion, which the import registers, and fairseq models as students."""

from fairseq_l2t.plugin.criterion import DynamicTeacherLoss
from fairseq_l2t.plugin.student.fairseq_student import FairseqStudent
from fairseq_l2t.plugin.student_options import OptionError
from fairseq_l2t.plugin.task import L2TConfig, L2TTask

__all__ = ["DynamicTeacherLoss", "FairseqStudent", "L2TConfig", "L2TTask", "OptionError"]

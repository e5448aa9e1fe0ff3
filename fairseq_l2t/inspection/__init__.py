"""Tables and plots from saved files. Only `plots`, `training_plot` and `classifier_plots` import matplotlib."""

from fairseq_l2t.inspection.dictionary import TargetDictionary, read_dictionary
from fairseq_l2t.inspection.errors import InspectionError
from fairseq_l2t.inspection.report import format_report
from fairseq_l2t.inspection.stages import StateSource, choose_states
from fairseq_l2t.inspection.training_log import TrainingLog, read_training_log
from fairseq_l2t.inspection.weights import WordWeights, word_weights

__all__ = [
    "InspectionError",
    "StateSource",
    "TargetDictionary",
    "TrainingLog",
    "WordWeights",
    "choose_states",
    "format_report",
    "read_dictionary",
    "read_training_log",
    "word_weights",
]

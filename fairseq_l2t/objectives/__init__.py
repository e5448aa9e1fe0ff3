"""Measures of a student on dev pairs that a teacher maximises, each with its gradient at omega."""

from fairseq_l2t.objectives.calibrated_perplexity import best_inverse_temperature, calibrated_perplexity
from fairseq_l2t.objectives.dev_student import DevStudent, Hypotheses, Objective, ReferenceStudent
from fairseq_l2t.objectives.expected_accuracy import expected_token_accuracy
from fairseq_l2t.objectives.expected_bleu import ESTIMATORS, expected_bleu
from fairseq_l2t.objectives.inverse_perplexity import inverse_perplexity
from fairseq_l2t.objectives.sentence_bleu import SentenceBleu

__all__ = [
    "ESTIMATORS",
    "DevStudent",
    "Hypotheses",
    "Objective",
    "ReferenceStudent",
    "SentenceBleu",
    "best_inverse_temperature",
    "calibrated_perplexity",
    "expected_bleu",
    "expected_token_accuracy",
    "inverse_perplexity",
]

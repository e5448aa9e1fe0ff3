"""The measure of a teacher update on a student without a model."""

import logging
from types import SimpleNamespace

import pytest
import torch

from fairseq_l2t.objectives import SentenceBleu
from fairseq_l2t.plugin.teacher_run import TranslationObjective
from fairseq_l2t.plugin.teacher_run_options import TeacherRunOptions

STUDENT = ["--arch", "fconv", "--optimizer", "adam", "--lr", "0.004", "--max-tokens", "1000", "-s", "en", "-t", "zh"]


def objective(folder, name, value):
    options = TeacherRunOptions.parse([str(folder), *STUDENT, "--objective", name, "--save-dir", "run"])
    student = SimpleNamespace(
        dev=SimpleNamespace(teaching=(0, 1, 2)),
        dev_objective=lambda *_, **__: (value, torch.zeros(1)),
        reward=lambda: SentenceBleu(options.own.bleu_tokenizer),
    )
    return TranslationObjective(options, student)


@pytest.mark.parametrize(
    ("name", "value", "is_told"),
    [("expected-bleu", 0.0, True), ("expected-bleu", 1e-9, False), ("likelihood", 0.0, False)],
)
def test_a_reward_of_zero_is_told(tmp_path, caplog, name, value, is_told):
    caplog.set_level(logging.INFO)
    assert objective(tmp_path, name, value).measure(4)[0] == value
    told = "teacher update 5: the sentence BLEU of all hypotheses is 0 (--bleu-tokenizer zh)"
    assert (told in caplog.text) == is_told
    assert ("tok:zh" in caplog.text) == (name == "expected-bleu")

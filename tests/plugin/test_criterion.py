"""The criterion: value, padding, normalisation, validation, logging."""

import math

import pytest
import torch
from fairseq import metrics
from fairseq.criterions.cross_entropy import CrossEntropyCriterion

from fairseq_l2t.plugin.criterion import DynamicTeacherLoss
from tests.plugin.taught import SETTINGS, build_taught, symbols_of, task_arguments, write_teacher

PAIRS = list(range(12))


@pytest.fixture(scope="module")
def teacher_path(data_bin, tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    write_teacher(path, symbols_of(data_bin))
    return str(path)


@pytest.fixture
def taught(data_bin, teacher_path):
    """Model in eval mode (no dropout), criterion in train mode, at an update that the teacher sets."""
    taught = build_taught(task_arguments(data_bin, "--teacher-path", teacher_path))
    taught.model.eval()
    taught.criterion.train()
    taught.task.frozen_teacher.prepare(5, torch.device("cpu"), torch.float32)
    return taught


def closed_form(taught, sample, psi=0.0):
    """Return the loss by the formula of the paper with scale, mix and ``psi``, and the nll, summed in float64."""
    logits = taught.model(**sample["net_input"])[0].detach().double()
    log_probs = logits - logits.exp().sum(-1, keepdim=True).log()
    loss = nll = 0.0
    for row, target in zip(log_probs, sample["target"], strict=True):
        for position, word in enumerate(target.tolist()):
            if word == taught.task.target_dictionary.pad():
                continue
            log_p = float(row[position, word])
            product = float(taught.task.frozen_teacher.coefficients[word]) * log_p + psi * float(row[position].mean())
            sigmoid = 1 / (1 + math.exp(-product))
            mix = SETTINGS.cross_entropy_mix
            loss += -(1 - mix) * SETTINGS.loss_scale * sigmoid - mix * log_p
            nll -= log_p
    return loss, nll


def test_closed_form_and_logging(taught):
    sample = taught.sample(PAIRS)
    assert bool(sample["target"].eq(taught.task.target_dictionary.pad()).any())
    loss, size, logged = taught.criterion(taught.model, sample)
    expected, nll = closed_form(taught, sample)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert float(logged["nll_loss"]) == pytest.approx(nll, rel=1e-5)
    assert size == logged["ntokens"] == sample["ntokens"]
    assert logged["nsentences"] == len(PAIRS)
    coefficients = taught.task.frozen_teacher.coefficients
    assert logged["phi_mean"] == pytest.approx(float(coefficients.mean()))
    assert logged["phi_min"] < logged["phi_mean"] < logged["phi_max"]
    # another update, another Phi
    taught.task.frozen_teacher.prepare(15, torch.device("cpu"), torch.float32)
    assert abs(float(taught.criterion(taught.model, sample)[0].detach()) - expected) > 1e-2


def test_a_smoothed_teacher(data_bin, tmp_path):
    words = symbols_of(data_bin)
    write_teacher(tmp_path / "teacher", words, form="smoothed")
    taught = build_taught(task_arguments(data_bin, "--teacher-path", str(tmp_path / "teacher")))
    taught.model.eval()
    taught.criterion.train()
    taught.task.frozen_teacher.prepare(1, torch.device("cpu"), torch.float32)  # cross-entropy as yet
    sample = taught.sample(PAIRS)
    _, _, before = taught.criterion(taught.model, sample)
    assert before["phi_off_diagonal"] == 0.0
    taught.task.frozen_teacher.prepare(5, torch.device("cpu"), torch.float32)
    loss, _, logged = taught.criterion(taught.model, sample)
    coefficients = taught.task.frozen_teacher.coefficients
    assert coefficients.shape == (len(words) + 1,)
    psi = float(coefficients[-1])
    assert float(loss.detach()) == pytest.approx(closed_form(taught, sample, psi)[0], rel=1e-5)
    assert float(loss.detach()) != pytest.approx(closed_form(taught, sample)[0], rel=1e-2)  # control
    assert logged["phi_off_diagonal"] == psi
    assert logged["phi_mean"] == pytest.approx(float(coefficients[:-1].mean()))
    assert float(aggregated(taught.criterion, [logged])["phi_off_diagonal"]) == pytest.approx(psi, abs=1e-4)


def test_coefficients_of_another_vocabulary_are_refused(taught):
    taught.task.frozen_teacher.coefficients = torch.cat([taught.task.frozen_teacher.coefficients, torch.ones(2)])
    words = len(taught.task.target_dictionary)
    with pytest.raises(ValueError, match=f"coefficients: {words + 2}; expected {words} for"):
        taught.criterion(taught.model, taught.sample(PAIRS))


def test_the_level_is_the_teachers_unless_another_is_given(taught):
    sample = taught.sample(PAIRS)
    by_token = float(taught.criterion(taught.model, sample)[0].detach())
    found = {}
    for level in (None, "token", "sentence"):
        criterion = DynamicTeacherLoss(taught.task, None, None, level, sentence_avg=False)
        found[level] = float(criterion(taught.model, sample)[0].detach())
    assert found[None] == found["token"] == by_token
    assert abs(found["sentence"] - by_token) > 1e-3
    with pytest.raises(ValueError, match="--loss-level: 'word'"):
        DynamicTeacherLoss(taught.task, None, None, "word", sentence_avg=False)


def test_padding_counts_for_nothing(taught):
    together = float(taught.criterion(taught.model, taught.sample(PAIRS))[0].detach())
    apart = sum(float(taught.criterion(taught.model, taught.sample([pair]))[0].detach()) for pair in PAIRS)
    assert together == pytest.approx(apart, rel=1e-5)


def test_warm_up_is_cross_entropy(taught):
    sample = taught.sample(PAIRS)
    taught.task.frozen_teacher.prepare(1, torch.device("cpu"), torch.float32)  # 10 of 100 updates are 2 of 20
    loss, _, logged = taught.criterion(taught.model, sample)
    assert torch.equal(loss.detach(), logged["nll_loss"])
    taught.task.frozen_teacher.prepare(2, torch.device("cpu"), torch.float32)
    loss, _, logged = taught.criterion(taught.model, sample)
    assert not torch.equal(loss.detach(), logged["nll_loss"])


@pytest.mark.parametrize("sentence_avg", [False, True])
def test_validation_is_cross_entropys(data_bin, teacher_path, sentence_avg):
    more = ["--sentence-avg"] if sentence_avg else []
    taught = build_taught(task_arguments(data_bin, "--teacher-path", teacher_path, *more))
    plain = CrossEntropyCriterion(taught.task, sentence_avg)
    for module in (taught.model, taught.criterion, plain):
        module.eval()
    sample = taught.sample(PAIRS)
    loss, size, logged = taught.criterion(taught.model, sample)
    expected, expected_size, _ = plain(taught.model, sample)
    assert size == expected_size == (len(PAIRS) if sentence_avg else sample["ntokens"])
    # the same sum, added up in another order
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert "training_batches" not in logged and "phi_mean" not in logged


def aggregated(criterion, outputs):
    with metrics.aggregate(new_root=True) as found:
        criterion.reduce_metrics(outputs)
    return found.get_smoothed_values()


def test_metrics_of_summed_outputs(taught):
    outputs = [taught.criterion(taught.model, taught.sample(part))[2] for part in (PAIRS[:5], PAIRS[5:])]
    summed = {key: outputs[0][key] + outputs[1][key] for key in outputs[0]}
    assert taught.criterion.logging_outputs_can_be_summed()
    apart, together = aggregated(taught.criterion, outputs), aggregated(taught.criterion, [summed])
    assert set(apart) == {"loss", "nll_loss", "ppl", "accuracy", "phi_min", "phi_mean", "phi_max"}
    assert {key: float(value) for key, value in apart.items()} == {
        key: pytest.approx(float(value)) for key, value in together.items()
    }
    _, nll = closed_form(taught, taught.sample(PAIRS))
    bits = nll / summed["ntokens"] / math.log(2)
    assert float(apart["nll_loss"]) == pytest.approx(bits, abs=1e-3)
    assert float(apart["ppl"]) == pytest.approx(2**bits, rel=1e-2)
    assert 0 <= float(apart["accuracy"]) <= 100
    assert float(apart["phi_mean"]) == pytest.approx(outputs[0]["phi_mean"], abs=1e-4)


def test_refusals(data_bin, teacher_path, taught):
    with pytest.raises(ValueError, match="--task: translation; --criterion dynamic_teacher_loss needs --task l2t_dlf"):
        build_taught([a if a != "l2t_dlf" else "translation" for a in task_arguments(data_bin)])
    for option, value in (("--loss-scale", "-1"), ("--cross-entropy-mix", "2")):
        with pytest.raises(ValueError, match=f"{option}: {value}"):
            build_taught(task_arguments(data_bin, "--teacher-path", teacher_path, f"{option}={value}"))
    alone = build_taught(task_arguments(data_bin, "--teacher-path", teacher_path))
    alone.task.frozen_teacher = None  # as a task that was built to decode
    with pytest.raises(ValueError, match="--teacher-path: not given"):
        alone.criterion(alone.model, alone.sample([0]))
    with pytest.raises(ValueError, match="reduce=False"):
        taught.criterion(taught.model, taught.sample([0]), reduce=False)


def test_options_override_the_teachers(data_bin, teacher_path):
    mixed = build_taught(task_arguments(data_bin, "--teacher-path", teacher_path, "--cross-entropy-mix", "1"))
    mixed.model.eval()
    mixed.criterion.train()
    mixed.task.frozen_teacher.prepare(5, torch.device("cpu"), torch.float32)
    loss, _, logged = mixed.criterion(mixed.model, mixed.sample(PAIRS))
    assert float(loss.detach()) == pytest.approx(float(logged["nll_loss"]), rel=1e-6)

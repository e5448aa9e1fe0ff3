"""K updates by our unroll equal K updates by fairseq's own Trainer: the student the teacher sees is the one trained."""

from itertools import pairwise

import pytest
import torch
from fairseq.data import Dictionary

import fairseq_l2t.plugin.task as task_module
from fairseq_l2t.core import unroll
from fairseq_l2t.storage import load_teacher
from fairseq_l2t.testing.parity import MOVED, QUICK_CELLS, Cell, by_fairseq, largest_difference, write_teacher
from fairseq_l2t.testing.tiny_students import FAMILIES, OPTIMIZERS, spread_teacher
from fairseq_l2t.unroll.update_rules import Clipping
from tests.split_copies import with_splits

DOUBLE = [("transformer_tied", "adam", "cross_entropy"), ("lightconv", "nag", "dynamic")]


def check_same_life(data_bin, folder, monkeypatch, cell, *, double=False, form="diagonal"):
    """Check that batches, rates, states, Phi and parameters are the same to the bit; return our student and the run."""
    student = cell.student(data_bin)
    teacher = spread_teacher(student, form=form)
    write_teacher(student, teacher, folder)
    seen, dtype = [], torch.float64 if double else torch.float32

    def load_and_watch(*arguments, **options):
        file = load_teacher(*arguments, **options, dtype=dtype)
        file.teacher.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        return file

    monkeypatch.setattr(task_module, "load_teacher", load_and_watch)
    run, clipped = by_fairseq(data_bin, cell, folder, double=double)
    assert run.epochs == 2
    assert clipped > 0
    student = student.double() if double else student
    assert largest_difference(student, run.start) == 0
    assert largest_difference(student, run.end) > MOVED
    steps = cell.unroll(student, teacher.to(dtype))
    assert [[sample["id"].tolist() for sample in step.batch] for step in steps] == run.batches
    assert [step.size.lr for step in steps] == run.rates
    difference = largest_difference(student, run.end)
    print(f"{cell}: difference {difference:.1e}")
    assert difference == 0
    check_same_phi(steps, seen, run.coefficients, cell.loss)
    return student, run


def check_same_phi(steps, states, coefficients, loss):
    """Check that the teacher saw the same states and said the same, from the first update it was asked on."""
    taught = [step for step in steps if step.state is not None]
    assert len(taught) == len(states) == (len(steps) - 1 if loss == "dynamic" else 0)
    for step, state in zip(taught, states, strict=True):
        assert torch.equal(step.state, state)
        assert torch.equal(step.coefficients, coefficients[step.update])
    # What the teacher says does differ from update to update.
    assert all((one.coefficients - next_.coefficients).abs().max() > 1e-4 for one, next_ in pairwise(taught))


def test_the_quick_cells_hold_every_optimizer_and_both_losses():
    assert {cell.optimizer for cell in QUICK_CELLS} == set(OPTIMIZERS)
    assert [cell.loss for cell in QUICK_CELLS].count("dynamic") == len(QUICK_CELLS) / 2


@pytest.mark.parametrize("cell", QUICK_CELLS, ids=lambda cell: f"{cell.family}-{cell.optimizer}-{cell.loss}")
def test_float32_to_the_bit(data_bin, tmp_path, monkeypatch, cell):
    check_same_life(data_bin, tmp_path, monkeypatch, cell)


def test_training_data_in_two_parts_to_the_bit(data_bin, tmp_path, monkeypatch):
    data = with_splits(data_bin, tmp_path / "bin", train1="test")
    _, run = check_same_life(data, tmp_path, monkeypatch, Cell("fconv", "nag", "dynamic"))
    # The second part takes part: its pairs have the numbers after those of the first.
    assert max(number for update in run.batches for batch in update for number in batch) >= 400


def test_smoothed_to_the_bit(data_bin, tmp_path, monkeypatch):
    cell = Cell("transformer_tied", "adam", "dynamic")
    student, run = check_same_life(data_bin, tmp_path, monkeypatch, cell, form="smoothed")
    assert all(len(phi) == student.coefficient_count + 1 for phi in run.coefficients if phi is not None)


def write_embeddings(path, dictionary, width=16):
    """Write a vector for every word of ``dictionary`` except its special symbols; return them (words, width)."""
    words = dictionary.symbols[dictionary.nspecial :]
    vectors = torch.arange(float(len(words) * width)).reshape(len(words), width).sin()
    lines = [f"{word} {' '.join(map(str, row))}" for word, row in zip(words, vectors.tolist(), strict=True)]
    path.write_text("\n".join([f"{len(words)} {width}", *lines]) + "\n", encoding="utf-8")
    return vectors


def test_pretrained_and_frozen_embeddings_to_the_bit(data_bin, tmp_path, monkeypatch):
    paths = {part: tmp_path / f"{part}.txt" for part in ("encoder", "decoder")}
    dictionaries = {
        part: Dictionary.load(str(data_bin / f"dict.{language}.txt"))
        for part, language in (("encoder", "de"), ("decoder", "en"))
    }
    vectors = {part: write_embeddings(paths[part], dictionaries[part]) for part in paths}
    options = [value for part, path in paths.items() for value in (f"--{part}-embed-path", str(path))]
    monkeypatch.setitem(FAMILIES, "lstm_pretrained", [*FAMILIES["lstm"], *options, "--decoder-freeze-embed"])
    student, run = check_same_life(data_bin, tmp_path, monkeypatch, Cell("lstm_pretrained", "adam", "dynamic"))
    names, special = student.parameters.names, dictionaries["encoder"].nspecial
    assert "encoder.embed_tokens.weight" in names and "decoder.embed_tokens.weight" not in names
    for part, is_frozen in (("encoder", False), ("decoder", True)):
        start, end = (weights[f"{part}.embed_tokens.weight"][special:] for weights in (run.start, run.end))
        assert torch.equal(start, vectors[part])
        assert torch.equal(student.model.get_submodule(part).embed_tokens.weight[special:], end)
        assert torch.equal(end, start) == is_frozen


@pytest.mark.parametrize(("family", "optimizer", "loss"), DOUBLE)
def test_float64_to_the_bit(data_bin, tmp_path, monkeypatch, family, optimizer, loss):
    check_same_life(data_bin, tmp_path, monkeypatch, Cell(family, optimizer, loss), double=True)


def test_another_seed_another_loss_and_another_rounding_differ(data_bin, tmp_path, monkeypatch):
    cell = Cell("transformer_tied", "adam", "cross_entropy")
    student, run = check_same_life(data_bin, tmp_path, monkeypatch, cell)
    teacher = spread_teacher(student)

    student.restart(student.seed)
    student.clipping = Clipping(student.clipping.max_norm)  # the norm of the whole gradient, which rounds differently
    cell.unroll(student, teacher)
    assert 0 < largest_difference(student, run.end) < MOVED

    seed = student.seed
    student.restart(seed + 1)
    steps = unroll(student, teacher, 3).steps
    assert [[sample["id"].tolist() for sample in step.batch] for step in steps] != run.batches[:3]
    assert largest_difference(student, run.end) > MOVED

    student.restart(seed)
    student.cross_entropy_updates = 1
    cell.unroll(student, teacher)
    assert largest_difference(student, run.end) > MOVED

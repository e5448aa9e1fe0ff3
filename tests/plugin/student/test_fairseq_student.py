"""A fairseq student: determinism, interruption, initial weights, weights that really are the ones used."""

import os
import pickle

import pytest
import torch

import fairseq_l2t.plugin.student.fairseq_student as student_module
from fairseq_l2t.core import hypergradient, unroll
from fairseq_l2t.plugin import FairseqStudent, OptionError
from fairseq_l2t.plugin.student.second_derivatives import drop_fast_path
from fairseq_l2t.testing.tiny_students import FAMILIES, LIFE, make_student, spread_teacher

COARSE = ("--batch-size", "32")
"""Seven updates an epoch."""


@pytest.fixture(scope="module")
def shared(data_bin):
    """One student that tests restart; none may leave anything else behind."""
    return make_student(data_bin, "transformer_tied", "adam", *COARSE)


def life(student, updates):
    """Return the parameters, learning rates and batches of the next updates."""
    steps = unroll(student, spread_teacher(student), updates).steps
    batches = [[sample["id"].tolist() for sample in step.batch] for step in steps]
    return student.omega.clone(), [step.size for step in steps], batches


def assert_same_life(one, other):
    assert torch.equal(one[0], other[0])
    assert one[1:] == other[1:]


def test_restart_gives_the_same_bits(shared):
    shared.restart(3)
    first = life(shared, 3)
    shared.restart(3)
    assert_same_life(life(shared, 3), first)
    shared.restart(4)
    other = life(shared, 3)
    assert not torch.equal(other[0], first[0]) and other[2] != first[2]


def test_restart_is_a_fresh_start_with_that_seed(shared, data_bin):
    fresh = make_student(data_bin, "transformer_tied", "adam", *COARSE, "--seed", "8")
    shared.restart(8)
    assert torch.equal(fresh.omega, shared.omega)
    assert_same_life(life(fresh, 3), life(shared, 3))


MOMENTS = {
    "before the first": (0, "adam"),
    "mid epoch": (3, "nag"),
    "epoch end": (7, "adam"),
    "second epoch": (9, "nag"),
}


@pytest.mark.parametrize(("updates", "optimizer"), MOMENTS.values(), ids=MOMENTS.keys())
def test_interruption(data_bin, updates, optimizer):
    student = make_student(data_bin, "fconv", optimizer, *COARSE)
    if updates:
        unroll(student, spread_teacher(student), updates)
        student.observe_dev(student.dev.holdout)
    tensors, values = student.state_dict()
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    state = student.state.vector(updates)
    uninterrupted = life(student, 6)

    other = make_student(data_bin, "fconv", optimizer, *COARSE, "--seed", "9")
    unroll(other, spread_teacher(other), 2)
    other.load_state_dict(tensors, values)
    assert other.update == updates
    assert torch.equal(other.state.vector(updates), state)
    assert_same_life(life(other, 6), uninterrupted)


SCHEDULES = {
    "fixed": ["--force-anneal", "1", "--lr-shrink", "0.5"],
    "cosine": ["--warmup-updates", "2", "--lr-period-updates", "30"],
    "polynomial_decay": ["--total-num-update", "30"],
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_interruption_keeps_the_schedule(data_bin, schedule):
    student = FairseqStudent.from_args(
        [
            *(str(data_bin), *FAMILIES["fconv"], *LIFE, *COARSE, "--update-freq", "2", "--optimizer", "nag"),
            *("--lr", "0.25", "--lr-scheduler", schedule, *SCHEDULES[schedule]),
        ]
    )
    unroll(student, spread_teacher(student), 8)
    tensors, values = student.state_dict()
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    uninterrupted = life(student, 8)
    assert len({size.lr for size in uninterrupted[1]}) > 1
    student.load_state_dict(tensors, values)
    assert_same_life(life(student, 8), uninterrupted)


def test_the_life_of_another_student_is_refused(shared):
    shared.restart(3)
    tensors, values = shared.state_dict()
    with pytest.raises(ValueError, match="parameters saved"):
        shared.load_state_dict({**tensors, "omega": tensors["omega"][:-1]}, values)


# --- parameters the loss never reaches (row 20) -----------------------------------------------------------------


def with_spare_parameter(monkeypatch, name="spare"):
    """Give every model built from now on a parameter that nothing uses."""
    original = student_module.build_model

    def build(*arguments, **options):
        model = original(*arguments, **options)
        model.encoder.register_parameter(name, torch.nn.Parameter(torch.ones(7)))
        return model

    monkeypatch.setattr(student_module, "build_model", build)


def test_unreached_parameters_are_left_out(data_bin, monkeypatch, caplog):
    def measured():
        student = make_student(data_bin, "transformer_tied", "adam").double()
        trajectory = unroll(student, spread_teacher(student), 2)
        return student, hypergradient(trajectory, student.dev_objective("likelihood")[1])

    plain, expected = measured()
    with_spare_parameter(monkeypatch)
    with caplog.at_level("INFO"):
        spared, found = measured()
    assert "without a gradient, left out: encoder.spare" in caplog.text
    assert spared.parameters.names == plain.parameters.names
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    # a control: what is left out is a parameter of the model
    assert "encoder.spare" in dict(spared.model.named_parameters())
    assert not any("in_proj" in name for name, _ in spared.model.named_parameters())


# --- weights changed in eval mode (row 19) ----------------------------------------------------------------------


def greedy(student, pairs):
    """Return the most likely words of some pairs, by fairseq's own decoding."""
    student.model.eval()
    generator = student.task.build_generator([student.model], student.options.cfg.generation)
    with torch.no_grad():
        found = student.task.inference_step(generator, [student.model], student.dev.sample(pairs))
    return [row[0]["tokens"].tolist() for row in found], [float(row[0]["score"]) for row in found]


def test_weights_changed_in_eval_mode_change_the_output(data_bin):
    student = make_student(data_bin, "transformer", "adam", *COARSE)
    pairs = student.dev.teaching[:4]
    start, before = (
        student.omega.clone(),
        (student.dev_measures.reference_log_probs(pairs)[0].detach(), greedy(student, pairs)),
    )
    # only encoder layers move: it is their weights the stock model would not look at
    noise = torch.randn(len(start), generator=torch.Generator().manual_seed(0))
    parts = zip(student.parameters.names, student.parameters.split(noise), strict=True)
    for name, part in parts:
        if not name.startswith("encoder.layers"):
            part.zero_()
    student.set_omega(start + 0.3 * noise)
    after = student.dev_measures.reference_log_probs(pairs)[0].detach(), greedy(student, pairs)
    assert (after[0] - before[0]).abs().max() > 1e-2
    assert after[1][1] != before[1][1]
    student.set_omega(start)
    assert torch.equal(student.dev_measures.reference_log_probs(pairs)[0], before[0])


def test_stock_model_ignores_its_weights_in_eval_mode(data_bin):
    # The control: why drop_fast_path is there.
    student = make_student(data_bin, "transformer", "adam", *COARSE)
    sample = student.dev.sample([student.dev.teaching[0]])

    def moved(mend):
        model = student.task.build_model(student.options.cfg.model)
        model.load_state_dict(model.state_dict())  # fills the copies
        for layer in model.encoder.layers:
            layer.can_use_fastpath = True  # as stock fairseq has it
        if mend:
            drop_fast_path(model)
        model.eval()
        with torch.no_grad():
            first = model(**sample["net_input"])[0]
            for name, parameter in model.named_parameters():
                if "encoder.layers" in name and ("fc1.weight" in name or "v_proj.weight" in name):
                    parameter.mul_(3)
            return float((model(**sample["net_input"])[0] - first).abs().max())

    assert moved(mend=False) == 0
    assert moved(mend=True) > 1e-2


# --- --student-init ----------------------------------------------------------------------------------------------


class Malice:
    """A pickle that would leave a trace if anything in it were executed."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def save_checkpoint(student, path, weights):
    """Write a checkpoint of ``student`` as fairseq does, with ``weights`` in place of its own."""
    student._trainer.consolidate_optimizer()
    student._trainer.save_checkpoint(str(path), {"train_iterator": {"epoch": 1}})
    content = torch.load(path, weights_only=True)
    torch.save({**content, "model": weights}, path)


def test_student_init(shared, data_bin, tmp_path):
    shared.restart(3)
    unroll(shared, spread_teacher(shared), 2)
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(shared, path, shared.model.state_dict())
    student = make_student(data_bin, "transformer_tied", "adam", *COARSE, "--student-init", str(path), "--seed", "5")
    assert torch.equal(student.omega, shared.omega)
    # every life starts there, with fresh optimizer state
    life(student, 2)
    student.restart(6)
    assert torch.equal(student.omega, shared.omega)
    assert not any(bool(buffer.any()) for buffer in student.buffers)
    control = make_student(data_bin, "transformer_tied", "adam", *COARSE, "--seed", "5")
    assert not torch.equal(control.omega, shared.omega)


def test_student_init_from_fairseq_train(shared, data_bin, tmp_path):
    # Its checkpoints carry the copies of the fast path.
    shared.restart(3)
    model = shared.task.build_model(shared.options.cfg.model)
    assert any("in_proj_weight" in name for name in model.state_dict())
    save_checkpoint(shared, tmp_path / "stock.pt", model.state_dict())
    student = make_student(data_bin, "transformer_tied", "adam", "--student-init", str(tmp_path / "stock.pt"))
    weights = dict(model.named_parameters())
    for name, part in zip(student.parameters.names, student.parameters.split(student.omega), strict=True):
        assert torch.equal(part, weights[name])


def bad_checkpoints(folder):
    """Return a path and what the message must say of it, by kind of fault."""
    paths = {kind: folder / f"{kind}.pt" for kind in ("pickle", "zip", "empty", "text", "other", "list", "numbers")}
    paths["pickle"].write_bytes(pickle.dumps(Malice(folder / "trace")))
    torch.save({"model": Malice(folder / "trace")}, paths["zip"])
    paths["empty"].write_bytes(b"")
    paths["text"].write_text("no checkpoint\n")
    torch.save({"weights": {}}, paths["other"])
    torch.save([1, 2], paths["list"])
    torch.save({"model": {"encoder": 1.0}, "optimizer_history": []}, paths["numbers"])
    return {**paths, "absent": folder / "absent.pt", "folder": folder}


KINDS = ["pickle", "zip", "empty", "text", "other", "list", "numbers", "absent", "folder"]


@pytest.mark.parametrize("kind", KINDS)
def test_bad_student_init(data_bin, tmp_path, monkeypatch, kind):
    path = bad_checkpoints(tmp_path)[kind]
    read = []
    monkeypatch.setattr(student_module.tasks, "setup_task", lambda *arguments: read.append(arguments))
    with pytest.raises(OptionError, match="^--student-init: ") as raised:
        make_student(data_bin, "transformer", "adam", "--student-init", str(path))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "weights_only" not in str(raised.value)  # no advice to execute what the file has
    assert not (tmp_path / "trace").exists()
    assert not read


def test_the_malicious_pickle_is_malicious(tmp_path):
    pickle.loads(bad_checkpoints(tmp_path)["pickle"].read_bytes())
    assert (tmp_path / "trace").exists()


def test_student_init_of_another_arch(shared, data_bin, tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(shared, path, shared.model.state_dict())
    with pytest.raises(OptionError, match="--student-init: .* does not fit --arch") as raised:
        make_student(data_bin, "fconv", "adam", "--student-init", str(path))
    assert "\n" not in str(raised.value)


def test_student_init_with_fewer_layers(shared, data_bin, tmp_path):
    # Here fairseq's attention raises a KeyError before PyTorch compares the names.
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(shared, path, shared.model.state_dict())
    more = ["--student-init", str(path), "--encoder-layers", "9"]
    with pytest.raises(OptionError, match="--student-init: .* does not fit --arch: no 'encoder.layers"):
        make_student(data_bin, "transformer_tied", "adam", *more)


@pytest.mark.parametrize("family", ["transformer_tied", "transformer_pre_norm", "fconv_tied"])
def test_student_init_of_untied_weights_in_a_tied_student(data_bin, tmp_path, family):
    student = make_student(data_bin, family, "adam")
    path, weights = tmp_path / "checkpoint.pt", student.model.state_dict()
    last = next(name for name in ("decoder.output_projection.weight", "decoder.fc3.weight") if name in weights)
    save_checkpoint(student, path, {**weights, last: weights[last] + 0.1})
    with pytest.raises(OptionError, match=f"--student-init: .* has different values of .*embed_tokens.* and {last}"):
        student_from(data_bin, family, path)
    # the control: equal values of both names, in tensors of their own
    save_checkpoint(student, path, {name: tensor.clone() for name, tensor in weights.items()})
    assert torch.equal(student_from(data_bin, family, path).omega, student.omega)


def student_from(data_bin, family, path):
    return make_student(data_bin, family, "adam", "--student-init", str(path), "--seed", "5")


# --- pretrained embeddings ----------------------------------------------------------------------------------------

EMBEDDINGS = {
    "narrow": ("1 8\nWORD 1 2 3 4 5 6 7 8\n", "length of the vector of WORD: 8; expected 16 (--encoder-embed-dim)"),
    "one number": ("1 1\nWORD 1\n", "length of the vector of WORD: 1; expected 16"),
    "no numbers": ("1 2\nWORD one two\n", "could not convert string to float: 'one'; expected a header line"),
    "no word": ("1 16\nnowhere 1\n", "none of its 1 words is in the dictionary; expected a header line"),
    "empty": ("", "is empty; expected a header line"),
    "absent": (None, "No such file or directory"),
}


@pytest.mark.parametrize(("content", "message"), EMBEDDINGS.values(), ids=EMBEDDINGS.keys())
def test_bad_embeddings(data_bin, tmp_path, shared, content, message):
    path, word = tmp_path / "vectors.txt", shared.task.source_dictionary[20]
    if content is not None:
        path.write_text(content.replace("WORD", word), encoding="utf-8")
    with pytest.raises(OptionError) as raised:
        make_student(data_bin, "transformer", "adam", "--encoder-embed-path", str(path))
    assert str(raised.value).startswith(f"--encoder-embed-path: {path}")
    assert message.replace("WORD", word) in str(raised.value) and "\n" not in str(raised.value)


def test_embeddings_of_the_right_width_are_used(data_bin, tmp_path, shared):
    word, path = shared.task.source_dictionary[20], tmp_path / "vectors.txt"
    # A word of another width that is in no dictionary is read by nobody.
    path.write_text(f"2 16\n{word} {' '.join('0.5' for _ in range(16))}\nnowhere 1\n", encoding="utf-8")
    student = make_student(data_bin, "transformer", "adam", "--encoder-embed-path", str(path))
    weights = student.model.encoder.embed_tokens.weight
    assert weights[20].tolist() == [0.5] * 16
    assert weights[21].tolist() != [0.5] * 16

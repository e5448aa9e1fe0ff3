"""The main job with the console scripts themselves: teacher, student, interruption, translation, comparison."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fairseq_l2t
from tests.end_to_end import preloaded
from tests.end_to_end.settings import (
    MODEL,
    RUN_FOLDER,
    TEACHER_UPDATES,
    TRAINING,
    checkpoint,
    contents,
    log_lines,
    same_tensors,
    teacher_command,
)

pytestmark = pytest.mark.slow
PLUGIN = Path(fairseq_l2t.__file__).parent
STUDENT = [
    # 400 pairs in batches of 4, two a step: 50 updates an epoch, so that updates 20 and 40 are inside the first.
    *(*MODEL, *TRAINING, "--batch-size", "4", "--update-freq", "2", "--max-update", "60"),
    *("--save-interval-updates", "20", "--no-epoch-checkpoints", "--log-format", "json", "--log-interval", "1"),
    *("--eval-bleu", "--eval-bleu-remove-bpe", "sentencepiece"),
    *("--eval-bleu-args", '{"beam": 1, "max_len_a": 1.2, "max_len_b": 10}'),
]
IN_PROCESS = ["--num-workers", "0"]
"""For preloaded commands: data loaders cannot share tensors from a process that multiprocessing has forked."""
LENGTHS = ["--beam", "2", "--min-len", "5", "--max-len-b", "15", "--batch-size", "1"]
"""The students know little after 60 updates; without a least length they say nothing at all. One sentence a batch:
fairseq-interactive takes them so, and lengths and rounding depend on the batch."""


def taught(teacher):
    return ["--user-dir", PLUGIN, "--task", "l2t_dlf", "--criterion", "dynamic_teacher_loss", "--teacher-path", teacher]


def training_log(text):
    """{update: {measure: value}} of fairseq's training log, for the measures that must not depend on the clock."""
    lines = [json.loads(line.split(" | ")[-1]) for line in text.splitlines() if "| INFO | train_inner |" in line]
    names = ("phi_min", "phi_mean", "phi_max", "loss", "nll_loss", "gnorm", "accuracy", "lr")
    return {int(line["num_updates"]): {name: line[name] for name in names} for line in lines}


def validation_log(text):
    """[{measure: value}] of fairseq's validations."""
    lines = [json.loads(line.split(" | ")[-1]) for line in text.splitlines() if "| INFO | valid |" in line]
    names = ("valid_num_updates", "valid_loss", "valid_nll_loss", "valid_accuracy", "valid_bleu")
    return [{name: line[name] for name in names if name in line} for line in lines]


@pytest.fixture(scope="module")
def teacher(data_bin, tmp_path_factory, run_command):
    """The working folder of l2t-train-teacher with expected BLEU and TensorBoard."""
    folder = tmp_path_factory.mktemp("teacher")
    more = ["--objective", "expected-bleu", "--samples", "3", "--tensorboard-logdir", "board"]
    result = run_command(["l2t-train-teacher", *teacher_command(data_bin, *more)], cwd=folder)
    assert "Traceback" not in result.stderr
    (folder / "output.txt").write_text(result.stdout, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def student(data_bin, teacher, tmp_path_factory, run_command):
    """The working folder of a student's uninterrupted training; its log is in log.txt."""
    folder = tmp_path_factory.mktemp("student")
    options = taught(teacher / RUN_FOLDER / "teacher.safetensors")
    more = ["--save-dir", "student", "--tensorboard-logdir", "board"]
    # The interrupted runs have another number of workers, which must not matter.
    result = run_command(["fairseq-train", data_bin, *STUDENT, *options, *more, "--num-workers", "2"], cwd=folder)
    (folder / "log.txt").write_text(result.stdout, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def plain_student(data_bin, tmp_path_factory):
    """The last checkpoint of a short plain cross-entropy training."""
    folder = tmp_path_factory.mktemp("plain")
    more = ["--save-dir", "student", "--criterion", "cross_entropy", "--max-update", "20", *IN_PROCESS]
    preloaded.run("fairseq-train", [data_bin, *STUDENT, *more], folder)
    return folder / "student" / "checkpoint_last.pt"


def logged_scalars(folder):
    """{measure: updates} of all TensorBoard files of a folder."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = {}
    for file in folder.rglob("events.out.tfevents.*"):
        events = accumulator.EventAccumulator(str(file)).Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, set()).update(event.step for event in events.Scalars(tag))
    return found


def test_tensorboard_files_open(teacher, student):
    taught, teaching = logged_scalars(student / "board"), logged_scalars(teacher / "board")
    assert taught["phi_max"] == set(range(1, 61))
    assert {"loss", "nll_loss", "phi_min", "phi_mean"} <= taught.keys()
    assert teaching["measure"] == set(range(1, TEACHER_UPDATES + 1))


def test_teacher_training_leaves_files_log_and_events(data_bin, teacher, uninterrupted, run_command):
    lines = log_lines(teacher / RUN_FOLDER)
    assert [line["teacher_update"] for line in lines] == list(range(1, TEACHER_UPDATES + 1))
    wanted = {"measure", "hypergradient_norm", "adjoint_norm", "phi_min", "phi_mean", "phi_max", "progress"}
    assert all(wanted <= line.keys() for line in lines)
    raw = (teacher / RUN_FOLDER / "teacher_log.jsonl").read_text(encoding="utf-8")
    assert all(json.loads(line)["seconds"] > 0 for line in raw.splitlines())
    assert [line["holdout_measure"] is not None for line in lines] == [False, True] * (TEACHER_UPDATES // 2)
    assert {"teacher.safetensors", "teacher_last.safetensors"} <= contents(teacher / RUN_FOLDER).keys()
    assert "eta_seconds" in (teacher / "output.txt").read_text(encoding="utf-8")
    # the objective does matter: likelihood gives another teacher
    assert lines[0]["measure"] != log_lines(uninterrupted / RUN_FOLDER)[0]["measure"]
    files = [teacher / RUN_FOLDER / "teacher.safetensors", "--log", teacher / RUN_FOLDER / "teacher_log.jsonl"]
    shown = run_command(["l2t-inspect", *files, "--dict", data_bin / "dict.en.txt"]).stdout
    assert "objective expected-bleu" in " ".join(shown.split())
    states = sum(len(line["states"]) for line in lines)
    assert states > TEACHER_UPDATES  # a life's beginning and the looks at dev inside a window beside the windows' ends
    assert f"{states} states of" in " ".join(shown.split())


def test_student_training_logs_phi_and_plain_validation(student):
    log = (student / "log.txt").read_text(encoding="utf-8")
    updates = training_log(log)
    assert list(updates) == list(range(1, 61))
    assert {float(updates[update]["phi_max"]) for update in range(1, 21)} == {0.0}  # cross-entropy: 2 of 6, so 20 of 60
    assert all(float(updates[u]["phi_min"]) < float(updates[u]["phi_max"]) for u in range(21, 61))
    valid = validation_log(log)
    assert [line["valid_num_updates"] for line in valid] == ["20", "40", "50", "60"]
    assert all(line["valid_loss"] == line["valid_nll_loss"] for line in valid)
    assert "valid_bleu" in valid[-1]  # fairseq leaves it out while every hypothesis is empty


def killed_after(update, command, folder):
    """Run a real fairseq-train and kill it once its log has reached an update."""
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={"OMP_NUM_THREADS": "1", "PATH": ""},
    )
    for line in process.stdout:
        if f'"num_updates": "{update}"' in line:
            process.kill()
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL


def without_teaching_state(path):
    """Rewrite a checkpoint as if the student's state did not travel in it."""
    state = checkpoint(path)
    del state["task_state"]["teaching"]
    torch.save(state, path)


def test_killed_and_resumed_student(data_bin, teacher, student, tmp_path, run_command):
    options = taught(teacher / RUN_FOLDER / "teacher.safetensors")
    command = ["fairseq-train", data_bin, *STUDENT, *options, "--save-dir", "student"]
    script = Path(sys.executable).parent / "fairseq-train"
    killed_after(23, [script, *command[1:]], tmp_path)
    assert checkpoint(tmp_path / "student" / "checkpoint_last.pt")["optimizer_history"][-1]["num_updates"] == 20
    (tmp_path / "forgetful").mkdir()
    shutil.copytree(tmp_path / "student", tmp_path / "forgetful" / "student")
    whole = training_log((student / "log.txt").read_text(encoding="utf-8"))
    later = {update: whole[update] for update in range(21, 61)}

    resumed_log = run_command(command, cwd=tmp_path).stdout
    assert training_log(resumed_log) == later
    assert validation_log(resumed_log) == validation_log((student / "log.txt").read_text(encoding="utf-8"))[1:]
    names = [path / "student" / "checkpoint_last.pt" for path in (student, tmp_path)]
    expected, resumed = map(checkpoint, names)
    assert same_tensors(expected["model"], resumed["model"])
    assert expected["task_state"]["teaching"] == resumed["task_state"]["teaching"]

    # control: the same without the student's state sees other coefficients, and ends elsewhere
    without_teaching_state(tmp_path / "forgetful" / "student" / "checkpoint_last.pt")
    forgetful = preloaded.run("fairseq-train", [*command[1:], *IN_PROCESS], tmp_path / "forgetful")
    other = training_log(forgetful.stdout)
    assert other.keys() == later.keys()
    assert [other[u]["phi_max"] for u in (21, 22, 30)] != [later[u]["phi_max"] for u in (21, 22, 30)]
    assert not same_tensors(
        expected["model"], checkpoint(tmp_path / "forgetful" / "student" / "checkpoint_last.pt")["model"]
    )


def hypotheses(output):
    """{sentence number: hypothesis with its score} of fairseq-generate or fairseq-interactive."""
    lines = [line.split("\t") for line in output.splitlines() if line.startswith("H-")]
    return {int(number[2:]): (score, text) for number, score, text in lines}


def write_translations(path, found):
    path.write_text("".join(found[number][1] + "\n" for number in sorted(found)), encoding="utf-8")
    return path


def test_translation_with_and_without_the_plugin(data_bin, student, plain_student, tmp_path, run_command):
    last = student / "student" / "checkpoint_last.pt"
    ways = {"with": ["--user-dir", PLUGIN, "--task", "l2t_dlf"], "without": ["--task", "translation"]}

    def generate(path, way):
        return hypotheses(run_command(["fairseq-generate", data_bin, "--path", path, *LENGTHS, *ways[way]]).stdout)

    found = {way: generate(last, way) for way in ways}
    assert found["with"] == found["without"]
    assert found["with"].keys() == set(range(40))
    other = generate(plain_student, "without")
    assert other != found["with"]
    source = (data_bin.parent / "pieces" / "test.de").read_text(encoding="utf-8")
    for options in ways.values():
        command = ["fairseq-interactive", data_bin, "--path", last, *LENGTHS, *options]
        typed = hypotheses(run_command(command, input=source).stdout)
        assert typed == found["with"]
    files = [
        write_translations(tmp_path / f"{name}.txt", result)
        for name, result in (("taught", found["with"]), ("plain", other))
    ]
    reference = data_bin.parent / "pieces" / "test.en"
    table = run_command(["l2t-compare", "--ref", reference, "--baseline", files[1], "--systems", files[0]]).stdout
    assert "BLEU" in table
    assert "taught" in table


def test_average_of_checkpoints(data_bin, student, tmp_path):
    folder = student / "student"
    last = sorted(folder.glob("checkpoint_*_*.pt"), key=lambda path: int(path.stem.split("_")[-1]))[-2:]
    command = ["--inputs", folder, "--num-update-checkpoints", "2", "--output", "average.pt"]
    preloaded.run("l2t-average", command, tmp_path / "work")
    average, states = checkpoint(tmp_path / "work" / "average.pt"), [checkpoint(path) for path in last]
    for name, weight in average["model"].items():
        torch.testing.assert_close(weight, (states[0]["model"][name] + states[1]["model"][name]) / 2)
    assert not same_tensors(average["model"], states[1]["model"])
    assert average["task_state"]["teaching"] == states[1]["task_state"]["teaching"]
    assert average["task_state"]["teaching"] != states[0]["task_state"]["teaching"]
    decode = [data_bin, "--task", "translation", "--batch-size", "8", "--max-len-b", "15", *IN_PROCESS, "--path"]
    found = [
        hypotheses(preloaded.run("fairseq-generate", [*decode, path], tmp_path / "work").stdout)
        for path in ("average.pt", last[1])
    ]
    assert found[0].keys() == set(range(40))
    assert found[0] != found[1]


FROM_OTHER_WEIGHTS = {
    "finetune": ["--finetune-from-model"],
    "restore": [
        *("--reset-optimizer", "--reset-dataloader", "--reset-meters", "--reset-lr-scheduler"),
        "--restore-file",
    ],
}
"""Both ways of fairseq to start a training from the weights of another one; the path follows."""


def test_starting_from_plain_weights_and_validating_without_a_teacher(data_bin, teacher, plain_student, tmp_path):
    moved = shutil.copy(teacher / RUN_FOLDER / "teacher.safetensors", tmp_path / "moved.safetensors")

    def train(name, *more):
        command = [data_bin, *STUDENT, *taught(moved), "--disable-validation", *IN_PROCESS, "--save-dir", name, *more]
        return training_log(preloaded.run("fairseq-train", command, tmp_path / "work").stdout)

    logs = {
        way: train(way, *options, plain_student, "--max-update", "24") for way, options in FROM_OTHER_WEIGHTS.items()
    }
    assert logs["finetune"] == logs["restore"]
    assert list(logs["finetune"]) == list(range(1, 25))  # a life of its own, from the first update
    assert {float(logs["finetune"][update]["phi_max"]) for update in range(1, 9)} == {0.0}  # a third is cross-entropy
    assert float(logs["finetune"][9]["phi_max"]) > 0
    untrained = train("fresh", "--max-update", "1")
    # it did start from trained weights
    assert float(logs["finetune"][1]["nll_loss"]) < float(untrained[1]["nll_loss"]) - 0.5

    Path(moved).unlink()
    validate = [data_bin, "--user-dir", PLUGIN, "--task", "l2t_dlf", "--path", "finetune/checkpoint_last.pt"]
    output = preloaded.run("fairseq-validate", [*validate, "--batch-size", "8", *IN_PROCESS], tmp_path / "work").stdout
    assert "| INFO | valid |" in output
    assert "nll_loss" in output

"""Grids of experiments: what is chosen and by what, what counts, and what is reported; whole in `make test-slow`."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import experiment_steps
import pytest
from experiment import main
from experiment_report import records_of, tables
from experiment_runs import Outcome, read_records, read_teachers
from experiment_settings import settings_of
from experiment_steps import Experiment
from grid import load_grid
from runs import read_run, teacher_lines
from steps import StepFailed
from textfiles import BadInput

from fairseq_l2t.core import Teacher
from fairseq_l2t.storage import (
    TeacherSettings,
    Vocabulary,
    load_teacher,
    lock_run_folder,
    save_teacher,
)

TINY = Path(__file__).with_name("tiny_grid.yaml")
CPU = Path(experiment_steps.__file__).with_name("grids") / "cpu.yaml"


@pytest.fixture
def experiment(tmp_path):
    grid = replace(load_grid(TINY), length_penalties=(1.0,))
    return Experiment(grid, settings_of(grid, tmp_path)[0])


def write_log(path, *curve, more=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for update, bleu in curve:
        lines.append(f'2026 | INFO | train_inner | {{"num_updates": "{update}", "train_wall": "3"}}')
        lines.append(f'2026 | INFO | valid | {{"valid_num_updates": "{update}", "valid_bleu": "{bleu}"}}')
    path.write_text("\n".join(lines) + "\n" + more, encoding="utf-8")


def finish(experiment, name, *curve):
    path = experiment.log(name)
    write_log(path, *curve)
    path.with_suffix(".done").touch()


def test_a_log_is_read_once_for_what_was_done_twice(tmp_path):
    log = tmp_path / "log"
    again = '2026 | INFO | valid | {"valid_num_updates": "40", "valid_bleu": "7.5"}\n' + (
        '2026 | INFO | train_inner | {"num_updates": "40", "train_wall": "4"}\n')
    write_log(log, (20, 5.0), (40, 7.0), more="a line of something else | valid | not it\n" + again)
    run = read_run(log)
    assert run.curve == ((20, 5.0), (40, 7.5))
    assert (run.best, run.updates, run.seconds) == ((40, 7.5), 40, 7.0)
    write_log(log, (20, 5.0), (40, 5.0))
    assert read_run(log).best == (20, 5.0)  # the first of equals, whose checkpoint fairseq keeps
    log.write_text("nothing\n", encoding="utf-8")
    with pytest.raises(BadInput, match="no validation in it"):
        read_run(log)


CUT = '2026 | INFO | valid | {"valid_num_updates": "60", "val\n'


@pytest.mark.parametrize("cut", [CUT, CUT.replace("valid |", "train_inner |"), CUT.replace(', "val', "}")
                                 .replace("valid |", "train_inner |")])
def test_a_cut_line_is_named_unless_the_run_went_on_after_it(tmp_path, cut):
    log = tmp_path / "log"
    write_log(log, (20, 5.0), (40, 7.0), more=cut)
    with pytest.raises(BadInput, match=f"{log}, line 5: .*60.*expected a whole line"):
        read_run(log)
    with log.open("a", encoding="utf-8") as file:
        file.write("$ fairseq-train\n")
    assert read_run(log).curve == ((20, 5.0), (40, 7.0))


def test_a_cut_line_of_a_teacher_is_named(tmp_path):
    log = tmp_path / "teacher_log.jsonl"
    log.write_text('{"a": 1}\n{"a":', encoding="utf-8")
    with pytest.raises(BadInput, match=f"{log}, line 2: "):
        teacher_lines(tmp_path)


def test_every_share_of_noise_has_a_folder_of_its_own(experiment, tmp_path):
    grid = replace(experiment.grid, noise=(0.0, 0.004, 0.29, 0.3, 0.301, 0.304))
    names = [setting.name for setting in settings_of(grid, tmp_path) if setting.corpus.name == "tiny"]
    assert names == [f"tiny.noise{percent}" for percent in ("0", "0.4", "29", "30", "30.1", "30.4")]


def test_learning_rate_and_choice_are_taken_by_dev_bleu(experiment):
    student, loss = experiment.students[0], experiment.grid.losses["label-smoothing"]
    trials = experiment.trials(student, loss)
    assert [trial.options for trial in trials] == [
        ("--lr", rate, "--label-smoothing", amount) for rate in ("0.01", "0.02") for amount in ("0.1", "0.2")
    ]
    for trial, bleu in zip(trials, (3.0, 9.0, 8.0, 1.0), strict=True):
        finish(experiment, trial.name, (20, bleu), (40, bleu - 1))
    assert experiment.chosen(student, loss) == trials[1]
    steps = {step.name: step for step in experiment.steps()}
    further = steps["tiny.noise30.train.transformer.label-smoothing.seed2"]
    assert further.late() == trials[1].options
    assert set(further.after) == {f"tiny.noise30.train.{trial.name}" for trial in trials}
    decoded = steps["tiny.noise30.decode.transformer.label-smoothing.seed1"]
    assert decoded.late() == ("--path", str(experiment.setting.folder / "checkpoints" / trials[1].name
                                            / "checkpoint_best.pt"))  # fmt: skip


def finish_dev(experiment, penalty, hypotheses, seed=1):
    log = experiment.log("any").parent / f"tiny.noise30.dev.transformer.dynamic.seed{seed}.lenpen{penalty}"
    lines = "".join(f"D-{number}\t-0.5\t{text}\n" for number, text in enumerate(hypotheses))
    log.with_name(f"{log.name}.out").write_text(lines, encoding="utf-8")
    log.with_name(f"{log.name}.done").touch()


def test_of_several_length_penalties_dev_chooses_one_for_each_run(experiment):
    experiment = Experiment(replace(experiment.grid, length_penalties=(1.0, 1.5, 2.0)), experiment.setting)
    student, decoding, name = finish_all(experiment), experiment.decoding, "tiny.noise30"
    loss = experiment.grid.losses["dynamic"]
    reference = experiment.setting.data_bin.parent / "text" / "valid.en"
    reference.parent.mkdir(parents=True)
    reference.write_text("a b c d e f\na b c d e f\n", encoding="utf-8")
    steps = {step.name: step for step in experiment.steps()}
    dev = {seed: [f"{name}.dev.transformer.dynamic.seed{seed}.lenpen{penalty}" for penalty in ("1", "1.5", "2")]
           for seed in (1, 2)}  # fmt: skip
    best = str(experiment.checkpoints(experiment.chosen(student, loss).name) / "checkpoint_best.pt")
    assert [steps[one].late() for one in dev[1]] == [("--path", best, "--lenpen", one) for one in ("1", "1.5", "2")]
    assert all(steps[one].command[steps[one].command.index("--gen-subset") + 1] == "valid" for one in dev[1] + dev[2])
    test = {seed: steps[f"{name}.decode.transformer.dynamic.seed{seed}"] for seed in (1, 2)}
    for seed, step in test.items():
        assert step.command[-4:] == ("--max-len-a", "1.2", "--max-len-b", "10")
        assert {one for one in step.after if ".dev." in one} == set(dev[seed])
    short, right = ["a b c d", "a b c d"], ["a b c d e f", "a b c d e f"]
    finish_dev(experiment, "1", short)
    finish_dev(experiment, "1.5", right)
    assert decoding.length_penalty(student, loss, 1) is None  # not before all are there
    finish_dev(experiment, "2", right)
    for penalty, hypotheses in (("1", short), ("1.5", short), ("2", right)):
        finish_dev(experiment, penalty, hypotheses, seed=2)
    scores = decoding.dev_scores(student, loss, 1)
    assert scores[1.5] == scores[2.0] == pytest.approx(100.0) and 0 < scores[1.0] < 100
    assert decoding.length_penalty(student, loss, 1) == 1.5  # the first of equals
    assert [step.late()[2:] for step in test.values()] == [("--lenpen", "1.5"), ("--lenpen", "2")]
    assert "| `--lr 0.01 --lenpen 1.5, 2` |" in table_of(experiment)["dynamic"]
    records = [record for record in read_records(experiment.setting) if record["loss"] == "dynamic"]
    assert [record["length_penalty"] for record in records] == [1.5, None, 2.0]
    assert records[0]["dev_bleu_by_length_penalty"]["1"] == scores[1.0]
    finish_dev(experiment, "2", right[:1])
    with pytest.raises(StepFailed, match=r"lenpen2.out: 1 hypotheses for 2 sentences"):
        Experiment(experiment.grid, experiment.setting).decoding.length_penalty(student, loss, 1)


def test_a_single_length_penalty_is_no_choice(experiment):
    student = finish_all(experiment)
    other = Experiment(replace(experiment.grid, length_penalties=(0.6,)), experiment.setting)
    for one, expected in ((experiment, ()), (other, ("--lenpen", "0.6"))):
        steps = list(one.steps())
        assert not [step for step in steps if ".dev." in step.name]
        assert [step.late()[2:] for step in steps if ".decode.transformer.dynamic." in step.name] == 2 * [expected]
    assert "lenpen" not in table_of(experiment)["dynamic"]
    assert experiment.decoding.dev_scores(student, experiment.grid.losses["dynamic"], 1) is None


def test_the_test_set_is_seen_after_everything_is_chosen(experiment):
    """Only decodings name it, once a run that counts; comparisons wait for every seed of the baselines."""
    steps = list(experiment.steps())
    seen = [step for step in steps if "test" in step.command]
    assert [step.name for step in seen] == [
        f"tiny.noise30.decode.transformer.{loss}.seed{seed}" for loss in experiment.grid.losses for seed in (1, 2)
    ]
    assert all(".train." in name for step in seen for name in step.after)
    [first, _] = [step for step in steps if ".compare." in step.name]
    assert {f"tiny.noise30.decode.transformer.{loss}.seed2" for loss in experiment.grid.baselines} < set(first.after)


def test_students_of_a_loss_differ_in_its_options_alone(experiment):
    steps = [step for step in experiment.steps() if ".train." in step.name and "lr0.01" in step.name]
    own = ("--criterion", "--save-dir", "--label-smoothing", "--user-dir", "--task", "--teacher-path")
    shared = {tuple(word for before, word in zip(("", *step.command), step.command, strict=False)
                    if not {before, word} & set(own)) for step in steps}  # fmt: skip
    assert len(steps) == 5 and len(shared) == 1
    taught = next(step for step in steps if ".dynamic." in step.name)
    assert "tiny.noise30.teacher.dynamic" in taught.after
    assert experiment.setting.teacher("dynamic") / "teacher.safetensors" in taught.inputs


def finish_all(experiment):
    """As if everything had been trained; the second seed of a loss is a little better than the first."""
    student = experiment.students[0]
    for number, loss in enumerate(experiment.grid.losses.values()):
        for index, trial in enumerate(experiment.trials(student, loss)):
            finish(experiment, trial.name, (20, 1.0), (40, 10.0 + number - index))
        finish(experiment, f"{student.name}.{loss.name}.seed2", (20, 11.0 + number), (40, 2.0))
    return student


def table_of(experiment):
    """The tables of what is recorded, by loss."""
    Outcome([experiment]).write()
    text = tables(experiment.grid, records_of([experiment.setting]))
    return {line.split(" | ")[1]: line for line in text.splitlines() if line.startswith("| transformer")}


def test_records_and_tables(experiment):
    student = finish_all(experiment)
    row = table_of(experiment)["label-smoothing"]
    assert row == ("| transformer | label-smoothing | `--lr 0.01 --label-smoothing 0.1` | 2 of 2 "
                   "| 11.50 (11.00 to 12.00) | 30 (20 to 40) |  |  |  |  |  |")
    records = read_records(experiment.setting)
    assert len(records) == 3 * 2 + 4 + 4 * 1  # trials, and the second seed of each loss
    assert [record["counts"] for record in records[:3]] == [True, False, True]
    assert experiment.decoding.baseline(student).name == "label-smoothing"
    # With comparisons.
    for seed in experiment.grid.seeds:
        path = experiment.setting.comparison(student.name, seed)
        path.parent.mkdir(exist_ok=True)
        names = ["label-smoothing", "cross-entropy", "fixed", "dynamic"]
        systems = [{"name": f"transformer.{name}.seed{seed}.txt",
                    "BLEU": {"score": 20.0 + seed * index, "p_value": 0.01 * index if index else None},
                    "chrF2": {"score": 40.0 + index, "p_value": 0.5 if index else None}}
                   for index, name in enumerate(names)]  # fmt: skip
        path.write_text(json.dumps({"signatures": {"BLEU": "b", "chrF2": "c"}, "systems": systems}), encoding="utf-8")
    rows = table_of(experiment)
    end = "| 24.50 (23.00 to 26.00) | +4.50 | 0.030, 0.030 | 43.00 (43.00 to 43.00) | +3.00 |"
    assert rows["dynamic"].endswith(end)
    assert rows["label-smoothing"].endswith("| 20.00 (20.00 to 20.00) |  |  | 40.00 (40.00 to 40.00) |  |")


def test_a_report_needs_the_records_alone(experiment, tmp_path, capsys):
    """Also beside settings that were never run here, and it leaves them as they are."""
    finish_all(experiment)
    out, kept = ["--output-dir", str(tmp_path)], tmp_path / "kept"
    assert main([str(TINY), *out, "--report"]) == 0
    said = capsys.readouterr().out.split("wall time")[0]
    assert "| transformer | dynamic |" in said
    name = experiment.setting.name
    (kept / name).mkdir(parents=True)
    for file in ("runs.jsonl", "teachers.jsonl"):
        (kept / name / file).write_bytes((tmp_path / name / file).read_bytes())
    assert main([str(TINY), "--output-dir", str(kept), "--report"]) == 0
    assert capsys.readouterr().out.split("wall time")[0] == said
    assert (kept / "curves.png").read_bytes() == (tmp_path / "curves.png").read_bytes()
    (kept / name / "runs.jsonl").write_text('{"corpus":', encoding="utf-8")
    assert f"{kept / name / 'runs.jsonl'}, line 1: " in refused(capsys, TINY, "--output-dir", kept, "--report")


def test_some_settings_alone(tmp_path, capsys):
    out = ["--output-dir", str(tmp_path / "out")]
    assert main([str(TINY), *out, "--dry-run", "--settings", "tiny.noise30"]) == 0
    shown = capsys.readouterr().out
    assert "tiny.noise30.train" in shown and "absent" not in shown
    message = refused(capsys, TINY, *out, "--settings", "tiny.noise31")
    assert "--settings: 'tiny.noise31', expected some of tiny.noise30, absent.noise30" in message


def test_a_watched_student_keeps_its_checkpoints(experiment):
    student = finish_all(experiment)
    steps = {step.name: step for step in experiment.steps()}
    first = experiment.chosen(student, experiment.grid.losses["dynamic"])
    trial, further = (steps[f"tiny.noise30.train.{name}"] for name in (first.name, "transformer.dynamic.seed2"))
    assert trial.command[-2:] == ("--keep-interval-updates", "-1") and "-1" not in further.command
    shares = steps["tiny.noise30.shares.transformer"]
    assert set(shares.after) == {name for name in steps if ".train." in name and ".seed2" not in name}
    assert shares.late()[0] == "--checkpoints" and len(shares.late()) == 1 + 4
    assert shares.late()[-1] == f"dynamic={experiment.setting.folder / 'checkpoints' / first.name}"
    clean = list(Experiment(experiment.grid, replace(experiment.setting, noise=0.0)).steps())
    assert not [step for step in clean if "shares" in step.name or "-1" in step.command]


def test_a_teacher_that_was_trained_is_looked_at(experiment):
    looks = [step for step in experiment.steps() if ".inspect." in step.name]
    assert [step.name for step in looks] == ["tiny.noise30.inspect.dynamic"]  # `initial` has learned nothing
    teacher = experiment.setting.teacher("dynamic") / "teacher.safetensors"
    assert str(teacher) in looks[0].command and looks[0].inputs == (teacher,)
    assert looks[0].after == ("tiny.noise30.teacher.dynamic",)


def test_what_a_teacher_cost_is_read_off_its_log(experiment):
    folder = experiment.setting.teacher("dynamic")
    folder.mkdir(parents=True)
    names = ("teacher_update", "measure", "holdout_measure", "phi_mean", "hypergradient_norm", "adjoint_norm")
    curve = {**dict.fromkeys(names, 0.5), "pull_by_tenth": 10 * [0.1]}
    lines = [{"student_life": life, "student_update": update, "seconds": 1.5, **curve}
             for life, update in ((0, 4), (0, 8), (1, 4))]  # fmt: skip
    (folder / "teacher_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    experiment.log("any").parent.mkdir()
    Outcome([experiment]).write()
    initial, dynamic = read_teachers(experiment.setting)
    assert (dynamic["teacher"], dynamic["teacher_updates"]) == ("dynamic", 3)
    assert (dynamic["student_updates"], dynamic["seconds"], len(dynamic["curve"])) == (12, 4.5, 3)
    assert (initial["teacher_updates"], initial["student_updates"], initial["curve"]) == (0, 0, [])
    assert main([str(TINY), "--output-dir", str(experiment.setting.folder.parent), "--report"]) == 0
    assert (experiment.setting.folder.parent / "teachers.png").read_bytes().startswith(b"\x89PNG")


def keep_teacher(folder, *arguments):
    folder.mkdir(parents=True)
    teacher = Teacher(["progress"], 4, keys=1)
    settings = TeacherSettings(1.0, 0.0, 8, 0, {"arguments": ["bin", *arguments, "--save-dir", "there"]})
    save_teacher(folder / "teacher.safetensors", teacher, Vocabulary.of_symbols("abcd"), settings)


def test_teachers_of_an_earlier_run_are_not_trained_again(experiment, tmp_path, capsys):
    name, earlier = experiment.setting.name, tmp_path / "earlier"
    out = [TINY, "--output-dir", tmp_path / "out", "--dry-run", "--teachers", earlier]
    assert f"--teachers: {earlier}, expected the folder of a run of this grid" in refused(capsys, *out)
    trained = next(step for step in experiment.steps() if step.name.endswith("teacher.dynamic")).command[2:-2]
    kept = earlier / name / "teachers" / "dynamic"
    keep_teacher(kept, *trained)
    assert main([*map(str, out)]) == 0
    shown = capsys.readouterr().out
    assert f"not trained anew:\n  {kept / 'teacher.safetensors'}\n" in shown
    assert f"{name}.teacher.initial" in shown and f"{name}.teacher.dynamic" not in shown
    assert f"--teacher-path {kept / 'teacher.safetensors'}" in shown and f"--log {kept / 'teacher_log.jsonl'}" in shown
    steps = list(Experiment(experiment.grid, replace(experiment.setting, earlier=earlier / name)).steps())
    known = {step.name for step in steps}
    assert all(known.issuperset(step.after) for step in steps)
    keep_teacher(earlier / name / "teachers" / "initial", *trained)
    assert "other options than the grid's initial (there --teacher-updates 2, here --teacher-updates 0)" in refused(
        capsys, *out)  # fmt: skip
    cut = earlier / name / "teachers" / "initial" / "teacher.safetensors"
    cut.write_bytes(cut.read_bytes()[:-10])
    assert f"--teachers: {cut}: " in refused(capsys, *out)


def test_the_teachers_in_results_are_those_of_the_grid(tmp_path):
    results, grid = CPU.parents[1] / "results" / "cpu", load_grid(CPU)
    experiments = [Experiment(grid, setting) for setting in settings_of(grid, tmp_path, results)]
    taken = [path for one in experiments for path in one.earlier_teachers()]
    assert taken and set(taken) == set(results.glob("*/teachers/*/teacher.safetensors"))
    for path in taken:
        folders = load_teacher(path).settings.extra["arguments"]
        assert not Path(folders[0]).is_absolute() and not Path(folders[-1]).is_absolute()


@pytest.mark.parametrize(("results", "taken"), [("cpu", {"dynamic"}), ("transfer", {"dynamic", "tenth"})])
def test_transfer_takes_teachers_in_results(tmp_path, results, taken):
    grid = load_grid(CPU.with_name("transfer.yaml"))
    [setting] = settings_of(grid, tmp_path, CPU.parents[1] / "results" / results)
    assert {path.parent.name for path in Experiment(grid, setting).earlier_teachers()} == taken


def test_the_record_of_an_earlier_teacher_outlives_its_folder(experiment):
    experiment.log("any").parent.mkdir(parents=True)
    lines = {name: {"teacher": name, "teacher_updates": 3, "student_updates": 12, "seconds": 4.5, "curve": []}
             for name in ("initial", "dynamic")}  # fmt: skip
    records = experiment.setting.folder / "teachers.jsonl"
    records.write_text("".join(json.dumps(line) + "\n" for line in lines.values()), encoding="utf-8")
    experiment.setting.teacher("initial").mkdir(parents=True)  # trained here
    Outcome([experiment]).write()
    assert read_teachers(experiment.setting) == [{**lines["initial"], "teacher_updates": 0, "student_updates": 0,
                                                  "seconds": 0}, lines["dynamic"]]  # fmt: skip


def test_some_students_alone(experiment, tmp_path, capsys):
    grid = replace(experiment.grid, students={**experiment.grid.students, "other": experiment.students[0]})
    names = [step.name for step in Experiment(grid, experiment.setting).steps(["other"])]
    assert names == ["tiny.noise30.teacher.initial", "tiny.noise30.teacher.dynamic", "tiny.noise30.inspect.dynamic"]
    message = refused(capsys, TINY, "--output-dir", tmp_path / "out", "--students", "lstm")
    assert "--students: 'lstm', expected some of transformer" in message
    # One of the grid, but of none of these settings.
    message = refused(capsys, CPU, "--output-dir", tmp_path / "out", "--settings", "multi30k.noise0", "--students",
                      "lstm")  # fmt: skip
    assert "--students: 'lstm', expected some of transformer" in message


def test_errors_and_what_is_left_out(tmp_path, capsys):
    assert main([str(tmp_path / "no.yaml"), "--output-dir", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main([str(TINY), "--output-dir", str(tmp_path / "out"), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "absent.noise30: left out, no folder" in shown
    assert "fairseq-train" in shown and not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        main([str(TINY), "--output-dir", str(tmp_path), "--jobs", "0"])


def refused(capsys, *arguments):
    """What the program says, in one line, when it refuses."""
    assert main([*map(str, arguments)]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and message.startswith("experiment.py: error: ")
    return message


def test_folders_that_cannot_be_used_are_refused(tmp_path, capsys):
    out = tmp_path / "out"
    assert f"--output-dir: {out}, expected the folder" in refused(capsys, TINY, "--output-dir", out, "--report")
    assert not out.exists()
    with lock_run_folder(out):
        assert f"{out}: another run (process {os.getpid()})" in refused(capsys, TINY, "--output-dir", out)
        assert main([str(TINY), "--output-dir", str(out), "--report"]) == 0  # while it runs
    capsys.readouterr()
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'}: File exists" in refused(capsys, TINY, "--output-dir", tmp_path / "file")


def test_data_that_runs_stand_on_is_not_made_anew(tmp_path, capsys):
    setting = settings_of(load_grid(TINY), tmp_path)[0]
    setting.data_bin.mkdir(parents=True)
    record = setting.data_bin / "prepared.json"
    record.write_text('{"vocabulary": 100}', encoding="utf-8")
    message = refused(capsys, TINY, "--output-dir", tmp_path)
    assert f"{setting.data_bin}: made with other vocabulary (100, now 200), " in message and record.exists()
    record.write_text('{"vocab', encoding="utf-8")
    assert f"{record}: damaged, expected JSON" in refused(capsys, TINY, "--output-dir", tmp_path)


def test_what_the_data_cannot_be_is_told_by_the_key_of_the_grid(tmp_path, capsys):
    grid = tmp_path / "grid.yaml"
    grid.write_text(TINY.read_text(encoding="utf-8").replace("vocabulary: 200}", "vocabulary: 5}"), encoding="utf-8")
    message = refused(capsys, grid, "--output-dir", tmp_path / "out")
    assert f"{grid}: corpora.tiny.vocabulary: 5, refused by SentencePiece" in message


@pytest.mark.very_slow
def test_a_grid_is_run_killed_and_resumed(examples, tmp_path):
    command = [sys.executable, str(examples / "experiment.py"), str(TINY), "--output-dir", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 300
        while not list(tmp_path.glob("out/*/logs/*.train.*.done")) and time.monotonic() < deadline:
            time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/*/logs/*.done")}
    assert done
    result = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert result.returncode == 0, result.stderr
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in done.items())
    lines = (tmp_path / "out" / "tiny.noise30" / "runs.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    counting = [record for record in records if record["counts"]]
    assert len(counting) == 4 * 2 and all(record["test"] for record in counting)
    assert all(set(record["dev_bleu_by_length_penalty"]) == {"1", "1.5"} for record in counting)
    assert (tmp_path / "out" / "results.md").read_text(encoding="utf-8").strip() in result.stdout
    for name in ("curves.png", "teachers.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    setting = tmp_path / "out" / "tiny.noise30"
    said = (setting / "logs" / "tiny.noise30.inspect.dynamic.txt").read_text("utf-8")
    assert "Stages of a student's life" in said
    assert list((setting / "inspected" / "dynamic").glob("*.png"))
    shares = (tmp_path / "out" / "tiny.noise30" / "shares" / "transformer.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["update"] for line in shares] == 4 * [20, 40]
    # A second run does nothing and says the same.
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0
    assert "done before" in again.stdout and " s\n" not in again.stdout.split("###")[0]

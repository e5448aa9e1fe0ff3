"""The teachers of a grid: what is read off them, and those of earlier runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.grid import load_grid
from experiments.plan.kept_teachers import earlier_teachers, refuse_damaged_teachers
from experiments.plan.outcome import Outcome
from experiments.plan.setting import settings_of
from experiments.plan.translation import Experiment
from experiments.records.translation import read_teachers
from fairseq_l2t.core import Teacher
from fairseq_l2t.pairs.parallel_text import BadInput
from fairseq_l2t.storage import TeacherSettings, Vocabulary, load_teacher, save_teacher
from tests.experiments.finished_runs import GRIDS, KEPT, TINY, mark_done, refused


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
    lines = [
        {"student_life": life, "student_update": update, "seconds": 1.5, **curve}
        for life, update in ((0, 4), (0, 8), (1, 4))
    ]
    (folder / "teacher_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    experiment.log("any").parent.mkdir()
    Outcome([experiment]).write()
    initial, dynamic = read_teachers(experiment.setting.folder)
    assert (dynamic["teacher"], dynamic["teacher_updates"]) == ("dynamic", 3)
    assert (dynamic["student_updates"], dynamic["seconds"], len(dynamic["curve"])) == (12, 4.5, 3)
    assert (initial["teacher_updates"], initial["student_updates"], initial["curve"]) == (0, 0, [])
    assert main(["report", str(TINY), "--output-dir", str(experiment.setting.folder.parent)]) == 0
    assert (experiment.setting.folder.parent / "teachers.png").read_bytes().startswith(b"\x89PNG")


def keep_teacher(folder, *arguments):
    folder.mkdir(parents=True)
    teacher = Teacher(["progress"], 4, keys=1)
    settings = TeacherSettings(1.0, 0.0, 8, 0, {"arguments": ["bin", *arguments, "--save-dir", "there"]})
    save_teacher(folder / "teacher.safetensors", teacher, Vocabulary.of_symbols("abcd"), settings)
    (folder / "teacher_log.jsonl").write_text('{"teacher_update": 1}\n{"teacher_update": 2}\n', encoding="utf-8")


def test_teachers_of_an_earlier_run_are_not_trained_again(experiment, tmp_path, capsys):
    name, earlier = experiment.setting.name, tmp_path / "earlier"
    out = [TINY, "--output-dir", tmp_path / "out", "--dry-run", "--teachers", earlier]
    assert f"--teachers: {earlier}, expected the folder of a run of this grid" in refused(capsys, "run", *out)
    trained = next(step for step in experiment.steps() if step.name.endswith("teacher.dynamic")).command[2:-2]
    kept = earlier / name / "teachers" / "dynamic"
    keep_teacher(kept, *trained)
    assert main(["run", *map(str, out)]) == 0
    shown = capsys.readouterr().out
    assert f"teachers that are not trained again:\n  {kept / 'teacher.safetensors'}\n" in shown
    assert f"{name}.teacher.initial" in shown and f"{name}.teacher.dynamic" not in shown
    assert f"--teacher-path {kept / 'teacher.safetensors'}" in shown and f"--log {kept / 'teacher_log.jsonl'}" in shown
    steps = list(Experiment(experiment.grid, replace(experiment.setting, earlier=earlier / name)).steps())
    known = {step.name for step in steps}
    assert all(known.issuperset(step.after) for step in steps)
    log = kept / "teacher_log.jsonl"
    whole = log.read_text(encoding="utf-8")
    log.write_text(whole[: len(whole) // 2], encoding="utf-8")
    assert f"{kept / 'teacher.safetensors'} is not finished, 1 of 2 updates by {log}" in refused(capsys, "run", *out)
    log.write_text(whole, encoding="utf-8")
    keep_teacher(earlier / name / "teachers" / "initial", *trained)
    assert "other options than the grid's initial (there --teacher-updates 2, here --teacher-updates 0)" in refused(
        capsys, "run", *out
    )
    cut = earlier / name / "teachers" / "initial" / "teacher.safetensors"
    cut.write_bytes(cut.read_bytes()[:-10])
    assert f"--teachers: {cut}: " in refused(capsys, "run", *out)


def test_a_teacher_of_another_vocabulary_is_refused_before_anything_is_trained(experiment, tmp_path, capsys):
    name, earlier = experiment.setting.name, tmp_path / "earlier"
    trained = next(step for step in experiment.steps() if step.name.endswith("teacher.dynamic")).command[2:-2]
    keep_teacher(earlier / name / "teachers" / "dynamic", *trained)
    message = refused(capsys, "run", TINY, "--output-dir", tmp_path / "out", "--teachers", earlier)
    assert f"--teachers: {earlier}" in message and "for a vocabulary of 4 entries; this one has" in message
    assert not list(tmp_path.glob("out/*/logs"))


def test_the_teachers_in_results_are_those_of_the_grid(tmp_path):
    results, grid = KEPT / "cpu", load_grid(GRIDS / "cpu.yaml")
    experiments = [Experiment(grid, setting) for setting in settings_of(grid, tmp_path, results)]
    taken = [path for one in experiments for path in earlier_teachers(one)]
    assert taken and set(taken) == set(results.glob("*/teachers/*/teacher.safetensors"))
    for path in taken:
        folders = load_teacher(path).settings.extra["arguments"]
        assert not Path(folders[0]).is_absolute() and not Path(folders[-1]).is_absolute()


BOTH = {"dynamic", "tenth"}


@pytest.mark.parametrize(
    ("grid", "results", "taken"),
    [("transfer", "cpu", {"dynamic"}), ("transfer", "transfer", BOTH), ("transfer-lstm", "transfer", BOTH)],
)
def test_transfer_takes_teachers_in_results(tmp_path, grid, results, taken):
    grid = load_grid(GRIDS / f"{grid}.yaml")
    [setting] = settings_of(grid, tmp_path, KEPT / results)
    assert {path.parent.name for path in earlier_teachers(Experiment(grid, setting))} == taken


def test_the_record_of_an_earlier_teacher_outlives_its_folder(experiment):
    experiment.log("any").parent.mkdir(parents=True)
    lines = {
        name: {"teacher": name, "teacher_updates": 3, "student_updates": 12, "seconds": 4.5, "curve": []}
        for name in ("initial", "dynamic")
    }
    records = experiment.setting.folder / "teachers.jsonl"
    records.write_text("".join(json.dumps(line) + "\n" for line in lines.values()), encoding="utf-8")
    experiment.setting.teacher("initial").mkdir(parents=True)  # trained here
    Outcome([experiment]).write()
    assert read_teachers(experiment.setting.folder) == [
        {**lines["initial"], "teacher_updates": 0, "student_updates": 0, "seconds": 0},
        lines["dynamic"],
    ]


def test_both_grids_of_transfer_train_the_same_lstm():
    one, other = (load_grid(GRIDS / f"{name}.yaml") for name in ("transfer", "transfer-lstm"))
    assert one.students["lstm"] == other.students["lstm"] and one.teachers == other.teachers
    assert all(one.losses[name] == loss for name, loss in other.losses.items())
    assert (next(iter(one.corpora.values())).raw, next(iter(one.corpora.values())).vocabulary, one.noise) == (
        next(iter(other.corpora.values())).raw,
        next(iter(other.corpora.values())).vocabulary,
        other.noise,
    )
    assert not set(one.seeds) & set(other.seeds)


def test_a_teacher_that_was_damaged_since_is_told_before_its_students_begin_anew(experiment):
    folder = experiment.setting.teacher("dynamic")
    keep_teacher(folder)
    record = experiment.setting.data_bin / "prepared.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}", encoding="utf-8")
    path = folder / "teacher.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    refuse_damaged_teachers(experiment)  # not finished: its own training will see to it
    experiment.logs.mkdir()
    mark_done(experiment, "tiny.noise30.teacher.dynamic")
    with pytest.raises(BadInput, match=f"{path}: .*; put the file back as it was, or remove {folder} and .*done"):
        refuse_damaged_teachers(experiment)
    path.unlink()
    with pytest.raises(BadInput, match=str(path)):
        refuse_damaged_teachers(experiment)
    path.write_bytes(whole)
    refuse_damaged_teachers(experiment)

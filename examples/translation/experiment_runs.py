"""The finished runs and teachers of a grid as plain records, one JSON line each: all that a report is made of.

A setting has its records in its own folder, so that those of one machine and day can be kept, and put beside those of
another, without the checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from experiment_settings import Setting
from experiment_steps import Experiment
from grid import Loss, Student
from runs import read_run, teacher_lines
from steps import Step

from fairseq_l2t.pairs.parallel_text import BadInput, read_json, read_json_lines, write_lines

__all__ = ["Outcome", "read_records", "read_teachers", "refuse_kept_records"]

RUNS, TEACHERS = "runs.jsonl", "teachers.jsonl"
_CURVES = (
    "teacher_update",
    "student_update",
    "measure",
    "holdout_measure",
    "phi_mean",
    "hypergradient_norm",
    "adjoint_norm",
    "pull_by_tenth",
)


class Outcome:
    """Keeps hypotheses and records up to date while steps finish.

    Args:
        experiments: of the grid.
    """

    def __init__(self, experiments: Sequence[Experiment]) -> None:
        self._experiments = experiments
        self._decoded = {
            one.decoding.decoded(student, loss, seed): (one, student, loss, seed)
            for one in experiments
            for student in one.students
            for loss in one.grid.losses.values()
            for seed in one.grid.seeds
        }

    def note(self, step: Step) -> None:
        """Take in what a finished step has made."""
        if step.output in self._decoded:
            experiment, student, loss, seed = self._decoded[step.output]
            experiment.decoding.write_hypotheses(student, loss, seed)
        elif ".train." in step.name or ".compare." in step.name:
            self.write()

    def write(self) -> None:
        """Write a line for every finished run and every teacher, where the runs themselves are still there."""
        for experiment in self._experiments:
            folder = experiment.setting.folder
            if not experiment.has_logs:
                continue
            write_lines(folder / RUNS, (json.dumps(record) for record in [*_records(experiment), *_others(experiment)]))
            write_lines(folder / TEACHERS, (json.dumps(record) for record in _teachers(experiment)))


def refuse_kept_records(setting: Setting) -> None:
    """Refuse to run a setting in a folder that holds the records of runs, but not the runs: it would replace them.

    Raises:
        BadInput: naming the file.
    """
    for path in (setting.folder / RUNS, setting.folder / TEACHERS):
        if path.exists() and path.stat().st_size:
            raise BadInput(
                f"--output-dir: {path} holds records of runs that are kept without the runs; choose another "
                "folder, and --teachers for the teachers that are kept with them"
            )


def read_records(setting: Setting) -> list[dict]:
    """Return the records of a setting's runs; none where nothing was run.

    Raises:
        BadInput: a line is no JSON, or a value of it of another kind than experiment.py writes.
    """
    return _read(
        setting.folder / RUNS,
        {
            "student": str,
            "loss": str,
            "seed": int,
            "options": list,
            "counts": bool,
            "dev_bleu": (int, float),
            "best_update": int,
            "curve": list,
            "test": (dict, type(None)),
        },
    )


def read_teachers(setting: Setting) -> list[dict]:
    """Return the records of a setting's teachers; see `read_records`."""
    return _read(
        setting.folder / TEACHERS,
        {"teacher": str, "teacher_updates": int, "student_updates": int, "seconds": (int, float), "curve": list},
    )


def _read(path: Path, needed: Mapping[str, type | tuple[type, ...]]) -> list[dict]:
    expected = "expected a record that experiment.py wrote; remove the line, or take the file from where it is whole"
    records = read_json_lines(path, expected) if path.exists() else []
    for number, record in enumerate(records, 1):
        # Of a value that is not there the default, this very function, is of no kind that is needed.
        if not isinstance(record, dict) or not all(
            isinstance(record.get(key, _read), kind) for key, kind in needed.items()
        ):
            raise BadInput(f"{path}, line {number}: {record!r:.80}, {expected}")
    return records


def _records(experiment: Experiment) -> Iterator[dict]:
    first, *others = experiment.grid.seeds
    for student in experiment.students:
        for loss in experiment.grid.losses.values():
            trials = experiment.trials(student, loss)
            finished = [trial for trial in trials if experiment.is_finished(trial.name)]
            chosen = experiment.chosen(student, loss) if len(finished) == len(trials) else None
            for trial in finished:
                yield _record(experiment, student, loss, first, trial.name, trial.options, trial == chosen)
            for seed in others if chosen else ():
                name = experiment.run_name(student, loss, seed)
                if experiment.is_finished(name):
                    yield _record(experiment, student, loss, seed, name, chosen.options, True)


def _others(experiment: Experiment) -> Iterator[dict]:
    """Yield what was recorded of students and losses that this grid does not have, such as before it was changed."""
    students = {student.name for student in experiment.students}
    for record in read_records(experiment.setting):
        if record["student"] not in students or record["loss"] not in experiment.grid.losses:
            yield record


def _record(
    experiment: Experiment, student: Student, loss: Loss, seed: int, name: str, options: Sequence[str], counts: bool
) -> dict:
    run, setting = read_run(experiment.log(name)), experiment.setting
    best_update, dev_bleu = run.best
    decoding = experiment.decoding
    by_penalty = decoding.dev_scores(student, loss, seed) if counts else None
    return {
        "corpus": setting.corpus.name,
        "noise": setting.noise,
        "student": student.name,
        "loss": loss.name,
        "seed": seed,
        "run": name,
        "options": list(options),
        "counts": counts,
        "dev_bleu": dev_bleu,
        "best_update": best_update,
        "updates": run.updates,
        "seconds": run.seconds,
        "curve": run.curve,
        "diverged": run.diverged,
        "length_penalty": decoding.length_penalty(student, loss, seed) if counts else None,
        "dev_bleu_by_length_penalty": by_penalty and {f"{key:g}": score for key, score in by_penalty.items()},
        "test": _test_scores(experiment, student, loss, seed) if counts else None,
    }


def _test_scores(experiment: Experiment, student: Student, loss: Loss, seed: int) -> dict | None:
    """Return what l2t-compare says of the run's hypotheses, None before."""
    path = experiment.setting.comparison(student.name, seed)
    # One from before a learning rate was added may be of another trial than that which counts now.
    if not path.exists() or not experiment.decoding.is_compared(student, seed):
        return None
    comparison = read_json(path, "remove it and the .done file of its comparison, and run the grid again")
    systems = {system["name"]: system for system in comparison["systems"]}
    own = systems.get(experiment.setting.hypotheses(student.name, loss.name, seed).name)
    against = comparison["systems"][0]["name"].removeprefix(f"{student.name}.").removesuffix(f".seed{seed}.txt")
    if own is None:
        return None
    for metric in comparison["signatures"]:
        gain = own[metric]["score"] - comparison["systems"][0][metric]["score"]
        own[metric]["difference"] = None if against == loss.name else gain
    return {**own, "against": against, "signatures": comparison["signatures"]}


def _teachers(experiment: Experiment) -> Iterator[dict]:
    """Yield what each teacher has cost, in student updates and seconds, and its measures over teacher updates."""
    before = {record["teacher"]: record for record in read_teachers(experiment.setting)}
    for name in experiment.used_teachers:
        folder = experiment.setting.teacher(name)
        if name in before and not folder.exists():  # one of an earlier run, whose folder is not given this time
            yield before[name]
            continue
        lines = teacher_lines(folder)
        updates, reached = 0, {}
        for line in lines:
            life = line["student_life"]
            updates += line["student_update"] - reached.get(life, 0)
            reached[life] = line["student_update"]
        yield {
            "teacher": name,
            "teacher_updates": len(lines),
            "student_updates": updates,
            "seconds": sum(line["seconds"] for line in lines),
            "curve": [{key: line[key] for key in _CURVES} for line in lines],
        }

"""Writes the records of a translation grid while its steps finish."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from experiments.grid import Loss, Student
from experiments.plan.translation import Experiment
from experiments.programs.step import Step
from experiments.records.training_logs import read_run, teacher_lines
from experiments.records.translation import RUNS, TEACHERS, Record, read_records, read_teachers
from fairseq_l2t.pairs.parallel_text import read_json, write_lines

__all__ = ["Outcome"]

_CURVES = (
    *("teacher_update", "student_update", "measure", "holdout_measure"),
    *("phi_mean", "hypergradient_norm", "adjoint_norm", "pull_by_tenth"),
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
        """Take in the result of a finished step."""
        if step.output in self._decoded:
            experiment, student, loss, seed = self._decoded[step.output]
            experiment.decoding.write_hypotheses(student, loss, seed)
        elif ".train." in step.name or ".compare." in step.name:
            self.write()

    def write(self) -> None:
        """Write a line for every finished run and every teacher, where the runs themselves are still there."""
        for experiment in self._experiments:
            folder = experiment.setting.folder
            if experiment.has_logs:
                runs = [*_runs(experiment), *_runs_of_other_grids(experiment)]
                write_lines(folder / RUNS, map(json.dumps, runs))
                write_lines(folder / TEACHERS, map(json.dumps, list(_teachers(experiment))))


def _runs(experiment: Experiment) -> Iterator[Record]:
    first, *others = experiment.grid.seeds
    for student in experiment.students:
        for loss in experiment.grid.losses.values():
            trials = experiment.trials(student, loss)
            finished = [trial for trial in trials if experiment.is_finished(trial.name)]
            chosen = experiment.chosen(student, loss) if len(finished) == len(trials) else None
            for trial in finished:
                yield _run(experiment, student, loss, first, trial.name, trial.options, trial == chosen)
            for seed in others if chosen else ():
                name = experiment.run_name(student, loss, seed)
                if chosen and experiment.is_finished(name):
                    yield _run(experiment, student, loss, seed, name, chosen.options, True)


def _runs_of_other_grids(experiment: Experiment) -> Iterator[Record]:
    """Yield the records of students and losses that this grid does not have, such as before it was changed."""
    students = {student.name for student in experiment.students}
    for record in read_records(experiment.setting.folder):
        if record["student"] not in students or record["loss"] not in experiment.grid.losses:
            yield record


def _run(
    experiment: Experiment, student: Student, loss: Loss, seed: int, name: str, options: Sequence[str], counts: bool
) -> Record:
    run, setting, decoding = read_run(experiment.log(name)), experiment.setting, experiment.decoding
    best_update, dev_bleu = run.best
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


def _test_scores(experiment: Experiment, student: Student, loss: Loss, seed: int) -> Record | None:
    """Return the scores of the run's hypotheses by l2t-compare; None before."""
    path = experiment.setting.comparison(student.name, seed)
    # One from before a learning rate was added may be of another trial than that which counts now.
    if not path.exists() or not experiment.decoding.is_compared(student, seed):
        return None
    comparison = read_json(path, "remove it and the .done file of its comparison, and run the grid again")
    first, *_ = comparison["systems"]
    name = experiment.setting.hypotheses(student.name, loss.name, seed).name
    own: Record | None = next((system for system in comparison["systems"] if system["name"] == name), None)
    if own is None:
        return None
    for metric in comparison["signatures"]:
        gain = own[metric]["score"] - first[metric]["score"]
        own[metric]["difference"] = None if own is first else gain
    against = first["name"].removeprefix(f"{student.name}.").removesuffix(f".seed{seed}.txt")
    return {**own, "against": against, "signatures": comparison["signatures"]}


def _teachers(experiment: Experiment) -> Iterator[Record]:
    """Yield the cost of each teacher, in student updates and seconds, and its measures over teacher updates."""
    before = {record["teacher"]: record for record in read_teachers(experiment.setting.folder)}
    for name in experiment.used_teachers:
        folder = experiment.setting.teacher(name)
        if name in before and not folder.exists():  # one of an earlier run, whose folder is not given this time
            yield before[name]
            continue
        lines = teacher_lines(folder)
        last = {line["student_life"]: line["student_update"] for line in lines}
        yield {
            "teacher": name,
            "teacher_updates": len(lines),
            "student_updates": sum(last.values()),
            "seconds": sum(line["seconds"] for line in lines),
            "curve": [{key: line[key] for key in _CURVES} for line in lines],
        }

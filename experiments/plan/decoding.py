"""Decodings of a setting: dev, to choose a length penalty, the test set once a run, and comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import mean

from sacrebleu.metrics.bleu import BLEU

from experiments.grid import Loss, Student
from experiments.plan.command_lines import Words, generate, hypotheses_in_order, words
from experiments.plan.runs import Runs, run_of_seed
from experiments.programs.step import Step
from experiments.records.training_logs import read_run
from fairseq_l2t.pairs.parallel_text import read_lines, write_lines
from fairseq_l2t.pairs.prepare import reference_file
from fairseq_l2t.pairs.programs import StepFailed, console_script

__all__ = ["Decoding", "read_hypotheses"]


class Decoding:
    """The decodings of a setting, and the choices they make.

    Where the grid has several ``length_penalties``, every run that counts translates dev with each, and the test set
    with the one of the best dev BLEU, as it does with its best checkpoint. Beam search leaves sentences shorter after
    one loss than after another, and after one seed than after another (on Multi30k by up to 7 %): with one penalty for
    all, BLEU would compare its own brevity penalties.

    Args:
        runs: what is decoded.
    """

    def __init__(self, runs: Runs) -> None:
        self._runs, self._grid = runs, runs.grid
        self._scores: dict[tuple[Path, int], float] = {}
        penalties = self._grid.length_penalties
        self._tried: Sequence[float] = penalties if len(penalties) > 1 else ()

    def steps(self, students: Sequence[Student]) -> Iterator[Step]:
        """Yield the decodings of dev, of the test set, and the comparisons."""
        pairs, seeds = [(one, loss) for one in students for loss in self._grid.losses.values()], self._grid.seeds
        for student, loss in pairs:
            yield from (self._decode_dev(student, loss, seed, one) for seed in seeds for one in self._tried)
        for student, loss in pairs:
            yield from (self._decode_test(student, loss, seed) for seed in seeds)
        for student in students:
            yield from (self._compare(student, seed) for seed in seeds)

    # --- dev: the length penalty ------------------------------------------------------------------------------

    def _decode_dev(self, student: Student, loss: Loss, seed: int, penalty: float) -> Step:
        name = f"{run_of_seed(student, loss, seed)}.lenpen{penalty:g}"
        step = self._runs.step_name("dev", name)
        return self._generate(step, student, loss, seed, "valid", lambda: ("--lenpen", f"{penalty:g}"))

    def dev_scores(self, student: Student, loss: Loss, seed: int) -> dict[float, float] | None:
        """Return dev BLEU by length penalty; None where there is no choice, or before all decodings have finished."""
        found = {penalty: self._decode_dev(student, loss, seed, penalty) for penalty in self._tried}
        if not found or not all(step.is_done() for step in found.values()):
            return None
        return {penalty: self._score(self._output(step.name)) for penalty, step in found.items()}

    def length_penalty(self, student: Student, loss: Loss, seed: int) -> float | None:
        """Return the one with the best dev BLEU, the first of equals; None before it is known."""
        if not self._tried:
            return self._grid.length_penalties[0]
        scores = self.dev_scores(student, loss, seed)
        return None if scores is None else max(scores, key=scores.__getitem__)

    def _score(self, output: Path) -> float:
        # Asked again and again while steps wait for one another.
        key = (output, output.stat().st_mtime_ns)
        if key not in self._scores:
            setting = self._runs.setting
            reference = reference_file(setting.data_bin, "valid", setting.corpus.languages[1])
            hypotheses = read_hypotheses(output, reference)
            self._scores[key] = BLEU().corpus_score(hypotheses, [read_lines(reference)]).score
        return self._scores[key]

    # --- the test set -----------------------------------------------------------------------------------------

    def _decode_name(self, student: Student, loss: Loss, seed: int) -> str:
        return self._runs.step_name("decode", run_of_seed(student, loss, seed))

    def _decode_test(self, student: Student, loss: Loss, seed: int) -> Step:
        def penalty() -> Words:
            found = self.length_penalty(student, loss, seed)
            return () if self._grid.length_penalties == (1.0,) else ("--lenpen", f"{found:g}")

        after = tuple(self._decode_dev(student, loss, seed, one).name for one in self._tried)
        return self._generate(self._decode_name(student, loss, seed), student, loss, seed, "test", penalty, after)

    def decoded(self, student: Student, loss: Loss, seed: int) -> Path:
        """Return the file with the output of fairseq-generate for the test set."""
        return self._output(self._decode_name(student, loss, seed))

    def is_compared(self, student: Student, seed: int) -> bool:
        """Whether the comparison is of the decodings of the present grid, trials and length penalties."""
        one, losses = self._runs, self._grid.losses.values()
        comparison, decoded = self._compare(student, seed), self._compared(student, seed)
        # In this order: the command of a decoding of the test set is known once those of dev are there.
        return (
            comparison.marker.exists()
            and all(one.is_finished(trial.name) for loss in losses for trial in one.trials(student, loss))
            and all(self.length_penalty(student, loss, other) is not None for loss, other in decoded)
            and all(self._decode_test(student, loss, other).is_done() for loss, other in decoded)
            and comparison.is_done()
        )

    def _compared(self, student: Student, seed: int) -> list[tuple[Loss, int]]:
        """The runs that must be decoded before a comparison: all seeds of the baselines say which is the best."""
        own = [(loss, seed) for loss in self._grid.losses.values()]
        others = [other for other in self._grid.seeds if other != seed]
        return own + [(self._grid.losses[name], other) for name in self._grid.baselines for other in others]

    def write_hypotheses(self, student: Student, loss: Loss, seed: int) -> None:
        """Write the translation of the test set by a run, one sentence a line.

        Raises:
            StepFailed: hypotheses are missing.
        """
        setting = self._runs.setting
        path = setting.hypotheses(student.name, loss.name, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_lines(path, read_hypotheses(self.decoded(student, loss, seed), setting.reference))
        setting.comparison(student.name, seed).parent.mkdir(exist_ok=True)

    def baseline(self, student: Student) -> Loss:
        """Return the baseline with the best mean dev BLEU over the seeds, by the decodings the test set will have.

        Where dev is decoded to choose a length penalty, those decodings count; else the validations of training.
        """

        def dev_bleu(loss: Loss, seed: int) -> float:
            one, scores = self._runs, self.dev_scores(student, loss, seed)
            return max(scores.values()) if scores else read_run(one.log(one.run_name(student, loss, seed))).best[1]

        def mean_bleu(loss: Loss) -> float:
            return mean(dev_bleu(loss, seed) for seed in self._grid.seeds)

        return max((self._grid.losses[name] for name in self._grid.baselines), key=mean_bleu)

    def _compare(self, student: Student, seed: int) -> Step:
        one, setting = self._runs, self._runs.setting
        after = tuple(sorted(self._decode_name(student, loss, other) for loss, other in self._compared(student, seed)))
        files = words("--ref {} --json {}", setting.reference, setting.comparison(student.name, seed))

        def systems() -> Words:
            best = self.baseline(student).name
            paths = {name: str(setting.hypotheses(student.name, name, seed)) for name in self._grid.losses}
            return ("--baseline", paths.pop(best), "--systems", *paths.values())

        return Step(
            one.step_name("compare", f"{student.name}.seed{seed}"),
            (console_script("l2t-compare"), *files),
            one.logs,
            tuple(one.marker(name) for name in after),
            after,
            late=systems,
        )

    # --- both -------------------------------------------------------------------------------------------------

    def _generate(
        self,
        name: str,
        student: Student,
        loss: Loss,
        seed: int,
        split: str,
        penalty: Callable[[], Words],
        after: tuple[str, ...] = (),
    ) -> Step:
        one = self._runs
        runs = [run_of_seed(student, loss, seed)]
        if seed == self._grid.seeds[0]:  # the trials decide which run counts
            runs = [trial.name for trial in one.trials(student, loss)]
        waits = tuple(one.train_name(run) for run in runs)

        def late() -> Words:
            checkpoint = one.checkpoints(one.run_name(student, loss, seed)) / "checkpoint_best.pt"
            return ("--path", str(checkpoint), *penalty())

        return Step(
            name,
            generate(one.data, split, self._grid.beam, self._grid.length_limit),
            one.logs,
            tuple(one.marker(wait) for wait in waits),
            (*waits, *after),
            output=self._output(name),
            late=late,
        )

    def _output(self, step: str) -> Path:
        return self._runs.logs / f"{step}.out"


def read_hypotheses(output: Path, reference: Path) -> list[str]:
    """Read the output of fairseq-generate.

    Raises:
        StepFailed: it has not one hypothesis for each line of ``reference``.
    """
    lines, expected = hypotheses_in_order(output.read_text(encoding="utf-8").split("\n")), len(read_lines(reference))
    if len(lines) != expected:
        raise StepFailed(f"{output}: {len(lines)} hypotheses for {expected} sentences")
    return lines

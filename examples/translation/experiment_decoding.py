"""What students translate, as steps: dev, to choose a length penalty, the test set once a run, and comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from grid import Loss, Options, Student
from recipe import hypotheses_in_order
from runs import read_run
from sacrebleu.metrics import BLEU
from settings import LENGTH_LIMIT
from steps import Step

from fairseq_l2t.pairs.parallel_text import read_lines, write_lines
from fairseq_l2t.pairs.prepare import reference_file
from fairseq_l2t.pairs.programs import StepFailed, console_script

if TYPE_CHECKING:
    from experiment_steps import Experiment

__all__ = ["Decoding"]


class Decoding:
    """The decodings of a setting, and what is chosen by them.

    Where the grid has several ``length_penalties``, every run that counts translates dev with each, and the test set
    with the one of the best dev BLEU, as it does with its best checkpoint. Beam search leaves sentences shorter after
    one loss than after another, and after one seed than after another (on Multi30k by up to 7 %), so that with one
    penalty for all of them much of what BLEU compares is its own brevity penalty.

    Args:
        experiment: whose runs are decoded.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment, self._grid = experiment, experiment.grid
        self._scores: dict[tuple[Path, int], float] = {}

    def steps(self, students: Sequence[Student]) -> Iterator[Step]:
        """Yield the decodings of dev, of the test set, and the comparisons."""
        pairs = [(student, loss) for student in students for loss in self._grid.losses.values()]
        for student, loss in pairs:
            yield from (
                self._decode_dev(student, loss, seed, penalty) for seed in self._grid.seeds for penalty in self._tried
            )
        for student, loss in pairs:
            yield from (self._decode_test(student, loss, seed) for seed in self._grid.seeds)
        for student in students:
            yield from (self._compare(student, seed) for seed in self._grid.seeds)

    # --- dev: the length penalty ------------------------------------------------------------------------------

    @property
    def _tried(self) -> Sequence[float]:
        """The penalties that dev is decoded with; none where there is no choice."""
        return self._grid.length_penalties if len(self._grid.length_penalties) > 1 else ()

    def _dev_name(self, student: Student, loss: Loss, seed: int, penalty: float) -> str:
        return self._experiment.step_name("dev", f"{student.name}.{loss.name}.seed{seed}.lenpen{penalty:g}")

    def _decode_dev(self, student: Student, loss: Loss, seed: int, penalty: float) -> Step:
        name = self._dev_name(student, loss, seed, penalty)
        return self._generate(name, student, loss, seed, "valid", lambda: ("--lenpen", f"{penalty:g}"))

    def dev_scores(self, student: Student, loss: Loss, seed: int) -> dict[float, float] | None:
        """Return dev BLEU by length penalty; None where there is no choice, or before all decodings have finished."""
        found = {penalty: self._decode_dev(student, loss, seed, penalty) for penalty in self._tried}
        if not found or not all(step.is_done() for step in found.values()):
            return None
        return {penalty: self._score(step.output) for penalty, step in found.items()}

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
            setting = self._experiment.setting
            reference = reference_file(setting.data_bin, "valid", setting.corpus.languages[1])
            hypotheses = _hypotheses(output, reference)
            self._scores[key] = BLEU().corpus_score(hypotheses, [read_lines(reference)]).score
        return self._scores[key]

    # --- the test set -----------------------------------------------------------------------------------------

    def _decode_name(self, student: Student, loss: Loss, seed: int) -> str:
        return self._experiment.step_name("decode", f"{student.name}.{loss.name}.seed{seed}")

    def _decode_test(self, student: Student, loss: Loss, seed: int) -> Step:
        def penalty() -> Options:
            found = self.length_penalty(student, loss, seed)
            return () if self._grid.length_penalties == (1.0,) else ("--lenpen", f"{found:g}")

        after = tuple(self._dev_name(student, loss, seed, one) for one in self._tried)
        return self._generate(self._decode_name(student, loss, seed), student, loss, seed, "test", penalty, after)

    def decoded(self, student: Student, loss: Loss, seed: int) -> Path:
        """Return what fairseq-generate says of the test set."""
        return self._output(self._decode_name(student, loss, seed))

    def is_compared(self, student: Student, seed: int) -> bool:
        """Whether the comparison is of what would be decoded now: of the present grid, trials and length penalties."""
        one, losses = self._experiment, self._grid.losses.values()
        comparison, decoded = self._compare(student, seed), self._compared(student, seed)
        # In this order: what a decoding of the test set is called with is known once those of dev are there.
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
        """Write the test set as a run translates it, one sentence a line.

        Raises:
            StepFailed: hypotheses are missing.
        """
        setting = self._experiment.setting
        lines = _hypotheses(self.decoded(student, loss, seed), setting.reference)
        path = setting.hypotheses(student.name, loss.name, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_lines(path, lines)
        setting.comparison(student.name, seed).parent.mkdir(exist_ok=True)

    def baseline(self, student: Student) -> Loss:
        """Return the baseline with the best mean dev BLEU over the seeds, by what the test set is decoded with.

        Where dev is decoded to choose a length penalty, a loss has there what it will have on test; else validations
        say it.
        """

        def dev_bleu(loss: Loss, seed: int) -> float:
            one, scores = self._experiment, self.dev_scores(student, loss, seed)
            return max(scores.values()) if scores else read_run(one.log(one.run_name(student, loss, seed))).best[1]

        def mean_bleu(loss: Loss) -> float:
            return mean(dev_bleu(loss, seed) for seed in self._grid.seeds)

        return max((self._grid.losses[name] for name in self._grid.baselines), key=mean_bleu)

    def _compare(self, student: Student, seed: int) -> Step:
        setting = self._experiment.setting
        after = sorted(self._decode_name(student, loss, other) for loss, other in self._compared(student, seed))
        command = (
            console_script("l2t-compare"),
            "--ref",
            str(setting.reference),
            "--json",
            str(setting.comparison(student.name, seed)),
        )
        inputs = tuple(self._marker(name) for name in after)
        name = self._experiment.step_name("compare", f"{student.name}.seed{seed}")

        def systems() -> Options:
            best = self.baseline(student).name
            others = [name for name in self._grid.losses if name != best]
            return (
                "--baseline",
                str(setting.hypotheses(student.name, best, seed)),
                "--systems",
                *(str(setting.hypotheses(student.name, name, seed)) for name in others),
            )

        return Step(name, command, self._experiment.logs, inputs, tuple(after), late=systems)

    # --- both -------------------------------------------------------------------------------------------------

    def _generate(
        self,
        name: str,
        student: Student,
        loss: Loss,
        seed: int,
        split: str,
        more: Callable[[], Options],
        after: tuple[str, ...] = (),
    ) -> Step:
        one = self._experiment
        runs = [f"{student.name}.{loss.name}.seed{seed}"]
        if seed == self._grid.seeds[0]:  # the trials decide which run counts
            runs = [trial.name for trial in one.trials(student, loss)]
        waits = tuple(one.train_name(run) for run in runs)
        # --task translation: a taught student is an ordinary checkpoint and needs no plugin
        command = (
            console_script("fairseq-generate"),
            *one.data,
            "--task",
            "translation",
            "--gen-subset",
            split,
            "--beam",
            str(self._grid.beam),
            "--remove-bpe",
            "sentencepiece",
            "--batch-size",
            "64",
            # As in validations; without it a few sentences that repeat themselves cost one student 2 BLEU.
            "--max-len-a",
            str(LENGTH_LIMIT["max_len_a"]),
            "--max-len-b",
            str(LENGTH_LIMIT["max_len_b"]),
        )

        def late() -> Options:
            checkpoint = one.checkpoints(one.run_name(student, loss, seed)) / "checkpoint_best.pt"
            return ("--path", str(checkpoint), *more())

        return Step(
            name,
            command,
            one.logs,
            tuple(self._marker(run) for run in waits),
            (*waits, *after),
            output=self._output(name),
            late=late,
        )

    def _marker(self, step: str) -> Path:
        return self._experiment.logs / f"{step}.done"

    def _output(self, step: str) -> Path:
        return self._experiment.logs / f"{step}.out"


def _hypotheses(output: Path, reference: Path) -> list[str]:
    lines, expected = hypotheses_in_order(output.read_text(encoding="utf-8").split("\n")), len(read_lines(reference))
    if len(lines) != expected:
        raise StepFailed(f"{output}: {len(lines)} hypotheses for {expected} sentences")
    return lines

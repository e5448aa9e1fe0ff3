"""The run of an image grid."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments.grid import ImageGrid
from experiments.plan.images import ImageExperiment
from experiments.programs.step import Step
from experiments.report.images import write_report
from fairseq_l2t.pairs.parallel_text import BadInput

__all__ = ["ImageRun"]


class ImageRun:
    """See `run.GridRun`."""

    def __init__(self, grid: ImageGrid, options: argparse.Namespace) -> None:
        known = {setting.name: setting for setting in grid.settings}
        for name in options.settings or ():
            if name not in known:
                raise BadInput(f"--settings: {name!r}, expected some of {', '.join(known)}")
        self._output: Path = options.output_dir
        self._all, self._wanted = grid, options.settings
        self._experiment = ImageExperiment(options.grid, grid, options.output_dir, options.data_dir)

    def steps(self) -> list[Step]:
        """Return all steps, after a check of their options."""
        self._experiment.refuse_bad_options()
        steps = self._experiment.steps()
        return [
            one
            for one in steps
            if self._wanted is None or one.name.startswith(tuple(f"{name}." for name in self._wanted))
        ]

    def prepare(self, steps: Sequence[Step]) -> None:
        """Nothing: a cut line is removed when the next record is written."""

    def note(self, step: Step) -> None:
        """Nothing: students record themselves."""

    def report(self) -> None:
        """Write tables and plots, and print the tables."""
        write_report(self._all, self._output)

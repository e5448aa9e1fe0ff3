"""Display of runs of ``l2t-classify``: log lines, a bar on a terminal, and TensorBoard on request."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fairseq_l2t.classification.options import ImageRunOptions
from fairseq_l2t.teaching.options.declaration import OptionError
from fairseq_l2t.teaching.progress_display import StepDisplay, step_display
from fairseq_l2t.teaching.update_report import UpdateReport
from fairseq_l2t.teaching.work import RunWork

__all__ = ["RunProgress", "TeacherProgress", "run_progress", "teacher_progress"]

logger = logging.getLogger(__name__)


class RunProgress:
    """Shows numbers of a run.

    Args:
        steps: display of the updates.
        writer: of TensorBoard, or None.
    """

    def __init__(self, steps: StepDisplay, writer: Any) -> None:
        self.steps, self._writer = steps, writer

    def show(self, done: int, numbers: Mapping[str, float]) -> None:
        """Show that ``done`` updates are made, and what was measured."""
        logger.info("%d: %s", done, ", ".join(f"{name} {value:.4g}" for name, value in numbers.items()))
        if self._writer is not None:
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, done)


class TeacherProgress:
    """Shows a teacher training; see `teaching.run.Progress`."""

    def __init__(self, shown: RunProgress) -> None:
        self._shown = shown

    def show(self, report: UpdateReport, seconds: float, left: float) -> None:
        """Show one teacher update."""
        names = ("measure", "holdout_measure", "hypergradient_norm", "adjoint_norm", "phi_min", "phi_mean", "phi_max")
        found = {name: getattr(report, name) for name in names}
        numbers = {name: value for name, value in found.items() if value is not None}
        self._shown.show(report.teacher_update, {**numbers, "seconds": seconds})

    def step(self, work: RunWork) -> None:
        """Show one student update, or one step back."""
        self._shown.steps.show(work.share, work.place, work.seconds_left)


@contextmanager
def run_progress(options: ImageRunOptions) -> Iterator[RunProgress]:
    """Yield the display of a run.

    Raises:
        OptionError: TensorBoard is asked for and not installed.
    """
    writer = _tensorboard(options.tensorboard_logdir)
    try:
        with step_display(bar=not options.no_progress_bar) as steps:
            yield RunProgress(steps, writer)
    finally:
        if writer is not None:
            writer.close()


@contextmanager
def teacher_progress(options: ImageRunOptions) -> Iterator[TeacherProgress]:
    """Yield the display of a teacher training; raises as `run_progress`."""
    with run_progress(options) as shown:
        yield TeacherProgress(shown)


def _tensorboard(folder: str | None) -> Any:
    if folder is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise OptionError(f"--tensorboard-logdir: {folder}; needs pip install 'tensorboard>=2.14' ({error})") from error
    return SummaryWriter(folder)

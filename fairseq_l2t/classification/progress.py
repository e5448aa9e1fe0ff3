"""Display of runs of ``l2t-classify``: a bar on a terminal, log lines elsewhere, and TensorBoard on request."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from fairseq_l2t.classification.options import ImageRunOptions
from fairseq_l2t.teaching.options.declaration import OptionError
from fairseq_l2t.teaching.update_report import UpdateReport

__all__ = ["RunProgress", "TeacherProgress", "run_progress", "teacher_progress"]

logger = logging.getLogger(__name__)


class RunProgress:
    """Shows numbers of a run.

    Args:
        bar: a progress bar, or None for log lines.
        writer: of TensorBoard, or None.
    """

    def __init__(self, bar: tqdm[Any] | None, writer: Any) -> None:
        self._bar, self._writer = bar, writer

    def show(self, done: int, numbers: Mapping[str, float]) -> None:
        """Show that ``done`` updates are made, and what was measured."""
        text = {name: f"{value:.4g}" for name, value in numbers.items()}
        if self._bar is None:
            logger.info("%d: %s", done, ", ".join(f"{name} {value}" for name, value in text.items()))
        else:
            self._bar.set_postfix(text, refresh=False)
            self._bar.update(done - self._bar.n)
        if self._writer is not None:
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, done)


class TeacherProgress:
    """Shows a teacher training; see `teaching.run.Progress`."""

    def __init__(self, shown: RunProgress) -> None:
        self._shown = shown

    def show(self, report: UpdateReport, seconds: float, left: float) -> None:
        """Show one teacher update; a bar knows itself how long the rest takes."""
        names = ("measure", "holdout_measure", "hypergradient_norm", "adjoint_norm", "phi_min", "phi_mean", "phi_max")
        found = {name: getattr(report, name) for name in names}
        numbers = {name: value for name, value in found.items() if value is not None}
        self._shown.show(report.teacher_update, {**numbers, "seconds": seconds})


@contextmanager
def run_progress(options: ImageRunOptions, done: int, total: int, unit: str) -> Iterator[RunProgress]:
    """Yield what shows the updates from ``done`` to ``total``.

    Raises:
        OptionError: TensorBoard is asked for and not installed.
    """
    bar = None
    if not options.no_progress_bar and sys.stderr.isatty():
        bar = tqdm(total=total, initial=done, unit=f" {unit}", dynamic_ncols=True)
    writer = _tensorboard(options.tensorboard_logdir)
    try:
        yield RunProgress(bar, writer)
    finally:
        if bar is not None:
            bar.close()
        if writer is not None:
            writer.close()


@contextmanager
def teacher_progress(options: ImageRunOptions, done: int, total: int) -> Iterator[TeacherProgress]:
    """Yield what shows the teacher updates from ``done`` to ``total``; raises as `run_progress`."""
    with run_progress(options, done, total, "teacher updates") as shown:
        yield TeacherProgress(shown)


def _tensorboard(folder: str | None) -> Any:
    if folder is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise OptionError(
            f"--tensorboard-logdir: {folder}; needs pip install 'fairseq_l2t[inspection]' ({error})"
        ) from error
    return SummaryWriter(folder)

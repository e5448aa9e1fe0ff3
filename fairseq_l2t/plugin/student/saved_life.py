"""The values of a fairseq student's life in a run state."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fairseq_l2t.storage.schema import Count, FileValues
from fairseq_l2t.teaching.saved_state import StudentValues

__all__ = ["FairseqStudentValues"]

_LARGEST_RATE = 1e9
"""No student learns with a larger learning rate."""


class _Position(FileValues):
    """Place of the next batch (`plugin.student.data.TrainBatches.position`)."""

    epoch: Annotated[int, Field(ge=1, lt=2**31)]
    iterations_in_epoch: Count


class FairseqStudentValues(StudentValues):
    """The values of `plugin.student.fairseq_student.FairseqStudent.state_dict`."""

    previous_lr: Annotated[float, Field(ge=0, le=_LARGEST_RATE, allow_inf_nan=False)]
    position: _Position

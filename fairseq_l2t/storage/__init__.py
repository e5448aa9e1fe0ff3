"""Files: teachers, states of interrupted runs, atomic writing. No pickle anywhere."""

from fairseq_l2t.storage.atomic import remove_leftovers, write_atomically
from fairseq_l2t.storage.interruption import Interrupted, stop_requests
from fairseq_l2t.storage.kept_steps import PLACES, bytes_of, half_of_memory, memory_plan
from fairseq_l2t.storage.run_folder import RunFolderError, lock_run_folder
from fairseq_l2t.storage.run_state import RunStateError, load_run_state, save_run_state
from fairseq_l2t.storage.teacher_file import (
    FORMAT_VERSION,
    TeacherFile,
    TeacherFileError,
    TeacherSettings,
    Vocabulary,
    load_teacher,
    save_teacher,
    vocabulary_fingerprint,
)
from fairseq_l2t.storage.teaching_record import (
    ResumeError,
    TeachingRecord,
    refuse_other_options,
    saved_run,
    warn_of_bad_window,
)

__all__ = [
    "FORMAT_VERSION",
    "Interrupted",
    "PLACES",
    "ResumeError",
    "RunFolderError",
    "RunStateError",
    "TeacherFile",
    "TeacherFileError",
    "TeacherSettings",
    "TeachingRecord",
    "Vocabulary",
    "bytes_of",
    "half_of_memory",
    "load_run_state",
    "load_teacher",
    "lock_run_folder",
    "memory_plan",
    "refuse_other_options",
    "remove_leftovers",
    "save_run_state",
    "save_teacher",
    "saved_run",
    "stop_requests",
    "vocabulary_fingerprint",
    "warn_of_bad_window",
    "write_atomically",
]

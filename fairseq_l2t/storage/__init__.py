"""Files: teachers, states of interrupted runs, atomic writing, run folders. No file is a pickle."""

from fairseq_l2t.storage.atomic import remove_leftovers, write_atomically
from fairseq_l2t.storage.run_folder import RunFolderError, lock_run_folder
from fairseq_l2t.storage.run_state import RunStateError, has_run_state, load_run_state, save_run_state
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

__all__ = [
    "FORMAT_VERSION",
    "RunFolderError",
    "RunStateError",
    "TeacherFile",
    "TeacherFileError",
    "TeacherSettings",
    "Vocabulary",
    "has_run_state",
    "load_run_state",
    "load_teacher",
    "lock_run_folder",
    "remove_leftovers",
    "save_run_state",
    "save_teacher",
    "vocabulary_fingerprint",
    "write_atomically",
]

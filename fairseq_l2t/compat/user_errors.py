"""Invalid options, which fairseq's commands report as a crash.

Versions: fairseq 0.12.2. An error that a plugin raises for an invalid option or file leaves ``fairseq-train`` as thirty
lines of traceback and exit code 1, also from a worker process, whose traceback is repeated by the main one.
Without it fails: tests/end_to_end/test_bad_input.py::test_teacher_files_of_a_student.

This file is loaded by path, before the package may be imported.
"""

import functools
import importlib
import re
import sys
from types import ModuleType
from typing import Any

_MARK = "fairseq_l2t_reports_user_errors"
_PACKAGE = "fairseq_l2t"
_USAGE_ERROR = 2

# The last line of a worker's traceback, as torch.multiprocessing.ProcessRaisedException repeats it.
_LAST_LINE = re.compile(rf"^({_PACKAGE}(?:\.\w+)*)\.(\w+): (.+)\Z", re.MULTILINE)


def patch_command(command: ModuleType) -> None:
    """Make ``cli_main`` end with one line and exit code 2 for an error of this package's own classes.

    Those classes (subclasses of ValueError and OSError) say that an option or file is invalid. Other errors keep their
    traceback. ``command`` is a module of ``fairseq_cli``, just executed.
    """
    from torch.multiprocessing.spawn import ProcessRaisedException

    original = command.cli_main
    if hasattr(original, _MARK):
        return
    name = "fairseq-" + command.__name__.rpartition(".")[2].replace("_", "-")

    @functools.wraps(original)
    def cli_main(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except (ValueError, OSError, ProcessRaisedException) as error:
            message = _message(error)
            if message is None:
                raise
        print(f"{name}: error: {message}", file=sys.stderr)
        sys.exit(_USAGE_ERROR)

    setattr(cli_main, _MARK, True)
    command.cli_main = cli_main  # type: ignore[attr-defined]  # replaces a function of the module


def _message(error: Exception) -> str | None:
    """Return the text of a user error, raised here or in a worker process; None for another error."""
    if isinstance(error, ValueError | OSError):
        return str(error) if type(error).__module__.partition(".")[0] == _PACKAGE else None
    found = _LAST_LINE.search(str(error).rstrip())
    if found and issubclass(getattr(importlib.import_module(found[1]), found[2]), ValueError | OSError):
        return found[3]
    return None

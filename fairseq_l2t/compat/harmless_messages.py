"""Messages of fairseq and PyTorch at every start that no user of these commands can act on.

Versions: fairseq 0.12.2 with PyTorch 2.x. They hide the messages that matter: ``--help`` begins with ``Please install
tensorboardX``, and a run begins with deprecations of functions that fairseq calls.
Without it fails: tests/compat/test_harmless_messages.py::test_a_command_prints_no_message_of_the_libraries.

Only the commands of this package call it; other programs, and Python code that imports the package, see them all.
"""

import logging
import re
import sys
import warnings

HARMLESS_WARNINGS: dict[str, tuple[type[Warning], str]] = {
    "weight_norm": (FutureWarning, r"`torch\.nn\.utils\.weight_norm` is deprecated"),
    "backward_hooks": (FutureWarning, r"Using (a )?non-full backward hook"),
    "state_dict": (FutureWarning, r"Positional args are being deprecated, use kwargs instead"),
    "autocast": (FutureWarning, r"`torch\.cuda\.amp\.(autocast|GradScaler)\(args\.\.\.\)` is deprecated"),
    "masks": (UserWarning, r"Support for mismatched key_padding_mask and attn_mask is deprecated"),
    "pin_memory": (UserWarning, r"'pin_memory' argument is set as true but no accelerator is found"),
}
"""Category and beginning of each warning. The first four announce later releases of PyTorch, and results are the same.

``backward_hooks``: fairseq's hook in fconv clears a cache and does not read the gradients that it may lack.
``masks``: PyTorch converts one of the masks. ``pin_memory``: without an accelerator the option has no effect.
"""

HARMLESS_LOG_LINES: dict[str, str] = {"fairseq.tasks.text_to_speech": r"Please install tensorboardX"}
"""Logger and beginning of each log line. fairseq uses tensorboardX for speech synthesis only."""


def silence_harmless_messages() -> None:
    """Suppress the messages above; with ``python -W`` or PYTHONWARNINGS, only the log lines."""
    if not sys.warnoptions:
        for category, beginning in HARMLESS_WARNINGS.values():
            warnings.filterwarnings("ignore", beginning, category)
    for name, beginning in HARMLESS_LOG_LINES.items():
        logging.getLogger(name).addFilter(_BeginsOtherwise(beginning))


class _BeginsOtherwise(logging.Filter):
    def __init__(self, beginning: str) -> None:
        super().__init__()
        self._beginning = re.compile(beginning)

    def filter(self, record: logging.LogRecord) -> bool:
        return self._beginning.match(record.getMessage()) is None

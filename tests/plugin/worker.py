"""One worker of a ``fairseq-train`` of several: writes what its teacher saw and said at each update, as JSON lines.

python -m tests.plugin.worker OUTPUT [options of fairseq-train]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fairseq_cli.train import cli_main

from fairseq_l2t.plugin.frozen_teacher import FrozenTeacher


def main(output: str) -> None:
    """Run fairseq-train on ``sys.argv`` and record every call for coefficients."""
    original = FrozenTeacher.prepare

    def prepare(self, update, *where):
        original(self, update, *where)
        phi = None if self.coefficients is None else self.coefficients.tolist()
        log.write(json.dumps([update, self._state.state_dict(), phi]) + "\n")

    FrozenTeacher.prepare = prepare
    with Path(output).open("w", encoding="utf-8") as log:
        cli_main()


if __name__ == "__main__":
    main(sys.argv.pop(1))

"""Commands in processes forked from one that has imported fairseq: real processes, without seconds of importing.

The interruptions and refusals need dozens of processes. What a fork could hide, a command that only works after other
imports, is left to the tests that start the console scripts themselves.
"""

import importlib
import multiprocessing
import os
import runpy
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_ENTRY_POINTS = {
    "l2t-doctor": ("fairseq_l2t.cli.doctor", "main"),
    "l2t-train-teacher": ("fairseq_l2t.cli.train_teacher", "main"),
    "l2t-classify": ("fairseq_l2t.cli.classify", "main"),
    "fairseq-train": ("fairseq_cli.train", "cli_main"),
    "fairseq-hydra-train": ("fairseq_cli.hydra_train", "cli_main"),
    "fairseq-validate": ("fairseq_cli.validate", "cli_main"),
    "fairseq-preprocess": ("fairseq_cli.preprocess", "cli_main"),
    "fairseq-generate": ("fairseq_cli.generate", "cli_main"),
    "l2t-average": ("fairseq_l2t.cli.average", "main"),
}
_TIME_LIMIT = 240
_CONTEXT = multiprocessing.get_context("forkserver")
# The commands first: the first import that sets logging up decides where it goes, as in the commands themselves.
_CONTEXT.set_forkserver_preload([*(module for module, _ in _ENTRY_POINTS.values()), "fairseq_l2t.plugin.teacher_run"])


@dataclass
class Running:
    """A command under way; ``stdout`` and ``stderr`` can be read at any time."""

    process: multiprocessing.Process
    folder: Path
    name: str

    @property
    def stdout(self):
        return (self.folder / f"{self.name}.out").read_text(encoding="utf-8")

    @property
    def stderr(self):
        return (self.folder / f"{self.name}.err").read_text(encoding="utf-8")

    @property
    def is_alive(self):
        return self.process.is_alive()

    def signal(self, number):
        os.kill(self.process.pid, number)

    def wait_until(self, is_reached):
        """Poll often, so that what follows hits the run soon after; fails when the run ends or takes too long."""
        limit = time.monotonic() + _TIME_LIMIT
        while not is_reached():
            assert self.is_alive, f"ended early with {self.process.exitcode}\n{self.stdout}\n{self.stderr}"
            assert time.monotonic() < limit, f"nothing in {_TIME_LIMIT} s\n{self.stdout}\n{self.stderr}"
            time.sleep(0.002)

    def end(self, expect=0):
        """Wait for the end, check the exit code (negative: killed by that signal; None: any), return self."""
        self.process.join(_TIME_LIMIT)
        if self.is_alive:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"{self.name}: killed after {_TIME_LIMIT} s\n{self.stdout}\n{self.stderr}")
        code = self.process.exitcode
        assert expect in (None, code), f"{self.name}: exit code {code}, not {expect}\n{self.stdout}\n{self.stderr}"
        return self


def start(command, arguments, folder, name=None):
    """Start a command, or ``python -m`` of a module, in the working folder ``folder``; return it `Running`.

    Its output goes into files beside that folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    outputs = folder.parent / f"{folder.name}.output"
    outputs.mkdir(exist_ok=True)
    name = name or f"{len(list(outputs.iterdir())) // 2}.{command}"
    files = [outputs / f"{name}.{ending}" for ending in ("out", "err")]
    for path in files:
        path.touch()
    process = _CONTEXT.Process(target=_run, args=(command, list(map(str, arguments)), folder, files))
    process.start()
    return Running(process, outputs, name)


def run(command, arguments, folder, expect=0):
    """Start a command, wait for its end and check its exit code."""
    return start(command, arguments, folder).end(expect)


def _run(command, arguments, folder, files):
    for descriptor, path in zip((1, 2), files, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_TRUNC), descriptor)
    os.chdir(folder)
    # A suite started in the background inherits an ignored SIGINT; a command at a terminal does not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [command, *arguments]
    import torch

    torch.set_num_threads(1)
    if command not in _ENTRY_POINTS:
        runpy.run_module(command, run_name="__main__", alter_sys=True)
        return
    module, function = _ENTRY_POINTS[command]
    sys.exit(getattr(importlib.import_module(module), function)())

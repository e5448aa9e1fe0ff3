"""The command line: ``python -m experiments COMMAND``; each command is a file of ``commands``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from experiments.programs.entry import run_program
from fairseq_l2t.cli.entry import version_of

__all__ = ["main"]

_COMMANDS = {
    "run": "do what is left of a grid, and report",
    "report": "write tables and plots of the records that are there",
    "recipe": "run one experiment with three students on prepared data",
    "gradient-share": "measure the share of the gradient that misaligned pairs get",
    "image-students": "train the students of one loss of an image grid; `run` starts it",
    "synthetic-cifar": "write made-up images in the format of CIFAR",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="experiments", description="Grids of experiments, for translation and images."
    )
    parser.add_argument("--version", action="version", version=version_of(parser.prog))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, allow_abbrev=False)
        if name in arguments[:1]:  # those of the others would be imported for nothing, with all their libraries
            module = importlib.import_module(f"experiments.commands.{name.replace('-', '_')}")
            command.description = str(module.__doc__).partition("\n")[0]
            module.add_options(command)
    options = parser.parse_args(arguments)
    if getattr(options, "jobs", 1) < 1:
        parser.error(f"--jobs: {options.jobs}, expected at least 1")
    return run_program("experiments", lambda: module.run(options))


if __name__ == "__main__":
    sys.exit(main())

"""Writes tables and plots of the records that are there; runs nothing.

python -m experiments report experiments/grids/translation/cpu.yaml --output-dir experiments/kept/translation/cpu
"""

from __future__ import annotations

import argparse

from experiments.commands.run import add_grid_options, grid_run

__all__ = ["add_options", "run"]

add_options = add_grid_options


def run(options: argparse.Namespace) -> None:
    """Report. It may be wanted during a run, and with a grid that was changed: it reads records and changes none.

    Raises:
        BadInput: there are no records, or one of them is damaged.
    """
    grid_run(options).report()

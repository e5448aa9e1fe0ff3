"""Shared by the training commands: their log, exit codes, and signals that arrive before a run handles them."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

__all__ = ["RUN_ERROR", "USAGE_ERROR", "fail", "run_command", "run_training"]

USAGE_ERROR, RUN_ERROR = 2, 1


def run_command(name: str, run: Callable[[Sequence[str]], int], arguments: Sequence[str] | None) -> int:
    """Return the exit code of ``run``, or 128 + SIGINT; logs go to stdout, fairseq's way.

    Args:
        name: of the command.
        run: is called with the arguments.
        arguments: those of the command; None: the program's own.
    """
    logging.basicConfig(
        format="%(asctime)s | %(levelname)s | %(name)s | %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        # Of the processes that torchrun starts, the first one tells what all do.
        level=os.environ.get("LOGLEVEL", "INFO").upper() if rank_of_torchrun() == 0 else logging.ERROR,
        stream=sys.stdout,
    )
    try:
        return run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # outside of updates: those handle the signal themselves
        print(f"{name}: stopped by SIGINT outside of an update", file=sys.stderr)
        return 128 + signal.SIGINT


def run_training(name: str, train: Callable[[], object]) -> int:
    """Return the exit code of a training that `run_command` runs, each failure told in one line on stderr.

    Args:
        name: of the command.
        train: raises what a training raises.
    """
    from fairseq_l2t.kernels.twice_differentiable import NotTwiceDifferentiableError
    from fairseq_l2t.teaching.interruption import Interrupted
    from fairseq_l2t.teaching.processes import WorkerError
    from fairseq_l2t.unroll.student import NonFiniteError

    try:
        train()
    except Interrupted as stop:
        print(f"{name}: {stop}", file=sys.stderr)
        return stop.exit_code
    except (NonFiniteError, WorkerError) as error:
        return fail(name, error, RUN_ERROR)
    except BrokenPipeError:  # the reader of stdout has gone, as in `... --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    # ValueError: options, data, teacher files and run states that cannot be used; OSError: paths.
    except (ValueError, OSError, NotTwiceDifferentiableError) as error:
        return fail(name, error, USAGE_ERROR)
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # how torch reports it on a CPU
            raise
        return fail(name, f"not enough memory: {str(error).splitlines()[0]}", RUN_ERROR)
    except Exception as error:
        if type(error) is not Exception:
            raise
        return fail(name, error, USAGE_ERROR)  # fairseq's way to say that data cannot be used
    return 0


def fail(name: str, error: Exception | str, code: int) -> int:
    """Print what went wrong on stderr, in one line; return ``code``."""
    process = f"process {rank_of_torchrun()}: " if rank_of_torchrun() else ""
    print(f"{name}: error: {process}{error}", file=sys.stderr)
    return code


def rank_of_torchrun() -> int:
    """Return the number of this process among those that torchrun started; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))

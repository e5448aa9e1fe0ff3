"""Training in several processes without a GPU: fairseq starts none, trains nothing and ends with exit code 0.

Versions: fairseq 0.12.2. With ``--distributed-init-method`` and without ``--distributed-no-spawn`` it starts as many
processes as there are GPUs, also for ``--cpu``; without a GPU that is no process. Without
``--distributed-init-method`` an assertion ends it, which names no option.
Without it fails: tests/compat/test_process_spawning.py::test_no_process_is_no_success.

This file is loaded by path, before the package may be imported.
"""

import functools
from types import ModuleType
from typing import Any, NoReturn

_MARK = "fairseq_l2t_refuses_no_process"


class NoProcessError(ValueError):
    """Options with which no process would be trained; the message names them and options that work."""

    __module__ = (
        "fairseq_l2t.compat.process_spawning"  # its public place: this file has another name where it is loaded
    )


def patch_call_main(utils: ModuleType) -> None:
    """Refuse a distributed training that would start no process. ``utils`` is ``fairseq.distributed.utils``."""
    original = utils.call_main
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def call_main(cfg: Any, main: Any, **kwargs: Any) -> Any:
        import torch

        chosen = cfg.distributed_training
        spawns = chosen.distributed_init_method is not None and not chosen.distributed_no_spawn
        if spawns and min(torch.cuda.device_count(), chosen.distributed_world_size) < 1:
            _refuse(f"--distributed-init-method: {chosen.distributed_init_method}", chosen.distributed_world_size)
        try:
            return original(cfg, main, **kwargs)
        except AssertionError as error:
            if not str(error).startswith("world size is"):
                raise
        _refuse(f"--distributed-world-size: {chosen.distributed_world_size}", chosen.distributed_world_size)

    setattr(call_main, _MARK, True)
    utils.call_main = call_main  # type: ignore[attr-defined]  # replaces a function of the module


def _refuse(given: str, size: int) -> NoReturn:
    processes = max(1, size)
    raise NoProcessError(
        f"{given}; fairseq starts one process for each GPU, and there are fewer GPUs than that; give --update-freq "
        f"{processes} for updates of the same size in one process, or start {processes} processes without this option: "
        f"torchrun --nproc-per-node {processes} $(which fairseq-train) ... --cpu --distributed-backend gloo "
        "--ddp-backend legacy_ddp"
    )

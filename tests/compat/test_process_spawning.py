"""A training that would start no process is refused; stock fairseq ends with success, having trained nothing."""

import pytest
import torch
from fairseq.distributed import utils
from omegaconf import OmegaConf

from fairseq_l2t.compat.process_spawning import patch_call_main

COMMANDS = "--update-freq 2 .*torchrun --nproc-per-node 2 .*--cpu --distributed-backend gloo"


def configuration(**given):
    """The part of fairseq's configuration that decides how many processes start."""
    chosen = {
        "distributed_init_method": None,
        "distributed_no_spawn": False,
        "distributed_world_size": 2,
        "distributed_rank": 0,
        "distributed_port": -1,
        "pipeline_model_parallel": False,
        "tpu": False,
        "device_id": 0,
    }
    return OmegaConf.create({"distributed_training": {**chosen, **given}, "common": {"cpu": True, "tpu": False}})


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)


def test_no_process_is_no_success():
    trained = []
    spawning = {"distributed_init_method": "tcp://localhost:1"}
    with pytest.raises(ValueError, match=f"^--distributed-init-method: tcp://localhost:1; .*{COMMANDS}"):
        utils.call_main(configuration(**spawning), trained.append)
    with pytest.raises(ValueError, match=f"^--distributed-world-size: 2; .*{COMMANDS}"):
        utils.call_main(configuration(), trained.append)
    stock = utils.call_main.__wrapped__
    assert stock(configuration(**spawning), trained.append) is None and not trained  # the control


def test_other_trainings_are_left_alone(monkeypatch):
    trained = []
    utils.call_main(configuration(distributed_world_size=1), trained.append)
    assert len(trained) == 1  # one process: no process is started

    def fails(cfg):
        raise AssertionError("of the training")

    with pytest.raises(AssertionError, match="of the training"):
        utils.call_main(configuration(distributed_world_size=1), fails)
    started = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.multiprocessing, "spawn", lambda **options: started.append(options["nprocs"]))
    utils.call_main(configuration(distributed_init_method="tcp://localhost:1"), trained.append)
    assert started == [2]


def test_a_second_patch_changes_nothing():
    before = utils.call_main
    patch_call_main(utils)
    assert utils.call_main is before

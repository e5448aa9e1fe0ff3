"""Several workers of one ``fairseq-train``: the same state and the same coefficients on each."""

import json
import os
import socket
import subprocess
import sys

import pytest

from tests.plugin.taught import symbols_of, task_arguments, write_teacher

pytestmark = pytest.mark.slow
WORKERS = 2
UPDATES = 20
TOGETHER = [
    *("--cpu", "--ddp-backend", "legacy_ddp", "--distributed-backend", "gloo", "--distributed-no-spawn"),
    *("--distributed-world-size", str(WORKERS), "--no-save", "--no-progress-bar", "--validate-interval-updates", "7"),
    *("--eval-bleu", "--eval-bleu-args", '{"beam": 1, "max_len_a": 1, "max_len_b": 10}'),
]


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def test_same_coefficients_on_every_worker(data_bin, tmp_path, repository):
    teacher = tmp_path / "teacher.safetensors"
    write_teacher(teacher, symbols_of(data_bin), with_bleu=True)
    arguments = task_arguments(data_bin, "--teacher-path", str(teacher), "--user-dir", "fairseq_l2t", *TOGETHER)
    # Even with --no-save fairseq makes the folder.
    arguments += ["--distributed-init-method", f"tcp://127.0.0.1:{free_port()}", "--save-dir", str(tmp_path / "none")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (tmp_path / "errors").open("w+", encoding="utf-8") as errors:
        processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.plugin.worker",
                    str(tmp_path / f"seen{rank}"),
                    *arguments,
                    "--distributed-rank",
                    str(rank),
                ],
                cwd=repository,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            for rank in range(WORKERS)
        ]
        try:
            codes = [process.wait(240) for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert codes == [0] * WORKERS, (tmp_path / "errors").read_text(encoding="utf-8")
    first, second = ((tmp_path / f"seen{rank}").read_text(encoding="utf-8") for rank in range(WORKERS))
    assert first == second
    lines = [json.loads(line) for line in first.splitlines()]
    assert {update for update, _, _ in lines} == set(range(UPDATES))
    # There was something to disagree about: the measures have moved, and the coefficients with them.
    assert all(lines[-1][1][name] != lines[0][1][name] for name in ("train_loss", "train_accuracy", "dev_loss"))
    coefficients = [phi for _, _, phi in lines if phi is not None]
    assert coefficients[0] != coefficients[-1]

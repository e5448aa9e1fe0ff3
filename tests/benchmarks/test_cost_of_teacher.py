"""The benchmark of a student under a teacher: real runs of fairseq-train that take turns."""

import json
import statistics

import psutil
import pytest

LOSSES = ["label_smoothed_cross_entropy", "dynamic_teacher_loss", "label_smoothed_cross_entropy, again"]
SMALL = ["overhead", "--families", "transformer", "--vocabulary", "50", "--max-tokens", "200", "--warmup", "1"]
SMALL += ["--updates", "2", "--repeats", "2"]


@pytest.mark.slow
def test_each_loss_is_measured_in_turn(benchmark, tmp_path):
    path = tmp_path / "overhead.json"
    shown = benchmark("cost", *SMALL, "--json", path).stdout
    (record,) = json.loads(path.read_text("utf-8"))
    assert list(record["seconds"]) == LOSSES
    assert all(len(own) == 2 and min(own) > 0 for own in record["seconds"].values())
    # The ratios are those to fairseq's loss; its own is 1.
    base, taught = (record["seconds"][loss] for loss in LOSSES[:2])
    rows = [line for line in shown.splitlines() if line.startswith("| transformer | ")]
    ratios = [own / other for own, other in zip(taught, base, strict=True)]
    assert "| 1.000 " in rows[0] and "1.000 (1.000 to 1.000)" in rows[0]
    assert f"| {statistics.median(taught) / statistics.median(base):.3f} " in rows[1]
    assert f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})" in rows[1]


@pytest.mark.slow
def test_a_process_that_fails_ends_the_measurement(start_benchmark):
    running = start_benchmark("cost", *SMALL)
    program = psutil.Process(running.process.pid)

    def trainings():
        return [one for one in program.children() if "spawn_main" in " ".join(one.cmdline())]

    running.wait_until(trainings)
    started = trainings()[0]
    started.kill()
    assert "error: fairseq-train ended with exit code -9; " in running.end(1).stderr
    assert not started.is_running()


def test_options_out_of_range(benchmark):
    assert "--repeats: 0; expected at least 1" in benchmark("cost", "overhead", "--repeats", "0", expect=2).stderr

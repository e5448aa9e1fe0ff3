"""The benchmark of the objective: its parts are timed inside the whole, and it measures what it says."""

import argparse
import json
import time
from types import SimpleNamespace

import pytest

from benchmarks import objective
from benchmarks.objective import PARTS, Clock, main, measure_family, summary
from fairseq_l2t.plugin import FairseqStudent

SMALL = argparse.Namespace(updates=2, repeats=2, pairs=6, samples=3, estimator="reinforce", max_tokens=100)


def test_parts_are_within_the_objective_and_it_within_the_update(data_bin):
    records = list(measure_family(data_bin, "transformer", SMALL))
    assert [record["student_update"] for record in records] == [22, 24]
    for record in records:
        assert all(record[part] > 0 for part in PARTS)
        assert sum(record[part] for part in PARTS) < record["objective"] < record["update"]
        assert 0 <= record["value"] <= 1


METHODS = {"draw": "draw", "reward": "hypothesis_text", "score": "hypothesis_log_probs", "update": "finish_update"}


@pytest.mark.parametrize("slow", METHODS)
def test_what_is_slow_shows(data_bin, monkeypatch, slow):
    # On a clock that only the slow method moves.
    now, original = [0.0], getattr(FairseqStudent, METHODS[slow])

    def delayed(*arguments):
        now[0] += 1
        return original(*arguments)

    monkeypatch.setattr(FairseqStudent, METHODS[slow], delayed)
    monkeypatch.setattr(objective, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    options = argparse.Namespace(**{**vars(SMALL), "repeats": 1})
    (record,) = measure_family(data_bin, "transformer", options)
    seconds = {name: record[name] for name in METHODS}
    assert seconds.pop(slow) > 0
    assert record["objective"] == (0 if slow == "update" else record[slow])
    assert seconds.pop("update", record["objective"]) == record["objective"]
    assert set(seconds.values()) == {0}


def test_a_clock_adds_up():
    clock = Clock()
    for _ in range(2):
        with clock.time("a"):
            time.sleep(0.01)
    assert clock.timed("b", max)(2, 3) == 3
    assert clock.seconds["a"] > 0.02 > clock.seconds["b"] > 0


def test_summary_shows_median_range_and_share():
    records = [
        {"family": "lstm", "draw": 1, "reward": 2, "score": 3, "objective": 6 + more, "update": 24} for more in range(3)
    ]
    lines = summary(records).splitlines()
    assert "7.00 (6.00 to 8.00)" in lines[5]
    assert "29.17 (25.00 to 33.33)" in lines[7]


def test_the_command_writes_records(data_bin, tmp_path, capsys):
    path = tmp_path / "objective.jsonl"
    small = ["--families", "fconv", "--updates", "1", "--pairs", "3", "--samples", "2", "--repeats", "1"]
    assert main([*small, "--data", str(data_bin), "--json", str(path)]) == 0
    (record,) = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert record["family"] == "fconv"
    assert "| share of the update, % " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--samples", "1"])
    assert "--samples: 1; expected at least 2" in capsys.readouterr().err

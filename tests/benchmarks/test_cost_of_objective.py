"""The benchmark of the objective: its parts are timed inside the whole, and the table summarises the records."""

import json
import statistics

PARTS = ("draw", "reward", "score")


def test_parts_are_within_the_objective_and_it_within_the_update(benchmark, data_bin, tmp_path):
    path = tmp_path / "objective.jsonl"
    small = ["--families", "transformer", "--updates", "2", "--repeats", "2", "--pairs", "6", "--samples", "3"]
    small += ["--max-tokens", "100", "--data", data_bin, "--json", path]
    shown = benchmark("cost", "objective", *small).stdout
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [record["family"] for record in records] == ["transformer"] * 2
    assert [record["student_update"] for record in records] == [22, 24]
    for record in records:
        assert all(record[part] > 0 for part in PARTS)
        assert sum(record[part] for part in PARTS) < record["objective"] < record["update"]
        assert 0 <= record["value"] <= 1
    # Medians, ranges and the share, from the records.
    totals = [record["objective"] for record in records]
    shares = [100 * record["objective"] / record["update"] for record in records]
    for title, values in (("objective in all, s", totals), ("share of the update, %", shares)):
        (row,) = (line for line in shown.splitlines() if line.startswith(f"| {title}"))
        assert f"| {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})" in row


def test_options_out_of_range(benchmark):
    assert "--samples: 1; expected at least 2" in benchmark("cost", "objective", "--samples", "1", expect=2).stderr

"""The program that measures truncation; sweeps and comparisons are tested in tests/testing/test_truncation.py."""

import json

PNG = b"\x89PNG\r\n\x1a\n"


def test_the_program_writes_records_tables_and_a_plot(repository, run_command, benchmark, data_bin, tmp_path):
    records, plot = tmp_path / "t.jsonl", tmp_path / "t.png"
    small = ["--families", "transformer", "--updates", "4", "--starts", "0", "5", "--seeds", "1", "--data", data_bin]
    command = ["python", "-m", "benchmarks.truncation.run", *small, "--objective", "likelihood"]
    result = run_command([*command, "--json", records, "--plot", plot], cwd=repository)
    rows = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    assert [(row["start"], [w["window"] for w in row["windows"]]) for row in rows] == [(0, [1, 2, 4]), (5, [1, 2, 4])]
    assert all(len(row["adjoint_norms"]) == 5 and row["horizons"][0]["window"] == 1 for row in rows)
    assert "| transformer, likelihood |" in result.stdout
    assert "nan" not in result.stdout
    assert plot.read_bytes().startswith(PNG)
    assert benchmark("truncation", "--report", records).stdout == result.stdout


def test_starts_too_close_are_refused(benchmark):
    error = benchmark("truncation", "--updates", "40", "--starts", "0", "30", expect=2).stderr
    assert "--starts: [0, 30]; expected" in error

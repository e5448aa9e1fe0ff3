"""The benchmarks of unrolled steps: small runs, resuming, refusals, and a table that can say WRONG."""

import json
import signal

import pytest

PNG = b"\x89PNG\r\n\x1a\n"
MEBI = 2**20
PLAIN = "plain-updates"
SETTINGS = {"device": "cpu", "threads": 1, "max_tokens": 1000}
BUDGETS = {"ours-budget": 2**29, "ours-graphs": 2**32}
FAMILIES = ("lstm", "fconv", "transformer")
NO_TIME = ["--timeout", "0"]
"""Every cell that is measured fails at once, and says so in its record."""


def record(competitor, updates, *, family="lstm", seconds=1.0, peak=400, error=1e-5, repeat=0, **more):
    parts = {"unroll": seconds} if competitor == PLAIN else {"unroll": seconds, "reverse": seconds, "objective": 0.1}
    cell = {"size": "small", "family": family, "updates": updates, "competitor": competitor, "repeat": repeat}
    budget = {"budget": BUDGETS[competitor]} if competitor in BUDGETS else {}
    found = {"status": "ok", "seconds": parts, "cpu_seconds": parts, "peak": peak * MEBI, "parameters": 1000}
    found |= {} if competitor == PLAIN else {"before": 300 * MEBI, "error": error, "recomputed": 0}
    about = {"machine": {"device": "a processor", "cores": 2, "torch": "2"}}
    return {**cell, **SETTINGS, **budget, **found, **about, **more}


def write(path, records):
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return path


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_a_small_run(benchmark, data_bin, tmp_path):
    path, plot = tmp_path / "cells.jsonl", tmp_path / "plot.png"
    # T = 8: a loss reaches Adam's first update, g / (|g| + eps), by its smallest parts alone, and those are float32's
    # rounding: by processor, the error is 0.014 to 0.016 at T = 2, 0.003 at T = 8.
    arguments = ["unroll", "--sizes", "tiny", "--families", "transformer", "--updates", "8", "--repeats", "1"]
    arguments += ["--max-tokens", "200", "--competitors", PLAIN, "ours-gradients", "plain-autograd"]
    arguments += ["--data", data_bin, "--json", path, "--plot", plot]
    shown = benchmark("cost", *arguments).stdout
    plain, ours, autograd = read(path)
    assert [r["status"] for r in (plain, ours, autograd)] == ["ok"] * 3
    assert ours["error"] == 0 < autograd["error"] < 1e-2
    assert plain["seconds"]["unroll"] > 0 and set(ours["seconds"]) == {"unroll", "objective", "reverse"}
    assert all(one["peak"] > 50 * MEBI for one in (plain, ours, autograd))
    assert "**transformer, tiny, T = 8**" in shown and "| plain-autograd (best peer) |" in shown
    assert plot.read_bytes().startswith(PNG)
    # Nothing is measured again; the report of the file is the same.
    before = path.read_bytes()
    for more in (["--resume", *NO_TIME], ["--report", path]):
        assert benchmark("cost", *arguments, *more).stdout == shown
        assert path.read_bytes() == before
    # Control: another T has no record.
    benchmark("cost", *arguments, "--resume", *NO_TIME, "--updates", "3")
    assert [one["status"] for one in read(path)[3:]] == ["no recording: no answer within 0 s"] * 3


def test_a_wrong_hypergradient_is_no_best_peer(benchmark, tmp_path):
    fast = {"seconds": 0.5, "repeat": 0}
    records = []
    for family, error in zip(FAMILIES, (1e-5, 0.02, float("nan")), strict=True):
        own = [record(PLAIN, 20, family=family), record("ours", 20, family=family, error=0.0)]
        own += [record("plain-autograd", 20, family=family), record("torchopt", 20, family=family, error=error, **fast)]
        records += own
    shown = benchmark("cost", "unroll", "--report", write(tmp_path / "cells.jsonl", records)).stdout
    right, wrong, nan = (shown[shown.index(f"**{family}, small") :].split("\n\n**")[0] for family in FAMILIES)
    assert "| torchopt (best peer) | 50.0 |" in right and "WRONG |" not in right
    for table, error in ((wrong, "2e-02"), (nan, "nan")):
        assert "| plain-autograd (best peer) |" in table and "| torchopt | 50.0 |" in table
        assert f"| {error} WRONG |" in table


def test_table_and_plot(benchmark, tmp_path):
    repeats = [record(PLAIN, 20, seconds=s, repeat=i) for i, s in enumerate((1.0, 2.0, 4.0))]
    repeats += [record("ours", 20, seconds=s, peak=500, repeat=i) for i, s in enumerate((1.0, 3.0, 4.0))]
    failed = record("higher", 20, status="raises: AttributeError: a | b")
    longer = [record(PLAIN, 80), record("ours", 80, peak=520)]
    path = write(tmp_path / "cells.jsonl", [*repeats, failed, *longer])
    lines = benchmark("cost", "unroll", "--report", path, "--plot", tmp_path / "plot.png").stdout.splitlines()
    # Ratios are those of the same repeat: 2, 3 and 2.
    start = "| ours | 300 (100 to 400) | 2.00 (2.00 to 3.00) |  | 150 | 150 | 100 | 100 | 1e-05 |"
    assert start in lines
    assert "| higher | raises: AttributeError: a / b |  |  |  |  |  |  |  |" in lines
    slope = 20 * MEBI / 60
    expected = f"| lstm, small: ours | 20 to 80 | 0.33 | {slope / 4000:.1f} | {slope / 12000:.1f} |"
    assert expected in lines
    assert (tmp_path / "plot.png").read_bytes().startswith(PNG)


def test_a_run_that_goes_on(benchmark, data_bin, tmp_path):
    known = [record("higher", 20, status="raises: no"), record("ours", 20), record("plain-autograd", 20, peak=600)]
    path = write(tmp_path / "cells.jsonl", known)
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole + '{"size": "sm', encoding="utf-8")
    assert "**lstm, small, T = 20**" in benchmark("cost", "unroll", "--report", path).stdout
    assert path.read_text(encoding="utf-8").endswith('"sm')  # a report changes nothing
    # A run that goes on does not write behind an incomplete last line.
    arguments = ["unroll", "--families", "lstm", "--updates", "20", "80", "320", "--repeats", "2", "--data", data_bin]
    arguments += ["--competitors", "higher", "ours", "plain-autograd", "--memory-limit", "1G", "--json", path, *NO_TIME]
    benchmark("cost", *arguments, "--resume")
    assert path.read_text(encoding="utf-8").startswith(whole)
    statuses = {(one["competitor"], one["updates"], one["repeat"]): one["status"] for one in read(path)}
    # No other repeat of a competitor whose first has failed.
    assert ("higher", 20, 1) not in statuses
    # 300 MiB before, 300 MiB for 20 updates, so 1,500 MiB for 80 of them, and more for 320.
    assert statuses["plain-autograd", 80, 0] == "would need about 1.46 GiB"
    assert statuses["plain-autograd", 320, 0] == "would need about 4 GiB"
    # Controls: another repeat is measured, and what fits.
    for measured in (("ours", 20, 1), ("plain-autograd", 20, 1), ("ours", 80, 0)):
        assert statuses[measured] == "no recording: no answer within 0 s"
    # A run that begins anew does not throw the records away.
    before = path.read_bytes()
    assert f"--json: {path} holds records; give --resume" in benchmark("cost", *arguments, expect=1).stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"[1, 2]\n", b'{"size": "small"}\n', b"\xff\xfe\n", b'{"a\n{}\n', None])
@pytest.mark.parametrize("program", ["unroll", "scaling"])
def test_files_of_something_else(benchmark, tmp_path, content, program):
    path = tmp_path / "cells.jsonl"
    if content is not None:
        path.write_bytes(content)
    (line,) = benchmark("cost", program, "--report", path, expect=1).stderr.splitlines()
    assert line.startswith(f"error: {path}") and "of a benchmark" in line


def test_an_interruption_is_one_line(start_benchmark, data_bin):
    running = start_benchmark("cost", "unroll", "--sizes", "tiny", "--families", "lstm", "--data", data_bin)
    running.wait_until(lambda: "tiny lstm, T = 20" in running.stderr)
    running.signal(signal.SIGINT)
    assert running.end(130).stderr.splitlines()[-1].startswith("interrupted; ")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--memory-limit", "1M"], "no recording: over 0.000977 GiB"),
        pytest.param(["--data", "nowhere"], "OptionError: data: nowhere", marks=pytest.mark.slow),
    ],
)
def test_processes_are_watched(benchmark, data_bin, tmp_path, arguments, status):
    path = tmp_path / "cells.jsonl"
    small = ["--sizes", "tiny", "--families", "lstm", "--updates", "2", "--repeats", "1", "--competitors", "ours"]
    benchmark("cost", "unroll", *small, "--data", data_bin, "--json", path, *arguments)
    (one,) = read(path)
    assert status in one["status"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "--repeats: 0; expected at least 1"),
        (["--updates", "0", "20"], "--updates: [0, 20]; expected numbers of at least 1"),
        (["--families", "lightconv"], "--families: lightconv; expected, of size small, names from lstm, fconv"),
        (["--resume"], "--resume: needs --json FILE"),
        (["--memory-limit", "512Q"], "--memory-limit: 512Q; expected a size such as 512M or 2G"),
    ],
)
def test_refusals(benchmark, arguments, message):
    assert message in benchmark("cost", "unroll", *arguments, expect=2).stderr


def test_scaling_table(benchmark, tmp_path):
    layout = {"steps": 80, "block": 0, "slots": 5, "graphs": 0}
    budget = record("ours-budget", 80, peak=450, recomputed=120, layout=layout)
    path = write(tmp_path / "cells.jsonl", [record(PLAIN, 80), record("ours", 80, peak=900), budget])
    shown = benchmark("cost", "scaling", "--report", path, "--plot", tmp_path / "plot.png").stdout
    assert "| lstm, small | 80 | ours | 25.0 | 2.00 | 12.5 | 12.5 | 500 |  | 0.000 | 0.000 |  |" in shown
    # The fewest updates again with 5 snapshots are 157, by tests/testing/test_binomial_optimum.py's own recursion.
    assert f"| 80 | ours-budget | 25.0 | 2.00 | 12.5 | 12.5 | 50 | 512 | 1.500 | {157 / 80:.3f} | 5 |" in shown
    assert (tmp_path / "plot.png").read_bytes().startswith(PNG)


@pytest.mark.slow
def test_a_small_profile(benchmark, data_bin, tmp_path):
    path = tmp_path / "profile.jsonl"
    arguments = ["profile", "--sizes", "tiny", "--families", "transformer", "--updates", "1", "--max-tokens", "200"]
    arguments += ["--competitors", "ours-gradients", "--data", data_bin, "--json", path]
    shown = benchmark("cost", *arguments).stdout
    (line,) = read(path)
    assert line["competitor"] == "ours-gradients"
    assert list(line["parts"]) == ["unroll", "reverse"]
    for part in line["parts"].values():
        assert part["operators"] > 100
        assert all(part[group] > 0 for group in ("matrix products", "moving data", "elementwise, reductions"))
    # The way back goes forward once more and differentiates twice.
    assert line["parts"]["reverse"]["operators"] > line["parts"]["unroll"]["operators"]
    assert shown.count("%") == 2 * 4
    assert "--updates: [0]" in benchmark("cost", *arguments, "--updates", "0", expect=2).stderr

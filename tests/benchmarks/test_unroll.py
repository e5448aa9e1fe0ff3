"""The benchmark of unrolls: a small run, what is done again, what is refused, and that its table can say WRONG."""

import json
from functools import cache

import pytest

from benchmarks import scaling, unroll, unroll_process
from benchmarks.scaling import binomial_optimum
from benchmarks.scaling import draw as draw_scaling
from benchmarks.scaling import table as scaling_table
from benchmarks.unroll import Bench, main
from benchmarks.unroll_group import PLAIN, Cell
from benchmarks.unroll_process import Watch, run_cell
from benchmarks.unroll_records import read_records
from benchmarks.unroll_report import draw, groups, tables

PNG = b"\x89PNG\r\n\x1a\n"
MEBI = 2**20


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    # A forkserver started here would be that of all later tests, without what they want preloaded.
    monkeypatch.setattr(unroll_process, "START_METHOD", "spawn")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def record(competitor, updates, *, seconds=1.0, peak=400, error=1e-5, repeat=0, **more):
    parts = {"unroll": seconds} if competitor == PLAIN else {"unroll": seconds, "reverse": seconds, "objective": 0.1}
    cell = Cell("small", "lstm", updates, competitor, repeat)
    found = {"status": "ok", "seconds": parts, "cpu_seconds": parts, "peak": peak * MEBI, "parameters": 1000}
    found |= {} if competitor == PLAIN else {"before": 300 * MEBI, "error": error, "recomputed": 0}
    return {**cell.key, **found, "machine": {"device": "a processor", "cores": 2, "torch": "2"}, **more}


@pytest.mark.slow
def test_a_small_run(data_bin, tmp_path, capsys, monkeypatch):
    path, plot = tmp_path / "cells.jsonl", tmp_path / "plot.png"
    # T = 8: a loss reaches Adam's first update, g / (|g| + eps), by its smallest parts alone, and those are float32's
    # rounding: by processor, the error is 0.014 to 0.016 at T = 2, 0.003 at T = 8.
    arguments = ["--sizes", "tiny", "--families", "transformer", "--updates", "8", "--repeats", "1", "--max-tokens"]
    arguments += ["200", "--competitors", PLAIN, "ours-gradients", "plain-autograd", "--data", str(data_bin)]
    arguments += ["--json", str(path), "--plot", str(plot)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    plain, ours, autograd = read_records(path)
    assert [r["status"] for r in (plain, ours, autograd)] == ["ok"] * 3
    assert ours["error"] == 0 < autograd["error"] < 1e-2
    assert plain["seconds"]["unroll"] > 0 and set(ours["seconds"]) == {"unroll", "objective", "reverse"}
    assert "**transformer, tiny, T = 8**" in shown and "| plain-autograd (best peer) |" in shown
    assert plot.read_bytes().startswith(PNG)
    # Nothing is measured again; the report of the file is the same.
    monkeypatch.setattr(unroll, "run_cell", None)
    for more in (["--resume"], ["--report", str(path)]):
        assert main([*arguments, *more]) == 0
        assert capsys.readouterr().out == shown
    # Control: another T stands nowhere.
    with pytest.raises(TypeError):
        main([*arguments, "--resume", "--updates", "3"])


def test_a_wrong_hypergradient_is_no_best_peer():
    plain, ours = record(PLAIN, 20), record("ours", 20, error=0.0)
    fast = {"seconds": 0.5, "repeat": 0}
    right = [plain, ours, record("plain-autograd", 20), record("torchopt", 20, **fast)]
    wrong = [*right[:3], record("torchopt", 20, error=0.02, **fast)]
    nan = [*right[:3], record("torchopt", 20, error=float("nan"), **fast)]
    assert [groups(records)[0].best_peer for records in (right, wrong, nan)] == ["torchopt"] + ["plain-autograd"] * 2
    assert "| torchopt (best peer) | 50.0 |" in tables(right) and "| torchopt | 50.0 |" in tables(wrong)
    assert "| 2e-02 WRONG |" in tables(wrong) and "| nan WRONG |" in tables(nan) and "WRONG |" not in tables(right)


def test_table_and_plot(tmp_path):
    repeats = [record(PLAIN, 20, seconds=s, repeat=i) for i, s in enumerate((1.0, 2.0, 4.0))]
    repeats += [record("ours", 20, seconds=s, peak=500, repeat=i) for i, s in enumerate((1.0, 3.0, 4.0))]
    failed = record("higher", 20, status="raises: AttributeError: a | b")
    longer = [record(PLAIN, 80), record("ours", 80, peak=520)]
    lines = tables([*repeats, failed, *longer]).splitlines()
    # Ratios are those of the same repeat: 2, 3 and 2.
    start = "| ours | 300 (100 to 400) | 2.00 (2.00 to 3.00) |  | 150 | 150 | 100 | 100 | 1e-05 |"
    assert start in lines
    assert "| higher | raises: AttributeError: a / b |  |  |  |  |  |  |  |" in lines
    slope = 20 * MEBI / 60
    expected = f"| lstm, small: ours | 20 to 80 | 0.33 | {slope / 4000:.1f} | {slope / 12000:.1f} |"
    assert expected in lines
    draw(tmp_path / "plot.png", [*repeats, failed, *longer])
    assert (tmp_path / "plot.png").read_bytes().startswith(PNG)


def test_a_torn_last_line_is_left_out(tmp_path, capsys, monkeypatch):
    path = tmp_path / "cells.jsonl"
    whole = json.dumps(record(PLAIN, 20)) + "\n"
    path.write_text(whole + '{"size": "sm', encoding="utf-8")
    assert read_records(path) == [record(PLAIN, 20)]
    assert main(["--report", str(path)]) == 0
    assert path.read_text(encoding="utf-8").endswith('"sm')  # a report changes nothing
    # ... while a run that goes on must not write behind it
    monkeypatch.setattr(unroll, "run_cell", lambda *_: {"status": "raises: no"})
    monkeypatch.setattr(unroll, "corpus_for", lambda *_: tmp_path)
    arguments = ["--json", str(path), "--families", "lstm", "--updates", "20", "--repeats", "2", "--competitors", PLAIN]
    assert main([*arguments, "--resume"]) == 0
    assert path.read_text(encoding="utf-8").startswith(whole)
    assert len(read_records(path)) == 2
    # and one that begins anew must not throw away what is there
    before = path.read_bytes()
    assert main(arguments) == 1
    assert f"--json: {path} holds records; give --resume" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"[1, 2]\n", b'{"size": "small"}\n', b"\xff\xfe\n", b'{"a\n{}\n', None])
@pytest.mark.parametrize("program", [main, scaling.main])
def test_files_of_something_else(tmp_path, capsys, content, program):
    path = tmp_path / "cells.jsonl"
    if content is not None:
        path.write_bytes(content)
    assert program(["--report", str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path}") and "of a benchmark" in line


def test_an_interruption_is_one_line(tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(unroll, "measured", interrupted)
    assert main([]) == 130
    assert capsys.readouterr().err.startswith("interrupted; ")


def test_what_is_not_run(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(unroll, "run_cell", lambda cell, *_: made.append(cell.competitor) or {"status": "ok"})
    monkeypatch.setattr(unroll, "machine", lambda device: {})
    watch = Watch(tmp_path, 60, 2**30, 1)
    known = [record("higher", 20, status="raises: no"), record("ours", 20), record("plain-autograd", 20, peak=600)]
    bench = Bench({"small": tmp_path}, watch, known, None)
    bench.measure(Cell("small", "lstm", 20, "higher", 3))  # the first repeat failed
    bench.measure(Cell("small", "lstm", 20, "ours", 0))  # has been done
    bench.measure(Cell("small", "lstm", 80, "plain-autograd"))
    assert made == [] and len(bench.records) == 4
    # 300 MiB before, 300 MiB for 20 updates, so 1,500 MiB for 80 of them.
    assert bench.records[-1]["status"] == "would need about 1.46 GiB"
    bench.measure(Cell("small", "lstm", 320, "plain-autograd"))
    assert made == [] and bench.records[-1]["status"].startswith("would need about ")
    # Controls: another repeat is made, and what fits.
    bench.measure(Cell("small", "lstm", 20, "ours", 1))
    bench.measure(Cell("small", "lstm", 40, "plain-autograd"))
    assert made == ["record", "ours", "record", "plain-autograd"]


def test_processes_are_watched(tmp_path):
    cell = Cell("tiny", "lstm", 2, "ours")
    assert run_cell(cell, tmp_path, tmp_path, Watch(tmp_path, 0.0, 2**40, 1)) == {"status": "no answer within 0 s"}
    assert run_cell(cell, tmp_path, tmp_path, Watch(tmp_path, 60.0, 2**20, 1)) == {"status": "over 0.000977 GiB"}


@pytest.mark.slow
def test_last_words_are_the_error(tmp_path):
    found = run_cell(Cell("tiny", "lstm", 2, "ours"), tmp_path, tmp_path / "none.pt", Watch(tmp_path, 300.0, 2**40, 1))
    assert found["status"].startswith("raises: FileNotFoundError: ")


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
def test_refusals(capsys, arguments, message):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


@cache
def fewest_evaluations(steps, snapshots):
    if steps == 1:
        return 0
    if snapshots == 1:
        return steps * (steps - 1) // 2
    return min(
        first + fewest_evaluations(steps - first, snapshots - 1) + fewest_evaluations(first, snapshots)
        for first in range(1, steps)
    )


def test_binomial_optimum():
    for steps in range(1, 40):
        for snapshots in range(1, 12):
            assert binomial_optimum(steps, snapshots) == fewest_evaluations(steps, snapshots) - (steps - 1)
    assert binomial_optimum(100, 100) == 0 < binomial_optimum(100, 98)
    with pytest.raises(ValueError, match="snapshots 0"):
        binomial_optimum(3, 0)


def test_scaling_table(tmp_path):
    layout = {"steps": 80, "block": 0, "slots": 5, "graphs": 0}
    budget = record("ours-budget", 80, peak=450, recomputed=120, layout=layout)
    shown = scaling_table([record(PLAIN, 80), record("ours", 80, peak=900), budget])
    assert "| lstm, small | 80 | ours | 25.0 | 2.00 | 12.5 | 12.5 | 500 |  | 0.000 | 0.000 |  |" in shown
    fewest = binomial_optimum(80, 5) / 80
    assert f"| 80 | ours-budget | 25.0 | 2.00 | 12.5 | 12.5 | 50 | 512 | 1.500 | {fewest:.3f} | 5 |" in shown
    draw_scaling(tmp_path / "plot.png", [record(PLAIN, 80), record("ours", 80, peak=900), budget])
    assert (tmp_path / "plot.png").read_bytes().startswith(PNG)

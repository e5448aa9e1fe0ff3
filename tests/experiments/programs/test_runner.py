"""Steps: done once, done again for another command or input, resumed, and failures told in words."""

import importlib
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.programs.runner import run_steps
from experiments.programs.step import Step
from experiments.records.training_logs import share_in_log, updates_in_log
from fairseq_l2t.pairs.parallel_text import BadInput
from fairseq_l2t.pairs.programs import StepFailed, console_script
from fairseq_l2t.teaching.progress_display import ProgressLines

APPEND = "import sys, pathlib; p = pathlib.Path(sys.argv[1]); p.open('a').write(' '.join(sys.argv[2:]) + '\\n')"


def _append(folder, name, *words, **more):
    """A step that appends its words to a file."""
    command = (sys.executable, "-c", APPEND, str(folder / f"{name}.txt"), *words)
    return Step(name, command, folder / "logs", **more)


def _lines(folder, name):
    return (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def test_a_finished_step_is_not_done_again_unless_its_command_changes(tmp_path):
    run_steps([_append(tmp_path, "a", "first")])
    run_steps([_append(tmp_path, "a", "first")])
    assert _lines(tmp_path, "a") == ["first"]
    run_steps([_append(tmp_path, "a", "second")])
    assert _lines(tmp_path, "a") == ["first", "second"]


def test_a_finished_step_is_done_again_when_an_input_changes(tmp_path):
    source = tmp_path / "input"
    for content in ("one", "one", "two"):
        source.write_text(content, encoding="utf-8")
        run_steps([_append(tmp_path, "a", "word", inputs=(source,))])
    assert len(_lines(tmp_path, "a")) == 2


def test_later_steps_see_what_earlier_ones_made(tmp_path):
    """The input of the second step does not exist when the steps are described."""
    made = tmp_path / "a.txt"
    steps = [_append(tmp_path, "b", "late", inputs=(made,), after=("a",)), _append(tmp_path, "a", "early")]
    run_steps(steps, jobs=2)
    run_steps(steps, jobs=2)
    assert _lines(tmp_path, "b") == ["late"]


def test_steps_run_side_by_side(tmp_path):
    sleep = (sys.executable, "-c", "import time; time.sleep(1.0)")
    steps = [Step(name, sleep, tmp_path) for name in ("a", "b")]
    start = time.monotonic()
    run_steps(steps, jobs=2)
    together = time.monotonic() - start
    for step in steps:
        step.marker.unlink()
    start = time.monotonic()
    run_steps(steps, jobs=1)
    assert together < time.monotonic() - start - 0.5


def _begun(folder, word, **more):
    """A step as if it had been killed before its end, and its work folder."""
    work = folder / "work"
    step = _append(folder, "a", word, work=work, resume=("resumed",), **more)
    run_steps([step])
    step.marker.unlink()
    work.mkdir(exist_ok=True)
    (work / "state").touch()
    return step


def test_an_interrupted_step_resumes_and_one_of_other_inputs_starts_clean(tmp_path, capsys):
    source = tmp_path / "input"
    source.write_text("one", encoding="utf-8")
    _begun(tmp_path, "one", inputs=(source,))
    step = _begun(tmp_path, "one", inputs=(source,))
    run_steps([step])
    assert _lines(tmp_path, "a") == ["one", "one resumed", "one resumed"]
    source.write_text("two", encoding="utf-8")
    capsys.readouterr()
    run_steps([step])
    assert _lines(tmp_path, "a")[-1] == "one"
    assert not (tmp_path / "work").exists()
    assert "a: again, its inputs have changed" in capsys.readouterr().out


def test_a_resumed_step_mends_its_folder_and_does_not_write_behind_a_cut_line(tmp_path):
    mended = []
    step = _begun(tmp_path, "one", mend=mended.append)
    with step.log.open("a", encoding="utf-8") as log:
        log.write("a line cut he")
    assert mended == []
    run_steps([step])
    assert mended == [tmp_path / "work"]
    assert "a line cut he\n$ " in step.log.read_text(encoding="utf-8")


@pytest.mark.parametrize("finished", [True, False])
def test_what_was_made_by_another_command_is_kept_and_the_step_refused(tmp_path, finished):
    step = _begun(tmp_path, "--lr=1")
    if finished:
        run_steps([step])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other = _append(tmp_path, "a", "--lr=2", work=tmp_path / "work", resume=("resumed",))
    with pytest.raises(BadInput) as refused:
        run_steps([_append(tmp_path, "b", "word"), other])
    record = step.marker if finished else step.started
    assert str(refused.value) == (
        f"step a: {record} is of another command (there --lr=1, here --lr=2); remove {tmp_path / 'work'} and {record} "
        "to do this step again, or choose another --output-dir"
    )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    # The way out that is told.
    shutil.rmtree(tmp_path / "work")
    record.unlink()
    run_steps([other])
    assert _lines(tmp_path, "a")[-1] == "--lr=2"


def test_what_was_chosen_otherwise_is_refused_too(tmp_path):
    """The late part of a command is compared before any step starts, if what decides it is done."""
    first = _append(tmp_path, "first", "word")

    def second(word):
        return _append(tmp_path, "a", work=tmp_path / "work", after=("first",), late=lambda: (word,))

    run_steps([first, second("one")])
    run_steps([first, second("one")])
    assert _lines(tmp_path, "a") == ["one"]
    extra = _append(tmp_path, "extra", "word")
    with pytest.raises(BadInput, match="step a: .*one, here .*two"):
        run_steps([extra, first, second("two")])
    assert not extra.started.exists()
    first.marker.unlink()
    with pytest.raises(BadInput, match="step a: .*one, here .*two"):
        run_steps([first, second("two")])
    assert _lines(tmp_path, "a") == ["one"]


def test_a_folder_of_unknown_origin_is_not_emptied(tmp_path):
    (tmp_path / "work").mkdir()
    with pytest.raises(BadInput, match="work exists, and .*a.started does not say which command made it"):
        run_steps([_append(tmp_path, "a", "one", work=tmp_path / "work")])
    assert (tmp_path / "work").is_dir()


# Starts a step that would sleep for a minute, and tells its process.
LONG = """
import sys, pathlib
from experiments.programs.entry import run_program
from experiments.programs.runner import run_steps
from experiments.programs.step import Step
code = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(60)"
folder = pathlib.Path(sys.argv[1])
sys.exit(run_program("long", lambda: run_steps([Step("a", (sys.executable, "-c", code), folder)])))
"""


def _started_program(folder):
    """The program, and the number of its step's process."""
    program = subprocess.Popen(
        [sys.executable, "-c", LONG, str(folder)],
        stderr=subprocess.PIPE,
        text=True,
        # A suite started in the background inherits an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    log, deadline = folder / "a.log", time.monotonic() + 60
    while not (log.exists() and (found := log.read_text(encoding="utf-8").splitlines()[1:])):
        assert time.monotonic() < deadline and program.poll() is None
        time.sleep(0.05)
    return program, int(found[0])


def _lives(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state.rpartition(")")[2].split()[0] != "Z"  # dead, and not yet collected by its new parent


ANSWER = (
    "long: %s: stopping when the programs under way have saved their work; a second signal stops at once\n"
    "long: stopped by %s; the same command goes on\n"
)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_steps_end_with_the_program(tmp_path, number, code):
    program, process = _started_program(tmp_path)
    try:
        assert _lives(process)
        program.send_signal(number)
        assert program.communicate(timeout=30) == (
            None,
            "" if number == signal.SIGKILL else ANSWER % (2 * (number.name,)),
        )
        assert program.returncode == code
        deadline = time.monotonic() + 10
        while _lives(process) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _lives(process)
    finally:
        program.kill()
        if _lives(process):
            os.kill(process, signal.SIGKILL)


@pytest.mark.parametrize(("script", "folder"), [("corpus", "toy_corpus"), ("prepare", "fairseq_l2t.pairs")])
def test_a_script_that_is_interrupted_says_so_in_one_line(script, folder, tmp_path, monkeypatch, capsys):
    module = importlib.import_module(f"{folder}.{script}")
    monkeypatch.setattr(
        module, "write_corpus" if script == "corpus" else script, lambda *_: signal.raise_signal(signal.SIGINT)
    )
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = module.main([*(["raw"] if script == "prepare" else []), "--output-dir", str(tmp_path / "out")])
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 130
    assert capsys.readouterr().err == f"python -m {folder}.{script}: stopped by SIGINT\n"


def test_a_closed_pipe_prints_no_traceback():
    source = "from experiments.programs import entry; raise SystemExit(entry.run_program('some', lambda: None))"
    command = [sys.executable, "-c", source]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        found = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writing)
    assert (found.returncode, found.stderr) == (128 + signal.SIGPIPE, "")
    read = subprocess.run(command, capture_output=True, text=True, check=True)  # the control
    assert read.stdout.startswith("wall time: ")


def _limited(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize(
    ("work", "name"),
    [
        ("write_lines(folder / 'file', ['x' * 9000])", "file"),
        ("run_steps([Step('a', (sys.executable, '-c', 'pass', 'x' * 3000), folder)])", "a.started"),
        ("(folder / 'a.log').mkdir(); run_steps([Step('a', (sys.executable, '-c', 'pass'), folder)])", "a.log"),
    ],
)
def test_what_cannot_be_written_is_named(tmp_path, work, name):
    """A limit on the size of files stands for a full disk."""
    code = (
        "import pathlib, sys\nfrom experiments.programs.entry import run_program\n"
        "from experiments.programs.runner import run_steps\nfrom experiments.programs.step import Step\n"
        "from fairseq_l2t.pairs.parallel_text import write_lines\nfolder = pathlib.Path(sys.argv[1])\n"
        f"def work():\n    {work}\nsys.exit(run_program('it', work))"
    )
    result = subprocess.run(
        [sys.executable, "-B", "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: _limited(2048),
    )
    assert result.returncode == 2, result.stderr
    reason = "Is a directory" if name == "a.log" else "File too large"
    assert result.stderr == f"it: error: {tmp_path / name}: {reason}\n"
    assert not list(tmp_path.glob(".*"))


def test_a_failure_shows_command_and_end_of_log_and_stops_the_others(tmp_path, capsys):
    bad = Step("bad", (sys.executable, "-c", "print('\\n'.join(map(str, range(50)))); raise SystemExit(3)"), tmp_path)
    slow = Step("slow", (sys.executable, "-c", "import time; time.sleep(60)"), tmp_path)
    start = time.monotonic()
    with pytest.raises(StepFailed) as failure:
        run_steps([slow, bad], jobs=2)
    assert time.monotonic() - start < 30
    message = str(failure.value)
    assert "step bad ended with exit code 3" in message and f"$ {sys.executable}" in message
    assert message.splitlines()[-20:] == [str(number) for number in range(30, 50)]
    assert not bad.is_done() and not slow.is_done()
    assert "a step failed; to be stopped: slow\n" in capsys.readouterr().out


def test_a_step_that_was_killed(tmp_path):
    kill = Step("a", (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"), tmp_path)
    with pytest.raises(StepFailed, match="step a was ended by SIGKILL, as the system does where memory runs out\n"):
        run_steps([kill])


@pytest.mark.parametrize(("jobs", "given", "share"), [(2, None, "0.5"), (1, None, "1"), (2, "0.1", "0.1")])
def test_steps_side_by_side_share_the_memory(tmp_path, monkeypatch, jobs, given, share):
    """Unless whoever started all of them has said otherwise."""
    monkeypatch.delenv("L2T_MEMORY_SHARE", raising=False)
    if given:
        monkeypatch.setenv("L2T_MEMORY_SHARE", given)
    code = "import os; print(os.environ['L2T_MEMORY_SHARE'])"
    run_steps([Step("a", (sys.executable, "-c", code), tmp_path, output=tmp_path / "said")], jobs=jobs)
    assert (tmp_path / "said").read_text().strip() == share


def test_an_error_that_is_a_result_is_not_tried_again(tmp_path):
    """Its log decides, and the next step runs; of another error the same step fails."""

    def steps(word):
        count = f"open({str(tmp_path / 'count')!r}, 'a').write('x'); print({word!r}); sys.exit(1)"
        return [
            Step(
                "a",
                (sys.executable, "-c", f"import sys; {count}"),
                tmp_path / "logs",
                is_result=lambda log: "diverged" in log.read_text("utf-8").splitlines(),
            ),
            _append(tmp_path, "b", "word", after=("a",)),
        ]

    for _ in range(2):
        run_steps(steps("diverged"))
    assert (tmp_path / "count").read_text() == "x" and _lines(tmp_path, "b") == ["word"]
    with pytest.raises(StepFailed, match="step a ended with exit code 1"):
        run_steps(steps("not at all"))


def test_unknown_dependency_and_missing_program_are_named(tmp_path):
    with pytest.raises(StepFailed, match="waits for unknown steps: .*nowhere"):
        run_steps([_append(tmp_path, "a", "word", after=("nowhere",))])
    with pytest.raises(StepFailed, match="fairseq-fly: no such program"):
        console_script("fairseq-fly")


def test_progress_is_read_from_logs(tmp_path, caplog):
    log = tmp_path / "log"
    assert updates_in_log(log, 100)() == 0.0 == share_in_log(log)()
    log.write_text('{"num_updates": "10"}\nrest\n{"num_updates": "40", "lr": "1"}\n', encoding="utf-8")
    assert updates_in_log(log, 100)() == 0.4
    clock = [30.0, 6.0, 0.0]  # popped from the end; the second line is not yet due
    display = ProgressLines(clock.pop)
    caplog.set_level(logging.INFO)
    for share in (0.05, 0.2549):
        display.show(share, "student update 1 of 8", 9.0)
    assert share_in_log(log)() == 0.0
    log.write_text("".join(f"2026 | INFO | it | {line}\n" for line in caplog.messages), encoding="utf-8")
    assert share_in_log(log)() == 0.05


@pytest.mark.parametrize(("resumed", "words"), [(False, ["about"]), (True, [])])
def test_estimate_counts_what_this_start_has_done(tmp_path, capsys, resumed, words):
    """A run that resumes at 90 % has not done 90 % in its first second."""
    work = tmp_path / "work"
    step = Step("a", (sys.executable, "-c", "import time; time.sleep(1.5)"), tmp_path, work=work, progress=lambda: 0.9)
    if resumed:
        run_steps([step])
        step.marker.unlink()
        work.mkdir()
    capsys.readouterr()
    run_steps([step], report_seconds=0.3)
    shown = capsys.readouterr().out
    assert "... a " in shown and "; 0 of 1 steps done\n" in shown
    assert ["about"] * ("about" in shown) == words

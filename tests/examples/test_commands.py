"""Steps: done once, done again for another command or input, resumed, and failures told in words."""
import sys
import time

import pytest
from commands import Step, StepFailed, console_script, lines_in_file, run_steps, updates_in_log

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


def test_an_interrupted_step_resumes_and_one_of_another_command_starts_clean(tmp_path):
    work = tmp_path / "work"

    def interrupted(word):
        step = _append(tmp_path, "a", word, work=work, resume=("resumed",))
        run_steps([step])
        step.marker.unlink()  # as if it had been killed before its end
        work.mkdir(exist_ok=True)
        (work / "state").touch()
        return step

    interrupted("one")
    run_steps([interrupted("one")])
    assert _lines(tmp_path, "a") == ["one", "one resumed", "one resumed"]
    run_steps([_append(tmp_path, "a", "two", work=work, resume=("resumed",))])
    assert _lines(tmp_path, "a")[-1] == "two"
    assert not work.exists()


def test_a_failure_shows_command_and_end_of_log_and_stops_the_others(tmp_path):
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


def test_unknown_dependency_and_missing_program_are_named(tmp_path):
    with pytest.raises(StepFailed, match="waits for unknown steps: .*nowhere"):
        run_steps([_append(tmp_path, "a", "word", after=("nowhere",))])
    with pytest.raises(StepFailed, match="fairseq-fly: no such program"):
        console_script("fairseq-fly")


def test_progress_is_read_from_logs(tmp_path):
    log = tmp_path / "log"
    assert updates_in_log(log, 100)() == 0.0 == lines_in_file(log, 4)()
    log.write_text('{"num_updates": "10"}\nrest\n{"num_updates": "40", "lr": "1"}\n', encoding="utf-8")
    assert updates_in_log(log, 100)() == 0.4
    assert lines_in_file(log, 4)() == 0.75


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
    assert "... a " in shown
    assert ["about"] * ("about" in shown) == words

"""The seam between steps and where programs run: a runner needs `start`, `poll` and `stop` alone."""

import sys

import pytest

from experiments.programs.runner import run_steps
from experiments.programs.step import Step
from fairseq_l2t.pairs.programs import StepFailed


class _Remote:
    """Programs that run nowhere: each ends with its code when it is polled for the second time."""

    def __init__(self, **codes):
        self.codes, self.started, self.stopped = codes, [], []

    def start(self, command, log, output, environment):
        self.started.append((command[0], environment["L2T_MEMORY_SHARE"]))
        assert log.read_text(encoding="utf-8").startswith("$ ")
        return _RemoteProgram(self, command[0])


class _RemoteProgram:
    def __init__(self, remote, name):
        self.remote, self.name, self.polls = remote, name, 0

    def poll(self):
        self.polls += 1
        return None if self.polls < 2 else self.remote.codes[self.name]

    def stop(self):
        self.remote.stopped.append(self.name)


def test_steps_run_where_the_launcher_says(tmp_path):
    steps = [Step(name, (name,), tmp_path, after=after) for name, after in (("a", ()), ("b", ()), ("c", ("a",)))]
    remote = _Remote(a=0, b=0, c=0)
    run_steps(steps, jobs=2, launcher=remote)
    assert remote.started == [("a", "0.5"), ("b", "0.5"), ("c", "0.5")] and not remote.stopped
    assert all(step.is_done() for step in steps)
    run_steps(steps, jobs=2, launcher=remote)
    assert len(remote.started) == 3


def test_the_others_are_stopped_when_one_fails(tmp_path):
    remote = _Remote(a=None, b=-9)
    with pytest.raises(StepFailed, match="step b was ended by SIGKILL"):
        run_steps([Step(name, (name,), tmp_path) for name in "ab"], jobs=2, launcher=remote)
    assert "a" in remote.stopped


def test_the_outcome_decides_beside_the_marker_or_instead_of_it(tmp_path):
    made = tmp_path / "made"
    command = (sys.executable, "-c", f"open({str(made)!r}, 'a').write('x')")
    beside = Step("a", command, tmp_path / "logs", outcome=made.exists)
    run_steps([beside])
    run_steps([beside])
    assert made.read_text() == "x"
    made.unlink()  # the marker is still there
    run_steps([beside])
    assert made.read_text() == "x"
    beside.marker.unlink()
    assert not beside.is_done()
    assert Step("a", ("other",), tmp_path / "logs", outcome=made.exists, by_outcome=True).is_done()

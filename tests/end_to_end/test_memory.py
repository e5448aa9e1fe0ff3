"""Teacher training under memory budgets: the same teacher, and errors that say what would do."""

import pytest

from fairseq_l2t.plugin import FairseqStudent
from fairseq_l2t.storage import load_teacher
from tests.end_to_end import preloaded
from tests.end_to_end.settings import MODEL, RUN_FOLDER, TRAINING, log_lines, teacher_command

pytestmark = pytest.mark.slow
COMMAND = "l2t-train-teacher"
LIFE = ["--total-updates", "16", "--unroll-length", "14", "--teacher-updates", "2"]


def trained(data_bin, folder, *more, expect=0):
    return preloaded.run(COMMAND, teacher_command(data_bin, *LIFE, *more), folder, expect=expect)


def values(folder):
    return load_teacher(folder / RUN_FOLDER / "teacher_last.safetensors").teacher.values


@pytest.fixture(scope="module")
def unlimited(data_bin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unlimited")
    trained(data_bin, folder)
    return folder


def test_every_place_and_budget_gives_the_same_teacher(data_bin, unlimited, tmp_path):
    student = FairseqStudent.from_args([str(data_bin), *MODEL, *TRAINING])
    # In a file a budget is for the vectors and the batches alone: room for a few states, not for 14 gradients.
    budget = 24 * student.omega.nbytes + 14 * 20_000
    trained(data_bin, tmp_path / "file", "--keep-steps-in", "file", "--memory-budget", budget)
    trained(data_bin, tmp_path / "host", "--keep-steps-in", "host")
    assert [line["recomputed_updates"] > 0 for line in log_lines(tmp_path / "file" / RUN_FOLDER)] == [True, True]
    assert [line["recomputed_updates"] for line in log_lines(unlimited / RUN_FOLDER)] == [0, 0]
    for name in ("file", "host"):
        assert values(tmp_path / name).equal(values(unlimited))
        assert not [path for path in (tmp_path / name / RUN_FOLDER).iterdir() if path.name.startswith(".steps")]


def test_graphs_and_differences(data_bin, unlimited, tmp_path):
    trained(data_bin, tmp_path / "graphs", "--keep-graphs", "--memory-budget", "1G")
    fast = trained(data_bin, tmp_path / "fast", "--hvp", "finite-difference")
    expected = values(unlimited)
    assert (values(tmp_path / "graphs") - expected).norm() < 1e-3 * expected.norm()
    assert not values(tmp_path / "fast").equal(expected)
    first, second = log_lines(tmp_path / "fast" / RUN_FOLDER)
    assert 0 < first["hypergradient_error"] < 1
    assert second["hypergradient_error"] is None
    assert "--hvp finite-difference: the hypergradient of the first window differs from the exact one by" in fast.stdout


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--memory-budget", "lots"], "--memory-budget: lots; expected a size such as 512M or 2G"),
        (["--memory-budget", "10K"], "--memory-budget: 10K; a window of 14 updates of this student takes at least"),
        (["--keep-graphs"], "--keep-graphs: needs --memory-budget"),
        (["--keep-graphs", "--memory-budget", "1G", "--keep-steps-in", "file"], "--keep-steps-in is file"),
        (["--keep-steps-in", "cloud"], "--keep-steps-in"),
        (["--hvp", "neumann"], "--hvp"),
    ],
)
def test_refused_at_the_start(data_bin, tmp_path, more, expected):
    result = trained(data_bin, tmp_path, *more, expect=2)
    assert expected in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / RUN_FOLDER / "teacher_log.jsonl").exists()


def test_another_budget_on_resume(data_bin, unlimited, tmp_path):
    trained(data_bin, tmp_path, "--teacher-updates", "1")
    trained(data_bin, tmp_path, "--resume", "--memory-budget", "2G", "--keep-steps-in", "host")
    assert values(tmp_path).equal(values(unlimited))

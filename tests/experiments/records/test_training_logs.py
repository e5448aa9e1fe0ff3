"""Logs of students and teachers: what is read off them, and what is refused."""

import pytest

from experiments.records.training_logs import has_diverged, read_run, teacher_lines
from fairseq_l2t.pairs.parallel_text import BadInput
from tests.experiments.finished_runs import write_log


def test_a_log_is_read_once_for_what_was_done_twice(tmp_path):
    log = tmp_path / "log"
    again = '2026 | INFO | valid | {"valid_num_updates": "40", "valid_bleu": "7.5"}\n' + (
        '2026 | INFO | train_inner | {"num_updates": "40", "train_wall": "4"}\n'
    )
    write_log(log, (20, 5.0), (40, 7.0), more="a line of something else | valid | not it\n" + again)
    run = read_run(log)
    assert run.curve == ((20, 5.0), (40, 7.5))
    assert (run.best, run.updates, run.seconds) == ((40, 7.5), 40, 7.0)
    write_log(log, (20, 5.0), (40, 5.0))
    assert read_run(log).best == (40, 5.0)  # the last of equals, whose checkpoint fairseq keeps
    log.write_text("nothing\n", encoding="utf-8")
    with pytest.raises(BadInput, match="no validation in it"):
        read_run(log)


def test_a_run_that_diverged_has_what_it_had_before(tmp_path):
    """Only the last start counts; what fairseq looks for then may end in another error."""
    log = tmp_path / "log"
    error = "FloatingPointError: gradients are Nan/Inf\n\nDuring handling of the above exception\nStopIteration\n"
    write_log(log, (20, 5.0), (40, 4.0), more=error)
    run = read_run(log)
    assert run.diverged and has_diverged(log) and run.best == (20, 5.0)
    log.write_text(f"$ fairseq-train\n{error}", encoding="utf-8")
    assert read_run(log).curve == ((0, 0.0),)
    write_log(log, (20, 5.0), more=f"{error}$ fairseq-train\n")
    assert not read_run(log).diverged and not has_diverged(log)


CUT = '2026 | INFO | valid | {"valid_num_updates": "60", "val\n'


@pytest.mark.parametrize(
    "cut",
    [CUT, CUT.replace("valid |", "train_inner |"), CUT.replace(', "val', "}").replace("valid |", "train_inner |")],
)
def test_a_cut_line_is_named_unless_the_run_went_on_after_it(tmp_path, cut):
    log = tmp_path / "log"
    write_log(log, (20, 5.0), (40, 7.0), more=cut)
    with pytest.raises(BadInput, match=f"{log}, line 5: .*60.*expected a whole line"):
        read_run(log)
    with log.open("a", encoding="utf-8") as file:
        file.write("$ fairseq-train\n")
    assert read_run(log).curve == ((20, 5.0), (40, 7.0))


def test_a_cut_line_of_a_teacher_is_named(tmp_path):
    log = tmp_path / "teacher_log.jsonl"
    log.write_text('{"a": 1}\n{"a":', encoding="utf-8")
    with pytest.raises(BadInput, match=f"{log}, line 2: "):
        teacher_lines(tmp_path)

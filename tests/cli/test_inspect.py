import subprocess
import sys

import pytest

from fairseq_l2t.cli.inspect import main
from tests.inspection.files import WORDS, write_dictionary, write_log, write_teacher


@pytest.fixture
def files(tmp_path):
    return {
        "teacher": str(write_teacher(tmp_path / "teacher.safetensors")),
        "dict": str(write_dictionary(tmp_path / "dict.en.txt")),
        "log": str(write_log(tmp_path / "teacher_log.jsonl")),
        "plots": str(tmp_path / "plots"),
    }


def rows_of(shown):
    """Lines with one space between cells."""
    return [" ".join(line.split()) for line in shown.splitlines()]


def test_table_in_words(files, capsys):
    assert main([files["teacher"], "--dict", files["dict"], "--log", files["log"], "--stages", "0,1"]) == 0
    shown = capsys.readouterr().out
    for row in (
        "Phi, lowest over the words -0.1000 -0.1000",
        "1 house 2.00 the 3.00",
        "1 rare* -1.00 rare* -1.00",
        "the 900 1.00 3.00 +2.00",
    ):
        assert row in rows_of(shown)
    prose = " ".join(shown.split())
    for text in (
        "vocabulary 11 target entries",
        "diagonal Phi, from 2 keys",
        "objective likelihood",
        "1000 updates; the first 100 (to progress 0.1) with plain cross-entropy",
        "12 states of 3 student lives",
        "The words that gain most: the (1.00 to 3.00).",
        "The words that lose most: house (2.00 to 0.50).",
        "1 of 8 words end with a weight below 0",
    ):
        assert text in prose
    assert "madeupword" not in shown


def test_a_smoothed_teacher_in_words(files, tmp_path, capsys):
    assert main([files["teacher"], "--dict", files["dict"], "--stages", "0,1"]) == 0
    assert "psi" not in capsys.readouterr().out
    teacher = str(write_teacher(tmp_path / "smoothed", form="smoothed"))
    assert main([teacher, "--dict", files["dict"], "--stages", "0,1"]) == 0
    shown = capsys.readouterr().out
    assert "psi, of all words 0.0200 0.1000" in rows_of(shown)
    assert "weight of all words 0.200 1.000" in rows_of(shown)
    assert "Phi, lowest over the words -0.1000 -0.1000" in rows_of(shown)
    prose = " ".join(shown.split())
    assert "smoothed Phi, from 2 keys" in prose
    assert "-40 * sigmoid(Phi * log p + psi * mean log p of all words) per target token" in prose
    # The mean weights of words are 0.875 and 0.938.
    assert "All words together have weight 0.20 at progress 0 and 1.00 at 1, 19 % and 52 % of the total" in prose


def test_plots(files, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    arguments = [files["teacher"], "--dict", files["dict"], "--plots", files["plots"]]
    assert main(arguments) == 0
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert names == {"phi_over_progress.png", "words_over_progress.png"}
    assert "drawn from --log" in capsys.readouterr().out
    assert main([*arguments, "--log", files["log"]]) == 0
    assert (tmp_path / "plots" / "teacher_training.png").stat().st_size > 10_000


def refusal(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("l2t-inspect: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--top", "0", "'0'; expected a whole number of at least 1"),
        ("--top", "many", "'many'; expected a whole number of at least 1"),
        ("--min-count", "-1", "'-1'; expected a whole number of at least 0"),
        ("--min-count", "1000", "--min-count: 1000; no word"),
        ("--rare-below", "x", "'x'; expected a whole number"),
        ("--stages", "", "numbers in [0, 1]"),
        ("--stages", "0,2", "'0,2'; expected at most 8 numbers in [0, 1]"),
        ("--stages", "0,nan", "numbers in [0, 1]"),
        ("--stages", "0,.1,.2,.3,.4,.5,.6,.7,.8", "at most 8"),
        ("--log", "absent.jsonl", "--log absent.jsonl: No such file"),
        ("--dict", "absent.txt", "--dict absent.txt: No such file"),
        ("--unknown", "1", "unrecognized arguments"),
    ],
)
def test_bad_options(files, capsys, option, value, expected):
    error = refusal([files["teacher"], "--dict", files["dict"], f"{option}={value}"], capsys)
    assert expected in error
    if option != "--unknown":
        assert option in error


def test_row_3_and_10_of_the_fault_table(files, capsys, tmp_path):
    raw = (tmp_path / "teacher.safetensors").read_bytes()
    (tmp_path / "cut").write_bytes(raw[:-1])
    for name, expected in (("cut", "cut"), ("absent", "No such file"), (".", "directory")):
        assert expected in refusal([tmp_path / name, "--dict", files["dict"]], capsys)


@pytest.mark.parametrize("option", ["--dict", "--log"])
def test_a_sparse_file_is_not_read(files, capsys, tmp_path, option):
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(20 << 30)
    arguments = [files["teacher"], "--dict", files["dict"], option, tmp_path / "sparse"]
    assert f"{option} {tmp_path / 'sparse'}: {20 << 30} bytes; expected at most {1 << 30}" in refusal(arguments, capsys)


def test_row_8_another_dictionary(files, capsys, tmp_path):
    longer = write_dictionary(tmp_path / "longer", {**WORDS, "new": 1})
    assert "12 entries" in refusal([files["teacher"], "--dict", longer], capsys)
    order = write_dictionary(tmp_path / "order", dict(reversed(WORDS.items())))
    assert "in another order" in refusal([files["teacher"], "--dict", order], capsys)


def test_plots_folder_is_a_file(files, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "plots").touch()
    with pytest.raises(SystemExit) as caught:
        main([files["teacher"], "--dict", files["dict"], "--plots", files["plots"]])
    assert caught.value.code == 2
    assert f"--plots: {files['plots']}: " in capsys.readouterr().err


RUN = """
import sys
{before}
from fairseq_l2t.cli.inspect import main
code = main(sys.argv[1:])
loaded = sorted({{"fairseq", "matplotlib"}} & set(sys.modules))
print(code, loaded, file=sys.stderr)
"""


def run(arguments, before="", **options):
    command = [sys.executable, "-c", RUN.format(before=before), *arguments]
    return subprocess.run(command, capture_output=True, text=True, **options)


def test_the_table_needs_neither_matplotlib_nor_fairseq(files):
    done = run(
        [files["teacher"], "--dict", files["dict"]],
        before="sys.modules['matplotlib'] = None",
        env={"PYTHONIOENCODING": "ascii"},
    )
    assert done.stderr == "0 ['matplotlib']\n"  # the entry that forbids it
    assert "?small" in done.stdout


def test_plots_without_matplotlib(files):
    arguments = [files["teacher"], "--dict", files["dict"], "--plots", files["plots"]]
    done = run(arguments, before="sys.modules['matplotlib'] = None")
    assert done.returncode == 2
    assert done.stderr.startswith("l2t-inspect: error: --plots: matplotlib")
    assert done.stderr.count("\n") == 1

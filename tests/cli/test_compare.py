"""`l2t-compare` against the `sacrebleu` command line, and its errors."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
import sacrebleu

from fairseq_l2t.cli.compare import compare, main

REFERENCES = [
    "The dog bit the old man .",
    "She bought three red apples at the market.",
    "We will visit Rome soon.",
    "It is raining, so they stay at home.",
    "He has already read the newspaper.",
] * 12


def _damaged(share, seed):
    """The references with a share of the words replaced."""
    rng = Random(seed)
    return [" ".join("thing" if rng.random() < share else word for word in line.split()) for line in REFERENCES]


@pytest.fixture
def files(tmp_path):
    texts = {"ref": REFERENCES, "base": _damaged(0.3, 1), "better": _damaged(0.15, 2), "same": _damaged(0.3, 3)}
    for name, lines in texts.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def _run(files, *more):
    return main(["--ref", str(files / "ref"), "--baseline", str(files / "base"), *more])


def _sacrebleu(files, seed):
    """What `sacrebleu --paired-bs` prints for the same files."""
    command = [
        str(Path(sys.executable).parent / "sacrebleu"),
        str(files / "ref"),
        "-i",
        str(files / "base"),
        str(files / "better"),
        str(files / "same"),
        "-m",
        "bleu",
        "chrf",
        "--paired-bs",
        "--paired-bs-n",
        "200",
        "-f",
        "json",
    ]
    result = subprocess.run(
        command, check=True, capture_output=True, text=True, env=dict(os.environ, SACREBLEU_SEED=str(seed))
    )
    return json.loads(result.stdout)


@pytest.mark.parametrize("seed", [12345, 7])
def test_numbers_are_those_of_the_sacrebleu_command(files, seed):
    _run(
        files,
        "--systems",
        str(files / "better"),
        str(files / "same"),
        "--samples",
        "200",
        "--seed",
        str(seed),
        "--json",
        str(files / "out.json"),
    )
    ours = json.loads((files / "out.json").read_text(encoding="utf-8"))
    for our, their in zip(ours["systems"], _sacrebleu(files, seed), strict=True):
        for metric in ("BLEU", "chrF2"):
            assert round(our[metric]["score"], 1) == pytest.approx(their[metric]["score"], abs=0.051)
            if our[metric]["p_value"] is not None:
                assert our[metric]["p_value"] == pytest.approx(their[metric]["p_value"], abs=5e-5)


def test_table_shows_scores_differences_and_signatures(files, capsys):
    assert _run(files, "--systems", str(files / "better"), "--samples", "100") == 0
    header, base, better, *rest = capsys.readouterr().out.splitlines()
    assert header.split() == ["system", "BLEU", "delta", "p", "chrF2", "delta", "p"]
    assert len(base.split()) == 3
    name, bleu, delta, p_value, *_ = better.split()
    assert name == "better"
    assert float(delta) == pytest.approx(float(bleu) - float(base.split()[1]), abs=0.011)
    assert float(delta) > 5 and float(p_value) < 0.05
    assert any(re.match(r"BLEU: nrefs:1\|bs:100\|seed:12345\|.*version:", line) for line in rest)
    assert any(line.startswith("chrF2: nrefs:1|") for line in rest)


def test_seed_decides_the_p_value():
    """Control: the seed reaches sacrebleu, and leaves the environment as it was."""
    systems = [("base", _damaged(0.3, 1)), ("same", _damaged(0.3, 3))]
    before = os.environ.get("SACREBLEU_SEED")
    first, again, other = (compare([REFERENCES], systems, 150, seed) for seed in (1, 1, 2))
    assert first == again
    assert first["systems"][1]["BLEU"]["mean"] != other["systems"][1]["BLEU"]["mean"]
    assert os.environ.get("SACREBLEU_SEED") == before


def test_files_of_the_same_name_are_told_apart_by_their_paths(files, capsys):
    (files / "other").mkdir()
    twin = files / "other" / "base"
    twin.write_bytes((files / "same").read_bytes())
    _run(files, "--systems", str(twin), "--samples", "10")
    assert str(twin) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("system", "more", "words"),
    [
        ("missing", [], ["missing", "no such file"]),
        ("folder", [], ["folder", "a folder"]),
        ("short", [], ["ref has 60 lines", "short has 2"]),
        ("empty", [], ["empty: empty"]),
        ("latin", [], ["latin", "byte 1", "UTF-8"]),
        ("base", [], ["base: given twice"]),
        ("better", ["--num-refs", "0"], ["--num-refs: 0", "at least 1"]),
        ("better", ["--num-refs", "2"], ["ref: line 1 has 1 references, expected 2 (--num-refs)"]),
        ("better", ["--tokenize", "mecab"], ["--tokenize", "'mecab'", "'13a'", "'ja-mecab'"]),
        ("better", ["--samples", "0"], ["--samples: 0", "at least 1"]),
        ("better", ["--seed", "0"], ["--seed: 0", "at least 1"]),
        ("better", ["--json", "absent/out.json"], ["absent/out.json", "No such file"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(files, capsys, monkeypatch, system, more, words):
    monkeypatch.chdir(files)
    (files / "folder").mkdir()
    (files / "short").write_text("one\ntwo\n", encoding="utf-8")
    (files / "empty").write_bytes(b"")
    (files / "latin").write_bytes(b"f\xfcr\n" * len(REFERENCES))
    with pytest.raises(SystemExit) as stop:
        _run(files, "--systems", str(files / system), "--samples", "10", *more)
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("l2t-compare: error: ") and message.count("\n") == 1
    for word in words:
        assert word in message


def test_no_system_is_refused(files, capsys):
    with pytest.raises(SystemExit) as stop:
        _run(files, "--systems")
    assert stop.value.code == 2
    message = "argument --systems: expected at least one argument"
    assert capsys.readouterr().err == f"l2t-compare: error: {message}\n"


def test_blank_hypotheses_score_zero(files, capsys):
    """A system that says nothing is bad, not an error."""
    (files / "silent").write_text("\n" * len(REFERENCES), encoding="utf-8")
    assert _run(files, "--systems", str(files / "silent"), "--samples", "10") == 0
    assert re.search(r"^silent +0\.00 ", capsys.readouterr().out, re.MULTILINE)


def test_a_twin_of_the_baseline_has_no_p_value(files, capsys):
    (files / "twin").write_bytes((files / "base").read_bytes())
    assert _run(files, "--systems", str(files / "twin"), "--samples", "10") == 0
    assert re.search(r"^twin +[0-9.]+ +\+0\.00 +- +[0-9.]+ +\+0\.00 +-$", capsys.readouterr().out, re.MULTILINE)


CHINESE = ["今天天气很好，我们去公园散步。", "他昨天买了三个红苹果。", "外面下雨了，所以他们待在家里。"]
OTHERS = ["今天天气很好，我们去花园散步。", "他昨天买了三个苹果。", "外面下雨，所以他们都在家。"]


@pytest.fixture
def chinese(tmp_path):
    texts = {"ref": CHINESE, "second": OTHERS[::-1], "base": [line[:5] for line in OTHERS], "better": OTHERS}
    for name, lines in texts.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    both = [f"{one}\t{two}" for one, two in zip(CHINESE, texts["second"], strict=True)]
    (tmp_path / "columns").write_text("\n".join(both) + "\n", encoding="utf-8")
    return tmp_path


def _scores(folder, *more):
    out = folder / "out.json"
    given = ["--baseline", str(folder / "base"), "--systems", str(folder / "better"), "--samples", "10"]
    assert main([*given, "--json", str(out), *more]) == 0
    return json.loads(out.read_text(encoding="utf-8"))


def test_the_tokenizer_is_that_of_the_language(chinese, capsys):
    """By 13a, which takes a Chinese sentence for one word, both systems score 0."""
    zh = _scores(chinese, "--ref", str(chinese / "ref"), "--tokenize", "zh")
    assert "warning" not in capsys.readouterr().err
    expected = sacrebleu.corpus_bleu(OTHERS, [CHINESE], tokenize="zh").score
    assert zh["systems"][1]["BLEU"]["score"] == pytest.approx(expected, abs=1e-9) and expected > 50
    assert "tok:zh" in zh["signatures"]["BLEU"]
    plain = _scores(chinese, "--ref", str(chinese / "ref"))
    assert plain["systems"][1]["BLEU"]["score"] == 0.0
    assert plain["systems"][1]["chrF2"] == zh["systems"][1]["chrF2"]
    assert "warning: --tokenize 13a splits at spaces, and most of the text" in capsys.readouterr().err


def test_several_references_are_as_in_sacrebleu(chinese, capsys):
    files = _scores(chinese, "--ref", str(chinese / "ref"), str(chinese / "second"), "--tokenize", "zh")
    expected = sacrebleu.corpus_bleu(OTHERS, [CHINESE, OTHERS[::-1]], tokenize="zh").score
    assert files["systems"][1]["BLEU"]["score"] == pytest.approx(expected, abs=1e-9)
    assert "nrefs:2" in files["signatures"]["BLEU"]
    columns = _scores(chinese, "--ref", str(chinese / "columns"), "--num-refs", "2", "--tokenize", "zh")
    assert columns == files != _scores(chinese, "--ref", str(chinese / "ref"), "--tokenize", "zh")
    given = ["--baseline", str(chinese / "base"), "--systems", str(chinese / "better")]
    for ref, message in (
        (["ref", "short"], "ref has 3 lines, "),
        (["ref", "second", "--num-refs", "2"], "--num-refs: 2, expected one file of references, 2 are given (--ref)"),
    ):
        (chinese / "short").write_text("一\n", encoding="utf-8")
        paths = [str(chinese / name) if (chinese / name).exists() else name for name in ref]
        with pytest.raises(SystemExit):
            main(["--ref", *paths, *given])
        assert message in capsys.readouterr().err


def test_a_tokenizer_without_its_program_is_refused(chinese, capsys, monkeypatch):
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ja_mecab.MeCab", None)
    with pytest.raises(SystemExit) as stop:
        _scores(chinese, "--ref", str(chinese / "ref"), "--tokenize", "ja-mecab")
    message = "--tokenize: ja-mecab needs MeCab and its dictionary: pip install 'sacrebleu[ja]'; or use char"
    assert stop.value.code == 2 and capsys.readouterr().err == f"l2t-compare: error: {message}\n"


@pytest.mark.parametrize("references", [[[line] for line in REFERENCES], REFERENCES, [REFERENCES, REFERENCES[:-1]]])
def test_references_of_another_shape_are_refused(references):
    """sacrebleu would score the first segments alone, in silence."""
    with pytest.raises(ValueError, match="expected sets of segments, all equally long"):
        compare(references, [("base", REFERENCES), ("same", REFERENCES)], 10)

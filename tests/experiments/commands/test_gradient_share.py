"""The share of the gradient that misaligned pairs get, from the checkpoints of real trainings."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

import fairseq_l2t
from experiments.__main__ import main
from experiments.commands.gradient_share import _loaded, checkpoints_of, share_of_noise
from fairseq_l2t.pairs.parallel_text import BadInput, read_lines
from fairseq_l2t.pairs.prepare import PrepareSettings, prepare
from fairseq_l2t.pairs.programs import console_script

OPTIONS = """
--arch transformer --encoder-layers 1 --encoder-embed-dim 16 --encoder-ffn-embed-dim 16 --encoder-attention-heads 2
--decoder-layers 1 --decoder-embed-dim 16 --decoder-ffn-embed-dim 16 --decoder-attention-heads 2
--share-all-embeddings --dropout 0.1 --optimizer adam --lr 0.01 --max-tokens 1000 --num-workers 0
"""
MODEL = tuple(OPTIONS.split())


def run(program, *arguments):
    subprocess.run([console_script(program), *map(str, arguments)], check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def trained(raw_corpus, tmp_path_factory):
    """DATA_BIN and the folders of a student under cross-entropy and of one under a teacher, after 2 and 4 updates."""
    folder = tmp_path_factory.mktemp("shares")
    data = prepare(raw_corpus, folder / "data", PrepareSettings(vocabulary=150, noise=0.3))
    teacher = folder / "teacher"
    run(
        "l2t-train-teacher",
        data,
        *MODEL,
        "--total-updates",
        4,
        "--unroll-length",
        2,
        "--cross-entropy-updates",
        1,
        "--teacher-updates",
        0,
        "--initial-coefficient",
        1.0,
        "--skip-quick-check",
        "--save-dir",
        teacher,
    )
    taught = [
        "--user-dir",
        Path(fairseq_l2t.__file__).parent,
        "--task",
        "l2t_dlf",
        "--criterion",
        "dynamic_teacher_loss",
        "--teacher-path",
        teacher / "teacher.safetensors",
    ]
    for name, criterion in (("ce", ["--criterion", "cross_entropy"]), ("taught", taught)):
        run(
            "fairseq-train",
            data,
            *MODEL,
            *criterion,
            "--max-update",
            4,
            "--save-interval-updates",
            2,
            "--disable-validation",
            "--save-dir",
            folder / name,
        )
    return data, folder


def noisy_pairs(data):
    return frozenset(int(line) - 1 for line in read_lines(data.parent / "train.noise.txt"))


@pytest.mark.very_slow
def test_under_cross_entropy_it_is_the_norm_of_p_less_the_word(trained):
    data, folder = trained
    (_, _), (update, path) = checkpoints_of(folder / "ce")
    noisy, pairs = noisy_pairs(data), list(range(0, 300, 3))
    found = share_of_noise(path, update, data, pairs, noisy)
    task, model, _ = _loaded(path, data, update)
    expected, tokens = {True: 0.0, False: 0.0}, {True: 0, False: 0}
    for number in pairs:
        sample = task.dataset("train").collater([task.dataset("train")[number]])
        with torch.no_grad():
            probabilities = model(**sample["net_input"])[0].softmax(-1)[0]
        word = torch.nn.functional.one_hot(sample["target"][0], probabilities.shape[-1])
        expected[number in noisy] += float((probabilities - word).norm(dim=-1).sum())
        tokens[number in noisy] += sample["ntokens"]
    assert update == 4
    assert found["share"] == pytest.approx(expected[True] / sum(expected.values()), rel=1e-5)
    assert found["tokens"] == pytest.approx(tokens[True] / sum(tokens.values()))
    assert found["share"] != pytest.approx(found["tokens"], rel=1e-4)


@pytest.mark.very_slow
def test_the_command_holds_every_checkpoint_against_its_own_criterion(trained, tmp_path, capsys):
    data, folder = trained
    lines, plot = tmp_path / "shares.jsonl", tmp_path / "shares.png"
    code = main(
        [
            "gradient-share",
            str(data),
            "--checkpoints",
            f"CE={folder / 'ce'}",
            f"L2T={folder / 'taught'}",
            "--pairs",
            "60",
            "--json",
            str(lines),
            "--plot",
            str(plot),
        ]
    )
    found = [json.loads(line) for line in read_lines(lines)]
    assert code == 0
    assert [(one["name"], one["update"]) for one in found] == [("CE", 2), ("CE", 4), ("L2T", 2), ("L2T", 4)]
    # Phi = 1 weighs what is improbable down: another share than cross-entropy's, though the students are alike.
    assert found[1]["share"] != pytest.approx(found[3]["share"], rel=1e-3)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "of the tokens:" in capsys.readouterr().out


def test_what_is_missing_is_named(raw_corpus, tmp_path, capsys):
    (tmp_path / "bin").mkdir()
    command = ["gradient-share", str(tmp_path / "bin"), "--checkpoints", f"CE={tmp_path}"]
    for content, message in ((None, "no misaligned pairs"), ("", "no misaligned pairs"), ("3\nx\n", "line 2: 'x'")):
        if content is not None:
            (tmp_path / "train.noise.txt").write_text(content, encoding="utf-8")
        assert main(command) == 2
        told = capsys.readouterr().err
        assert "train.noise.txt" in told and message in told
    with pytest.raises(BadInput, match="expected checkpoint_EPOCH_UPDATES"):
        checkpoints_of(tmp_path)
    with pytest.raises(SystemExit):
        main(["gradient-share", str(tmp_path), "--checkpoints", "DIR"])
    assert "DIR; expected NAME=DIR" in capsys.readouterr().err

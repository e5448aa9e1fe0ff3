"""Every command of every page: run, or marked as long and checked. CONTRIBUTING.md explains the comments."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.docs.known_commands import recorded, why_unknown
from tests.docs.pages import Block, blocks_of, pages_of
from toy_corpus.tiny import build_tiny_corpus

PAGES = pages_of(REPOSITORY)
BLOCKS = [block for page in PAGES for block in blocks_of(REPOSITORY, page)]
LONG = [block for block in BLOCKS if block.kind == "long"]
RUN_PAGES = [page for page in PAGES if any(block.kind == "run" and block.page == page for block in BLOCKS)]
TOP_FOLDERS = ("benchmarks", "docs", "examples", "experiments", "fairseq_l2t", "toy_corpus")
_TIME_LIMIT = 120


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """DATA_BIN of a tiny corpus; only to be read."""
    return build_tiny_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def beginning(data, tmp_path_factory):
    """A folder in which a page's commands can be given: the checkout's folders, data, and three translations."""
    folder = tmp_path_factory.mktemp("beginning")
    for name in TOP_FOLDERS:
        if (REPOSITORY / name).exists():
            (folder / name).symlink_to(REPOSITORY / name)
    (folder / "DATA_BIN").symlink_to(data)
    (folder / "RAW_DIR").symlink_to(data.parent.parent / "raw")
    reference = (data.parent.parent / "raw" / "test.en").read_text(encoding="utf-8").splitlines()
    translations = {"reference": reference, "cross-entropy": reference[::-1], "taught": reference[:20] + reference[:20]}
    for name, lines in translations.items():
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def after_readme(beginning):
    """The same folder with what the README's example makes: teacher/ and student/."""
    run_page("README.md", beginning)
    return beginning


def run_page(page, folder):
    for block in BLOCKS:
        if block.page == page and block.kind == "run":
            run_block(block, folder)


def run_block(block, folder):
    text = block.shortened()
    command = ["bash", "-euo", "pipefail", "-c", text] if block.language == "bash" else [sys.executable, "-c", text]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PATH": path, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_TIME_LIMIT, check=False
    )
    if result.returncode:
        pytest.fail(f"{block}\n{text}\nexit code {result.returncode}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}")


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_marked(page):
    assert [str(block) for block in blocks_of(REPOSITORY, page) if not block.kind] == []


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.kind == "run"], ids=str)
def test_what_a_comment_replaces_occurs(block):
    assert block.shortened() == block.text or block.note


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("docs/results/")])
def test_paths_on_a_page_exist(page):
    text = Path(REPOSITORY, page).read_text(encoding="utf-8")
    named = re.findall(rf"`((?:tests|{'|'.join(TOP_FOLDERS)})/[\w./-]*)`", text)
    assert [path for path in named if not Path(REPOSITORY, path).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_to_files(page):
    """As on GitHub; the site's own links are checked when it is built."""
    text = Path(REPOSITORY, page).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)[^)\s]*\)", text) if "://" not in target]
    assert [target for target in targets if not (REPOSITORY / page).parent.joinpath(target).exists()] == []


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_PAGES)
def test_commands_of_a_page_run(page, after_readme, tmp_path):
    if page == "README.md":  # run by the fixture, for all pages
        assert (after_readme / "student" / "checkpoint_best.pt").is_file()
        return
    folder = tmp_path / "page"
    shutil.copytree(after_readme, folder, symlinks=True)
    run_page(page, folder)


@pytest.mark.parametrize("block", LONG, ids=str)
def test_long_commands_are_known(block, data, tmp_path, monkeypatch):
    assert block.note, "a long block needs a reason"
    (tmp_path / "DATA_BIN").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    commands = recorded(block.text, REPOSITORY, tmp_path)
    assert commands
    assert [reason for command in commands if (reason := why_unknown(command, REPOSITORY))] == []


@pytest.mark.parametrize(
    "text",
    [
        "l2t-train-teacher DATA_BIN --arch transformer_tiny --teacher-knowledge 1 --save-dir a",
        "fairseq-train DATA_BIN --arch transformer_tiny --teacher-knowledge 1",
        "l2t-classify train --teacher-knowledge 1 --save-dir a",
        "make knowledge",
        "python -m toy_corpus.knowledge",
        "python -m toy_corpus.corpus --knowledge 1",
        "python docs/knowledge.py",
    ],
)
def test_an_unknown_command_is_found(text, data, tmp_path, monkeypatch):
    """The control."""
    (tmp_path / "DATA_BIN").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    (command,) = recorded(text, REPOSITORY, tmp_path)
    assert why_unknown(command, REPOSITORY)


def test_a_program_that_does_not_exist_is_found(tmp_path):
    """The control."""
    with pytest.raises(AssertionError, match="l2t-knowledge"):
        recorded("l2t-knowledge DATA_BIN", REPOSITORY, tmp_path)


def test_a_block_without_a_comment_is_found(tmp_path):
    """The control."""
    (tmp_path / "page.md").write_text("text\n\n```bash\nls\n```\n\n<!-- run -->\n```bash\nls\n```\n", encoding="utf-8")
    assert [block.kind for block in blocks_of(tmp_path, "page.md")] == ["", "run"]


def test_a_replacement_of_nothing_is_found():
    """The control."""
    with pytest.raises(ValueError, match="replaces nothing"):
        Block("page.md", 1, "bash", "run", "500 => 5", "ls").shortened()

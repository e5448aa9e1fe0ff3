"""The pages of the documentation and the blocks of commands on them."""

import re
from dataclasses import dataclass
from pathlib import Path

LANGUAGES = ("bash", "python")
_MARK = re.compile(r"<!-- (run|long)(?:: (.+))? -->")
_FENCE = re.compile(r"^```(\w*)\s*$")
_OTHER_SHELLS = ("console", "sh", "shell", "zsh", "py", "python3")
_KEPT_RESULTS = "docs/results/"
"""Pages that show commands as indented blocks, each the command of a table: none of them is short."""


@dataclass(frozen=True)
class Block:
    """One block of commands: ``kind`` is ``run``, ``long`` or, without a comment, empty."""

    page: str
    line: int
    language: str
    kind: str
    note: str
    text: str

    def __str__(self):
        return f"{self.page}:{self.line}"

    def shortened(self):
        """The text with the replacements of ``run: A => B, C => D``; one whose text does not occur is an error."""
        text = self.text
        for replacement in filter(None, self.note.split(", ") if self.kind == "run" else []):
            before, arrow, after = replacement.partition(" => ")
            if not arrow or before not in text:
                raise ValueError(f"{self}: {replacement!r} replaces nothing; expected TEXT OF THE BLOCK => OTHER TEXT")
            text = text.replace(before, after)
        return text


def pages_of(repository):
    """The pages that are written by hand, relative to the checkout."""
    pages = [repository / "README.md", repository / "CONTRIBUTING.md", *sorted(repository.glob("docs/**/*.md"))]
    return [path.relative_to(repository).as_posix() for path in pages]


def blocks_of(repository, page):
    """The blocks of commands of one page, in order."""
    lines = Path(repository, page).read_text(encoding="utf-8").splitlines()
    return list(_indented(page, lines) if page.startswith(_KEPT_RESULTS) else _fenced(page, lines))


def _fenced(page, lines):
    opened = None
    for number, line in enumerate(lines, start=1):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if opened is not None:
            start, language = opened
            opened = None
            if language in LANGUAGES:
                mark = _MARK.fullmatch(lines[start - 2]) if start > 1 else None
                kind, note = (mark[1], mark[2] or "") if mark else ("", "")
                yield Block(page, start, language, kind, note, "\n".join(lines[start : number - 1]) + "\n")
        elif fence[1] in _OTHER_SHELLS:
            raise ValueError(f"{page}:{number}: block of {fence[1]!r}; expected {' or '.join(LANGUAGES)}")
        else:
            opened = number, fence[1]


def _indented(page, lines):
    """Blocks of four spaces that begin with ``python -m``."""
    number = 0
    while number < len(lines):
        start = number
        while number < len(lines) and lines[number].startswith("    "):
            number += 1
        if number > start and lines[start].startswith("    python -m"):
            text = "\n".join(line[4:] for line in lines[start:number]) + "\n"
            yield Block(page, start + 1, "bash", "long", "a table of the results", text)
        number += number == start

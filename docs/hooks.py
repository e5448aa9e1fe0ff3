"""What MkDocs does beside its own work: pages made from code, pages copied from outside docs/, links between both.

- ``<!-- generated: NAME -->`` in a page becomes the text that `GENERATED` makes.
- Files of `copied_pages` are read where they stand and become pages, so that each is written once.
- A relative link is written as it works on GitHub. Here a link to a copied file becomes one to its page, and a link to
  any other file of the repository becomes its path.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
_LINK = re.compile(r"(?P<mark>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_MARKER = re.compile(r"<!-- generated: (\w+) -->")


def copied_pages() -> dict[str, Path]:
    """Return the file of the repository that each copied page is made from, by the page's place in the site."""
    benchmarks = {f"benchmarks/{path.parent.name}.md": path for path in sorted(ROOT.glob("benchmarks/*/README.md"))}
    return {"contributing.md": ROOT / "CONTRIBUTING.md", **benchmarks}


def compatibility_table() -> str:
    """Return one row for each patch of fairseq_l2t/compat, from its docstring."""
    rows = ["| defect | versions | test that fails without the patch | file |", "|---|---|---|---|"]
    for path in sorted((ROOT / "fairseq_l2t" / "compat").glob("*.py")):
        if path.name == "__init__.py":
            continue
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        title = text.partition("\n\n")[0].replace("\n", " ")
        versions = re.search(r"Versions: (.+?)(?=\nLinks?:|\nWithout it fails:|\n\n)", text, re.DOTALL)
        test = re.search(r"Without it fails: (\S+::\w+)", text)
        if versions is None or test is None:
            raise ValueError(f"{path}: the docstring has no line 'Versions:' or no line 'Without it fails:'")
        links = " ".join(f"<{link.rstrip('.,')}>" for link in re.findall(r"https://\S+", text))
        cells = (title, f"{' '.join(versions[1].split())} {links}", f"`{test[1]}`", f"`{path.name}`")
        rows.append("| " + " | ".join(cell.replace("|", "\\|").replace("``", "`").strip() for cell in cells) + " |")
    return "\n".join(rows)


def options_tables() -> str:
    """Return the tables of the options, without the title that the page has already."""
    from fairseq_l2t.cli.options_page import options_page

    return options_page().removeprefix("# Options\n")


GENERATED: dict[str, Callable[[], str]] = {"compatibility": compatibility_table, "options": options_tables}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the copied pages and the pictures beside them."""
    for place, path in copied_pages().items():
        files.append(File.generated(config, place, content=path.read_text(encoding="utf-8")))
        for picture in _pictures_of(path):
            where = os.path.normpath(os.path.join(os.path.dirname(place), os.path.relpath(picture, path.parent)))
            files.append(File.generated(config, where, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is generated and turn links into those of the site."""
    place = page.file.src_uri
    source = copied_pages().get(place, ROOT / "docs" / place)
    text = _MARKER.sub(lambda found: GENERATED[found[1]](), markdown)
    return _LINK.sub(lambda found: _link(found, source, place, files), text)


def _pictures_of(path: Path) -> Iterator[Path]:
    for found in _LINK.finditer(path.read_text(encoding="utf-8")):
        if found["mark"] and "://" not in found["target"]:
            yield (path.parent / found["target"]).resolve()


def _link(found: re.Match[str], source: Path, place: str, files: Files) -> str:
    """Return the Markdown of one link of the page at ``place``, which was read from ``source``."""
    target, _, anchor = found["target"].partition("#")
    if not target or "://" in target or target.startswith("mailto:"):
        return found[0]
    path = (source.parent / target).resolve()
    pages = {file: page for page, file in copied_pages().items()}
    pages[ROOT / "README.md"] = "index.md"
    docs = ROOT / "docs"
    to = pages.get(path) or (path.relative_to(docs).as_posix() if path.is_relative_to(docs) else None)
    if to is None and found["mark"]:  # a picture of a copied page lies beside that page
        return found[0]
    if to is not None:
        relative = os.path.relpath(to, os.path.dirname(place) or ".")
        return f"{found['mark']}[{found['text']}]({relative}{'#' + anchor if anchor else ''})"
    if not path.exists():
        return found[0]  # MkDocs reports it
    name, shown = path.relative_to(ROOT).as_posix(), found["text"].strip("`")
    return f"`{name}`" if shown in (name, target, path.name) else f"{found['text']} (`{name}`)"

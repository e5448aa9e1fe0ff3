"""The site is built without warnings, from this checkout, and has every page."""

import re

import pytest

PAGES = (
    "index.html",
    "options/index.html",
    "python/index.html",
    "contributing/index.html",
    "benchmarks/cost/index.html",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory, run_command, repository):
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    run_command(["python", "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder], cwd=repository)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_pages_are_built(site, page):
    assert (site / page).is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("options", "--holdout-lives"),
        ("compatibility", "checkpoint_types.py"),
        ("python", "hypergradient_with_adjoint"),
        ("contributing", "How to add an option"),
    ],
)
def test_pages_hold_what_they_are_made_from(site, page, text):
    assert text in (site / page / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_no_page_asks_the_network(site):
    """Links may lead elsewhere; fonts, scripts and pictures may not."""
    loaded = re.compile(r"""<(?:script|img|link rel="(?:stylesheet|preload)")[^>]*(?:src|href)="https?://""")
    assert [path for path in site.rglob("*.html") if loaded.search(path.read_text(encoding="utf-8"))] == []

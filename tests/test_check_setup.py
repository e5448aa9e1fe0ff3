"""The check before `make install`: what is missing is named at once, with a remedy."""

import re
import subprocess
import sys
import tomllib

import pytest

import check_setup

GOOD = {"version": (3, 11), "compilers": ["g++"], "header": check_setup.__file__, "modules": ("venv",)}


def told(**changes):
    return list(check_setup.problems(**{**GOOD, **changes}, find={"g++": "/bin/g++"}.get))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": (3, 10)}, "Python 3.10 at .*; expected 3.11 .*PYTHON=/path/to/python3.11"),
        ({"version": (3, 13)}, "Python 3.13 at "),
        ({"compilers": ["g++", "clang++"]}, "no compiler clang.*apt install g.. python3.11-dev python3.11-venv"),
        ({"header": "/absent/Python.h"}, "no /absent/Python.h, .*python3.11-dev"),
        ({"modules": ("venv", "absent_module"), "version": (3, 12)}, "no module absent_module, .*python3.12-venv"),
    ],
)
def test_what_is_missing_is_named(changes, words):
    (line,) = told(**changes)
    assert re.search(words, line)


def test_nothing_is_missing_here():
    assert told() == []
    assert check_setup.main() == 0


def test_the_versions_are_those_of_the_package(repository):
    declared = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    assert declared == ">={}.{},<{}.{}".format(*check_setup.OLDEST, *check_setup.FIRST_UNSUPPORTED)


@pytest.mark.parametrize(
    ("python", "message"),
    [("no-such-python", "no-such-python: cannot be started; install Python 3.11"), (sys.executable, "expected 3.11")],
)
def test_make_checks_before_it_installs(repository, tmp_path, python, message):
    """With an interpreter that is absent, and one that is too old by a changed copy of the check."""
    source = (repository / "check_setup.py").read_text(encoding="utf-8")
    (tmp_path / "check_setup.py").write_text(source.replace("(3, 11)", "(3, 99)"), encoding="utf-8")
    for name in ("Makefile", "setup.py", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((repository / name).read_bytes())
    result = subprocess.run(["make", "install", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2 and message in result.stderr
    assert not (tmp_path / ".venv").exists()

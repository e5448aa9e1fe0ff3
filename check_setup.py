"""Check what `make install` needs, before minutes of downloads and builds; any Python 3 can run this file.

fairseq 0.12.2 has no wheel for these Pythons, so pip compiles it: that takes a C++ compiler and the headers of Python.
"""

import importlib.util
import os
import shutil
import sys
import sysconfig

OLDEST, FIRST_UNSUPPORTED = (3, 11), (3, 13)
"""As `requires-python` in pyproject.toml."""

SYSTEM_PACKAGES = "g++ python{0}.{1}-dev python{0}.{1}-venv"
"""Packages of Debian and Ubuntu."""


def problems(version, compilers, header, modules, find=shutil.which):
    """Return a line for each thing that is missing.

    Args:
        version: of Python, (major, minor).
        compilers: programs that compile C++.
        header: path of Python.h.
        modules: importable modules that are needed.
        find: returns the path of a program, or None.
    """
    if not OLDEST <= version < FIRST_UNSUPPORTED:
        yield (
            f"Python {version[0]}.{version[1]} at {sys.executable}; expected 3.11 (tested) or 3.12, as in "
            "`make install PYTHON=/path/to/python3.11`"
        )
        return  # the rest depends on the interpreter
    packages = SYSTEM_PACKAGES.format(*version)
    remedy = f"on Debian and Ubuntu: apt install {packages}"
    for program in compilers:
        if find(program) is None:
            yield f"no compiler {program}, which builds fairseq; {remedy}"
    if not os.path.exists(header):
        yield f"no {header}, which fairseq is built with; {remedy}"
    for name in modules:
        if importlib.util.find_spec(name) is None:
            yield f"{sys.executable} has no module {name}, which makes virtual environments; {remedy}"


def compilers_of(environment):
    """Return the programs with which setuptools compiles and links C++: CC and CXX, of the environment or of Python."""
    commands = [environment.get(name) or sysconfig.get_config_var(name) or "" for name in ("CC", "CXX")]
    return sorted({command.split()[0] for command in commands if command.split()}) or ["g++"]


def main():
    """Print what is missing; return the exit code."""
    header = os.path.join(sysconfig.get_path("include"), "Python.h")
    found = list(problems(sys.version_info[:2], compilers_of(os.environ), header, ("venv", "ensurepip")))
    for line in found:
        print(f"check_setup.py: error: {line}", file=sys.stderr)
    return 2 if found else 0


if __name__ == "__main__":
    sys.exit(main())

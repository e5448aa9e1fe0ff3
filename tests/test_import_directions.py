"""Imports go one way between the rooms of the package; the rule is the table below."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = "fairseq_l2t"
FOUNDATION = {"core", "objectives", "storage"}

# Room -> rooms of ours it may import besides itself. "" stands for the files beside the rooms: __init__, __main__.
ALLOWED = {
    "core": set(),
    "objectives": {"core"},
    "storage": {"core"},
    "plugin": FOUNDATION | {"compat"},
    "classification": FOUNDATION,
    "inspection": {"core", "storage"},
    "compat": set(),
    "cli": {"", "compat", "plugin", "classification", "inspection"} | FOUNDATION,
    "": {"compat", "plugin"},
}

# Library -> the only rooms that may import it.
HOME_OF_LIBRARY = {
    "fairseq": {"plugin", "compat"},
    "fairseq_cli": {"plugin", "compat"},
    "matplotlib": {"inspection"},
    "sklearn": {"classification"},
}
LIBRARIES_OF_CORE = {"torch"} | set(sys.stdlib_module_names)


def imported_modules(path, module):
    """Absolute names of what a file imports; ``from package import name`` counts as ``package.name``."""
    is_package = path.name == "__init__.py"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")
            if node.level:
                kept = len(parents) - node.level + (1 if is_package else 0)
                base = ".".join(parents[:kept] + ([node.module] if node.module else []))
            else:
                base = node.module
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def room_of(module, rooms):
    """The room a module of ours lies in; names such as ``fairseq_l2t.__version__`` belong to ""."""
    second = (module.split(".") + [""])[1]
    return second if second in rooms else ""


def forbidden_imports(root):
    """One line for each import under ``root`` (the package's folder) that the tables do not allow."""
    rooms = {folder.name for folder in root.iterdir() if folder.is_dir() and folder.name != "__pycache__"}
    for path in sorted(root.rglob("*.py")):
        parts = [PACKAGE, *path.relative_to(root).with_suffix("").parts]
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        room = room_of(module, rooms)
        for line, imported in imported_modules(path, module):
            library = imported.partition(".")[0]
            place = f"{path.relative_to(root)}:{line}: {room or 'package'} imports"
            if library == PACKAGE:
                target = room_of(imported, rooms)
                if target != room and target not in ALLOWED.get(room, set()):
                    yield f"{place} {target or 'package'}"
                continue
            is_foreign_to_core = room == "core" and library not in LIBRARIES_OF_CORE
            if is_foreign_to_core or room not in HOME_OF_LIBRARY.get(library, {room}):
                yield f"{place} {library}"


def test_imports_go_one_way(repository):
    assert list(forbidden_imports(repository / PACKAGE)) == []


def test_every_room_has_a_rule(repository):
    packages = {path.parent.name for path in (repository / PACKAGE).glob("*/__init__.py")}
    assert packages <= set(ALLOWED)
    assert "core" in packages


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("core/teacher.py", "from fairseq_l2t.plugin import task", "core/teacher.py:1: core imports plugin"),
        ("core/teacher.py", "from ..storage import atomic", "core/teacher.py:1: core imports storage"),
        ("core/teacher.py", "from .. import storage", "core/teacher.py:1: core imports storage"),
        ("core/teacher.py", "import fairseq.tasks", "core/teacher.py:1: core imports fairseq"),
        ("core/teacher.py", "import numpy", "core/teacher.py:1: core imports numpy"),
        ("core/teacher.py", "def f():\n    import fairseq_l2t.cli", "core/teacher.py:2: core imports cli"),
        ("core/teacher.py", "from fairseq_l2t import __version__", "core/teacher.py:1: core imports package"),
        ("storage/files.py", "from fairseq import utils", "storage/files.py:1: storage imports fairseq"),
        ("plugin/task.py", "from ..cli.inspect import main", "plugin/task.py:1: plugin imports cli"),
        ("__init__.py", "from . import cli", "__init__.py:1: package imports cli"),
        ("core/teacher.py", "from . import dynamic_loss\nfrom .unroll import unroll\nimport math, torch.nn", None),
        ("plugin/task.py", "from fairseq.tasks import FairseqTask\nfrom fairseq_l2t.core import Teacher", None),
        ("__init__.py", "from fairseq_l2t import plugin", None),
    ],
)
def test_forbidden_arrows_are_found(tmp_path, file, source, expected):
    """The control: the walk finds each kind of forbidden import, and lets the allowed ones pass."""
    for room in ALLOWED:
        (tmp_path / room).mkdir(exist_ok=True)
    Path(tmp_path, file).write_text(source)
    assert list(forbidden_imports(tmp_path)) == ([expected] if expected else [])


def test_core_alone_stays_light(run_command):
    """Importing the mathematics does not bring fairseq in, nor the other libraries of other rooms."""
    source = "import sys, fairseq_l2t.core; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = set(run_command(["python", "-c", source]).stdout.split())
    assert "torch" in loaded
    assert not loaded & {"fairseq", "hydra", "omegaconf", "sacrebleu", "matplotlib", "sklearn"}

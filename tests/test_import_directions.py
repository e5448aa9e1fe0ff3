"""Imports go one way: between the rooms of the package, between files of a room, and between the top folders."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = "fairseq_l2t"
ENGINE = {"loss", "kernels", "unroll"}
FOUNDATION = ENGINE | {"checks", "objectives", "storage"}

# Room -> rooms it may import besides itself. "" stands for __init__ and __main__, "core" for the file core.py.
ALLOWED = {
    "loss": set(),
    "kernels": set(),
    "unroll": {"loss", "kernels"},
    "checks": ENGINE,
    "objectives": ENGINE,
    "storage": {"loss"},
    "teaching": FOUNDATION,
    "pairs": {"storage"},
    "plugin": FOUNDATION | {"teaching", "compat"},
    "classification": FOUNDATION | {"teaching"},
    "inspection": {"loss", "storage"},
    "compat": set(),
    "core": ENGINE,
    "testing": FOUNDATION | {"core", "teaching", "plugin", "classification"},
    "cli": FOUNDATION | {"", "core", "teaching", "pairs", "compat", "plugin", "classification", "inspection"},
    "": {"compat", "plugin"},
}

# Room -> its floors, lowest first. A file imports only from floors below its own; a name stands for a file or a folder.
FLOORS = {
    "unroll": (
        {"memory", "flat_parameters", "update_rules"},
        {"piecewise_rules", "student"},
        {"in_place_updates", "gradients"},
        {"step_records"},
        {"difference_products", "window"},
        {"trajectory"},
        {"adjoint_sweep"},
    ),
    "unroll.memory": (
        {"packing", "peak", "stores"},
        {"plan"},
        {"budget"},
    ),
    "kernels": (
        {"attention", "deferred_work", "layer_norm", "lstm_cells", "target_log_probs"},
        {"lstm", "lstm_decoder"},
        {"twice_differentiable"},
    ),
}

# Top folder -> top folders it may import besides itself.
ALLOWED_AT_THE_TOP = {
    PACKAGE: set(),
    "toy_corpus": {PACKAGE},
    "experiments": {PACKAGE, "toy_corpus"},
    "examples": {PACKAGE, "toy_corpus", "experiments"},
    "benchmarks": {PACKAGE, "toy_corpus"},
    "tests": {PACKAGE, "toy_corpus", "experiments"},
}

# Library -> the only rooms that may import it.
HOME_OF_LIBRARY = {
    "fairseq": {"plugin", "compat", "testing"},
    "fairseq_cli": {"plugin", "compat", "testing"},
    "matplotlib": {"inspection"},
    "sklearn": {"classification"},
}
LIBRARIES_OF_THE_ENGINE = {"torch", "checkpoint_schedules", "psutil"} | set(sys.stdlib_module_names)


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


def module_of(path, root):
    """The dotted name of a file under ``root``, the folder that holds the top packages."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module, rooms):
    """The room a module of ours lies in; names such as ``fairseq_l2t.__version__`` belong to ""."""
    second = (module.split(".") + [""])[1]
    return second if second in rooms else ""


def forbidden_imports(root):
    """One line for each import under ``root`` (the package's folder) that the tables do not allow."""
    rooms = {folder.name for folder in root.iterdir() if folder.is_dir() and folder.name != "__pycache__"} | {"core"}
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
            is_foreign_to_engine = room in ENGINE and library not in LIBRARIES_OF_THE_ENGINE
            if is_foreign_to_engine or room not in HOME_OF_LIBRARY.get(library, {room}):
                yield f"{place} {library}"


def forbidden_at_the_top(repository):
    """One line for each import between top folders that the table does not allow."""
    for folder, allowed in ALLOWED_AT_THE_TOP.items():
        for path in sorted((repository / folder).rglob("*.py")):
            for line, imported in imported_modules(path, module_of(path, repository)):
                target = imported.partition(".")[0]
                if target in ALLOWED_AT_THE_TOP and target != folder and target not in allowed:
                    yield f"{path.relative_to(repository)}:{line}: {folder} imports {target}"


def import_graph(repository, folder):
    """{module: modules of the same top folder that it imports}."""
    modules = {module_of(path, repository): path for path in sorted((repository / folder).rglob("*.py"))}
    graph = {}
    for module, path in modules.items():
        targets = set()
        for _, imported in imported_modules(path, module):
            found = imported if imported in modules else imported.rpartition(".")[0]
            if found in modules and found != module:
                targets.add(found)
        graph[module] = targets
    return graph


def cycle_in(graph):
    """The modules of one import cycle, in order, or None."""
    done, path = set(), []

    def visit(module):
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return None
        path.append(module)
        for target in sorted(graph[module]):
            if found := visit(target):
                return found
        path.pop()
        done.add(module)
        return None

    return next((found for module in sorted(graph) if (found := visit(module))), None)


def test_imports_go_one_way(repository):
    assert list(forbidden_imports(repository / PACKAGE)) == []


def test_every_room_has_a_rule(repository):
    packages = {path.parent.name for path in (repository / PACKAGE).glob("*/__init__.py")}
    assert packages | {"core", ""} == set(ALLOWED)


def test_top_folders_import_one_way(repository):
    assert list(forbidden_at_the_top(repository)) == []


@pytest.mark.parametrize("folder", sorted(ALLOWED_AT_THE_TOP))
def test_no_files_import_each_other_in_a_circle(repository, folder):
    assert cycle_in(import_graph(repository, folder)) is None


def climbing_imports(graph, room, floors):
    """One line for each import inside ``room`` that does not go to a lower floor, and for each file without a floor."""
    prefix = f"{PACKAGE}.{room}."
    level_of = {name: level for level, names in enumerate(floors) for name in names}

    def name_in_room(module):
        return module.removeprefix(prefix).partition(".")[0] if module.startswith(prefix) else None

    for module, targets in sorted(graph.items()):
        own = name_in_room(module)
        if own is None:
            continue
        if own not in level_of:
            yield f"{room}.{own} has no floor"
            continue
        for target in sorted(targets):
            other = name_in_room(target)
            if other not in (None, own) and level_of.get(other, len(floors)) >= level_of[own]:
                yield f"{room}.{own} imports {other}"


@pytest.mark.parametrize("room", FLOORS)
def test_files_import_from_lower_floors(repository, room):
    graph = import_graph(repository, PACKAGE)
    assert list(climbing_imports(graph, room, FLOORS[room])) == []
    files = {module.removeprefix(f"{PACKAGE}.{room}.").partition(".")[0] for module in graph if f".{room}." in module}
    assert set().union(*FLOORS[room]) == files


def test_memory_imports_from_no_other_room(repository):
    graph = import_graph(repository, PACKAGE)
    inside = {module for module in graph if module.startswith("fairseq_l2t.unroll.memory")}
    reached = set().union(*(graph[module] for module in inside))
    assert {module for module in reached - inside if module.startswith(PACKAGE)} == set()


def test_an_import_from_a_higher_floor_is_found():
    """The control."""
    graph = {
        "fairseq_l2t.unroll.low": {"fairseq_l2t.unroll.high", "fairseq_l2t.loss.teacher"},
        "fairseq_l2t.unroll.beside": {"fairseq_l2t.unroll.low"},
        "fairseq_l2t.unroll.high": {"fairseq_l2t.unroll.low", "fairseq_l2t.unroll.beside"},
        "fairseq_l2t.unroll.new": set(),
    }
    found = list(climbing_imports(graph, "unroll", ({"low", "beside"}, {"high"})))
    assert found == ["unroll.beside imports low", "unroll.low imports high", "unroll.new has no floor"]


def test_a_circle_is_found():
    """The control."""
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()}) == ["a", "b", "c", "a"]
    assert cycle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("loss/teacher.py", "from fairseq_l2t.plugin import task", "loss/teacher.py:1: loss imports plugin"),
        ("loss/teacher.py", "from ..unroll import window", "loss/teacher.py:1: loss imports unroll"),
        ("loss/teacher.py", "from .. import storage", "loss/teacher.py:1: loss imports storage"),
        ("unroll/window.py", "import fairseq.tasks", "unroll/window.py:1: unroll imports fairseq"),
        ("kernels/lstm.py", "import numpy", "kernels/lstm.py:1: kernels imports numpy"),
        ("loss/teacher.py", "def f():\n    import fairseq_l2t.cli", "loss/teacher.py:2: loss imports cli"),
        ("loss/teacher.py", "from fairseq_l2t import __version__", "loss/teacher.py:1: loss imports package"),
        ("loss/teacher.py", "from fairseq_l2t.core import unroll", "loss/teacher.py:1: loss imports core"),
        ("storage/files.py", "from fairseq import utils", "storage/files.py:1: storage imports fairseq"),
        ("teaching/run.py", "from fairseq import utils", "teaching/run.py:1: teaching imports fairseq"),
        ("plugin/task.py", "from ..cli.inspect import main", "plugin/task.py:1: plugin imports cli"),
        ("plugin/task.py", "from ..classification import data", "plugin/task.py:1: plugin imports classification"),
        ("__init__.py", "from . import cli", "__init__.py:1: package imports cli"),
        ("loss/teacher.py", "from . import dynamic_loss\nfrom .unroll import unroll\nimport math, torch.nn", None),
        ("plugin/task.py", "from fairseq.tasks import FairseqTask\nfrom fairseq_l2t.loss import teacher", None),
        ("__init__.py", "from fairseq_l2t import plugin", None),
    ],
)
def test_forbidden_arrows_are_found(tmp_path, file, source, expected):
    """The control: the walk finds each kind of forbidden import, and lets the allowed ones pass."""
    for room in ALLOWED:
        (tmp_path / room).mkdir(exist_ok=True)
    Path(tmp_path, file).write_text(source)
    assert list(forbidden_imports(tmp_path)) == ([expected] if expected else [])


def test_a_forbidden_arrow_at_the_top_is_found(tmp_path):
    """The control."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text("import fairseq_l2t\nfrom benchmarks.peers import run\n")
    assert list(forbidden_at_the_top(tmp_path)) == ["tests/test_a.py:2: tests imports benchmarks"]


def test_core_alone_stays_light(run_command):
    """Importing the mathematics does not bring fairseq in, nor the other libraries of other rooms."""
    source = "import sys, fairseq_l2t.core; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = set(run_command(["python", "-c", source]).stdout.split())
    assert "torch" in loaded
    assert not loaded & {"fairseq", "hydra", "omegaconf", "sacrebleu", "matplotlib", "sklearn", "pydantic"}

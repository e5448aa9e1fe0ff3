"""Start-up and the patches that need no PyTorch, on every supported Python."""

import importlib.util
import json
from pathlib import Path

import pytest

# hydra, omegaconf, antlr4 and yaml are pure Python: other interpreters can borrow them from this environment.
SITE_PACKAGES = str(Path(importlib.util.find_spec("omegaconf").origin).parent.parent)

COMPOSE = """
from dataclasses import dataclass
from hydra.core.config_store import ConfigStore
from hydra.experimental import compose, initialize

@dataclass
class Options:
    lr: float = 1.0

ConfigStore.instance().store(name="config", node=Options)
with initialize(config_path=None):
    print(compose("config", overrides=["lr=0.5"]).lr)
"""


@pytest.fixture
def run_on(any_python, run_command, repository):
    """``run_on(source, patched=True)``: run source on one Python that sees the checkout and hydra only."""

    def run(source, patched=True, extra_path=(), **options):
        path = [*map(str, extra_path), str(repository), SITE_PACKAGES]
        start = "import _fairseq_l2t_startup\n" if patched else ""
        program = f"import sys\nsys.path[:0] = {path!r}\n{start}{source}"
        return run_command([any_python, "-I", "-S", "-B", "-c", program], **options)

    return run


def test_hydra_composes(run_on):
    assert run_on(COMPOSE).stdout.strip() == "0.5"


def test_hydra_fails_without_the_patches_where_they_claim_so(run_on):
    result = run_on(COMPOSE, patched=False, expect=1)
    assert "mutable default" in result.stderr


def test_start_up_imports_itself_only(run_on):
    source = "before = set(sys.modules)\nimport _fairseq_l2t_startup\nprint([*(set(sys.modules) - before)])"
    assert run_on(source, patched=False).stdout.strip() == "['_fairseq_l2t_startup']"


def test_classes_of_others_are_unchanged(run_on):
    """After hydra has been patched, a class of any other module is treated as this Python treats it."""
    source = """
import dataclasses, json
original = dataclasses._get_field
import hydra
outcomes = []
for module in ("__main__", "hydrated", "my.hydra", "fairseqs"):
    @dataclasses.dataclass
    class Inner:
        number: int = 1
    try:
        fields = [("inner", Inner, Inner())]
        dataclasses.make_dataclass("Outer", fields, namespace={"__module__": module})
    except ValueError:
        outcomes.append("refused")
    else:
        outcomes.append("accepted")
touched = dataclasses._get_field is not original
print(json.dumps([touched, outcomes]))
"""
    touched, outcomes = json.loads(run_on(source).stdout)
    assert touched
    assert outcomes == ["refused"] * 4


def test_defaults_behave_as_on_python_3_10(run_on, tmp_path):
    """What a patched class looks like is the same on every Python: literal expectations of 3.10."""
    package = tmp_path / "fairseq" / "dataclass"
    package.mkdir(parents=True)
    (tmp_path / "fairseq" / "__init__.py").write_text("from fairseq.dataclass import configs\n")
    (package / "__init__.py").write_text("")
    (package / "configs.py").write_text(
        """
from dataclasses import InitVar, dataclass, field
from typing import ClassVar

@dataclass
class Inner:
    number: int = 1

@dataclass(frozen=True)
class Hashable:
    number: int = 2

@dataclass
class Outer:
    inner: Inner = Inner()
    with_help: Inner = field(default=Inner(3), metadata={"help": "text"})
    hashable: Hashable = Hashable()
    shared: ClassVar[Inner] = Inner(4)
    passed: InitVar[Inner] = Inner(5)
    made: Inner = field(default_factory=Inner)

@dataclass
class Derived(Outer):
    inner: Inner = Inner(6)
"""
    )
    source = """
import dataclasses, json
from fairseq.dataclass.configs import Derived, Inner, Outer
fields = {field.name: field for field in dataclasses.fields(Outer)}
print(json.dumps({
    "names": list(fields),
    "default is class attribute": fields["inner"].default is Outer.inner,
    "default is shared": Outer().inner is Outer().inner,
    "help": fields["with_help"].metadata["help"],
    "numbers": [Outer().inner.number, Outer().with_help.number, Outer().hashable.number, Outer.shared.number],
    "init only": Outer.passed.number,
    "factory": Outer().made is Outer().made,
    "derived": Derived().inner.number,
    "hash": Inner.__hash__ is None,
}))
"""
    assert json.loads(run_on(source, extra_path=[tmp_path]).stdout) == {
        "names": ["inner", "with_help", "hashable", "made"],
        "default is class attribute": True,
        "default is shared": True,
        "help": "text",
        "numbers": [1, 3, 2, 4],
        "init only": 5,
        "factory": False,
        "derived": 6,
        "hash": True,
    }


@pytest.mark.parametrize("package", ["fairseq", "hydra"])
def test_packages_that_import_as_they_are_are_left_alone(run_on, tmp_path, package):
    """A release without the defect: nothing is patched, whatever its version says."""
    first_file = {"fairseq": "dataclass/configs.py", "hydra": "conf/__init__.py"}[package]
    path = tmp_path / package / first_file
    path.parent.mkdir(parents=True)
    (path.parent / "__init__.py").write_text("")
    (tmp_path / package / "__init__.py").write_text("")
    path.write_text("    common: CommonConfig = field(default_factory=CommonConfig)\n")
    source = f"import dataclasses\noriginal = dataclasses._get_field\nimport {package}\n"
    source += "print(dataclasses._get_field is original)"
    assert run_on(source, extra_path=[tmp_path]).stdout.strip() == "True"


def test_patches_are_gone_with_the_package(run_on, tmp_path):
    """The start-up module alone, its package deleted: imports go on as if it were not there."""
    (tmp_path / "hydra").mkdir()
    (tmp_path / "hydra" / "__init__.py").write_text("answer = 42\n")
    source = """
sys.path[:] = [entry for entry in sys.path if not __import__("os").path.isdir(entry + "/fairseq_l2t")]
import hydra
print(hydra.answer)
"""
    assert run_on(source, extra_path=[tmp_path]).stdout.strip() == "42"

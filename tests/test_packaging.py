"""What an installation contains, and that the environment is the one ``constraints.txt`` describes."""

import ast
import importlib
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata

import pytest

import fairseq_l2t

BUILD_INPUTS = [
    *("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md"),
    *("_fairseq_l2t_startup.py", "fairseq_l2t", "toy_corpus"),
]
PACKAGE_EXTRAS = ("classification", "inspection")
DEVELOPMENT_EXTRAS = ("dev", "peers")
PACKAGE_SOURCES = ("fairseq_l2t", "toy_corpus", "_fairseq_l2t_startup.py")
DEVELOPMENT_SOURCES = ("tests", "experiments", "benchmarks", "examples")

# Import name -> distribution, where the environment cannot say it: parts of another distribution, and libraries of the
# extra `peers`, which `make install` does not install.
DISTRIBUTION_OF_IMPORT = {"pydantic_core": "pydantic", "higher": "higher", "torchopt": "torchopt"}
# Declared and imported by no line here, with the reason.
NOT_IMPORTED = {
    "hydra-core": "fairseq's configuration, held at the releases that fairseq was written for",
    "tensorboard": "imported by torch.utils.tensorboard",
    "mypy": "make lint",
    "pre-commit": "a command",
    "pytest-xdist": "the option -n of pytest",
    "ruff": "make lint",
    "types-psutil": "read by mypy",
    "types-pyyaml": "read by mypy",
    "types-tabulate": "read by mypy",
}


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(repository):
    lines = (repository / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonical(name): version for name, version in pins}


@pytest.fixture(scope="module", params=["build_wheel", "build_editable"])
def wheel(request, tmp_path_factory, run_command, repository):
    """A wheel of each kind, built offline from a copy of the sources by the installed setuptools."""
    folder = tmp_path_factory.mktemp("build")
    for name in BUILD_INPUTS:
        source = repository / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    build = f"from setuptools import build_meta; build_meta.{request.param}('.')"
    run_command(["python", "-c", build], cwd=folder)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheels_activate_the_compat_layer(wheel):
    """The .pth file is in plain and editable wheels, and in RECORD, by which pip uninstalls it."""
    names = wheel.namelist()
    assert "fairseq_l2t_startup.pth" in names
    record = wheel.read(next(name for name in names if name.endswith(".dist-info/RECORD"))).decode()
    assert "fairseq_l2t_startup.pth,sha256=" in record
    line = wheel.read("fairseq_l2t_startup.pth").decode()
    assert "_fairseq_l2t_startup" in line
    is_editable = any(name.startswith("__editable__") for name in names)
    assert is_editable or {"_fairseq_l2t_startup.py", "fairseq_l2t/compat/dataclass_defaults.py"} <= set(names)


def test_editable_wheels_add_a_path_and_no_import_hook(wheel):
    """setuptools' hook would cost several milliseconds at every start of Python."""
    assert not [name for name in wheel.namelist() if name.startswith("__editable__") and name.endswith(".py")]


def test_wheel_works_unpacked(wheel, tmp_path, run_command):
    """Unpacked into a site folder, the .pth file runs; fairseq_l2t itself is not imported."""
    if any(name.startswith("__editable__") for name in wheel.namelist()):
        pytest.skip("an editable wheel holds no modules")
    wheel.extractall(tmp_path)
    source = f"import site, sys; site.addsitedir({str(tmp_path)!r}); print(*sys.modules)"
    modules = run_command(["python", "-I", "-S", "-c", source]).stdout.split()
    assert "_fairseq_l2t_startup" in modules
    assert "fairseq_l2t" not in modules


def test_wheel_holds_the_packages_and_their_data(wheel):
    """The lexicon and py.typed are in; experiments, benchmarks, examples and tests are not."""
    if any(name.startswith("__editable__") for name in wheel.namelist()):
        pytest.skip("an editable wheel holds no modules")
    names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert {name.partition("/")[0] for name in names} == {
        *("fairseq_l2t", "toy_corpus", "_fairseq_l2t_startup.py", "fairseq_l2t_startup.pth")
    }
    assert {"fairseq_l2t/py.typed", "toy_corpus/lexicon/nouns.csv", "toy_corpus/corpus.py"} <= set(names)


@pytest.mark.slow
def test_source_distribution_is_complete(repository, tmp_path, run_command):
    """Every tracked file is in it."""
    listed = subprocess.run(["git", "ls-files"], cwd=repository, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a checkout")
    tracked = [name for name in listed.stdout.splitlines() if (repository / name).exists()]
    for name in tracked:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repository / name, tmp_path / name)
    run_command(["python", "-c", "from setuptools import build_meta; build_meta.build_sdist('.')"], cwd=tmp_path)
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert not set(tracked) - held


def project(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names_of(requirements):
    return {canonical(re.match(r"[A-Za-z0-9._-]+", requirement).group()) for requirement in requirements}


def extras(repository, names):
    declared = project(repository)["optional-dependencies"]
    return set().union(*(names_of(declared[name]) for name in names))


def imported_distributions(paths, local):
    """Distributions that the Python files under ``paths`` import; ``local`` names are modules of this repository."""
    known = metadata.packages_distributions()
    found = set()
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            siblings = {sibling.stem for sibling in file.parent.glob("*.py")}
            for name in top_level_imports(file) - siblings - local - sys.stdlib_module_names:
                distribution = DISTRIBUTION_OF_IMPORT.get(name) or known.get(name, [name])[0]
                found.add(canonical(distribution))
    return found


def top_level_imports(file):
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


def local_names(repository):
    return {path.stem for path in repository.iterdir() if path.is_dir() or path.suffix == ".py"}


def test_declared_dependencies_are_those_the_package_imports(repository):
    declared = names_of(project(repository)["dependencies"]) | extras(repository, PACKAGE_EXTRAS)
    paths = [repository / name for name in PACKAGE_SOURCES]
    assert declared - set(NOT_IMPORTED) == imported_distributions(paths, local_names(repository))


def test_declared_development_dependencies_are_those_imported(repository):
    package = names_of(project(repository)["dependencies"]) | extras(repository, PACKAGE_EXTRAS)
    paths = [path for path in (repository / name for name in DEVELOPMENT_SOURCES) if path.exists()]
    imported = imported_distributions(paths, local_names(repository)) - package - {"setuptools"}
    assert extras(repository, DEVELOPMENT_EXTRAS) - set(NOT_IMPORTED) == imported


def test_an_undeclared_import_is_found(repository, tmp_path):
    """The control of the two tests above; a module beside the file and one of the repository do not count."""
    (tmp_path / "sibling.py").write_text("import os.path, torch.nn\n")
    (tmp_path / "file.py").write_text(
        "from . import other\nimport sibling\nfrom fairseq_l2t import core\n"
        "def late():\n    from yaml.loader import SafeLoader\n    import sklearn.datasets, absent_library\n"
    )
    found = imported_distributions([tmp_path], local_names(repository))
    assert found == {"torch", "pyyaml", "scikit-learn", "absent-library"}


def test_reasons_are_given_for_declared_dependencies_only(repository):
    declared = names_of(project(repository)["dependencies"]) | extras(repository, PACKAGE_EXTRAS + DEVELOPMENT_EXTRAS)
    assert set(NOT_IMPORTED) <= declared


def test_every_dependency_is_pinned(repository):
    direct = names_of(project(repository)["dependencies"])
    direct |= extras(repository, project(repository)["optional-dependencies"])
    assert direct <= set(pinned(repository))
    assert {"torch", "fairseq", "pytest", "matplotlib", "scikit-learn", "mkdocs-material"} <= direct


def test_environment_is_the_pinned_one(repository):
    """Every installed distribution stands in constraints.txt, at the version installed."""
    installed = {
        canonical(distribution.metadata["Name"]): distribution.version.partition("+")[0]
        for distribution in metadata.distributions()
    }
    del installed["fairseq-l2t"]
    assert installed == {name: version for name, version in pinned(repository).items() if name in installed}


def test_remedies_name_packages_of_the_index(repository):
    """`pip install 'fairseq_l2t[...]'` finds nothing: this package is on no index."""
    declared = {text for extra in project(repository)["optional-dependencies"].values() for text in extra}
    sources = [path.read_text(encoding="utf-8") for path in (repository / "fairseq_l2t").rglob("*.py")]
    named = set(re.findall(r"pip install '([^']+)'", "\n".join(sources)))
    of_sacrebleu = {"sacrebleu[ja]", "sacrebleu[ko]"}
    assert {"matplotlib>=3.7", "scikit-learn>=1.3"} <= named <= declared | of_sacrebleu


def test_metadata_has_description_and_links(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    text = wheel.read(name).decode()
    assert "\nSummary: Learning to teach" in text and "\nProject-URL: Paper, https://arxiv.org/abs/1810.12081\n" in text
    assert "\nDescription-Content-Type: text/markdown\n" in text and "\n# fairseq_l2t\n" in text
    assert "\nRequires-Python: <3.13,>=3.11\n" in text


def test_no_cuda_library_is_installed():
    names = {canonical(distribution.metadata["Name"]) for distribution in metadata.distributions()}
    assert metadata.version("torch").partition("+")[0] == "2.13.0"
    if metadata.version("torch").endswith("+cpu"):
        assert not [name for name in names if name.startswith(("nvidia-", "cuda-", "triton"))]


def test_build_uses_the_pinned_setuptools(repository):
    build_system = (repository / "pyproject.toml").read_text().partition("[tool.")[0]
    assert f'"setuptools=={pinned(repository)["setuptools"]}"' in build_system


def test_versions_agree(repository):
    assert metadata.version("fairseq_l2t") == fairseq_l2t.__version__
    assert "version" in project(repository)["dynamic"]
    citation = (repository / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [fairseq_l2t.__version__]


def test_module_prints_the_user_dir(run_command, tmp_path):
    printed = run_command(["python", "-m", "fairseq_l2t"], cwd=tmp_path).stdout
    assert printed == f"{fairseq_l2t.__path__[0]}\n"


def test_console_commands_exist(repository):
    commands = project(repository)["scripts"]
    names = ("train-teacher", "doctor", "inspect", "compare", "average", "classify")
    assert set(commands) == {f"l2t-{name}" for name in names}
    assert {entry.name for entry in metadata.distribution("fairseq_l2t").entry_points} == set(commands)
    for place in commands.values():
        module, _, function = place.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_ci_calls_make_test_and_nothing_else(repository):
    lines = (repository / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["make test"]


def test_make_test_checks_style_and_types_first(repository):
    lines = (repository / "Makefile").read_text().splitlines()
    assert "test: lint" in lines
    start = lines.index("lint: install")
    recipe = [line.removeprefix("\t$(BIN)/") for line in lines[start + 1 : lines.index("", start)]]
    assert recipe == ["ruff check .", "ruff format --check .", "mypy"]

"""What an installation contains, and that the environment is the one ``constraints.txt`` describes."""

import re
import shutil
import zipfile
from importlib import metadata

import pytest

import fairseq_l2t

BUILD_INPUTS = ["setup.py", "pyproject.toml", "LICENSE", "_fairseq_l2t_startup.py", "fairseq_l2t"]


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


def test_every_dependency_is_pinned(repository):
    requirements = metadata.requires("fairseq_l2t")
    direct = {canonical(re.match(r"[A-Za-z0-9._-]+", requirement).group()) for requirement in requirements}
    assert direct <= set(pinned(repository))
    assert {"torch", "fairseq", "pytest", "matplotlib", "scikit-learn"} <= direct


def test_environment_is_the_pinned_one(repository):
    """Every installed distribution stands in constraints.txt, at the version installed."""
    installed = {
        canonical(distribution.metadata["Name"]): distribution.version.partition("+")[0]
        for distribution in metadata.distributions()
    }
    del installed["fairseq-l2t"]
    assert installed == {name: version for name, version in pinned(repository).items() if name in installed}


def test_no_cuda_library_is_installed():
    names = {canonical(distribution.metadata["Name"]) for distribution in metadata.distributions()}
    assert metadata.version("torch").partition("+")[0] == "2.13.0"
    if metadata.version("torch").endswith("+cpu"):
        assert not [name for name in names if name.startswith(("nvidia-", "cuda-", "triton"))]


def test_build_uses_the_pinned_setuptools(repository):
    build_system = (repository / "pyproject.toml").read_text().partition("[tool.")[0]
    assert f'"setuptools=={pinned(repository)["setuptools"]}"' in build_system


def test_version_is_said_once(run_command):
    assert metadata.version("fairseq_l2t") == fairseq_l2t.__version__


def test_module_prints_the_user_dir(run_command, tmp_path):
    printed = run_command(["python", "-m", "fairseq_l2t"], cwd=tmp_path).stdout
    assert printed == f"{fairseq_l2t.__path__[0]}\n"


def test_console_commands_exist():
    commands = {entry.name: entry.load() for entry in metadata.distribution("fairseq_l2t").entry_points}
    assert set(commands) == {"l2t-train-teacher", "l2t-doctor", "l2t-inspect", "l2t-compare", "l2t-classify"}
    assert all(callable(main) for main in commands.values())


def test_ci_calls_make_test_and_nothing_else(repository):
    lines = (repository / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["make test"]

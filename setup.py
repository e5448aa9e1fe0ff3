"""Package description of fairseq_l2t, and the ``.pth`` file that activates ``fairseq_l2t/compat``."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

_HERE = Path(__file__).parent

# Python runs the `import` lines of .pth files when it starts. Should the package be gone while this file is
# still there (a clone installed with `pip install -e .` and then deleted), the line must stay silent.
_STARTUP_FILE = "fairseq_l2t_startup.pth"
_STARTUP_LINE = 'import sys; exec("try:\\n import _fairseq_l2t_startup\\nexcept ImportError:\\n pass")\n'


class _BuildWithStartupFile(build_py):
    """Put the .pth file beside the package, so that a wheel unpacks it into site-packages."""

    def run(self):
        super().run()
        if not self.editable_mode:
            startup_file = Path(self.build_lib, _STARTUP_FILE)
            startup_file.parent.mkdir(parents=True, exist_ok=True)
            startup_file.write_text(_STARTUP_LINE, encoding="utf-8")

    def get_outputs(self, include_bytecode=True):
        return [*super().get_outputs(include_bytecode), str(Path(self.build_lib, _STARTUP_FILE))]


class _StrategyWithStartupFile:
    """Editable-install strategy of setuptools, followed by the .pth file."""

    def __init__(self, strategy):
        self._strategy = strategy

    def __enter__(self):
        self._strategy.__enter__()
        return self

    def __exit__(self, *exception):
        return self._strategy.__exit__(*exception)

    def __call__(self, wheel, files, mapping):
        self._strategy(wheel, files, mapping)
        wheel.writestr(_STARTUP_FILE, _STARTUP_LINE)


class _EditableWithStartupFile(editable_wheel):
    """Editable wheels carry only what their strategy writes: let it write the .pth file too.

    `_select_strategy` is not public; pyproject.toml pins the setuptools it was tested with.
    """

    def _select_strategy(self, *args, **kwargs):
        return _StrategyWithStartupFile(super()._select_strategy(*args, **kwargs))


def _version():
    source = (_HERE / "fairseq_l2t" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE).group(1)


setup(
    name="fairseq_l2t",
    version=_version(),
    description="Learning to teach with dynamic loss functions, for fairseq translation models",
    author="fairseq_l2t authors",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["fairseq_l2t", "fairseq_l2t.*", "toy_corpus"]),
    py_modules=["_fairseq_l2t_startup"],
    # Said explicitly, so that editable installs use a plain path entry: setuptools' import hook, its choice
    # otherwise, would cost several milliseconds at every start of Python.
    package_dir={"": "."},
    cmdclass={"build_py": _BuildWithStartupFile, "editable_wheel": _EditableWithStartupFile},
    install_requires=[
        "torch>=2.3",
        "fairseq>=0.12.2",
        "hydra-core>=1.0.7,<1.1",
        "omegaconf>=2.0.6,<2.1",
        "numpy>=1.22,<2",
        "sacrebleu>=2.3",
        "sentencepiece>=0.1.99",
        "safetensors>=0.4",
        "checkpoint_schedules>=1.0.4",
        "psutil>=5.9",
    ],
    extras_require={
        "classification": ["scikit-learn>=1.3"],
        "inspection": ["matplotlib>=3.7", "tensorboard>=2.14"],
        "peers": ["higher>=0.2", "torchopt>=0.7"],
        "dev": ["pytest>=8", "pytest-xdist>=3", "hypothesis>=6", "ruff>=0.8"],
    },
    entry_points={
        "console_scripts": [
            "l2t-train-teacher = fairseq_l2t.cli.train_teacher:main",
            "l2t-doctor = fairseq_l2t.cli.doctor:main",
            "l2t-inspect = fairseq_l2t.cli.inspect:main",
            "l2t-compare = fairseq_l2t.cli.compare:main",
            "l2t-classify = fairseq_l2t.cli.classify:main",
        ]
    },
)

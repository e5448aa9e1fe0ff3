"""The ``.pth`` file that activates ``fairseq_l2t/compat``; all metadata is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

# Python runs the `import` lines of .pth files when it starts. The line must stay silent where this file is still there
# and the package is gone: a clone installed with `pip install -e .` and then deleted.
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
    """Editable wheel with the .pth file: such a wheel holds only what its strategy writes.

    `_select_strategy` is not public; pyproject.toml pins the setuptools it was tested with.
    """

    def _select_strategy(self, *args, **kwargs):
        return _StrategyWithStartupFile(super()._select_strategy(*args, **kwargs))


setup(cmdclass={"build_py": _BuildWithStartupFile, "editable_wheel": _EditableWithStartupFile})

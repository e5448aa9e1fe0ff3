import ast
import re

import pytest


def compat_files(repository):
    return [path for path in (repository / "fairseq_l2t" / "compat").glob("*.py") if path.name != "__init__.py"]


def test_each_patch_names_versions_and_a_test_that_exists(repository):
    files = compat_files(repository)
    assert len(files) >= 6
    for path in files:
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        assert "\nVersions: " in docstring, path
        test_file, test_name = re.search(r"Without it fails: (\S+)::(\w+)", docstring).groups()
        assert f"def {test_name}(" in (repository / test_file).read_text(), path


@pytest.mark.parametrize("forbidden", ["weights_only=False", "except Exception"])
def test_no_patch_lowers_the_guard(repository, forbidden):
    assert not [path for path in compat_files(repository) if forbidden in path.read_text()]

"""The examples in the docstrings of the public names run, and the main names have one."""

import doctest
import inspect

import pytest

from fairseq_l2t import core

WITH_EXAMPLE = {"Teacher", "dynamic_loss", "hypergradient", "memory_plan", "unroll"}


def examples_of(name):
    """The doctests of a public name; a class without those of its methods."""
    found = doctest.DocTestFinder(recurse=False).find(getattr(core, name), name)
    return [test for test in found if test.examples]


def failures_of(test):
    """The number of failed examples, printed as doctest does."""
    return doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed


@pytest.mark.parametrize("name", sorted(core.__all__))
def test_examples_run(name):
    tests = examples_of(name)
    assert bool(tests) or name not in WITH_EXAMPLE
    assert [failures_of(test) for test in tests] == [0] * len(tests)


def test_a_wrong_example_is_found():
    """The control."""

    def twice(number):
        """Return twice a number.

        >>> 2 * 2
        5
        """

    (test,) = doctest.DocTestFinder(recurse=False).find(twice, "twice")
    assert failures_of(test) == 1


@pytest.mark.parametrize("name", sorted(name for name in core.__all__ if callable(getattr(core, name))))
def test_public_names_have_docstrings(name):
    assert inspect.getdoc(getattr(core, name))

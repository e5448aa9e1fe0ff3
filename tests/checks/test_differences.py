"""Slopes by differences: accurate where a slope exists, and uncertain elsewhere."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_l2t.checks.differences import Comparison, Slope, slope_at_zero, spread, unit_direction
from fairseq_l2t.core import Teacher
from fairseq_l2t.testing.toy_student import ToyStudent

LARGEST = 1e-3


class Counted:
    """A function that counts its calls."""

    def __init__(self, function) -> None:
        self.function, self.calls = function, 0

    def __call__(self, x: float) -> float:
        """Return the value at ``x``."""
        self.calls += 1
        return self.function(x)


SMOOTH = {
    "sine": (lambda x: math.sin(x + 0.7), math.cos(0.7)),
    "exponential": (lambda x: math.exp(x + 1), math.e),
    "polynomial": (lambda x: 3 * x - 2 * x**3 + 5 * x**4, 3.0),
    "fast": (lambda x: math.sin(1000 * x + 0.3), 1000 * math.cos(0.3)),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_functions(name):
    function, expected = SMOOTH[name]
    found = slope_at_zero(function, LARGEST)
    assert found.value == pytest.approx(expected, rel=1e-10, abs=0)
    assert found.uncertainty < 1e-8 * abs(found.value)
    # control: one central difference at the first distance is not accurate enough
    if name == "fast":
        assert (function(LARGEST) - function(-LARGEST)) / (2 * LARGEST) != pytest.approx(expected, rel=0.1)


SINGULAR_NEARBY = {
    "kink ahead": lambda x: math.sin(x) + max(0.0, x - 1e-4),
    "kink behind": lambda x: math.sin(x) + 5 * max(0.0, -x - 1e-4),
    "jump ahead": lambda x: math.sin(x) + (x > 1e-4),
    "jump behind": lambda x: math.sin(x) - 7 * (x < -1e-4),
    "undefined beyond": lambda x: math.sin(x) if abs(x) <= 1e-4 else math.nan,
}


@pytest.mark.parametrize("name", SINGULAR_NEARBY)
def test_kinks_and_jumps_nearby(name):
    function = SINGULAR_NEARBY[name]
    found = slope_at_zero(function, LARGEST)
    assert found.value == pytest.approx(1.0, rel=1e-10, abs=0)
    assert found.uncertainty < 1e-8
    # control: if no distance is below the kink, the uncertainty is large
    far = slope_at_zero(function, LARGEST, halvings=3)
    assert not far.uncertainty < 0.01 * abs(far.value)


def test_a_larger_shrink_factor_reaches_a_nearer_kink():
    def kinked(x: float) -> float:
        return math.sin(x) + max(0.0, x - 1e-7)

    found = slope_at_zero(kinked, LARGEST, shrink=4.0)
    assert found.value == pytest.approx(1.0, rel=1e-8)
    assert slope_at_zero(kinked, LARGEST, shrink=2.0).value != pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("factor", [1.5, 2.0, 4.0])
def test_the_extrapolation_depends_on_the_shrink_factor(factor):
    found = slope_at_zero(lambda x: math.sin(30 * x + 0.7), 1e-2, shrink=factor)
    assert found.value == pytest.approx(30 * math.cos(0.7), rel=1e-10)


NO_SLOPE = {
    "jump": lambda x: float(x > 0),
    "jump on a slope": lambda x: math.sin(x) + 0.01 * (x > 0),
    "vertical": lambda x: math.copysign(math.sqrt(abs(x)), x),
    "undefined": lambda _: math.nan,
}


@pytest.mark.parametrize("name", NO_SLOPE)
def test_no_slope_at_zero_is_uncertain(name):
    found = slope_at_zero(NO_SLOPE[name], LARGEST)
    assert not found.uncertainty < 0.1 * abs(found.value)


@pytest.mark.parametrize("function", [abs, lambda x: max(x, 0.0)], ids=["absolute", "rectifier"])
def test_a_kink_at_zero_is_uncertain(function):
    assert slope_at_zero(function, LARGEST).uncertainty > 0.1


def test_the_uncertainty_includes_rounding():
    function, expected = (lambda x: 1e6 + math.sin(x)), 1.0
    noisy = slope_at_zero(function, LARGEST)
    assert 0 < abs(noisy.value - expected) <= noisy.uncertainty
    assert 1e-8 < noisy.uncertainty < 1e-5
    assert slope_at_zero(math.sin, LARGEST).uncertainty < 1e-9


def test_constants():
    assert slope_at_zero(lambda _: 0.0, LARGEST) == Slope(0.0, 0.0)
    found = slope_at_zero(lambda _: 1.0, LARGEST)
    # a constant cannot be distinguished from changes below the rounding of 1
    assert found.value == 0.0
    assert 2.0**-54 < found.uncertainty < 1e-10


COEFFICIENT = st.floats(-3, 3)


@settings(derandomize=True, deadline=None, max_examples=300, database=None)
@given(st.tuples(*[COEFFICIENT] * 7))
def test_the_error_is_within_the_uncertainty(numbers):
    height, speed, phase, share, rate, linear, cubic = numbers

    def function(x: float) -> float:
        return height * math.sin(speed * x + phase) + share * math.exp(rate * x) + linear * x + cubic * x**3

    expected = height * speed * math.cos(phase) + share * rate + linear
    found = slope_at_zero(function, LARGEST)
    # The estimate covers the error of the differences, but not a few ulps of the function's own terms.
    rounding = 2.0**-52 * (abs(height) + abs(share)) / LARGEST
    assert abs(found.value - expected) <= 3 * found.uncertainty + 3 * rounding
    assert found.uncertainty <= 1e-8 * abs(found.value) + 1e-9  # control: it is not always large


def test_stops_at_the_tolerance():
    def calls(**options) -> int:
        counted = Counted(lambda x: math.sin(1000 * x + 0.3))
        slope_at_zero(counted, LARGEST, **options)
        return counted.calls

    assert calls(tolerance=1e-2) < calls(tolerance=1e-8) < calls(tolerance=0.0)
    assert calls(tolerance=0.0) == 21  # one of the calls at 0
    assert calls(tolerance=0.0, halvings=4) == 9


def test_one_distance_is_uncertain():
    assert slope_at_zero(math.sin, LARGEST, halvings=1).uncertainty == math.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unit_direction(dtype):
    like = torch.zeros(3, 5, dtype=dtype)
    found = unit_direction(like, 1)
    assert (found.shape, found.dtype) == (like.shape, dtype)
    assert float(found.double().norm()) == pytest.approx(1.0, rel=1e-6 if dtype == torch.float32 else 1e-15)
    assert torch.equal(found, unit_direction(like, 1))
    assert not torch.allclose(found, unit_direction(like, 2), atol=0.1)


def test_unit_direction_is_equal_in_every_dtype_and_independent_of_the_global_generator():
    before = torch.get_rng_state()
    wide, narrow = (unit_direction(torch.zeros(7, dtype=dtype), 4) for dtype in (torch.float64, torch.float32))
    assert torch.equal(wide.float(), narrow)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("ours", "slope", "error", "resolution"),
    [
        (2.2, Slope(2.0, 0.01), 0.1, 0.005),
        (-2.2, Slope(-2.0, 0.01), 0.1, 0.005),
        (-2.0, Slope(2.0, 0.0), 2.0, 0.0),
        (0.0, Slope(2.0, 2.0), 1.0, 1.0),
        (0.0, Slope(0.0, 0.0), 0.0, 0.0),
        (1e-300, Slope(0.0, 0.0), math.inf, 0.0),
    ],
)
def test_comparison(ours, slope, error, resolution):
    found = Comparison(ours, slope)
    assert found.error == pytest.approx(error, rel=1e-14)
    assert found.resolution == resolution


@pytest.mark.parametrize("ours", [math.nan, math.inf, 1.0])
def test_values_that_are_not_finite_pass_no_bound(ours):
    slope = Slope(1.0, 0.0) if ours != 1.0 else Slope(math.nan, math.inf)
    assert not Comparison(ours, slope).error < 1e300


def test_spread():
    student = ToyStudent()
    before, teacher = Teacher.for_student(student), Teacher.for_student(student)
    assert spread(teacher, 3, lowest=0.2, highest=0.3) is teacher
    values = teacher.values.detach()
    assert values.min() >= 0.2
    assert values.max() <= 0.3
    assert values.std() > 0.02
    assert torch.equal(teacher.queries, 4 * before.queries)
    again, other = (spread(Teacher.for_student(student), seed, 0.2, 0.3) for seed in (3, 4))
    assert torch.equal(again.values, teacher.values)
    assert not torch.equal(other.values, teacher.values)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in teacher.parameters())
    # words and states differ in their coefficients
    states = torch.rand(2, len(teacher.features), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = [(made(states[0]) - made(states[1])).abs().max() for made in (teacher, before)]
    assert moved[0] > 3 * moved[1]

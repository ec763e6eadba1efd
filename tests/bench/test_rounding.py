"""One format for a value and its interval."""

import math

from helpers import each
from samplerbench.bench.rounding import difference, distance, plain, sum_of


@each(
    ("value", "half", "text"),
    [
        (0.09, 0.047, "0.090 ± 0.047"),
        (1.23456, 0.5, "1.23 ± 0.50"),
        (1.23456, 0.00012, "1.23456 ± 0.00012"),
        (9.999, 0.0998, "10.00 ± 0.10"),  # the half is rounded up to another power
        (205.561, 12.3, "206 ± 12"),
        (56789.0, 1234.0, "56800 ± 1200"),
        (1.2e-7, 3.4e-8, "1.20e-07 ± 3.4e-08"),
        (-0.0001, 0.03, "0.000 ± 0.030"),  # and never -0.000
        (-0.015, 0.031, "-0.015 ± 0.031"),
        (0.12344, 0.0, "0.1234"),  # exact
        (3.0512, math.nan, "3.05"),
        (math.nan, math.nan, "–"),
    ],
)
def test_two_digits_of_the_half(value, half, text):
    assert difference(value, half) == text
    if not half > value >= 0:
        assert distance(value, half) == text


def test_a_distance_is_at_most_so_much():
    assert distance(0.05, 0.12) == "0.05 (≤ 0.17)"
    assert distance(0.0, 0.5) == "0.00 (≤ 0.50)"
    assert distance(-0.05, 0.12) == "-0.05 ± 0.12"  # an unbiased estimate


def test_signs_and_single_numbers():
    assert difference(0.0312, 0.05, signed=True) == "+0.031 ± 0.050"
    assert difference(-0.0312, 0.05, signed=True) == "-0.031 ± 0.050"
    for tiny in (0.0, 0.0001, -0.0001):
        assert difference(tiny, 0.05, signed=True) == "0.000 ± 0.050"
    texts = [plain(value) for value in (0.0, -0.0, 1.43874, 0.00002, 99.96, 2.5e7)]
    assert texts == ["0", "0", "1.44", "2.00e-05", "100", "2.50e+07"]


def test_numbers_that_add_up_have_as_many_digits():
    assert sum_of(3.0613, [1.3099, -0.0002, 1.7216]) == ["3.06", "1.31", "0.00", "1.72"]
    assert sum_of(2.5e-6, [-1.0e-6]) == ["2.50e-06", "-1.00e-06"]
    assert sum_of(8.05e-6, [8.03e-6, -1e-21, 7.6e-8]) == ["8.05e-06", "8.03e-06", "0", "8e-08"]
    assert sum_of(126.02, [0.473, 125.1]) == ["126.02", "0.47", "125.10"]
    assert sum_of(20556.1, [3000.0, 17556.1]) == ["20600", "3000", "17600"]
    # data far away: the floor and the start are still to be seen
    far = ["6406.6", "2.1", "0.0", "11.8", "6392.7"]
    assert sum_of(6406.56, [2.06, 0.0052, 11.8, 6392.67]) == far
    # a first part of less than a ten-thousandth has no digits of its own
    assert sum_of(0.1353, [8e-6, 0.126, 0.0093]) == ["0.135", "0.000", "0.126", "0.009"]
    assert sum_of(0.0, [0.0]) == ["0", "0"]

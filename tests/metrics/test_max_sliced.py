"""Random directions: against POT, and independence of what is kept in memory."""

from __future__ import annotations

import math

import ot
import pytest
import torch
from torch import Tensor

from samplerbench.metrics import max_sliced
from samplerbench.metrics.max_sliced import MaxSliced, max_sliced_wasserstein
from samplerbench.metrics.max_sliced_pot import MaxSlicedPOT
from samplerbench.metrics.projections import random_directions, sliced_wasserstein


def _clouds(n: int, m: int, dim: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n + m)
    x = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    return 8 * x + 2, 10 * torch.rand(m, dim, generator=generator, dtype=torch.float64)


def _pot(x: Tensor, y: Tensor, p: float, directions: Tensor) -> float:
    return float(
        ot.max_sliced_wasserstein_distance(
            x.numpy(), y.numpy(), p=p, projections=directions.T.numpy()
        )
    )


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize(("n", "m"), [(90, 90), (90, 270), (270, 90), (90, 97), (97, 90), (1, 9)])
def test_equals_pot_on_the_same_directions(p: float, n: int, m: int) -> None:
    x, y = _clouds(n, m, dim=3)
    expected = _pot(x, y, p, random_directions(3, 45, seed=7))
    settings = {"p": p, "directions": 45, "seed": 7}
    double = max_sliced_wasserstein(x, y, **settings)  # type: ignore[arg-type]
    single = max_sliced_wasserstein(x, y, precision="float32", **settings)  # type: ignore[arg-type]
    assert double == pytest.approx(expected, rel=1e-9)
    assert single == pytest.approx(expected, rel=1e-5)
    member = MaxSlicedPOT(p, 45).against(y, seed=7)(x)
    assert member.value == expected
    assert float(sliced_wasserstein(x, y, random_directions(3, 45, 7), p).max()) == pytest.approx(
        expected, rel=1e-9
    )


def test_single_precision_at_the_size_of_the_sweep() -> None:
    x, y = _clouds(2000, 10000)
    y += 1000  # far from the origin, where float32 has 1e-4 left
    x += 1000
    double = max_sliced_wasserstein(x, y, directions=64)
    single = max_sliced_wasserstein(x, y, directions=64, precision="float32")
    assert single == pytest.approx(double, rel=1e-6)


@pytest.mark.parametrize("p", [1.0, 2.0])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_what_is_kept_changes_no_bit(
    p: float, precision: max_sliced.Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = _clouds(70, 110)
    values = set()
    for kept in (0, 40_000, 10**9):  # nothing, some blocks, all of them
        monkeypatch.setattr(max_sliced, "KEPT_BYTES", kept)
        result = MaxSliced(p, 150, precision).against(y, seed=1)(x)
        assert result.direction is not None
        values.add((result.value, *result.direction.tolist()))
    assert len(values) == 1


def test_threads_change_no_bit() -> None:
    x, y = _clouds(2000, 3000)
    before, values = torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            values.add(MaxSliced(directions=64).against(y, seed=1)(x).value)
    finally:
        torch.set_num_threads(before)
    assert len(values) == 1


def test_symmetric() -> None:
    x, y = _clouds(80, 130)
    for p in (1.0, 2.0, 3.0):
        forth, back = (max_sliced_wasserstein(a, b, p=p, seed=2) for a, b in ((x, y), (y, x)))
        assert forth == pytest.approx(back, rel=1e-12)


def test_more_directions_never_lower_the_value() -> None:
    x, y = _clouds(50, 60, dim=4)
    values = [max_sliced_wasserstein(x, y, directions=count) for count in (1, 10, 100, 1000)]
    assert values == sorted(values)
    assert values[0] < values[-1]


def test_approaches_a_shift_from_below() -> None:
    x, _ = _clouds(50, 1)
    shift = torch.tensor([3.0, -4.0], dtype=torch.float64)
    result = MaxSliced(directions=200, precision="float64").against(x, seed=0)(x + shift)
    assert result.direction is not None
    assert result.value == pytest.approx(abs(float(result.direction @ shift)), rel=1e-12)
    assert 5 * math.cos(math.pi / 100) < result.value < 5
    assert result.evaluations == 200


def test_pot_in_single_precision_claims_no_bound() -> None:
    x, y = _clouds(50, 60)
    assert math.isnan(MaxSlicedPOT(precision="float32", directions=9).against(y, seed=0)(x).lower)

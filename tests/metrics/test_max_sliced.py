"""Random directions: against POT, and independence of what is kept in memory."""

from __future__ import annotations

import math

import ot
import pytest
import torch

from helpers import each
from samplerbench.metrics import max_sliced
from samplerbench.metrics.max_sliced import MaxSliced
from samplerbench.metrics.projections import (
    long_sum,
    project,
    quantile_grid,
    random_directions,
    sliced_wasserstein,
    sort_lines,
)
from samplerbench.metrics.sliced import Sliced


def max_sliced_wasserstein(x, y, *, seed=0, **settings):
    return MaxSliced(**{"precision": "float64", **settings}).against(y, seed=seed)(x).value


def _clouds(n, m, dim=2):
    generator = torch.Generator().manual_seed(n + m)
    x = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    return 8 * x + 2, 10 * torch.rand(m, dim, generator=generator, dtype=torch.float64)


def _pot(x, y, p, directions):
    return float(
        ot.max_sliced_wasserstein_distance(
            x.numpy(), y.numpy(), p=p, projections=directions.T.numpy()
        )
    )


@each("dim", [2, 3])
@each("p", [1.0, 1.5, 2.0, 3.0])
@each(("n", "m"), [(90, 90), (90, 270), (270, 90), (90, 97), (97, 90), (1, 9)])
def test_equals_pot_on_the_same_directions(dim, p, n, m):
    x, y = _clouds(n, m, dim=dim)
    expected = _pot(x, y, p, random_directions(dim, 45, seed=7))
    settings = {"p": p, "directions": 45, "seed": 7}
    double = max_sliced_wasserstein(x, y, **settings)
    single = max_sliced_wasserstein(x, y, precision="float32", **settings)
    assert double == pytest.approx(expected, rel=1e-9)
    assert single == pytest.approx(expected, rel=1e-5)
    assert float(sliced_wasserstein(x, y, random_directions(dim, 45, 7), p).max()) == pytest.approx(
        expected, rel=1e-9
    )


@pytest.mark.parametrize("dim", [2, 3])
def test_single_precision_at_the_size_of_the_sweep(dim):
    x, y = _clouds(2000, 10000, dim=dim)
    y += 1000  # far from the origin, where float32 has 1e-4 left
    x += 1000
    double = max_sliced_wasserstein(x, y, directions=64)
    single = max_sliced_wasserstein(x, y, directions=64, precision="float32")
    assert single == pytest.approx(double, rel=1e-6)


@each(("n", "m"), [(1, 1), (1, 9), (9, 1), (90, 90), (90, 270), (270, 90), (90, 97), (400, 1003)])
@each("directions", [1, 3, 50, 500])
def test_in_the_plane_few_directions_are_enough(n, m, directions):
    """The largest of all directions, for clouds far apart, and so near that rounding counts."""
    for shift in (10.0, 1e-3, 1e-7, 0.0):
        x, y = _clouds(n, m)
        if n == m:
            x = y[torch.randperm(n, generator=torch.Generator().manual_seed(n))] + shift
        every = sliced_wasserstein(x, y, random_directions(2, directions, 5), 2.0)
        found = MaxSliced(directions=directions).against(y, seed=5)(x)
        best = float(every.max())
        assert found.value == pytest.approx(best, rel=1e-12, abs=1e-14)
        assert found.lower - 1e-15 <= best <= found.lower + 1e-12
        along = sliced_wasserstein(x, y, found.direction[None], 2.0)
        assert float(along) == pytest.approx(found.value, rel=1e-12, abs=1e-14)
        assert found.evaluations <= min(directions, 40)


def test_in_the_plane_the_law_of_both_clouds_may_be_one():
    """Then W₂ hardly depends on the direction, and more directions have to be tried."""
    x, y = (torch.randn(2000, 2, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    found = MaxSliced().against(y, seed=0)(x)
    every = sliced_wasserstein(x.double(), y.double(), random_directions(2, 1000, 0), 2.0)
    assert found.value == pytest.approx(float(every.max()), rel=1e-12)
    assert found.evaluations < 300


@pytest.mark.parametrize("p", [1.0, 2.0])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_what_is_kept_changes_no_bit(p, precision, monkeypatch):
    x, y = _clouds(70, 110, dim=3)
    values = set()
    for kept in (0, 40_000, 10**9):  # nothing, some blocks, all of them
        monkeypatch.setattr(max_sliced, "KEPT_BYTES", kept)
        result = MaxSliced(p, 150, precision).against(y, seed=1)(x)
        assert result.direction is not None
        values.add((result.value, *result.direction.tolist()))
    assert len(values) == 1


@pytest.mark.slow
@pytest.mark.parametrize("dim", [2, 3])
def test_threads_change_no_bit(dim):
    x, y = _clouds(2000, 3000, dim=dim)
    before, values = torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            values.add(MaxSliced(directions=64).against(y, seed=1)(x).value)
    finally:
        torch.set_num_threads(before)
    assert len(values) == 1


def test_the_unit_of_the_lines_changes_no_bit():
    x, y = _clouds(300, 500, dim=3)
    centre = y.mean(dim=0).float().double()
    directions = random_directions(3, 32, seed=3)
    xs, ys = (sort_lines(project(directions, (cloud - centre).float())) for cloud in (x, y))
    means, spread = quantile_grid(300, 500, x.device).average(ys)
    squares = long_sum((xs - means).square()) / 300 + spread
    found = MaxSliced(directions=32).against(y, seed=3)(x)
    assert found.value == math.sqrt(float(squares.max()))


@pytest.mark.parametrize("place", [1e2, 1e6, 1e8])
def test_the_lower_bound_allows_for_single_precision(place):
    far, above = torch.tensor([[place, 0.3 * place, 0.1 * place]], dtype=torch.float64), 0
    for seed in range(6):
        x, y = (cloud[:200] / 8 for cloud in _clouds(200 + seed, 300, dim=3))
        x, y = torch.cat([x, far]), torch.cat([y, far])
        double, single = (
            MaxSliced(directions=100, precision=precision).against(y, seed=seed)(x)
            for precision in ("float64", "float32")
        )
        assert single.lower <= double.value
        assert double.value * (1 - 1e-14 * place) <= double.lower <= double.value
        assert single.lower == pytest.approx(double.value, rel=1e-3)
        above += single.value > double.value
    assert above > 0 or place > 1e2  # or the bound would need no allowance


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_clouds_of_very_different_sizes(p, dim):
    x, y = _clouds(50, 60, dim=dim)
    metric, exact = MaxSliced(p, 20), MaxSliced(p, 20, "float64")
    even = torch.stack([y[0], -y[0]])  # its mean is 0: moved there, x is as small as before
    for a, b in ((1e-24 * x, 1e13 * even), (1e13 * x, 1e-24 * y), (1e-24 * x, 0 * y)):
        assert metric.against(b, seed=0)(a).value == pytest.approx(
            exact.against(b, seed=0)(a).value, rel=1e-6, abs=0
        )


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("p", [1.0, 2.0])
def test_clouds_that_float32_can_hardly_hold(p, dim):
    x, y = _clouds(50, 60, dim=dim)
    value = MaxSliced(p, 20).against(y, seed=0)(x).value
    for scale in (1e-38, 1e-40):
        found = MaxSliced(p, 20).against(scale * y, seed=0)(scale * x).value
        assert found == pytest.approx(scale * value, rel=1e-3, abs=0)


def test_blocks_of_any_size_give_one_value(monkeypatch):
    x, y = _clouds(90, 40, 3)
    for p in (1.0, 2.0):
        monkeypatch.undo()
        distance = MaxSliced(p=p, directions=300).against(y, seed=0)
        value = distance(x).value
        for work in (1, 200, 10**4):
            monkeypatch.setattr(max_sliced, "WORK", work)
            assert distance(x).value == pytest.approx(value, rel=1e-6)  # float32


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("kind", [MaxSliced, Sliced])
def test_points_far_away_that_both_clouds_share(kind, dim):
    """Roundings of float32 there exceed the distance of the rest, so it is computed in float64."""
    x, y = _clouds(50, 50, dim=dim)
    for size in (1e6, 1e8, 1e9):
        far = torch.tensor([[size, -size, size][:dim]] * 50, dtype=torch.float64)
        a, b = torch.cat([x, far]), torch.cat([y, far])
        exact = kind(2.0, 20, "float64").against(b, seed=0)(a).value
        # half of the mass has not moved: W₂² is half of that of the rest
        alone = kind(2.0, 20, "float64").against(y, seed=0)(x).value / 2**0.5
        assert exact == pytest.approx(alone, rel=1e-3)
        assert kind(2.0, 20).against(b, seed=0)(a).value == pytest.approx(exact, rel=0.01)

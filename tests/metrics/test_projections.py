"""One-dimensional transport against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from samplerbench.metrics import max_sliced
from samplerbench.metrics.projections import (
    BLOCK,
    long_sum,
    project,
    quantile_grid,
    random_directions,
    sliced_wasserstein,
)

CPU = torch.device("cpu")
sizes = st.integers(1, 60)


@given(sizes, sizes)
@settings(max_examples=60, deadline=None)
def test_grid_couples_the_uniform_weights(n, m):
    grid = quantile_grid(n, m, CPU)
    assert grid.index.numel() <= m + 2 * n
    assert (grid.weight >= 0).all()
    torch.testing.assert_close(grid.weight.sum(dim=1), torch.full((n,), 1 / n).double())
    columns = torch.zeros(m, dtype=torch.float64)
    columns.index_add_(0, grid.index.flatten(), grid.weight.flatten())
    torch.testing.assert_close(columns, torch.full((m,), 1 / m).double())


@given(sizes, sizes, st.sampled_from([1.0, 1.3, 2.0, 5.0]), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_distance_is_that_of_the_repeated_points(n, m, p, seed):
    rng = np.random.default_rng(seed)
    x, y = np.sort(rng.normal(size=n)), np.sort(rng.normal(1, 2, size=m))
    length = math.lcm(n, m)
    gaps = np.abs(np.repeat(x, length // n) - np.repeat(y, length // m))
    expected = np.mean(gaps**p) ** (1 / p)
    grid = quantile_grid(n, m, CPU)
    lines = torch.from_numpy(x)[None], torch.from_numpy(y)[None]
    assert float(grid.distance(*lines, p)) == pytest.approx(expected, rel=1e-12)
    mean, spread = grid.average(lines[1])
    square = (lines[0] - mean).square().mean() + spread
    if p == 2:
        assert float(square) == pytest.approx(expected**2, rel=1e-12)


def test_large_sizes_lose_no_weight():
    n, m = 99_991, 100_003  # primes: their least common multiple exceeds 32 bits
    grid = quantile_grid(n, m, CPU)
    assert float(grid.weight.sum()) == pytest.approx(1, abs=1e-12)
    assert int(grid.index.max()) == m - 1


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_large_orders_neither_overflow_nor_vanish(scale):
    x = scale * torch.rand(7, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value = sliced_wasserstein(x, x[:5], torch.ones(1, 1).double(), p=500.0)
    gaps = (x.sort(dim=0).values[:, None] - x[:5].sort(dim=0).values[None]).abs()
    assert 0.1 * scale < float(value) <= float(gaps.max())


def test_directions_are_uniform_and_extend():
    directions = random_directions(3, 5000, seed=4)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(5000).double())
    # Each entry of the mean has standard deviation √(1/3/5000), of the second moments < 1/√5000.
    assert (directions.mean(dim=0).abs() < 5 * math.sqrt(1 / 15000)).all()
    moments = directions.T @ directions / 5000
    assert ((moments - torch.eye(3) / 3).abs() < 5 / math.sqrt(5000)).all()
    assert torch.equal(random_directions(3, 70, seed=4), directions[:70])
    assert not torch.equal(random_directions(3, 70, seed=5), directions[:70])


def test_directions_leave_the_global_generators_alone():
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    random_directions(2, 10, seed=0)
    assert torch.equal(torch_state, torch.random.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002


def test_long_sums_keep_their_precision():
    lines = torch.full((2, 3_000_000), 0.1)
    expected = float(torch.tensor(0.1)) * 3_000_000
    assert float(long_sum(lines)[1]) == pytest.approx(expected, rel=1e-6)


def test_memory_does_not_grow_with_the_directions(monkeypatch):
    """Lines are made a block at a time, or as many as have `WORK` numbers, and not kept."""
    sizes = []

    def watched(directions, points, out=None):
        sizes.append((len(directions), len(points)))
        return project(directions, points, out)

    monkeypatch.setattr(max_sliced, "project", watched)
    monkeypatch.setattr(max_sliced, "KEPT_BYTES", 0)
    x, y = torch.rand(2000, 3), torch.rand(3000, 3)
    for work, rows in ((2**22, BLOCK), (20_000, 6), (100, 1)):
        sizes.clear()
        monkeypatch.setattr(max_sliced, "WORK", work)
        max_sliced.MaxSliced(directions=100).against(y, seed=0)(x)
        assert max(lines for lines, _ in sizes) == rows
        assert sum(lines for lines, count in sizes if count == 2000) == 100

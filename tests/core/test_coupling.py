"""Coupled noise: its law, one path for every number of steps, and refusals."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from samplerbench.core import coupling
from samplerbench.core.coupling import BrownianNoise
from samplerbench.core.grids import Levels, karras, uniform
from samplerbench.core.noise import generator
from samplerbench.core.schedules import EDM, Rectified, VPLinear

LIKE = torch.empty(40, 2, dtype=torch.float64)
KEY = ("sampler", 0, 0, 0)


@pytest.fixture(autouse=True)
def drawn_anew(monkeypatch):
    """Each run draws its numbers anew."""
    monkeypatch.setattr(coupling, "_KEPT", 0)


def grid(steps):
    return karras(EDM(10.0), steps, noise_min=0.02, rho=5.0)


def ratio(levels):
    return ((levels.alpha / levels.sigma) ** 2).tolist()


def test_coarse_increments_are_sums_of_fine_ones():
    """Grids of k + 1 and 2k + 1 levels before the data are nested."""
    coarse, fine = grid(9), grid(17)
    ours, theirs = BrownianNoise(KEY, coarse), BrownianNoise(KEY, fine)
    clock, small = ratio(coarse), ratio(fine)
    for step in range(8):
        large = math.sqrt(clock[step + 1] - clock[step]) * ours.normal(LIKE, step)
        parts = [
            math.sqrt(small[k + 1] - small[k]) * theirs.normal(LIKE, k)
            for k in (2 * step, 2 * step + 1)
        ]
        torch.testing.assert_close(large, sum(parts), rtol=1e-4, atol=1e-6)


def test_a_number_depends_on_its_place_only():
    """Earlier draws and the other levels do not matter; another key gives another path."""
    levels = grid(12)
    forward = BrownianNoise(KEY, levels)
    numbers = [forward.normal(LIKE, step) for step in range(11)]
    backward = BrownianNoise(KEY, levels)
    for step in reversed(range(11)):
        assert torch.equal(backward.normal(LIKE, step), numbers[step])
    other = BrownianNoise(("sampler", 0, 1, 0), levels).normal(LIKE, 5)
    assert abs((other * numbers[5]).mean()) < 5 / math.sqrt(80)


CLOSE = torch.tensor([0.5, 0.4999999, 0.3], dtype=torch.float64)  # two levels whose places round


@pytest.mark.parametrize(
    "levels",
    [grid(6), karras(VPLinear(), 5, noise_min=0.01), Levels(CLOSE, *Rectified()(CLOSE))],
    ids=["ve", "vp", "close"],
)
def test_increments_are_standard_normal_and_independent(levels):
    like = torch.empty(20_000, 1, dtype=torch.float64)
    steps = int((levels.sigma[1:] > 0).sum())
    noise = BrownianNoise(("law",), levels)
    z = torch.cat([noise.normal(like, step) for step in range(steps)], dim=1)
    # covariances of 20 000 pairs have sd .007, variances .01
    assert (z.T.cov() - torch.eye(steps)).abs().max() < 0.045
    assert z.mean(0).abs().max() < 5 / math.sqrt(20_000)


def test_the_path_begins_where_there_is_no_signal():
    """α = 0 is τ = 0, where B = 0: the first increment has the right variance too."""
    levels = uniform(Rectified(), 4)
    like = torch.empty(20_000, 1, dtype=torch.float64)
    noise = BrownianNoise(("law",), levels)
    z = torch.cat([noise.normal(like, step) for step in range(3)], dim=1)
    assert (z.T.cov() - torch.eye(3)).abs().max() < 0.045


def test_what_has_no_path_refuses():
    noise = BrownianNoise(KEY, grid(4))
    with pytest.raises(ValueError, match="more than once a step"):
        noise.normal(LIKE, 0, 1)
    with pytest.raises(ValueError, match="uniform"):
        noise.uniform(LIKE, 0)
    held = torch.full((3,), 0.5, dtype=torch.float64)
    with pytest.raises(ValueError, match="no signal is gained in step 1"):
        BrownianNoise(KEY, Levels(held, *EDM(10.0)(held))).normal(LIKE, 1)


def test_shape_and_precision_are_those_of_the_state():
    like = torch.empty(3, 2, 5, dtype=torch.float32)
    z = BrownianNoise(KEY, grid(4)).normal(like, 1)
    assert (z.shape, z.dtype) == (like.shape, like.dtype)


def test_what_is_kept_is_what_is_drawn(monkeypatch):
    """Numbers from memory are the same, even after a sampler has changed its own in place."""
    levels, other = grid(6), grid(7)
    fresh = [BrownianNoise(KEY, levels).normal(LIKE, step) for step in range(6)]
    monkeypatch.setattr(coupling, "_KEPT", (6 + coupling._DEEPEST) * LIKE.numel())
    coupling._recent.cache_clear()
    for _ in range(2):
        noise = BrownianNoise(KEY, levels)
        for step in (3, 0, 1, 2, 5, 4):
            drawn = noise.normal(LIKE, step)
            assert torch.equal(drawn, fresh[step])
            drawn.zero_()
    assert coupling._recent.cache_info().hits > 0
    BrownianNoise(KEY, other).normal(LIKE, 0)  # too many numbers to be kept
    assert coupling._recent.cache_info().currsize == 1


@pytest.fixture
def drawn(monkeypatch):
    """The keys of the numbers that are drawn, while paths are kept."""
    keys = []

    def counted(*key):
        keys.append(key)
        return generator(*key)

    monkeypatch.setattr(coupling, "generator", counted)
    monkeypatch.setattr(coupling, "_KEPT", 2**21)
    coupling._recent.cache_clear()
    return keys


def test_threads_draw_no_number_twice(drawn):
    """Two samplers in step, as in a sweep with two workers: the path is drawn as for one."""
    levels = grid(9)

    def run(_):
        noise = BrownianNoise(KEY, levels)
        for step in range(9):
            together.wait()
            noise.normal(LIKE, step)

    counts = []
    for threads in (1, 2):
        coupling._recent.cache_clear()
        together = Barrier(threads)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(run, range(threads)))
        counts.append(len(drawn))
    assert counts[1] == 2 * counts[0]


def test_a_run_keeps_its_path(drawn):
    """More runs at once than paths are kept for: none is drawn anew in the middle."""
    levels = grid(9)
    runs = [BrownianNoise((*KEY, of), levels) for of in range(12)]
    for step in range(8):
        for noise in runs:
            noise.normal(LIKE, step)
    assert len(drawn) == len(set(drawn))

"""N2's reverse SDE without samples: the density of its chain, carried through all 500 steps.

With the exact score of the 10 000 data what is left is the start's part and the steps'. The state
is a histogram on a line; a step moves its cells by the drift and blurs them by the noise.
"""

import numpy as np
import pytest

from samplerbench.core.grids import uniform
from samplerbench.core.schedules import GeometricVE
from samplerbench.datasets.four_well import FourWell
from samplerbench.samplers.reverse_sde import sde_coefficients

WIDTH = 0.001
X = np.arange(-10.0, 10.0, WIDTH)
WAVES = 2 * np.pi * np.fft.rfftfreq(len(X), WIDTH)


def shared_out(places, masses):
    """A histogram of point masses, each shared between its two neighbours on the line."""
    position = (places - X[0]) / WIDTH
    left = np.clip(np.floor(position).astype(int), 0, len(X) - 2)
    share = position - left
    sums = np.bincount(left, masses * (1 - share), len(X))
    return sums + np.bincount(left + 1, masses * share, len(X))


def blurred(spectrum, std):
    """A histogram, by its Fourier transform, after normal noise of that deviation."""
    return np.fft.irfft(spectrum * np.exp(-0.5 * (std * WAVES) ** 2), len(X))


def distance(one, other):
    return np.abs(np.cumsum(one - other)).sum() * WIDTH


@pytest.mark.slow
@pytest.mark.parametrize(("start", "expected"), [("prior", 0.0110), ("exact", 0.0026)])
def test_the_start_is_what_keeps_n2_from_its_data(start, expected):
    """W₁ of the chain's law to the data; .0025 of it is the σ = .03 of noise that it keeps."""
    schedule = GeometricVE(0.03, 2.0)
    levels = uniform(schedule, 501)
    x = FourWell(dt=0.005, beta=2.0, steps=10_000, seed=42).draws(10_000, "train").numpy().ravel()
    data = shared_out(x, np.full(len(x), 1 / len(x)))
    spectrum = np.fft.rfft(data)
    prior = np.exp(-0.5 * (X / 2.0) ** 2)
    state = prior / prior.sum() if start == "prior" else blurred(spectrum, 2.0)
    sde = sde_coefficients(schedule, levels)
    for (_, now, to), (a, b, g) in zip(levels.pairs(), sde, strict=True):
        h, noised = to.t - now.t, blurred(spectrum, now.sigma)
        slope = blurred(1j * WAVES * spectrum, now.sigma)
        known = noised > 1e-13 * noised.max()  # farther out, rounding: a Gaussian's score
        score = np.where(known, slope / np.where(known, noised, 1.0), (x.mean() - X) / now.sigma**2)
        moved = shared_out(
            (1 + h * a) * X + h * b * (X + now.sigma**2 * score), np.maximum(state, 0)
        )
        state = blurred(np.fft.rfft(moved / moved.sum()), g * (-h) ** 0.5)
    assert distance(state, data) == pytest.approx(expected, abs=2e-4)

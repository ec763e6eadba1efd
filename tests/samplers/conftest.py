"""A Gaussian with a density, and a peer of which only one file is loaded."""

from __future__ import annotations

import types
from importlib.util import find_spec

import pytest
import torch

from samplerbench.datasets.gaussian import gaussian
from samplerbench.samplers.k_diffusion import sampling


@pytest.fixture(scope="session")
def k_sampling() -> types.ModuleType:
    """k-diffusion's sampling.py, without the rest of its package."""
    if find_spec("k_diffusion") is None:
        pytest.skip("needs: pip install --no-deps k-diffusion (make test does)")
    return sampling()


@pytest.fixture
def wide_law(normal_law, gaussian_moments):
    """A Gaussian in R³ with correlations and widths .5, .8 and 1.4: it has a density."""
    mean, covariance = gaussian_moments(normal_law)
    return gaussian(mean.tolist(), (covariance + 0.25 * torch.eye(3).double()).tolist())

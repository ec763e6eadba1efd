"""A Gaussian with a density, and a peer of which only one file is loaded."""

from __future__ import annotations

import sys
import types
from importlib import import_module
from importlib.util import find_spec
from unittest.mock import patch

import pytest
import torch

from samplerbench.datasets.gaussian import gaussian


def _append_dims(x: torch.Tensor, dims: int) -> torch.Tensor:
    return x[(..., *(None,) * (dims - x.ndim))]


@pytest.fixture(scope="session")
def k_sampling() -> types.ModuleType:
    """k-diffusion's sampling.py, without the rest of its package.

    The package asks for torchvision, CLIP and other heavy things, of which sampling.py uses one
    function of three lines; its two SDE and ODE libraries serve samplers that no test runs.
    """
    spec = find_spec("k_diffusion")
    if spec is None:
        pytest.skip("needs: pip install --no-deps k-diffusion (make test does)")
    package, utils = types.ModuleType("k_diffusion"), types.ModuleType("k_diffusion.utils")
    package.__path__ = list(spec.submodule_search_locations or ())
    package.utils, utils.append_dims = utils, _append_dims  # type: ignore[attr-defined]
    ode, sde = types.ModuleType("torchdiffeq"), types.ModuleType("torchsde")
    ode.odeint = None  # type: ignore[attr-defined]
    modules = {
        package.__name__: package,
        utils.__name__: utils,
        "torchdiffeq": ode,
        "torchsde": sde,
    }
    with patch.dict(sys.modules, modules):
        return import_module("k_diffusion.sampling")


@pytest.fixture
def wide_law(normal_law, gaussian_moments):
    """A Gaussian in R³ with correlations and widths .5, .8 and 1.4: it has a density."""
    mean, covariance = gaussian_moments(normal_law)
    return gaussian(mean.tolist(), (covariance + 0.25 * torch.eye(3).double()).tolist())

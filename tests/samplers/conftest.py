"""A peer that only loads in part."""

from __future__ import annotations

import sys
import types
from importlib import import_module
from importlib.util import find_spec
from unittest.mock import patch

import pytest
import torch


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

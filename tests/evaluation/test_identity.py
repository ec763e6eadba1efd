"""Identities: stable, and different for different things."""

import functools

import pytest
import torch

from samplerbench.evaluation.identity import describe, identity
from samplerbench.grids import karras
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.euler import Euler
from samplerbench.schedules import GeometricVE, GeometricVEKernel


def test_equal_things_have_equal_identities():
    assert identity({"a": 1, "b": DDIM(0.5)}) == identity({"b": DDIM(0.5), "a": 1})
    assert identity(functools.partial(karras, rho=5.0, noise_min=0.1)) == identity(
        functools.partial(karras, noise_min=0.1, rho=5.0)
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (DDIM(0.5), DDIM(0.50001)),
        (DDIM(0.0), Euler()),
        (GeometricVE(), GeometricVEKernel()),
        (functools.partial(karras, rho=5.0), functools.partial(karras, rho=7.0)),
        ({"a": [1, 23]}, {"a": [12, 3]}),
        (1, 1.5),
    ],
)
def test_different_things_have_different_identities(one, other):
    assert identity(one) != identity(other)


def test_what_cannot_be_described_is_refused():
    with pytest.raises(TypeError, match="Generator"):
        identity({"draws": torch.Generator()})


def test_the_description_can_be_read():
    assert describe(DDIM(0.5)) == {"class": "samplerbench.samplers.ddim.DDIM", "eta": 0.5}

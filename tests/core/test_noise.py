"""Keyed noise: a draw depends on its key alone; the numbers are what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from samplerbench.core.noise import KeyedNoise, generator, torch_generator

LIKE = torch.empty(200_000, 2, dtype=torch.float64)
SMALL = torch.empty(4, 3, dtype=torch.float64)


def test_order_does_not_matter():
    noise = KeyedNoise((7, "sampler", 0, 3))
    addresses = [(0, 0), (1, 0), (0, 1), (9, 2)]
    forth = {a: (noise.normal(SMALL, *a), noise.uniform(SMALL, *a)) for a in addresses}
    again = KeyedNoise((7, "sampler", 0, 3))
    for address in reversed(addresses):
        assert torch.equal(again.uniform(SMALL, *address), forth[address][1])
        assert torch.equal(again.normal(SMALL, *address), forth[address][0])


def test_every_part_of_the_address_matters():
    """Keys with the same digits in other places differ, and so do the two kinds of numbers."""
    keys = [(1, 23), (12, 3), (1, "23"), ("1", 23), (1, 2, 3), (1, 23, "sampler"), (1, 23, "start")]
    draws = [KeyedNoise(key).normal(SMALL, 0) for key in keys]
    noise = KeyedNoise((1, 23))
    draws += [noise.normal(SMALL, 1), noise.normal(SMALL, 0, 1), noise.normal(SMALL, 11, 1)]
    draws += [noise.normal(SMALL, 1, 11), noise.uniform(SMALL, 0), KeyedNoise(()).normal(SMALL, 0)]
    draws += [torch.from_numpy(generator(1, 23).standard_normal(SMALL.shape))]
    # uniforms that came from the normals' own stream would depend on them
    draws += [torch.from_numpy(generator(1, 23, "normal", 0, 0).random(SMALL.shape))]
    numbers = torch.cat([draw.flatten() for draw in draws])
    assert len(numbers.unique()) == len(numbers)


def test_a_draw_can_be_changed_in_place():
    """Small draws are kept for other cells, and a caller gets its own numbers."""
    like = SMALL.clone()
    first = KeyedNoise((7,)).normal(like, 0)
    expected = first.clone()
    first.zero_()
    assert torch.equal(KeyedNoise((7,)).normal(like, 0), expected)
    assert torch.equal(KeyedNoise((7,)).normal(like[:2], 0), expected[:2])  # another shape


def test_numpy_integers_are_integers():
    assert generator(np.int64(3), "a").random() == generator(3, "a").random()
    assert torch_generator(np.int32(3)).initial_seed() == torch_generator(3).initial_seed()
    with pytest.raises(TypeError):
        generator(0.5)


def test_numbers_are_fixed_for_ever():
    """A change here changes every stored result: bump the version of the store with it."""
    assert generator(0, "sampler").random() == pytest.approx(0.01992277532978881, rel=1e-15)
    assert torch_generator(0, "sampler").initial_seed() == 20512434983609832


def test_normal_moments():
    z, other = (KeyedNoise((1,)).normal(LIKE, step).flatten() for step in (0, 1))
    error = len(z) ** -0.5
    assert abs(z.mean()) < 5 * error
    assert abs(z.square().mean() - 1) < 5 * 2**0.5 * error
    assert abs(z.pow(3).mean()) < 5 * 15**0.5 * error
    assert abs(z.pow(4).mean() - 3) < 5 * 96**0.5 * error
    for one, two in ((z, other), (z[:-1], z[1:]), (z[::2], z[1::2])):
        assert abs((one * two).mean()) < 5 / len(one) ** 0.5


def test_uniform_moments():
    u = KeyedNoise((1,)).uniform(LIKE, 0).flatten()
    assert u.min() >= 0
    assert u.max() < 1
    error = len(u) ** -0.5
    assert abs(u.mean() - 0.5) < 5 * error / 12**0.5
    assert abs(u.square().mean() - 1 / 3) < 5 * error * (4 / 45) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_dtype_and_range(dtype):
    like = torch.empty(100_000, 1, dtype=dtype)
    z, u = KeyedNoise((1,)).normal(like, 0), KeyedNoise((1,)).uniform(like, 0)
    assert z.dtype == u.dtype == dtype
    assert z.shape == u.shape == like.shape
    assert u.min() >= 0
    assert u.max() < 1  # also after rounding to a short format
    if dtype == torch.float32:  # the same numbers, rounded
        assert torch.equal(z, KeyedNoise((1,)).normal(like.double(), 0).float())


def test_torch_generator():
    one, two, other = (torch.rand(9, generator=torch_generator(k, "train")) for k in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)

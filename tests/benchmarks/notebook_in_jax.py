"""The job of the notebook N1 in JAX, as ../docs/notebooks.md describes it: training and 36 cells.

NCSN on the grid mixture (two noise levels for each datum, Adam with a rate of 1e-2, 3 000 steps of
2 048 data drawn with replacement), then DDIM(η) with 2 000 samples from the prior, and POT's
max-sliced W₂ over 1 000 random directions to 10 000 data. Prints the seconds of both parts.

A script of its own, for an environment with jax, flax, optax and pot; `test_notebook_bench.py`
runs it beside samplerbench. It imports nothing of samplerbench.
"""

from __future__ import annotations

import time
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import ot
from flax import linen

STEPS, BATCH, LOW, HIGH, RHO = 3000, 2048, 0.02, 10.0, 5.0
WEIGHTS = [0.0991055, 0.1378562, 0.1249738, 0.1137685, 0.0913863]
WEIGHTS += [0.1188078, 0.0151706, 0.1571894, 0.1417420]
CELLS = [4, 9, 16, 25, 36, 49, 64, 81, 100]
ETAS = [0.0, 0.1, 0.5, 1.0]


class Score(linen.Module):
    """(x, ln(υ)/4) → 256 → 512 → 256 → 2, with LayerNorm after the first and third layer."""

    @linen.compact
    def __call__(self, x, noise):
        h = jnp.concatenate([x, jnp.log(noise) / 4], -1)
        for width, normed in ((256, True), (512, False), (256, True)):
            h = linen.Dense(width)(h)
            h = linen.leaky_relu(linen.LayerNorm()(h) if normed else h)
        return linen.leaky_relu(linen.Dense(2)(h))


def draws(count, seed):
    """Points of the grid mixture."""
    random = np.random.default_rng(seed)
    means = np.array([[x, y] for y in (-10, 0, 10) for x in (-10, 0, 10)], float)
    modes = random.choice(9, count, p=np.array(WEIGHTS) / sum(WEIGHTS))
    points = means[modes] + np.sqrt(0.1) * random.standard_normal((count, 2))
    return jnp.asarray(points, jnp.float32)


def train(network, data):
    """The parameters after all steps."""
    optimiser = optax.adam(1e-2)
    parameters = network.init(jax.random.key(0), data[:2], jnp.ones((2, 1)))
    state = optimiser.init(parameters)

    def loss(parameters, key):
        rows, level, noise = jax.random.split(key, 3)
        x = jnp.tile(data[jax.random.randint(rows, (BATCH,), 0, len(data))], (2, 1))
        log = -0.5 + 1.2 * jax.random.normal(level, (2 * BATCH, 1))
        sigma = jnp.clip(jnp.exp(log), LOW, HIGH)
        eps = jax.random.normal(noise, x.shape)
        error = sigma * network.apply(parameters, x + sigma * eps, sigma) + eps
        return (error**2).sum(-1).mean()

    @jax.jit
    def step(parameters, state, key):
        value, gradient = jax.value_and_grad(loss)(parameters, key)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(parameters, updates), state, value

    value = jnp.inf
    for key in jax.random.split(jax.random.key(1), STEPS):
        parameters, state, value = step(parameters, state, key)
    assert bool(jnp.isfinite(value))
    return parameters


def sampled(network, parameters, eta, count, start, key):
    """DDIM(η) on the Karras grid with `count` levels; the last step gives Tweedie's x̂₀."""
    ramp = jnp.linspace(0, 1, count)
    levels = (HIGH ** (1 / RHO) + ramp * (LOW ** (1 / RHO) - HIGH ** (1 / RHO))) ** RHO

    @jax.jit
    def denoised(x, noise):
        return x + noise**2 * network.apply(parameters, x, jnp.full((len(x), 1), noise))

    x = start
    for now, then in pairwise(levels):
        x0_hat = denoised(x, now)
        spread = eta * then / now * jnp.sqrt(now**2 - then**2)
        key, one = jax.random.split(key)
        x = x0_hat + jnp.sqrt(then**2 - spread**2) / now * (x - x0_hat)
        x = x + spread * jax.random.normal(one, x.shape)
    return denoised(x, levels[-1])


def main():
    began = time.perf_counter()
    data, network = draws(10_000, 0), Score()
    parameters = train(network, data)
    trained = time.perf_counter()
    start = HIGH * jax.random.normal(jax.random.key(2), (2000, 2))
    for row, eta in enumerate(ETAS):
        found = []
        for column, count in enumerate(CELLS):
            key = jax.random.key(100 * row + column)
            samples = sampled(network, parameters, eta, count, start, key)
            distance = ot.max_sliced_wasserstein_distance(samples, data, n_projections=1000)
            found.append(float(distance))
        print(f"eta {eta}: {' '.join(f'{one:.2f}' for one in found)}")
    ended = time.perf_counter()
    print(f"training {trained - began:.1f} s, cells {ended - trained:.1f} s")


if __name__ == "__main__":
    main()

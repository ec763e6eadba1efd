#!/usr/bin/env bash
# SGMCMCJax 0.2.13: the chains of build_baoab_sampler, build_badodab_sampler and build_badodabCV_sampler never leave their
# start. And the two diffusions themselves have another temperature: with badodab the variance of N(0, I) in d dimensions
# is about d, and with baoab it is tau².
#
# Both are splitting schemes, whose step has two parts with a new gradient between them. The kernels bind both parts to
# one name, so they run the second part twice, which moves the velocity only. All states are the start, without an error
# or a NaN. With the usual start at the mode, the posterior mean looks perfect, and ArviZ finds an effective size of all
# states.
#
# The parts in their right order move, as in the last rows. But the thermostat of badodab compares the norm of the
# velocity with d, where its square belongs. So the speed is d and not √d, and the temperature about d (1.7 at d = 1).
# Each leaf of a tree of parameters has its own thermostat: 5 leaves of 10 numbers have the temperature 10. The noise of
# baoab is multiplied by tau, which the documentation calls the temperature, and not by its root.
#
# N(0, I), all starts at 2, no subsampling; the number is the mean of x² after the first fifth of 40 000 states.
# SGMCMCJax imports a module of jax that newer versions lack, hence jax 0.4.30.
#
# Guessed before: from the documentation, variance 1 within 5 % in every dimension. After we read the diffusion, but not
# the kernels: 1.6 and d for badodab.
# Issue 69 of the package reports constant chains; no release has the fix of pull request 70. No thread mentions the
# temperatures among those that a search found (2026-12-01).
# Exits with 0 while this is so, with 1 once it is not.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet sgmcmcjax==0.2.13 jax==0.4.30 jaxlib==0.4.30 numpy==1.26.4 scipy==1.13.1

cat > "$folder/program.py" <<'PYTHON'
import os
import sys
import warnings
from importlib.metadata import version

warnings.simplefilter("ignore")  # of packages that it imports
os.environ["TQDM_DISABLE"] = "1"

import jax
import jax.numpy as jnp
import numpy as np
from sgmcmcjax import diffusions, samplers

STATES = 40_000
DATA = (jnp.zeros(1),)


def loglikelihood(theta, x):
    return 0.0 * x


def logprior(theta):
    return -sum(jnp.sum(leaf**2) for leaf in jax.tree_util.tree_leaves(theta)) / 2


MODEL = loglikelihood, logprior, DATA, 1


def both_parts(diffusion):
    """A sampler that makes the two parts of a diffusion in their order."""
    init, (first, second), params = diffusion
    gradient = jax.grad(logprior)

    @jax.jit
    def chain(key, theta):
        def step(state, number_and_key):
            number, key = number_and_key
            state = first(number, key, gradient(params(state)), state)
            state = second(number, key, gradient(params(state)), state)
            return state, params(state)

        return jax.lax.scan(step, init(theta), (jnp.arange(STATES), jax.random.split(key, STATES)))[1]

    return lambda key, states, theta: chain(key, theta)


STARTS = {
    "d = 1": jnp.full(1, 2.0),
    "2": jnp.full(2, 2.0),
    "10": jnp.full(10, 2.0),
    "50": jnp.full(50, 2.0),
    "5 leaves of 10": [jnp.full(10, 2.0)] * 5,
}
CASES = {
    "build_sgld_sampler": lambda start: samplers.build_sgld_sampler(0.02, *MODEL),
    "build_sgnht_sampler": lambda start: samplers.build_sgnht_sampler(0.01, *MODEL),
    "build_baoab_sampler": lambda start: samplers.build_baoab_sampler(0.2, *MODEL, 1.0),
    "build_badodab_sampler": lambda start: samplers.build_badodab_sampler(0.1, *MODEL),
    "build_badodabCV_sampler": lambda start: samplers.build_badodabCV_sampler(
        0.1, *MODEL, jax.tree_util.tree_map(jnp.zeros_like, start)
    ),
    "baoab, both parts": lambda start: both_parts(diffusions.baoab(0.2, 1.0)),
    "baoab, both parts, tau=4": lambda start: both_parts(diffusions.baoab(0.2, 1.0, tau=4.0)),
    "badodab, both parts": lambda start: both_parts(diffusions.badodab(0.1, a=1.0)),
    "the same, a fifth of its step": lambda start: both_parts(diffusions.badodab(0.02, a=1.0)),
}
print(f"SGMCMCJax {version('sgmcmcjax')}, jax {jax.__version__}")
print("mean of x², distinct states".ljust(30), *(dimension.ljust(14) for dimension in STARTS))
found, distinct = {}, {}
for name, build in CASES.items():
    for dimension, start in STARTS.items():
        states = build(start)(jax.random.PRNGKey(0), STATES, start)
        flat = np.concatenate([np.asarray(leaf) for leaf in jax.tree_util.tree_leaves(states)], axis=1)
        found[name, dimension] = float((flat[STATES // 5 :] ** 2).mean())
        distinct[name, dimension] = len(np.unique(flat, axis=0))
    cells = (f"{found[name, key]:.2f}, {distinct[name, key]}" for key in STARTS)
    print(name.ljust(30), *(cell.ljust(14) for cell in cells), flush=True)


def near(name, *expected):
    return all(abs(found[name, key] / value - 1) < 0.2 for key, value in zip(STARTS, expected, strict=True))


stuck = all(distinct[f"build_{name}_sampler", key] == 1 for name in ("baoab", "badodab", "badodabCV") for key in STARTS)
hot = all(near(name, 1.7, 2.7, 10.4, 50.3, 10.5) for name in ("badodab, both parts", "the same, a fifth of its step"))
square = near("baoab, both parts, tau=4", 16, 16, 16, 16, 16)
right = all(near(name, 1, 1, 1, 1, 1) for name in ("build_sgld_sampler", "build_sgnht_sampler", "baoab, both parts"))
if not (stuck and hot and square and right):
    sys.exit("changed: the chains move, or the temperatures are others")
print("\nas described: three samplers stay at their start; badodab has the temperature d, and baoab tau²")
PYTHON
"$folder/venv/bin/python" "$folder/program.py"

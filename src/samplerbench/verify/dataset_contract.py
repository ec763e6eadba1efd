"""The contract of data sets; see `contract`.

The error of an exact denoiser is orthogonal to all functions of its input: with x = x₀ + σ·ε,
E[(x₀ − x̂₀(x))·f(x)] = 0 for every f if and only if x̂₀(x) = E[x₀ | x]. This compares the draws of a
data set with its oracle, which is independent code. The log-density of the oracle is independent
code too: it must integrate to 1, and its slope, by differences, must be the score (Tweedie).
Without an oracle only the draws are checked; without a log-density its checks do not apply.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from samplerbench.core.grids import Level
from samplerbench.core.models import Denoiser, Density
from samplerbench.core.schedules import EDM, Rectified
from samplerbench.core.starts import Moments
from samplerbench.datasets.base import Dataset, log_density_of
from samplerbench.errors import InvalidSetting
from samplerbench.verify.sampler_contract import DOES_NOT_APPLY, Check

PURPOSES = ("train", "validation", "evaluation", "floor", "start")
PATH = EDM(1e9)
#: α, and σ/α as a share of the data's standard deviation; the largest compares second moments.
LEVELS = ((0.6, 0.03), (1.0, 0.2), (0.3, 1.0), (1.0, 10.0))


def draws(law: Dataset) -> str | None:
    """n draws are finite, float64, of shape (n, dim); dim is the product of `event_shape`."""
    if not law.can_be_drawn:
        return DOES_NOT_APPLY
    x, dim = law.draws(8, "train", 0), math.prod(law.event_shape)
    if dim != law.dim or (x.shape, x.dtype) != ((8, dim), torch.float64):
        return f"8 draws of event_shape {law.event_shape} are {x.dtype} of shape {tuple(x.shape)}"
    return None if x.isfinite().all() else "a draw is not finite"


def key(law: Dataset) -> str | None:
    """Purpose and seed determine the draws; another purpose or seed gives other draws."""
    if not law.can_be_drawn:
        return DOES_NOT_APPLY
    keys = [(purpose, seed) for purpose in PURPOSES for seed in (0, 1)]
    sets = [law.draws(8, *one) for one in keys]
    for one, x in zip(keys, sets, strict=True):
        if not torch.equal(x, law.draws(8, *one)):
            return "the same purpose and seed give other draws"
    for (one, x), (other, y) in combinations(zip(keys, sets, strict=True), 2):
        if torch.equal(x, y):
            return f"draws for {one} and {other} are the same"
    return None


def order(law: Dataset) -> str | None:
    """The order of draws is irrelevant: the first draw has the same law as the last."""
    if not law.can_be_drawn:
        return DOES_NOT_APPLY
    x = torch.stack([law.draws(8, "train", seed) for seed in range(200)])
    gap = _gap(x[:, 0], x[:, -1])
    return None if gap < 6 else f"moments of the first and the last draw are {gap:.0f} errors apart"


def uniforms(law: Dataset) -> str | None:
    """`from_uniforms` maps uniform numbers, shape (n, uniform_dim), to draws of the same law."""
    if law.uniform_dim is None:
        return DOES_NOT_APPLY
    x0 = _draws(law, 5)
    u = np.random.default_rng(4).random((len(x0), law.uniform_dim))
    return _other_law(law.from_uniforms(torch.from_numpy(u)), x0)


def noised(law: Dataset) -> str | None:
    """`noised(σ)` is the law of x₀ + σ·ε."""
    if not law.can_be_drawn:
        return DOES_NOT_APPLY
    x0 = _draws(law, 5)
    sigma = 0.5 * float(x0.std())
    other = law.noised(sigma)
    if other is None:
        return DOES_NOT_APPLY
    return _other_law(_draws(other, 6), x0 + sigma * _normal(*x0.shape))


def moments(law: Dataset) -> str | None:
    """Mean, variance and covariance of the coordinates, if known, agree with draws."""
    known = law.moments()
    if known is None or not law.can_be_drawn:
        return DOES_NOT_APPLY
    draws = _draws(law, 5)
    found = Moments.of(draws)
    for name, other in (("mean", "mean_error"), ("variance", "variance_error")):
        gap = (getattr(known, name) - getattr(found, name)).abs()
        error = (getattr(known, other).square() + getattr(found, other).square()).sqrt()
        if not (gap <= 6 * error + 1e-9 * getattr(found, name).abs() + 1e-12).all():
            return f"a {name} is {float((gap / error).nan_to_num().max()):.0f} standard errors off"
    covariance = law.covariance()
    if covariance is not None:
        centred, count = draws - found.mean, len(draws)
        product, square = centred.T @ centred / count, centred.square().T @ centred.square() / count
        gap, error = (covariance - product).abs(), ((square - product.square()) / count).sqrt()
        if not (gap <= 6 * error + 1e-9 * product.abs().max() + 1e-12).all():
            worst = float((gap / error).nan_to_num().max())
            return f"a covariance is {worst:.0f} standard errors off"
    return None


def oracle(law: Dataset) -> str | None:
    """The oracle's x̂₀ is E[x₀ | x] for the law of the draws, at small and large noise."""
    model = _oracle(law)
    if model is None:
        return DOES_NOT_APPLY
    if getattr(model, "schedule", None) != PATH:
        return "the schedule of the oracle is not the argument of `oracle`"
    count = min(2_000, 2**20 // law.dim)
    if law.dim <= 2 and law.known_law:  # fewer draws if a state costs a sum over many components
        count = min(20_000, max(4_000, 2**21 // len(getattr(law, "weights", (1,)))))
    x0 = law.sample(count, np.random.default_rng(1))
    eps = _normal(*x0.shape)
    for alpha, share in LEVELS:
        sigma = share * float(x0.std())
        x = x0 + sigma * eps
        x0_hat = model.denoiser(alpha * x, Level(math.nan, alpha, alpha * sigma))
        for f in (torch.ones_like(x), x, x0_hat - x, (x0_hat - x).tanh()):
            product = ((x0 - x0_hat) * f).sum(-1)
            # if the noise is smaller than the distances of the points, x̂₀ is x₀ up to rounding
            error = max(float(product.std()), 1e-9 * float(x0.var())) / count**0.5
            ratio = abs(float(product.mean())) / error
            if not ratio < 5:
                where = f"at α={alpha}, σ={alpha * sigma:.3g}"
                return f"{where} x̂₀ is not the mean of x₀ given x: {ratio:.0f} standard errors off"
    return None


def score(law: Dataset) -> str | None:
    """The oracle's score is (α·x̂₀ − x)/σ², and the slope of its log-density."""
    model = _oracle(law)
    if not isinstance(model, Density):
        return DOES_NOT_APPLY
    width = float(law.sample(1000, np.random.default_rng(0)).std())
    for alpha, sigma in ((1.0, 0.05 * width), (1.0, 20 * width), (0.6, 0.4 * width), (1e-3, 1.0)):
        level, x = Level(0.5, alpha, sigma), _states(law, alpha, sigma)
        step = 1e-4 * sigma
        slack = 1e-5 * (1 + float(model.log_density(x, level).abs().max())) / sigma
        drift = (alpha * model.denoiser(x, level) - x) / sigma**2
        if not torch.allclose(model.score(x, level), drift, rtol=1e-7, atol=slack):
            return f"at α={alpha:.3g}, σ={sigma:.3g} the score is not (α·x̂₀ − x)/σ²"
        for axis in {0, law.dim // 2, law.dim - 1}:
            there = torch.zeros(law.dim, dtype=x.dtype)
            there[axis] = step
            rise = model.log_density(x + there, level) - model.log_density(x - there, level)
            if not torch.allclose(rise / (2 * step), drift[:, axis], rtol=1e-5, atol=slack):
                return f"at α={alpha:.3g}, σ={sigma:.3g} the slope of log_density is not the score"
    return None


def mass(law: Dataset) -> str | None:
    """The density of the oracle integrates to 1, in one and two dimensions."""
    model = _oracle(law)
    if not isinstance(model, Density) or law.dim > 2:
        return DOES_NOT_APPLY
    x0 = law.sample(1000, np.random.default_rng(0))
    sigma = 0.2 * float(x0.std())
    # the trapezoidal rule is exact for a smooth density that vanishes at the ends
    step, reach = 0.4 * sigma, 15 * sigma
    axes = [
        torch.arange(float(x.min()) - reach, float(x.max()) + reach, step, dtype=x.dtype)
        for x in x0.T
    ]
    points = torch.cartesian_prod(*axes).reshape(-1, law.dim)
    total = float(model.log_density(points, Level(0.5, 1.0, sigma)).exp().sum()) * step**law.dim
    return None if abs(total - 1) < 1e-6 else f"the density integrates to {total:.6g}"


def density(law: Dataset) -> str | None:
    """`log_density` is that of the draws, in one and two dimensions; it may be unknown."""
    if not law.can_be_drawn or law.dim > 2:
        return DOES_NOT_APPLY
    x, centres = _draws(law, 5), _draws(law, 6)[:500]
    # importance sampling from normal kernels around other draws, one of each of several widths
    widths = float(x.std()) * 10.0 ** -torch.arange(0, 3, 0.5, dtype=x.dtype)[:, None]
    points = (centres + widths[..., None] * _normal(len(widths), *centres.shape)).flatten(0, 1)
    squares = torch.cdist(points, centres).square()
    terms = -squares / (2 * widths[..., None].square()) - law.dim * widths[..., None].log()
    try:
        law.log_density(x), law.log_density(points)
    except InvalidSetting:
        return DOES_NOT_APPLY
    if not log_density_of(law, x).isfinite().all():
        return "log_density of a draw is not finite"
    kernels = len(widths) * len(centres) * (2 * math.pi) ** (law.dim / 2)
    ratio = (log_density_of(law, points) - terms.logsumexp((0, 2))).exp() * kernels
    mass, error = float(ratio.mean()), float(ratio.std()) / len(ratio) ** 0.5
    if mass < 10 and error > 0.1:
        return DOES_NOT_APPLY  # the law is narrower than the kernels
    if not abs(mass - 1) < min(6 * error + 0.01, 1):
        return f"exp(log_density) integrates to {mass:.3g} ± {error:.1g}"
    y, z = (((v - x.mean(0)) / x.std(0)).tanh() for v in (x, points))
    one, two = (torch.cat([v, v * v, v * v.roll(1, -1)], -1) for v in (y, z))
    two = ratio[:, None] * two
    errors = (one.var(0) / len(one) + two.var(0) / len(two)).sqrt()
    gap = float(((one.mean(0) - two.mean(0)).abs() / errors).max())
    return None if gap < 6 else f"moments by log_density are {gap:.0f} standard errors off"


def rows(law: Dataset) -> str | None:
    """The oracle takes any batch and a level for each state; states do not depend on each other."""
    model = _oracle(law)
    if model is None:
        return DOES_NOT_APPLY
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64).reshape(2, 3, 1)
    x, level = _states(law, 0.5, 0.5, 6).reshape(2, 3, law.dim), Level(t, *Rectified()(t))
    functions = [("x̂₀", model.denoiser, x.shape)]
    if isinstance(model, Density):
        functions.append(("log_density", model.log_density, x.shape[:-1]))
    for name, function, shape in functions:
        together = function(x, level)
        if together.shape != shape:
            return f"{name} of states {tuple(x.shape)} has shape {tuple(together.shape)}"
        for i, j in ((0, 1), (1, 2)):
            own = Level(*(float(values[i, j]) for values in (level.t, level.alpha, level.sigma)))
            if not torch.allclose(function(x[i, j], own), together[i, j], rtol=1e-7, atol=1e-9):
                return f"{name} of a state depends on the others of its batch"
    empty = model.denoiser(x[:0], Level(0.5, 0.5, 0.5))
    return None if empty.shape == (0, 3, law.dim) else "x̂₀ of no states is not empty"


def oracle_type(law: Dataset) -> str | None:
    """The oracle's x̂₀ has the dtype of the state, with the accuracy of float32."""
    model = _oracle(law)
    if model is None:
        return DOES_NOT_APPLY
    x, level = _states(law, 0.5, 0.5), Level(0.5, 0.5, 0.5)
    single = model.denoiser(x.float(), level)
    if single.dtype != torch.float32:
        return f"x̂₀ of a float32 state is {single.dtype}"
    same = torch.allclose(single.double(), model.denoiser(x, level), rtol=1e-3, atol=1e-3)
    return None if same else "x̂₀ of a float32 state differs from that of the float64 state"


DATASET: dict[str, Check] = {
    "draws": draws,
    "key": key,
    "order": order,
    "uniforms": uniforms,
    "noised": noised,
    "moments": moments,
    "oracle": oracle,
    "score": score,
    "mass": mass,
    "density": density,
    "rows": rows,
    "type": oracle_type,
}


def _oracle(law: Dataset) -> Denoiser | None:
    return law.oracle(PATH)


def _draws(law: Dataset, seed: int) -> Tensor:
    """4 000 draws, or fewer if they have many coordinates."""
    count = max(400, min(4000, 400_000 // law.dim))
    return law.sample(count, np.random.default_rng(seed))


def _gap(x: Tensor, y: Tensor) -> float:
    """The largest gap between first or second moments of draws, in standard errors."""
    centre = x.mean(0)
    one, two = (torch.cat([v, v * v, v * v.roll(1, -1)], -1) for v in (x - centre, y - centre))
    error = (one.var(0) / len(one) + two.var(0) / len(two)).sqrt()
    return float(((one.mean(0) - two.mean(0)).abs() / (error + 1e-12)).max())


def _other_law(x: Tensor, y: Tensor) -> str | None:
    """Why x, draws of a member, do not have the law of y, or None."""
    if (x.shape, x.dtype) != (y.shape, y.dtype):
        return f"{len(y)} draws are {x.dtype} of shape {tuple(x.shape)}"
    gap = _gap(x, y)
    return None if gap < 6 else f"a mean or a second moment is {gap:.0f} standard errors off"


def _normal(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(2).standard_normal(shape))


def _states(law: Dataset, alpha: float, sigma: float, count: int = 40) -> Tensor:
    x0 = law.sample(count, np.random.default_rng(3))
    return alpha * x0 + sigma * _normal(count, law.dim)

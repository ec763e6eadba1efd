"""The contracts of schedules, grids, targets, starts, level laws and weightings; see `contract`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from samplerbench.core.fitted_grids import FittedGrid, Fitting, from_bytes, to_bytes
from samplerbench.core.grids import Grid, Level, Levels, uniform
from samplerbench.core.level_laws import LevelLaw
from samplerbench.core.models import Density
from samplerbench.core.noise import KeyedNoise, torch_generator
from samplerbench.core.schedules import EDM, GeometricVE, NoiseSchedule, Rectified, VPCosine
from samplerbench.core.starts import Start
from samplerbench.core.targets import Target
from samplerbench.core.weightings import Weighting
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_spectrum import GaussianSpectrum, gaussian_twin
from samplerbench.errors import InvalidSetting
from samplerbench.identity import identity
from samplerbench.verify.exact_law import noised_law
from samplerbench.verify.sampler_contract import DOES_NOT_APPLY, Check

T = TypeVar("T")

TIMES = torch.cat([torch.zeros(1), torch.logspace(-4, -1, 40), torch.linspace(0.11, 1, 200)])
PATHS: tuple[NoiseSchedule, ...] = (EDM(10.0), GeometricVE(), VPCosine(), Rectified())
STEPS = (1, 2, 3, 5, 17, 200)
DRAWS = 2**14
LEVEL = Level(0.5, 0.8, 1.3)
LAW = gaussian((0.7, -1.2), ((1.0, 0.0), (0.0, 0.6)))
OTHER_LAW = gaussian((0.0, 0.0), ((0.1, 0.0), (0.0, 2.0)))


def _accepted(make: Callable[[Any], T], cases: Iterable[Any]) -> Iterator[tuple[Any, T]]:
    """The results for the cases that the member accepts; it must accept at least one."""
    refusal, accepted = None, False
    for case in cases:
        try:
            result = make(case)
        except InvalidSetting as error:
            refusal = refusal or error
            continue
        accepted = True
        yield case, result
    if refusal is not None and not accepted:
        raise refusal


def no_noise_at_the_data(schedule: NoiseSchedule) -> str | None:
    """α(0) = 1."""
    alpha = float(schedule.alpha(torch.zeros(1).double()))
    return None if alpha == 1 else f"α(0) is {alpha}, not 1"


def finite_scales(schedule: NoiseSchedule) -> str | None:
    """α and σ² are finite and not negative."""
    scales = torch.stack([schedule.alpha(TIMES.double()), schedule.variance(TIMES.double())])
    good = (scales.isfinite() & (scales >= 0)).all()
    return None if good else "α or σ² is negative or not finite"


def growing_noise(schedule: NoiseSchedule) -> str | None:
    """σ/α grows with t."""
    grows = (schedule.noise_to_signal(TIMES.double()).diff() > 0).all()
    return None if grows else "σ/α does not grow with t"


def inverse(schedule: NoiseSchedule) -> str | None:
    """`time_at` is the inverse of `noise_to_signal`."""
    t = TIMES.double()
    ratio = schedule.noise_to_signal(t)
    time = schedule.time_at(ratio)
    if time.isnan().any():
        return f"time_at({float(ratio[time.isnan()][0]):.3g}) is not a number"
    error = (time - t).abs().max()
    if not error < 1e-11:
        return f"time_at(noise_to_signal(t)) differs from t by {error:.1e}"
    least, largest = schedule.noise_range
    low, high = max(0.01, 1.001 * least), min(100.0, 0.999 * largest)
    ratio = torch.logspace(math.log10(low), math.log10(high), 50, dtype=torch.float64)
    error = (schedule.noise_to_signal(schedule.time_at(ratio)) / ratio - 1).abs().max()
    return None if error < 1e-11 else f"noise_to_signal(time_at(κ)) differs from κ by {error:.1e}·κ"


def rates(schedule: NoiseSchedule) -> str | None:
    """`rates` are the derivatives of α and σ² with respect to t."""
    inside, h = torch.linspace(0.0501, 0.9502, 37, dtype=torch.float64), 1e-5
    with torch.no_grad():
        alpha_rate, variance_rate = schedule.rates(inside)
    for name, rate, function in (
        ("α", alpha_rate, schedule.alpha),
        ("σ²", variance_rate, schedule.variance),
    ):
        slope = (function(inside + h) - function(inside - h)) / (2 * h)
        if rate.requires_grad or not torch.allclose(rate, slope, rtol=1e-5, atol=1e-7):
            return f"the rate of {name} is not its derivative"
    return None


def schedule_type(schedule: NoiseSchedule) -> str | None:
    """α, σ² and `time_at` have the shape and the dtype of their argument."""
    for like in (torch.full((2, 3), 0.5), torch.tensor(0.5, dtype=torch.float64)):
        for function in (schedule.alpha, schedule.variance, schedule.time_at):
            result = function(like)
            if (result.shape, result.dtype) != (like.shape, like.dtype):
                given, got = (f"{x.dtype} of shape {tuple(x.shape)}" for x in (like, result))
                return f"{function.__name__} of {given} is {got}"
    return None


SCHEDULE: dict[str, Check] = {
    "data": no_noise_at_the_data,
    "scales": finite_scales,
    "growth": growing_noise,
    "inverse": inverse,
    "rates": rates,
    "type": schedule_type,
}


def _fit(grid: FittedGrid, path: NoiseSchedule, law: GaussianSpectrum) -> Grid:
    """A recipe, fitted to the exact denoiser of a law."""
    return grid.fit(Fitting(law.oracle(path), law, lambda: law.variances))


def _ready(grid: Grid, path: NoiseSchedule) -> Grid:
    """The grid; a recipe is fitted once for each path."""
    if not isinstance(grid, FittedGrid):
        return grid
    key = identity([grid, path])
    if key not in _FITS:
        _FITS[key] = _fit(grid, path, gaussian_twin(LAW))
    return _FITS[key]


_FITS: dict[str, Grid] = {}


def _levels(grid: Grid, paths: Iterable[NoiseSchedule]) -> Iterator[tuple[int, Any, Levels]]:
    """(N, path, levels) for each path and N that the grid accepts; a recipe is fitted."""

    def levels(case: tuple[NoiseSchedule, int]) -> Levels:
        return _ready(grid, case[0])(*case)

    for (path, steps), found in _accepted(levels, product(paths, STEPS)):
        yield steps, path, found


def rows(grid: Grid, paths: Sequence[NoiseSchedule] = PATHS) -> str | None:
    """N steps have N + 1 rows."""
    for steps, path, levels in _levels(grid, paths):
        if levels.steps != steps:
            return f"on {path} {steps} steps have {len(levels.t)} rows"
    return None


def falling_noise(grid: Grid, paths: Sequence[NoiseSchedule] = PATHS) -> str | None:
    """σ/α and t fall in every step, or the level never changes."""
    for steps, path, levels in _levels(grid, paths):
        if levels.held:
            continue
        if not levels.moving:
            return f"on {path} the noise does not fall in each of {steps} steps"
        if (levels.t[levels.sigma > 0].diff() >= 0).any():
            return f"on {path} the times do not fall in each of {steps} steps"
    return None


def to_the_data(grid: Grid, paths: Sequence[NoiseSchedule] = PATHS) -> str | None:
    """The last row is the data, t = 0, α = 1 and σ = 0, or the level never changes."""
    for _, path, levels in _levels(grid, paths):
        if not levels.held and levels.rows[-1] != Level(0.0, 1.0, 0.0):
            return f"on {path} the last row is {levels.rows[-1]}, not the data"
    return None


def on_the_path(grid: Grid, paths: Sequence[NoiseSchedule] = PATHS) -> str | None:
    """The other rows are levels of the path, with times in [0, 1]."""
    for _, path, levels in _levels(grid, paths):
        noisy = levels.sigma > 0
        t = levels.t[noisy]
        if (t < 0).any() or (t > 1).any():
            return f"on {path} a time is outside [0, 1]"
        if not all(map(torch.equal, path(t), (levels.alpha[noisy], levels.sigma[noisy]))):
            return f"a level is not on {path}"
    return None


def same_levels(grid: Grid, paths: Sequence[NoiseSchedule] = PATHS) -> str | None:
    """The same settings give the same levels."""
    for steps, path, levels in _levels(grid, paths):
        if not torch.equal(levels.t, _ready(grid, path)(path, steps).t):
            return f"on {path} the same settings give other levels"
    return None


def own_table(grid: Grid, paths: Sequence[NoiseSchedule] = PATHS) -> str | None:
    """A fit gives the same table each time, a file keeps it, and other data change it."""
    if not isinstance(grid, FittedGrid):
        return DOES_NOT_APPLY
    path, first = next(_accepted(lambda path: _fit(grid, path, gaussian_twin(LAW)), paths))
    again, other = (_fit(grid, path, gaussian_twin(law)) for law in (LAW, OTHER_LAW))
    if identity(first) != identity(again):
        return f"on {path} a second fit gives another table"
    if identity(first) != identity(from_bytes(to_bytes(first))):
        return "a file does not keep the table"
    if identity(first) == identity(other):
        return f"on {path} the fit to other data gives the same table"
    return None


GRID: dict[str, Check] = {
    "rows": rows,
    "falling": falling_noise,
    "data": to_the_data,
    "path": on_the_path,
    "bits": same_levels,
    "table": own_table,
}


def denoise_inverts_regress(target: Target) -> str | None:
    """`denoise` after `regress` gives x₀."""
    x0, eps = (_normal(name, 30) for name in ("x0", "eps"))
    for schedule in PATHS:
        t = torch.linspace(0.01, 0.99, 30, dtype=torch.float64)[:, None]
        level = Level(t, *schedule(t))
        y = target.regress(x0, eps, level)
        x0_hat = target.denoise(level.alpha * x0 + level.sigma * eps, y, level)
        error = (x0_hat - x0).abs().max()
        if not error < 1e-9:
            return f"on {schedule} denoise after regress differs from x₀ by {error:.1e}"
    return None


def affine_in_y(target: Target) -> str | None:
    """x̂₀ is affine in y, so the mean of y gives the mean of x₀, and x̂₀ = E[x₀ | x]."""
    x, y, other = (_normal(name, 30) for name in ("eps", "x0", "y"))
    one, two, between = (target.denoise(x, v, LEVEL) for v in (y, other, (y + other) / 2))
    error = ((one + two) / 2 - between).abs().max()
    return None if error < 1e-9 else f"for the mean of two y, x̂₀ is {error:.1e} off its mean"


def target_rows(target: Target) -> str | None:
    """y and x̂₀ have the state's type; one state alone, with a level of floats, gives the same."""
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64).reshape(2, 3, 1)
    level, single = Level(t, *Rectified()(t)), Level(t.float(), *Rectified()(t.float()))
    x0, eps, y = (_normal(name, 6).reshape(2, 3, 2) for name in ("x0", "eps", "y"))
    own = Level(*(float(v[0, 1]) for v in (level.t, level.alpha, level.sigma)))
    for name, function, (a, b) in (
        ("y", target.regress, (x0, eps)),
        ("x̂₀", target.denoise, (eps, y)),
    ):
        got = function(a.float(), b.float(), single)
        if (got.shape, got.dtype) != (x0.shape, torch.float32):
            return f"{name} of float32 states (2, 3, 2) is {got.dtype} of {tuple(got.shape)}"
        if not torch.allclose(function(a, b, level)[0, 1], function(a[0, 1], b[0, 1], own)):
            return f"{name} depends on other states, or on whether its level is numbers or tensors"
    return None


def lost_signal(target: Target) -> str | None:
    """Without signal x̂₀ is finite, or `why_incompatible` refuses the levels in one line."""
    lost = uniform(Rectified(), 2)
    x0, eps = _normal("x0", 30), _normal("eps", 30)
    reason, level = target.why_incompatible(lost), lost.rows[0]
    y = target.regress(x0, eps, level)
    finite = bool((y.isfinite() & target.denoise(eps, y, level).isfinite()).all())
    if finite == (reason is None) and "\n" not in str(reason):
        return None
    is_or_not = "is" if finite else "is not"
    return f"without signal x̂₀ {is_or_not} finite, and the refusal is: {reason}"


def finite_at_the_data(target: Target) -> str | None:
    """Without noise x̂₀ is finite."""
    x0_hat = target.denoise(_normal("x0", 30), _normal("y", 30), Level(0.0, 1.0, 0.0))
    return None if x0_hat.isfinite().all() else "at the data x̂₀ is not finite"


TARGET: dict[str, Check] = {
    "inverse": denoise_inverts_regress,
    "affine": affine_in_y,
    "rows": target_rows,
    "signal": lost_signal,
    "data": finite_at_the_data,
}


def _start(start: Start, count: int, *key: int) -> Tensor:
    return start.draw(LAW, count, LEVEL, key)


def start_type(start: Start) -> str | None:
    """n draws are finite float64 numbers of shape (n, dim)."""
    x = _start(start, 4, 0, 0, 0)
    if (x.shape, x.dtype) != ((4, 2), torch.float64):
        return f"4 draws in the plane are {x.dtype} of shape {tuple(x.shape)}"
    if x.isfinite().all():
        return None
    return "a draw is not finite" + ("" if start.uses_data else ": x0 is NaN unless uses_data")


def start_key(start: Start) -> str | None:
    """The same key gives the same bits; another seed, repetition or block gives different bits."""
    first = _start(start, 4, 0, 0, 0)
    if first.isnan().any():
        return DOES_NOT_APPLY  # a fault of `type`
    if not torch.equal(first, _start(start, 4, 0, 0, 0)):
        return "the same key gives other bits"
    for key, name in (((1, 0, 0), "seed"), ((0, 1, 0), "repetition"), ((0, 0, 1), "block")):
        if (first == _start(start, 4, *key)).any():
            return f"the {name} does not matter"
    return None


def _moments(start: Start) -> tuple[Tensor, Tensor] | None:
    """Mean and covariance of the first state on `LAW` by the start's methods, or None."""
    mean = torch.tensor(LAW.means[0], dtype=torch.float64)
    covariance = torch.tensor(LAW.covariances[0], dtype=torch.float64)
    try:
        mean, variances = start.moments(mean, covariance.diagonal(), LEVEL)
        return mean, variances.diag()
    except InvalidSetting:
        if start.uses_data:  # it begins on the path
            return noised_law(mean, covariance, LEVEL)
    identity = torch.eye(2, dtype=torch.float64)
    unknown = torch.full_like(identity, torch.nan)
    zero, one, two = (start.combine(unknown, k * identity, LEVEL) for k in (0, 1, 2))
    root = one - zero
    is_affine = torch.allclose(two - one, root)  # in ε; then the first state is Gaussian
    return (zero[0], root.mT @ root) if is_affine else None


def start_moments(start: Start) -> str | None:
    """Mean and covariance of draws agree with `moments`, or with `combine`, or with the path."""
    known = _moments(start)
    if known is None:
        return DOES_NOT_APPLY
    mean, covariance = known
    x, width = _start(start, DRAWS, 0, 0, 0), covariance.diagonal()
    if not ((x.mean(0) - mean).abs() < 5 * (width / DRAWS).sqrt()).all():
        return f"the mean is {x.mean(0).tolist()}, not {mean.tolist()}"
    error = ((torch.outer(width, width) + covariance.square()) / DRAWS).sqrt()
    if not ((x.mT.cov() - covariance).abs() < 5 * error).all():
        return f"the covariance is {x.mT.cov().tolist()}, not {covariance.tolist()}"
    return None


def start_density(start: Start) -> str | None:
    """`log_density` is that of the first state on Gaussian data; it may be unknown."""
    x, known = _normal("x", 30), _moments(start)
    path = cast(Density, LAW.oracle(EDM())).log_density
    try:
        got = start.log_density(x, LEVEL, path)
    except InvalidSetting:
        return DOES_NOT_APPLY
    if known is None:
        return DOES_NOT_APPLY
    law: Any = torch.distributions.MultivariateNormal(*known)
    want = law.log_prob(x)
    if got.shape != want.shape:
        return f"log_density of states {tuple(x.shape)} has shape {tuple(got.shape)}"
    if torch.allclose(got, want, rtol=1e-9, atol=1e-9):
        return None
    return f"log_density differs from that of the first state by {(got - want).abs().max():.1e}"


START: dict[str, Check] = {
    "type": start_type,
    "key": start_key,
    "moments": start_moments,
    "density": start_density,
}


def _times(
    law: LevelLaw, paths: Sequence[NoiseSchedule], seed: int = 0
) -> list[tuple[NoiseSchedule, Tensor]]:
    """1000 draws on each path that the law accepts."""
    draws = _accepted(lambda path: law.sample(1000, path, torch_generator("law", seed)), paths)
    return list(draws)


def level_law_type(law: LevelLaw, paths: Sequence[NoiseSchedule] = PATHS) -> str | None:
    """n draws are float64 numbers of shape (n,), in [0, 1]."""
    for path, times in _times(law, paths):
        few = law.sample(7, path, torch_generator("law"))
        for count, drawn in ((1000, times), (7, few)):
            if (drawn.shape, drawn.dtype) != ((count,), torch.float64):
                return f"{count} draws are {drawn.dtype} of shape {tuple(drawn.shape)}"
        if not ((times >= 0) & (times <= 1)).all():
            return "a time is outside [0, 1]"
    return None


def level_law_generator(law: LevelLaw, paths: Sequence[NoiseSchedule] = PATHS) -> str | None:
    """The generator determines the draws."""
    first, again, other = (_times(law, paths, seed) for seed in (0, 0, 1))
    for (_, one), (_, same), (path, another) in zip(first, again, other, strict=True):
        if not torch.equal(one, same) or torch.equal(one, another):
            return f"on {path} the generator does not determine the draws"
    return None


def level_law_largest(law: LevelLaw, paths: Sequence[NoiseSchedule] = PATHS) -> str | None:
    """`largest` bounds σ/α of the draws, and is at most σ/α at the end of the path."""
    for path, times in _times(law, paths):
        largest, end = law.largest(path), path.noise_range[1]
        if not path.noise_to_signal(times).max() <= largest * (1 + 1e-9):
            return f"on {path} a draw has more noise than the largest, {largest:.4g}"
        if not largest <= end * (1 + 1e-9):
            return f"the largest ratio is {largest:.4g}, and {path} ends at {end:.4g}"
    return None


def level_law_independence(law: LevelLaw, paths: Sequence[NoiseSchedule] = PATHS) -> str | None:
    """Draws are independent: the first and the last have one law, and are not correlated."""
    count = 200

    def blocks(path: NoiseSchedule) -> Tensor:
        """Times of blocks of 8 draws, each with its own generator, shape (blocks, 8)."""
        generators = [torch_generator("law", seed) for seed in range(count)]
        return torch.stack([law.sample(8, path, one) for one in generators])

    for path, times in _accepted(blocks, paths):
        first, last = times[:, 0], times[:, -1]
        error = float((first.var() + last.var()).div(count).sqrt())
        if abs(float(first.mean() - last.mean())) > 6 * error + 1e-12:
            return f"on {path} the first and the last of 8 draws have different means"
        if float(times.T.corrcoef()[0, -1]) ** 2 > 36 / count:
            return f"on {path} the first and the last of 8 draws are correlated"
    return None


LEVEL_LAW: dict[str, Check] = {
    "type": level_law_type,
    "independent": level_law_independence,
    "generator": level_law_generator,
    "largest": level_law_largest,
}


def weights(weighting: Weighting) -> str | None:
    """Weights are finite and not negative, and not all of them are 0."""
    values = [float(weighting.weight(level)) for level in _path_levels()]
    good = all(0 <= value < math.inf for value in values) and any(values)
    return None if good else "a weight is negative or not finite, or all are 0"


def weighting_levels(weighting: Weighting) -> str | None:
    """With a level of tensors, shape (n, 1), each row has the weight of its own level."""
    levels = _path_levels()
    columns = zip(*map(_numbers, levels), strict=True)
    rows = Level(*(torch.tensor(column, dtype=torch.float64)[:, None] for column in columns))
    weights = torch.as_tensor(weighting.weight(rows), dtype=torch.float64)
    if weights.numel() > 1 and weights.shape != (len(levels), 1):
        return f"weights of {len(levels)} rows have shape {tuple(weights.shape)}"
    single = torch.tensor([[float(weighting.weight(level))] for level in levels]).double()
    if torch.allclose(weights.expand(len(levels), 1), single, rtol=1e-5):
        return None
    return "a level of numbers gives another weight than one of tensors"


WEIGHTING: dict[str, Check] = {"weights": weights, "levels": weighting_levels}


def _numbers(level: Level[float]) -> tuple[float, float, float]:
    return level.t, level.alpha, level.sigma


def _path_levels() -> list[Level[float]]:
    """Levels with signal and noise."""
    return [level for path in PATHS for level in uniform(path, 7, t_max=0.9).rows[:-1]]


def _normal(name: str, count: int) -> Tensor:
    like = torch.empty(count, 2, dtype=torch.float64)
    return KeyedNoise(("contract", name)).normal(like, 0)

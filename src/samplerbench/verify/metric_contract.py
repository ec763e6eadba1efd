"""The contract of metrics, against samples and against a law; see `contract`."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from samplerbench.core.line_laws import LineNodes
from samplerbench.core.noise import torch_generator
from samplerbench.datasets.base import Dataset
from samplerbench.datasets.divided import Divided
from samplerbench.datasets.gaussian_mixture import isotropic
from samplerbench.datasets.gaussian_spectrum import gaussian_spectrum
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.metrics.base import (
    AnyMetric,
    Distance,
    Divergence,
    LawMetric,
    Metric,
    OutputLawMetric,
    SpectrumDistance,
)
from samplerbench.verify.orders import MIXTURE
from samplerbench.verify.sampler_contract import DOES_NOT_APPLY, Check

T = TypeVar("T")

DIMS = (2, 1, 3, 16)
POINTS = torch.randn(900, 2, generator=torch_generator("metric", "points")).double()
LAWS: tuple[Dataset, ...] = (
    grid_mixture(),
    isotropic((0.3, 0.7), ((-2.0,), (3.0,)), 0.2),
    Divided(POINTS),
    MIXTURE,
    gaussian_spectrum(dim=4),
)
FAR = 8.0


def applies(metric: AnyMetric) -> str | None:
    """It accepts one of the dimensions 1, 2, 3 and 16, or one of five simple laws."""
    reasons = _refusals(metric)
    return None if None in reasons else f"it accepts none: {reasons[0]}"


def refusal(metric: AnyMetric) -> str | None:
    """`why_incompatible` gives its reason in one line."""
    return "a reason has several lines" if any("\n" in str(r) for r in _refusals(metric)) else None


def bounds(metric: AnyMetric) -> str | None:
    """lower ≤ value ≤ upper; a direction is a float64 unit vector."""
    for samples in (_samples(metric), _samples(metric) + FAR):
        result = _distance(metric)(samples)
        if not math.isfinite(result.value):
            return f"the value is {result.value}"
        if result.lower > result.value or result.upper < result.value:
            return f"{result.value} is not between its bounds, {result.lower} and {result.upper}"
        if result.direction is not None:
            norm = float(result.direction.norm())
            if result.direction.dtype != torch.float64 or abs(norm - 1) > 1e-12:
                return f"the direction is {result.direction.dtype} of norm {norm}"
    return None


def far(metric: AnyMetric) -> str | None:
    """The same cloud, or draws of the law, are closer than the same points shifted by 8."""
    if not metric.smaller_is_better:
        return DOES_NOT_APPLY
    x = _samples(metric)
    distance = _distance(metric, x)
    near, away = distance(x).value, distance(x + FAR).value
    close = abs(near) < 0.5 * away
    return None if close else f"{near:.4g} for the same points, and {away:.4g} after a shift"


def units(metric: AnyMetric) -> str | None:
    """A Wasserstein distance is 0 only for equal clouds, scales with them, and is ≤ any shift."""
    if not (isinstance(metric, Metric) and metric.is_wasserstein):
        return DOES_NOT_APPLY
    x = _samples(metric)
    distance, shift = metric.against(x, seed=0), torch.full((x.shape[1],), 3.0, dtype=x.dtype)
    same, moved = distance(x).value, distance(x + shift).value
    if not abs(same) < 1e-9:
        return f"from a cloud to itself it is {same:.4g}, and is_wasserstein is True"
    if not 0 < moved <= float(shift.norm()) * (1 + 1e-9):
        return f"for a shift by {float(shift.norm()):.4g} it is {moved:.4g}"
    wider = distance(2 * x - x.mean(0)).value
    if not wider > 1e-3:
        return f"to a cloud of the same mean that is twice as wide it is {wider:.4g}"
    scaled = metric.against(10 * x, seed=0)(20 * x - 10 * x.mean(0)).value
    close = math.isclose(scaled, 10 * wider, rel_tol=1e-3)
    return None if close else f"for clouds ten times as large it is {scaled / wider:.4g} times"


def bits(metric: AnyMetric) -> str | None:
    """The same clouds and seed give the same bits, even after other clouds."""
    x = _samples(metric)
    first, again = _distance(metric, seed=3), _distance(metric, seed=3)
    value = first(x).value
    first(x[: len(x) // 2])
    if first(x).value != value:
        return "earlier measurements change the value"
    return None if again(x).value == value else "the same seed gives another value"


def order(metric: AnyMetric) -> str | None:
    """The order of the samples does not matter."""
    x, distance = _samples(metric), _distance(metric)
    value, reverse = distance(x).value, distance(x.flip(0)).value
    same = math.isclose(value, reverse, rel_tol=1e-6, abs_tol=1e-12)
    return None if same else f"in reverse order {value:.8g} becomes {reverse:.8g}"


def clouds(metric: AnyMetric) -> str | None:
    """The clouds are not changed, and may be float32 or need gradients."""
    x, reference = _samples(metric), _reference(metric)
    copies = x.clone(), reference.clone()
    value = _distance(metric, reference)(x).value
    if not (torch.equal(x, copies[0]) and torch.equal(reference, copies[1])):
        return "a cloud is changed in place"
    single = _distance(metric, reference.float())(x.float().requires_grad_()).value
    same = math.isclose(single, value, rel_tol=1e-4, abs_tol=1e-6)
    return None if same else f"{value:.6g} becomes {single:.6g} for float32 clouds"


def divergence(metric: AnyMetric) -> str | None:
    """A divergence is 0 for equal laws, else positive, and does not depend on the order."""
    if not isinstance(metric, Divergence):
        return DOES_NOT_APPLY
    # ln p/q of the normal laws p, of mean 1, and q, of mean 0, at draws of q
    x = torch.randn(2000, generator=torch_generator("metric", "ratios"), dtype=torch.float64)
    same, other, reverse = (metric.estimate(r).value for r in (0 * x, x - 0.5, x.flip(0) - 0.5))
    if not abs(same) < 1e-9 < other:
        return f"for equal laws it is {same:.4g}, and for different laws {other:.4g}"
    close = math.isclose(other, reverse, rel_tol=1e-6)
    return None if close else f"in reverse order {other:.8g} becomes {reverse:.8g}"


def exact(metric: AnyMetric) -> str | None:
    """A distance of spectra is 0 from a Gaussian to itself, and positive to a different one."""
    if not isinstance(metric, SpectrumDistance):
        return DOES_NOT_APPLY
    law = gaussian_spectrum(dim=4)
    same = metric.between(law.mean, law.variances, law).value
    other = metric.between(law.mean + 1, 2 * law.variances, law).value
    fine = abs(same) < 1e-9 < other
    return None if fine else f"to itself it is {same:.4g}, and to another {other:.4g}"


def line(metric: AnyMetric) -> str | None:
    """On a line the distance from an output's law is 0 to the same law, and positive to another."""
    if not isinstance(metric, OutputLawMetric) or metric.needs != "density":
        return DOES_NOT_APPLY
    z = torch.linspace(-9, 9, 400, dtype=torch.float64)

    def nodes(mean: float) -> LineNodes:
        log_density = -0.5 * z.square() - math.log(math.sqrt(2 * math.pi))
        masses = log_density.exp() * (z[1] - z[0])
        return LineNodes(mean + z, masses, log_density, torch.special.ndtr(z))

    law = isotropic((1.0,), ((0.0,),), 1.0)
    same, other = (metric.of_output(nodes(mean), law).value for mean in (0.0, 1.0))
    fine = abs(same) < 1e-6 < other
    return None if fine else f"to itself it is {same:.4g}, and to another {other:.4g}"


def threads(metric: AnyMetric) -> str | None:
    """Several threads may share a distance."""
    x = _samples(metric)
    samples = [x[: 30 + 6 * (k % 5)] + 0.1 * k for k in range(10)]
    alone = [_distance(metric, seed=3)(cloud).value for cloud in samples]
    with ThreadPoolExecutor(4) as pool:
        shared = list(pool.map(_distance(metric, seed=3), samples))
    same = [result.value for result in shared] == alone
    return None if same else "threads that share a distance change its values"


def _if_it_applies(check: Callable[[AnyMetric], str | None]) -> Check:
    def guarded(metric: AnyMetric) -> str | None:
        of_samples = applies(metric) is None and not isinstance(metric, OutputLawMetric)
        return check(metric) if of_samples else DOES_NOT_APPLY

    guarded.__doc__ = check.__doc__
    return guarded


METRIC: dict[str, Check] = {
    "applies": applies,
    "refusal": refusal,
    "divergence": divergence,
    "exact": exact,
    "line": line,
    **{
        check.__name__: _if_it_applies(check)
        for check in (bounds, far, units, bits, order, clouds, threads)
    },
}


def _refusals(metric: AnyMetric) -> list[str | None]:
    if isinstance(metric, LawMetric):
        return [metric.why_incompatible(law) for law in LAWS]
    return [metric.why_incompatible(dim) for dim in DIMS]


def _first(metric: AnyMetric, cases: tuple[T, ...]) -> T:
    """The first of the cases that the metric accepts."""
    return cases[_refusals(metric).index(None)]


def _samples(metric: AnyMetric) -> Tensor:
    if isinstance(metric, LawMetric):  # for a finite set, rows that are not training points
        return _first(metric, LAWS).draws(150, "floor", 0)
    dim = _first(metric, DIMS)
    x = torch.randn(60, dim, generator=torch_generator("metric", "x"), dtype=torch.float64)
    return x * torch.linspace(1, 2, dim).double() + 1


def _reference(metric: AnyMetric) -> Tensor:
    if isinstance(metric, LawMetric):
        return torch.empty(0)
    dim = _first(metric, DIMS)
    return torch.randn(90, dim, generator=torch_generator("metric", "y"), dtype=torch.float64)


def _distance(metric: AnyMetric, reference: Tensor | None = None, seed: int = 0) -> Distance:
    if isinstance(metric, LawMetric):
        return metric.against_law(_first(metric, LAWS), seed=seed)
    return metric.against(_reference(metric) if reference is None else reference, seed=seed)

"""The density of a sampler's output, by change of variables; in one dimension see `line_densities`.

A sampler that draws no noise maps its start x to an output y = Φ(x). If the map is one-to-one,

    ln q(y) = ln q_start(x) − ln |det ∂Φ/∂x| .

Let p be the density of the data's law, and r = p/q at the outputs. Then E_q[r] is the mass of p on
the outputs: 1 if q covers all of p. The formula does not hold if a determinant is not positive, or
if the mean of r differs from 1 by more than its error: the map is not one-to-one (mean above 1), q
misses mass (below 1), or p is not normalised. Then the cell has no value. Its `info` has the mean
of r with half of its 95 % interval, as in a cell with a value, and the share of points with a
determinant that is not positive.

The points are those of a Sobol sequence if the start allows it, even if the cell's own start is
random: the law is the same, and the error of n points is smaller. Their number is n, rounded up to
a power of two. Cost: at most dim + 2 times the sampling alone, see docs/metrics.md.

Reference: R. T. Q. Chen et al., Neural Ordinary Differential Equations, NeurIPS 2018, arXiv
1806.07366, for the density at the end of an ODE; here the map is the discrete one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from samplerbench.bench.cell import NOT_A_DENSITY, Cell, point_count
from samplerbench.bench.line_densities import Folded, StartLaw, law_of_output
from samplerbench.bench.transitions import Refused, transitions
from samplerbench.core.grids import Level, Levels, TruncatedLevels, in_data_units
from samplerbench.core.line_laws import LineNodes, Panels
from samplerbench.core.models import Counted, Denoiser, Density, Score, log_densities
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.starts import Sobol, Start, plain_start
from samplerbench.core.tangents import WithTangents, jacobian, log_volume, with_tangents
from samplerbench.datasets.base import density_of, log_density_of, why_no_log_density
from samplerbench.metrics.base import mean_ratio
from samplerbench.samplers.base import Sampler, final_state
from samplerbench.samplers.toy import Toy, is_affine_run

if TYPE_CHECKING:
    from samplerbench.bench.sweep import Sweep

T = TypeVar("T")

#: Points of a batch: a power of two, for balanced Sobol points. The bits of a result depend on it.
#: With more points the outputs of a network's layers, which backward passes read again, do not fit
#: into the processor's cache.
BATCH = 1024
#: The allowed distance of the mean of r from 1: in halves of its 95 % interval (two are about four
#: standard errors), plus a part for rounding.
_HALVES, _ROUNDING = 2.04, 1e-3


@dataclass(frozen=True, eq=False)
class OutputLaw:
    """The law of a cell's output, or the reason why it is not known.

    The values are one of: ln p − ln q at points drawn from the law q, shape (n,); the nodes of q on
    a line; means and variances of the coordinates, shape (2, dim); estimates of ln Z, shape (n,).
    """

    values: Tensor | LineNodes | None
    nfe: int
    seconds: float
    status: str = "ok"
    message: str = ""
    info: Mapping[str, float] = field(default_factory=dict)
    rounds: int | None = None  # None: as many as evaluations


def why_no_density(sweep: Sweep, cell: Cell) -> str | None:
    """Why the density of a cell's law is not known, in one line; None if it is known."""
    sampler = cell.algorithm
    reason = why_no_start(sweep, cell)
    if reason is not None:
        return reason
    if sweep.dataset.dim == 1:
        return _why_no_chain(sweep, sampler, sweep.starts_of(sampler)[cell.start])
    if sampler.stochastic:
        of = f"in {sweep.dataset.dim} dimensions the density of a sampler that draws noise"
        return f"{of} is not known (in one it is); see metric=kl_paths, and for DDIM eta=0"
    if not (sampler.affine and _is_linear(sweep, sampler)):
        return "the density of a sampler that is not linear in states and x̂₀ is not known"
    if not isinstance(sweep.denoisers[cell.denoiser], Denoiser):
        return "the density needs a denoiser"
    return None


def _is_linear(sweep: Sweep, sampler: Sampler) -> bool:
    """Whether four steps are linear; tangents of others would be wrong, whatever `affine` says."""

    def linear() -> bool:
        levels = sweep.levels(4, sampler)
        if sampler.why_incompatible(Toy(sweep.schedule), levels) is not None:
            return True  # refused elsewhere
        return is_affine_run(sampler, sweep.schedule, levels, 1e-6)

    return _once(sweep, ("linear", id(sampler)), linear)


def _once(sweep: Sweep, key: object, compute: Callable[[], T]) -> T:
    """What a function gives, computed for the first cell of a sweep that needs it."""
    if key not in sweep.known:
        sweep.known[key] = compute()
    found: T = sweep.known[key]
    return found


def why_no_start(sweep: Sweep, cell: Cell) -> str | None:
    """Why no density can be computed from a cell's start, in one line; None if one can be."""
    sampler = cell.algorithm
    if sampler.adaptive:
        return (
            "the density of a sampler that chooses its own steps is not known: they depend on the "
            "state, and jump where one is rejected"
        )
    if sampler.brings_levels:
        return (
            "the density needs derivatives, which do not pass through the code of another package"
        )
    start = plain_start(sweep.starts_of(sampler)[cell.start])
    if type(start).log_density is Start.log_density:
        of_chains = "; chains start there, except with start=exact" if sampler.holds else ""
        return f"the density of the start {cell.start} is not known{of_chains}"
    if start.uses_data and not isinstance(sweep.exact_score, Density):
        return f"the density of the start {cell.start} needs that of the data with noise"
    return None


def log_density_of_start(
    exact: Score | None, start: Start, first: Level[float]
) -> Callable[[Tensor], Tensor]:
    """ln of the density of the first states, points (n, dim) ↦ (n,), given the exact score."""

    def path(x: Tensor, level: Level[float]) -> Tensor:
        assert isinstance(exact, Density)  # see why_no_start
        values = exact.to(x.device).log_density(x, level)
        return log_densities(values, x, "dataset", type(exact).__name__)

    def log_density(x: Tensor) -> Tensor:
        values = start.log_density(x, first, path)
        return log_densities(values, x, "start", type(start).__name__)

    return log_density


def _why_no_chain(sweep: Sweep, sampler: Sampler, start: Start) -> str | None:
    """Why the law on a line cannot be computed through the steps, from a run of four steps."""
    # not that of the sweep, which may be on another device
    model, levels = sweep.dataset.exact_score(sweep.schedule), sweep.levels(4, sampler)
    if model is None or sampler.why_incompatible(model, levels) is not None:
        return None  # refused elsewhere
    starts = start.draw(sweep.dataset, 4, levels.rows[0], (0, 0, 0))
    try:
        transitions(sampler, model, levels, starts)
    except Refused as error:
        return _no_quadrature(sampler, error)
    return None


def _no_quadrature(sampler: Sampler, error: Refused) -> str:
    return f"{type(sampler).__name__} has no law by quadrature: {error}"


def _even(sweep: Sweep, start: Start) -> Start:
    """The start from Sobol points, if that is possible."""
    possible = not start.uses_data or sweep.dataset.uniform_dim is not None
    return Sobol(start) if possible and not isinstance(start, Sobol) else start


def density(sweep: Sweep, cell: Cell) -> OutputLaw:
    """The law of a cell's output: nodes on a line, or ln p − ln q at points of it."""
    sampler = cell.algorithm
    # a run without noise refuses a sampler itself; on a line four steps before it would take long
    alone = sweep.dataset.dim == 1 and not sampler.stochastic
    reason = (why_no_start if alone else why_no_density)(sweep, cell)
    if reason is None:
        levels = sweep.levels_of(cell)
        reason = sampler.why_incompatible(sweep.denoisers[cell.denoiser], levels)
    if reason is not None:
        return OutputLaw(None, 0, 0.0, "incompatible", reason)
    return (on_line if sweep.dataset.dim == 1 else log_ratios)(sweep, cell)


def on_line(sweep: Sweep, cell: Cell) -> OutputLaw:
    """The law of a cell's output in one dimension, by quadrature."""
    began, sampler = time.perf_counter(), cell.algorithm
    levels = sweep.levels_of(cell)
    start, first = sweep.starts_of(sampler)[cell.start], levels.rows[0]

    def law_of_start() -> StartLaw:
        log_density = log_density_of_start(sweep.exact_score, start, first)
        # these draws only give the region of the states
        starts = start.draw(sweep.dataset, 256, first, (sweep.seed, 0, 0))
        return StartLaw(log_density, starts.to(sweep.device, torch.float64))

    model = sweep.denoisers[cell.denoiser]
    linear = sampler.affine and not sampler.stochastic and _is_linear(sweep, sampler)
    log_p = _once(sweep, "density", lambda: _log_density_of_data(sweep))
    at_last = log_p and (lambda x: log_p(in_data_units(x[:, None], levels)))
    try:
        begin = _once(sweep, ("start", cell.start, sampler.holds, first), law_of_start)
        law, nfe = law_of_output(sampler, model, levels, begin, log_p=at_last, linear=linear)
    except Refused as error:
        return OutputLaw(None, 0, 0.0, "incompatible", _no_quadrature(sampler, error))
    except Folded as error:
        seconds = time.perf_counter() - began
        return OutputLaw(None, 0, seconds, NOT_A_DENSITY, str(error))
    return OutputLaw(_rescaled(law, levels), nfe, time.perf_counter() - began)


def _log_density_of_data(sweep: Sweep) -> Callable[[Tensor], Tensor] | None:
    """ln of the density of the data at points (n, 1), shape (n,), if it is known."""
    if why_no_log_density(sweep.dataset) is not None:  # a Wasserstein distance needs none
        return None
    return density_of(sweep.dataset)


def _rescaled(law: LineNodes, levels: Levels) -> LineNodes:
    """The law of the output, given that of the last state; see `in_data_units`."""
    if not isinstance(levels, TruncatedLevels):
        return law
    shift = math.log(levels.rows[-1].alpha)

    def rescaled(values: LineNodes | Panels) -> dict[str, Tensor]:
        points = in_data_units(values.points, levels)
        return {"points": points, "log_density": values.log_density + shift}

    panels = None if law.panels is None else replace(law.panels, **rescaled(law.panels))
    coarser = tuple(_rescaled(one, levels) for one in law.coarser)
    return replace(law, **rescaled(law), panels=panels, coarser=coarser)


@torch.no_grad()
def log_ratios(sweep: Sweep, cell: Cell) -> OutputLaw:
    """ln p − ln q at points of the cell's law, which depend on its seed and repetition."""
    began = time.perf_counter()
    levels, model = sweep.levels_of(cell), sweep.denoisers[cell.denoiser]
    count = point_count(sweep.n_samples)
    rows = min(count, BATCH)
    start, first = _even(sweep, sweep.starts[cell.start]), levels.rows[0]
    assert isinstance(model, Denoiser)
    counted = Counted(model)
    log_start = log_density_of_start(sweep.exact_score, start, first)
    noise = KeyedNoise(("density", sweep.seed))  # never used
    values, turned = torch.empty(count, dtype=torch.float64), 0
    for block in range(count // rows):
        key = (sweep.seed, cell.repetition, block)
        x = start.draw(sweep.dataset, rows, first, key).to(sweep.device, torch.float64)
        batch = with_tangents(x)
        out = final_state(cell.algorithm, WithTangents(counted), batch, levels, noise)
        out = in_data_units(out, levels)
        sign, volume = log_volume(jacobian(out))
        turned += int((sign <= 0).sum())
        log_q = log_start(x) - volume
        values[block * rows : (block + 1) * rows] = log_density_of(sweep.dataset, out[0]) - log_q
    nfe = counted.evaluations * rows // count
    seconds = time.perf_counter() - began
    of_mean = mean_ratio(values)
    allowed = _HALVES * of_mean["mean_ratio_half_width"] + _ROUNDING
    if turned == 0 and abs(of_mean["mean_ratio"] - 1) <= allowed:
        return OutputLaw(values, nfe, seconds)
    info = {**of_mean, "turned": turned / count}
    message, ratio = "the sampler's map is not one-to-one", of_mean["mean_ratio"]
    if turned == 0 and math.isnan(ratio):
        message = "the density of the data or of the start is not a number at some points"
    elif turned == 0:
        cause = "the map is not one-to-one" if ratio > 1 else "the outputs miss a part of the data"
        message = f"the mean of p/q is not 1: {cause}, or the data's density is not normalised"
    return OutputLaw(None, nfe, seconds, NOT_A_DENSITY, message, info)

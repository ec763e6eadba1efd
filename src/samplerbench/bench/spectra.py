"""The exact law of a sampler's output on a Gaussian of any dimension, by its eigenvalues.

On N(m, diag(λ)) the denoiser acts on each coordinate separately, and a sampler with fixed steps is
affine:

    x_out = a·x_in + Σ_j b_j·z_j + c   in each coordinate,   z_j ~ N(0, 1) independent,
    Var x_out = a²·Var x_in + Σ_j b_j² .

`affine` gives a, b_j and c of all coordinates, without samples and without a dim × dim matrix.
Cost: a run of the sampler's code on symbols and a few operations for each evaluation, see
`recurrences`; more for code of other packages, see `affine`. Some thousand coordinates are computed
at a time, so the memory does not grow with their number.

Reference: E. Pierret, B. Galerne, Diffusion models for Gaussian distributions: exact solutions and
Wasserstein errors, ICML 2025, arXiv 2405.14250.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from samplerbench.bench.affine import affine_map
from samplerbench.bench.cell import Cell
from samplerbench.bench.densities import OutputLaw
from samplerbench.core.fitted_grids import FittedGrid
from samplerbench.core.grids import Levels, TruncatedLevels, in_data_units, uniform
from samplerbench.core.models import Corrupted, Counted, Denoiser, Guided, Score
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.starts import Start
from samplerbench.datasets.gaussian_spectrum import GaussianSpectrum, SpectrumOracle
from samplerbench.errors import first_line
from samplerbench.samplers.base import Sampler, final_state

if TYPE_CHECKING:
    from samplerbench.bench.sweep import Sweep

#: The number of coordinates in one run, whose states fit into the processor's cache.
_AT_ONCE = 4096


def why_no_spectrum(sweep: Sweep, cell: Cell) -> str | None:
    """Why the law of a cell's output is not known exactly, in one line; None if it is known."""
    start = sweep.starts_of(cell.algorithm)[cell.start]
    return why_not_gaussian(cell.algorithm, sweep.denoisers[cell.denoiser], start)


def why_no_divergence(sweep: Sweep, cell: Cell) -> str | None:
    """As `why_no_spectrum`, or why the divergence of the output's law is infinite for sure."""
    reason = why_no_spectrum(sweep, cell)
    law, sampler = sweep.dataset, cell.settings
    if reason is not None or not isinstance(law, GaussianSpectrum):
        return reason
    assert sampler is not None
    # whether a variance is 0 depends on the ends of a grid only, and a fitted one has no levels yet
    known = replace(sweep, grid=uniform) if isinstance(sweep.grid, FittedGrid) else sweep
    levels, model = known.levels(cell.steps, sampler), sweep.denoisers[cell.denoiser]
    # a direction in which the data vary most, and one in which they vary least
    some = torch.stack([law.variances.argmax(), law.variances.argmin()])
    start = sweep.starts_of(sampler)[cell.start]
    moments = start.moments(law.mean[some], law.variances[some], levels.rows[0])
    try:
        _, variances = output_spectrum(sampler, _part(model, some), levels, *moments)
    except ValueError:
        return None  # refused elsewhere
    varies, data_vary = (variances > 0).tolist(), (law.variances[some] > 0).tolist()
    if varies[1] and not data_vary[1]:
        constant = int((law.variances == 0).sum())
        last = "; use final=denoise" if sweep.final == "none" and sampler.ends_at_data else ""
        return (
            f"the divergence is infinite: the data do not vary in {constant} of {law.dim} "
            f"directions, and the output does{last}, or metric=w2_law_gaussian"
        )
    if not varies[0]:
        return "the divergence is infinite: the output does not vary where the data do"
    return None


def why_not_gaussian(sampler: Sampler, model: Score, start: Start) -> str | None:
    """Why the law of a sampler's states is not known to be Gaussian; None if it is."""
    if not sampler.affine:
        why = "it chooses its steps, clips or rejects"
        return f"{why}: it is not affine, and the law of its output is not Gaussian"
    if not _is_diagonal(model):
        return "the law is exact for denoiser=oracle on a Gaussian only: see law=gaussian_twin"
    if type(start).moments is Start.moments:
        return f"the start {start.law} is not known to be Gaussian"
    return None


def _is_diagonal(model: Score) -> bool:
    """Whether the model acts on each coordinate separately."""
    if isinstance(model, Guided):
        return _is_diagonal(model.model) and _is_diagonal(model.guide)
    if isinstance(model, Corrupted):
        return model.direction == "along" and _is_diagonal(model.model)
    return isinstance(model, SpectrumOracle)


def _part(model: Score, some: slice | Tensor) -> Denoiser:
    """The denoiser of some coordinates alone."""
    if isinstance(model, Guided):
        return Guided(_part(model.model, some), _part(model.guide, some), model.weight)
    if isinstance(model, Corrupted):
        error = model.amplitude, model.profile, model.direction, model.cut
        return Corrupted(_part(model.model, some), *error)
    assert isinstance(model, SpectrumOracle)  # see why_not_gaussian
    return SpectrumOracle(model.schedule, model.mean[some], model.variances[some])


def spectrum_of(sweep: Sweep, cell: Cell) -> OutputLaw:
    """Means and variances of the coordinates of a cell's output, stacked, shape (2, dim)."""
    began = time.perf_counter()
    reason = why_no_spectrum(sweep, cell)
    if reason is not None:
        return OutputLaw(None, 0, 0.0, "incompatible", reason)
    law, sampler = sweep.dataset, cell.algorithm
    assert isinstance(law, GaussianSpectrum)  # the metric has checked it
    levels = sweep.levels_of(cell)
    start = sweep.starts_of(sampler)[cell.start]
    mean, variances = start.moments(law.mean, law.variances, levels.rows[0])
    model = sweep.denoisers[cell.denoiser]
    try:
        mean, variances = output_spectrum(sampler, model, levels, mean, variances)
    except ValueError as error:  # it is not affine, or not on this model
        return OutputLaw(None, 0, 0.0, "incompatible", first_line(error))
    # twice, since variances have squared units
    variances = in_data_units(in_data_units(variances, levels), levels)
    out = torch.stack([in_data_units(mean, levels), variances])
    plain = isinstance(levels, TruncatedLevels)
    nfe = (sampler.plain_evaluations if plain else sampler.evaluations)(cell.steps)
    if nfe is None:  # it depends on the levels, so a run of one coordinate counts
        counted, one = Counted(_part(model, slice(0, 1))), torch.zeros(1, 1, dtype=torch.float64)
        final_state(sampler, counted, one, levels, KeyedNoise(("evaluations",)))
        nfe = counted.evaluations
    return OutputLaw(out.cpu(), nfe, time.perf_counter() - began)


def output_spectrum(
    sampler: Sampler,
    model: Score,
    levels: Levels,
    start_mean: Tensor,
    start_variances: Tensor,
    steps: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Means and variances of the coordinates of the output, shape (dim,) each, float64.

    Args:
        sampler: a method with fixed steps.
        model: a denoiser that acts on each coordinate separately.
        start_mean: the mean of the first state, shape (dim,).
        start_variances: the variances of its independent coordinates, shape (dim,).
        steps: the number of steps to take; None for all.

    Raises:
        ValueError: the sampler cannot run here, or its run is not affine.
    """
    parts = []
    for first in range(0, len(start_mean), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        run = affine_map(
            sampler, _part(model, some), levels, start_mean[some], diagonal=True, steps=steps
        )
        variances = run.by_state.square() * start_variances[some].double()
        parts.append(torch.stack([run.output, variances + run.by_draws.square().sum(0)]))
    mean, variances = torch.cat(parts, 1)
    return mean, variances

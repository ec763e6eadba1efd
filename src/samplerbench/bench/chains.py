"""Diagnostics of Markov chains: acceptance, ESS, split-R̂, and comparison with the law.

C chains of a Langevin sampler, recorded as frames of shape (frames, chains, dim), are C·frames
samples that depend on each other.

- *acceptance*: the mean probability that a proposal is accepted, for samplers that reject;
- *bulk ESS*: the number of independent draws that give the mean of the rank-normalised coordinate
  with the same precision; from the autocorrelations within and between chains;
- *split-R̂*: the spread of all half chains, divided by the mean spread within them. It is 1 if they
  agree; above 1.01 the chains have not mixed.

R̂ compares chains only with each other: it is 1 if all of them are stuck in the same mode. If the
law at their level is known, all recorded states are also compared with it:

- *mass_not_reached*, for separate modes: the weight of the modes that contain no state;
- *mass_misplaced*, for separate modes: ½ Σ|share − weight|, as in `metrics.mode_weights`;
- *mean_error*: the largest |mean − mean of the law| of a coordinate, in deviations of the law;
- *sd_error*: the largest |sd/sd of the law − 1|;
- *evaluations_to_moments*: the smallest number of evaluations of one chain after which its mean of
  x² is right and stays right: b² = max_i E[(mean of x_i² − E x_i²)²]/Var[x_i²] < .01, where E is
  the mean over the chains. n independent draws have b² = 1/n, so this is the cost of about 100 of
  them. NaN if the chains are too short.

ArviZ computes ESS and R̂: Kumar, Carroll, Hartikainen, Martin, "ArviZ a unified library for
exploratory analysis of Bayesian models in Python", JOSS 4(33), 2019; the definitions are those of
Vehtari, Gelman, Simpson, Carpenter, Bürkner, "Rank-normalization, folding, and localization: an
improved R̂ for assessing convergence of MCMC", Bayesian Analysis 16(2), 2021, Section 3, with the
split-R̂ of Gelman et al., "Bayesian data analysis", 3rd ed., 2013, Section 11.4. b² is the measure
of Robnik, De Luca, Silverstein, Seljak, "Microcanonical Hamiltonian Monte Carlo", JMLR 24, 2023
(arXiv 2212.08549), with the worst coordinate for their mean.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samplerbench.bench.cell import Against, Cell, Row
from samplerbench.bench.statistics import CHAIN
from samplerbench.bench.sweep import Sweep
from samplerbench.core.grids import Levels
from samplerbench.core.models import Counted, Score
from samplerbench.core.noise import Noise, generator
from samplerbench.core.starts import Moments
from samplerbench.datasets.base import LARGEST
from samplerbench.errors import require
from samplerbench.metrics.base import Measurement
from samplerbench.metrics.mode_weights import ModeWeights
from samplerbench.metrics.modes import Modes, modes_of
from samplerbench.samplers.base import Sampler, iterate

#: With fewer frames a half chain has no variance.
LEAST_FRAMES = 4
#: Moments are right below this b².
BIAS = 0.01
#: `diagnose` keeps at most this many frames; neighbouring frames are nearly the same.
MOST_FRAMES = 1000


@dataclass(frozen=True, eq=False)
class Chains:
    """Recorded chains."""

    frames: Tensor  # states, float64, shape (frames, chains, dim)
    # mean probability of acceptance of each chain, shape (chains,); ones for methods that do not
    # reject
    acceptance: Tensor

    def __post_init__(self) -> None:
        if self.frames.ndim != 3:
            raise ValueError("frames must have the shape (frames, chains, dim)")
        if len(self.frames) < LEAST_FRAMES:
            raise ValueError(f"at least {LEAST_FRAMES} frames, and these are {len(self.frames)}")
        if not (self.frames.abs() < LARGEST).all():  # also false for NaN
            words = f"some states are not finite, or {LARGEST:g} and more"
            raise ValueError(f"{words}: the step size may be too large")

    def effective_sample_size(self) -> Tensor:
        """Bulk ESS of each coordinate, of all chains together, shape (dim,)."""
        return _each(self.frames, lambda arviz, draws: arviz.ess(draws, method="bulk"))

    def split_r_hat(self) -> Tensor:
        """Split-R̂ of each coordinate, shape (dim,); NaN if all states are equal, or for few frames.

        If the chains stay at several points, it is infinite or huge.
        """
        half = len(self.frames) // 2
        if half < LEAST_FRAMES:  # ArviZ would log a warning of its own
            return self.frames.new_full(self.frames.shape[2:], math.nan)
        halves = torch.cat([self.frames[:half], self.frames[-half:]], dim=1)
        # ArviZ itself refuses to split one chain
        found = _each(halves, lambda arviz, draws: arviz.rhat(draws, method="identity"))
        # of equal states ArviZ finds NaN or √(1 − 1/n), by the rounding of their mean
        equal = (self.frames == self.frames[0, 0]).flatten(0, 1).all(0)
        return found.masked_fill(equal.cpu(), math.nan)


def _each(frames: Tensor, diagnostic: Callable[..., float]) -> Tensor:
    """A diagnostic, a function of (arviz, draws), for each coordinate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about its next major version
        import arviz  # it takes seconds to import
    coordinates = frames.permute(2, 1, 0).cpu().numpy()
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):  # equal states
        # many short chains, such as emcee's walkers; for a wrong layout `score` has a line
        warnings.filterwarnings("ignore", "More chains")
        values: NDArray[np.float64] = np.array([float(diagnostic(arviz, c)) for c in coordinates])
    return torch.from_numpy(values)


@torch.no_grad()
def record(
    sampler: Sampler,
    model: Score,
    x: Tensor,
    levels: Levels,
    noise: Noise,
    *,
    burn_in: int = 0,
    every: int = 1,
) -> Chains:
    """Run chains side by side and keep every `every`-th state after `burn_in` steps.

    Args:
        sampler: a method that stays at one level.
        x: the first states, shape (chains, dim).
        levels: the levels of a hold grid.
        burn_in: the number of first steps that are left out, also from the acceptance.
        every: the number of steps between kept states.
    """
    require(0 <= burn_in < levels.steps, "burn_in", burn_in, f"from 0 to {levels.steps - 1}")
    require(every >= 1, "every", every, "at least 1")
    frames, accepted = [], torch.zeros(len(x), dtype=torch.float64)
    for number, step in enumerate(iterate(sampler, model, x, levels, noise)):
        if number >= burn_in:
            accepted += torch.as_tensor(step.info.get("acceptance", 1.0)).cpu()
            if (number - burn_in) % every == 0:
                frames.append(step.x.double().cpu())
    return Chains(torch.stack(frames), accepted / (levels.steps - burn_in))


@dataclass(frozen=True)
class Diagnostic:
    """A diagnostic of every k-th state after `burn_in` steps; part of its value's identity."""

    name: str
    burn_in: int
    every: int
    arviz: str = field(default_factory=lambda: version("arviz"))


def require_chains(sweep: Sweep, count: int) -> None:
    """Refuse to examine chains without ArviZ, or without a sampler that stays at one level."""
    installed = find_spec("arviz") is not None
    require(installed, "chains", count, "0, or pip install 'samplerbench[chains]'")
    holding = any(sampler.holds and not sampler.anneals for _, sampler in sweep.samplers)
    require(holding, "chains", count, "0: no sampler here stays at one level; see sampler=ula")


def diagnose(sweep: Sweep, count: int) -> list[Row]:
    """Diagnose the chains of a sweep's Langevin samplers in the second half of their steps.

    There is a row for each of `diagnostic_names` and each denoiser, start and sampler that stays at
    a level. effective_sample_size is the smallest, and split_r_hat the largest over the
    coordinates. The chains are those of the cell with n = `count` in one block and the largest
    number of steps; their reference is "chain". Chains that cannot be examined have rows with the
    reason.
    """
    alone = replace(sweep, n_samples=count, block=count)
    rows = [row for cell in chain_cells(sweep) for row in _diagnosed(alone, cell)]
    return [replace(row, sweep_id=sweep.books.sweep_id) for row in rows]


def chain_cells(sweep: Sweep) -> list[Cell]:
    """The cells whose samplers stay at one level, with the most steps and the first repetition."""
    cells = [
        Cell(denoiser, start, name, sampler, max(sweep.steps_of(sampler)), 0)
        for denoiser in sweep.denoisers
        for name, sampler in sweep.samplers
        if sampler.holds and not sampler.anneals
        for start in sweep.starts_of(sampler)
    ]
    return [
        cell
        for cell in cells
        if cell.settings is not None
        and not cell.settings.why_incompatible(
            sweep.denoisers[cell.denoiser], sweep.levels(cell.steps, cell.settings)
        )
    ]


def diagnostic_names(sweep: Sweep, cell: Cell) -> list[str]:
    """The diagnostics of a cell's chains, by their names in the column `metric`."""
    known = _Law.at(sweep, cell)
    return [
        *["acceptance"] * cell.algorithm.rejects,
        *("effective_sample_size", "split_r_hat"),
        *["mass_not_reached", "mass_misplaced"] * (known.modes is not None),
        *["mean_error", "sd_error", "evaluations_to_moments"] * (known.moments is not None),
    ]


@dataclass(frozen=True, eq=False)
class _Law:
    """The known modes and moments of the law of x/α at the level of a chain.

    `spread` is the variance of x² of each coordinate, from draws, or as if the law were Gaussian.
    """

    alpha: float
    modes: Modes | None
    moments: Moments | None
    spread: Tensor | None = None

    @classmethod
    def at(cls, sweep: Sweep, cell: Cell) -> _Law:
        level, dataset = sweep.levels(cell.steps, cell.settings).rows[0], sweep.dataset
        if not dataset.known_law:  # they would be those of the points
            return cls(level.alpha, None, None)
        noise = level.sigma / level.alpha
        law, moments = dataset.noised(noise) if noise > 0 else dataset, dataset.moments()
        spread = None
        if moments is not None:
            moments = moments._replace(variance=moments.variance + noise**2)
            spread = 2 * moments.variance * (moments.variance + 2 * moments.mean.square())
            if dataset.can_be_drawn:
                points = dataset.known_points()
                eps = generator("chains", "moments").standard_normal(tuple(points.shape))
                spread = (points + noise * torch.from_numpy(eps)).square().var(0)
        separate = law is not None and ModeWeights().why_incompatible(law) is None
        modes = modes_of(law) if law is not None and separate else None
        return cls(level.alpha, modes, moments, spread)

    def errors(self, frames: Tensor) -> dict[str, float]:
        """The errors of frames, shape (frames, chains, dim), by name."""
        x, found = frames.flatten(0, 1) / self.alpha, {}
        if self.modes is not None:
            weights = self.modes.weights
            shares = torch.bincount(self.modes.assign(x), minlength=len(weights)) / len(x)
            found["mass_not_reached"] = float(weights[shares == 0].sum())
            found["mass_misplaced"] = float((shares - weights).abs().sum()) / 2
        if self.moments is not None:
            found["mean_error"], found["sd_error"] = self.moments.errors_of(x)
        return found

    def evaluations_to_moments(self, frames: Tensor, each: float) -> dict[str, float]:
        """`evaluations_to_moments` of frames that take `each` evaluations."""
        if self.moments is None or self.spread is None:
            return {}
        second = self.moments.variance + self.moments.mean.square()
        count = torch.arange(1, len(frames) + 1, dtype=frames.dtype).reshape(-1, 1, 1)
        means = (frames / self.alpha).square().cumsum(0) / count
        bias = ((means - second).square() / self.spread).mean(1).amax(-1)
        late = int((~(bias < BIAS)).nonzero().max()) + 1 if not bool((bias < BIAS).all()) else 0
        needed = math.ceil((late + 1) * each) if late < len(frames) else math.nan
        return {"evaluations_to_moments": float(needed)}


def _diagnosed(sweep: Sweep, cell: Cell) -> list[Row]:
    half = cell.steps // 2
    every = max(1, half // MOST_FRAMES)

    def row(name: str, measured: Measurement | None = None, **columns: Any) -> Row:
        settings = Diagnostic(name, half, every)
        return sweep.books.row(cell, name, settings, Against(CHAIN), measured, **columns)

    names = diagnostic_names(sweep, cell)
    stored = [sweep.recalled(row(name)) for name in names]
    if all(stored):
        return [one for one in stored if one is not None]
    if math.ceil((cell.steps - half) / every) < LEAST_FRAMES:
        message = f"at least {LEAST_FRAMES} states after the first half, and steps={cell.steps}"
        return [row(name, status="incompatible", message=message) for name in names]
    levels = sweep.levels(cell.steps, cell.algorithm)
    model = Counted(sweep.denoisers[cell.denoiser])
    began, status, message = time.perf_counter(), "ok", ""
    values: dict[str, float] = {}
    states = 0
    try:
        x, noise = sweep.beginning(cell, levels, 0)
        chains = record(cell.algorithm, model, x, levels, noise, burn_in=half, every=every)
        law = _Law.at(sweep, cell)
        states = chains.frames.shape[0] * chains.frames.shape[1]
        values = {
            "acceptance": float(chains.acceptance.mean()),
            "effective_sample_size": float(chains.effective_sample_size().min()),
            "split_r_hat": float(chains.split_r_hat().max()),
            **law.errors(chains.frames),
            **law.evaluations_to_moments(chains.frames, every * model.evaluations / cell.steps),
        }
    except ValueError as error:
        status, message = "diverged", str(error)
    seconds, info = time.perf_counter() - began, {"states": states}
    return [
        row(
            name,
            Measurement(values[name], math.nan, math.nan, None, 0, info) if values else None,
            nfe=model.evaluations,
            rounds=model.rounds,
            seconds=seconds,
            status=status,
            message=message,
        )
        for name in names
    ]

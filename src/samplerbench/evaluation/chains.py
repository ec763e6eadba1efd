"""How well Markov chains mix: acceptance, effective sample size, split-R̂.

C chains of a Langevin sampler, recorded as frames of shape (frames, chains, dim), are C·frames
samples that are worth fewer independent ones, and none at all where chains disagree about the law.

- *acceptance*: the mean probability that a proposal is accepted; 1 where nothing is ever refused;
- *bulk ESS*: with how many independent draws the mean of the rank-normalised coordinate would be
  known as well, from the autocorrelations within and between chains;
- *split-R̂*: the spread of all half chains over the mean spread within them; 1 at agreement, and
  above 1.01 the chains have not mixed (from the same start it can be 1 for chains that are stuck
  together).

Per coordinate, by ArviZ: Kumar, Carroll, Hartikainen, Martin, "ArviZ a unified library for
exploratory analysis of Bayesian models in Python", JOSS 4(33), 2019; the definitions are those of
Vehtari, Gelman, Simpson, Carpenter, Bürkner, "Rank-normalization, folding, and localization: an
improved R̂ for assessing convergence of MCMC", Bayesian Analysis 16(2), 2021, Section 3, with the
split-R̂ of Gelman et al., "Bayesian data analysis", 3rd ed., 2013, Section 11.4.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from samplerbench.errors import require
from samplerbench.evaluation.identity import settings_text
from samplerbench.evaluation.sweep import Sweep
from samplerbench.grids import Levels
from samplerbench.models import Denoiser, Score
from samplerbench.noise import KeyedNoise, Noise
from samplerbench.samplers.base import Sampler

LEAST_FRAMES = 4
"""Below that a half chain has no variance within it."""

MOST_FRAMES = 1000
"""As many of a long chain are kept by `diagnose`; its states in between are nearly the same."""


@dataclass(frozen=True, eq=False)
class Chains:
    """Recorded chains.

    Args:
        frames: states, float64, shape (frames, chains, dim).
        acceptance: mean probability of acceptance of each chain, shape (chains,); ones for methods
            that do not refuse.
    """

    frames: Tensor
    acceptance: Tensor

    def __post_init__(self) -> None:
        if self.frames.ndim != 3:
            raise ValueError("frames must have the shape (frames, chains, dim)")
        if len(self.frames) < LEAST_FRAMES:
            raise ValueError(f"at least {LEAST_FRAMES} frames, and these are {len(self.frames)}")
        if not self.frames.isfinite().all():
            raise ValueError("some states are not finite: the step size may be too large")

    def effective_sample_size(self) -> Tensor:
        """Bulk ESS of each coordinate, of all chains together, shape (dim,)."""
        return self._each(lambda arviz, draws: arviz.ess(draws, method="bulk"))

    def split_r_hat(self) -> Tensor:
        """Split-R̂ of each coordinate, shape (dim,); not a number where nothing moves."""
        return self._each(lambda arviz, draws: arviz.rhat(draws, method="split"))

    def _each(self, diagnostic: Callable[..., float]) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of its next major version
            import arviz  # seconds to import: only whoever asks for it pays
        coordinates = self.frames.permute(2, 1, 0).cpu().numpy()
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
        model: what it asks.
        x: the first states, shape (chains, dim).
        levels: of a hold grid.
        noise: where fresh noise comes from.
        burn_in: steps that count for nothing, acceptance included.
        every: k.
    """
    require(0 <= burn_in < levels.steps, "burn_in", burn_in, f"from 0 to {levels.steps - 1}")
    require(every >= 1, "every", every, "at least 1")
    frames, accepted = [], torch.zeros(len(x), dtype=torch.float64)
    # a score is enough for a sampler that says so
    for number, step in enumerate(sampler.steps(cast(Denoiser, model), x, levels, noise)):
        if number >= burn_in:
            accepted += torch.as_tensor(step.info.get("acceptance", 1.0)).cpu()
            if (number - burn_in) % every == 0:
                frames.append(step.x.double().cpu())
    return Chains(torch.stack(frames), accepted / (levels.steps - burn_in))


def diagnose(sweep: Sweep, count: int) -> pd.DataFrame:
    """How well a sweep's Langevin samplers mix, over the second half of their steps.

    One line for each denoiser, start and sampler that stays at a level: their names, settings and
    steps; states (frames times chains), acceptance, the smallest effective_sample_size and the
    largest split_r_hat of the coordinates; and a message where the chains cannot be examined.

    Args:
        sweep: the job; its largest numbers of steps are taken.
        count: how many chains.
    """
    lines: list[dict[str, object]] = []
    for denoiser, model in sweep.denoisers.items():
        for start, law in sweep.starts.items():
            for name, sampler in sweep.samplers:
                steps = max(sweep.steps_of(sampler))
                levels = sweep.levels(steps)
                if not sampler.holds or sampler.why_incompatible(model, levels) is not None:
                    continue
                key = ("chains", sweep.seed)
                x = law.draw(sweep.dataset, count, levels.rows[0], (*key, 0))
                line = {"denoiser": denoiser, "start": start, "sampler": name, "steps": steps}
                line["settings"] = settings_text(sampler)
                try:
                    chains = record(
                        sampler,
                        model,
                        x.to(sweep.device, sweep.dtype),
                        levels,
                        KeyedNoise((*key, "noise")),
                        burn_in=steps // 2,
                        every=max(1, steps // 2 // MOST_FRAMES),
                    )
                except ValueError as error:
                    lines.append(line | {"message": str(error)})
                    continue
                found = {
                    "states": chains.frames.shape[0] * chains.frames.shape[1],
                    "acceptance": float(chains.acceptance.mean()),
                    "effective_sample_size": float(chains.effective_sample_size().min()),
                    "split_r_hat": float(chains.split_r_hat().max()),
                }
                lines.append(line | found | {"message": ""})
    return pd.DataFrame(lines)

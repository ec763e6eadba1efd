"""How wrong a score is, by itself: no sampler, no transport.

    E‖s(x) − s*(x)‖²     beside     E‖s*(x)‖²,     x = α·x₀ + σ·ε ~ q at one level,

s* the oracle's. It is what denoising score matching minimises, up to a constant, at that level
(Vincent 2011). It weighs places by their probability, so it does not see a score that is wrong
where no data are, between two clusters, and that is where a chain has to pass: a small score error
beside a large distance says that the start or the mixing is at fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from samplerbench.core.grids import Level
from samplerbench.core.models import Denoiser, LevelFree, Score
from samplerbench.core.noise import generator
from samplerbench.datasets.base import Dataset

COLUMNS = ("denoiser", "sigma", "repetition", "error", "size")


@torch.no_grad()
def score_errors(
    denoisers: Mapping[str, Score],
    oracle: Denoiser,
    dataset: Dataset,
    levels: Sequence[Level[float]],
    *,
    count: int,
    repetitions: int,
    seed: int,
    device: torch.device,
) -> pd.DataFrame:
    """One row for each score, level and repetition, with the columns `COLUMNS`.

    Args:
        denoisers: scores by name; the name oracle is passed over.
        oracle: the exact one.
        dataset: the law of x₀.
        levels: where; a score that knows one level only is measured there.
        count: points per repetition; all scores see the same ones.
        repetitions: independent sets of points.
        seed: of the points.
        device: where the models live.
    """
    rows = []
    for name, model in denoisers.items():
        if name == "oracle":
            continue
        for level in [model.level] if isinstance(model, LevelFree) else levels:
            for repetition in range(repetitions):
                x = _points(dataset, level, count, (seed, repetition)).to(device)
                exact = oracle.score(x, level)
                error = (model.score(x, level) - exact).square().sum(-1).mean()
                size = exact.square().sum(-1).mean()
                rows.append((name, level.sigma, repetition, float(error), float(size)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _points(dataset: Dataset, level: Level[float], count: int, key: tuple[int, int]) -> Tensor:
    x0 = dataset.draws(count, "score", *key)
    eps = generator("score", *key).standard_normal(tuple(x0.shape))
    return level.alpha * x0 + level.sigma * torch.from_numpy(eps)

"""The error of a score itself, without a sampler.

    E‖s(x) − s*(x)‖²     compared with     E‖s*(x)‖²,     x = α·x₀ + σ·ε ~ q at one level,

where s* is the oracle's score. At that level denoising score matching minimises this error, up to a
constant (Vincent 2011). The error is weighted by probability. So it is small for a score that is
wrong only between two clusters, where there are no data but where a chain has to pass. If the score
error is small and the distance is large, the start or the mixing is the cause.
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
        denoisers: scores by name; the one named oracle is left out.
        oracle: the exact one.
        dataset: the law of x₀.
        levels: noise levels; a score of a single level is measured at that level.
        count: points per repetition, the same for all scores.
        repetitions: independent sets of points.
        seed: of the points.
        device: of the models.
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

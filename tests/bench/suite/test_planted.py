"""A planted sampler of known order and constant as an entrant: from its samples to its runtimes."""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch

from helpers import sweep_of
from samplerbench.bench.store import as_table
from samplerbench.bench.suite.results import TARGETS, About, Entrant, job_results
from samplerbench.bench.suite.standing import runtimes
from samplerbench.core.grids import karras
from samplerbench.core.schedules import EDM
from samplerbench.core.starts import Exact
from samplerbench.datasets.gaussian import gaussian
from samplerbench.metrics.paired import Paired
from samplerbench.samplers.base import Sampler, Step

MEAN, VARIANCES = torch.tensor([0.5, -1.0]).double(), torch.tensor([1.0, 4.0]).double()
LAW, PATH = gaussian(MEAN.tolist(), torch.diag(VARIANCES).tolist()), EDM(20.0)
SIZE = math.sqrt(5.0)
COUNTS = (4, 6, 8, 12, 16, 24, 32, 64, 128)


@dataclass(frozen=True)
class Planted(Sampler):
    """The exact end of the flow, moved by constant·N^−power sizes of the data."""

    power: int = 1
    constant: float = 1.0
    order = None
    stochastic = False

    def steps(self, model, x, levels, noise):
        first = levels.rows[0]
        total = (first.alpha**2 * VARIANCES + first.sigma**2).sqrt()
        end = MEAN + VARIANCES.sqrt() / total * (x - first.alpha * MEAN)
        move = SIZE * self.constant * levels.steps**-self.power * torch.tensor([0.6, 0.8])
        for _, now, _ in levels.pairs():
            yield Step(end + move, model.denoiser(x, now))


def curve(sampler):
    """The rows of the results of a sampler, as from a job of the suite."""
    settings = {"schedule": PATH, "grid": partial(karras, noise_min=0.01)}
    settings |= {"starts": {"exact": Exact()}, "metrics": {"paired": Paired()}}
    sweep = sweep_of(LAW, [("planted", sampler)], COUNTS, n_samples=32, block=32, **settings)
    about = About("gaussian", SIZE, 2, False, "", lambda *_: Entrant("lab", "1", 1.0, False, False))
    return job_results(as_table(map(vars, sweep.run())), about)


@pytest.mark.parametrize(("power", "constant"), [(1, 1.7), (2, 4.1), (3, 19.0)])
def test_it_lands_where_its_order_and_constant_say(power, constant):
    results = curve(Planted(power, constant)).sort_values("nfe")
    assert results["nfe"].tolist() == list(COUNTS)
    expected = [constant * float(n) ** -power for n in COUNTS]
    assert results["value"].tolist() == pytest.approx(expected, rel=1e-3, abs=2e-4)
    found = runtimes(results, TARGETS).set_index("target")["runtime"]
    assert len(found) == len(TARGETS["paired"])
    for target, runtime in found.items():
        least = (constant / target) ** (1 / power)  # where constant·n^−power is the target
        assert runtime == min((n for n in COUNTS if n >= least), default=np.inf)
    assert found.nunique() >= 4

"""The sweep: bits depend only on a cell's identity, and no row goes missing."""

import functools
import importlib.metadata
import itertools
import math
import re
import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import sweep_of
from samplerbench.bench.cell import Cell
from samplerbench.bench.sampling import sample_into
from samplerbench.bench.store import as_table
from samplerbench.bench.sweep import Sweep, mean_over_samples, most_steps
from samplerbench.core.models import Denoiser, Learned
from samplerbench.core.schedules import EDM
from samplerbench.core.starts import Exact, Prior, sobol_exact
from samplerbench.core.targets import EDMTarget
from samplerbench.datasets.empirical import Empirical
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_spectrum import gaussian_spectrum
from samplerbench.datasets.mixture import mixture
from samplerbench.errors import InvalidSetting
from samplerbench.metrics.base import Distance, Measurement
from samplerbench.metrics.kl_law import KLLaw
from samplerbench.metrics.kl_law_gaussian import KLLawGaussian
from samplerbench.metrics.kl_paths import KLPaths
from samplerbench.metrics.max_sliced_certified import MaxSlicedCertified
from samplerbench.metrics.max_sliced_law import MaxSlicedLaw
from samplerbench.metrics.paired import Paired
from samplerbench.metrics.tv_law import TVLaw
from samplerbench.metrics.w2_law_gaussian import W2LawGaussian
from samplerbench.metrics.w_output_1d import WOutput1D
from samplerbench.networks.residual_mlp import ResidualMLP
from samplerbench.samplers.azula import Azula
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.diffusers import Diffusers
from samplerbench.samplers.dormand_prince import DormandPrince
from samplerbench.samplers.edm_churn import EDMChurn
from samplerbench.samplers.er_sde import ERSDE
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.k_diffusion import KDiffusion
from samplerbench.samplers.mala import MALA
from samplerbench.samplers.unipc import UniPC

DATASET = gaussian([1.0, -0.5], [[4.0, 1.0], [1.0, 1.0]])
SCHEDULE = EDM(10.0)


@pytest.fixture
def sweep():
    return sweep_of(
        DATASET,
        [("ddim", DDIM(0.0)), ("ddim", DDIM(1.0))],
        [3, 5],
        schedule=SCHEDULE,
        metrics={"max_sliced_certified": MaxSlicedCertified()},
        reference=DATASET.draws(500, "evaluation", 0),
        n_samples=150,
        repetitions=2,
        floor_repetitions=3,
        block=100,
    )


def table(sweep: Sweep) -> pd.DataFrame:
    return as_table(vars(row) for row in sweep.run()).drop(columns="seconds")


def test_one_row_for_every_cell_and_metric(sweep):
    rows = sweep.run()
    assert len(rows) == len(sweep.cells()) == 3 + 2 * 2 * 2 * 2
    assert len({row.cell_id for row in rows}) == len(rows)
    assert {row.status for row in rows} == {"ok"}


def test_workers_do_not_change_a_bit(sweep):
    pd.testing.assert_frame_equal(table(sweep), table(replace(sweep, workers=4)), check_exact=True)


@pytest.fixture
def impatient():
    """Threads take turns as often as possible, so that races are likely."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


#: Samplers with and without noise.
FEW = [DDIM(0.0), DDIM(1.0), Heun(), ERSDE()]


def in_the_plane(samplers=FEW, metrics=(KLLaw(), KLPaths(), MaxSlicedLaw())):
    """The exact and a learned score, and metrics of samples and of laws."""
    network = ResidualMLP(2, 0, width=8, blocks=1)
    torch.nn.init.normal_(network.last.weight, generator=torch.Generator().manual_seed(1))
    learned = Learned(network, EDMTarget(), SCHEDULE, torch.zeros(2), 2.0).eval()
    return sweep_of(
        DATASET,
        [(f"{type(one).__name__}-{place}", one) for place, one in enumerate(samplers)],
        [5],
        denoisers={"oracle": DATASET.oracle(SCHEDULE), "learned": learned.requires_grad_(False)},
        metrics={type(one).__name__: one for one in metrics},
        n_samples=30,
        starts={"exact": Exact()},
    )


def with_peers():
    """Our samplers, and those of other packages that are installed."""
    peers = [one for kind in (Diffusers, KDiffusion, Azula) for one in kind.variants()]
    samplers = [*FEW, UniPC(), EDMChurn(), DormandPrince(), *peers]
    return in_the_plane(samplers, [KLLaw(), TVLaw(), Paired(), MaxSlicedLaw()])


def on_the_line():
    law, starts = mixture(means=[[-1.0], [2.0]], covariances=[0.3, 0.5]), {"prior": Prior()}
    metrics = {"kl_law": KLLaw(), "w_output_1d": WOutput1D()}
    return sweep_of(law, [DDIM(0.0), DDIM(1.0), Heun()], [2], metrics=metrics, starts=starts)


def by_eigenvalue():
    samplers = [DDIM(0.0), DDIM(1.0), Heun(), UniPC(), EDMChurn()]
    metrics = {"w2": W2LawGaussian(), "kl": KLLawGaussian(), "law": MaxSlicedCertified()}
    return sweep_of(gaussian_spectrum(dim=6), samplers, [4, 5], metrics=metrics)


@pytest.mark.parametrize(
    "make",
    [in_the_plane, on_the_line, by_eigenvalue, pytest.param(with_peers, marks=pytest.mark.slow)],
)
def test_workers_that_share_everything_do_not_change_a_bit(make, impatient):
    """Objects are new in each run: the first use of each is by several threads at once."""
    alone, together = (table(replace(make(), workers=workers)) for workers in (1, 4))
    pd.testing.assert_frame_equal(alone, together, check_exact=True)
    assert (alone["status"] == "ok").mean() > 0.4


def test_a_second_run_has_the_same_rows():
    """The identity of a model does not depend on what was computed with it before."""
    sweep = in_the_plane()
    few = replace(sweep, samplers=sweep.samplers[:1], metrics={"kl_law": KLLaw()})
    pd.testing.assert_frame_equal(table(few), table(replace(few)), check_exact=True)


def test_other_cells_do_not_change_a_bit(sweep):
    alone = replace(
        sweep, steps=[5], samplers=[("ddim", DDIM(1.0))], starts={"exact": Exact()}, repetitions=1
    )
    both = table(sweep).merge(table(alone), on="cell_id", suffixes=("", "_alone"))
    assert len(both) == 1 + 3
    assert (both["value"] == both["value_alone"]).all()


def test_fewer_samples_are_a_prefix(sweep):
    """Sample i is row i mod block, for every n."""
    cell = sweep.cells()[-1]
    oracle = sweep.denoisers["oracle"]
    many = torch.cat(list(sweep.samples(cell, oracle)))
    few = torch.cat(list(replace(sweep, n_samples=120).samples(cell, oracle)))
    assert many.shape == (150, 2)
    assert torch.equal(many[:120], few)


class Sizes(Denoiser):
    """A denoiser that keeps the sizes of the batches that it gets."""

    def __init__(self, model):
        super().__init__()
        self.model, self.schedule, self.piece, self.sizes = model, model.schedule, model.piece, []

    def denoiser(self, x, level):
        self.sizes.append(len(x))
        return self.model.denoiser(x, level)


@pytest.mark.parametrize(
    "sampler", [Heun(), DDIM(1.0), pytest.param(DormandPrince(), marks=pytest.mark.slow)], ids=str
)
def test_only_the_pieces_with_samples_are_evaluated(sweep, sampler):
    """A few samples of a large data set have the same bits as if there were many."""
    law = Empirical(torch.from_numpy(np.random.default_rng(0).normal(size=(3_000, 2))))
    oracle = Sizes(law.oracle(SCHEDULE))
    of = replace(sweep, dataset=law, denoisers={"oracle": oracle}, steps=[6], n_samples=170)
    assert 20 < oracle.piece < 60
    plain = Cell("oracle", "exact", "a", sampler, 6, 0)
    for cell in (plain, replace(plain, coupled=True)) if sampler.couples else (plain,):
        many = of.draw(cell)
        oracle.sizes.clear()
        few = replace(of, n_samples=20).draw(cell)
        assert set(oracle.sizes) == {100 if sampler.adaptive else oracle.piece}
        assert torch.equal(few.points, many.points[:20])
        assert few.nfe == many.nfe or sampler.adaptive
        array = torch.empty(20, 2, dtype=torch.float64).numpy()
        if not cell.coupled:
            sample_into(array, replace(of, n_samples=20), cell)
            assert (array == few.points.numpy()).all()


def test_repetitions_and_blocks_have_draws_of_their_own(sweep):
    oracle = sweep.denoisers["oracle"]
    first, second = (torch.cat(list(sweep.samples(cell, oracle))) for cell in sweep.cells()[-2:])
    together = torch.cat([first, second])
    assert len(together.unique(dim=0)) == len(together)


def test_repetitions_share_start_and_noise_between_cells(sweep):
    """Common random numbers: cells of one repetition that differ little have close samples."""
    close = replace(sweep, samplers=[("a", DDIM(0.5)), ("b", DDIM(0.5001))], repetitions=1)
    first, second = (
        torch.cat(list(close.samples(cell, close.denoisers["oracle"])))
        for cell in [cell for cell in close.cells() if cell.start == "exact" and cell.steps == 5]
    )
    assert (first - second).abs().max() < 0.01
    assert not torch.equal(first, second)


def test_nfe_is_counted(sweep):
    rows = replace(sweep, samplers=[("heun", Heun())], steps=[1, 5], n_samples=350).run()
    assert {(row.steps, row.nfe) for row in rows if row.sampler == "heun"} == {(1, 1), (5, 9)}
    assert {(row.steps, row.nfe) for row in rows if row.denoiser == "law"} == {(0, 0)}


def test_seconds_are_those_of_sampling_and_metric(sweep, monkeypatch):
    """A clock that is a second later in every call: one second for each of the two."""
    clock = SimpleNamespace(perf_counter=functools.partial(next, itertools.count(7.0)))
    monkeypatch.setattr("samplerbench.bench.sweep.time", clock)
    assert {row.seconds for row in sweep.run()} == {2.0}


def test_samples_and_floor_are_held_against_the_truth(sweep):
    """Data with noise of σ = 2, as a Langevin sampler's level has it."""
    truth = gaussian([1.0, -0.5], [[8.0, 1.0], [1.0, 5.0]])
    of = replace(sweep, truth=truth, metrics={"law": MaxSlicedLaw()})
    floor, cell = of.cells()[0], of.cells()[-1]
    draws = truth.draws(150, "floor", of.seed, 0)
    assert torch.equal(of.draw(floor).points, draws)
    distance = MaxSlicedLaw().against_law(truth, seed=of.metric_seed)
    for drawn, samples in ((floor, draws), (cell, of.draw(cell).points)):
        row = of.measure(of.lazy_samples(drawn), "law", of.distances()["law"])
        assert row.value == distance(samples).value


def test_even_starts_have_a_floor_of_even_draws(sweep):
    """Of 128 even draws of a law on the line, each part with 1/128 of the mass contains one."""
    starts = {"prior": Prior(), "exact": Exact(), "even": sobol_exact()}
    truth = gaussian([1.0], [[4.0]])
    of = replace(sweep, truth=truth, starts=starts, n_samples=128, floor_repetitions=2)
    cells = of.floor_cells()
    assert [cell.start for cell in cells] == ["", "", "even", "even"]
    for cell in cells:
        levels = torch.special.ndtr((of.draw(cell).points[:, 0] - 1) / 2)
        assert (len((128 * levels).floor().unique()) == 128) is (cell.start == "even")


def test_the_versions_of_the_software_are_in_every_identity(sweep):
    names = ("samplerbench", "torch", "numpy", "scipy", "pot", "pytorch-lightning")
    assert set(sweep.books.versions) == set(names)
    for name in names[1:]:
        assert sweep.books.versions[name] == importlib.metadata.version(name)


class Broken(Denoiser):
    """Gives so many times x below σ = 1, or raises."""

    def __init__(self, factor):
        super().__init__()
        self.schedule = SCHEDULE
        self.factor = factor

    def denoiser(self, x, level):
        if self.factor is None:
            raise RuntimeError("first line\nsecond line")
        return x * (self.factor if level.sigma < 1 else 0.5)


def test_a_cell_that_diverges_or_fails_is_a_row(sweep):
    broken = {"nan": Broken(math.nan), "huge": Broken(1e20), "raises": Broken(None)}
    rows = as_table(vars(row) for row in replace(sweep, denoisers=broken | sweep.denoisers).run())
    by = rows.set_index("denoiser")
    assert set(by.loc[["nan", "huge"], "status"]) == {"diverged"}
    message = "150 of 150 samples are not finite, or 1e+15 and more"
    assert set(by.loc[["nan", "huge"], "message"]) == {message}
    assert set(by.loc["raises", "status"]) == {"failed"}
    (message,) = set(by.loc["raises", "message"])
    assert message.startswith("RuntimeError: first line (test_sweep.py, line ")
    assert "\n" not in message
    assert by.loc[["nan", "huge", "raises"], "value"].isna().all()
    assert set(by.loc[["oracle", "law"], "status"]) == {"ok"}


class NoNumber(Distance):
    def measure(self, samples):
        return Measurement(math.nan, math.nan, math.nan, None, 1)


@dataclass(frozen=True)
class Careless(MaxSlicedCertified):
    def against(self, reference, *, seed):
        return NoNumber(reference.shape[1])


def test_a_distance_that_is_no_number_is_a_failure(sweep):
    rows = as_table(vars(row) for row in replace(sweep, metrics={"careless": Careless()}).run())
    assert set(rows["status"]) == {"failed"}
    assert set(rows["message"]) == {"careless gives nan"}


@dataclass(frozen=True)
class Picky(DDIM):
    def why_incompatible(self, model, levels):
        return "needs more steps" if levels.steps < 5 else None


def test_an_incompatible_cell_is_a_row_with_its_reason(sweep):
    rows = replace(sweep, samplers=[("picky", Picky())]).run()
    status = {(row.steps, row.status, row.message) for row in rows if row.sampler}
    assert status == {(3, "incompatible", "needs more steps"), (5, "ok", "")}


@pytest.mark.parametrize("field", ["n_samples", "repetitions", "block", "workers", "steps"])
def test_impossible_settings_are_refused(sweep, field):
    with pytest.raises(InvalidSetting, match=field):
        replace(sweep, **{field: [0] if field == "steps" else 0})


def test_most_steps():
    assert [most_steps(DDIM(), nfe) for nfe in (1, 8)] == [1, 8]
    assert [most_steps(Heun(), nfe) for nfe in (1, 2, 7, 8)] == [1, 1, 4, 4]
    assert [most_steps(DormandPrince(), nfe) for nfe in (1, 8, 13)] == [1, 2, 3]


def test_evaluations_are_a_mean_over_samples():
    assert mean_over_samples([8, 8, 8], [100, 100, 7]) == 8
    assert mean_over_samples([50, 150], [100, 100]) == 100
    assert mean_over_samples([50, 151], [100, 50]) == 84  # 83.7


def test_evaluations_of_an_adaptive_sampler_are_the_same_from_both_doors(sweep):
    """Of a last, cut block only the samples that are kept count."""
    adaptive = replace(
        sweep, samplers=[("a", DormandPrince())], steps=[4], repetitions=1, n_samples=110
    )
    cell = adaptive.cells()[-1]
    drawn = adaptive.draw(cell)
    array = torch.empty(110, 2, dtype=torch.float64).numpy()
    assert sample_into(array, adaptive, cell).nfe == drawn.nfe


def test_samplers_at_equal_cost(sweep):
    of = replace(sweep, samplers=[("ddim", DDIM()), ("heun", Heun())], nfe=[4, 7], steps=[99])
    assert of.all_steps == [2, 4, 7]
    found = {(row.sampler, row.steps, row.nfe) for row in of.run() if row.sampler}
    assert found == {("ddim", 4, 4), ("ddim", 7, 7), ("heun", 2, 3), ("heun", 4, 7)}
    with pytest.raises(
        InvalidSetting, match=r"nfe=.*: must be at least 4, the cost of one step of mala"
    ):
        replace(sweep, samplers=[("mala", MALA())], nfe=[1])


@dataclass(frozen=True)
class Truncated(DDIM):
    """DDIM that yields another number of states, or states of another shape."""

    change: str = "fewer"

    def steps(self, model, x, levels, noise):
        steps = list(super().steps(model, x, levels, noise))
        if self.change == "shape":
            yield from (replace(step, x=step.x[:1]) for step in steps)
        yield from {"fewer": steps[:-1], "more": [*steps, steps[-1]], "none": []}[self.change]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *((change, "one for each step") for change in ("fewer", "more", "none")),
        ("shape", r"step.x.shape=\(1, 2\)"),
    ],
)
def test_samplers_yield_a_state_for_each_step(sweep, change, message):
    """For command and library: memory without a written state never becomes samples."""
    short = replace(sweep, samplers=[("mine", Truncated(0.0, change=change))], steps=[3])
    rows = [row for row in short.run() if row.sampler == "mine"]
    assert {row.status for row in rows} == {"failed"}
    assert all(re.search(message, row.message) for row in rows)
    cell = next(cell for cell in short.cells() if cell.settings is not None)
    with pytest.raises(InvalidSetting, match=message):
        sample_into(np.empty((150, 2)), short, cell)

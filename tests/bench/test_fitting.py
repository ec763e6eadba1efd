"""A sweep's fitted grid: its denoiser, its identity, the stored fit, and refusals."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

from helpers import sweep_of
from samplerbench.bench import fitting
from samplerbench.bench.cache import Cache
from samplerbench.bench.cell import Labels, Origin
from samplerbench.bench.fitting import fitted, require_fits, with_table
from samplerbench.core.fitted_grids import Entropic, Fitted, FittedGrid, Spectral
from samplerbench.core.grids import Truncated, log_snr, uniform
from samplerbench.core.models import Denoiser, LevelFree
from samplerbench.core.schedules import EDM
from samplerbench.core.starts import Exact
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.unseen import Unseen
from samplerbench.errors import InvalidSetting, RunFailed
from samplerbench.metrics.sliced import Sliced
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.ula import ULA

LAW = gaussian((0.0, 1.0), ((1.0, 0.0), (0.0, 0.04)))
PATH = EDM(10.0)
RECIPE = Entropic(states=20, points=8)


class Wide(Denoiser):
    """A denoiser of other data."""

    def __init__(self, factor):
        super().__init__()
        self.schedule, self.factor = PATH, factor

    def denoiser(self, x, level):
        return self.factor * x / (1 + level.sigma**2)


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.setattr(fitting, "_KNOWN", {})


def with_recipe(**changes):
    settings = {
        "law": LAW,
        "schedule": PATH,
        "grid": RECIPE,
        "denoisers": {"learned": Wide(1.0)},
        "starts": {"exact": Exact()},
        "samplers": [("ddim", DDIM(0.0))],
        "steps": [3],
        "metrics": {"sliced": Sliced(directions=4)},
        "n_samples": 20,
    }
    return sweep_of(**settings | changes)


def fit_of(**changes):
    sweep, fit = fitted(with_recipe(**changes))
    return sweep.grid.grid, fit


def test_no_cell_runs_on_a_grid_that_is_not_fitted():
    sweep = with_recipe()
    assert torch.equal(sweep.levels(3).t, log_snr(PATH, 3, noise_min=0.02).t)  # for checks only
    for use in (lambda: sweep.books, lambda: sweep.levels_of(sweep.cells()[-1])):
        with pytest.raises(ValueError, match="must be fitted first"):
            use()
    ready, fit = fitted(sweep)
    assert [row.status for row in ready.run()] == ["ok"]
    assert (fit.denoiser, fit.evaluations, fit.known) == ("oracle", 160, False)
    assert fit.line == "grid: Entropic, 160 evaluations of the oracle denoiser, kept"
    assert fitted(ready) == (ready, None)


def test_the_oracle_comes_first_and_another_one_can_be_named():
    oracle, fit = fit_of()
    assert fit.denoiser == "oracle"
    assert torch.equal(fit_of(denoisers={"oracle": LAW.oracle(PATH)})[0].cost, oracle.cost)
    learned, fit = fit_of(grid=replace(RECIPE, denoiser="learned"))
    assert fit.denoiser == "learned"
    assert not torch.equal(learned.cost, oracle.cost)
    with pytest.raises(InvalidSetting, match=r"^grid\.denoiser=mine: must be null, or one of lear"):
        fit_of(grid=replace(RECIPE, denoiser="mine"))
    level_free = LevelFree(torch.nn.Identity(), 0.1, torch.zeros(2))
    unknown = with_recipe(
        denoisers={"learned": level_free}, dataset=Unseen((2,)), samplers=[("ula", ULA())]
    )
    with pytest.raises(InvalidSetting, match=r"^grid=: must be another one: it is fitted to a den"):
        require_fits(unknown)
    with pytest.raises(InvalidSetting, match="noised data, but there are no data"):
        require_fits(replace(unknown, denoisers={"own": Wide(1.0)}))
    with pytest.raises(InvalidSetting, match=r"needs the covariance of the data"):
        require_fits(replace(unknown, denoisers={"own": Wide(1.0)}, grid=Spectral()))
    # a given spectrum needs neither
    grid = Spectral(variances=[1.0])
    assert fitted(replace(unknown, denoisers={"own": Wide(1.0)}, grid=grid))[1].evaluations == 0


def test_paths_of_two_trainings_have_other_bits_and_one_setting():
    """The table depends on the weights; curves of trainings that differ in seeds are pooled."""
    grid = replace(RECIPE, denoiser="learned")
    rows = {}
    for name, factor, recipe in (("a", 1.0, "x"), ("b", 1.1, "x"), ("c", 1.1, "y")):
        model = Wide(factor)
        sweep = with_recipe(
            grid=grid,
            denoisers={"learned": model},
            origins={"learned": Origin("learned", name, recipe)},
        )
        (rows[name],) = fitted(sweep)[0].run()
    assert len({row.samples_id for row in rows.values()}) == 3
    assert rows["a"].setting_id == rows["b"].setting_id != rows["c"].setting_id
    other = replace(grid, states=21)
    sweep = with_recipe(grid=other, origins={"learned": Origin("learned", "a", "x")})
    assert fitted(sweep)[0].run()[0].setting_id != rows["a"].setting_id
    # of the oracle, the seed of the job changes no level
    one, two = (fitted(with_recipe(seed=seed))[0] for seed in (0, 1))
    assert one.books.path == two.books.path
    assert one.books.path != fitted(with_recipe(grid=replace(RECIPE, seed=1)))[0].books.path


def test_a_fit_is_kept_by_its_identity(tmp_path, monkeypatch):
    first = fitted(with_recipe(), Cache(tmp_path))[1]
    assert fitted(with_recipe(), None)[1] == replace(first, known=True)  # in this process
    named = fitted(with_recipe(labels=Labels(grid="mine")), None)[1]
    assert (named.known, named.grid) == (True, "mine")
    monkeypatch.setattr(fitting, "_KNOWN", {})
    monkeypatch.setattr(fitting, "_computed", None)
    again = fitted(with_recipe(seed=3, steps=[5]), Cache(tmp_path))[1]
    assert again.known
    assert (again.table, again.evaluations) == (first.table, first.evaluations)
    monkeypatch.undo()
    monkeypatch.setattr(fitting, "_KNOWN", {})
    anew = fitted(with_recipe(), Cache(tmp_path, refresh=True), refresh=True)[1]
    assert (anew.known, anew.table) == (False, first.table)
    others = [
        with_recipe(dataset=gaussian((0.0, 1.0), ((2.0, 0.0), (0.0, 0.04)))),
        with_recipe(schedule=EDM(9.0)),
        with_recipe(grid=replace(RECIPE, seed=1)),
        with_recipe(grid=replace(RECIPE, denoiser="learned")),
        with_recipe(dtype=torch.float32),
        with_recipe(versions={"torch": "0"}),
    ]
    found = [fitted(one, Cache(tmp_path))[1] for one in others]
    assert not any(fit.known for fit in found)
    assert len({fit.fit_id for fit in found}) == len(found)


def test_a_spoilt_table_is_fitted_again(tmp_path):
    first = fitted(with_recipe(), Cache(tmp_path))[1]
    fitting._KNOWN.clear()
    (path,) = Cache(tmp_path).files("archives")
    path.write_bytes(path.read_bytes()[:-40])
    again = fitted(with_recipe(), Cache(tmp_path))[1]
    assert (again.known, again.table) == (False, first.table)


def test_a_stored_table_is_that_of_the_run():
    sweep = with_recipe()
    ready, fit = fitted(sweep)
    assert with_table(sweep, fit.table).books.sweep_id == ready.books.sweep_id
    with pytest.raises(ValueError, match="not the table"):
        with_table(sweep, b"{}")


@dataclass(frozen=True, kw_only=True)
class Other(FittedGrid):
    """A recipe that returns a grid of another kind, or fails."""

    fails: bool = False

    def fit(self, to):
        return uniform if not self.fails else 1 / 0


def test_a_fit_that_fails_is_one_line():
    with pytest.raises(InvalidSetting, match=r"^grid\.cost=8 numbers up to nan: must be finite"):
        fit_of(grid=replace(RECIPE, denoiser="learned"), denoisers={"learned": Wide(math.nan)})
    with pytest.raises(InvalidSetting, match=r"^grid=function: must be a recipe whose fit returns"):
        fit_of(grid=Other())
    with pytest.raises(RunFailed, match=r"^grid=Other cannot be fitted: ZeroDivisionError"):
        fit_of(grid=Other(fails=True))


def test_a_fitted_grid_ends_like_any_other():
    sweep = fitted(with_recipe(final="none"))[0]
    assert isinstance(sweep.path_grid, Truncated)
    assert isinstance(sweep.grid, Fitted)
    levels = sweep.levels(4)
    assert levels.steps == 4
    assert levels.sigma[[0, -1]].tolist() == pytest.approx([10, 0.02])

"""The value that a sweeper such as Optuna minimises: the mean of a metric, or infinity."""

import math
import sys
from types import ModuleType

import hydra_plugins
import pandas as pd
import pytest
from hydra._internal.core_plugins import basic_sweeper
from hydra.core.plugins import Plugins

from helpers import row
from samplerbench.app.job.run import mean_value
from samplerbench.bench.store import as_table

CELL = {"metric": "near", "denoiser": "oracle", "sampler": "ddim", "reference": "data"}


def table(*cells):
    rows = (row(**{"cell_id": str(place), **CELL, **cell}) for place, cell in enumerate(cells))
    return as_table([vars(one) for one in rows])


def test_it_is_the_mean_of_one_metric_without_floors_and_helpers():
    rows = [
        {"value": 1.0},
        {"value": 4.0, "sampler": "heun"},
        {"value": 100.0, "metric": "far"},
        {"value": 0.1, "denoiser": "law", "sampler": ""},  # the floor
        {"value": 50.0, "sampler": "ddim limit"},  # of an error budget
        {"value": 70.0, "reference": "chain"},
    ]
    assert mean_value(table(*rows), "near") == 2.5
    assert mean_value(table(*rows), "far") == 100.0


def test_a_cell_without_a_value_is_worse_than_any_value():
    gone = {"value": math.nan, "status": "diverged", "steps": 8}
    assert mean_value(table({"value": 1e300}), "near") == 1e300
    assert mean_value(table({"value": 0.0}, gone), "near") == math.inf
    assert mean_value(table({"value": 2.0}, {**gone, "metric": "far"}), "near") == 2.0
    assert mean_value(table({"value": 2.0, "denoiser": "law"}), "near") == math.inf


SWEEPER = "hydra_plugins.recording.Recording"


@pytest.fixture
def sweep(command, tmp_path, monkeypatch):
    """Runs a multirun by a sweeper of another name than Hydra's own: the exit status, what its jobs
    returned to it, and their tables.
    """
    monkeypatch.chdir(tmp_path)
    returned = []
    plugins = Plugins.instance()
    basic = plugins.class_name_to_class[f"{basic_sweeper.__name__}.BasicSweeper"]

    def recorded(self, arguments):
        batches = basic.sweep(self, arguments)
        returned.extend(job.return_value for batch in batches for job in batch)

    package, name = SWEEPER.rsplit(".", 1)
    sweeper = type(name, (basic,), {"sweep": recorded, "__module__": package})
    module = ModuleType(package)  # Hydra takes sweepers from there only
    setattr(module, name, sweeper)
    monkeypatch.setitem(sys.modules, package, module)
    monkeypatch.setattr(hydra_plugins, "recording", module, raising=False)
    monkeypatch.setitem(plugins.class_name_to_class, SWEEPER, sweeper)

    def run(*words):
        returned.clear()
        of = ("experiment=tiny", "logger=none", "denoiser=oracle", "start=prior", "steps=4")
        own = (f"hydra.sweeper._target_={SWEEPER}", "hydra.sweep.dir=runs")
        status = command("-m", *own, *of, *words)
        tables = sorted(tmp_path.glob("runs/*/cells.parquet"))
        return status, list(returned), [pd.read_parquet(path) for path in tables]

    return run


METRICS = "metric=[max_sliced_certified,sliced]"


@pytest.mark.slow
def test_a_sweeper_gets_the_metric_that_is_named_and_infinity_where_cells_diverged(sweep):
    words = ("sampler=ula", "grid=hold", "sampler.ula.step_size=1e-3,1e308", METRICS)
    status, (good, diverged), tables = sweep(*words, "sweeper_metric=sliced")
    assert status == 0
    own = tables[0].query("metric == 'sliced' and denoiser == 'oracle'")["value"]
    assert good == pytest.approx(own.mean(), rel=1e-12)
    assert set(tables[1].query("denoiser == 'oracle'")["status"]) == {"diverged"}
    assert diverged == math.inf


@pytest.mark.slow
def test_unless_one_is_named_it_is_the_first(sweep):
    status, returned, tables = sweep("sampler=heun", "seed=0", METRICS)
    assert status == 0
    for value, found in zip(returned, tables, strict=True):
        own = found.query("metric == 'max_sliced_certified' and denoiser == 'oracle'")["value"]
        assert value == pytest.approx(own.mean(), rel=1e-12)
    assert sweep("sampler=heun", "metric=[]", "picture=samples")[:2] == (0, [None])

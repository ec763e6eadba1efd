"""The committed results of the suite: some cells, drawn at random, are measured again."""

import random
from pathlib import Path

import pandas as pd
import pytest

from samplerbench.app.commands import suite
from samplerbench.app.job.verifying import suite_job
from samplerbench.bench.store import as_table
from samplerbench.bench.suite.results import COLUMNS, SHIPPED, TARGETS
from samplerbench.bench.suite.standing import ratio, runtimes, standing

FOLDER = Path(__file__).parents[2] / "multirun" / "gallery" / "suite" / "v1"
#: A value on another machine, or of later code, may differ by this share, or by a small number.
SHARE, LEAST = 0.02, 1e-4


@pytest.fixture(scope="module")
def results():
    return pd.read_parquet(FOLDER / "results.parquet")


def test_the_results_are_complete(results):
    """Every task has every entrant that belongs to it, and every number of evaluations."""
    assert list(results.columns) == COLUMNS
    tasks = {command.split("suite/v1/")[1].split()[0] for command in results["command"]}
    assert tasks == {*suite.tasks()}
    curve = ["law", "path", "denoiser", "quantity", "grid", "entrant", "steps"]
    assert not results.duplicated(curve).any()
    assert {*results["quantity"]} == {*TARGETS}
    assert not results["command"].str.contains("cache|hydra|/tmp").any()


def test_the_table_is_that_of_the_results(results):
    table = standing(runtimes(results, TARGETS))
    assert len(table) > 90
    assert table["to_field"].notna().all()


#: The ratios in docs/suite.md.
PAIRS = [
    ("heun", "dpm_solver_pp points=2"),
    ("heun", "ddim η=0"),
    ("unipc points=2", "dpm_solver_pp points=2"),
    ("ipndm points=4", "dpm_solver_pp points=2"),
    ("rk2 alpha=0.5", "heun"),
    ("rk4", "heun"),
    ("unipc points=3", "unipc points=2"),
    ("dpm_solver_pp points=3", "dpm_solver_pp points=2"),
    ("euler", "ddim η=0"),
    ("deis_log_rho points=3", "unipc points=2"),
]
README = "README.md"
#: Of these, README.md does not have.
LEFT_OUT = [("rk4", "heun")]


def test_the_pages_have_the_ratios_of_the_results(results):
    """docs/suite.md has those of both grid settings, and README.md those of the samplers' own."""
    root = FOLDER.parents[3]
    pages = {name: (root / name).read_text(encoding="utf-8") for name in ("docs/suite.md", README)}
    table = runtimes(results, TARGETS)
    for a, b in PAIRS:
        for grid in ("common", "own"):
            found = ratio(table, a, b, grid)
            value, lower, upper = (
                f"{end:.2f}".removeprefix("0") for end in (found.value, found.lower, found.upper)
            )
            text = f"{value} ({lower}–{upper})"
            for name, page in pages.items():
                needed = name != README or (grid == "own" and (a, b) not in LEFT_OUT)
                assert not needed or text in page, (name, a, b, grid, text)


@pytest.mark.slow
def test_random_cells_have_the_same_values(results):
    pytest.importorskip("diffusers")
    seed = random.randrange(10**6)
    print(f"seed={seed}")
    cheap = results[(results["nfe"] <= 16) & (results["status"] == "ok")]
    cheap = cheap[~cheap["command"].str.contains("noisy|digits|tree")]
    quiet = cheap[(cheap["grid"] == "common") | (cheap["chosen"] == SHIPPED)]
    for row in quiet.sample(6, random_state=seed).to_dict("records"):
        job = suite_job(row["command"], [row["entrant"]], ["grids=null"])
        (cell,) = [
            one
            for one in job.sweep.cells()
            if one.steps == row["steps"] and one.settings is not None
        ]
        distances, samples = job.sweep.distances(), job.sweep.lazy_samples(cell)
        rows = [
            job.sweep.measure(samples, name, distances[name]) for name in job.sweep.metrics_of(cell)
        ]
        again = job.results(as_table(map(vars, rows)))
        value = float(again.loc[again["quantity"] == row["quantity"], "value"].iloc[0])
        assert value == pytest.approx(row["value"], rel=SHARE, abs=LEAST), (seed, row)

"""The committed results of the suite: some cells, drawn at random, are measured again."""

import random
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from samplerbench.app.commands import suite
from samplerbench.app.job.verifying import suite_job, suite_words
from samplerbench.bench.criteria import AGREE
from samplerbench.bench.store import as_table
from samplerbench.bench.suite.results import COLUMNS, NOT_RECORDED, RECORDED, TARGETS
from samplerbench.bench.suite.standing import UNSOLVED, Ratio, interval, ratio, runtimes, standing

FOLDER = Path(__file__).parents[2] / "multirun" / "gallery" / "suite" / "v2"
#: A value on another machine, or of later code, may differ by this share, or by a small number.
SHARE, LEAST = 0.02, 1e-4
#: The number of jobs of which a value is computed again.
DRAWN = 6


@pytest.fixture(scope="module")
def results():
    return pd.read_parquet(FOLDER / "results.parquet")


def test_the_results_are_complete(results):
    """Every task has every entrant that belongs to it, and every number of evaluations."""
    assert list(results.columns) == [*COLUMNS, *RECORDED]
    tasks = {command.split("=suite/")[1].split()[0] for command in results["command"].unique()}
    assert tasks == {*suite.tasks()}
    curve = ["law", "path", "denoiser", "quantity", "grid", "entrant", "steps"]
    assert not results.duplicated(curve).any()
    assert {*results["quantity"]} == {*TARGETS}
    assert not results["command"].str.contains("cache|hydra|/tmp").any()


def test_version_2_has_the_values_of_version_1(results):
    """It computed them again on another machine, with better converged runs; it adds KL tasks."""
    first = pd.read_parquet(FOLDER.parent / "v1" / "results.parquet")
    new = results["command"].str.contains("=suite/v2/")
    assert {*results.loc[new, "quantity"]} == {"kl_law"}
    assert not results[RECORDED].isin([NOT_RECORDED]).any(axis=None)
    assert set(first[RECORDED].to_numpy().ravel()) == {NOT_RECORDED}
    tasks = {command.split("=suite/")[1].split()[0] for command in first["command"].unique()}
    assert tasks == {*suite.tasks("v1")}
    again = results[~new].reset_index(drop=True)
    same = ["law", "path", "denoiser", "grid", "quantity", "entrant", "steps", "chosen"]
    pd.testing.assert_frame_equal(again[same], first[same])
    later = again["status"] != first["status"]
    assert {*again[later]["sampler"]} == {"flow_sde"}
    assert {*again[later]["status"]} == {"ok"}
    apart = (again["value"] - first["value"]).abs().groupby(first["quantity"]).max()
    # the bounds in docs/suite.md
    bounds = {"kl_law": 2e-8, "w2_law_gaussian": 4e-6, "paired": 0.0011, "w_output_1d": 0.0011}
    assert all(apart[name] < bound for name, bound in bounds.items())
    assert f"{len(first):,} rows".replace(",", " ") in PAGES["docs/suite.md"]


@pytest.mark.slow
def test_the_table_is_that_of_the_results(results):
    table = standing(runtimes(results, TARGETS))
    assert len(table) > 90
    assert table["to_field"].notna().all()


#: The pairs in docs/suite.md whose first sampler needs more evaluations on both grid settings, and
#: fewer; and the pairs of popular claims, whose first sampler should need fewer and does not.
MORE = [("heun", "dpm_solver_pp points=2"), ("dpm_solver_2", "heun")]
FEWER = [
    ("heun", "ddim η=0"),
    ("unipc points=2", "dpm_solver_pp points=2"),
    ("ipndm points=4", "dpm_solver_pp points=2"),
    ("rk2 alpha=0.5", "heun"),
    ("rk4", "heun"),
]
NOT_FEWER = [
    ("unipc points=3", "unipc points=2"),
    ("dpm_solver_pp points=3", "dpm_solver_pp points=2"),
]
#: Claims that hold on the common grid only, and one that holds nowhere in either direction.
COMMON_ONLY = [("deis_log_rho points=3", "unipc points=2")]
EQUAL = [("euler", "ddim η=0")]
README = "README.md"
PAGES = {
    name: (FOLDER.parents[3] / name).read_text(encoding="utf-8")
    for name in ("docs/suite.md", README)
}
#: Of these, README.md does not have.
LEFT_OUT = [("rk4", "heun"), ("dpm_solver_pp points=3", "dpm_solver_pp points=2")]


def test_the_pages_have_the_ratios_of_the_results(results):
    """Those of both grid settings, and what the pages say of them."""
    table = runtimes(results, TARGETS)
    for a, b in (*MORE, *FEWER, *NOT_FEWER, *COMMON_ONLY, *EQUAL):
        on = {grid: ratio(table, a, b, grid) for grid in ("common", "own")}
        for grid, one in on.items():
            assert printed(one) in PAGES["docs/suite.md"], (a, b, grid, printed(one))
            assert (a, b) in LEFT_OUT or printed(one) in PAGES[README], (a, b, printed(one))
        fewer = {grid: one.upper < 1 for grid, one in on.items()}
        assert all(fewer.values()) == ((a, b) in FEWER), (a, b)
        assert any(fewer.values()) == ((a, b) in FEWER + COMMON_ONLY), (a, b)
        assert all(one.lower > 1 for one in on.values()) == ((a, b) in MORE), (a, b)
        assert fewer["common"] == ((a, b) in FEWER + COMMON_ONLY), (a, b)


@pytest.mark.slow
def test_the_command_prints_the_ratios_of_the_pages(typed):
    words = ("suite", "table", FOLDER, "grid=own", "entrant=heun")
    status, out, _ = typed(*words, "over=dpm_solver_pp points=2")
    assert status == 0
    assert re.fullmatch(r"heun over dpm_solver_pp points=2, own grid: (.*)\n", out)[1].startswith(
        "1.49 [1.31, 1.71] over 54 tasks, "
    )
    # one task has no interval
    few = ("law=two_moons", "path=edm", "denoiser=oracle", "quantity=paired")
    assert re.search(r"own grid: [\d.]+ over 1 task, ", typed(*words, *few, "over=rk4")[1])
    # nobody solves a divergence of .002 with a network
    hard = ("denoiser=learned", "targets=kl_law:0.002", "over=rk4")
    none = "heun over rk4, own grid: no ratio: no problem that both have is solved by one of them\n"
    assert typed(*words, *hard) == (0, none, "")
    for word, part in {
        "path=edn": "path=edn: must be one of edm, rectified, vp_linear",
        "over=heun2": "over=heun2: must be an entrant, as the table names it; did you mean heun?",
        "targets=paired:0.3": "targets=paired:0.3: must be a list from paired:0.5,",
        "unit=path": "unit=path: must be task or law",
    }.items():
        status, _, err = typed(*words, word)
        assert status == 2
        assert part in err
    status, _, err = typed("suite", "table", FOLDER, "over=heun")
    assert (status, "over=heun: must be given with entrant=" in err) == (2, True)


@pytest.mark.slow
def test_the_page_has_the_other_ratios_of_the_results(results):
    """Other than those of two samplers over all tasks without noise."""
    page, table = PAGES["docs/suite.md"], runtimes(results, TARGETS)
    quiet = table[~table["noise"]]
    # the grid settings in the place of the samplers
    settings = quiet.assign(entrant=quiet["grid"], grid="")
    saved = {
        name: printed(ratio(settings[quiet["entrant"] == name], "own", "common", ""))
        for name in ("adams_bashforth points=2", "heun", "unipc points=2", "deis_log_rho points=3")
    }
    most, heun, unipc, least = saved.values()
    first = f"from {most[:-1]}, Adams–Bashforth 2; {heun[:3]} Heun)"
    assert f"{first}\nand {unipc[:3]} (UniPC-2) to {least[:-1]}, DEIS in log ρ)" in page
    # with noise, of another package, on one path, over laws
    ddim = "diffusers DDIMScheduler 0.42.1 clip_sample=false"
    dpm = "diffusers DPMSolverMultistepScheduler 0.42.1"
    sde, er = "sde_dpmpp_2m stochasticity=1", "er_sde points=2 scale=er"
    pairs = [(sde, "ddim η=1"), (er, sde), (f"{dpm} use_karras_sigmas=true", dpm)]
    pairs += [(ddim, f"{ddim} timestep_spacing=trailing")]
    found = [ratio(table, a, b, "common") for a, b in pairs]
    third = table[table["path"] == "vp_linear"]
    found += [ratio(third, "euler", "ddim η=0", grid) for grid in ("common", "own")]
    found += [paths(quiet, "rectified", "vp_linear", grid) for grid in ("common", "own")]
    found += [paths(quiet, "rectified", "edm", "own")]
    for one in found:
        assert printed(one) in page, one
    for grid in ("common", "own"):
        straight = paths(quiet, "rectified", "vp_linear", grid)
        assert printed(straight) in PAGES[README]
        assert (straight.lower > 1) == (grid == "common")
    laws = {
        (a, b, grid): ratio(table, a, b, grid, unit="law")
        for a, b in (MORE[0], *FEWER)
        for grid in ("common", "own")
    }
    unsure = {pair for pair, one in laws.items() if not one.distinct}
    assert unsure == {
        ("rk4", "heun", "own"),
        ("heun", "ddim η=0", "common"),
        ("ipndm points=4", "dpm_solver_pp points=2", "common"),
    }
    widest = {(*MORE[0], "own"), ("rk2 alpha=0.5", "heun", "own")}
    for pair in unsure | widest:
        ends = printed(laws[pair]).partition(" ")[2][1:-1]
        assert ends in page, (pair, ends)


def test_the_page_has_the_numbers_of_values_that_are_no_density(results):
    bad = results[results["status"] == "not a density"]
    density, line = (bad[bad["quantity"] == one] for one in ("kl_law", "w_output_1d"))
    assert len(bad) == len(density) + len(line)
    of = density.groupby("entrant").size()
    few = int((density["nfe"] <= 8).sum())
    text = f"({len(density)} values, {few} of them with at most 8 evaluations; every sampler "
    assert text in PAGES["docs/suite.md"]
    assert f"Euler {of['euler']}, `dpm_solver_3` {of['dpm_solver_3']})" in PAGES["docs/suite.md"]
    assert f"on the line ({len(line)} value, of Restart)" in PAGES["docs/suite.md"]
    assert line["sampler"].str.startswith("restart").all()


def paths(table, a, b, grid):
    """The ratio of two paths: the mean over problems of a sampler, over samplers, over tasks."""
    own = table[(table["package"] == "samplerbench") & (table["grid"] == grid)]
    index = ["law", "denoiser", "quantity", "entrant", "target"]
    wide = own.pivot(index=index, columns="path", values="runtime").clip(upper=UNSOLVED)[[a, b]]
    logs = np.log(wide[wide.min(axis=1) < UNSOLVED]).diff(axis=1)[b]
    means = -logs.groupby(index[:4]).mean().groupby(index[:3]).mean()
    lower, upper = interval(means.to_numpy())
    return Ratio(*np.exp([means.mean(), lower, upper]), len(means), len(logs))


def printed(found):
    """A ratio as in the pages."""
    ends = (found.value, found.lower, found.upper)
    value, lower, upper = (f"{end:.2f}".removeprefix("0") for end in ends)
    return f"{value} ({lower}–{upper})"


#: The words of a job of the suite besides its experiment.
FIXED = suite._of_size("v2")[1]


def test_every_job_of_the_results_can_be_drawn(results):
    """By the next test: its command is one that is run again."""
    jobs = {(f"experiment=suite/{task}", grid) for task in suite.tasks() for grid in FIXED}
    assert {tuple(suite_words(one, FIXED)) for one in results["command"].unique()} <= jobs


@pytest.mark.slow
def test_random_values_are_computed_again(results):
    """Values of jobs that are drawn with equal chances, whatever the law, grid and status.

    In 51 runs of this test each of the jobs is drawn with a chance of 99 %. A job takes 5 s of a
    processor on average; the tree with its choice of grids takes 50 s, and others at most 15 s.
    """
    pytest.importorskip("diffusers")
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    for command in rng.sample(sorted({*results["command"]}), DRAWN):
        own = results[results["command"] == command]
        row = own.sample(1, random_state=rng.randrange(10**6)).to_dict("records")[0]
        print(f"seed={seed}: {command}, {row['entrant']}, {row['quantity']}, nfe={row['nfe']}")
        job = suite_job(command, [row["entrant"]], FIXED)
        (cell,) = [
            one
            for one in job.sweep.cells()
            if one.steps == row["steps"] and one.settings is not None
        ]
        distances, samples = job.sweep.distances(), job.sweep.lazy_samples(cell)
        rows = [
            job.sweep.measure(samples, name, distances[name]) for name in job.sweep.metrics_of(cell)
        ]
        table = job.results(as_table(map(vars, rows)))
        (again,) = table[table["quantity"] == row["quantity"]].to_dict("records")
        for name in ("law", "path", "denoiser", "grid", "entrant", "nfe", "chosen", "status"):
            assert again[name] == row[name], (seed, row, again)
        for name in ("value", "lower", "upper"):
            # the ends contain the accuracy of the converged runs of their version
            paired_end = row["quantity"] == "paired" and name != "value"
            least = AGREE if paired_end else LEAST
            expected = pytest.approx(row[name], rel=SHARE, abs=least, nan_ok=True)
            assert again[name] == expected, (seed, row, again)

"""Errors below the floor: divergences and paired distances beside the distances of a job."""

from dataclasses import replace
from itertools import combinations

import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from helpers import mostly_slow, sweep_of
from samplerbench.bench.budget.run import Budget
from samplerbench.bench.floor_free import FloorFree, spread
from samplerbench.bench.store import as_table
from samplerbench.core.coupling import BrownianNoise
from samplerbench.core.schedules import EDM
from samplerbench.core.starts import Exact
from samplerbench.datasets.checkerboard import Checkerboard
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.figures.common import Look, looking
from samplerbench.figures.floor_free import with_floor_free
from samplerbench.metrics.kl_law import KLLaw
from samplerbench.metrics.max_sliced_certified import MaxSlicedCertified
from samplerbench.metrics.moments import Moments
from samplerbench.samplers.annealed_langevin import AnnealedLangevin
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.restart import Restart
from samplerbench.samplers.sa_solver import SASolver
from samplerbench.samplers.ula import ULA


@pytest.fixture(scope="module")
def sweep():
    return sweep_of(
        grid_mixture(),
        [("ddim", DDIM(0.0)), ("ddim", DDIM(1.0)), ("heun", Heun())],
        [4, 6, 8],
        metrics={"w": MaxSlicedCertified()},
        reference=grid_mixture().draws(500, "evaluation", 0),
        n_samples=300,
        repetitions=2,
        floor_repetitions=2,
        block=200,
    )


@pytest.fixture(scope="module")
def table(sweep):
    return as_table(map(vars, [*sweep.run(), *FloorFree(sweep).run()]))


def test_numbers_of_steps_double():
    assert spread([4, 9, 16, 25, 36, 49, 64, 81, 100]) == [4, 9, 25, 49, 100]
    assert spread([7]) == [7]


def test_divergences_are_those_of_the_metric(sweep, table):
    view = FloorFree(sweep)
    own = table[table["metric"] == "kl_law"]
    other = replace(sweep, metrics={"kl_law": KLLaw()}, repetitions=1)
    known = {row.cell_id: row for row in other.run()}
    assert len(own) == len(view.divergences) == 2 * 2 * 2  # samplers × starts × N = 4, 8
    for row in own.to_dict("records"):
        assert row["status"] == known[row["cell_id"]].status
        if row["status"] == "ok":
            assert row["value"] == known[row["cell_id"]].value
    assert "not a density" in set(own["status"])  # Heun, N = 4


@pytest.mark.slow
def test_paired_distances_are_between_runs_on_one_brownian_path(sweep, table):
    view = FloorFree(sweep)
    pairs = view.pairs(table)
    assert list(pairs["steps"]) == [4, 8]
    assert view.row_count() == len(table[table["metric"] == "kl_law"]) + 2

    def end(steps):
        levels = sweep.levels(steps)
        blocks = []
        for block in (0, 1):
            key = (0, 0, block)
            x = Exact().draw(sweep.dataset, 200, levels.rows[0], key)
            noise = BrownianNoise(("coupled", *key), levels)
            blocks.append(final_state(DDIM(1.0), sweep.denoisers["oracle"], x, levels, noise))
        return torch.cat(blocks)[:300]

    converged = MaxSlicedCertified().against(end(24), seed=0)
    for row in pairs.to_dict("records"):
        assert row["value"] == converged(end(row["steps"])).value
        assert (row["start"], row["denoiser"], row["eta"]) == ("exact", "oracle", 1.0)
    # the same values as those of an error budget with that limit
    budget = Budget(replace(sweep, samplers=[("ddim", DDIM(1.0))]), converged_steps=12)
    known = {row.cell_id: row.value for row in budget.run() if row.reference == "converged"}
    assert [known[cell_id] for cell_id in pairs["cell_id"]] == list(pairs["value"])


def test_what_is_absent_is_named(sweep):
    law = Checkerboard()
    board = replace(sweep, dataset=law, denoisers={"oracle": law.oracle(EDM(10.0))})
    view = FloorFree(board)
    assert not view.divergences
    (line,) = view.absent
    assert line.startswith("no kl_law: it needs")
    only = replace(sweep, metrics={"moments": Moments()}, samplers=[("ddim", DDIM(1.0))])
    (line,) = FloorFree(only).absent
    assert line == "no paired distances: they need a distance between samples, such as sliced"
    annealed = replace(sweep, samplers=[("annealed", AnnealedLangevin())])
    (line,) = FloorFree(annealed).absent
    assert line.startswith("no paired distances: they need a sampler whose noise"), "not a metric"
    assert FloorFree(replace(sweep, samplers=[("heun", Heun())])).absent == []
    chains = replace(sweep, samplers=[("ula", ULA())])
    assert (FloorFree(chains).absent, FloorFree(chains).row_count()) == ([], 0)
    law = gaussian([0.0] * 17, [[float(i == j) for j in range(17)] for i in range(17)])
    wide = replace(sweep, dataset=law, samplers=[("heun", Heun())])
    (line,) = FloorFree(wide).absent
    assert line == "no kl_law: in 17 dimensions it takes long; metric=kl_law measures it"
    asked = replace(sweep, metrics={"w": MaxSlicedCertified(), "kl_law": KLLaw()})
    assert FloorFree(asked).row_count() == 2, "the job measures it anyway"


def test_the_figure_shows_all_of_it(sweep, table):
    figure = with_floor_free(table, "w", "steps", FloorFree(sweep))
    upper, lower, paired = figure.axes[:2], figure.axes[2:4], figure.axes[4]
    assert [len(axes.containers) for axes in upper] == [3, 3]
    assert [len(axes.containers) for axes in lower] == [2, 2]
    assert [len(axes.containers) for axes in (paired,)] == [1]
    marks = [text.get_text() for axes in lower for text in axes.texts]
    assert marks == ["× not a density (exact score)"] * 2
    (bars,) = {bool(bar.has_yerr) for axes in lower for bar in axes.containers}
    assert bars, "a divergence has an interval of its own"
    caption = figure.get_suptitle().replace("\n", " ")
    assert "above: n = 300 samples, 2 repetitions" in caption
    assert "densities at 512 points of each output" in caption
    assert "nats" in lower[0].get_ylabel()
    assert "24 steps" in paired.get_ylabel()


@pytest.mark.parametrize("style", mostly_slow(["page", "slides", "column"], 2))
def test_texts_of_each_style_are_in_the_figure_and_do_not_meet(sweep, table, style):
    with looking(Look(style)):
        figure = with_floor_free(table, "w", "steps", FloorFree(sweep))
        FigureCanvasAgg(figure).draw()
    panels = [axes for axes in figure.axes if axes.axison]
    assert len({axes.get_position().x0 < 0.5 for axes in panels}) == 2 - (style == "column")
    legend = (figure.legends or [figure.axes[-1].get_legend()])[0]
    titles = [axes.title for axes in panels]
    labels = [axes.yaxis.label for axes in panels if axes.get_ylabel()]
    boxes = [text.get_window_extent() for text in (*titles, *labels, *legend.get_texts())]
    for box in boxes:
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    for axes in (axes for axes in panels if axes.texts):
        highest = max(curve.lines[0].get_ydata().max() for curve in axes.containers)
        marks = [text.get_window_extent() for text in axes.texts]
        assert min(box.y0 for box in marks) > axes.transData.transform((4, highest))[1]
    assert all(axes.get_window_extent().width > 0.2 * figure.bbox.width for axes in panels)


@pytest.mark.slow
@pytest.mark.parametrize(("samplers", "panels"), [([("heun", Heun())], 4), ([("d", DDIM(1.0))], 3)])
def test_a_view_that_does_not_exist_has_no_panel(sweep, samplers, panels):
    one = replace(sweep, samplers=samplers)
    rows = pd.DataFrame(map(vars, [*one.run(), *FloorFree(one).run()]))
    figure = with_floor_free(as_table(rows.to_dict("records")), "w", "steps", FloorFree(one))
    assert len([axes for axes in figure.axes if axes.axison]) == panels


@pytest.mark.slow
def test_a_long_name_is_within_the_figure(sweep):
    """Beside the panels of one start, on several lines."""
    long = replace(
        sweep,
        starts={"exact": Exact()},
        samplers=[("sa_solver", SASolver()), ("restart", Restart(0))],
        steps=[4, 8],
    )
    rows = as_table(map(vars, [*long.run(), *FloorFree(long).run()]))
    figure = with_floor_free(rows, "w", "steps", FloorFree(long))
    FigureCanvasAgg(figure).draw()
    (legend,) = (axes.get_legend() for axes in figure.axes if axes.get_legend())
    assert legend.get_window_extent().x1 <= figure.bbox.x1
    names = [" ".join(text.get_text().split()) for text in legend.get_texts()]
    assert "sa_solver corrector=3 predictor=3 tau=1 tau_min=0" in names

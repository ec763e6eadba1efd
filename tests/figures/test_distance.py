"""The figure of distance against steps shows every curve, the floor and the intervals."""

import math
from itertools import pairwise

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer

from samplerbench.figures.distance import distance_against
from samplerbench.figures.style import save


@pytest.fixture
def cells():
    def row(denoiser, start, sampler, eta, steps, repetition, value, status="ok"):
        return {
            "dataset": "grid_mixture",
            "metric": "max_sliced_certified",
            "denoiser": denoiser,
            "start": start,
            "sampler": sampler,
            "sampler_settings": "" if math.isnan(eta) else f'{{"eta": {eta}}}',
            "eta": eta,
            "steps": steps,
            "repetition": repetition,
            "n_samples": 100,
            "reference": "data",
            "nfe": steps,
            "seconds": 0.1,
            "value": value,
            "status": status,
        }

    grid = [
        row(denoiser, start, sampler, eta, steps, repetition, 1 + 1 / steps + 0.1 * repetition)
        for denoiser in ("learned", "oracle")
        for start in ("prior", "exact")
        for sampler, eta in (("ddim", 0.0), ("ddim", 1.0), ("heun", math.nan))
        for steps in (4, 9, 16)
        for repetition in (0, 1)
    ]
    floor = [row("law", "", "", math.nan, 0, r, 0.9 + 0.01 * r) for r in range(5)]
    return pd.DataFrame(grid + floor)


def test_every_start_is_a_panel_and_every_setting_a_curve(cells):
    figure = distance_against(cells, "max_sliced_certified")
    assert len(figure.axes) == 2
    for axes in figure.axes:
        bars = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
        assert len(bars) == 2 * 3
        assert all(bar.has_yerr for bar in bars)
        assert len(bars[0].lines[0].get_xdata()) == 3
        assert axes.get_xscale() == "log"
        assert len(axes.patches) == 1  # the floor
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:3] == ["ddim η=0", "ddim η=1", "heun"]


def test_intervals_and_floor_are_where_they_are(cells):
    """Of 1 and 1.1 + 1/N: Student's half width is t_{.975, 1}·s/√2 = 12.706·.1/2."""
    (axes, _) = distance_against(cells, "max_sliced_certified").axes
    for bar in (c for c in axes.containers if isinstance(c, ErrorbarContainer)):
        (lines,) = bar.lines[2]
        ends = [segment[:, 1].tolist() for segment in lines.get_segments()]
        middle = [1 + 1 / steps + 0.05 for steps in (4, 9, 16)]
        half = 12.7062 * 0.1 / 2
        assert ends == [pytest.approx([m - half, m + half], rel=1e-4) for m in middle]
    (band,) = axes.patches  # of .9 to .94 by .01: the middle 95 % of the quantiles' scale
    assert band.get_extents().transformed(axes.transData.inverted()).intervaly == pytest.approx(
        [0.901, 0.939]
    )
    flat = [line for line in axes.lines if len(set(line.get_ydata())) == 1]
    assert flat[0].get_ydata()[0] == pytest.approx(0.92)


def looks(axes):
    """What a reader tells curves apart by: colour, marker, dashes and filling."""
    found = []
    for bar in axes.containers:
        line = bar.lines[0]
        face = line.get_markerfacecolor()
        found.append((line.get_color(), line.get_marker(), line.get_linestyle(), face))
    return found


@pytest.mark.parametrize("denoisers", [["learned", "oracle"], ["oracle"]])
def test_twenty_samplers_can_be_told_apart(cells, denoisers):
    plain = cells[(cells["sampler"] == "heun") & cells["denoiser"].isin(denoisers)]
    names = [f"a_sampler_{k:02d}" for k in range(20)]
    table = pd.concat([plain.assign(sampler=name) for name in names], ignore_index=True)
    figure = distance_against(table, "max_sliced_certified")
    for axes in figure.axes:
        assert len(axes.containers) == 20 * len(denoisers)
        assert len(set(looks(axes))) == 20 * len(denoisers)
        # in print without colour, too, of any seven that share none
        assert len({look[:2] for look in looks(axes)}) == 20
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[:20] == names
    FigureCanvasAgg(figure).draw()
    shown, whole = legend.get_window_extent(), figure.bbox
    assert whole.y0 <= shown.y0 < shown.y1 <= whole.y1
    assert shown.x1 <= whole.x1
    tops = [text.get_window_extent() for text in legend.get_texts()]
    assert all(above.y0 >= below.y1 - 1 for above, below in pairwise(tops)), "lines overlap"


def test_the_dashes_say_the_denoiser_where_there_are_two(cells):
    (axes, _) = distance_against(cells, "max_sliced_certified").axes
    dashes = {look[3] == "white": look[2] for look in looks(axes)}
    assert dashes[False] == "-"
    assert dashes[True] == "--"
    single = cells[cells["denoiser"] != "learned"]
    (axes, _) = distance_against(single, "max_sliced_certified").axes
    assert {look[2] for look in looks(axes)} == {"--"}


def test_a_diverged_cell_leaves_a_gap_and_no_crash(cells):
    cells.loc[cells["steps"] == 4, ["status", "value"]] = ["diverged", math.nan]
    figure = distance_against(cells, "max_sliced_certified")
    bars = [c for c in figure.axes[0].containers if isinstance(c, ErrorbarContainer)]
    assert list(bars[0].lines[0].get_xdata()) == pytest.approx([9, 16], rel=0.05)


def test_nothing_to_draw_is_said(cells):
    with pytest.raises(ValueError, match="energy"):
        distance_against(cells, "energy")


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_a_figure_is_written_whole(cells, tmp_path, suffix):
    path = save(distance_against(cells, "max_sliced_certified"), tmp_path / f"d.{suffix}")
    assert path.stat().st_size > 1000
    assert list(tmp_path.iterdir()) == [path]

"""The figures of results: every curve, the floor, the intervals, and legends that have room."""

import json
import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from helpers import mostly_slow
from samplerbench.bench.cell import NOT_A_DENSITY, sampler_name
from samplerbench.bench.statistics import varied_setting
from samplerbench.bench.store import LIMIT
from samplerbench.errors import InvalidSetting
from samplerbench.figures.budget import waterfall
from samplerbench.figures.common import Look, looking
from samplerbench.figures.distance import distance_against, short_names
from samplerbench.figures.distance_families import FAMILIES, distance_figure, family
from samplerbench.figures.paired_error import paired_error_against_nfe
from samplerbench.figures.setting import setting_figure
from samplerbench.figures.style import (
    curve_style,
    fit_distances,
    interval_curve,
    label_log_axis,
    subtitle,
)
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.dormand_prince import DormandPrince
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.unipc import UniPC

NFE = (6, 12, 24, 48)
STEPS = (4, 9, 16)


def test_no_panel_is_cut_at_the_height_of_another(row):
    """All panels share an axis from zero to the largest value of all."""
    rows = [
        row("oracle", start, "ula", steps, repetition, height + 0.1 * repetition)
        for start, height in (("prior", 1.0), ("exact", 9.0))
        for steps in (4, 8)
        for repetition in (0, 1)
    ]
    figure = distance_against(pd.DataFrame(rows), "w")
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert low == 0
        assert high > 9


def looks(axes):
    """How a reader distinguishes curves: colour, marker, dashes, filling and line style."""
    lines = [bar.lines[0] for bar in axes.containers]
    return [
        (
            line.get_color(),
            line.get_marker(),
            str(line._unscaled_dash_pattern),
            line.get_markerfacecolor(),
            line.get_linestyle(),
        )
        for line in lines
    ]


def check_room(figure):
    """All legends are inside the figure, and their lines do not overlap."""
    FigureCanvasAgg(figure).draw()
    legends = [*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))]
    assert legends
    for legend in legends:
        shown, whole = legend.get_window_extent(), figure.bbox
        assert whole.y0 <= shown.y0 < shown.y1 <= whole.y1
        assert shown.x1 <= whole.x1
        lines = [text.get_window_extent() for text in legend.get_texts()]
        assert all(above.y0 >= below.y1 - 1 for above, below in pairwise(lines))


@pytest.fixture
def cells(row):
    """Two denoisers, two starts, three settings, three numbers of steps, and a floor."""
    grid = [
        row(denoiser, start, sampler, steps, r, 1 + 1 / steps + 0.1 * r, settings=settings)
        for denoiser in ("learned", "oracle")
        for start in ("prior", "exact")
        for sampler, settings in (("ddim", {"eta": 0.0}), ("ddim", {"eta": 1.0}), ("heun", {}))
        for steps in STEPS
        for r in (0, 1)
    ]
    return pd.DataFrame(grid + [row("law", "", "", 0, r, 0.9 + 0.01 * r) for r in range(5)])


def test_every_start_is_a_panel_and_every_setting_a_curve(cells):
    figure = distance_against(cells, "w")
    assert len(figure.axes) == 2
    for axes in figure.axes:
        bars = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
        assert len(bars) == 2 * 3
        assert all(bar.has_yerr for bar in bars)
        assert len(bars[0].lines[0].get_xdata()) == 3
        assert axes.get_xscale() == "log"
        assert len(axes.patches) == 1  # the floor
        # the learned score is filled and solid, the oracle open and dashed
        assert {look[4] for look in looks(axes) if look[3] != "white"} == {"-"}
        assert {look[4] for look in looks(axes) if look[3] == "white"} == {"--"}
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:3] == ["ddim η=0", "ddim η=1", "heun"]
    oracle = distance_against(cells[cells["denoiser"] != "learned"], "w")
    assert {look[4] for look in looks(oracle.axes[0])} == {"--"}


def test_intervals_and_the_floor_are_drawn_where_they_are(cells):
    """Of 1 + 1/N and 1.1 + 1/N: Student's half width is t_{.975, 1}·s/√2 = 12.706·.1/2."""
    axes = distance_against(cells, "w").axes[0]
    half = 12.7062 * 0.1 / 2
    expected = [pytest.approx([1.05 + 1 / n - half, 1.05 + 1 / n + half], rel=1e-4) for n in STEPS]
    for bar in axes.containers:
        (lines,) = bar.lines[2]
        assert [segment[:, 1].tolist() for segment in lines.get_segments()] == expected
    # the floors are .9 to .94 by .01; the band is from their 2.5 % to their 97.5 % quantile
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert band.intervaly == pytest.approx([0.901, 0.939])
    flat = [line for line in axes.lines if len(set(line.get_ydata())) == 1]
    assert flat[0].get_ydata()[0] == pytest.approx(0.92)


@pytest.mark.slow
@pytest.mark.parametrize("denoisers", [["learned", "oracle"], ["oracle"]])
def test_twenty_samplers_can_be_distinguished(cells, denoisers):
    plain = cells[(cells["sampler"] == "heun") & cells["denoiser"].isin(denoisers)]
    names = [f"a_sampler_{k:02d}" for k in range(20)]
    table = pd.concat([plain.assign(sampler=name) for name in names], ignore_index=True)
    figure = distance_against(table, "w")
    for axes in figure.axes:
        assert len(set(looks(axes))) == len(axes.containers) == 20 * len(denoisers)
        assert len({look[:2] for look in looks(axes)}) == 20
    assert [text.get_text() for text in figure.legends[0].get_texts()][:20] == names
    check_room(figure)


def test_a_diverged_cell_is_a_gap_and_an_unknown_metric_an_error(cells):
    cells.loc[cells["steps"] == 4, ["status", "value"]] = ["diverged", math.nan]
    (bar, *_) = distance_against(cells, "w").axes[0].containers
    assert list(bar.lines[0].get_xdata()) == pytest.approx([9, 16], rel=0.05)
    with pytest.raises(ValueError, match="energy"):
        distance_against(cells, "energy")


@pytest.fixture
def many(row):
    """Sixteen settings: two of one method, two with equal values, one at ten times the cost."""
    rows = [row("law", "", "", 0, r, 0.04 + 0.001 * r, reference="law") for r in range(5)]
    values = {f"s{k:02d}": (lambda n, k=k: (2 + k) / n**2) for k in range(12)}
    values["s00_too"] = values["s00"]
    for denoiser in ("learned", "oracle"):
        for nfe in NFE:
            for r in (0, 1):
                rows += [
                    row(denoiser, "exact", name, nfe, r, value(nfe) + 0.01 * r, reference="law")
                    for name, value in values.items()
                ]
                rows += [
                    row(denoiser, "exact", "twice", nfe, r, points + 1 / nfe, reference="law")
                    | {"sampler_settings": f'{{"points": {points}, "inner": 1}}'}
                    for points in (2, 3)
                ]
                rows.append(row(denoiser, "exact", "costly", 10 * nfe, r, 1 / nfe, reference="law"))
    return pd.DataFrame(rows)


def settings_of(table):
    cells = table[table["denoiser"] != "law"]
    return dict.fromkeys(map(sampler_name, cells["sampler"], cells["sampler_settings"]))


def labels_of(figure):
    legends = filter(None, (axes.get_legend() for axes in figure.axes))
    return [[text.get_text() for text in legend.get_texts()] for legend in legends]


def test_the_families_of_samplers():
    one, several, noisy = FAMILIES
    assert family(DDIM(0.0)) == family(UniPC()) == one
    assert family(Heun()) == family(DormandPrince()) == several
    assert family(DDIM(0.5)) == noisy


@pytest.mark.slow
def test_many_samplers_have_a_row_for_each_family(many):
    families = {name: FAMILIES[sum(map(ord, name)) % 3] for name in settings_of(many)}
    figure = distance_figure(many, "w", "nfe", families)
    panels = [axes for axes in figure.axes if axes.containers]
    assert len(panels) == 3 * 2
    assert [p.get_title() for p in panels if p.get_title()] == [
        "learned score, exact start",
        "exact score, exact start",
    ]
    for place, panel in enumerate(panels):
        names = [name for name, title in families.items() if title == FAMILIES[place // 2]]
        equal = {"s00", "s00_too"} <= set(names)
        assert len(panel.containers) == len(names) - equal
        assert len({look[:2] for look in looks(panel)}) == len(panel.containers)
        assert panel.get_yscale() == "log"
        assert len(panel.patches) == 1, "the floor"
        assert 60 < panel.get_xlim()[1] < 100, "longer curves are cut, but not left out"
    lines = [line for labels in labels_of(figure) for line in labels]
    assert sum(line.count("\n") + 1 for line in lines) == len(families) + 1
    check_room(figure)


def test_the_legend_has_what_differs_and_joins_equal_curves(many):
    families = dict.fromkeys(settings_of(many), FAMILIES[0])
    (labels,) = labels_of(distance_figure(many, "w", "nfe", families))
    assert labels[:2] == ["twice points=3", "twice points=2"], "the largest first"
    assert "s00,\ns00_too" in labels
    assert {"s01", "s11", "costly"} <= set(labels)


def test_few_samplers_share_a_panel(many):
    few = many[many["sampler"].isin(["", "s01", "s02"])]
    (axes,) = distance_figure(few, "w", "nfe", dict.fromkeys(["s01", "s02"], FAMILIES[0])).axes
    assert len(axes.containers) == 4


def test_each_end_of_an_interval_is_drawn_where_it_is():
    """Longer above than below; one that extends below 0 has no end on a log axis."""
    curve = pd.DataFrame(
        {
            "x": [1.0, 2.0, 3.0],
            "mean": [5.0, 1.0, 4.0],
            "lower": [4.5, -2.0, math.nan],
            "upper": [6.5, 3.0, math.nan],
        }
    )
    for scale, low in (("linear", -2.0), ("log", 0.001)):
        axes = Figure().subplots()
        axes.set_yscale(scale)
        interval_curve(axes, curve, "x", **curve_style(0).line)
        (bars,) = axes.collections
        ends = np.array([path.vertices[:, 1] for path in bars.get_paths()[:2]])
        assert ends == pytest.approx(np.array([[4.5, 6.5], [low, 3.0]]))


def test_a_logarithmic_axis_has_the_ends_of_intervals_but_not_those_far_away():
    for far, lowest in ((2.0, 2.0), (0.1, 3.0)):  # 0.1 would leave no room for the curves
        axes = Figure().subplots()
        axes.set_yscale("log")
        ends = {"lower": [far, 3.0], "upper": [8.0, 197.0]}
        fit_distances(axes, pd.DataFrame({"mean": [5.0, 100.0], **ends}), pd.Series(dtype=float))
        assert axes.get_ylim() == pytest.approx((lowest / 1.4, 1.4 * 197))


@pytest.mark.slow
def test_paired_errors_of_twenty_samplers_and_their_title(row):
    paired = pd.DataFrame(
        row("oracle", "exact", f"a_sampler_{k:02d}", n, r, (1 + 0.1 * k) / n + 0.01 * r)
        | {"reference": "converged"}
        for k in range(20)
        for n in (4, 8, 16)
        for r in range(4)
    )
    other = paired.assign(reference="data", start="prior")
    figure = paired_error_against_nfe(pd.concat([paired, other]), "w")
    title = figure.get_suptitle()
    assert "grid_mixture, n = 2,000 samples, exact start, exact score" in title
    assert "4 repetitions" in title
    (axes,) = figure.axes
    assert len({look[:2] for look in looks(axes)}) == len(axes.containers) == 20
    assert len({look[2] for look in looks(axes)}) == 3
    check_room(figure)


def budget(floor, steps, neighbours, *, below=0.1, above=0.1):
    """The parts of a budget; at 8 steps, all are a tenth of those at 4 steps."""
    plain = {"metric": "w", "sampler": "heun", "sampler_settings": "", "eta": math.nan}
    parts = [
        ("floor", "difference", floor),
        ("discretisation", "difference", steps),
        ("total", "difference", floor + steps),
        *([("discretisation", "neighbours", neighbours)] if neighbours else []),
    ]
    return pd.DataFrame(
        plain
        | {"steps": count, "part": part, "kind": kind, "mean": mean * scale}
        | {"lower": mean * scale - below, "upper": mean * scale + above}
        for count, scale in ((4, 1.0), (8, 0.1))
        for part, kind, mean in parts
    )


def test_a_waterfall_shows_all_of_its_first_panel():
    """The highest diamond is in the first panel, and so is the lowest bar; the second is flat."""
    axes = waterfall(budget(0.2, -0.5, 3.0), "w").axes[0]
    low, high = axes.get_ylim()
    assert low < -0.4
    assert high > 3.1
    assert waterfall(budget(2.0, 0.5, 3.0), "w").axes[0].get_ylim()[0] == 0


@pytest.mark.parametrize("columns", mostly_slow([1, 2, 3], 1))
def test_the_legend_of_a_waterfall_fits_under_few_panels(columns):
    lines = budget(2.0, 0.5, 3.0)
    lines = lines[lines["steps"] == 4]
    figure = waterfall(pd.concat([lines.assign(steps=4**k) for k in range(columns)]), "w")
    assert len(figure.axes) == columns
    FigureCanvasAgg(figure).draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


@pytest.mark.slow
def test_a_narrow_waterfall_has_no_middle_column_and_no_labels_that_meet():
    lines = budget(2.0, 0.5, 3.0)
    lines = lines[lines["steps"] == 4]
    parts = ["optimisation", "generalisation", "finite data", "start"]
    more = [lines[lines["part"] == "discretisation"].assign(part=part) for part in parts]
    lines = pd.concat([lines, *more])
    table = pd.concat([lines.assign(steps=steps) for steps in (4, 16, 64)])
    assert len(waterfall(table, "w").axes) == 3
    with looking(Look(style="column")):
        figure = waterfall(table, "w")
    assert [axes.get_title().split()[-1] for axes in figure.axes] == ["4", "64"]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for axes in figure.axes:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert all(one.x1 <= other.x0 for one, other in pairwise(boxes))
        assert axes.get_window_extent().height > 1.0 * figure.dpi
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


def test_each_interval_of_a_waterfall_is_drawn_where_it_is():
    axes = waterfall(budget(2.0, 0.5, 3.0, above=0.3), "w").axes[0]
    ends = [tuple(line.get_ydata()) for line in axes.lines if len(set(line.get_xdata())) == 1]
    ends = [end for end in ends if len(end) == 2]
    # of the floor, the steps, their diamond and the total
    expected = [(1.9, 2.3), (2.4, 2.8), (2.9, 3.3), (2.4, 2.8)]
    assert np.array(sorted(ends)) == pytest.approx(np.array(sorted(expected)))


def test_a_waterfall_explains_diamonds_if_it_has_some_and_has_no_bars_without_a_floor():
    for neighbours, entries in ((1.0, 2), (None, 1)):
        (legend,) = waterfall(budget(0.2, 0.5, neighbours), "w").legends
        assert len(legend.get_texts()) == entries
    table = budget(0.2, 0.5, None)
    axes = waterfall(table[table["part"] == "total"], "w").axes[0]
    assert not axes.patches
    assert "no budget" in axes.texts[0].get_text()


@pytest.mark.slow
def test_a_distance_that_spans_decades_has_a_logarithmic_axis(cells):
    axes = distance_against(cells, "w").axes[0]
    assert (axes.get_yscale(), axes.get_ylim()[0]) == ("linear", 0.0)
    cells.loc[cells["steps"] == 4, "value"] *= 100
    figure = distance_against(cells, "w")
    for axes in figure.axes:
        assert axes.get_yscale() == "log"
        low, high = axes.get_ylim()
        assert low < 0.9 < 125 < high, "the floor and the highest mean"


@pytest.mark.parametrize("width", [2.5, 4.1])
def test_ticks_have_room_and_the_largest_is_one(width):
    numbers = [4, 8, 16, 19, 32, 35, 64, 100, 1000]
    figure = Figure(figsize=(width + 1, 3))
    axes = figure.add_axes((0.5 / (width + 1), 0.2, width / (width + 1), 0.7))
    axes.plot(numbers, numbers)
    label_log_axis(axes, numbers, width / (width + 1))
    FigureCanvasAgg(figure).draw()
    labels = sorted(axes.get_xticklabels(), key=lambda label: label.get_position()[0])
    boxes = [label.get_window_extent() for label in labels]
    assert labels[-1].get_text() == "1000"
    assert len(labels) >= 5
    assert all(left.x1 + 4 < right.x0 for left, right in pairwise(boxes))


@pytest.mark.slow
def test_a_legend_takes_a_quarter_of_the_width_at_most(cells):
    for name in ("heun", "a_very_long_name_of_a_sampler_with_many_words"):
        figure = distance_against(cells.assign(sampler=cells["sampler"].replace("heun", name)), "w")
        FigureCanvasAgg(figure).draw()
        (legend,) = figure.legends
        beside = legend.get_window_extent().y1 > figure.axes[0].get_window_extent().y0 + 20
        assert beside == (name == "heun")
        if beside:
            assert legend.get_window_extent().width <= figure.bbox.width / 4
            check_room(figure)
        assert legend.get_window_extent().width <= figure.bbox.width


def test_a_key_looks_like_its_curves(cells):
    """Filled and solid for the learned score; a setting of the exact score only is open, dashed."""
    some = cells[(cells["denoiser"] != "learned") | (cells["sampler"] != "heun")]
    figure = distance_against(some, "w")
    keys = {text.get_text(): line for text, line in keys_of(figure.legends[0])}
    assert keys["ddim η=0"].get_linestyle() == "-"
    assert keys["heun"].get_linestyle() == "--"
    assert keys["heun"].get_markerfacecolor() == "white"
    assert keys["exact score"].get_markerfacecolor() == "white"


def keys_of(legend):
    return zip(legend.get_texts(), legend.legend_handles, strict=True)


def test_a_sampler_has_one_colour_in_all_figures_of_a_table(row):
    paired = [
        row("oracle", "exact", name, n, r, 1 / n + 0.01 * r) | {"reference": reference}
        for name in ("a", "b", "c")
        for reference in ("data", "converged")
        for n in (4, 8)
        for r in (0, 1)
        if (name, reference) != ("a", "converged")
    ]
    limits = [row("oracle", "exact", f"a{LIMIT}", 64, r, 1.0) for r in (0, 1)]
    table = pd.DataFrame(paired + [limit | {"reference": "floor"} for limit in limits])
    one = distance_against(table[table["reference"] == "data"], "w").legends[0]
    other = paired_error_against_nfe(table, "w").legends[0]
    colours = {text.get_text(): line.get_color() for text, line in keys_of(one)}
    for text, line in keys_of(other):
        assert line.get_color() == colours[text.get_text()]


@pytest.mark.slow
def test_a_sampler_without_a_value_of_one_metric_changes_no_colour(cells):
    other = cells[cells["sampler"] != "ddim"].assign(metric="other")
    table = pd.concat([cells, other])
    keys = [dict(keys_of(distance_against(table, name).legends[0])) for name in ("w", "other")]
    first, second = ({text.get_text(): line for text, line in one.items()} for one in keys)
    assert first["heun"].get_color() == second["heun"].get_color() == curve_style(2).colour


def test_a_legend_leaves_out_what_all_curves_share_and_the_caption_has_it():
    long = "edm_churn churn={} churn_min=0 churn_noise=1"
    short, left_out = short_names([long.format(0), long.format(10), "ddim η=0"])
    assert list(short.values()) == ["edm_churn churn=0", "edm_churn churn=10", "ddim η=0"]
    assert left_out == "; edm_churn: churn_min=0 churn_noise=1"
    runs = [f"ddim η={eta} · dataset.deviation=0.01 · grid={g}" for eta in (0, 1) for g in "ab"]
    short, left_out = short_names(runs)
    assert list(short.values()) == [f"ddim η={eta} · grid={g}" for eta in (0, 1) for g in "ab"]
    assert left_out == "; dataset.deviation=0.01"
    assert short_names(runs, "random_modes, deviation=0.01") == (short, "")
    same = ["ddim η=0", "ddim η=1", "a_very_long_name_of_a_sampler", "dpm_solver_pp points=2"]
    assert short_names(same) == (dict(zip(same, same, strict=True)), "")
    assert short_names(["ddim η=0 · seed=1"]) == ({"ddim η=0 · seed=1": "ddim η=0 · seed=1"}, "")


def test_a_caption_has_the_repetitions_of_all_cells(cells):
    more = cells[cells["steps"] == 4].assign(repetition=7)
    title = distance_against(pd.concat([cells, more]), "w").get_suptitle()
    assert "2 to 4 repetitions" in title
    exact = cells[cells["repetition"] == 0].assign(metric="w2_law_gaussian")
    title = distance_against(exact, "w2_law_gaussian").get_suptitle()
    assert title.startswith("grid_mixture, exact laws, no samples")
    assert "repetition" not in title, "repetitions of an exact value are equal"


def test_the_lines_of_a_caption_are_about_as_long_as_each_other():
    figure = Figure(figsize=(6.5, 4))
    for count in (10, 13, 14, 20, 27, 40):
        subtitle(figure, " ".join(["samples"] * count))
        lines = figure.get_suptitle().split("\n")
        assert sum(line.count("samples") for line in lines) == count
        lengths = list(map(len, lines))
        assert max(lengths) - min(lengths) <= 8 * len(lines)
        assert max(lengths) <= 100


@pytest.mark.slow
def test_a_caption_says_that_curves_are_shifted_sideways(cells):
    words = "points of one N are drawn side by side"
    figure = distance_against(cells, "w")
    assert words in " ".join(figure.get_suptitle().split())
    rounds = distance_against(cells.assign(rounds=cells["nfe"]), "w", "rounds").get_suptitle()
    assert "points of one number of rounds are" in " ".join(rounds.split())
    xs = {line.get_xdata()[0] for line in figure.axes[0].lines if len(line.get_xdata()) > 2}
    assert len(xs) > 1
    one = cells[cells["denoiser"].isin(["law", "oracle"])]
    one = one[one["sampler"].isin(["", one["sampler"].max()])]
    one = one[one["sampler_settings"].isin(["", one["sampler_settings"].max()])]
    assert words not in " ".join(distance_against(one, "w").get_suptitle().split())


def test_equal_curves_are_beside_each_other_and_near_their_number(row):
    for steps in ((4, 32, 256), (4, 9, 64, 81, 100)):
        rows = [
            row("oracle", "exact", f"s{k}", n, r, 1.0)
            for k in range(6)
            for n in steps
            for r in (0, 1)
        ]
        figure = distance_against(pd.DataFrame(rows), "w")
        FigureCanvasAgg(figure).draw()
        (axes,) = figure.axes
        lines = [bar.lines[0] for bar in axes.containers]
        across = np.array([axes.transData.transform(line.get_xydata())[:, 0] for line in lines])
        places = axes.transData.transform([(n, 1.0) for n in steps])[:, 0]
        assert (np.abs(across - places) < np.diff(places).min() / 2).all()
        if steps[0] == 4:
            size = lines[0].get_markersize() * figure.dpi / 72
            assert np.diff(across, axis=0).min() > size / 2, "each is visible"


def check_labels(figure):
    """Labels of y are inside the figure, and none touches another one."""
    FigureCanvasAgg(figure).draw()
    texts = [axes.yaxis.label for axes in figure.axes if axes.get_ylabel()]
    texts += [figure._supylabel] if figure._supylabel else []
    boxes = sorted((text.get_window_extent() for text in texts), key=lambda box: box.y0)
    assert boxes[0].y0 >= 0
    assert boxes[-1].y1 <= figure.bbox.y1
    assert all(low.y1 < high.y0 for low, high in pairwise(boxes) if abs(low.x0 - high.x0) < 50)


def test_long_names_of_metrics_have_room_beside_their_axis(row, cells):
    """The longest names of metrics, in a figure with one row and in figures with several."""
    long = "sliced_pca"
    lines = pd.concat([budget(2.0, 0.5, 3.0).assign(sampler=name) for name in ("heun", "rk4")])
    check_labels(waterfall(lines.assign(metric=long), long))
    check_labels(distance_against(cells.assign(metric=long), long))
    paired = cells[cells["sampler"] == "heun"].assign(metric=long, reference="converged")
    check_labels(paired_error_against_nfe(paired, long))
    names = {f"s{k:02d}": FAMILIES[k % 3] for k in range(15)}
    many = [row("oracle", "exact", name, n, 0, 1 / n) for name in names for n in (4, 8)]
    check_labels(distance_figure(pd.DataFrame(many).assign(metric=long), long, "nfe", names))


@pytest.mark.parametrize(
    ("metric", "reference", "title"),
    mostly_slow(
        [
            ("within_mode", "law", "W₂ within the modes"),
            ("max_sliced_certified", "data", "max-sliced W₂ to the data"),
            ("energy", "law", "energy distance to the law"),
            ("mode_coverage", "law", "error of the entropy over the modes"),
            ("one_minus_recall", "data", "1 − recall"),
            ("paired", "law", "distance to the converged run, same starts, sds"),
            ("my_metric", "data", "my metric to the data"),
        ],
        *(1, 5, 6),
    ),
)
def test_an_axis_says_in_words_what_it_shows(cells, metric, reference, title):
    figure = distance_against(cells.assign(metric=metric, reference=reference), metric)
    assert figure.axes[0].get_ylabel().replace("\n", " ") == title


def test_a_part_of_zero_leaves_the_line_of_a_waterfall_whole():
    axes = waterfall(budget(2.0, 0.0, None), "w").axes[0]
    level = [line.get_xdata() for line in axes.lines if list(line.get_ydata()) == [2.0, 2.0]]
    spans = sorted((min(x), max(x)) for x in level)
    assert spans[0][0] <= 0.35
    assert spans[-1][1] >= 1.65
    assert all(before[1] >= after[0] for before, after in pairwise(spans))


@pytest.mark.parametrize(
    ("chosen", "width", "rows"),
    mostly_slow(
        [
            (Look("slides"), 12.0, 1),
            (Look("column"), 3.4, 2),
            (Look("column", width=7.0), 7.0, 1),
            (Look(font=14.0), 4.6 * 2 + 1.7, 1),
        ],
        1,
    ),
)
def test_a_style_has_its_width_and_its_size_of_text(cells, chosen, width, rows):
    with looking(chosen):
        figure = distance_against(cells, "w")
        FigureCanvasAgg(figure).draw()
    assert figure.get_size_inches()[0] == pytest.approx(width)
    first, second = figure.axes
    stacked = first.get_position().x0 == pytest.approx(second.get_position().x0, abs=0.01)
    assert stacked == (rows == 2)
    assert {label.get_fontsize() for label in first.get_yticklabels()} == {chosen.points}
    assert first.title.get_fontsize() == pytest.approx(1.1 * chosen.points)
    for text in (*figure.legends[0].get_texts(), first.title, second.title, figure._suptitle):
        box = text.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"style": "poster"}, "figure.style=poster: must be one of page, slides, column"),
        ({"format": ("png", "gif")}, "figure.format=png,gif: must be one or several of png"),
        ({"font": 1.0}, "figure.font=1.0: must be null, or 4 to 40"),
        ({"width": 100.0}, "figure.width=100.0: must be null, or 1.5 to 40"),
    ],
)
def test_a_look_that_is_none_is_refused(wrong, message):
    with pytest.raises(InvalidSetting, match=message):
        Look(**wrong)


def test_the_mark_of_a_missing_value_is_within_its_panel(row):
    """The only curve has one point, at another place of a logarithmic axis."""
    rows = [row("oracle", "exact", "heun", 9, r, 0.06 + 0.01 * r) for r in (0, 1)]
    rows.append(row("oracle", "exact", "heun", 4, 0, math.nan, status=NOT_A_DENSITY))
    figure = distance_against(pd.DataFrame(rows), "w")
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert low < 4 < 9 < high
    assert sorted(axes.get_xticks()) == [4, 9]
    (mark,) = axes.texts
    assert axes.bbox.contains(*mark.get_window_extent().p0)


def test_other_denoisers_have_different_dashes_also_in_the_legend(row):
    names = ["corrupted 0.1", "corrupted 0.3", "guided 2", "oracle"]
    rows = [row(denoiser, "exact", "heun", steps, 0, 1.0) for denoiser in names for steps in (4, 8)]
    figure = distance_against(pd.DataFrame(rows), "w")
    curves = [look[2] for look in looks(figure.axes[0])]
    keys = [str(line._unscaled_dash_pattern) for line in figure.legends[0].get_lines()[-4:]]
    assert curves == keys
    assert len(set(curves)) == 4


def test_a_setting_of_the_sampler_is_the_axis_if_only_it_varies(row):
    """One panel for each denoiser; the exact score is in all of them."""
    rows = [
        row(denoiser, "exact", "sde", 8, r, 0.1 * w + 0.01 * r + error, settings={"w": w})
        for denoiser, error in (("oracle", 0.1), ("corrupted noise", 0.4), ("corrupted data", 0.2))
        for w in (0.0, 0.5, 2.0)
        for r in (0, 1)
    ]
    table = pd.DataFrame(rows)
    assert varied_setting(table) == "w"
    for other in (
        table[table["sampler_settings"] != json.dumps({"w": 2.0})],  # two values are no curve
        pd.concat([table, table.assign(steps=16)]),
        pd.concat([table, table.assign(sampler="heun", sampler_settings="")]),
        table.assign(sampler_settings=[json.dumps({"w": f"{k}"}) for k in range(len(table))]),
        table.assign(sampler_settings=[json.dumps({"w": k, "v": -k}) for k in range(len(table))]),
    ):
        assert varied_setting(other) is None
    figure = setting_figure(table, "w", "w")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["corrupted score, data", "corrupted score, noise"]
    for axes, error in zip(figure.axes, (0.2, 0.4), strict=True):
        exact, own = (np.array(bars.lines[0].get_xydata(), float) for bars in axes.containers)
        np.testing.assert_allclose(own[:, 0], [0, 0.5, 2])
        np.testing.assert_allclose(own[:, 1], error + np.array([0.005, 0.055, 0.205]))
        np.testing.assert_allclose(exact[:, 1], 0.1 + np.array([0.005, 0.055, 0.205]))
    (axes,) = setting_figure(table[table["denoiser"] == "oracle"], "w", "w").axes
    assert axes.get_title() == "exact score"


@pytest.mark.slow
def test_the_axis_of_many_samplers_is_that_of_most_and_the_caption_counts_what_is_cut(many):
    """One curve also has a value at a tenth of the evaluations of the others, and longer ones."""
    first = many[(many["sampler"] == "s01") & (many["nfe"] == NFE[0])]
    table = pd.concat([many, first.assign(nfe=1, steps=1)])
    families = {name: FAMILIES[sum(map(ord, name)) % 3] for name in settings_of(table)}
    figure = distance_figure(table, "w", "nfe", families)
    panels = [axes for axes in figure.axes if axes.containers]
    assert panels[0].get_xlim()[0] > 1
    # 1 of s01, and three of four of the costly sampler, on both scores
    assert "; 8 points beyond the ends not shown" in " ".join(figure.get_suptitle().split())
    for panel in panels[::2]:  # within a row no colour comes a third time
        colours = [bar.lines[0].get_color() for bar in panel.containers]
        assert max(map(colours.count, colours)) <= 2

"""More samplers than one panel holds: rows by family, columns by score, legends that say all."""

import json
import math

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer

from samplerbench.bench.cell import sampler_name
from samplerbench.figures.distance_families import FAMILIES, distance_figure, family
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.dormand_prince import DormandPrince
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.unipc import UniPC

METRIC = "within_mode"
NFE = (6, 12, 24, 48)


def row(denoiser, sampler, settings, nfe, repetition, value):
    return {
        "dataset": "grid_mixture",
        "metric": METRIC,
        "denoiser": denoiser,
        "start": "" if denoiser == "law" else "exact",
        "sampler": sampler,
        "sampler_settings": json.dumps(settings) if settings else "",
        "eta": math.nan,
        "steps": nfe,
        "repetition": repetition,
        "n_samples": 100,
        "reference": "law",
        "nfe": nfe,
        "seconds": 0.1,
        "value": value,
        "status": "ok",
    }


@pytest.fixture
def table():
    """Sixteen settings: two of one method, two that are the same, one that costs ten times more."""
    rows = [row("law", "", {}, 0, r, 0.04 + 0.001 * r) for r in range(5)]
    for denoiser in ("learned", "oracle"):
        for nfe in NFE:
            for r in (0, 1):
                for k in range(12):
                    rows.append(row(denoiser, f"s{k:02d}", {}, nfe, r, (2 + k) / nfe**2 + 0.01 * r))
                for points in (2, 3):
                    settings = {"points": points, "inner": 1}
                    rows.append(row(denoiser, "twice", settings, nfe, r, points + 1 / nfe))
                rows.append(row(denoiser, "s00_too", {}, nfe, r, 2 / nfe**2 + 0.01 * r))
                rows.append(row(denoiser, "costly", {}, 10 * nfe, r, 1 / nfe))
    return pd.DataFrame(rows)


@pytest.fixture
def families(table):
    cells = table[table["denoiser"] != "law"]
    names = map(sampler_name, cells["sampler"], cells["sampler_settings"])
    return {name: FAMILIES[sum(map(ord, name)) % 3] for name in names}


def legends(figure):
    found = [axes.get_legend() for axes in figure.axes if axes.get_legend() is not None]
    return [[text.get_text() for text in legend.get_texts()] for legend in found]


def test_the_row_of_a_sampler():
    one, several, noisy = FAMILIES
    assert family(DDIM(0.0)) == family(UniPC()) == one
    assert family(Heun()) == family(DormandPrince()) == several
    assert family(DDIM(0.5)) == noisy


def test_every_setting_is_a_curve_in_its_row_for_each_score(table, families):
    figure = distance_figure(table, METRIC, "nfe", families)
    panels = [axes for axes in figure.axes if axes.containers]
    assert len(panels) == 3 * 2
    assert [p.get_title() for p in panels if p.get_title()] == [
        "learned score, exact start",
        "oracle score, exact start",
    ]
    for place, panel in enumerate(panels):
        names = [name for name, title in families.items() if title == FAMILIES[place // 2]]
        both = {"s00", "s00_too"} <= set(names)
        bars = [c for c in panel.containers if isinstance(c, ErrorbarContainer)]
        assert len(bars) == len(names) - both
        looks = {(b.lines[0].get_color(), b.lines[0].get_marker()) for b in bars}
        assert len(looks) == len(bars)
        assert panel.get_yscale() == "log"
        assert len(panel.patches) == 1, "the floor"
        assert 60 < panel.get_xlim()[1] < 100, "what costs more is cut, but not left out"
    lines = [line for legend in legends(figure) for line in legend]
    assert sum(line.count("\n") + 1 for line in lines) == len(families) + 1


def test_the_legend_says_what_tells_curves_apart_and_what_does_not(table):
    cells = table[table["denoiser"] != "law"]
    names = map(sampler_name, cells["sampler"], cells["sampler_settings"])
    figure = distance_figure(table, METRIC, "nfe", dict.fromkeys(names, FAMILIES[0]))
    (lines,) = legends(figure)
    assert lines[:2] == ["twice points=3", "twice points=2"], "the largest first"
    assert "s00,\ns00_too" in lines
    assert {"s01", "s11", "costly"} <= set(lines)


def test_a_legend_has_room(table, families):
    figure = distance_figure(table, METRIC, "nfe", families)
    FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        if axes.get_legend() is not None:
            shown, whole = axes.get_legend().get_window_extent(), figure.bbox
            assert whole.y0 <= shown.y0 < shown.y1 <= whole.y1
            assert shown.x1 <= whole.x1


def test_few_samplers_share_a_panel(table, families):
    few = table[table["sampler"].isin(["", "s01", "s02"])]
    figure = distance_figure(few, METRIC, "nfe", {n: families[n] for n in ("s01", "s02")})
    (axes,) = figure.axes
    assert len(axes.containers) == 4

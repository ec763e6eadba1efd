"""The figure of distance against steps shows every curve, the floor and the intervals."""

import math

import pandas as pd
import pytest
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

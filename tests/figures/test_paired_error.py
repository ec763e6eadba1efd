"""The figure of paired errors says what it shows, and its curves can be told apart."""

import math

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from samplerbench.figures.paired_error import paired_error_against_nfe


@pytest.fixture
def rows():
    plain = {"dataset": "grid_mixture", "metric": "w", "reference": "converged"}
    plain |= {"denoiser": "oracle", "start": "exact", "sampler_settings": "", "eta": math.nan}
    plain |= {"n_samples": 2000, "status": "ok"}
    return pd.DataFrame(
        plain
        | {"sampler": f"a_sampler_{k:02d}", "nfe": nfe, "steps": nfe, "repetition": r}
        | {"value": (1 + 0.1 * k) / nfe + 0.01 * r}
        for k in range(20)
        for nfe in (4, 8, 16)
        for r in range(4)
    )


def test_the_title_says_data_n_and_start(rows):
    other = rows.assign(reference="data", start="prior")
    title = paired_error_against_nfe(pd.concat([rows, other]), "w").get_suptitle()
    assert "grid_mixture, n = 2,000 samples, exact start, exact score" in title
    assert "4 repetitions" in title


def test_twenty_samplers_can_be_told_apart(rows):
    figure = paired_error_against_nfe(rows, "w")
    (axes,) = figure.axes
    lines = [bar.lines[0] for bar in axes.containers]
    looks = {(line.get_color(), line.get_marker()) for line in lines}
    assert len(looks) == len(lines) == 20
    assert len({str(line._unscaled_dash_pattern) for line in lines}) == 3
    (legend,) = figure.legends
    FigureCanvasAgg(figure).draw()
    shown, whole = legend.get_window_extent(), figure.bbox
    assert whole.y0 <= shown.y0 < shown.y1 <= whole.y1

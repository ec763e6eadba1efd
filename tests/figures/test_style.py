"""What all figures share: curves with intervals."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from samplerbench.figures.style import curve_style, interval_curve


def test_each_end_of_an_interval_is_drawn_where_it_is():
    """By intervals that are longer above than below; one that reaches below 0 is cut above it."""
    curve = pd.DataFrame(
        {
            "x": [1.0, 2.0, 3.0],
            "mean": [5.0, 1.0, 4.0],
            "lower": [4.5, -2.0, math.nan],
            "upper": [6.5, 3.0, math.nan],
        }
    )
    axes = Figure().subplots()
    interval_curve(axes, curve, "x", curve_style(0))
    (bars,) = axes.collections
    ends = np.array([path.vertices[:, 1] for path in bars.get_paths()[:2]])
    assert ends == pytest.approx(np.array([[4.5, 6.5], [0.1, 3.0]]))

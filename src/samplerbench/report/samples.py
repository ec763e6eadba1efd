"""Sample panels: samples of the best and the worst cell of a run beside the data.

Samples are not stored. So the trained weights of the run generate a smaller number of new samples,
with the random numbers of pictures: a panel shows the law of a cell, but not the measured points.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from samplerbench.bench.scene import Scene
from samplerbench.errors import InvalidSetting
from samplerbench.figures.common import score_title
from samplerbench.identity import settings_text
from samplerbench.report.charts import PALETTE, Chart, figure, titled

POINTS = 2000
#: The longest time for generating the samples of a cell.
MOST_SECONDS = 5.0
_DATA = "rgba(128,128,128,0.55)"
SECTION = "Samples beside the data"


def panels(scene: Scene, lines: pd.DataFrame, run: str) -> Iterator[Chart]:
    """Charts for the nearest and the farthest cell from the data, of one run and measure.

    Args:
        scene: the run's objects, with its weights loaded.
        run: label, or empty if there is only one run.
    """
    dim = scene.dataset.dim
    if dim > 2:
        raise InvalidSetting("panels", f"{dim}-D data", "1-D or 2-D data")
    seconds = lines["seconds"] * POINTS / lines["n_samples"]
    finished = lines["mean"].notna() & (lines["lost"] == 0)
    cheap = lines[finished & (seconds <= MOST_SECONDS)].sort_values("mean")
    if "learned" in set(cheap["denoiser"]):  # the denoiser that is used in practice
        cheap = cheap[cheap["denoiser"] == "learned"]
    if cheap.empty:
        allowed = f"a finished cell whose {POINTS} samples take at most {MOST_SECONDS:g} s"
        raise InvalidSetting("panels", "no cell", allowed)
    data = scene.data(POINTS).numpy()
    ends = {"best": cheap.iloc[0], "worst": cheap.iloc[-1]}
    if len(cheap) == 1:
        ends.pop("worst")
    for which, line in ends.items():
        title = (
            f"{which}: {line['name']}, N = {line['steps']}, {score_title(line['denoiser'])}, "
            f"{line['start']} "
            f"start: {line['mean']:.3g}"
        )
        points = _samples(scene, line)
        drawn = _plane(data, points) if dim == 2 else _line(data, points)
        yield Chart(SECTION, f"{run}, {title}" if run else title, drawn)


def _samples(scene: Scene, line: pd.Series) -> np.ndarray:
    for name, sampler in scene.samplers:
        if name == line["sampler"] and settings_text(sampler) == line["sampler_settings"]:
            steps = int(line["steps"])
            paths = scene.paths(
                line["denoiser"], line["start"], sampler, steps, chains=POINTS, every=steps
            )
            last: np.ndarray = paths.x[-1].numpy()
            return last
    raise InvalidSetting("panels", line["name"], "a sampler of the run's config")


def _plane(data: np.ndarray, points: np.ndarray) -> Mapping[str, Any]:
    clouds = [
        {
            "type": "scatter",
            "x": [float(f"{x:.4g}") for x in cloud[:, 0]],
            "y": [float(f"{x:.4g}") for x in cloud[:, 1]],
            "mode": "markers",
            "name": name,
            "marker": {"size": 3, "color": colour, "opacity": 0.7},
            "hoverinfo": "skip",
        }
        for name, cloud, colour in (("data", data, _DATA), ("samples", points, PALETTE[1]))
    ]
    # a few samples far away would make the others too small to see
    low, high = np.quantile(np.concatenate([data, points]), [0.002, 0.998], axis=0)
    room = 0.08 * (high - low)
    (left, bottom), (right, top) = (low - room).tolist(), (high + room).tolist()
    y = {**titled("x₂"), "range": [bottom, top], "scaleanchor": "x"}
    return figure(clouds, {**titled("x₁"), "range": [left, right]}, y)


def _line(data: np.ndarray, points: np.ndarray) -> Mapping[str, Any]:
    low, high = np.quantile(np.concatenate([data, points]), [0.002, 0.998])
    edges = np.linspace(low, high, 81)
    middle = (edges[1:] + edges[:-1]) / 2
    curves = []
    for name, cloud, colour in (("data", data, _DATA), ("samples", points, PALETTE[1])):
        shares, _ = np.histogram(cloud[:, 0], edges, density=True)
        curve = {
            "type": "scatter",
            "x": middle.tolist(),
            "y": shares.tolist(),
            "name": name,
            "mode": "lines",
            "line": {"shape": "hvh", "color": colour},
            "fill": "tozeroy" if name == "data" else "none",
            "hoverinfo": "skip",
        }
        curves.append(curve)
    return figure(curves, titled("x"), {**titled("density"), "rangemode": "tozero"})

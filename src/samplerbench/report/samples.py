"""Sample panels: the best and the worst cell of a run beside the data.

Samples are not stored. The run's trained weights generate them again: fewer ones, with the random
numbers of pictures. So a panel shows the law of a cell and not the points that were measured.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from samplerbench.bench.scene import Scene
from samplerbench.errors import InvalidSetting
from samplerbench.identity import settings_text
from samplerbench.report.charts import PALETTE, Chart

POINTS = 2000
#: The longest time in which the samples of a cell may be generated.
MOST_SECONDS = 5.0
_DATA = "rgba(128,128,128,0.55)"
SECTION = "Samples beside the data"


def panels(scene: Scene, lines: pd.DataFrame, run: str) -> Iterator[Chart]:
    """One chart for the cell nearest to the data and one for the farthest cell.

    Args:
        scene: the run's objects, with its weights loaded.
        lines: from `cells.cell_lines`, of this run and one measure.
        run: label, or empty if there is only one run.

    Raises:
        InvalidSetting: the data are not in one or two dimensions, or every cell takes too long.
    """
    dim = scene.dataset.dim
    if dim > 2:
        raise InvalidSetting("panels", f"{dim}-D data", "1-D or 2-D data")
    seconds = lines["seconds"] * POINTS / lines["n_samples"]
    cheap = lines[lines["mean"].notna() & (seconds <= MOST_SECONDS)].sort_values("mean")
    if "learned" in set(cheap["denoiser"]):  # the case in practice
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
            f"{which}: {line['name']}, N = {line['steps']}, {line['denoiser']}, {line['start']} "
            f"start: {line['mean']:.3g}"
        )
        points = _samples(scene, line)
        figure = _plane(data, points) if dim == 2 else _line(data, points)
        yield Chart(SECTION, "", f"{run}, {title}" if run else title, figure)


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


def _plane(data: np.ndarray, points: np.ndarray) -> go.Figure:
    figure = go.Figure()
    for name, cloud, colour in (("data", data, _DATA), ("samples", points, PALETTE[1])):
        figure.add_scatter(
            x=cloud[:, 0].astype(np.float32),
            y=cloud[:, 1].astype(np.float32),
            mode="markers",
            name=name,
            marker={"size": 3, "color": colour, "opacity": 0.7},
            hoverinfo="skip",
        )
    # a few samples far away would make all others too small to see
    low, high = np.quantile(np.concatenate([data, points]), [0.002, 0.998], axis=0)
    room = 0.08 * (high - low)
    figure.update_xaxes(range=[low[0] - room[0], high[0] + room[0]], title="x₁")
    figure.update_yaxes(range=[low[1] - room[1], high[1] + room[1]], scaleanchor="x", title="x₂")
    return figure


def _line(data: np.ndarray, points: np.ndarray) -> go.Figure:
    low, high = np.quantile(np.concatenate([data, points]), [0.002, 0.998])
    edges = np.linspace(low, high, 81)
    middle = (edges[1:] + edges[:-1]) / 2
    figure = go.Figure()
    for name, cloud, colour in (("data", data, _DATA), ("samples", points, PALETTE[1])):
        shares, _ = np.histogram(cloud[:, 0], edges, density=True)
        figure.add_scatter(
            x=middle,
            y=shares,
            name=name,
            mode="lines",
            line={"shape": "hvh", "color": colour},
            fill="tozeroy" if name == "data" else None,
            hoverinfo="skip",
        )
    figure.update_xaxes(title="x")
    figure.update_yaxes(title="density", rangemode="tozero")
    return figure

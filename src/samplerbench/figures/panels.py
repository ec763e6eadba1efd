"""Shared parts of pictures: panels of the plane and of the line, names, density curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from samplerbench.bench.scene import SamplerRun, Scene
from samplerbench.core.grids import Level
from samplerbench.core.noise import generator
from samplerbench.datasets.base import LARGEST
from samplerbench.errors import require
from samplerbench.figures.common import COLOURS, look, score_title
from samplerbench.figures.style import CurveStyle, by_number, styles_of
from samplerbench.identity import settings_text

#: Half the widths of two axes: [15, 20] is from −15 to 15 and from −20 to 20.
HalfWidth = tuple[float, float]

#: The colour of the background points, such as the data.
GREY = "0.72"

#: The colour of generated samples if only one kind of them is shown.
GENERATED = COLOURS[1]

#: Time along a chain, from black to red: colour-blind readers can see the light end, too.
BLACK_TO_RED: Colormap = LinearSegmentedColormap.from_list(
    "black_to_red", ["black", "#7A1500", "#E03010", "#FF4A2A"]
)

#: The width of a panel that has space for labels, in inches for text of 10 points.
_NARROWEST = 2.0

Item = TypeVar("Item")


def grouped(items: Iterable[Item], key: Callable[[Item], str]) -> dict[str, list[Item]]:
    """The items by their key; keys and items keep their order."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def score_name(scene: Scene, denoiser: str) -> str:
    """The name of a denoiser's score for a title; the score of a finite data set has its own."""
    if denoiser == "oracle" and not scene.dataset.known_law:
        return "score of the data points"
    return score_title(denoiser)


def run_styles(scene: Scene) -> dict[str, CurveStyle]:
    """The style of each sampler setting by its label: as in the figures of the job's results."""

    def place(run: SamplerRun) -> tuple[object, ...]:  # the order of `sampler_styles`
        eta = getattr(run.sampler, "eta", None)
        given = eta if isinstance(eta, int | float) else math.inf
        return by_number(run.label.split()[0]), given, by_number(settings_text(run.sampler))

    labels = dict.fromkeys(run.label for run in sorted(scene.runs(), key=place))
    return styles_of(labels)


def start_name(runs: Sequence[SamplerRun]) -> str:
    """The start of runs for a title; several starts have one line each, with their samplers."""
    groups = grouped(runs, lambda run: run.law)
    if len(groups) == 1:
        return f"start: {runs[0].law}"
    labels = {law: ", ".join(grouped(own, lambda run: run.label)) for law, own in groups.items()}
    return "starts:" + "".join(f"\n{law} ({names})" for law, names in labels.items())


def level_name(level: Level[float]) -> str:
    """A noise level in words: σ, and α if it is not 1; of fixed width, for animations."""
    sigma = f"σ = {level.sigma:<5.3g}" if level.sigma >= 0.001 else f"σ = {level.sigma:.1g}"
    return sigma.rstrip() if level.alpha == 1 else f"α = {level.alpha:.3g}, {sigma.rstrip()}"


def standard_normal(like: Tensor, scene: Scene, picture: str) -> Tensor:
    """Standard normal numbers of a picture, float64, in the shape of another tensor."""
    random = generator("picture", picture, scene.seed)
    return torch.from_numpy(random.standard_normal(tuple(like.shape)))


def require_half_width(half_width: HalfWidth | None) -> None:
    """Refuse half widths of axes that are not positive, too large, or too different."""
    if half_width is None:
        return
    low, high = sorted(half_width)
    good = low > 0 and high < LARGEST and high <= 20 * low
    allowed = (
        f"null, or two positive numbers below {LARGEST:g}, neither more than 20 times the other"
    )
    require(good, "half_width", half_width, allowed)


@dataclass(frozen=True)
class Frame:
    """The part of the plane that a panel shows."""

    centre: tuple[float, float]  # its middle
    half_width: HalfWidth  # half its width and half its height

    @property
    def ratio(self) -> float:
        """Height by width."""
        return self.half_width[1] / self.half_width[0]

    def inside(self, points: Tensor) -> Tensor:
        """Which points, shape (n, 2), are inside; points that are not finite are not."""
        away = (points - points.new_tensor(self.centre)).abs()
        shown: Tensor = (away <= points.new_tensor(self.half_width)).all(-1)
        return shown


def frame(data: Tensor, half_width: HalfWidth | None, samples: Sequence[Tensor] = ()) -> Frame:
    """A square around the data, or around the origin if its size is given.

    Args:
        data: shape (n, 2); nearly all of them are shown.
        samples: other points, shape (*, 2) each. The square is enlarged until it contains nearly
            all of them, but at most to twice its size, since points far away would make the others
            too small to see.
    """
    if half_width is not None:
        return Frame((0.0, 0.0), half_width)
    low, high = _ends(data, 0.005)
    centre, half = (low + high) / 2, max(0.575 * float((high - low).max()), 1e-9)
    wider = [1.08 * float(np.abs(_ends(cloud, 0.01) - centre).max()) for cloud in samples]
    half = min(max([half, *wider]), 2 * half)
    return Frame((float(centre[0]), float(centre[1])), (half, half))


def _ends(points: Tensor, share: float) -> np.ndarray:
    """The lowest and highest coordinates of finite points, without a share, shape (2, 2)."""
    flat = points.reshape(-1, 2)
    flat = flat[flat.isfinite().all(-1)]
    if len(flat) == 0:
        return np.zeros((2, 2))
    # torch.quantile has a limit on the number of points
    ends: np.ndarray = np.quantile(flat.double().numpy(), [share, 1 - share], axis=0)
    return ends


def in_frame(shown: Sequence[int], count: int, number: int) -> str:
    """The number of points that an animation shows in a frame, for its title.

    Empty only if every frame shows all points, so that the title does not jump.
    """
    return f"\n{shown[number]:,} of {count:,} in the frame" if min(shown) < count else ""


def plane(axes: Axes, shown: Frame, title: str = "") -> None:
    """Make a panel show a part of the plane, with equal scales."""
    (x, y), (width, height) = shown.centre, shown.half_width
    axes.set_xlim(x - width, x + width)
    axes.set_ylim(y - height, y + height)
    axes.set_aspect("equal")
    axes.locator_params(axis="x", prune="both")  # labels at the ends would touch the next panel's
    axes.set(xlabel="x₁, data units", ylabel="x₂, data units", title=title)


def plane_height(width: float, rows: int, columns: int, ratio: float) -> float:
    """The height of rows of panels with titles, whose scales are equal, in inches.

    Args:
        width: of the figure, in inches.
        ratio: height by width of what a panel shows.
    """
    panel = (width - 0.75) / columns - 0.1  # without the labels of the axis
    return rows * (panel * ratio + 0.35) + 0.5


def scatter(axes: Axes, points: Tensor, colour: str, size: float = 3.0, **style: Any) -> None:
    """Draw points, shape (n, 2), as dots of a size in points; more dots are fainter."""
    alpha = min(1.0, max(0.4, 400 / max(len(points), 1)))
    style = {"alpha": alpha, "mew": 0.0, **style}
    axes.plot(points[:, 0], points[:, 1], "o", ls="", ms=size * look().scale, color=colour, **style)


def line_by_time(x: Tensor, y: Tensor) -> LineCollection:
    """A line through points, shape (n,) each, coloured by time from black to red."""
    points = torch.stack([x, y], -1)
    segments = torch.stack([points[:-1], points[1:]], 1).numpy()
    lines = LineCollection(list(segments), cmap=BLACK_TO_RED, linewidths=0.7)
    lines.set_array(torch.arange(len(segments)).numpy())
    return lines


def density(
    axes: Axes, points: Tensor, *, width: float, span: tuple[float, float], **style: Any
) -> None:
    """Draw a kernel density estimate of points on the line, shape (n,), by seaborn.

    Args:
        points: points that are not finite are ignored; nothing is drawn without two different ones.
        width: standard deviation of the Gaussian kernel, in data units.
        span: the interval on which it is drawn.
    """
    import seaborn  # type: ignore[import-untyped]  # slow to import

    finite = points[points.isfinite()]
    spread = float(finite.std()) if len(finite) > 1 else 0.0
    if spread > 0 and width > 0:
        # seaborn measures the kernel in standard deviations of the points
        seaborn.kdeplot(
            x=finite.numpy(),
            ax=axes,
            bw_method=width / spread,
            gridsize=500,
            cut=4,
            clip=span,
            **style,
        )
    axes.set_xlim(span)


def kernel_width(points: Tensor, bandwidth: float) -> float:
    """bandwidth·n^(−1/5)·std of the finite points; Scott's rule is bandwidth 1.

    Scott's rule is too wide for a law of several modes.
    """
    finite = points[points.isfinite()]
    return bandwidth * len(finite) ** -0.2 * float(finite.std()) if len(finite) > 1 else 0.0


def not_shown(
    points: Tensor, low: float | Tensor = -math.inf, high: float | Tensor = math.inf
) -> str:
    """The number of points, shape (n, *), that a picture leaves out, for its label; else empty.

    The ends of the picture may differ between coordinates.
    """
    rows = points.reshape(len(points), -1)
    finite = rows.isfinite().all(-1)
    lost = len(rows) - int(finite.sum())
    outside = int(((rows < low) | (rows > high)).any(-1)[finite].sum())
    words = [f"{lost:,} not finite"] * (lost > 0) + [f"{outside:,} outside"] * (outside > 0)
    return f" ({', '.join(words)})" if words else ""


def span_of(clouds: Sequence[Tensor], margin: float = 0.08) -> tuple[float, float]:
    """An interval that contains nearly all points on the line, with a margin on both sides."""
    points = torch.cat([cloud.flatten() for cloud in clouds])
    points = points[points.isfinite()]
    if len(points) == 0:
        return -1.0, 1.0
    ordered = points.sort().values
    cut = len(ordered) // 1000
    low, high = float(ordered[cut]), float(ordered[-1 - cut])
    room = margin * (high - low) or 1.0
    return low - room, high + room


def law_density(scene: Scene, x: Tensor) -> Tensor | None:
    """The density of the data's law at points on the line, shape (n,); None if it is not known.

    The law of a trajectory is its stationary law, `boltzmann`.
    """
    law = getattr(scene.dataset, "boltzmann", scene.dataset)
    if law.dim != 1 or not law.known_law:
        return None
    log_density = getattr(law.oracle(scene.schedule), "log_density", None)
    if log_density is None:
        return None
    values: Tensor = log_density(x[:, None], Level(0.0, 1.0, 0.0))
    return values.exp() if bool(values.isfinite().all()) else None


def panel_columns(panels: int) -> int:
    """The number of columns for a number of panels, at most 3: four panels are two rows of two.

    It is smaller if the look's width has no space for three, as in a column of a paper.
    """
    inches = look().inches
    most = 3 if inches is None else max(1, min(3, int(inches / look().scale / _NARROWEST)))
    return panels if panels <= most else math.ceil(panels / math.ceil(panels / most))


def in_rows(figure: Figure, count: int, columns: int, *, shared: bool = True) -> list[Axes]:
    """Panels in rows of some columns, with shared axes or not; left places stay empty."""
    rows = -(-count // columns)
    panels = figure.subplots(rows, columns, sharex=shared, sharey=shared, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.set_visible(False)
    return list(panels[:count])


def legend_below(figure: Figure, axes: Axes, columns: int = 4) -> None:
    """Put one legend for all panels below them."""
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=columns)
    for handle in legend.legend_handles:
        if isinstance(handle, Line2D):  # a single dot as faint as in the panel is hard to see
            handle.set_alpha(1.0)

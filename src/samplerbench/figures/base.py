"""The base classes of pictures, which draw figures and animations of a finished job.

A figure is written in the formats of `common.Look`, an animation as GIF, which a README can show.
Each frame draws only the moving artists, over a background that is drawn once, so it takes
milliseconds. All frames share one palette, so only changing pixels take space in the file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from samplerbench.bench.scene import SamplerRun, Scene
from samplerbench.errors import require
from samplerbench.figures.common import look
from samplerbench.figures.style import save, styled
from samplerbench.files import replacing

Pixels = NDArray[np.uint8]

#: Colours of an animation: enough for smooth text; more colours would make larger files.
PALETTE = 128


@dataclass(frozen=True, eq=False)
class Animation:
    """A figure whose artists move."""

    figure: Figure  # with all artists; its dots per inch are those of the file
    # the artists that `update` changes; they are drawn last, in this order
    moving: Sequence[Artist]
    update: Callable[[int], None]  # sets them to their state in a frame, given the frame's number
    frames: int  # number of frames
    milliseconds: int = 80  # duration of each frame
    rest: int = 2000  # duration of the last frame, in milliseconds

    def __post_init__(self) -> None:
        require_counts(self, frames=1, milliseconds=20)

    def images(self) -> Iterator[Pixels]:
        """The frames as pixels, shape (height, width, 3)."""
        canvas: Any = FigureCanvasAgg(self.figure)  # its stubs are not typed
        with mpl.rc_context(styled()):
            if self.figure.get_layout_engine() is not None:
                self.update(self.frames - 1)
                canvas.draw()  # fixes the layout, with space for the moving artists
                self.figure.set_layout_engine("none")
            for artist in self.moving:
                artist.set_animated(True)
            canvas.draw()
            background = canvas.copy_from_bbox(self.figure.bbox)
            for frame in range(self.frames):
                canvas.restore_region(background)
                self.update(frame)
                for artist in self.moving:
                    self.figure.draw_artist(artist)
                yield np.asarray(canvas.buffer_rgba())[..., :3].copy()

    def save(self, path: Path) -> Path:
        """Write a GIF that repeats forever, completely or not at all."""
        # the palette comes from one image with all frames, so white stays white in all of them
        column = Image.fromarray(np.concatenate(list(self.images())))
        column = column.quantize(PALETTE, Image.Quantize.MAXCOVERAGE)
        width, height = column.width, column.height // self.frames
        first, *further = [
            column.crop((0, height * frame, width, height * (frame + 1)))
            for frame in range(self.frames)
        ]
        with replacing(path) as temporary:
            first.save(
                temporary,
                format="GIF",
                save_all=True,
                append_images=further,
                duration=[self.milliseconds] * (self.frames - 1) + [self.rest],
                loop=0,
                optimize=True,
            )
        return path


#: The largest value of each setting that is a count; more would only fill the memory.
MOST = {"cells": 4096, "frames": 2_000, "mesh": 512, "milliseconds": 60_000}
MOST_OTHERS = 1_000_000


def require_counts(picture: object, **least: int) -> None:
    """Refuse counts in the settings of a picture that are too small or too large."""
    for name, low in least.items():
        value, high = getattr(picture, name), MOST.get(name, MOST_OTHERS)
        require(low <= value <= high, name, value, f"{low} to {high:,}")


#: Figures and animations by the stems of their files.
Drawings = Mapping[str, Figure | Animation]


class Picture(ABC):
    """A picture of a job. Members are frozen dataclasses; the fields are the settings."""

    @abstractmethod
    def why_incompatible(self, scene: Scene) -> str | None:
        """Why the picture is not possible for this job, in one line; None if it is possible.

        This is also called before the training, so it must not depend on results.
        """

    @abstractmethod
    def draw(self, scene: Scene) -> Drawings:
        """Draw figures and animations; a sampler that cannot run on a denoiser is left out.

        If a stem does not start with the picture's name, the job adds the name.
        """


@dataclass(frozen=True, kw_only=True)
class PathPicture(Picture):
    """A picture of the paths of the job's samplers, or of their last states.

    Attributes:
        shown_dim: the number of coordinates that it shows.

    Args:
        denoisers: their names in the job; null is all.
        start: the name of one of the job's starts; null is the first.
        steps: number of steps of the samplers; null is the job's largest.
    """

    shown_dim: ClassVar[int]
    denoisers: tuple[str, ...] | None = None
    start: str | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        require(self.steps is None or self.steps >= 1, "steps", self.steps, "at least 1, or null")

    def why_incompatible(self, scene: Scene) -> str | None:
        return scene.why_not_dim(self.shown_dim) or scene.why_no_runs(
            denoisers=self.denoisers, start=self.start, steps=self.steps
        )

    def runs(self, scene: Scene) -> list[SamplerRun]:
        """Each chosen denoiser with each sampler that runs on it."""
        return scene.runs(denoisers=self.denoisers, start=self.start, steps=self.steps)


def write(drawings: Drawings, directory: Path) -> list[Path]:
    """Write figures in the formats of the look, and animations as GIF; return the files.

    Names of denoisers such as "guided 2.5" have spaces, and files have underscores instead.
    """
    paths = []
    for name, drawing in drawings.items():
        stem = name.replace(" ", "_")
        if isinstance(drawing, Animation):
            paths.append(drawing.save(directory / f"{stem}.gif"))
        else:
            paths += [save(drawing, directory / f"{stem}.{suffix}") for suffix in look().format]
    return paths

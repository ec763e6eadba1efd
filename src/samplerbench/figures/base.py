"""What a picture is: it looks at a finished job and draws figures and animations.

A figure is written as PNG, an animation as GIF, which any README shows. Only what moves is drawn
anew in a frame, over a background that is drawn once, and all frames share one palette, chosen from
a sample of them: so a frame costs milliseconds and only the pixels that change take space.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

from samplerbench.bench.scene import Run, Scene
from samplerbench.errors import require
from samplerbench.figures.style import save, styled
from samplerbench.files import replacing

Pixels = NDArray[np.uint8]

#: Colours of an animation. Text is smooth with few, and fewer make smaller files.
PALETTE = 80
_EXACT = 32


@dataclass(frozen=True, eq=False)
class Animation:
    """A figure, and what moves in it.

    Args:
        figure: with everything in it; its dots per inch are those of the file.
        moving: the artists that `update` changes, drawn over all others, in this order.
        update: sets them to what they are in a frame.
        frames: how many.
        milliseconds: each frame stays.
        rest: milliseconds that the last one stays.
    """

    figure: Figure
    moving: Sequence[Artist]
    update: Callable[[int], None]
    frames: int
    milliseconds: int = 80
    rest: int = 2000

    def __post_init__(self) -> None:
        require_counts(self, frames=1, milliseconds=20)

    def images(self, chosen: Sequence[int] | None = None) -> Iterator[Pixels]:
        """The frames, or the chosen ones, as pixels, shape (height, width, 3)."""
        canvas: Any = FigureCanvasAgg(self.figure)  # its stubs are not typed
        with mpl.rc_context(styled()):
            if self.figure.get_layout_engine() is not None:
                self.update(self.frames - 1)
                canvas.draw()  # the layout makes room for what moves, too, and then stays
                self.figure.set_layout_engine("none")
            for artist in self.moving:
                artist.set_animated(True)
            canvas.draw()
            background = canvas.copy_from_bbox(self.figure.bbox)
            for frame in range(self.frames) if chosen is None else chosen:
                canvas.restore_region(background)
                self.update(frame)
                for artist in self.moving:
                    self.figure.draw_artist(artist)
                yield np.asarray(canvas.buffer_rgba())[..., :3].copy()

    def save(self, path: Path) -> Path:
        """Write a GIF that repeats for ever, whole or not at all."""
        sample = np.unique(np.linspace(0, self.frames - 1, min(self.frames, 6)).astype(int))
        palette = _palette(np.concatenate(list(self.images(sample.tolist()))))
        images = list(_indexed(self.images(), palette))
        stay = [self.milliseconds] * (self.frames - 1) + [self.rest]
        with replacing(path) as temporary:
            images[0].save(
                temporary,
                format="GIF",
                save_all=True,
                append_images=images[1:],
                duration=stay,
                loop=0,
                optimize=True,
            )
        return path


def _palette(pixels: Pixels) -> Pixels:
    """Colours that fit pixels, shape (height, width, 3): at most `PALETTE`, shape (*, 3).

    The commonest are kept as they are, so white stays white. For the rest each colour counts once,
    however many pixels have it: a few dots must not take the colour of the many arrows they are on.
    """
    codes, counts = np.unique(_packed(pixels), return_counts=True)
    codes = codes[np.argsort(-counts, kind="stable")]
    colours = _unpacked(codes)
    exact, rest = colours[:_EXACT], colours[_EXACT:]
    if len(rest) == 0:
        return exact
    found = Image.fromarray(rest[None]).quantize(PALETTE - _EXACT, Image.Quantize.MEDIANCUT)
    entries = np.array(found.getpalette(), np.uint8).reshape(-1, 3)
    return np.concatenate([exact, entries])


def _indexed(frames: Iterable[Pixels], palette: Pixels) -> Iterator[Image.Image]:
    """Each frame with the nearest colours of the palette."""
    unknown = 255
    nearest = np.full(1 << 24, unknown, np.uint8)  # of each colour, found as colours are met
    for frame in frames:
        codes = _packed(frame)
        new = np.unique(codes[nearest[codes] == unknown])
        distance = _unpacked(new)[:, None].astype(np.int64) - palette
        nearest[new] = np.square(distance).sum(-1).argmin(-1)
        image = Image.fromarray(nearest[codes])
        image.putpalette(palette.tobytes())
        yield image


def _packed(pixels: Pixels) -> NDArray[np.int64]:
    """One number for each colour, the last axis."""
    codes: NDArray[np.int64] = pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    return codes


def _unpacked(codes: NDArray[np.int64]) -> Pixels:
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], -1).astype(np.uint8)


#: The most of each that a picture may be asked for: more would fill a memory and show nothing.
MOST = {"cells": 4096, "frames": 10_000, "mesh": 512, "milliseconds": 60_000}
MOST_OTHERS = 1_000_000


def require_counts(picture: object, **least: int) -> None:
    """Refuse settings of a picture that count something and are too few or too many.

    Args:
        picture: the settings.
        least: of each of them.

    Raises:
        InvalidSetting: naming the first such setting.
    """
    for name, few in least.items():
        value, most = getattr(picture, name), MOST.get(name, MOST_OTHERS)
        require(few <= value <= most, name, value, f"{few} to {most:,}")


#: What a picture draws, by the stem of its file.
Drawn = Mapping[str, Figure | Animation]


class Picture(ABC):
    """A way to look at a job. Members are frozen dataclasses whose fields are its settings."""

    @abstractmethod
    def why_incompatible(self, scene: Scene) -> str | None:
        """Why this cannot be drawn of that job, in one line, or None if it can.

        It is asked before the training too: it looks at what there is, not at how it came out.
        """

    @abstractmethod
    def draw(self, scene: Scene) -> Drawn:
        """Figures and animations by the stems of their files.

        A job writes the name that the picture has in it before a stem that does not begin with it.

        What cannot be seen, such as a sampler that does not run on one of the denoisers, is left
        out.
        """


@dataclass(frozen=True, kw_only=True)
class Followed(Picture):
    """A picture of the job's samplers on their way, or of where they end.

    Attributes:
        shown_dim: how many coordinates it shows.

    Args:
        denoisers: their names in the job; null is all.
        start: the name of one of the job's starts; null is the first.
        steps: of the samplers; null is the job's largest number.
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

    def runs(self, scene: Scene) -> list[Run]:
        """What it follows."""
        return scene.runs(denoisers=self.denoisers, start=self.start, steps=self.steps)


def write(drawn: Drawn, directory: Path) -> list[Path]:
    """Write figures as PNG and animations as GIF; returns the files."""
    return [
        picture.save(directory / f"{stem}.gif")
        if isinstance(picture, Animation)
        else save(picture, directory / f"{stem}.png")
        for stem, picture in drawn.items()
    ]

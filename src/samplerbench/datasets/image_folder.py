"""A user's own images: all files in a folder and below it, grey or in colour, in one size.

An image is rotated by its EXIF orientation, resized so that its shorter side has `size` pixels, and
cropped to the square in its middle. Files that cannot be read, or whose names do not end like an
image's, are left out; a warning names them. Of equal images the first one by name is kept. Of an
animation the first frame is used. Transparency is ignored: the stored colour is used.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from samplerbench.datasets.divided import Divided
from samplerbench.datasets.images import divided_images
from samplerbench.errors import first_line, require
from samplerbench.paths import expanded

message = logging.getLogger(__name__)

SUFFIXES = (
    *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)
NAMED = 5  # a warning has at most so many reasons, and names of files for each

Colours = Literal["grey", "rgb"]
_MODES = {"grey": "L", "rgb": "RGB"}


def image_folder(
    path: str,
    size: int = 32,
    colours: Colours = "rgb",
    train: float = 0.5,
    validation: float = 0.1,
    evaluation: float = 0.2,
) -> Divided:
    """The images of a folder between −1 and 1, event shape (1 or 3, size, size).

    Args:
        path: the path of the folder, relative to the current directory; ~ is the home directory.
        size: height and width, in pixels.
        colours: grey converts colours to grey; rgb gives grey images three equal channels.
        train, validation, evaluation: shares of the parts, as in `Divided`.

    Raises:
        InvalidSetting: the folder is invalid; the message says how.
    """
    require(1 <= size <= 4096, "size", size, "between 1 and 4096 pixels")
    require(colours in _MODES, "colours", colours, "grey or rgb")
    images = _read_all(path, lambda file: read(file, colours, size))
    different = len({image.tobytes() for image in images})
    allowed = f"a folder with at least 2 different images, not {different}"
    require(different >= 2, "path", path, allowed)
    return divided_images(np.stack(images), 255.0, train, validation, evaluation)


def read_samples(path: str, shape: tuple[int, ...] | None = None) -> NDArray[np.float64]:
    """All images of a folder without resizing, from −1 to 1, shape (n, channels, height, width).

    Args:
        path: the path of the folder.
        shape: (channels, height, width) of the images to compare with; it determines the colours.
            None for three channels.
    """
    allowed = "a data set of images, or files of numbers in place of folders"
    require(shape is None or len(shape) == 3, "dataset", f"points of shape {shape}", allowed)
    colours: Colours = "grey" if shape is not None and shape[0] == 1 else "rgb"
    images = _read_all(path, lambda file: read(file, colours))
    for image in images:
        wanted = images[0].shape if shape is None else shape
        (_, *found), (_, *size) = image.shape, wanted
        allowed = f"a folder of images of {size[0]} × {size[1]} pixels, not {found[0]} × {found[1]}"
        require(image.shape == wanted, "path", path, allowed)
    return 2 * np.stack(images).astype(np.float64) / 255 - 1


def _read_all(path: str, read_one: Callable[[Path], NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """The images of a folder and its subfolders, by name; a warning lists files left out."""
    folder = expanded(path)
    usable = os.path.isdir(folder) and os.access(folder, os.R_OK | os.X_OK)
    require(usable, "path", path, "a folder that can be read")
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    images: list[NDArray[np.uint8]] = []
    left_out: dict[str, list[str]] = {}  # the names of files, by the reason
    for file in files:
        try:
            if file.suffix.lower() not in SUFFIXES:
                raise ValueError("not the name of an image")
            images.append(read_one(file))
        except Exception as error:  # a broken file may raise anything
            reason = first_line(error).replace(repr(str(file)), "").strip()
            left_out.setdefault(reason, []).append(str(file.relative_to(folder)))
    named = "; ".join(
        f"{', '.join(names[:NAMED])}{f' and {len(names) - NAMED} more' * (len(names) > NAMED)} "
        f"({reason})"
        for reason, names in list(left_out.items())[:NAMED]
    )
    kinds = len(left_out) - NAMED
    named += f"; and {kinds} more reasons" * (kinds > 0)
    allowed = f"a folder with images in it or below: {', '.join(SUFFIXES)}"
    require(len(images) > 0, "path", path, f"{allowed}: {named}".rstrip(": "))
    if left_out:
        counts = sum(map(len, left_out.values())), len(files)
        message.warning("%s: %d of %d files are left out: %s", path, *counts, named)
    return images


def read(file: Path, colours: Colours, size: int | None = None) -> NDArray[np.uint8]:
    """An image, shape (1 or 3, size, size); with its own height and width if size is None.

    Raises:
        Exception: an error of Pillow, for a broken file.
        ValueError: the image has more than 8 bits per channel.
    """
    bomb = Image.DecompressionBombWarning  # a small file may contain more pixels than the memory
    with warnings.catch_warnings(action="error", category=bomb), Image.open(file) as opened:
        if opened.mode.startswith(("I", "F")):
            raise ValueError("it has more than 8 bits a channel")
        upright = ImageOps.exif_transpose(opened).convert(_MODES[colours])
        image = upright
        if size is not None:
            image = ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS)
    array = np.asarray(image)
    return array[None] if colours == "grey" else np.ascontiguousarray(array.transpose(2, 0, 1))

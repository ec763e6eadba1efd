"""A user's own images: all files in a folder and below it, grey or in colour, in one size.

An image is rotated by its EXIF orientation, resized so that its shorter side has `size` pixels, and
cropped to the square in its middle. Files that cannot be read are named in a warning and left out.
Of equal images the first one by name is kept. Of an animation the first frame is used. Transparency
is ignored: the stored colour is used.
"""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from samplerbench.datasets.divided import Divided
from samplerbench.datasets.images import divided_images
from samplerbench.errors import first_line, require

message = logging.getLogger(__name__)

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tiff", ".webp")
NAMED = 5  # the largest number of left-out files that are named

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
        path: of the folder, relative to the current directory; ~ is the home directory.
        size: height and width, in pixels.
        colours: grey converts colours to grey; rgb gives grey images three equal channels.
        train: share of the images to train on.
        validation: share of the images.
        evaluation: share of the images; the floor's part is the rest.

    Raises:
        InvalidSetting: with the folder and its fault.
    """
    require(1 <= size <= 4096, "size", size, "between 1 and 4096 pixels")
    require(colours in _MODES, "colours", colours, "grey or rgb")
    folder = Path(path).expanduser()
    usable = folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)
    require(usable, "path", path, "a folder that can be read")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    allowed = f"a folder with images in it or below: {', '.join(SUFFIXES)}"
    require(len(files) > 0, "path", path, allowed)
    images, unreadable = [], []
    for file in files:
        try:
            images.append(read(file, size, colours))
        except Exception as error:  # the file may have any content
            unreadable.append(f"{file.relative_to(folder)} ({first_line(error)})")
    named = "; ".join(unreadable[:NAMED])
    if len(unreadable) > NAMED:
        named += f"; and {len(unreadable) - NAMED} more"
    if unreadable:
        counts = len(unreadable), len(files)
        message.warning("%s: %d of %d files are left out: %s", path, *counts, named)
    different = len({image.tobytes() for image in images})
    allowed = f"a folder with at least 2 different images, not {different}: {named}".rstrip(": ")
    require(different >= 2, "path", path, allowed)
    return divided_images(np.stack(images), 255.0, train, validation, evaluation)


def read(file: Path, size: int, colours: Colours) -> NDArray[np.uint8]:
    """An image, shape (1 or 3, size, size).

    Raises:
        Exception: of Pillow, for a broken file.
        ValueError: the image has more than 8 bits per channel.
    """
    bomb = Image.DecompressionBombWarning  # a small file may contain more pixels than the memory
    with warnings.catch_warnings(action="error", category=bomb), Image.open(file) as opened:
        if opened.mode.startswith(("I", "F")):
            raise ValueError("it has more than 8 bits a channel")
        upright = ImageOps.exif_transpose(opened).convert(_MODES[colours])
        image = ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS)
    array = np.asarray(image)
    return array[None] if colours == "grey" else np.ascontiguousarray(array.transpose(2, 0, 1))

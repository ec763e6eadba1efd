"""Animals: the 10 000 grey images of 28 × 28 in the package animal-mnist, 9 716 of them distinct.

The package requires tensorflow, which is not needed here. The pixels are one long string of bytes
in a gzipped pickle; only that string is read, and nothing is unpickled. The package is under the
MIT licence.
"""

from __future__ import annotations

import gzip
import pickletools
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samplerbench.datasets.divided import Divided
from samplerbench.datasets.images import divided_images
from samplerbench.errors import InvalidSetting

SHAPE = (10_000, 1, 28, 28)
FILE = Path("data", "Animal_MNIST", "animal_data_version_3.gz")
INSTALL = "pip install --no-deps animal-mnist==0.4"


def animal_mnist(train: float = 0.5, validation: float = 0.1, evaluation: float = 0.2) -> Divided:
    """The animals between −1 and 1, event shape (1, 28, 28), without repetitions.

    For the shares of the images see `Divided`.
    """
    spec = find_spec("animal_mnist")  # does not import it
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    if not folders:
        raise InvalidSetting("needs", "animal-mnist", f"installed: {INSTALL}")
    return divided_images(pixels(Path(folders[0]) / FILE), 255.0, train, validation, evaluation)


def pixels(path: Path) -> NDArray[np.uint8]:
    """The images in a gzipped pickle of one array of bytes with the shape `SHAPE`."""
    size = int(np.prod(SHAPE))
    try:
        with gzip.open(path) as stream:
            for _, argument, _ in pickletools.genops(stream.read()):
                if isinstance(argument, bytes) and len(argument) == size:
                    return np.frombuffer(argument, np.uint8).reshape(SHAPE)
    except (OSError, EOFError, ValueError) as error:
        raise InvalidSetting("needs", path, f"complete ({error}): {INSTALL}") from error
    raise InvalidSetting("needs", path, f"animal-mnist 0.4 with 10 000 images: {INSTALL}")

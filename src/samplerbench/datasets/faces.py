"""Faces: the 100 grey images of 25 × 25 in scikit-image, cut from LFW.

G. B. Huang, M. Ramesh, T. Berg, E. Learned-Miller, "Labeled faces in the wild", University of
Massachusetts, Amherst, Technical Report 07-49, 2007. They need no download, unlike the images of a
pretrained pipeline. A hundred images are few: a network memorises them.
"""

from __future__ import annotations

from samplerbench.datasets.divided import Divided
from samplerbench.datasets.images import divided_images
from samplerbench.errors import needs

FACES = 100  # the next hundred images of the file do not show faces


def faces(train: float = 0.5, validation: float = 0.1, evaluation: float = 0.2) -> Divided:
    """The faces between −1 and 1, event shape (1, 25, 25); shares of the images as in `Divided`."""
    with needs("scikit-image", "images"):
        from skimage.data import lfw_subset  # slow to import
    images = lfw_subset()[:FACES, None]  # type: ignore[no-untyped-call]
    return divided_images(images, 1.0, train, validation, evaluation)

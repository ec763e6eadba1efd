"""Faces: the 100 grey images of 25 × 25 that scikit-image ships, cut from LFW.

G. B. Huang, M. Ramesh, T. Berg, E. Learned-Miller, "Labeled faces in the wild", University of
Massachusetts, Amherst, Technical Report 07-49, 2007. Where there is no network they stand in for
the celebrities of a pretrained pipeline; a hundred are few, and a network learns them by heart.
"""

from __future__ import annotations

from samplerbench.datasets.file import Divided
from samplerbench.datasets.images import divided
from samplerbench.extras import missing

FACES = 100  # after them come as many images without a face


def faces(train: float = 0.5, validation: float = 0.1, evaluation: float = 0.2) -> Divided:
    """The faces between −1 and 1, event shape (1, 25, 25).

    Args:
        train: share of the images to train on.
        validation: share of the images.
        evaluation: share of the images; what the three leave is the floor's.
    """
    try:
        from skimage.data import lfw_subset  # optional, and slow to import
    except ImportError as error:
        raise missing("scikit-image", "images") from error
    images = lfw_subset()[:FACES, None]  # type: ignore[no-untyped-call]
    return divided(images, 1.0, train, validation, evaluation)

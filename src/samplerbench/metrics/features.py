"""Features of images: the vectors that FID and KID compare instead of pixels.

A network φ maps an image to d numbers. A cloud of flattened images x₁, …, x_n becomes the cloud
φ(x₁), …, φ(x_n) in R^d. The network gets images of the shape (n, channels, height, width), with
values between −1 and 1 in the data, in the precision of its weights. Its output for an image must
not depend on other images. The features are compared in double precision.

The shape of square images follows from the number of values: s² in grey, 3·s² in colour; a number
cannot be of both forms.

The standard network is Inception v3 in the conversion of torch-fidelity, which equals the original
up to rounding. It takes bytes in three colours. So a grey image is repeated three times, and pixels
are rounded and clipped to 0, …, 255, as in an image file. Nothing is downloaded, and only numbers
are read from the file of its weights.

Cost: one call of the network per image; for Inception 5.7·10⁹ multiplications, for any image size.

References: C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens, Z. Wojna, Rethinking the Inception
Architecture for Computer Vision, CVPR 2016, arXiv 1512.00567; A. Obukhov et al., High-fidelity
performance metrics for generative models in PyTorch, 2020, doi 10.5281/zenodo.4957738.
"""

from __future__ import annotations

import io
import math
import os
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from samplerbench.core.lazy import Lazy
from samplerbench.errors import InvalidSetting, kind_and_line, missing, require
from samplerbench.identity import identity_of_model
from samplerbench.metrics.base import Distance, MeasuredBy, Measurement, Metric
from samplerbench.paths import expanded

#: Inception's layers, by the number of their features; FID and KID usually use 2048.
LAYERS = (64, 192, 768, 2048)
#: Images per call of the network: 0.3 GB with Inception. Fixed, since it changes the last bits.
IMAGES = 32

Summary = TypeVar("Summary")


@dataclass(frozen=True)
class Features:
    """The features of images by a network."""

    # maps images (n, *shape) to (n, d); further axes are flattened. It is set to evaluation mode,
    # and moved to the device of the points.
    network: InitVar[nn.Module]
    # the shape of an image; None for square images, grey or in three colours
    shape: tuple[int, ...] | None = None
    # identity of the network: its code, parts, attributes and weights; computed here
    digest: str = field(init=False)

    def __post_init__(self, network: nn.Module) -> None:
        shape = self.shape
        good = shape is None or (len(shape) > 0 and all(length >= 1 for length in shape))
        require(good, "shape", shape, "(channels, height, width), each at least 1, or null")
        object.__setattr__(self, "_network", network.eval().requires_grad_(False))
        object.__setattr__(self, "digest", identity_of_model(network))

    def event_shape(self, dim: int) -> tuple[int, ...] | None:
        """The shape of an image with `dim` values; None if there is no such shape."""
        if self.shape is not None:
            return self.shape if math.prod(self.shape) == dim else None
        for channels in (1, 3):
            side = math.isqrt(dim // channels)
            if channels * side**2 == dim:
                return channels, side, side
        return None

    def why_incompatible(self, dim: int) -> str | None:
        """The reason in one line why points of that dimension are not images; None if they are."""
        if self.event_shape(dim) is not None:
            return None
        if self.shape is None:
            return f"{dim} values are not a square image, grey or in three colours; give its shape"
        return f"its images have the shape {self.shape}, and these data have {dim} values"

    @torch.no_grad()
    def __call__(self, points: Tensor) -> Tensor:
        """The features `(n, d)` of images `(n, dim)`, float64, on their device.

        Raises:
            InvalidSetting: the network fails, or its output is not finite.
        """
        network: nn.Module = self.__dict__["_network"]  # not a field: the identity has the digest
        shape = self.event_shape(points.shape[1]) or ()
        weights = next(network.parameters(), torch.empty(0))
        try:
            network.to(points.device)
            images = points.to(weights.dtype).reshape(-1, *shape)
            parts = [network(part).flatten(1) for part in torch.split(images, IMAGES)]
            features = torch.cat(parts).double()
        except Exception as error:  # the network may raise anything
            raise self._refused(f"one that takes them: {kind_and_line(error)}", shape) from error
        good = len(features) == len(points) and features.shape[1] > 0
        if not (good and features.isfinite().all()):
            allowed = f"one with finite features, a row per image, not {tuple(features.shape)}"
            raise self._refused(allowed, shape)
        return features

    def _refused(self, allowed: str, shape: tuple[int, ...]) -> InvalidSetting:
        name = type(self.__dict__["_network"]).__name__
        return InvalidSetting("features", name, f"a network of images {shape}, and {allowed}")


@dataclass(frozen=True)
class FeatureMetric(Metric, Generic[Summary]):
    """A squared distance between features, in their squared units.

    Features of a reference are computed at the first measurement: that may take minutes, and checks
    build distances that are never used.
    """

    is_wasserstein: ClassVar[bool] = False
    features: Features

    @property
    def floor_exponent(self) -> float:
        """1: samples of one law differ by about n^−½, squared; FID falls more slowly at n ≪ d."""
        return 1.0

    def why_incompatible(self, dim: int) -> str | None:
        return self.features.why_incompatible(dim)

    def prepare(self, reference: Tensor, seed: int) -> Distance:
        _require_two(reference, "reference")
        self.features(reference[:2])  # a network that fails must fail before any work
        of_reference = Lazy(lambda: self.summary(self.features(reference)))

        def measure(samples: Tensor) -> Measurement:
            _require_two(samples, "samples")
            return self.between(self.summary(self.features(samples)), of_reference())

        return MeasuredBy(reference.shape[1], measure)

    @abstractmethod
    def summary(self, features: Tensor) -> Summary:
        """The part of features `(n, d)`, float64, that the distance needs."""

    @abstractmethod
    def between(self, samples: Summary, reference: Summary) -> Measurement:
        """The distance between two summaries."""


def _require_two(points: Tensor, name: str) -> None:
    require(len(points) >= 2, f"{name}.shape[0]", len(points), "at least 2")


class Inception(nn.Module):
    """Inception v3 (torch-fidelity's, on bytes) on images between −1 and 1, grey or in colours."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.version = version("torch-fidelity")  # for the identity

    def forward(self, images: Tensor) -> Tensor:
        """The features of images (n, 1 or 3, height, width)."""
        pixels = (127.5 * (images + 1)).round().clamp(0, 255).to(torch.uint8)
        colours = pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels
        features: Tensor = self.network(colours)[0]
        return features


def inception(
    weights: str | None = None, layer: int = 2048, shape: tuple[int, ...] | None = None
) -> Features:
    """The features of the standard network.

    Args:
        weights: the file of its weights; None: the file in torch's folder of downloads.
        layer: one of `LAYERS`.
        shape: the shape of an image; None for square images.

    Raises:
        InvalidSetting: torch-fidelity or the file is missing; the message says what to do.
    """
    require(layer in LAYERS, "layer", layer, f"one of {', '.join(map(str, LAYERS))}")
    extractor, address = _torch_fidelity()
    name = address.rpartition("/")[2]
    kept = Path(torch.hub.get_dir()) / "checkpoints" / name
    path = kept if weights is None else expanded(weights)
    once = f"no job downloads; do it once with curl -L --create-dirs -o '{path}' {address}"
    require(os.path.isfile(path), "weights", path, f"an existing file: {once}")
    with torch.random.fork_rng(devices=[]):  # a network draws weights before it loads them
        try:
            # torch-fidelity unpickles its input, so it gets a file that contains only numbers
            tensors = io.BytesIO()
            torch.save(torch.load(path, map_location="cpu", weights_only=True), tensors)
            tensors.seek(0)
            network = extractor(name, [str(layer)], feature_extractor_weights_path=tensors)
        except Exception as error:  # a broken file may raise anything
            allowed = f"the weights of {address} ({kind_and_line(error)})"
            raise InvalidSetting("weights", path, allowed) from error
    return Features(Inception(network), shape)


def _torch_fidelity() -> tuple[Callable[..., Any], str]:
    """torch-fidelity's network class, and the address of the weights."""
    if find_spec("torch_fidelity") is None:
        raise missing("torch-fidelity", "fid")
    try:
        from torch_fidelity import feature_extractor_inceptionv3 as module
    except Exception as error:  # torchvision for another build of torch raises a RuntimeError
        reason = "its torchvision must be of the same build as torch, CPU or CUDA"
        allowed = f"importable: {reason}, see docs/images.md ({kind_and_line(error)})"
        raise InvalidSetting("needs", "torch-fidelity", allowed) from error
    return module.FeatureExtractorInceptionV3, str(module.URL_INCEPTION_V3)

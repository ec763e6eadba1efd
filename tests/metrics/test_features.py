"""Features of images, and FID and KID of them: definitions, and torchmetrics' own classes."""

from __future__ import annotations

import math
import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from helpers import refused_in_one_line
from samplerbench.core.noise import torch_generator
from samplerbench.errors import InvalidSetting
from samplerbench.identity import describe
from samplerbench.metrics import features as module
from samplerbench.metrics.features import Features, inception
from samplerbench.metrics.fid import FID, inception_fid
from samplerbench.metrics.kid import KID, inception_kid


def network(seed=0, channels=1):
    """A small convolution network with weights of a seed: 8 × 8 pixels to six numbers."""
    made = nn.Sequential(
        nn.Conv2d(channels, 5, 3, stride=2), nn.SiLU(), nn.Flatten(), nn.Linear(45, 6)
    )
    generator = torch_generator("test", seed)
    for values in made.parameters():
        values.data = 0.3 * torch.randn(values.shape, generator=generator)
    return made


@pytest.fixture
def images(states):
    """Two clouds of noise of other widths, shape (70, 64) and (90, 64)."""
    drawn = states(160, 64)
    return 0.4 * drawn[:70] + 0.2, 0.6 * drawn[70:]


def points(dim):
    """The points themselves, in single precision."""
    return Features(nn.Identity(), (dim,))


class TestShapes:
    @pytest.mark.parametrize(
        ("dim", "shape"),
        [(64, (1, 8, 8)), (192, (3, 8, 8)), (1, (1, 1, 1)), (3, (3, 1, 1)), (27, (3, 3, 3))],
    )
    def test_square_images_need_no_shape(self, dim, shape):
        assert points(dim).event_shape(dim) == (dim,)
        assert Features(nn.Identity()).event_shape(dim) == shape

    def test_no_number_is_both_grey_and_in_colours(self):
        grey, colours = ({c * side**2 for side in range(1, 2000)} for c in (1, 3))
        assert not grey & colours

    def test_what_is_no_image_is_told(self):
        reason = FID(Features(nn.Identity())).why_incompatible(65)
        assert (
            reason == "65 values are not a square image, grey or in three colours; give its shape"
        )
        reason = KID(Features(nn.Identity(), (3, 2, 4))).why_incompatible(64)
        assert reason == "its images have the shape (3, 2, 4), and these data have 64 values"
        with pytest.raises(InvalidSetting, match=r"shape=\(1, 0\): must be \(channels, height, wi"):
            Features(nn.Identity(), (1, 0))

    def test_the_network_gets_images_as_they_are(self):
        seen = []

        class Look(nn.Module):
            def forward(self, x):
                seen.append(x)
                return x.flatten(1)

        cloud = torch.arange(24.0).reshape(2, 12)
        assert torch.equal(Features(Look(), (1, 3, 4))(cloud), cloud.double())
        assert torch.equal(seen[0], cloud.reshape(2, 1, 3, 4))

    def test_batches_change_nothing_but_rounding(self, images, monkeypatch):
        features = Features(network())
        before = features(images[0])
        monkeypatch.setattr(module, "IMAGES", 7)
        torch.testing.assert_close(features(images[0]), before, rtol=1e-5, atol=1e-6)

    def test_it_is_put_into_evaluation_mode(self, images):
        layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5))
        features = Features(layers)
        before = [values.clone() for values in layers.state_dict().values()]
        assert torch.equal(features(images[0])[:9], features(images[0][:9]))
        assert all(map(torch.equal, before, layers.state_dict().values()))


class TestFrechet:
    @pytest.mark.parametrize(
        ("n", "m", "d"), [(300, 200, 5), (7, 200, 20), (200, 9, 20), (8, 9, 40)]
    )
    def test_a_trace_of_roots_by_its_definition(self, states, n, m, d):
        x, y = states(n, d) * torch.linspace(0.2, 2, d), states(m, d)
        found = FID(points(d)).against(y, seed=0)(x)
        x, y = x.float().double(), y.float().double()  # a network without weights gets these
        values, vectors = torch.linalg.eigh(x.T.cov())
        root = vectors @ values.clamp(min=0).sqrt().diag() @ vectors.T
        inner = torch.linalg.eigvalsh(root @ y.T.cov() @ root)
        common = inner.clamp(min=0).sqrt().sum()
        means = float((x.mean(0) - y.mean(0)).square().sum())
        covariances = float(x.T.cov().trace() + y.T.cov().trace() - 2 * common)
        # the definition takes roots of rounding errors, d of them
        assert found.value == pytest.approx(means + covariances, abs=2e-6 * d)
        parts = {"means": means, "covariances": covariances}
        assert found.info == pytest.approx(parts, abs=2e-6 * d)

    @pytest.mark.parametrize("seed", [0, 1])
    def test_it_is_that_of_torchmetrics(self, images, seed):
        x, y = images
        layers = network(seed).double()
        layers.num_features = 6  # or they try it on numbers of single precision
        theirs = FrechetInceptionDistance(layers, normalize=True, input_img_size=(1, 8, 8))
        theirs = theirs.set_dtype(torch.float64)
        theirs.update(y.reshape(-1, 1, 8, 8), real=True)
        theirs.update(x.reshape(-1, 1, 8, 8), real=False)
        ours = FID(Features(layers)).against(y, seed=0)(x).value
        assert ours == pytest.approx(float(theirs.compute()), rel=1e-9)


class TestKernel:
    def test_it_is_the_mean_over_pairs(self, states):
        x, y = states(11, 3).float().double(), states(7, 3).float().double()

        def kernel(a, b):
            return (float(a @ b) / 3 + 1) ** 3

        own = [
            math.fsum(kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j)
            / (len(z) * (len(z) - 1))
            for z in (x, y)
        ]
        across = math.fsum(kernel(a, b) for a in x for b in y) / 77
        expected = sum(own) - 2 * across
        assert KID(points(3)).against(y, seed=0)(x).value == pytest.approx(expected, rel=1e-9)

    @pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save")
    def test_it_is_that_of_torchmetrics(self, images):
        """On a subset of all images, whose order does not matter; they need as many of both."""
        x, y = images[0], images[1][:70]
        layers = network().double()
        theirs = KernelInceptionDistance(layers, subsets=1, subset_size=70)
        theirs = theirs.set_dtype(torch.float64)
        theirs.update(y.reshape(-1, 1, 8, 8), real=True)
        theirs.update(x.reshape(-1, 1, 8, 8), real=False)
        ours = KID(Features(layers)).against(y, seed=0)(x).value
        assert ours == pytest.approx(float(theirs.compute()[0]), rel=1e-9)

    def test_pieces_change_nothing(self, images, monkeypatch):
        x, y = images
        before = KID(points(64)).against(y, seed=0)(x).value
        monkeypatch.setattr("samplerbench.metrics.kid.PIECE", 100)
        assert KID(points(64)).against(y, seed=0)(x).value == pytest.approx(before, rel=1e-12)


class TestIdentity:
    def test_it_is_of_parts_and_weights(self):
        same, other = Features(network(0)), Features(network(1))
        assert same == Features(network(0))
        assert describe(FID(same)) == describe(FID(Features(network(0))))
        assert describe(FID(same)) != describe(FID(other))
        assert describe(FID(same)) != describe(FID(Features(network(0), (1, 8, 8))))
        wider = network(0)
        wider[0].stride = (1, 1)  # no weight tells
        assert Features(wider) != same

    def test_names_of_weights_and_their_kinds_count(self):
        layers = nn.ParameterDict({"a": torch.ones(2)})
        assert Features(layers) != Features(nn.ParameterDict({"b": torch.ones(2)}))
        assert Features(network().double()) != Features(network())


class TestRefused:
    @pytest.mark.parametrize("kind", [FID, KID])
    @pytest.mark.parametrize(
        ("layers", "message"),
        [
            (network(channels=3), r"features=Sequential: must be a network of images \(1, 8"),
            (nn.Sequential(nn.Flatten(), nn.Threshold(0, math.nan)),
             "with finite features, a row per image, not"),
            (nn.Sequential(nn.Flatten(), nn.Linear(64, 0)), r"a row per image, not \(\d+, 0\)"),
            (nn.Flatten(0), "one that takes them: IndexError"),
            (nn.AdaptiveMaxPool2d(1, return_indices=True), "one that takes them: AttributeError"),
        ],
    )  # fmt: skip
    def test_a_network_that_fails_does_so_before_any_work(self, kind, layers, message, images):
        with refused_in_one_line(message):
            kind(Features(layers)).against(images[1], seed=0)

    @pytest.mark.parametrize("kind", [FID, KID])
    def test_one_image_has_no_spread(self, kind, images):
        x, y = images
        with pytest.raises(InvalidSetting, match=r"reference.shape\[0\]=1: must be at least 2"):
            kind(points(64)).against(y[:1], seed=0)
        with pytest.raises(InvalidSetting, match=r"samples.shape\[0\]=1: must be at least 2"):
            kind(points(64)).against(y, seed=0)(x[:1])


class Extractor(nn.Module):
    """A network like torch-fidelity's: it unpickles its weights, and its input is bytes."""

    def __init__(self, name, features_list, feature_extractor_weights_path=None):
        super().__init__()
        self.last = nn.Linear(3, int(features_list[0]))
        self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))

    def forward(self, pixels):
        assert pixels.dtype == torch.uint8
        return (self.last(pixels.float().mean((2, 3))),)


@pytest.fixture
def fidelity(monkeypatch, tmp_path):
    """A stand-in for torch-fidelity, and the folder in which torch keeps downloads."""
    package, part = ModuleType("torch_fidelity"), ModuleType("feature_extractor_inceptionv3")
    part.FeatureExtractorInceptionV3 = Extractor
    part.URL_INCEPTION_V3 = "https://example.org/weights.pth"
    package.feature_extractor_inceptionv3 = part
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(module, "version", lambda name: "0")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints" / "weights.pth"


def weights(seed):
    generator = torch_generator("test", seed)
    return {"last.weight": torch.randn(64, 3, generator=generator), "last.bias": torch.zeros(64)}


class TestInception:
    def test_without_torch_fidelity_one_line_says_what_to_install(self, monkeypatch):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
        message = r"needs=torch-fidelity: must be installed: pip install 'samplerbench\[fid\]'"
        with pytest.raises(InvalidSetting, match=message):
            inception_fid()

    def test_a_torchvision_of_another_build_is_named(self, monkeypatch):
        monkeypatch.setattr(module, "find_spec", lambda name: object())
        monkeypatch.setitem(sys.modules, "torch_fidelity", None)
        with pytest.raises(InvalidSetting, match="its torchvision must be of the same build as t"):
            inception_kid()

    def test_without_weights_one_line_says_where_they_belong(self, fidelity):
        with pytest.raises(InvalidSetting) as caught:
            inception_fid()
        said = str(caught.value)
        assert said.startswith(f"weights={fidelity}: must be an existing file: no job downl")
        assert said.endswith(
            f"curl -L --create-dirs -o '{fidelity}' https://example.org/weights.pth"
        )
        assert "\n" not in said

    def test_weights_are_found_where_torch_keeps_them_or_where_one_says(self, fidelity):
        torch.save(weights(0), fidelity)
        found = inception(layer=64)
        elsewhere = fidelity.rename(fidelity.with_name("mine.pth"))
        assert inception(str(elsewhere), layer=64) == found  # the same by their content
        torch.save(weights(1), elsewhere)
        assert inception(str(elsewhere), layer=64) != found

    def test_grey_is_repeated_and_pixels_are_bytes(self, fidelity):
        torch.save(weights(0), fidelity)
        features = inception(layer=64)
        grey = torch.tensor([[-1.0, 1.0, 0.0, 5.0], [-7.0, 0.5, 0.501, 0.25]])
        found = features(grey)
        assert torch.equal(found, features(grey.repeat(1, 3)))
        byte = torch.tensor([[0, 255, 128, 255], [0, 191, 191, 159]]).double().mean(1)
        expected = byte[:, None] * weights(0)["last.weight"].double().sum(1)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)

    def test_what_would_be_executed_is_refused(self, fidelity, tmp_path):
        ran = tmp_path / "ran"

        class Evil:
            def __reduce__(self):
                return ran.touch, ()

        torch.save({"last.weight": Evil()}, fidelity)
        with refused_in_one_line("must be the weights of https"):
            inception_fid()
        assert not ran.exists()

    @pytest.mark.parametrize("content", [b"", b"no weights", None])
    def test_other_files_are_refused_in_one_line(self, fidelity, content):
        if content is None:
            torch.save({"other": torch.ones(2)}, fidelity)
        else:
            fidelity.write_bytes(content)
        with refused_in_one_line("must be the weights of https"):
            inception_fid()

    def test_an_unknown_layer_is_refused(self):
        with pytest.raises(InvalidSetting, match="layer=100: must be one of 64, 192, 768, 2048"):
            inception_fid(layer=100)

    def test_no_global_random_number_is_drawn(self, fidelity):
        torch.save(weights(0), fidelity)
        before = torch.get_rng_state()
        inception(layer=64)
        assert torch.equal(torch.get_rng_state(), before)

    def test_its_version_is_part_of_its_identity(self, fidelity, monkeypatch):
        torch.save(weights(0), fidelity)
        found = inception(layer=64)
        monkeypatch.setattr(module, "version", lambda name: "1")
        assert inception(layer=64) != found


@pytest.mark.parametrize("scale", [2.0**-60, 1e-15, 1e15 / 16])
def test_fid_is_in_squared_units_of_the_features(images, scale):
    x, y = images
    features = Features(nn.Flatten().double(), (64,))
    value = FID(features).against(y, seed=0)(x).value
    found = FID(features).against(scale * y, seed=0)(scale * x).value
    assert found == pytest.approx(scale**2 * value, rel=1e-5, abs=0)


def test_the_digest_is_of_all_that_decides_the_features():
    """Networks of one name and equal weights may differ in attributes or in code."""

    class Scaled(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, images: Tensor) -> Tensor:
            return self.factor * images

    class Shifted(Scaled):
        def forward(self, images: Tensor) -> Tensor:
            return self.factor + images

    Shifted.__qualname__ = Scaled.__qualname__
    Shifted.__name__ = Scaled.__name__
    digests = [Features(kind(x)).digest for kind in (Scaled, Shifted) for x in (1.0, 2.0)]
    assert len(set(digests)) == 4
    assert Features(Scaled(2.0)).digest == digests[1]

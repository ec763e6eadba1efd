"""Image data sets: what they hold, their parts, and what is wrong with a folder."""

from __future__ import annotations

import gzip
import logging
import pickle
import sys
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import refused_in_one_line
from samplerbench.datasets import animal_mnist as animals
from samplerbench.datasets.animal_mnist import animal_mnist
from samplerbench.datasets.digits import digits
from samplerbench.datasets.divided import PARTS, Divided
from samplerbench.datasets.faces import faces
from samplerbench.datasets.image_folder import image_folder
from samplerbench.datasets.images import divided_images
from samplerbench.errors import InvalidSetting
from samplerbench.identity import identity


def everything(data):
    return torch.cat([data.part(name) for name in PARTS])


@pytest.fixture
def folder(tmp_path):
    """24 images of several kinds and sizes, some below, and a text file."""
    (tmp_path / "below").mkdir()
    numbers = np.random.default_rng(0)
    for k in range(24):
        pixels = numbers.integers(0, 256, (20 + k, 30, 3), np.uint8)
        image = Image.fromarray(pixels).convert(("RGB", "L", "RGBA", "P")[k % 4])
        image.save(tmp_path / ("below" if k % 2 else ".") / f"{k:02}.{('png', 'PNG')[k % 2]}")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


@pytest.mark.parametrize(
    ("member", "shape", "count"), [(digits, (1, 8, 8), 1797), (faces, (1, 25, 25), 100)]
)
def test_what_ships_with_packages(member, shape, count):
    data = member()
    x = everything(data)
    assert data.event_shape == shape
    assert data.dim == x.shape[1]
    assert len(x) == len(x.unique(dim=0)) == count
    assert float(x.min()) == -1
    assert float(x.max()) == 1
    assert not data.known_law
    for one, two in combinations(PARTS, 2):  # no image is in two parts
        both = torch.cat([data.part(one), data.part(two)])
        assert len(both.unique(dim=0)) == len(both)
    assert identity(data) == identity(member())
    assert identity(data) != identity(member(train=0.4))


def test_digits_are_the_digits():
    sklearn = pytest.importorskip("sklearn.datasets")
    images = torch.from_numpy(sklearn.load_digits().data / 8 - 1)
    assert torch.equal(everything(digits()).unique(dim=0), images.unique(dim=0))


def test_equal_images_are_kept_once():
    values = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1)[[3, 1, 3, 5, 1, 7, 7, 0]]
    x = everything(divided_images(values, 7.0))
    assert sorted(x.flatten().tolist()) == [2 * v / 7 - 1 for v in (0, 1, 3, 5, 7)]


def test_shape_is_part_of_the_identity():
    values = np.random.default_rng(0).random((10, 1, 2, 8))
    shapes = [(10, 1, 2, 8), (10, 1, 4, 4), (10, 4, 2, 2)]
    sets = [divided_images(values.reshape(shape), 1.0) for shape in shapes]
    assert [data.event_shape for data in sets] == [shape[1:] for shape in shapes]
    assert len({identity(data) for data in sets}) == 3
    flat = Divided(torch.from_numpy(2 * values.reshape(10, -1) - 1))
    assert torch.equal(everything(flat), everything(sets[0]))


def test_without_the_extra_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    monkeypatch.setattr(animals, "find_spec", lambda name: None)
    for member, words in (
        (digits, r"scikit-learn: must be installed: pip install 'samplerbench\[images\]'"),
        (faces, r"scikit-image: must be installed: pip install 'samplerbench\[images\]'"),
        (animal_mnist, "animal-mnist: must be installed: pip install --no-deps animal-mnist"),
    ):
        with refused_in_one_line(words):
            member()


class TestAnimals:
    def test_pixels_are_read_without_unpickling(self, tmp_path):
        images = np.random.default_rng(0).integers(0, 256, animals.SHAPE, np.uint8)
        path = tmp_path / "data.gz"
        path.write_bytes(gzip.compress(pickle.dumps(images[:, 0], protocol=4), 1))
        assert np.array_equal(animals.pixels(path), images)

    @pytest.mark.parametrize(
        ("content", "what"),
        [
            (None, "complete"),
            (b"not gzipped", "complete"),
            (gzip.compress(b"no pickle"), "complete"),
            (gzip.compress(pickle.dumps(np.zeros(5, np.uint8))), "with 10 000 images"),
        ],
        ids=["missing", "not gzipped", "no pickle", "too few"],
    )
    def test_bad_files_end_in_one_line(self, tmp_path, content, what):
        path = tmp_path / "data.gz"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InvalidSetting, match=what) as error:
            animals.pixels(path)
        assert "pip install --no-deps animal-mnist" in str(error.value)
        assert "\n" not in str(error.value)

    def test_the_package(self):
        pytest.importorskip("animal_mnist")
        data = animal_mnist()
        assert data.event_shape == (1, 28, 28)
        assert len(everything(data)) == 9716


class TestFolder:
    @pytest.mark.parametrize(("colours", "channels"), [("grey", 1), ("rgb", 3)])
    def test_every_image_below_it_is_made_one_size(self, folder, colours, channels):
        data = image_folder(str(folder), 16, colours)
        assert data.event_shape == (channels, 16, 16)
        x = everything(data)
        assert x.shape == (24, channels * 256)
        assert float(x.abs().max()) <= 1
        assert identity(data) == identity(image_folder(str(folder), 16, colours))

    def test_an_image_of_the_right_size_keeps_its_pixels(self, tmp_path):
        images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
        for k, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / f"{k}.png")
        x = everything(image_folder(str(tmp_path), 8, "rgb"))
        expected = torch.from_numpy(images.transpose(0, 3, 1, 2).reshape(6, -1) / 127.5 - 1)
        torch.testing.assert_close(x.unique(dim=0), expected.unique(dim=0))

    def test_the_middle_is_cut_out_and_a_camera_turns_it(self, tmp_path):
        wide = np.zeros((10, 30), np.uint8)
        wide[:, 10:20] = 255  # the middle is white, the sides are black
        turned = Image.fromarray(np.tril(np.full((10, 10), 255, np.uint8)))
        orientation = Image.Exif()
        orientation[0x0112] = 3  # upside down
        Image.fromarray(wide).save(tmp_path / "wide.png")
        turned.save(tmp_path / "turned.png", exif=orientation)
        x = everything(
            image_folder(str(tmp_path), 10, "grey", train=1.0, validation=0, evaluation=0)
        )
        white, upside_down = sorted(x.reshape(2, 10, 10), key=lambda image: -float(image.mean()))
        assert (white > 0.9).all()
        assert upside_down[0, -1] > 0.9
        assert upside_down[-1, 0] < 1
        assert torch.equal(
            upside_down, upside_down.new_tensor(np.asarray(turned)[::-1, ::-1] / 127.5 - 1)
        )

    def test_bad_files_are_named_counted_and_left_out(self, folder, caplog):
        (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
        (folder / "below" / "text.jpg").write_text("hello")
        Image.fromarray(np.zeros((9, 9), np.uint16)).save(folder / "deep.png")
        whole = (folder / "00.png").read_bytes()
        (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
        with caplog.at_level(logging.WARNING):
            data = image_folder(str(folder), 8, "grey")
        assert len(everything(data)) == 24
        (record,) = caplog.records
        words = record.getMessage()
        assert "5 of 29 files are left out" in words
        assert "notes.txt (not the name of an image)" in words
        for name in (
            "broken.png",
            "below/text.jpg",
            "deep.png (it has more than 8 bits",
            "cut.png",
        ):
            assert name in words
        assert "\n" not in words

    def test_of_many_bad_files_some_are_named(self, folder, caplog):
        for k in range(9):
            (folder / f"x{k}.png").touch()
        image_folder(str(folder), 8)
        assert "10 of 34 files are left out: notes.txt" in caplog.text
        assert "x0.png, x1.png, x2.png, x3.png, x4.png and 4 more (" in caplog.text
        assert "x5.png" not in caplog.text

    def test_a_bomb_is_a_bad_file(self, folder, caplog, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
        data = image_folder(str(folder), 8)
        assert "decompression bomb" in caplog.text
        assert len(everything(data)) < 24

    @pytest.mark.parametrize(
        ("make", "what"),
        [
            (lambda path: None, "a folder that can be read"),
            (lambda path: path.touch(), "a folder that can be read"),
            (lambda path: path.mkdir(), "a folder with images in it or below: .bmp, "),
        ],
    )
    def test_no_images_end_in_one_line(self, tmp_path, make, what):
        path = tmp_path / "images"
        make(path)
        with refused_in_one_line(what, field="path"):
            image_folder(str(path))

    def test_only_bad_or_equal_images_end_in_one_line(self, tmp_path):
        for k in range(7):
            (tmp_path / f"{k}.png").touch()
        with pytest.raises(InvalidSetting, match=r"with images in it or below: .* 2 more \(.*\)$"):
            image_folder(str(tmp_path))
        for k in range(7):
            Image.new("RGB", (9, 9), "red").save(tmp_path / f"{k}.png")
        with pytest.raises(InvalidSetting, match=r"2 different images, not 1$"):
            image_folder(str(tmp_path))

    @pytest.mark.parametrize(
        ("size", "colours", "field"), [(0, "rgb", "size"), (8, "x", "colours")]
    )
    def test_refuses_impossible_settings(self, folder, size, colours, field):
        with pytest.raises(InvalidSetting, match=f"{field}="):
            image_folder(str(folder), size, colours)

"""Figures and animations are written whole or not at all, in the format of their suffix."""

import os

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from samplerbench.figures.base import Animation, write
from samplerbench.figures.common import Look, looking
from samplerbench.figures.style import save, styled


def animation():
    figure = Figure(figsize=(1, 1), dpi=40)
    (line,) = figure.add_subplot().plot([0.0, 1.0], [0.0, 1.0])
    return Animation(figure, [line], lambda k: line.set_ydata(np.array([0.0, k])), frames=3)


def test_the_suffix_is_the_format(tmp_path):
    figure = Figure(figsize=(1, 1), dpi=40)
    paths = [save(figure, tmp_path / name) for name in ("a.png", "a.b.jpg", "a.pdf")]
    assert [Image.open(path).format for path in paths[:2]] == ["PNG", "JPEG"]
    assert paths[2].read_bytes().startswith(b"%PDF")
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_names_of_files_have_no_spaces(tmp_path):
    figure = Figure(figsize=(1, 1), dpi=40)
    written = write({"quiver_guided 2.5_heun": figure, "w guided 2": animation()}, tmp_path)
    assert [path.name for path in written] == ["quiver_guided_2.5_heun.png", "w_guided_2.gif"]


def test_a_look_has_the_formats_and_the_same_figure_is_the_same_file(tmp_path):
    names = ["a.pdf", "a.png", "a.svg", "b.gif"]
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        figure = Figure(figsize=(1, 1), dpi=40)
        figure.add_subplot().plot([0.0, 1.0], [0.0, 1.0])
        with looking(Look(format=("png", "pdf", "svg"))):
            written = write({"a": figure, "b": animation()}, tmp_path / folder)
        assert sorted(path.name for path in written) == names
    for name in names:
        one, other = ((tmp_path / folder / name).read_bytes() for folder in ("one", "other"))
        assert one == other


@pytest.mark.parametrize("drawing", [Figure(figsize=(1, 1), dpi=40), animation()])
def test_after_an_error_nothing_is_left_and_the_old_file_stays(tmp_path, monkeypatch, drawing):
    (path,) = write({"a": drawing}, tmp_path)
    before = path.read_bytes()
    used = set()

    def full(place, *_args, **_settings):
        used.add(place)
        place.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", lambda _, place, **settings: full(place))
    monkeypatch.setattr(Image.Image, "save", lambda _, place, **settings: full(place))
    monkeypatch.setattr(os, "getpid", lambda: 7)  # as on another host
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            write({"a": drawing}, tmp_path)
    assert len(used) == 2
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_the_users_own_settings_of_matplotlib_change_no_figure(tmp_path, monkeypatch):
    def drawn(name):
        with mpl.rc_context(styled()):
            figure = Figure(figsize=(2, 2))
            figure.add_subplot().plot([0.0, 1.0], [0.0, 1.0], label="a")
        return save(figure, tmp_path / name).read_bytes()

    plain = drawn("a.png")
    monkeypatch.setitem(mpl.rcParams, "font.family", ["monospace"])
    monkeypatch.setitem(mpl.rcParams, "lines.solid_capstyle", "round")
    monkeypatch.setitem(mpl.rcParams, "axes.linewidth", 5.0)
    backend = mpl.rcParams["backend"]
    assert drawn("b.png") == plain
    assert mpl.rcParams["axes.linewidth"] == 5.0
    assert mpl.rcParams["backend"] == backend
    assert "backend" not in styled()

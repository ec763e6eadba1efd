"""The panel of images: the place of each image, grey and colour, and jobs that it refuses."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from samplerbench.core import grids
from samplerbench.datasets.divided import Divided
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.datasets.unseen import Unseen
from samplerbench.figures.image_panel import ImagePanel, montage
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.heun import Heun


@pytest.fixture
def job(scene_of):
    """Two settings of DDIM and Heun on images of a shape, with 3 and 6 steps."""

    def build(shape, **changes):
        pixels = 2 * torch.rand(400, *shape, generator=torch.Generator().manual_seed(0)) - 1
        samplers = [("ddim", DDIM(0.0)), ("ddim", DDIM(1.0)), ("heun", Heun())]
        grid = functools.partial(grids.karras, noise_min=0.02, rho=5.0)
        settings = {"samplers": samplers, "steps": [3, 6], "grid": grid, **changes}
        return scene_of(Divided(pixels.double()), learned=False, **settings)

    return build


def panels_of(figure, rows, columns):
    return np.array(figure.axes).reshape(rows, columns)


def shown(axes):
    return np.asarray(axes.get_images()[0].get_array())


def test_images_are_side_by_side_with_white_between():
    x = torch.stack([torch.full((4,), value) for value in (-1.0, 0.0, 1.0)])
    canvas = montage(x, (1, 2, 2))[..., 0]
    assert canvas.shape == (5, 5)
    assert (canvas[:2, :2] == 0).all()
    assert (canvas[:2, 3:] == 0.5).all()
    assert (canvas[2:, 2:] == 1).all()  # a white image, and no fourth one
    assert (canvas[:, 2] == 1).all()
    canvas = montage(torch.tensor([[torch.nan, -torch.inf, torch.inf, 0.0]]), (1, 2, 2))
    assert canvas.flatten().tolist() == [1, 0, 1, 0.5]


def test_channels_come_last_and_are_clipped():
    image = torch.arange(12.0).reshape(3, 2, 2) / 4 - 1.5  # from −1.5 to 1.25
    canvas = montage(image.reshape(1, 12), (3, 2, 2))
    assert canvas.shape == (2, 2, 3)
    expected = (image.clamp(-1, 1) + 1) / 2
    assert np.allclose(canvas, expected.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("channels", [1, 3])
def test_a_row_for_each_setting_and_a_column_for_each_number_of_steps(channels, job):
    shape = (channels, 4, 4)
    scene = job(shape)
    figures = ImagePanel(images=4).draw(scene)
    assert list(figures) == ["image_panel_oracle"]
    panels = panels_of(figures["image_panel_oracle"], 4, 2)
    assert [axes.get_ylabel() for axes in panels[:, 0]] == ["ddim η=0", "ddim η=1", "heun", "data"]
    assert [axes.get_xlabel() for axes in panels[2]] == ["N = 3", "N = 6"]
    for place, run in enumerate(scene.runs(steps=6)):
        path = scene.follow(run, chains=4, every=1)
        canvas = montage(path.x[-1], shape)
        assert np.allclose(shown(panels[place, 1]), canvas[..., 0] if channels == 1 else canvas)
        first = scene.follow(scene.runs(steps=3)[0], chains=4, every=1).x[0]
        assert torch.equal(path.x[0], first)  # the same noise in all panels
    two_steps = ImagePanel(images=1, denoisers=("oracle",), steps=(2,)).draw(scene)
    assert len(two_steps["image_panel_oracle"].axes) == 4


def test_fewer_data_than_columns_leave_places_empty(job):
    for count in (1, 2, 3):
        train = torch.linspace(-1, 1, count * 16, dtype=torch.float64).reshape(count, 16)
        scene = job((1, 4, 4), train=train, steps=[2, 3, 4, 5], samplers=[("ddim", DDIM(0.0))])
        data = panels_of(ImagePanel(images=1).draw(scene)["image_panel_oracle"], 2, 4)[1]
        assert [axes.get_visible() for axes in data] == [place < count for place in range(4)]
        for axes, image in zip(data, train, strict=False):
            assert np.allclose(shown(axes), (image.reshape(4, 4) + 1) / 2)


def test_missing_data_have_no_row(job):
    scene = replace(job((1, 4, 4)), dataset=Unseen((1, 4, 4)), train=torch.empty(0, 0))
    panels = panels_of(ImagePanel(images=1).draw(scene)["image_panel_oracle"], 3, 2)
    assert [axes.get_xlabel() for axes in panels[2]] == ["N = 3", "N = 6"]


def test_other_data_and_unknown_denoisers_are_refused(job):
    for shape in ((2, 4, 4), (16,)):
        assert "images of 1 or 3 channels" in ImagePanel().why_incompatible(job(shape))
    scene = job((1, 4, 4))
    assert "oracle" in ImagePanel(denoisers=("learned",)).why_incompatible(scene)
    assert "(2,)" in ImagePanel().why_incompatible(replace(scene, dataset=grid_mixture()))

"""The panel of images: what stands where, in grey and in colour, and what it refuses to show."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from samplerbench import grids
from samplerbench.datasets.file import Divided
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.datasets.unseen import Unseen
from samplerbench.errors import InvalidSetting
from samplerbench.evaluation.scene import Scene
from samplerbench.figures.image_panel import ImagePanel, montage
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.heun import Heun
from samplerbench.schedules import VPLinear
from samplerbench.starts import Prior

SCHEDULE = VPLinear()


def scene_of(shape, **settings):
    rows = 2 * torch.rand(200, *shape, generator=torch.Generator().manual_seed(0)) - 1
    data = Divided(rows.double())
    given = {
        "dataset": data,
        "schedule": SCHEDULE,
        "grid": functools.partial(grids.trailing, train_steps=1000),
        "denoisers": {"oracle": data.oracle(SCHEDULE)},
        "starts": {"prior": Prior()},
        "samplers": [("ddim", DDIM(0.0)), ("ddim", DDIM(1.0)), ("heun", Heun())],
        "steps": [3, 6],
    }
    return Scene(**{**given, **settings})


def shown(axes):
    return np.asarray(axes.get_images()[0].get_array())


def test_images_stand_side_by_side_with_white_between():
    x = torch.stack([torch.full((4,), value) for value in (-1.0, 0.0, 1.0)])
    canvas = montage(x, (1, 2, 2))[..., 0]
    assert canvas.shape == (5, 5)
    assert (canvas[:2, :2] == 0).all()
    assert (canvas[:2, 3:] == 0.5).all()
    assert (canvas[2:, 2:] == 1).all()  # white, and nothing where there is no fourth image
    assert (canvas[:, 2] == 1).all()


def test_channels_come_last_and_are_cut_off():
    image = torch.arange(12.0).reshape(3, 2, 2) / 4 - 1.5  # from −1.5 to 1.25
    canvas = montage(image.reshape(1, 12), (3, 2, 2))
    assert canvas.shape == (2, 2, 3)
    expected = (image.clamp(-1, 1) + 1) / 2
    assert np.allclose(canvas, expected.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("channels", [1, 3])
def test_a_row_a_setting_a_column_a_number_of_steps(channels):
    shape = (channels, 4, 4)
    scene = scene_of(shape)
    (drawn,) = ImagePanel(images=4).draw(scene).items()
    stem, figure = drawn
    assert stem == "image_panel_oracle"
    panels = np.array(figure.axes).reshape(4, 2)
    assert [axes.get_ylabel() for axes in panels[:, 0]] == ["ddim η=0", "ddim η=1", "heun", "data"]
    assert [axes.get_xlabel() for axes in panels[2]] == ["N = 3", "N = 6"]
    for place, run in enumerate(scene.runs(steps=6)):
        x = scene.follow(run, chains=4, every=1).x[-1]
        canvas = montage(x, shape)
        assert np.allclose(shown(panels[place, 1]), canvas[..., 0] if channels == 1 else canvas)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_data_than_columns_leave_places_empty(count):
    shape = (1, 4, 4)
    train = torch.linspace(-1, 1, count * 16, dtype=torch.float64).reshape(count, 16)
    scene = scene_of(shape, train=train, steps=[2, 3, 4, 5], samplers=[("ddim", DDIM(0.0))])
    figure = ImagePanel(images=1).draw(scene)["image_panel_oracle"]
    data = np.array(figure.axes).reshape(2, 4)[1]
    assert [axes.get_visible() for axes in data] == [place < count for place in range(4)]
    for axes, image in zip(data, train, strict=False):
        assert np.allclose(shown(axes), (image.reshape(4, 4) + 1) / 2)


def test_data_that_are_not_here_have_no_row():
    law = Unseen((1, 4, 4))
    denoisers = scene_of((1, 4, 4)).denoisers
    figure = ImagePanel(images=1).draw(scene_of((1, 4, 4), dataset=law, denoisers=denoisers))
    panels = np.array(figure["image_panel_oracle"].axes).reshape(3, 2)
    assert [axes.get_xlabel() for axes in panels[2]] == ["N = 3", "N = 6"]


def test_what_is_not_finite_is_white():
    canvas = montage(torch.tensor([[torch.nan, -torch.inf, torch.inf, 0.0]]), (1, 2, 2))
    assert canvas.flatten().tolist() == [1, 0, 1, 0.5]


def test_all_begin_with_the_same_noise():
    scene = scene_of((1, 4, 4))
    firsts = [
        scene.follow(run, chains=4, every=1).x[0]
        for steps in (3, 6)
        for run in scene.runs(steps=steps)
    ]
    assert all(torch.equal(first, firsts[0]) for first in firsts)


def test_steps_and_denoisers_can_be_chosen():
    figures = ImagePanel(images=1, denoisers=("oracle",), steps=(2,)).draw(scene_of((1, 4, 4)))
    assert len(figures["image_panel_oracle"].axes) == 4


@pytest.mark.parametrize("shape", [(2, 4, 4), (16,)])
def test_what_is_no_image_is_refused(shape):
    reason = ImagePanel().why_incompatible(scene_of(shape))
    assert reason is not None
    assert "images of 1 or 3 channels" in reason


def test_what_the_job_has_not_is_refused():
    assert ImagePanel(denoisers=("learned",)).why_incompatible(scene_of((1, 4, 4))) is not None
    law = grid_mixture()
    scene = scene_of((1, 4, 4), dataset=law)
    assert "(2,)" in str(ImagePanel().why_incompatible(scene))


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"images": 0}, "images"), ({"steps": ()}, "steps"), ({"steps": (0,)}, "steps")],
)
def test_refuses_impossible_settings(settings, field):
    with pytest.raises(InvalidSetting, match=f"^{field}="):
        ImagePanel(**settings)

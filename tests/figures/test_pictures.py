"""Every member of conf/picture draws a small real job; a path is reproducible and bounded."""

import copy
import functools
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from PIL import Image

from samplerbench import grids
from samplerbench.app.construct import construct
from samplerbench.app.folders import conf_directory
from samplerbench.datasets.file import Divided
from samplerbench.datasets.four_well import FourWell
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_mixture import isotropic
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.errors import InvalidSetting
from samplerbench.evaluation.scene import Scene
from samplerbench.figures.band_1d import Band1D
from samplerbench.figures.base import Animation, Followed, write
from samplerbench.figures.chain import Chain
from samplerbench.figures.densities_1d import Densities1D, level_at
from samplerbench.figures.loss import Loss
from samplerbench.figures.noised_data import NoisedData
from samplerbench.figures.noising import Noising
from samplerbench.figures.panels import law_density, reach
from samplerbench.figures.quiver import Quiver, _arrows
from samplerbench.figures.samples import Samples
from samplerbench.figures.score_heatmap import ScoreHeatmap
from samplerbench.figures.series_1d import Series1D
from samplerbench.figures.side_by_side import SideBySide
from samplerbench.grids import Level
from samplerbench.models import Learned, LevelFree
from samplerbench.networks.residual_mlp import ResidualMLP
from samplerbench.noise import KeyedNoise
from samplerbench.samplers.annealed_langevin import AnnealedLangevin
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.reverse_sde import ReverseSDE
from samplerbench.samplers.ula import ULA
from samplerbench.schedules import EDM, VPLinear
from samplerbench.starts import Exact, FixedGaussian, Prior
from samplerbench.targets import EDMTarget

SCHEDULE = EDM(10.0)
KARRAS = functools.partial(grids.karras, noise_min=0.02, rho=5.0)
HOLD = functools.partial(grids.hold, noise=1.0)
LINE = isotropic((0.3, 0.7), ((-1.0,), (0.5,)), 0.04)
YAMLS = sorted((conf_directory() / "picture").glob("*.yaml"))
# small enough for a test, where a member has it
SMALL = {"chains": 20, "points": 100, "frames": 5, "mesh": 9, "cells": 10, "every": 2}


def scene_of(dataset, *, learned=True, **settings):
    train = dataset.draws(200, "train", 0)
    denoisers = {"oracle": dataset.oracle(SCHEDULE)}
    untrained = None
    if learned:
        network = ResidualMLP(dataset.dim, 0, width=16)
        untrained = Learned(network, EDMTarget(), SCHEDULE, train.mean(0), float(train.std()))
        denoisers = {"learned": copy.deepcopy(untrained), **denoisers}
    steps = np.arange(10, 100, 10)
    losses = pd.DataFrame({"step": steps, "name": "train", "loss": 100.0 / steps})
    given = {
        "dataset": dataset,
        "schedule": SCHEDULE,
        "grid": KARRAS,
        "denoisers": denoisers,
        "starts": {"prior": Prior(), "exact": Exact()},
        "samplers": [("ddim", DDIM(0.2)), ("ddim", DDIM(1.0))],
        "steps": [4, 8],
        "untrained": untrained,
        "train": train,
        "losses": losses,
    }
    return Scene(**{**given, **settings})


def member(path):
    node = next(iter(OmegaConf.create({path.stem: OmegaConf.load(path)}).values()))
    return construct(node, f"picture.{path.stem}")


def small(picture):
    names = {field.name for field in fields(picture)}
    return replace(picture, **{name: size for name, size in SMALL.items() if name in names})


@pytest.fixture(scope="module")
def plane():
    return scene_of(grid_mixture())


@pytest.fixture(scope="module")
def line():
    return scene_of(LINE)


@pytest.fixture(scope="module")
def trajectory():
    return scene_of(FourWell(steps=300))


@pytest.fixture(scope="module")
def images():
    return scene_of(Divided(torch.rand(500, 1, 4, 4, generator=torch.Generator().manual_seed(0))))


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_every_member_draws_and_is_written(path, plane, line, trajectory, images, tmp_path):
    picture = small(member(path))
    if isinstance(picture, Followed):
        picture = replace(picture, denoisers=("learned",))
    scenes = (plane, line, trajectory, images)
    scene = next(s for s in scenes if picture.why_incompatible(s) is None)
    drawn = picture.draw(scene)
    assert drawn
    files = write(drawn, tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(files)  # nothing else is left behind
    for (stem, drawing), file in zip(drawn.items(), files, strict=True):
        assert stem.startswith(path.stem)
        assert file.stem == stem
        with Image.open(file) as image:
            if isinstance(drawing, Animation):
                assert image.format == "GIF"
                assert image.n_frames == drawing.frames
                assert max(image.size) <= 720
                assert file.stat().st_size < 1_000_000
            else:
                assert isinstance(drawing, Figure)
                assert image.format == "PNG"


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_every_yaml_holds_all_settings_at_their_defaults(path):
    picture = member(path)
    assert set(OmegaConf.load(path)) - {"_target_"} == {field.name for field in fields(picture)}
    assert picture == type(picture)()


def test_all_axes_are_labelled(plane, line, trajectory, images):
    for path in YAMLS:
        picture = small(member(path))
        if isinstance(picture, Followed):
            picture = replace(picture, denoisers=("oracle",))
        scenes = (plane, line, trajectory, images)
        scene = next(s for s in scenes if picture.why_incompatible(s) is None)
        for drawing in picture.draw(scene).values():
            figure = drawing.figure if isinstance(drawing, Animation) else drawing
            panels = [axes for axes in figure.axes if axes.get_visible()]
            assert any(axes.get_xlabel() for axes in panels), path.stem
            assert any(axes.get_ylabel() for axes in panels), path.stem


@pytest.mark.parametrize(
    "picture", [Quiver(), SideBySide(), Noising()], ids=lambda p: type(p).__name__
)
def test_an_animation_is_the_same_pixels_each_time_and_moves(picture, plane):
    first, again = (next(iter(small(picture).draw(plane).values())) for _ in range(2))
    frames = list(first.images())
    assert len(frames) == first.frames
    for frame, other in zip(frames, again.images(), strict=True):
        assert np.array_equal(frame, other)
    assert all((a != b).any() for a, b in pairwise(frames))
    # a frame does not depend on those before it
    assert np.array_equal(next(first.images([2])), frames[2])


def test_a_gif_shows_its_frames(plane, tmp_path):
    animation = next(iter(small(SideBySide()).draw(plane).values()))
    path = animation.save(tmp_path / "a.gif")
    with Image.open(path) as image:
        for number, pixels in enumerate(animation.images()):
            image.seek(number)
            shown = np.asarray(image.convert("RGB")).astype(int)
            assert abs(shown - pixels).mean() < 1
            assert (shown[0, 0] == 255).all()  # white stays white
        assert image.info["duration"] == animation.rest


class TestPaths:
    def test_every_kth_state_and_both_ends_are_kept(self, plane):
        ddim = DDIM(1.0)
        all_states = plane.paths("oracle", "prior", ddim, 10, chains=5)
        some = plane.paths("oracle", "prior", ddim, 10, chains=5, every=4)
        assert all_states.steps == list(range(11))
        assert some.steps == [0, 4, 8, 10]
        assert torch.equal(some.x, all_states.x[some.steps])
        rows = plane.levels(10).rows
        assert some.levels == [rows[step] for step in some.steps]

    def test_a_long_chain_is_a_few_frames(self):
        scene = scene_of(LINE, learned=False, grid=HOLD, samplers=[("ula", ULA())], steps=[3000])
        (run,) = scene.runs()
        path = scene.follow(run, chains=1, every=1000)
        assert path.x.shape == (4, 1, 1)
        assert path.x.dtype == torch.float64
        assert run.every(4) == 1000

    def test_it_is_what_the_sampler_does_with_its_keys(self, plane):
        levels = plane.levels(8)
        x = Prior().draw(plane.dataset, 6, levels.rows[0], ("picture", 0, 0))
        noise = KeyedNoise(("picture", 0))
        end = final_state(DDIM(1.0), plane.denoisers["oracle"], x, levels, noise)
        path = plane.paths("oracle", "prior", DDIM(1.0), 8, chains=6, every=3)
        assert torch.equal(path.x[0], x)
        assert torch.equal(path.x[-1], end)

    def test_another_seed_is_another_path(self, plane):
        one = plane.paths("oracle", "prior", DDIM(), 4, chains=3)
        other = replace(plane, seed=1).paths("oracle", "prior", DDIM(), 4, chains=3)
        assert not torch.equal(one.x, other.x)

    def test_the_last_level_is_the_one_that_the_state_has(self):
        scene = scene_of(LINE, samplers=[("annealed", AnnealedLangevin())])
        path = scene.paths("oracle", "prior", AnnealedLangevin(), 8, chains=3)
        assert path.levels[-1].sigma == pytest.approx(0.02)
        denoised = scene.paths("oracle", "prior", AnnealedLangevin(denoise=True), 8, chains=3)
        assert denoised.levels[-1].sigma == 0

    def test_a_sampler_that_cannot_run_says_why(self, plane):
        with pytest.raises(ValueError, match="ULA stays at one noise level"):
            plane.paths("oracle", "prior", ULA(), 4, chains=3)


class TestRuns:
    def test_only_what_can_run_is_followed(self):
        free = LevelFree(ResidualMLP(2, 0, width=8), 1.0, torch.zeros(2))
        dataset = grid_mixture()
        denoisers = {"learned": free, "oracle": dataset.oracle(SCHEDULE)}
        scene = scene_of(dataset, denoisers=denoisers)
        assert {run.denoiser for run in scene.runs()} == {"oracle"}
        scene = scene_of(
            dataset, denoisers=denoisers, grid=HOLD, samplers=[("ula", ULA()), ("ddim", DDIM())]
        )
        assert [(r.denoiser, r.label) for r in scene.runs()] == [
            ("learned", "ula"),
            ("oracle", "ula"),
        ]
        assert list(small(Quiver()).draw(scene)) == ["quiver_learned_ula", "quiver_oracle_ula"]

    def test_settings_of_one_name_are_told_apart(self):
        samplers = [("ula", ULA(0.1)), ("ula", ULA(0.01)), ("ddim", DDIM(0.5))]
        scene = scene_of(LINE, learned=False, samplers=samplers)
        assert scene._labels() == ["ula step_size=0.1", "ula step_size=0.01", "ddim η=0.5"]
        assert [run.stem for run in scene.runs()] == ["ddim_eta0.5"]


class TestIncompatible:
    @pytest.mark.parametrize(
        "path",
        [path for path in YAMLS if path.stem != "loss"],  # which does not look at the data
        ids=lambda path: path.stem,
    )
    def test_data_of_another_dimension_are_refused_in_one_line(self, path):
        cube = isotropic((1.0,), ((0.0, 0.0, 0.0),), 1.0)
        reason = member(path).why_incompatible(scene_of(cube))
        assert reason is not None
        assert "\n" not in reason
        assert any(word in reason for word in ("dimension", "trajectory", "image"))

    def test_it_is_known_before_the_training(self, plane):
        before = replace(plane, losses=plane.losses.iloc[:0])
        assert Loss().why_incompatible(before) is None
        assert "denoiser learned" in Loss().why_incompatible(
            scene_of(grid_mixture(), learned=False, losses=plane.losses.iloc[:0])
        )

    def test_no_sampler_that_runs(self):
        scene = scene_of(grid_mixture(), grid=HOLD)
        assert "stand still" in Samples().why_incompatible(scene)
        assert "one noise level" in Noising().why_incompatible(scene)

    def test_unknown_names_are_named(self, plane):
        assert "prior, exact" in Samples(start="gauss").why_incompatible(plane)
        assert "learned, oracle" in Samples(denoisers=("empirical",)).why_incompatible(plane)

    def test_no_trajectory(self, line):
        assert "four_well" in Series1D().why_incompatible(line)


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: NoisedData(noise=0.0), "noise"),
        (lambda: NoisedData(half_width=(1.0, -1.0)), "half_width"),
        (lambda: Samples(steps=0), "steps"),
        (lambda: Chain(every=0), "every"),
        (lambda: Quiver(frames=1), "frames"),
        (lambda: Densities1D(times=(0.5, 1.5)), "times"),
        (lambda: Densities1D(times=()), "times"),
        (lambda: ScoreHeatmap(low=1.0, high=1.0), "high"),
        (lambda: Band1D(chains=0), "chains"),
    ],
)
def test_a_bad_setting_is_refused_by_name(build, field):
    with pytest.raises(InvalidSetting) as caught:
        build()
    assert caught.value.field == field


def test_the_heatmaps_colours_end_where_97_percent_of_the_last_panel_do():
    scene = scene_of(LINE, learned=False)
    figure = ScoreHeatmap(cells=40).draw(scene)["score_heatmap"]
    image = figure.axes[0].get_images()[0]
    sizes = np.sort(np.abs(np.asarray(image.get_array())).ravel())
    place = 0.97 * (len(sizes) - 1)
    low = int(place)
    expected = sizes[low] + (place - low) * (sizes[low + 1] - sizes[low])
    assert image.norm.vmax == -image.norm.vmin == pytest.approx(expected, rel=1e-12)


def test_the_axes_reach_as_far_for_many_points_as_for_few():
    for count in (10**4, 2**24 + 1):
        cloud = torch.linspace(0, 1, count).repeat_interleave(2).reshape(-1, 2)
        cloud[-1] = 1e6  # one far away is not shown, however many there are
        assert reach([cloud], None) == pytest.approx((1.1 * 0.99, 1.1 * 0.99), rel=1e-3)


def test_the_arrows_keep_the_directions_of_the_score():
    dataset = grid_mixture()
    scene, model = scene_of(dataset, learned=False), dataset.oracle(SCHEDULE)
    mesh = Quiver()._mesh()
    for level in (Level(1.0, 1.0, 10.0), Level(0.1, 1.0, 1.0)):
        score, arrows = model.score(mesh, level), _arrows(model, mesh, level, scene)
        length = score.norm(dim=-1)
        cosine = (score * arrows).sum(-1) / (length * arrows.norm(dim=-1))
        assert torch.allclose(cosine, torch.ones_like(cosine))
        assert float(arrows.norm(dim=-1).max()) <= 1 + 1e-12
        uncut = arrows.norm(dim=-1) < 1 - 1e-9
        factor = (arrows.norm(dim=-1) / length)[uncut]
        assert float(factor.max() - factor.min()) < 1e-12 * float(factor.max())  # one for all
        assert int(uncut.sum()) >= 0.94 * len(mesh)


def held(noise, **settings):
    grid = functools.partial(grids.hold, noise=noise)
    return scene_of(grid_mixture(), learned=False, grid=grid, **settings)


def test_chains_that_leave_the_frame_are_counted():
    starts = {"gaussian": FixedGaussian(0.0, 12.0)}
    scene = held(1.0, samplers=[("ula", ULA(1e-6))], starts=starts, steps=[10])  # they stand
    (run,) = scene.runs()
    x = scene.follow(run, chains=20, every=10).x[0]
    present = int((x.abs() <= 15).all(-1).sum())
    assert 0 < present < 20
    (animation,) = small(Quiver()).draw(scene).values()
    said = [artist for artist in animation.moving if hasattr(artist, "get_text")]
    for frame in range(animation.frames):
        animation.update(frame)
        assert said[0].get_text().splitlines()[2] == f"{present} of 20 in the frame"
    near = held(1.0, samplers=[("ula", ULA(1e-6))], starts={"g": FixedGaussian(0.0, 1.0)})
    (animation,) = small(Quiver()).draw(near).values()
    animation.update(0)
    assert "frame" not in animation.moving[-1].get_text()


def test_the_quiver_says_what_its_colours_are():
    scene = held(1.0, samplers=[("ula", ULA(0.1))])
    (animation,) = small(Quiver()).draw(scene).values()
    (legend,) = animation.figure.legends
    (axes,) = animation.figure.axes
    named = {
        text.get_text(): handle.get_color()
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }
    drawn = {line.get_color() for line in axes.lines}
    assert list(named) == ["score", "data", "chains"]
    assert drawn == {named["data"], named["chains"]}
    pixels = 450 / (animation.figure.get_figwidth() * 100)
    sizes = [text.get_fontsize() for text in (*legend.get_texts(), *axes.get_xticklabels())]
    sizes += [axes.xaxis.label.get_fontsize(), animation.moving[-1].get_fontsize()]
    assert min(sizes) * pixels >= 11


@pytest.mark.parametrize("noise", [3.0, 0.0])
def test_a_chain_stands_before_its_own_law(noise):
    scene = held(noise, samplers=[("ula", ULA(0.1))], train=grid_mixture().draws(2000, "train", 0))
    (figure,) = Chain(every=2).draw(scene).values()
    law = np.stack(figure.axes[0].lines[0].get_data(), -1)
    spread = (law - scene.data(2000).numpy()).std(0)
    assert spread == pytest.approx([noise, noise], rel=0.05)
    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words[-1] == "the chain"
    assert words[0] == ("the law at its level: data + σ·ε, σ = 3" if noise else "data")


def test_states_that_keep_their_last_noise_say_so():
    """In the units of the data: the last level with noise is α·x₀ + σ·ε, here α = .6."""
    grid = functools.partial(grids.uniform, t_max=0.5)
    plane = scene_of(grid_mixture(), schedule=VPLinear(), grid=grid, learned=False)
    levels = plane.levels(2)
    for sampler, sigma in ((DDIM(), 0.0), (ReverseSDE(denoise=False), None)):
        paths = plane.paths("oracle", "exact", sampler, 2, chains=3)
        assert [level.t for level in paths.levels[:2]] == levels.t[:2].tolist()
        last = levels.rows[1]
        assert 0.3 < last.alpha < 0.95
        assert paths.levels[2].alpha == 1
        want = last.sigma / last.alpha if sigma is None else sigma
        assert paths.levels[2].sigma == pytest.approx(want)


def test_the_densities_are_those_of_the_noised_data():
    data = gaussian([1.0], [[0.25]])
    scene = scene_of(data, learned=False, train=data.draws(20_000, "train", 0))
    figure = Densities1D(times=(0.1, 1.0)).draw(scene)["densities_1d"]
    for t, curve in zip((0.1, 1.0), figure.axes[0].lines, strict=False):
        x, y = curve.get_xdata(), curve.get_ydata()
        variance = 0.25 + level_at(SCHEDULE, t).sigma ** 2
        exact = np.exp(-((x - 1) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
        assert abs(y - exact).max() < 0.01 * exact.max()


def test_the_law_is_that_of_the_mixture_or_of_the_long_run(line, trajectory, plane):
    x = torch.linspace(-3, 3, 4001, dtype=torch.float64)
    for scene in (line, trajectory):
        assert float(torch.trapezoid(law_density(scene, x), x)) == pytest.approx(1, abs=1e-6)
    assert law_density(plane, x) is None


def test_the_band_of_one_known_datum_holds_its_chains(tmp_path):
    point = gaussian([0.0], [[0.0]])
    scene = scene_of(point, learned=False, steps=[100], train=torch.empty(0, 0))
    assert law_density(scene, torch.zeros(3, dtype=torch.float64)) is None
    path = scene.paths("oracle", "prior", DDIM(1.0), 100, chains=200)
    sigma = torch.tensor([level.sigma for level in path.levels])
    inside = path.x[:-1, :, 0].abs() <= 3 * sigma[:-1, None]
    assert float(inside.double().mean()) == pytest.approx(0.9973, abs=0.002)
    assert list(Band1D(frames=5).draw(scene)) == ["band_1d_oracle", "band_1d_oracle_moving"]


def test_losses_that_are_negative_have_a_linear_axis(plane):
    assert Loss().draw(plane)["loss"].axes[0].get_yscale() == "linear"  # a factor of ten or less
    wide = plane.losses.assign(loss=np.geomspace(1, 1e-3, len(plane.losses)))
    assert Loss().draw(replace(plane, losses=wide))["loss"].axes[0].get_yscale() == "log"
    signed = wide.assign(loss=wide["loss"] - 0.5)
    assert Loss().draw(replace(plane, losses=signed))["loss"].axes[0].get_yscale() == "linear"


def test_states_that_are_not_finite_are_left_out():
    ula = ("ula", ULA(50.0))  # far too long a step
    starts = {"gaussian": FixedGaussian(0.0, 10.0)}
    scene = scene_of(
        grid_mixture(), learned=False, grid=HOLD, samplers=[ula], starts=starts, steps=[400]
    )
    (run,) = scene.runs()
    assert not scene.follow(run, chains=20, every=400).x.isfinite().all()
    for picture in (Samples(), SideBySide(), Quiver(), Chain()):
        for drawing in small(picture).draw(scene).values():
            if isinstance(drawing, Animation):
                list(drawing.images([1]))

"""Every member of conf/picture draws a small job."""

import functools
import math
from dataclasses import fields, replace
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from PIL import Image
from scipy.integrate import trapezoid
from scipy.stats import norm, qmc

from helpers import mostly_slow
from samplerbench.app.config.construct import construct
from samplerbench.app.config.folders import conf_directory
from samplerbench.bench.cell import sampler_name
from samplerbench.core import grids
from samplerbench.core.grids import Level
from samplerbench.core.models import Corrupted
from samplerbench.core.schedules import EDM, VPLinear
from samplerbench.core.starts import FixedGaussian, Prior
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_mixture import isotropic
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.datasets.two_modes import two_modes
from samplerbench.errors import InvalidSetting
from samplerbench.figures.band_1d import Band1D
from samplerbench.figures.base import Animation, PathPicture, write
from samplerbench.figures.chain import Chain
from samplerbench.figures.clones import Clones, same_mode
from samplerbench.figures.common import Look, looking
from samplerbench.figures.contraction import PANELS, Contraction
from samplerbench.figures.densities_1d import Densities1D, level_at
from samplerbench.figures.heavy_mode import HeavyMode
from samplerbench.figures.image_panel import ImagePanel
from samplerbench.figures.loss import Loss
from samplerbench.figures.noised_data import NoisedData
from samplerbench.figures.noising import Noising
from samplerbench.figures.panels import (
    Frame,
    law_density,
    not_shown,
    panel_columns,
    plane,
    plane_height,
    run_styles,
    scatter,
    start_name,
)
from samplerbench.figures.panels import frame as framed
from samplerbench.figures.quiver import Quiver, _arrows
from samplerbench.figures.samples import Samples
from samplerbench.figures.score_heatmap import ScoreHeatmap
from samplerbench.figures.series_1d import Series1D
from samplerbench.figures.side_by_side import SideBySide
from samplerbench.figures.spectrum_error import SpectrumError
from samplerbench.figures.style import curve_style, new_figure, sampler_styles, styled
from samplerbench.figures.truth_generated_1d import TruthGenerated1D
from samplerbench.figures.w2_path import W2Path
from samplerbench.identity import settings_text
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.dormand_prince import DormandPrince
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.restart import Restart
from samplerbench.samplers.reverse_sde import ReverseSDE
from samplerbench.samplers.ula import ULA
from samplerbench.verify.exact_law import gaussian_w2, noised_law, output_law

SCHEDULE = EDM(10.0)
YAMLS = sorted((conf_directory() / "picture").glob("*.yaml"))
# small enough for a test, for the members that have it
SMALL = {"chains": 20, "points": 100, "frames": 5, "mesh": 9, "cells": 10, "every": 2}
SMALL |= {"dims": (2, 4)}
#: Drawn in the slow suite; in the default suite each has tests of what it shows.
TAKE_LONG = ("band_1d", "forward_backward_1d", "quiver", "side_by_side", "clones", "score_heatmap")
TAKE_LONG += ("chain", "samples", "densities_1d", "spectrum_error", "truth_generated_1d")


def member(path):
    node = next(iter(OmegaConf.create({path.stem: OmegaConf.load(path)}).values()))
    return construct(node, f"picture.{path.stem}")


def small(picture):
    names = {field.name for field in fields(picture)}
    return replace(picture, **{name: size for name, size in SMALL.items() if name in names})


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.slow] * (path.stem in TAKE_LONG), id=path.stem)
        for path in YAMLS
    ],
)
def test_every_member_draws_and_is_written(
    path, plane, line, modes, trajectory, images, spectrum, tmp_path
):
    picture = small(member(path))
    if isinstance(picture, PathPicture):
        picture = replace(picture, denoisers=("learned",))
    scenes = (plane, line, modes, trajectory, images, spectrum)
    scene = next(s for s in scenes if picture.why_incompatible(s) is None)
    drawings = picture.draw(scene)
    assert drawings
    files = write(drawings, tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(files)  # no temporary file is left
    for (stem, drawing), file in zip(drawings.items(), files, strict=True):
        assert stem.startswith(path.stem)
        assert file.stem == stem
        figure = drawing.figure if isinstance(drawing, Animation) else drawing
        panels = [axes for axes in figure.axes if axes.get_visible()]
        assert any(axes.get_xlabel() for axes in panels)
        assert any(axes.get_ylabel() for axes in panels)
        assert overlapping_ticks(figure) == []
        with Image.open(file) as image:
            if isinstance(drawing, Figure):
                assert image.format == "PNG"
                continue
            assert image.format == "GIF"
            assert image.n_frames == drawing.frames
            assert max(image.size) <= 720
            assert file.stat().st_size < 1_000_000
            check_animation(drawing, picture.draw(scene)[stem], image)


def overlapping_ticks(figure):
    """Pairs of neighbours on an axis whose texts overlap."""
    found = []
    with mpl.rc_context(styled()):
        renderer = FigureCanvasAgg(figure).get_renderer()
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis) if axes.get_visible() else ():
                labels = [label for label in axis.get_ticklabels() if label.get_visible()]
                boxes = [(label.get_window_extent(renderer), label.get_text()) for label in labels]
                shown = [(box, text) for box, text in boxes if text and box.width > 0]
                shown.sort(key=lambda pair: pair[0].x0 if axis is axes.xaxis else pair[0].y0)
                found += [(a[1], b[1]) for a, b in pairwise(shown) if a[0].overlaps(b[0])]
    return found


def check_animation(animation, again, image):
    """It moves, is the same pixels each time, and the file shows them.

    Args:
        animation: in the file.
        again: the same, drawn again.
        image: the open file.
    """
    frames = list(animation.images())
    assert all((one != next_one).any() for one, next_one in pairwise(frames))
    assert all(map(np.array_equal, again.images(), frames))
    # a frame does not depend on those before it
    (third,) = replace(again, frames=1, update=lambda _: again.update(2)).images()
    assert np.array_equal(third, frames[2])
    for number, frame in enumerate(frames):
        image.seek(number)
        shown = np.asarray(image.convert("RGB")).astype(int)
        assert abs(shown - frame).max() < 16
        assert (shown[0, 0] == 255).all()  # white stays white
    assert image.info["duration"] == animation.rest


def test_every_yaml_has_all_settings_at_their_defaults():
    for path in YAMLS:
        picture = member(path)
        assert set(OmegaConf.load(path)) - {"_target_"} == {field.name for field in fields(picture)}
        assert picture == type(picture)()


def test_data_of_another_dimension_are_refused_in_one_line(scene_of):
    scene = scene_of(isotropic((1.0,), ((0.0, 0.0, 0.0),), 1.0))
    for path in YAMLS:
        if path.stem not in ("loss", "contraction"):  # they are for data of any dimension
            reason = member(path).why_incompatible(scene)
            assert reason is not None
            assert "\n" not in reason
            words = ("dimension", "trajectory", "image", "Gaussian", "two_modes")
            assert any(word in reason for word in words)


def test_incompatible_jobs_and_unknown_names_are_named(scene_of, plane, line):
    before_training = replace(plane, losses=plane.losses.iloc[:0])
    assert Loss().why_incompatible(before_training) is None
    untrained = replace(before_training, untrained=None)
    assert "denoiser learned" in Loss().why_incompatible(untrained)
    held = replace(plane, grid=functools.partial(grids.hold, noise=1.0))
    assert "stand still" in Samples().why_incompatible(held)
    assert "one noise level" in Noising().why_incompatible(held)
    assert "prior, exact" in Samples(start="gauss").why_incompatible(plane)
    assert "learned, oracle" in Samples(denoisers=("empirical",)).why_incompatible(plane)
    assert "four_well" in Series1D().why_incompatible(line)


def test_a_bad_setting_is_refused_by_name():
    for kind, settings in (
        (NoisedData, {"noise": 0.0}),
        (NoisedData, {"half_width": (1.0, -1.0)}),
        (Samples, {"steps": 0}),
        (Chain, {"every": 0}),
        (Quiver, {"frames": 1}),
        (Quiver, {"frames": 2001}),
        (Densities1D, {"times": (0.5, 1.5)}),
        (Densities1D, {"times": ()}),
        (ScoreHeatmap, {"low": 1.0, "high": 1.0}),
        (Band1D, {"chains": 0}),
        (ImagePanel, {"images": 0}),
        (ImagePanel, {"steps": ()}),
        (ImagePanel, {"steps": (0,)}),
    ):
        with pytest.raises(InvalidSetting) as caught:
            kind(**settings)
        assert caught.value.field == list(settings)[-1]


def test_the_heatmaps_colours_end_at_the_97th_percentile_of_the_last_panel(line):
    figure = ScoreHeatmap(cells=40).draw(replace(line, untrained=None))["score_heatmap"]
    image = figure.axes[1].get_images()[0]  # the oracle's
    sizes = np.sort(np.abs(np.asarray(image.get_array())).ravel())
    place = 0.97 * (len(sizes) - 1)
    low = int(place)
    expected = sizes[low] + (place - low) * (sizes[low + 1] - sizes[low])
    assert image.norm.vmax == -image.norm.vmin == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [10**4, pytest.param(2**24 + 1, marks=pytest.mark.slow)])
def test_a_frame_fits_the_data_for_many_points_as_for_few(count):
    cloud = torch.linspace(0, 1, count).repeat_interleave(2).reshape(-1, 2)
    cloud[-1] = 1e6  # a single point far away is not shown
    cloud[-2] = torch.inf
    shown = framed(cloud, None)
    assert shown.centre == pytest.approx((0.5, 0.5), abs=1e-3)
    assert shown.half_width == pytest.approx((0.575 * 0.99,) * 2, rel=1e-3)
    assert framed(cloud, (1.0, 2.0)) == Frame((0.0, 0.0), (1.0, 2.0))


@pytest.mark.parametrize(("far", "half"), [(0.5, 0.575), (0.9, 1.08 * 0.88), (50.0, 1.15)])
def test_a_frame_has_samples_as_far_as_twice_the_data(far, half):
    corners = torch.tensor([[-0.5, -0.5], [0.5, 0.5]]).repeat(500, 1) * 1.0
    samples = torch.linspace(-far, far, 1001)[:, None].expand(-1, 2)
    shown = framed(corners, None, [samples])
    assert shown.half_width[0] == pytest.approx(half, rel=0.01)
    moved = framed(corners + 1e4, None, [samples + 1e4])
    assert moved.half_width[0] == pytest.approx(half, rel=0.01)
    assert moved.centre == pytest.approx((1e4, 1e4))
    assert int(moved.inside(corners + 1e4).sum()) == 1000


def test_the_arrows_keep_the_directions_of_the_score(plane):
    model, mesh = plane.denoisers["oracle"], Quiver()._mesh(Frame((0.0, 0.0), (15.0, 15.0)))
    for level in (Level(1.0, 1.0, 10.0), Level(0.1, 1.0, 1.0)):
        score, arrows = model.score(mesh, level), _arrows(model, mesh, level, plane)
        length = score.norm(dim=-1)
        cosine = (score * arrows).sum(-1) / (length * arrows.norm(dim=-1))
        assert torch.allclose(cosine, torch.ones_like(cosine))
        assert float(arrows.norm(dim=-1).max()) <= 1 + 1e-12
        uncut = arrows.norm(dim=-1) < 1 - 1e-9
        factor = (arrows.norm(dim=-1) / length)[uncut]
        assert float(factor.max() - factor.min()) < 1e-12 * float(factor.max())  # one for all
        assert int(uncut.sum()) >= 0.94 * len(mesh)


@pytest.fixture
def held(scene_of):
    """A job on the plane that stays at one noise level."""

    def build(noise, **settings):
        grid = functools.partial(grids.hold, noise=noise)
        return scene_of(grid_mixture(), learned=False, grid=grid, **settings)

    return build


def test_chains_that_leave_the_frame_are_counted(held):
    starts = {"gaussian": FixedGaussian(0.0, 12.0)}
    scene = held(1.0, samplers=[("ula", ULA(1e-6))], starts=starts, steps=[10])  # they stand
    (run,) = scene.runs()
    x = scene.follow(run, chains=20, every=10).x[0]
    present = int((x.abs() <= 15).all(-1).sum())
    assert 0 < present < 20
    (animation,) = small(Quiver(half_width=(15.0, 15.0))).draw(scene).values()
    said = [artist for artist in animation.moving if hasattr(artist, "get_text")]
    for frame in range(animation.frames):
        animation.update(frame)
        assert said[0].get_text().splitlines()[2] == f"{present} of 20 in the frame"
    near = held(1.0, samplers=[("ula", ULA(1e-6))], starts={"g": FixedGaussian(0.0, 1.0)})
    (animation,) = small(Quiver()).draw(near).values()
    animation.update(0)
    assert "frame" not in animation.moving[-1].get_text()


def test_the_quiver_has_a_legend_and_readable_text(held):
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


@pytest.mark.slow
@pytest.mark.parametrize("style", ["page", "slides", "column"])
@pytest.mark.parametrize("half_width", [None, (15.0, 20.0)])
def test_the_text_of_a_quiver_is_inside_and_apart(held, half_width, style):
    """The title has three lines, since it counts the chains that leave the frame."""
    scene = held(1.0, samplers=[("ula", ULA(5.0))])
    with looking(Look(style)):
        (animation,) = replace(small(Quiver()), half_width=half_width).draw(scene).values()
        list(animation.images())
    (axes,), (legend,) = animation.figure.axes, animation.figure.legends
    title = animation.moving[-1]
    assert title.get_text().count("\n") == 2
    assert title.get_window_extent().y1 <= animation.figure.bbox.y1
    assert axes.xaxis.label.get_window_extent().y0 >= legend.get_window_extent().y1


@pytest.mark.parametrize("noise", [3.0, 0.0])
def test_a_chain_is_drawn_over_the_law_of_its_level(noise, held):
    scene = held(noise, samplers=[("ula", ULA(0.1))], train=grid_mixture().draws(2000, "train", 0))
    (figure,) = Chain(every=2).draw(scene).values()
    law = np.stack(figure.axes[0].lines[0].get_data(), -1)
    spread = (law - scene.data(2000).numpy()).std(0)
    assert spread == pytest.approx([noise, noise], rel=0.05)
    line, dots = figure.axes[0].collections
    assert np.allclose([end for _, end in line.get_segments()], dots.get_offsets()[1:])
    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words[-1] == "the chain"
    assert words[0] == ("the law at its level: data + σ·ε, σ = 3" if noise else "data")


def test_states_that_keep_their_last_noise_have_the_level_of_it(scene_of):
    """In the units of the data: the last level with noise is α·x₀ + σ·ε, here α = .6."""
    grid = functools.partial(grids.uniform, t_max=0.5)
    plane = scene_of(grid_mixture(), schedule=VPLinear(), grid=grid, learned=False)
    levels = plane.levels(2)
    last = levels.rows[1]
    assert 0.3 < last.alpha < 0.95
    for sampler, sigma in ((DDIM(), 0.0), (ReverseSDE(denoise=False), last.sigma / last.alpha)):
        paths = plane.paths("oracle", "exact", sampler, 2, chains=3)
        assert [level.t for level in paths.levels[:2]] == levels.t[:2].tolist()
        assert paths.levels[2].alpha == 1
        assert paths.levels[2].sigma == pytest.approx(sigma)


def test_the_densities_are_those_of_the_noised_data(scene_of):
    data = gaussian([1.0], [[0.25]])
    scene = scene_of(data, learned=False, train=data.draws(20_000, "train", 0))
    figure = Densities1D(times=(0.1, 1.0)).draw(scene)["densities_1d"]
    for t, curve in zip((0.1, 1.0), figure.axes[0].lines, strict=False):
        x, y = curve.get_xdata(), curve.get_ydata()
        variance = 0.25 + level_at(SCHEDULE, t).sigma ** 2
        exact = np.exp(-((x - 1) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
        assert abs(y - exact).max() < 0.01 * exact.max()


def test_a_title_says_from_where_chains_start(held):
    """In words, since a start's name does not say it; whose each is where there are several."""
    scene = held(0.0, samplers=[("ula", ULA(0.1))], starts={"prior": Prior()})
    figure = small(Samples()).draw(scene)["samples"]
    assert "start: overdispersed, N(mean, (2·sd)²)" in figure.texts[0].get_text()
    both = replace(scene, grid=grids.uniform, samplers=[("ula", ULA(0.1)), ("ddim", DDIM())])
    runs = both.runs(denoisers=["oracle"])
    words = "starts:\noverdispersed, N(mean, (2·sd)²) (ula)\nthe prior N(0, σ²I) (ddim η=0)"
    assert start_name(runs) == words


@pytest.mark.slow
def test_pictures_say_how_many_samples_they_leave_out(scene_of, line_law):
    """Some of 20 chains diverge; the histogram has the others."""
    scene = scene_of(
        line_law,
        learned=False,
        grid=grids.hold,
        samplers=[("ula", ULA(0.25))],  # more than twice the smallest variance: unstable far out
        starts={"wide": FixedGaussian(std=3.0)},
        steps=[3000],
    )
    ends = scene.paths("oracle", "wide", ULA(0.25), 3000, chains=20, every=3000).x[-1]
    lost = int((~ends.isfinite()).sum())
    assert lost > 0
    (figure,) = small(TruthGenerated1D()).draw(scene).values()
    words = figure.axes[0].get_title()
    assert f"\nexact score ({lost} not finite)" in words
    points = torch.tensor([[0.0, 1.0], [math.nan, 0.0], [5.0, 0.0]])
    assert not_shown(points, -1.0, 2.0) == " (1 not finite, 1 outside)"
    assert not_shown(points) == " (1 not finite)"
    assert not_shown(points[:1], -1.0, 2.0) == ""


def test_the_law_is_that_of_the_mixture_or_of_the_long_run(line, trajectory, plane):
    x = torch.linspace(-3, 3, 4001, dtype=torch.float64)
    for scene in (line, trajectory):
        assert float(torch.trapezoid(law_density(scene, x), x)) == pytest.approx(1, abs=1e-6)
    assert law_density(plane, x) is None


def test_the_band_of_one_known_datum_holds_its_chains(scene_of):
    point = gaussian([0.0], [[0.0]])
    scene = scene_of(point, learned=False, steps=[100], train=torch.empty(0, 0))
    assert law_density(scene, torch.zeros(3, dtype=torch.float64)) is None
    path = scene.paths("oracle", "prior", DDIM(1.0), 100, chains=200)
    sigma = torch.tensor([level.sigma for level in path.levels])
    inside = path.x[:-1, :, 0].abs() <= 3 * sigma[:-1, None]
    assert float(inside.double().mean()) == pytest.approx(0.9973, abs=0.002)
    assert list(Band1D(frames=5).draw(scene)) == ["band_1d_oracle", "band_1d_oracle_moving"]


def test_losses_that_are_negative_have_a_linear_axis(plane):
    axes = Loss().draw(replace(plane, training="mlp trained with edm on moons"))["loss"].axes[0]
    assert axes.get_yscale() == "linear"  # a factor of ten or less
    assert axes.get_ylim()[0] == 0
    assert axes.get_title() == "mlp trained with edm on moons"
    wide = plane.losses.assign(loss=np.geomspace(1, 1e-3, len(plane.losses)))
    assert Loss().draw(replace(plane, losses=wide))["loss"].axes[0].get_yscale() == "log"
    signed = wide.assign(loss=wide["loss"] - 0.5)
    assert Loss().draw(replace(plane, losses=signed))["loss"].axes[0].get_yscale() == "linear"
    (curve,) = Loss().draw(replace(plane, losses=wide[:1]))["loss"].axes[0].lines
    assert curve.get_marker() == "o", "one value has no line"


def test_samples_outside_of_the_frame_are_counted(plane):
    figure = Samples(chains=50, points=20, half_width=(2.0, 1.0)).draw(plane)["samples"]
    titles = []
    for axes in (axes for axes in figure.axes if axes.get_visible()):
        x, y = (np.asarray(values) for values in axes.lines[1].get_data())
        outside = int(((abs(x) > 2) | (abs(y) > 1)).sum())
        assert axes.get_title().endswith(f" ({outside} outside)" * (outside > 0))
        titles.append(outside)
    assert max(titles) > 0


def test_counts_of_an_animation_cover_neither_samples_nor_titles(plane):
    picture = SideBySide(chains=20, points=20, frames=2, half_width=(2.0, 1.0))
    for animation in picture.draw(plane).values():
        list(animation.images())
        for axes in (axes for axes in animation.figure.axes if axes.get_visible()):
            (count,) = axes.texts
            assert count.get_text().endswith("of 20 in the frame")
            box = count.get_window_extent()
            assert axes.bbox.y1 < box.y0 < box.y1 < axes.title.get_window_extent().y0


@pytest.mark.slow
def test_states_that_are_not_finite_are_left_out(held):
    ula = ("ula", ULA(50.0))  # far too long a step
    starts = {"gaussian": FixedGaussian(0.0, 10.0)}
    scene = held(1.0, samplers=[ula], starts=starts, steps=[400])
    (run,) = scene.runs()
    assert not scene.follow(run, chains=20, every=400).x.isfinite().all()
    for picture in (Samples(), SideBySide(), Quiver(), Chain()):
        for drawing in small(picture).draw(scene).values():
            if isinstance(drawing, Animation):
                next(drawing.images())


def dense_laws(scene, run, start):
    """Mean and covariance of the path's and of a run's states, by dense matrices, step by step."""
    law = scene.dataset
    dense = gaussian(law.mean.tolist(), torch.diag(law.variances).tolist())
    levels, model = scene.levels(8), dense.oracle(SCHEDULE)
    paths = [noised_law(law.mean, torch.diag(law.variances), level) for level in levels.rows]
    first = (
        paths[0] if start == "exact" else (0 * law.mean, levels.rows[0].sigma ** 2 * torch.eye(5))
    )
    states = [first]
    for k in range(1, 9):  # a one-step method: a run of one step from each state
        part = grids.Levels(
            *(part[k - 1 : k + 1] for part in (levels.t, levels.alpha, levels.sigma))
        )
        states.append(output_law(run, model, part, *states[-1]))
    return paths, states


@pytest.mark.parametrize("start", mostly_slow(["prior", "exact"], 0))
def test_pictures_of_gaussians_show_exact_distances(spectrum, start):
    paths, states = dense_laws(spectrum, Heun(), start)
    (figure,) = W2Path(start=start).draw(spectrum).values()
    heun = next(line for line in figure.axes[0].lines if line.get_label() == "heun")
    expected = [gaussian_w2(*one, *other) for one, other in zip(states, paths, strict=True)]
    first = start == "exact"  # where the distance is 0, and is not shown
    np.testing.assert_allclose(heun.get_ydata()[first:], expected[first:], rtol=1e-6)
    assert np.isnan(heun.get_ydata()[:first]).all()
    (figure,) = SpectrumError(start=start).draw(spectrum).values()
    panel = next(axes for axes in figure.axes if axes.get_title() == "heun")
    found = panel.lines[-1]  # the largest N
    variances = spectrum.dataset.variances.flip(0)
    np.testing.assert_allclose(found.get_xdata(), variances)
    ratio = (states[-1][1].diagonal().flip(0) / variances).sqrt()
    np.testing.assert_allclose(found.get_ydata(), (ratio - 1).abs(), rtol=1e-6)
    assert [line.get_label() for line in figure.legends[0].get_lines()] == ["N = 4", "N = 8"]


def test_pictures_of_gaussians_need_one(plane, spectrum):
    for picture in (W2Path(), SpectrumError()):
        assert "law=gaussian_twin" in picture.why_incompatible(plane)
        alone = replace(spectrum, samplers=[("dormand_prince", DormandPrince())])
        assert "no sampler with fixed steps" in picture.why_incompatible(alone)
        assert "start=no" in picture.__class__(start="no").why_incompatible(spectrum)


@pytest.mark.parametrize("dim", mostly_slow([4, 16, 64], 1))
def test_clones_of_two_modes_choose_alike_with_the_published_probability(dim):
    """φ = ½·∫ (G₊² + G₋²)/(G₊ + G₋) with G± = N(±√d·α, 1): .775 at α = 1/√d, in every dimension."""
    u = torch.from_numpy(qmc.Sobol(dim + 1, rng=1).random(4096)).clamp(1e-9, 1 - 1e-9)
    x = np.linspace(-12, 12, 20_001)
    for alpha in (dim**-0.5, 0.9, 0.02):
        plus, minus = (norm.pdf(x, sign * dim**0.5 * alpha) for sign in (1, -1))
        expected = trapezoid((plus**2 + minus**2) / (plus + minus), x) / 2
        ratio = math.sqrt(1 - alpha**2) / alpha
        assert same_mode(two_modes(dim), ratio, u) == pytest.approx(expected, abs=8e-3)
        if alpha == dim**-0.5:
            assert expected == pytest.approx(0.775, abs=5e-4)


@pytest.mark.slow
def test_clones_of_the_reverse_sde_have_the_exact_probability(scene_of):
    law = two_modes(4)
    samplers = [("ddim", DDIM(1.0)), ("ddim", DDIM(0.0))]
    scene = scene_of(law, learned=False, samplers=samplers, steps=[40])
    (figure,) = Clones(points=2000, levels=4).draw(scene).values()
    (bars,) = figure.axes[0].containers  # a sampler without noise has none
    shares = dict(zip(*bars.lines[0].get_data(), strict=True))
    u = torch.from_numpy(qmc.Sobol(5, rng=1).random(4096)).clamp(1e-9, 1 - 1e-9)
    for ratio, share in shares.items():
        assert share == pytest.approx(same_mode(law, ratio, u), abs=0.05)


def test_the_share_of_the_heavy_mode_is_its_weight_for_the_exact_flow(scene_of):
    samplers = [("heun", Heun())]
    law = two_modes(3, weight=0.25, variance=0.05)
    scene = scene_of(law, learned=False, samplers=samplers, steps=[30])
    (figure,) = HeavyMode(dims=(2, 4), points=2000).draw(scene).values()
    (axes,) = figure.axes
    assert axes.lines[0].get_ydata()[0] == 0.75  # of the heavier mode, here the second
    (bars,) = axes.containers
    np.testing.assert_allclose(bars.lines[0].get_ydata(), 0.75, atol=0.04)
    for law, words in (
        (grid_mixture(), "two round modes"),
        (isotropic((0.3, 0.7), ((-1.0,), (0.5,)), 0.04), "two round modes"),
    ):
        assert words in HeavyMode().why_incompatible(scene_of(law))
    none = replace(scene, denoisers={"learned": scene.denoisers["oracle"]})
    assert "denoiser=[oracle]" in HeavyMode().why_incompatible(none)


@pytest.mark.slow
def test_noise_contracts_what_the_flow_keeps(scene_of):
    """On N(0, 1) the flow from κ keeps a share 1/√(1 + κ²) of a difference, the SDE its square.

    With the exact score there is no error to contract, and the additional one is at its floor.
    """
    law = gaussian([0.0], [[1.0]])
    samplers = [("heun", Heun()), ("ddim", DDIM(1.0))]
    wrong = Corrupted(law.oracle(SCHEDULE), 0.3, "noise", cut=0.1)
    scene = scene_of(law, learned=False, samplers=samplers, steps=[100])
    scene = replace(scene, denoisers={"corrupted": wrong, **scene.denoisers})
    picture = Contraction(ratio=1.0, points=200)
    flow, noisy = (picture.errors(scene, run) for run in picture._runs(scene))
    assert flow.nfe == 199
    levels = scene.levels(100)
    kappa = (levels.sigma / levels.alpha)[levels.sigma >= levels.alpha]
    assert noisy.nfe == 199 - (100 - (len(kappa) - 1)) + 1  # Heun's method down to the level
    expected = flow.contracted / math.sqrt(1 + float(kappa[-1]) ** 2)
    assert noisy.contracted == pytest.approx(expected, rel=0.05)
    exact = replace(picture, denoiser="oracle")
    floor = picture.floor(scene)
    for run in exact._runs(scene):
        errors = exact.errors(scene, run)
        assert errors.contracted < 0.02
        assert errors.additional == pytest.approx(floor.mean(), abs=4 * floor.std() + 0.05)
    figure = picture.draw(scene)["contraction"]
    assert [axes.get_title() for axes in figure.axes] == [f"{part} error" for part in PANELS]


def test_a_sampler_has_the_colour_of_the_figures_of_results(scene_of):
    """Colours are in the order of name and η, not in that of the job's words."""
    samplers = [("heun", Heun()), ("ddim", DDIM(1.0)), ("ddim", DDIM(0.2))]
    styles = run_styles(scene_of(grid_mixture(), learned=False, samplers=samplers))
    assert list(styles) == ["ddim η=0.2", "ddim η=1", "heun"]
    assert list(styles.values()) == [curve_style(place) for place in range(3)]


def test_settings_of_a_sampler_are_in_the_order_of_their_numbers(scene_of):
    samplers = [("restart", Restart(repeats=count)) for count in (10, 2)]
    settings = [settings_text(one) for _, one in samplers]
    table = pd.DataFrame({"sampler": "restart", "eta": math.nan, "sampler_settings": settings})
    names = ["restart repeats=2", "restart repeats=10"]
    assert list(sampler_styles(table)) == [sampler_name("restart", s) for s in settings[::-1]]
    styles = run_styles(scene_of(grid_mixture(), learned=False, samplers=samplers))
    assert list(styles) == names


@pytest.mark.slow
@pytest.mark.parametrize(("panels", "columns"), [(2, 2), (6, 3)])
def test_panels_of_the_plane_have_no_empty_rows_between_them(panels, columns):
    """The axes fill the height that `plane_height` gives them, up to their titles and labels."""
    rows = panels // columns
    width = 3.6 * columns + 0.4
    with new_figure(width, plane_height(width, rows, columns, 1.0)) as figure:
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat:
            plane(axes, Frame((0.0, 0.0), (15.0, 15.0)), "title")
            axes.label_outer()
        FigureCanvasAgg(figure).draw()
        lowest = [label for axes in grid[-1] for label in axes.get_xticklabels()]
        labels = [label.get_window_extent() for label in lowest]
        apart = [right.x0 - left.x1 for left, right in pairwise(labels)]
    assert min(apart) > 0.1 * figure.dpi, "labels of neighbouring panels do not touch"
    boxes = [axes.get_tightbbox() for axes in grid[:, 0]]
    gaps = [above.y0 - below.y1 for above, below in pairwise(boxes)]
    ends = [figure.bbox.y1 - boxes[0].y1, boxes[-1].y0]
    assert max([*gaps, *ends]) < 0.35 * figure.dpi


@pytest.mark.parametrize("count", [2, 4, 5])
def test_the_lowest_panel_of_each_column_has_labels(spectrum, count):
    samplers = [("ddim", DDIM(k / 8)) for k in range(count)]
    figure = SpectrumError().draw(replace(spectrum, samplers=samplers))["spectrum_error"]
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(panels) == count
    named = [axes for axes in panels if axes.get_xlabel()]
    columns = len({round(axes.get_position().x0, 3) for axes in panels})
    assert named == panels[-columns:]
    assert all(axes.xaxis.get_tick_params()["labelbottom"] for axes in named)


def test_panels_of_a_narrow_figure_are_in_fewer_columns_and_dots_have_the_scale_of_the_text():
    places = {
        Look(): [1, 2, 3, 2, 3, 3, 3],
        Look("slides"): [1, 2, 3, 2, 3, 3, 3],
        Look("column"): [1, 2, 2, 2, 2, 2, 2],
        Look("column", width=2.0): [1] * 7,
        Look("column", font=6.0, width=7.0): [1, 2, 3, 2, 3, 3, 3],
    }
    for chosen, columns in places.items():
        with looking(chosen):
            assert [panel_columns(count) for count in range(1, 8)] == columns, chosen
    with looking(Look("slides")):
        axes = Figure().subplots()
        scatter(axes, torch.zeros(3, 2), "k", size=2.0)
    assert axes.lines[0].get_markersize() == pytest.approx(3.2)


def test_denoisers_of_one_sampler_fill_rows(plane):
    scene = replace(plane, samplers=[("heun", Heun())])
    oracle = scene.denoisers["oracle"]
    scene = replace(scene, denoisers=dict.fromkeys(("a", "b", "c", "oracle"), oracle))
    (figure,) = Samples(chains=10, points=50).draw(scene).values()
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(panels) == 4
    assert len({axes.get_subplotspec().rowspan.start for axes in panels}) == 2

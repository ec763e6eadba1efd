"""Promises of our own metrics beyond the contract of all (`verify.metric_contract`)."""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

from helpers import each, mostly_slow, refused_in_one_line
from samplerbench.datasets.base import Dataset
from samplerbench.datasets.divided import Divided
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_mixture import GaussianMixture, isotropic
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.errors import InvalidSetting
from samplerbench.metrics.base import LawMetric, Metric, OutputLawMetric
from samplerbench.metrics.features import Features
from samplerbench.metrics.fid import FID
from samplerbench.metrics.kid import KID
from samplerbench.metrics.moments import Moments
from samplerbench.metrics.outliers import Outliers
from samplerbench.metrics.region_share import RegionShare

# their yaml needs weights that are a download; here the features are the points themselves
OF_FEATURES = {"fid": FID(Features(nn.Identity(), (2,))), "kid": KID(Features(nn.Identity(), (2,)))}
FILES = [
    path
    for path in sorted((Path(__file__).parents[2] / "conf" / "metric").glob("*.yaml"))
    if path.stem not in OF_FEATURES
]
POSSIBLE = {"relative_tolerance": (0,), "axis": (0,), "low": (-1, 0), "high": (-1, 0)}
POINTS = torch.randn(900, 2, generator=torch.Generator().manual_seed(3)).double()
FINITE = Divided(POINTS)
LAWS = [grid_mixture(), isotropic((0.3, 0.7), ((-2.0,), (3.0,)), 0.2), FINITE]


def _member(file):
    settings = yaml.safe_load(file.read_text())
    module, name = settings.pop("_target_").rsplit(".", 1)
    return getattr(import_module(module), name), settings


def _quick(file):
    kind, settings = _member(file)
    if "directions" in settings:
        settings |= {"directions": 40}
    if "precision" in settings:
        settings |= {"precision": "float64"}
    return kind(**settings)


def _files(kind):
    """Those of a kind that measure samples; a divergence needs their density."""
    kinds = {file: _member(file)[0] for file in FILES}
    return [
        file
        for file, of in kinds.items()
        if issubclass(of, kind) and not issubclass(of, OutputLawMetric)
    ]


LAW_METRICS = [_quick(file) for file in _files(LawMetric)]
WITH_LAW = [
    (one, next(law for law in LAWS if one.why_incompatible(law) is None)) for one in LAW_METRICS
]
for_each_member = each(("kind", "settings"), [_member(file) for file in FILES])
for_each_metric = each("metric", [*map(_quick, _files(Metric)), *OF_FEATURES.values()])
for_each_law_metric = each("law_metric", LAW_METRICS)
for_each_law_metric_and_law = each(("law_metric", "law"), WITH_LAW)


@pytest.fixture
def clouds():
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(60, 2, generator=generator, dtype=torch.float64)
    y = torch.randn(90, 2, generator=generator, dtype=torch.float64)
    return x * torch.tensor([1.0, 2.0]) + 1, y


@for_each_member
def test_config_states_every_setting_and_its_default(kind, settings):
    assert [field.name for field in fields(kind)] == list(settings)
    # A class that is several members has the settings of one of them.
    assert kind() in [of(**values) for of, values in map(_member, FILES) if of is kind]


@for_each_metric
def test_what_they_say_of_themselves(metric):
    """Whose squares add, which can compare clouds with shared starts, and whether small is good."""
    name = type(metric).__name__
    assert metric.is_wasserstein is (name not in ("Energy", "FID", "KID", "MMD", "PrecisionRecall"))
    # an estimate without bias supposes independent clouds
    assert bool(metric.allows_coupled) is (name not in ("Energy", "KID", "MMD"))
    assert metric.smaller_is_better is True


WITHOUT_LINES = (
    *("Energy", "ExactW1", "ExactW2", "FID", "KID", "MMD", "ModeCoverage", "ModeWeights"),
    *("Moments", "NearestTraining", "Outliers", "PrecisionRecall", "RegionShare"),
)


@for_each_metric
def test_one_dimensional_distances_are_counted(metric, clouds):
    found = metric.against(clouds[1], seed=3)(clouds[0]).evaluations
    assert (found == 0) is (type(metric).__name__ in WITHOUT_LINES)


@for_each_law_metric
def test_what_metrics_against_a_law_say_of_themselves(law_metric):
    name = type(law_metric).__name__
    assert law_metric.is_wasserstein is (name in ("MaxSlicedLaw", "WLaw1D", "WithinMode"))
    # generated data on top of training data are copies, and far from them they are no data
    assert law_metric.smaller_is_better is (name != "NearestTraining")


@for_each_metric
def test_the_smallest_clouds(metric):
    if isinstance(metric, FID | KID):
        metric = replace(metric, features=Features(nn.Identity(), (1,)))
    if metric.why_incompatible(1) is not None:
        return
    of_several = {"Energy": 2, "FID": 2, "KID": 2, "MMD": 2, "PrecisionRecall": 4}
    least = of_several.get(type(metric).__name__, 1)
    x = torch.arange(9, dtype=torch.float64)[:, None] ** 2
    assert math.isfinite(metric.against(x[: max(least, 2)], seed=0)(x[:least] + 0.5).value)
    with pytest.raises(InvalidSetting):
        metric.against(x, seed=0)(x[: least - 1])


@for_each_metric
def test_bounds_enclose_the_value_at_its_direction(metric, clouds):
    x, y = clouds
    result = metric.against(y, seed=3)(x)
    assert not result.lower > result.value
    assert not result.upper < result.value
    if result.direction is None:
        return
    assert result.direction.dtype == torch.float64
    assert float(result.direction.norm()) == pytest.approx(1, abs=1e-14)
    fine = 20000  # W₂ along the direction, by the definition: quantile by quantile
    q = (torch.arange(fine, dtype=torch.float64) + 0.5) / fine
    xs, ys = ((cloud @ result.direction).sort().values for cloud in clouds)
    gaps = xs[(q * len(xs)).long()] - ys[(q * len(ys)).long()]
    assert result.value == pytest.approx(float(gaps.square().mean().sqrt()), rel=1e-3)


@for_each_metric
def test_refuses_impossible_samples(metric):
    distance = metric.against(torch.randn(5, 2), seed=0)
    for samples, message in (
        (torch.ones(4, 3), r"samples.shape=\(4, 3\): must be \(n, 2\) with n ≥ 1"),
        (torch.ones(0, 2), r"samples.shape=\(0, 2\): must be \(n, 2\) with n ≥ 1"),
        (torch.ones(2), r"samples.shape=\(2,\): must be"),
        (torch.tensor([[0.0, 1.0], [math.nan, 0.0]]), r"samples\[1, 0\]=nan: must be finite"),
        (torch.tensor([[0.0, -math.inf]]), r"samples\[0, 1\]=-inf: must be finite"),
    ):
        with refused_in_one_line(message):
            distance(samples)


@for_each_metric
def test_refuses_impossible_references(metric):
    with pytest.raises(InvalidSetting, match=r"reference\.shape"):
        metric.against(torch.ones(0, 2), seed=0)
    with pytest.raises(InvalidSetting, match="reference"):
        metric.against(torch.full((3, 2), math.nan), seed=0)
    with pytest.raises(InvalidSetting, match="seed=-1: must be at least 0"):
        metric.against(torch.ones(3, 2), seed=-1)


@for_each_member
def test_refuses_impossible_settings(kind, settings):
    for name in settings:
        for wrong in (-1, 0, math.nan):
            if wrong not in POSSIBLE.get(name, ()):
                with pytest.raises(InvalidSetting, match=f"{name}={wrong}: must be "):
                    replace(kind(), **{name: wrong})


COUNTS = {"draws": 1000, "evaluations": 8} | dict.fromkeys(
    ("components", "directions", "iterations", "max_pairs", "neighbours", "starts"), 1
)
NUMBERS = ("bandwidth", "high", "level", "low", "max_overlap", "p", "relative_tolerance")
NUMBERS += ("tolerance",)


@for_each_member
def test_settings_at_their_ends(kind, settings):
    assert set(settings) <= {*COUNTS, *NUMBERS, "axis", "precision", "share"}
    for name in settings:
        if name in COUNTS:
            replace(kind(), **{name: COUNTS[name]})
            with pytest.raises(InvalidSetting, match=f"must be at least {COUNTS[name]}"):
                replace(kind(), **{name: COUNTS[name] - 1})
        if name in NUMBERS:
            with pytest.raises(InvalidSetting, match=f"{name}=inf: must be "):
                replace(kind(), **{name: math.inf})
        if name in ("level", "max_overlap", "tolerance"):
            with pytest.raises(InvalidSetting, match=f"{name}=1: must be between 0 and 1"):
                replace(kind(), **{name: 1})


@for_each_metric
def test_other_dimensions(metric):
    cloud = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    reason = metric.why_incompatible(5)
    assert metric.why_incompatible(2) is None
    if reason is None:
        assert metric.against(cloud, seed=0)(cloud + 2).value > 0.1
    else:
        assert "5" in reason
        assert "\n" not in reason
        with pytest.raises(ValueError, match=re.escape(reason)):
            metric.against(cloud, seed=0)


@for_each_law_metric_and_law
def test_lines_of_metrics_against_a_law(law_metric, law):
    result = law_metric.against_law(law, seed=0)(law.draws(150, "floor", 0))
    assert (result.evaluations == 0) is (type(law_metric).__name__ in WITHOUT_LINES)
    if result.direction is not None:
        assert result.direction.shape == (law.dim,)


@for_each_law_metric_and_law
def test_law_metrics_refuse_impossible_samples(law_metric, law):
    distance = law_metric.against_law(law, seed=0)
    for samples in (torch.ones(4, 3), torch.ones(0, law.dim), torch.full((2, law.dim), math.nan)):
        with refused_in_one_line(r"samples.*: must be "):
            distance(samples)
    with pytest.raises(InvalidSetting, match="seed=-1: must be at least 0"):
        law_metric.against_law(law, seed=-1)


@for_each_law_metric
def test_law_metrics_say_why_not_and_what_instead(law_metric):
    class Other(Dataset):
        event_shape = (2,)

        def sample(self, count: int, generator: object) -> Tensor:
            return torch.zeros(count, 2, dtype=torch.float64)

    flat = gaussian((0.0, 0.0), ((1.0, 0.0), (0.0, 0.0)))
    line = gaussian((0.0,), ((0.0,),))
    cube = isotropic((0.5, 0.5), ((0.0,) * 3, (1.0,) * 3), 1.0)
    names = {file.stem for file in FILES}
    for law in (Other(), flat, line, cube):
        reason = law_metric.why_incompatible(law)
        if isinstance(law_metric, RegionShare | Moments) and reason is None:
            assert isinstance(law, GaussianMixture)  # also where a mode is flat
            continue
        if isinstance(law_metric, Outliers) and law is cube:  # a density in any dimension
            assert reason is None
            continue
        assert reason is not None
        assert "\n" not in reason
        assert reason.rsplit("metric=", 1)[1] in names
        with pytest.raises(ValueError, match="; use metric="):
            law_metric.against_law(law, seed=0)


SCALES = (2.0**-80, 2.0**-25, 2.0**40, 1e-24, 1e-9, 5e13)


def _in_units(kind, values, scale, shift=0.0):
    """A metric whose settings in data units are those of data that were scaled, then moved."""
    texts = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", inspect.getdoc(kind) or "", re.MULTILINE)
    moved = {}
    for name, text in texts:
        if ("data units" in text or "units of the data" in text) and values[name] is not None:
            place = shift if name in ("low", "high") else 0.0
            moved[name] = scale * values[name] + place
    return kind(**values | moved)


def _seen(measured):
    return measured.value, measured.lower, measured.upper


def _power(metric, once, twice):
    """k of value(s·x, s·y) = s^k·value(x, y), from s = 2."""
    power = math.log2(twice / once)
    assert power in ((1,) if metric.is_wasserstein else (0, 1, 2))
    return int(power)


def _assert_scaled(found, base, scale, power):
    expected = tuple(value * scale**power for value in base)
    if math.frexp(scale)[0] == 0.5:  # a power of two: not one bit may differ
        assert found == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    else:
        assert found == pytest.approx(expected, rel=5e-6, abs=0, nan_ok=True)


def _of_scale(file):
    kind, settings = _member(file)
    few = settings | ({"directions": 40} if "directions" in settings else {})
    return lambda scale, shift=0.0: _in_units(kind, few, scale, shift)


# of features nothing is promised: their network sees pixels as they are
@pytest.fixture(params=_files(Metric), ids=lambda file: file.stem)
def of_scale(request):
    return _of_scale(request.param)


@pytest.fixture(params=_files(LawMetric), ids=lambda file: file.stem)
def law_of_scale(request):
    return _of_scale(request.param)


@pytest.fixture(params=["other", "same"])
def lattice(request, clouds):
    """Clouds of different sizes, or of one; with so few digits that float32 holds them moved."""
    x, y = ((cloud * 2**8).round() / 2**8 for cloud in clouds)
    return x, y[: len(x)] if request.param == "same" else y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_scale_with_the_data(of_scale, lattice, dtype):
    def measured(scale):
        x, y = ((scale * cloud).to(dtype) for cloud in lattice)
        return _seen(of_scale(scale).against(y, seed=3)(x))

    base = measured(1.0)
    power = _power(of_scale(1.0), base[0], measured(2.0)[0])
    for scale in SCALES:
        _assert_scaled(measured(scale), base, scale, power)


@pytest.mark.parametrize(
    ("dtype", "shifts"), [(torch.float32, (1e3, 2.0**12)), (torch.float64, (1e3, 2.0**20, 1e8))]
)
def test_values_do_not_depend_on_the_origin(of_scale, lattice, dtype, shifts):
    x, y = (cloud.to(dtype) for cloud in lattice)
    base = _seen(of_scale(1.0).against(y, seed=3)(x))
    for shift in shifts:
        there = shift * torch.tensor([1.0, -1.0], dtype=dtype)
        found = _seen(of_scale(1.0).against(y + there, seed=3)(x + there))
        assert found == pytest.approx(base, rel=5e-6, abs=0, nan_ok=True)


def _moved(law, scale, shift):
    if isinstance(law, GaussianMixture):
        means = scale * torch.tensor(law.means, dtype=torch.float64) + shift
        covariances = scale**2 * torch.tensor(law.covariances, dtype=torch.float64)
        return replace(
            law, means=tuple(map(tuple, means.tolist())), covariances=covariances.tolist()
        )
    assert law is FINITE
    return Divided(scale * POINTS + shift)


@pytest.mark.parametrize("dtype", mostly_slow([torch.float32, torch.float64], 0))
def test_values_against_a_law_scale_with_it(law_of_scale, dtype):
    law = next(law for law in LAWS if law_of_scale(1.0).why_incompatible(law) is None)
    points = 1.1 * law.draws(150 if law is FINITE else 300, "floor", 0)
    points = (points * 2**8).round() / 2**8

    def measured(scale, shift=0.0):
        samples = (scale * points + shift).to(dtype)
        there = _moved(law, scale, shift)
        return _seen(law_of_scale(scale, shift).against_law(there, seed=3)(samples))

    base = measured(1.0)
    power = _power(law_of_scale(1.0), base[0], measured(2.0)[0])
    for scale in SCALES:
        _assert_scaled(measured(scale), base, scale, power)
    for shift in (1e3, 2.0**12) if dtype == torch.float32 else (1e3, 2.0**20, 1e8):
        assert measured(1.0, shift) == pytest.approx(base, rel=5e-6, abs=0, nan_ok=True)

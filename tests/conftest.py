"""Fixtures of several folders: walks over members, laws with an oracle, the command line."""

from __future__ import annotations

import inspect
import json
import os
import pkgutil
import pydoc
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

import samplerbench.samplers
from samplerbench.app.main import main
from samplerbench.core import grids, level_laws, schedules, starts, targets
from samplerbench.core.grids import Levels
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import GeometricVE, NoiseSchedule, Rectified, VPLinear
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.samplers.base import Sampler
from samplerbench.verify import orders

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def command() -> Callable[..., int]:
    """Runs a command line in this process and returns its status."""

    def run(*words: object) -> int:
        before, sys.argv = sys.argv, ["samplerbench", *map(str, words)]
        try:
            main()
        except SystemExit as leaving:
            return int(leaving.code or 0)
        finally:
            sys.argv = before
        return 0

    return run


CONF = Path(__file__).parents[1] / "conf"
#: Settings of classes that have no yaml file and no defaults.
SETTINGS: dict[type, dict[str, Any]] = {
    schedules.DDPMTable: {"signal": np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)).tolist()}
}


def members(
    group: str, module: ModuleType, is_member: Callable[[Any], bool], conf: Path = CONF
) -> dict[str, Any]:
    """All members of a config group, by name: those of its yaml files, and the rest of its module.

    Args:
        group: of conf/.
        module: defines the members.
        is_member: tells them from its other classes and functions.
        conf: the folder of the groups.
    """
    built, with_yaml = {}, set()
    for path in sorted((conf / group).glob("*.yaml")):
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        target: Any = pydoc.locate(settings.pop("_target_"))
        is_partial = settings.pop("_partial_", False)
        built[path.stem] = partial(target, **settings) if is_partial else target(**settings)
        with_yaml |= {target, type(built[path.stem])}
    for name, member in defined(module):
        if is_member(member) and member not in with_yaml and not name.startswith("_"):
            is_class = inspect.isclass(member)
            built[name] = member(**SETTINGS.get(member, {})) if is_class else member
    return built


def defined(module: ModuleType) -> list[tuple[str, Any]]:
    """The classes and functions of a module, without what it imports."""
    pairs = vars(module).items()
    return [(k, v) for k, v in pairs if getattr(v, "__module__", None) == module.__name__]


def concrete(kind: type) -> Callable[[Any], bool]:
    """Whether something is a class of a kind, and not abstract."""
    return lambda x: inspect.isclass(x) and issubclass(x, kind) and not inspect.isabstract(x)


def is_grid(x: Any) -> bool:
    """Whether something is a function of a schedule and a number of steps."""
    if not inspect.isfunction(x):
        return False
    return list(inspect.signature(x).parameters)[:2] == ["schedule", "steps"]


def samplers() -> dict[str, Sampler]:
    """The variants of all samplers of the package."""
    package = samplerbench.samplers
    modules = pkgutil.iter_modules(package.__path__, package.__name__ + ".")
    found = [member for info in modules for _, member in defined(import_module(info.name))]
    variants = [one for kind in filter(concrete(Sampler), found) for one in kind.variants()]
    return {repr(one): one for one in variants}


def walk(found: dict[str, Any]) -> Callable[[Callable[..., Any]], Any]:
    """A fixture that has each of the members in turn."""
    return pytest.fixture(params=list(found.values()), ids=list(found))


SCHEDULES: dict[str, NoiseSchedule] = members("schedule", schedules, concrete(NoiseSchedule))
SAMPLERS = samplers()
#: For tests that hardly depend on the schedule: noise at t = 0, variance preserving, and no signal
#: at t = 1.
THREE = {type(path).__name__: path for path in (GeometricVE(), VPLinear(), Rectified())}


@walk(SCHEDULES)
def every_schedule(request: pytest.FixtureRequest) -> NoiseSchedule:
    return request.param


@walk(THREE)
def schedule(request: pytest.FixtureRequest) -> NoiseSchedule:
    return request.param


@walk(members("grid", grids, is_grid))
def grid(request: pytest.FixtureRequest) -> Callable[[NoiseSchedule, int], Levels]:
    return request.param


@walk(members("target", targets, concrete(targets.Target)))
def target(request: pytest.FixtureRequest) -> targets.Target:
    return request.param


@walk(members("start", starts, concrete(starts.Start)))
def start(request: pytest.FixtureRequest) -> starts.Start:
    return request.param


@walk(members("level_law", level_laws, concrete(level_laws.LevelLaw)))
def level_law(request: pytest.FixtureRequest) -> level_laws.LevelLaw:
    return request.param


@walk(SAMPLERS)
def sampler(request: pytest.FixtureRequest) -> Sampler:
    return request.param


@pytest.fixture
def all_schedules() -> list[NoiseSchedule]:
    return list(SCHEDULES.values())


@pytest.fixture
def all_samplers() -> list[Sampler]:
    return list(SAMPLERS.values())


@pytest.fixture
def all_members() -> Callable[..., dict[str, Any]]:
    """The walk over the classes of a kind, see `members`."""
    return lambda group, module, kind, conf: members(group, module, concrete(kind), conf)


@pytest.fixture
def max_sliced_w2() -> Callable[..., float]:
    """Max-sliced W₂ of two Gaussians in the plane, by brute force over 20 001 directions."""

    def distance(mean: Tensor, cov: Tensor, other_mean: Tensor, other_cov: Tensor) -> float:
        angles = torch.linspace(0, torch.pi, 20_001, dtype=torch.float64)
        theta = torch.stack([angles.cos(), angles.sin()], dim=1)
        widths = [((theta @ c) * theta).sum(1).clamp_min(0).sqrt() for c in (cov, other_cov)]
        square = (theta @ (mean - other_mean)).square() + (widths[0] - widths[1]).square()
        return float(square.max().sqrt())

    return distance


@pytest.fixture
def normal_law() -> GaussianMixture:
    """A Gaussian in R³ with a mean, correlations, and no width at all in one direction."""
    basis = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    covariance = basis @ np.diag([0.0, 0.4, 1.7]) @ basis.T
    return gaussian((0.7, -1.2, 0.3), (0.5 * (covariance + covariance.T)).tolist())


@pytest.fixture
def mixture_law() -> GaussianMixture:
    """A Gaussian mixture in R² whose components differ in shape and overlap when noised."""
    return orders.MIXTURE


@pytest.fixture
def simple_mixture() -> GaussianMixture:
    """A mixture whose components are round, of different sizes, for the cheaper oracle."""
    rounds = tuple(((c, 0.0), (0.0, c)) for c in (0.1, 0.2, 0.4))
    return GaussianMixture((0.2, 0.5, 0.3), ((1.5, 0.0), (-1.0, 1.0), (0.0, -1.5)), rounds)


@pytest.fixture
def states() -> Callable[..., torch.Tensor]:
    """Reproducible float64 standard normal numbers of any shape."""

    def draw(*shape: int) -> torch.Tensor:
        like = torch.empty(shape, dtype=torch.float64)
        return KeyedNoise(("states",)).normal(like, 0)

    return draw


@pytest.fixture
def log_slope() -> Callable[[list[int], list[float]], float]:
    """Minus the slope of log-error over log-steps: the order."""

    def fit(steps: list[int], errors: list[float]) -> float:
        return -float(np.polyfit(np.log(steps), np.log(errors), 1)[0])

    return fit


@pytest.fixture
def gaussian_moments() -> Callable[[GaussianMixture], tuple[torch.Tensor, torch.Tensor]]:
    """Mean and covariance of a Gaussian law."""

    def moments(law: GaussianMixture) -> tuple[torch.Tensor, torch.Tensor]:
        mean = torch.tensor(law.means[0], dtype=torch.float64)
        return mean, torch.tensor(law.covariances[0], dtype=torch.float64)

    return moments


def _wandb_runs(directory: Path) -> list[dict[str, Any]]:
    """The offline runs below a folder, in order, by wandb's own reader of its transaction logs."""
    from wandb.util import get_core_path  # `wandb leet inspect` without the start of Python

    runs = []
    for path in sorted((directory / "wandb").glob("*run-*/run-*.wandb"), key=os.path.getmtime):
        command = [get_core_path(), "leet", "inspect", "--no-observability", "--json"]
        command += ["--run-file", str(path), str(path.parents[1])]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        records: dict[str, list[dict[str, Any]]] = {}
        for line in out.splitlines():
            record = json.loads(line)
            records.setdefault(record["type"], []).append(record[record["type"]])
        history = [row["item"] for row in records.get("history", [])]
        runs.append(
            {
                **records["run"][0],
                "config": {k: v for c in records["run"] for k, v in c["config"]["update"].items()},
                "history": history,
                "last": {key: value for row in history for key, value in row.items()},
                "losses": [
                    (row["trainer/global_step"], name, row[f"{name}/loss"])
                    for row in history
                    for name in ("train", "validation")
                    if f"{name}/loss" in row
                ],
                "metrics": {m["name"]: m for m in records.get("metric", []) if "name" in m},
                "exit": records["exit"][0].get("exit_code", 0),
                "files": path.parent / "files",
            }
        )
    return runs


@pytest.fixture
def wandb_runs():
    """Reads offline wandb runs back: from a folder to its runs."""
    return _wandb_runs

"""What the tests share: every schedule, every sampler found in the package, laws with an oracle."""

from __future__ import annotations

import inspect
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import samplerbench.samplers
from samplerbench.app.main import main
from samplerbench.core import grids
from samplerbench.core.grids import Levels
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import (
    EDM,
    GeometricVE,
    GeometricVEKernel,
    NoiseSchedule,
    Rectified,
    VPCosine,
    VPLinear,
)
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.samplers.base import Sampler
from samplerbench.verify.contract import Ground

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


SCHEDULES = [EDM(10.0), GeometricVE(), GeometricVEKernel(), VPLinear(), VPCosine(), Rectified()]


def _samplers() -> list[Sampler]:
    found: list[Sampler] = []
    package = samplerbench.samplers
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        for member in vars(import_module(module.name)).values():
            if not (inspect.isclass(member) and issubclass(member, Sampler)):
                continue
            if inspect.isabstract(member) or member.__module__ != module.name:
                continue
            found += member.variants()
    return found


SAMPLERS = _samplers()
ON_A_PATH = [s for s in SAMPLERS if s.order is not None and not s.adaptive]


@pytest.fixture
def all_samplers() -> list[Sampler]:
    return SAMPLERS


@pytest.fixture(params=SCHEDULES, ids=lambda s: type(s).__name__)
def schedule(request: pytest.FixtureRequest) -> NoiseSchedule:
    return request.param


@pytest.fixture(params=SAMPLERS, ids=repr)
def sampler(request: pytest.FixtureRequest) -> Sampler:
    return request.param


@pytest.fixture(params=[s for s in ON_A_PATH if not s.stochastic], ids=repr)
def deterministic(request: pytest.FixtureRequest) -> Sampler:
    return request.param


@pytest.fixture(params=[s for s in SAMPLERS if s.affine], ids=repr)
def affine(request: pytest.FixtureRequest) -> Sampler:
    return request.param


@pytest.fixture(params=[s for s in ON_A_PATH if s.stochastic and s.affine], ids=repr)
def stochastic(request: pytest.FixtureRequest) -> Sampler:
    return request.param


@pytest.fixture
def interior() -> Callable[..., Levels]:
    """Levels that stop short of the data, from σ/α = 1.9 to .2: a range all schedules have.

    They are spaced uniformly in time, or by Karras' formula in σ/α ("noise").
    """

    def build(schedule: NoiseSchedule, steps: int, spacing: str = "times") -> Levels:
        ends = torch.tensor([1.9, 0.2], dtype=torch.float64)
        if spacing == "times":
            times = torch.linspace(*schedule.time_at(ends).tolist(), steps + 1, dtype=ends.dtype)
        else:
            roots = torch.linspace(*(ends ** (1 / 3)).tolist(), steps + 1, dtype=ends.dtype)
            times = schedule.time_at(roots**3)
        return Levels(times, *schedule(times))

    return build


@pytest.fixture
def full() -> Callable[[NoiseSchedule, int], Levels]:
    """Levels from t = 1 to the data: α = 0 comes first where the schedule loses the signal."""
    return grids.uniform


@pytest.fixture
def suited(simple_mixture) -> Callable[[Sampler, NoiseSchedule, int], Levels]:
    """Levels that a sampler must run on."""

    def build(sampler: Sampler, schedule: NoiseSchedule, steps: int) -> Levels:
        return Ground(simple_mixture, schedule).levels(sampler, steps)

    return build


@pytest.fixture
def normal_law() -> GaussianMixture:
    """A Gaussian in R³ with a mean, correlations, and no width at all in one direction."""
    basis = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    covariance = basis @ np.diag([0.0, 0.4, 1.7]) @ basis.T
    return gaussian((0.7, -1.2, 0.3), (0.5 * (covariance + covariance.T)).tolist())


@pytest.fixture
def mixture_law() -> GaussianMixture:
    """A Gaussian mixture in R² whose components differ in shape and overlap when noised."""
    return GaussianMixture(
        (0.2, 0.5, 0.3),
        ((1.5, 0.0), (-1.0, 1.0), (0.0, -1.5)),
        (((0.3, 0.1), (0.1, 0.2)), ((0.1, 0.0), (0.0, 0.5)), ((0.2, -0.1), (-0.1, 0.2))),
    )


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

"""Fixtures of several folders: walks over members, laws with an oracle, the command line."""

from __future__ import annotations

import gc

gc.disable()  # until all is imported: it would take a sixth of the start

import copy
import dataclasses
import importlib.util
import inspect
import json
import os
import pickle
import pkgutil
import pydoc
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import omegaconf._utils
import omegaconf.base
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides, create_defaults_list
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, grammar_parser
from torch import Tensor, nn

from samplerbench.app.commands.examine import objects
from samplerbench.app.config import folders
from samplerbench.app.config.construct import KINDS, read_member
from samplerbench.app.main import main
from samplerbench.core import schedules
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import GeometricVE, NoiseSchedule, Rectified, VPLinear
from samplerbench.datasets.density import Density
from samplerbench.datasets.divided import Divided
from samplerbench.datasets.empirical import Empirical
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.datasets.mixture import mixture
from samplerbench.datasets.unseen import Unseen
from samplerbench.errors import InvalidSetting
from samplerbench.metrics.features import Features
from samplerbench.metrics.fid import FID
from samplerbench.metrics.kid import KID
from samplerbench.samplers.base import Sampler
from samplerbench.verify import orders
from samplerbench.verify.contract import CONTRACTS

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """A job sets its number of threads; tests after it in the process would wait for each other."""
    yield
    torch.set_num_threads(1)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files whose tests are all left out are not imported, which takes seconds in each process."""
    chosen = config.getoption("markexpr")
    is_bench = collection_path.name == "benchmarks" and "not bench" in chosen
    is_slow = collection_path.name == "test_fuzz.py" and "not slow" in chosen
    return True if is_bench or is_slow else None


@pytest.fixture(scope="module", autouse=True)
def modules_of_test_folders_go(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A package that tests of a file import from a temporary folder is unknown to the next file."""
    yield
    folder = str(tmp_path_factory.getbasetemp())
    for name, module in list(sys.modules.items()):
        known = getattr(module, "__dict__", {})
        if folder in str(known.get("__file__") or known.get("__path__")):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def gradients_stay_on() -> Iterator[None]:
    """A test that leaves gradients switched off fails itself, instead of the tests after it."""
    yield
    on = torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    assert on, "gradients were left switched off"


@pytest.fixture(scope="session", autouse=True)
def no_time_is_lost() -> Iterator[None]:
    """A process that runs a thousand tests leaves out work that only costs time.

    Imported modules are not searched for garbage again and again, files are not forced onto the
    disk (tests of a full disk put their own `os.fsync` here), a yaml file of conf/ is parsed once,
    the same members are composed once, a config that does not set `hydra.mode` is not composed
    a second time in order to know it, and an interpolation is parsed once.
    """
    # copies from pickled objects, which is three times as fast as `copy.deepcopy`
    conf, parse = str(folders.conf_directory()), yaml.load
    parsed: dict[Any, bytes] = {}

    def load(stream: Any, Loader: Any) -> Any:
        """A file of conf/, or the text of a stored config."""
        name = (
            stream.getvalue() if isinstance(stream, StringIO) else str(getattr(stream, "name", ""))
        )
        if not (isinstance(stream, StringIO) or name.startswith(conf)):
            return parse(stream, Loader)
        key = name, Loader.__name__
        if key not in parsed:
            parsed[key] = pickle.dumps(parse(stream, Loader))
        return pickle.loads(parsed[key])

    def with_shared_sources(self: CachingConfigRepository, delegate: Any) -> None:
        """A copy of the folders that are searched, without one of all that is in them."""
        self.delegate, self.cache = copy.copy(delegate), {}

    read: dict[str, bytes] = {}
    chosen: dict[Any, DefaultsList] = {}
    merged: dict[int, bytes] = {}
    choose, merge = create_defaults_list, ConfigLoaderImpl._compose_config_from_defaults_list
    read_file, known_choices = ConfigRepository.load_config, defaults_list._create_interpolation_map

    def is_fixed(repo: Any) -> bool:
        """False with a folder of a test's own, whose files may change."""
        return {one.path for one in repo.get_sources() if one.scheme() == "file"} == {conf}

    def read_once(self: ConfigRepository, config_path: str) -> Any:
        """The content of a file, which the composition may change."""
        if not is_fixed(self):
            return read_file(self, config_path)
        if config_path not in read:
            read[config_path] = pickle.dumps(read_file(self, config_path))
        return pickle.loads(read[config_path])

    def known_choices_where_needed(overrides: Any, defaults: Any, self_added: bool) -> Any:
        """For interpolations; conf/ has few."""
        needed = any(one.is_interpolation() for one in defaults)
        return known_choices(overrides, defaults, self_added) if needed else None

    def chosen_once(repo: Any, config_name: str, overrides_list: Any, **more: Any) -> DefaultsList:
        """Hydra's choice of files, by the words that name members; other words come after it."""
        if not is_fixed(repo):
            return choose(repo, config_name, overrides_list, **more)
        members = [word for word in overrides_list if repo.group_exists(word.key_or_group)]
        key = config_name, repr(more), *(word.input_line for word in members)
        if key not in chosen:
            chosen[key] = choose(repo, config_name, members, **more)
        values = Overrides(repo, overrides_list).config_overrides
        return dataclasses.replace(chosen[key], config_overrides=values)

    def merged_once(self: ConfigLoaderImpl, defaults: Any, repo: Any) -> DictConfig:
        """The config of a choice, before the words that change its values."""
        if all(defaults is not one.defaults for one in chosen.values()):
            return merge(self, defaults, repo)
        if id(defaults) not in merged:
            merged[id(defaults)] = pickle.dumps(merge(self, defaults, repo))
        return pickle.loads(merged[id(defaults)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        patch.setattr(yaml, "load", load)
        patch.setattr(CachingConfigRepository, "__init__", with_shared_sources)
        for module in (omegaconf.base, omegaconf._utils):  # a tree that is only read
            patch.setattr(module, "parse", cache(grammar_parser.parse))
        # what wandb imports for jobs that it launches itself
        launch = SimpleNamespace(StagedLaunchInputs=lambda: SimpleNamespace(apply=lambda run: None))
        patch.setitem(sys.modules, "wandb.sdk.launch.inputs.internal", launch)
        patch.setattr(ConfigRepository, "load_config", read_once)
        patch.setattr(defaults_list, "_create_interpolation_map", known_choices_where_needed)
        patch.setattr(config_loader_impl, "create_defaults_list", chosen_once)
        searched = ConfigLoaderImpl._process_config_searchpath

        def search(self: ConfigLoaderImpl, config_name: Any, words: Any, repo: Any) -> None:
            if any(word.get_key_element() == "hydra.searchpath" for word in words):
                searched(self, config_name, words, repo)

        patch.setattr(ConfigLoaderImpl, "_process_config_searchpath", search)
        patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", merged_once)
        asked = Hydra.get_mode

        def get_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
            unusual = any("hydra.mode" in word for word in overrides) or "--config-dir" in sys.argv
            return asked(self, config_name, overrides) if unusual else None

        patch.setattr(Hydra, "get_mode", get_mode)
        before = gc.get_threshold()
        gc.freeze()
        gc.enable()
        gc.set_threshold(20_000, 20, 20)
        yield
        gc.set_threshold(*before)
        gc.unfreeze()


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


@pytest.fixture
def composed():
    """Composes words as a command would, which build sees; forgets them afterwards."""
    with initialize_config_dir(str(folders.conf_directory()), version_base="1.3"):

        def commanded(*words):
            whole = compose("config", list(words), return_hydra_config=True)
            HydraConfig.instance().set_config(whole)
            return OmegaConf.masked_copy(whole, [key for key in whole if key != "hydra"])

        yield commanded
    HydraConfig.instance().cfg = None


#: A job of a second: two samplers, a trained and the exact score, several blocks.
TINY = ("experiment=tiny", "trainer.steps=20", "n_samples=150", "block=64", "n_reference=200")
TINY += (
    "logger=none",
    "figure.format=[]",
    "steps=[2,4]",
    "sampler=[ddim,heun]",
    "sampler.ddim.eta=0.5",
    "workers=1",
    "start=prior",
)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The words of a small job, with a cache of its own."""
    return (*TINY, f"cache_dir={tmp_path_factory.mktemp('cache')}")


@pytest.fixture(scope="session")
def finished(command, tiny, tmp_path_factory):
    """The folder of a finished run of `tiny`; see `run` for a copy.

    Its name has a "=", as the jobs of a multirun may.
    """
    folder = tmp_path_factory.mktemp("finished") / "grid" / "seed=0"
    assert command(*tiny, f'hydra.run.dir="{folder}"') == 0
    return folder


POINTS = torch.randn(200, 2, generator=torch.Generator().manual_seed(3)).double()
#: Settings of classes that have no yaml file and no defaults.
SETTINGS: dict[type, dict[str, Any]] = {
    schedules.DDPMTable: {"signal": np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)).tolist()},
    Empirical: {"rows": POINTS},
    Unseen: {"shape": (1, 4, 4)},
}


def bell(x: Tensor) -> Tensor:
    """ln of the density of `normals`, up to a constant."""
    return -x.square().sum(-1) / 2


def normals(count: int, generator: np.random.Generator) -> Tensor:
    return torch.from_numpy(generator.standard_normal((count, 2)))


#: Members whose yaml needs a file or a function, or weights that are a download; here features are
#: the points.
WITHOUT_FILES: dict[str, Callable[[], Any]] = {
    "dataset=density": lambda: Density(bell, 2, exact_draws=normals),
    "dataset=file": lambda: Divided(POINTS),
    "dataset=gaussian_mixture": lambda: mixture([[0, 0], [3, 1]], [1, [0.5, 2]], [2, 1]),
    "metric=fid": lambda: FID(Features(nn.Identity(), (2,))),
    "metric=kid": lambda: KID(Features(nn.Identity(), (2,))),
}


def members(kind: str, modules: Sequence[ModuleType] = ()) -> dict[str, Callable[[], Any]]:
    """What builds each member of a kind: those of its yaml files, and other classes of the package.

    Args:
        kind: a group of conf/.
        modules: define its classes; without any those of the package.
    """
    build: dict[str, Callable[[], Any]] = {}
    with_yaml = set()
    for name, path in folders.member_files(kind).items():
        target: Any = pydoc.locate(read_member(path)["_target_"])
        with_yaml |= {target.__name__, inspect.signature(target).return_annotation}
        build[name] = WITHOUT_FILES.get(f"{kind}={name}") or partial(built, kind, name)
    for member in defined(kind, modules):
        if member.__name__ not in with_yaml and not member.__name__.startswith("_"):
            is_class = inspect.isclass(member)
            build[member.__name__] = (
                partial(member, **SETTINGS.get(member, {})) if is_class else lambda m=member: m
            )
    return build


def built(kind: str, name: str) -> Any:
    """The member of a yaml file, with its first settings; skips what cannot be built here."""
    try:
        return objects(kind, name)[0]
    except InvalidSetting as error:
        pytest.skip(str(error))


def defined(kind: str, modules: Sequence[ModuleType] = ()) -> list[Any]:
    """The classes of a kind that are not abstract; of grids the functions."""
    bases: tuple[Any, ...] = tuple(pydoc.locate(f"samplerbench.{name}") for name in KINDS[kind])
    if not modules:
        home = import_module(bases[0].__module__)
        is_package = home.__name__.endswith(".base")
        names = pkgutil.iter_modules([str(Path(home.__file__).parent)], f"{home.__package__}.")
        modules = [import_module(info.name) for info in names] if is_package else [home]
    found = [
        x for m in modules for x in vars(m).values() if getattr(x, "__module__", "") == m.__name__
    ]
    if kind == "grid":
        functions = filter(inspect.isfunction, found)
        return [
            f for f in functions if [*inspect.signature(f).parameters][:2] == ["schedule", "steps"]
        ]
    classes = filter(inspect.isclass, found)
    return [c for c in classes if issubclass(c, bases) and not inspect.isabstract(c)]


@cache
def all_of(kind: str) -> list[Any]:
    """The objects of all members of a kind that need no files."""
    return [build() for build in members(kind).values()]


@cache
def settings_of_samplers() -> dict[str, Sampler]:
    """The settings of each sampler that are tested."""
    return {repr(one): one for kind in defined("sampler") for one in kind.variants()}


#: For tests that hardly depend on the schedule: noise at t = 0, variance preserving, and no signal
#: at t = 1.
THREE: tuple[type[NoiseSchedule], ...] = (GeometricVE, VPLinear, Rectified)
#: Members whose contract takes long, and is checked in the slow suite. In the default suite
#: test_members.py checks the quick promises of all but samplers; each has tests of its own.
TAKE_LONG = {
    *("dataset=checkerboard", "dataset=tree", "dataset=four_well", "dataset=faces"),
    *("dataset=four_well_boltzmann", "dataset=many_well", "dataset=gaussian_spectrum"),
    *("grid=score_optimal", "grid=align_your_steps", "grid=entropic_rescaled", "grid=gits"),
    *("grid=entropic", "grid=spectral", "network=unet", "network=pixel_mlp"),
    *("metric=w_output_1d", "metric=max_sliced_law", "metric=max_sliced_refined"),
    *("metric=outliers", "metric=within_mode", "metric=sliced_pca"),
    *("objective=ncsn", "objective=likelihood", "objective=hutchinson", "objective=v_prediction"),
    *("objective=sliced", "objective=sliced_vr", "objective=hyvarinen", "objective=single_level"),
    *("objective=flow_matching", "objective=vp_noise", "objective=implicit_ve", "grid=designed"),
    *("dataset=swiss_roll", "dataset=lifted_modes", "dataset=gmm40", "metric=max_sliced"),
    *("sampler=AIS", "sampler=DormandPrince", "sampler=Picard", "sampler=ReplicaExchange"),
}
#: What builds each of the members that a fixture has in turn. They are found when a test of the
#: process asks for one: an import of all packages of samplers takes seconds.
WALKS: dict[str, Callable[[], dict[str, Callable[[], Any]]]] = {
    "any_member": lambda: {
        f"{kind}={name}": lambda kind=kind, build=build: (kind, build())
        for kind in CONTRACTS
        if kind != "sampler"
        for name, build in members(kind).items()
    },
    "any_dataset": lambda: members("dataset"),
    "any_metric": lambda: members("metric"),
    "every_schedule": lambda: {repr(path): lambda path=path: path for path in all_of("schedule")},
    "schedule": lambda: {kind.__name__: kind for kind in THREE},
    "grid": lambda: members("grid"),
    "target": lambda: members("target"),
    "sampler": lambda: {name: lambda one=one: one for name, one in settings_of_samplers().items()},
    "default_sampler": lambda: {
        name: lambda one=one: one
        for name, one in settings_of_samplers().items()
        if one == type(one)()
    },
}
#: The same walk, of which the default suite has only `COMMON`.
WALKS["common_sampler"] = WALKS["default_sampler"]
#: Samplers that most people use; at least one with noise, and one that is affine.
COMMON = ("DDIM", "DDPMLarge", "DPMSolverPP", "Euler", "Heun", "SDEDPMpp2M", "UniPC")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of one of `WALKS` runs for each member, unless it has a list of its own."""
    marks = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    own = {name for names in marks for name in ([names] if isinstance(names, str) else names)}
    for name in [name for name in WALKS if name in {*metafunc.fixturenames} - own]:
        cases = [
            pytest.param(build, id=case, marks=[pytest.mark.slow] * _takes_long(name, case))
            for case, build in WALKS[name]().items()
        ]
        metafunc.parametrize(name, cases, indirect=True)


def _takes_long(walk: str, case: str) -> bool:
    """Whether a member is in TAKE_LONG; a walk over one kind has names without the kind."""
    if walk == "common_sampler" and case.split("(")[0] not in COMMON:
        return True
    return bool({case, f"{walk.split('_')[-1]}={case.split('(')[0]}"} & TAKE_LONG)


def _built(request: pytest.FixtureRequest) -> Any:
    """The member that is the parameter of a test, built."""
    return request.param()


for _walk in WALKS:
    globals()[_walk] = pytest.fixture(name=_walk)(_built)


@pytest.fixture
def all_schedules() -> list[NoiseSchedule]:
    return all_of("schedule")


@pytest.fixture
def all_samplers() -> list[Sampler]:
    return list(settings_of_samplers().values())


@pytest.fixture
def members_that_take_long() -> list[tuple[str, str, Callable[[], Any]]]:
    """The kind and the name of the members in `TAKE_LONG` but samplers, and what builds them."""
    chosen = sorted(tuple(case.split("=")) for case in TAKE_LONG if "sampler=" not in case)
    found = {kind: members(kind) for kind, _ in chosen}
    return [(kind, name, found[kind][name]) for kind, name in chosen]


@pytest.fixture
def all_members() -> Callable[..., dict[str, Callable[[], Any]]]:
    """The walk over the members of a kind, see `members`."""
    return members


@pytest.fixture(scope="session")
def gallery_script() -> Callable[[str], ModuleType]:
    """Loads a script of multirun/gallery by its name."""

    def load(name: str) -> ModuleType:
        path = Path(__file__).parents[1] / "multirun" / "gallery" / f"{name}.py"
        spec: Any = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


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

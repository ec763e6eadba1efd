"""The schedulers of diffusers, run by the loop of its documentation.

    scheduler.set_timesteps(N)
    for t in scheduler.timesteps:
        y = network(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(y, t, x).prev_sample

Our denoiser replaces a network that was trained on the scheduler's own levels. `diffusers_loops`
has the paths, the outputs of the networks, and the loops of schedulers whose pipelines do more.

A pipeline also draws the start: some begin with N(0, I), and some with `init_noise_sigma`. Here the
start is a law at the first level of the states.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import import_module
from logging import ERROR, LogRecord, getLogger
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import yaml
from torch import Tensor

from samplerbench.core.grids import Level, Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.core.schedules import EDM, DDPMTable, NoiseSchedule
from samplerbench.errors import InvalidSetting, did_you_mean, first_line, related, require
from samplerbench.paths import expanded
from samplerbench.samplers.base import Step
from samplerbench.samplers.diffusers_loops import (
    PREDICTIONS,
    Loop,
    Run,
    is_exploding,
    loop_of,
    loop_of_class,
    states_of,
)
from samplerbench.samplers.peers import (
    Brownian,
    Drawing,
    OwnLevels,
    Peer,
    Place,
    own_levels,
    places,
)
from samplerbench.samplers.toy import is_affine_run

#: Arguments of the methods that every loop sets.
_OURS = (
    *("self", "model_output", "timestep", "sample", "generator", "variance_noise", "return_dict"),
    *("num_inference_steps", "device", "timesteps", "sigmas"),
)


@dataclass(frozen=True)
class Diffusers(Peer):
    """A scheduler of the installed diffusers, unchanged.

    For the three spacings of its timesteps see Lin, Liu, Li, Yang, "Common diffusion noise
    schedules and sample steps are flawed", WACV 2024 (arXiv 2305.08891), Table 2.

    Args:
        scheduler: the name of its class; if null, the class that `config` names. Settings may
            follow the name, as in "DDIMScheduler clip_sample=false", so that each scheduler of a
            list can have its own settings.
        settings: the settings that differ from the defaults of the class: keys of its config, and
            arguments of its `step` (such as eta) and `set_timesteps` (such as mu).
        config: a scheduler_config.json, its folder, or the folder of a pipeline. `settings`
            override it. Keys that the class does not have are ignored, as in diffusers.
        custom: a scheduler class of a trusted package, instead of `scheduler`.
    """

    package: ClassVar[str] = "diffusers"
    scheduler: str | None = "DDIMScheduler"
    settings: Mapping[str, Any] | None = field(default=None, hash=False)
    config: str | None = None
    custom: Callable[..., Any] | None = None
    version: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", self.installed())
        name, added = _called(self.scheduler)
        given = {**(self.settings or {}), **added}
        file = {} if self.config is None else _read(self.config)
        kind: Any = self.custom or _kind(name or file.get("_class_name"))
        with quiet():
            try:
                reason = _why_no_class(kind)
                require(reason is None, "scheduler", kind.__name__, f"another one: {reason}")
                _require_keys(kind, given)
                init = {k: v for k, v in given.items() if k in _parameters(kind.__init__)}
                scheduler = kind.from_config(file, **init) if file else kind(**init)
            except InvalidSetting:
                raise
            except Exception as error:  # it may raise anything
                if not given:  # a missing package, for example
                    allowed = f"another one: {first_line(error)}"
                    raise InvalidSetting("scheduler", kind.__name__, allowed) from error
                allowed = f"accepted by {kind.__name__}: {first_line(error)}"
                raise InvalidSetting("settings", given, allowed) from error
        config = scheduler.config if hasattr(scheduler, "config") else init
        default = {k: p.default for k, p in _parameters(kind.__init__).items()}
        differs = {k: config[k] for k in default if k in config and config[k] != default[k]}
        called = {k: v for k, v in given.items() if k not in init}
        # the same fields for the same scheduler, with or without `config`
        object.__setattr__(self, "scheduler", kind.__name__)
        object.__setattr__(self, "settings", differs | called)
        object.__setattr__(self, "config", None)
        self.__dict__["_scheduler"] = scheduler
        reason = _why_not(scheduler)
        if reason is not None:
            raise InvalidSetting("scheduler", kind.__name__, f"another one: {reason}")
        if self.settings:
            self._require_a_run("settings", self.settings)

    @classmethod
    def variants(cls) -> list[Self]:
        return cls.if_installed(
            {},
            {"scheduler": "EulerAncestralDiscreteScheduler"},
            {"scheduler": "DPMSolverMultistepScheduler", "settings": {"use_karras_sigmas": True}},
        )

    @cached_property
    def affine(self) -> bool:
        """Whether a run on `Toy` is affine in start and noise: it does not clip, for example.

        Some schedulers have `clip_sample` in their config and do not clip.
        """
        # some of their codes compute in float32
        return is_affine_run(self, EDM(), self.own(EDM(), self.few), 1e-4)

    @property
    def clips(self) -> str:
        keys = ("clip_sample", "clip_denoised", "thresholding")
        found = next((key for key in keys if self._prototype.config.get(key)), "")
        return "" if self.affine else found

    @cached_property
    def _prototype(self) -> Any:
        """The scheduler; runs use copies and do not change it."""
        return self.__dict__["_scheduler"]

    @property
    def _loop(self) -> Loop:
        loop = loop_of(self._prototype)
        assert loop is not None  # the constructor refuses others
        return loop

    def _prepared(self, steps: int) -> Any:
        """The scheduler for N steps, to be read only; a run needs a copy.

        Raises:
            InvalidSetting: the scheduler refuses this number; the message is the scheduler's.
        """
        return self._kept(steps, None, lambda: self._newly_prepared(steps))

    def _exploding(self, scheduler: Any) -> bool:
        """Whether its states have α = 1, which is the same at every N."""
        known: bool | None = self.__dict__.get("_explodes")
        if known is None:
            known = self.__dict__["_explodes"] = is_exploding(scheduler)
        return known

    def _newly_prepared(self, steps: int) -> Any:
        scheduler = _copied(self._prototype)
        more = self._arguments(scheduler.set_timesteps)
        with quiet():
            try:
                self._loop.prepare(scheduler, steps, **more)
            except Exception as error:  # it may raise anything
                allowed = f"a number that {self.scheduler} takes: {first_line(error)}"
                raise InvalidSetting("steps", steps, allowed) from error
        return scheduler

    def _network(self, model: Denoiser, scheduler: Any, steps: int) -> Network:
        """Our denoiser in a run of N steps; its places are computed once for each N."""
        key, known = (steps, id(model.schedule)), self.__dict__.get("_places")
        if known is None or known[0] != key:
            found = Network.places_of(model.schedule, scheduler)
            known = self.__dict__["_places"] = key, found, model.schedule
        return Network(model, scheduler, known[1])

    def _arguments(self, function: Callable[..., Any]) -> dict[str, Any]:
        """The settings that are arguments of this method."""
        names, config = _parameters(function), _parameters(type(self._prototype).__init__)
        settings = self.settings or {}
        return {k: v for k, v in settings.items() if k in names and k not in config}

    def own(self, schedule: NoiseSchedule, steps: int) -> OwnLevels:
        scheduler = self._prepared(steps)
        states = states_of(self._loop, scheduler, self._exploding(scheduler))
        return own_levels(schedule, states, steps)

    def most_noise(self, schedule: NoiseSchedule, levels: Levels) -> float:
        assert isinstance(levels, OwnLevels)
        most = super().most_noise(schedule, levels)
        if self._loop.states is None:  # each call is at a state
            return most
        calls = self._loop.calls(self._prepared(levels.requested))
        return max(most, *(s / a if a else math.inf for a, s in calls))

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        assert isinstance(levels, OwnLevels)
        if x.ndim == 1:  # some schedulers, such as UniPC, need a batch
            for one in self.steps(model, x[None], levels, noise):
                yield Step(one.x[0], one.x0_hat[0])
            return
        scheduler, dtype = _copied(self._prepared(levels.requested)), x.dtype
        network = self._network(model, scheduler, levels.requested)
        more = {name: self._arguments(getattr(scheduler, name)) for name in self._loop.methods}
        draws, sure = Drawing(noise), not any(more.values())
        for name, arguments in more.items():
            if "generator" in _all_parameters(getattr(type(scheduler), name)):
                # nothing should draw from it; it protects the global generator
                arguments["generator"] = torch.Generator(x.device).manual_seed(0)
        if hasattr(scheduler, "noise_sampler"):  # its own draws with other generators
            scheduler.noise_sampler = Brownian(network, draws)
        run = Run(scheduler, network, lambda: self.drawing(draws, sure), more)
        for step, state in enumerate(self._loop.run(run, x), 1):
            yield Step(state.to(dtype), network.x0_hat.to(dtype))
            draws.at(step)

    @property
    def code(self) -> Any:
        return type(self._prototype)

    def time_error(self, steps: int) -> float:
        scheduler = self._prepared(steps)
        sigmas, own = getattr(scheduler, "sigmas", None), self._loop.calls(scheduler)
        if sigmas is None or not self._loop.indexed or len(sigmas) != len(own) + 1:
            return 0.0
        pairs = zip(own, sigmas.tolist(), strict=False)
        return max(abs(math.log(s / a / sigma)) for (a, s), sigma in pairs if a and sigma)

    def table_visited(self) -> tuple[int, int]:
        if not self._loop.indexed:
            return 0, 0
        length = len(self._prototype.alphas_cumprod)
        try:
            times = self._prepared(length).timesteps
        except InvalidSetting:  # it refuses so many steps
            return 0, 0
        return len({float(t) for t in times if t == t.round() and 0 <= t < length}), length

    def evaluations(self, steps: int) -> int:
        return len(self._loop.calls(self._prepared(steps)))


class Network:
    """Our denoiser as the network that a scheduler calls.

    Attributes:
        x0_hat: the x̂₀ of the last call.
        places: where the denoiser is evaluated in each call.
    """

    def __init__(
        self, model: Denoiser, scheduler: Any, places: Sequence[Place] | None = None
    ) -> None:
        loop = loop_of(scheduler)
        assert loop is not None
        self.model, self.scheduler, self.loop = model, scheduler, loop
        self.places = places or self.places_of(model.schedule, scheduler)

    @staticmethod
    def places_of(schedule: NoiseSchedule, scheduler: Any) -> list[Place]:
        """Where the denoiser is evaluated in each call."""
        loop = loop_of(scheduler)
        assert loop is not None
        scales = loop.calls(scheduler)
        if not (isinstance(schedule, DDPMTable) and loop.indexed):
            return places(schedule, scales)
        length = schedule.train_steps
        return [
            Place(a, s, Level((float(t) + 1) / length, a, s), 1.0)
            for t, (a, s) in zip(scheduler.timesteps, scales, strict=True)
        ]

    def __call__(self, scaled: Tensor, call: int, x: Tensor) -> Tensor:
        """The output for the scaled state in a call; x is the state itself."""
        place, seen = self.places[call], x if self.loop.unscaled else scaled
        x0_hat = self.x0_hat = place.x0_hat(self.model, seen)
        return self.loop.gives(self.scheduler, call, place, seen, x0_hat)


def _copied(scheduler: Any) -> Any:
    """A copy of a scheduler; it shares only its frozen config. Tensors are copied beforehand."""
    members = {id(one): one for one in vars(scheduler).values() if isinstance(one, Tensor)}
    memo = {key: one.clone() for key, one in members.items()}
    return copy.deepcopy(scheduler, memo | {id(scheduler.config): scheduler.config})  # frozen


def _called(text: str | None) -> tuple[str | None, dict[str, Any]]:
    """The name and the settings in "Name key=value key=value"."""
    name, *words = (text or "").split() or [""]
    settings = {}
    for word in words:
        key, equals, value = word.partition("=")
        allowed = "a class, and settings after it, as in DDIMScheduler clip_sample=false"
        require(bool(key and equals and value), "scheduler", text, allowed)
        settings[key] = yaml.safe_load(value)
    return name or None, settings


def scheduler_names() -> list[str]:
    """The names of all schedulers of diffusers, in the order of the alphabet."""
    import diffusers

    # a scheduler that needs a missing package is a class that reports it when it is used
    return sorted({one for one in dir(diffusers) if one.endswith("Scheduler")} | {*_deprecated()})


@cache
def _deprecated() -> Mapping[str, type]:
    """The classes in the folder `schedulers/deprecated`.

    diffusers gives them only if transformers is installed, which they do not need.
    """
    from diffusers import schedulers

    found: dict[str, type] = {}
    for one in Path(str(schedulers.__file__)).parent.glob("deprecated/scheduling_*.py"):
        module = import_module(f"{schedulers.__name__}.deprecated.{one.stem}")
        found |= {k: v for k, v in vars(module).items() if k.endswith("Scheduler")}
    return found


def _kind(name: object) -> Any:
    """The class of a scheduler by its name."""
    import diffusers

    names = scheduler_names()
    listed = did_you_mean(related(str(name), names)) or f": {', '.join(names)}"
    allowed = f"a scheduler of diffusers {diffusers.__version__}{listed}"
    require(name in names, "scheduler", name, allowed)
    return _deprecated().get(str(name)) or getattr(diffusers, str(name))


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    found = _all_parameters(getattr(function, "__func__", function))
    return {name: one for name, one in found.items() if name not in _OURS}


@cache
def _all_parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def _require_keys(kind: Any, settings: Mapping[str, Any]) -> None:
    """Refuse a key that neither the config nor the methods of a scheduler have."""
    loop = loop_of_class(kind)
    methods, hands = (loop.methods, loop.hands) if loop else (("step",), frozenset[str]())
    functions = kind.__init__, *(getattr(kind, one) for one in methods), kind.set_timesteps
    parameters = dict.fromkeys(name for one in functions for name in _parameters(one))
    known = [name for name in parameters if name not in hands]
    for name, value in settings.items():
        allowed = f"left out: {kind.__name__} has {', '.join(known)}"
        require(name in known, f"settings.{name}", value, allowed)


def _read(place: str) -> dict[str, Any]:
    """A scheduler's config from its file, its folder or the folder of a pipeline."""
    path = expanded(place)
    tried = [path, path / "scheduler_config.json", path / "scheduler" / "scheduler_config.json"]
    found = next((one for one in tried if os.path.isfile(one)), None)
    allowed = "an existing scheduler_config.json, or a folder with one"
    if found is None:
        raise InvalidSetting("config", place, allowed)
    try:
        content = json.loads(found.read_bytes())
    except ValueError as error:
        raise InvalidSetting("config", place, f"{allowed}: {first_line(error)}") from error
    require(isinstance(content, dict), "config", place, allowed)
    return dict(content)


def _why_no_class(kind: Any) -> str | None:
    """Why a denoiser cannot replace the network for schedulers of this class, or None."""
    if loop_of_class(kind) is not None:
        return None
    methods = "step", "set_timesteps"
    missing = [f"{one}()" for one in methods if not callable(getattr(kind, one, None))]
    if missing:
        return f"it has no {' and no '.join(missing)}, as the documented loop needs"
    needed = [
        name
        for name, one in _parameters(kind.step).items()
        if one.default is one.empty and one.kind is not one.VAR_KEYWORD
    ]
    sample = inspect.signature(kind.step).parameters.get("sample")
    if sample is not None and "Long" in str(sample.annotation):
        return "its states are discrete"
    if "r_timestep" in _parameters(kind.step):
        return "its network is a map from one time to another, which a denoiser cannot replace"
    if needed:
        return f"its step() needs {' and '.join(needed)}, which a law of data does not have"
    if "Inverse" in kind.__name__:
        return "it goes from the data to the noise"
    return None


def _why_not(scheduler: Any) -> str | None:
    """Why a denoiser cannot replace the network of this scheduler, in one line, or None."""
    config, loop = scheduler.config, loop_of(scheduler)
    if str(config.get("variance_type")).startswith("learned"):
        return "its network predicts a variance too"
    if loop is None:
        return "its path has no table of ᾱ, and is not one of the other known paths"
    predicts = config.get("prediction_type")
    if loop.predicts and predicts is None:
        return "its config has no prediction_type, which says what its network predicts"
    if loop.predicts and predicts not in PREDICTIONS:
        return f"its prediction_type={predicts} is none of {', '.join(PREDICTIONS)}"
    return loop.why_not(scheduler)


#: Whether this thread is inside `quiet`.
_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Switch off the warnings of diffusers in this thread.

    Settings with important warnings are refused here.
    """
    from diffusers.utils.logging import get_verbosity

    get_verbosity()  # creates the handlers
    # a filter of the handlers: levels are shared by all threads, and a change of a logger's level
    # clears the caches of all loggers, which takes longer than some runs
    for handler in getLogger("diffusers").handlers:
        handler.addFilter(_is_heard)  # a handler keeps it once
    before = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(before)


def _is_heard(record: LogRecord) -> bool:
    return record.levelno >= ERROR or not _QUIET.get()

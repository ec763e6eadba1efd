"""The schedulers of diffusers, run by the loop of its documentation.

    scheduler.set_timesteps(N)
    for t in scheduler.timesteps:
        y = network(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(y, t, x).prev_sample

Our denoiser replaces a network that was trained on the scheduler's own levels. Such a network knows
its level only from t. So the denoiser is evaluated at the level that belongs to t, even if the
scheduler has rounded t and its state is at a slightly different level:

- a table ᾱ: t is an index, α² = ᾱ_t, σ² = 1 − ᾱ_t. Between two indices ln σ/α is linear, which
  is the inverse of the formula by which diffusers finds t. If the job's schedule is a table too, as
  that of a pretrained pipeline, the network gets the same t;
- flow matching (`FlowMatch…`, `use_flow_sigmas`): t = T·σ, α = 1 − σ;
- EDM (`EDMEuler…`, `EDMDPMSolver…`) and `timestep_type: continuous`: the scheduler's σ, since t is
  a logarithm of it; in EDM the network gives (x̂₀ − c_skip·x)/c_out with the scheduler's own c_skip
  and c_out;
- `IPNDMScheduler`: its own α and σ; the network gives v.

A pipeline also draws the start: some begin with N(0, I), and some with `init_noise_sigma`. Here the
start is a law at the first level of the states.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, cached_property
from logging import ERROR, LogRecord, getLogger
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import yaml
from torch import Tensor

from samplerbench.core.grids import Level, Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.core.schedules import DDPMTable, NoiseSchedule
from samplerbench.errors import InvalidSetting, first_line, require, similar
from samplerbench.samplers.base import Step
from samplerbench.samplers.peers import (
    Brownian,
    Drawing,
    OwnLevels,
    Peer,
    Place,
    own_levels,
    places,
)

#: The schedulers whose network gives ε − x₀ on the straight path; their subclasses too.
FLOW = (
    *("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"),
    *("FlowMatchLCMScheduler", "LTXEulerAncestralRFScheduler"),
)
#: What a denoiser gives on a table of ᾱ.
_PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow_prediction")
#: Arguments of `step` and `set_timesteps` that the loop itself sets.
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

    @property
    def affine(self) -> bool:
        """Whether the scheduler never clips."""
        config = self._prototype.config
        return not (config.get("clip_sample") or config.get("thresholding"))

    @cached_property
    def _prototype(self) -> Any:
        """The scheduler; runs use copies and do not change it."""
        return self.__dict__["_scheduler"]

    def _prepared(self, steps: int) -> Any:
        """The scheduler for N steps, to be read only; a run needs a copy.

        Raises:
            InvalidSetting: the scheduler refuses this number; the message is the scheduler's.
        """
        known = self.__dict__.get("_ready")  # for the blocks of a cell
        if known is None or known[0] != steps:
            known = self.__dict__["_ready"] = steps, self._newly_prepared(steps)
        return known[1]

    def _exploding(self, scheduler: Any) -> bool:
        """Whether its states have α = 1, which is the same at every N."""
        known: bool | None = self.__dict__.get("_explodes")
        if known is None:
            known = self.__dict__["_explodes"] = _is_exploding(scheduler)
        return known

    def _newly_prepared(self, steps: int) -> Any:
        scheduler = _copied(self._prototype)
        more = self._arguments(scheduler.set_timesteps)
        with quiet():
            try:
                scheduler.set_timesteps(steps, **more)
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
        exploding = self._exploding(scheduler)
        states = [(1.0, s / a) if exploding else (a, s) for a, s in _scales(scheduler)]
        return own_levels(schedule, [*states, _last(scheduler, exploding)], steps)

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        assert isinstance(levels, OwnLevels)
        if x.ndim == 1:  # some schedulers, such as UniPC, need a batch
            for one in self.steps(model, x[None], levels, noise):
                yield Step(one.x[0], one.x0_hat[0])
            return
        scheduler, dtype = _copied(self._prepared(levels.requested)), x.dtype
        network = self._network(model, scheduler, levels.requested)
        more = self._arguments(scheduler.step)
        draws, sure = Drawing(noise), not more
        if "generator" in _all_parameters(type(scheduler).step):
            # nothing should draw from it; it protects the global generator
            more["generator"] = torch.Generator(x.device).manual_seed(0)
        if hasattr(scheduler, "noise_sampler"):  # its own draws with other generators
            scheduler.noise_sampler = Brownian(network, draws)
        scaled = getattr(scheduler, "scale_model_input", _unscaled)
        befores = [*scheduler.timesteps[1:], None]
        hands = "prev_timestep" in _parameters(scheduler.step)  # to unCLIP, as its pipeline does
        for step, (t, before) in enumerate(zip(scheduler.timesteps, befores, strict=True)):
            y = network(scaled(x, t), step, x)
            if hands:
                more["prev_timestep"] = before
            with self.drawing(draws.at(step), sure):
                x = scheduler.step(y, t, x, **more).prev_sample
            yield Step(x.to(dtype), network.x0_hat.to(dtype))

    @property
    def code(self) -> Any:
        return type(self._prototype)

    def time_error(self, steps: int) -> float:
        scheduler = self._prepared(steps)
        sigmas, own = getattr(scheduler, "sigmas", None), _scales(scheduler)
        if sigmas is None or not _indexed(scheduler) or len(sigmas) != len(own) + 1:
            return 0.0
        pairs = zip(own, sigmas.tolist(), strict=False)
        return max(abs(math.log(s / a / sigma)) for (a, s), sigma in pairs if a and sigma)

    def table_visited(self) -> tuple[int, int]:
        if not _indexed(self._prototype):
            return 0, 0
        length = len(self._prototype.alphas_cumprod)
        try:
            times = self._prepared(length).timesteps
        except InvalidSetting:  # it refuses so many steps
            return 0, 0
        return len({float(t) for t in times if t == t.round() and 0 <= t < length}), length

    def evaluations(self, steps: int) -> int:
        return len(self._prepared(steps).timesteps)


def _unscaled(x: Tensor, t: Tensor) -> Tensor:
    return x


class Network:
    """Our denoiser as the network that a scheduler calls.

    Attributes:
        x0_hat: the x̂₀ of the last call.
        places: where the denoiser is evaluated in each call.
    """

    def __init__(
        self, model: Denoiser, scheduler: Any, places: Sequence[Place] | None = None
    ) -> None:
        self.model, self.scheduler = model, scheduler
        self.places = places or self.places_of(model.schedule, scheduler)
        self.kind = _predicts(scheduler)

    @staticmethod
    def places_of(schedule: NoiseSchedule, scheduler: Any) -> list[Place]:
        """Where the denoiser is evaluated in each call."""
        scales = _scales(scheduler)
        if not (isinstance(schedule, DDPMTable) and _indexed(scheduler)):
            return places(schedule, scales)
        length = schedule.train_steps
        return [
            Place(a, s, Level((float(t) + 1) / length, a, s), 1.0)
            for t, (a, s) in zip(scheduler.timesteps, scales, strict=True)
        ]

    def __call__(self, scaled: Tensor, step: int, x: Tensor) -> Tensor:
        """The output for the scaled state at a step; x is the state itself."""
        place = self.places[step]
        if self.kind == "edm":
            x0_hat = self.x0_hat = place.x0_hat(self.model, x)
            sigma, zero = self.scheduler.sigmas[step], torch.zeros_like(x)
            skip: Tensor = self.scheduler.precondition_outputs(x, zero, sigma)
            out: Tensor = self.scheduler.precondition_outputs(zero, zero + 1, sigma)
            return (x0_hat - skip) / out
        x0_hat = self.x0_hat = place.x0_hat(self.model, scaled)
        if self.kind == "sample":
            return x0_hat
        eps_hat = place.eps_hat(scaled, x0_hat)
        if self.kind == "epsilon":
            return eps_hat
        if self.kind == "v_prediction":
            return place.alpha * eps_hat - place.sigma * x0_hat
        return eps_hat - x0_hat  # a flow


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
    return [one for one in dir(diffusers) if one.endswith("Scheduler")]


def _kind(name: object) -> Any:
    """The class of a scheduler by its name."""
    import diffusers

    names = scheduler_names()
    allowed = f"a scheduler of diffusers {diffusers.__version__}: {', '.join(names)}"
    require(name in names, "scheduler", name, allowed + similar(str(name), names))
    return getattr(diffusers, str(name))


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    found = _all_parameters(getattr(function, "__func__", function))
    return {name: one for name, one in found.items() if name not in _OURS}


@cache
def _all_parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def _require_keys(kind: Any, settings: Mapping[str, Any]) -> None:
    """Refuse a key that neither the config nor the methods of a scheduler have."""
    known = [*_parameters(kind.__init__), *_parameters(kind.step), *_parameters(kind.set_timesteps)]
    for name, value in settings.items():
        allowed = f"left out: {kind.__name__} has {', '.join(dict.fromkeys(known))}"
        require(name in known, f"settings.{name}", value, allowed)


def _read(place: str) -> dict[str, Any]:
    """A scheduler's config from its file, its folder or the folder of a pipeline."""
    path = Path(place).expanduser()
    tried = [path, path / "scheduler_config.json", path / "scheduler" / "scheduler_config.json"]
    found = next((one for one in tried if one.is_file()), None)
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
        return f"its step() needs {', '.join(needed)}, which its documented loop does not have"
    if "Inverse" in kind.__name__:
        return "it goes from the data to the noise"
    return None


def _why_not(scheduler: Any) -> str | None:
    """Why a denoiser cannot replace the network of this scheduler, in one line, or None."""
    if str(scheduler.config.get("variance_type")).startswith("learned"):
        return "its network predicts a variance too"
    if _predicts(scheduler) is None:
        predicts = scheduler.config.get("prediction_type")
        if predicts in _PREDICTIONS:
            return "its path has no table of ᾱ, and is not one of the other known paths"
        if predicts is None:
            return "its config has no prediction_type, which says what its network predicts"
        return f"its prediction_type={predicts} is none of {', '.join(_PREDICTIONS)}"
    return None


def _predicts(scheduler: Any) -> str | None:
    """The quantity that the network of a scheduler predicts; None if it is not known here."""
    names = {one.__name__ for one in type(scheduler).__mro__}
    if names & {*FLOW}:
        return "flow"
    if hasattr(scheduler, "precondition_outputs"):
        return "edm"
    if "IPNDMScheduler" in names:
        return "v_prediction"
    predicts = scheduler.config.get("prediction_type")
    return predicts if hasattr(scheduler, "alphas_cumprod") and predicts in _PREDICTIONS else None


def _indexed(scheduler: Any) -> bool:
    """Whether t is an index of the table of ᾱ."""
    config = scheduler.config
    straight = config.get("use_flow_sigmas") or config.get("timestep_type") == "continuous"
    return hasattr(scheduler, "alphas_cumprod") and not straight


def _scales(scheduler: Any) -> list[tuple[float, float]]:
    """(α, σ) of the network's input in each call."""
    times = torch.as_tensor(scheduler.timesteps).double().cpu()
    if _indexed(scheduler):
        table = scheduler.alphas_cumprod.double().cpu()
        low = times.floor().long().clamp(0, len(table) - 1)
        high = (low + 1).clamp(max=len(table) - 1)
        # at an index take ᾱ itself, without rounding
        share = times - low
        logs = (1 - table).div(table).log() / 2
        kappa = torch.where(share == 0, logs[low], logs[low].lerp(logs[high], share)).exp()
        signal = torch.where(share == 0, table[low], 1 / (1 + kappa.square()))
        alpha, sigma = signal.sqrt(), (1 - signal).sqrt()
    elif hasattr(scheduler, "precondition_outputs"):
        sigma = torch.as_tensor(scheduler.sigmas).double().cpu()[: len(times)]
        alpha = torch.ones_like(sigma)
    elif scheduler.config.get("timestep_type") == "continuous":
        kappa = torch.as_tensor(scheduler.sigmas).double().cpu()[: len(times)]
        alpha = 1 / (1 + kappa.square()).sqrt()
        sigma = alpha * kappa
    elif hasattr(scheduler, "alphas_cumprod") or hasattr(scheduler, "sigmas"):
        sigma = times / scheduler.config.num_train_timesteps
        alpha = 1 - sigma
    else:  # IPNDM
        alpha, sigma = (one.double()[:-1] for one in (scheduler.alphas, scheduler.betas))
    return list(zip(alpha.tolist(), sigma.tolist(), strict=True))


def _is_exploding(scheduler: Any) -> bool:
    """Whether its states have α = 1: then it scales the network's input."""
    if not hasattr(scheduler, "scale_model_input"):
        return False
    one = torch.ones(1)
    # on a copy, because the call may change its state
    scaled = copy.deepcopy(scheduler).scale_model_input(one, scheduler.timesteps[0])
    return not torch.equal(scaled, one)


def _last(scheduler: Any, exploding: bool) -> tuple[float, float]:
    """(α, σ) of the last state."""
    config = scheduler.config
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None:
        sigma = float(sigmas[-1])
        if exploding:
            return 1.0, sigma
        if config.get("use_flow_sigmas") or not hasattr(scheduler, "alphas_cumprod"):
            return 1 - sigma, sigma
        return 1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma)
    signal = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    return math.sqrt(signal), math.sqrt(1 - signal)


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

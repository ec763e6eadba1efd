"""The samplers of azula, run by their own code on their own times.

    sampler = azula.sample.DDIMSampler(denoiser, steps=N)
    x = sampler(x)

Our denoiser replaces azula's: its posterior mean at time t is x̂₀ at the (α_t, σ_t) of the chosen
schedule of azula. That schedule ends with noise (σ_min = 10⁻³), and so do the states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from inspect import isclass, signature
from typing import Any, ClassVar, Self

from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.errors import did_you_mean, related, require
from samplerbench.samplers.base import Step
from samplerbench.samplers.peers import (
    Drawing,
    OwnLevels,
    Peer,
    Place,
    differing,
    own_levels,
    places,
    refused,
)


@dataclass(frozen=True)
class Azula(Peer):
    """A sampler of the installed azula, unchanged.

    The default is that of Song, Meng, Ermon, "Denoising diffusion implicit models" (arXiv
    2010.02502).

    Args:
        method: the name of its class.
        settings: arguments of the class that differ from the defaults, such as eta, order or start.
        schedule: the name of a class in azula.noise.
        schedule_settings: arguments of the schedule that differ from its defaults.
    """

    package: ClassVar[str] = "azula"
    method: str = "DDIMSampler"
    settings: Mapping[str, Any] | None = field(default=None, hash=False)
    schedule: str = "VPSchedule"
    schedule_settings: Mapping[str, Any] | None = field(default=None, hash=False)
    version: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", self.installed())
        kind = _chosen("sample", "Sampler", "method", self.method)
        path = _chosen("noise", "Schedule", "schedule", self.schedule)
        # these include arguments of the base class, but not those that the loop sets
        base = signature(_module("sample").Sampler.__init__)
        known = {**base.parameters, **signature(kind.__init__).parameters}
        for name in ("self", "denoiser", "kwargs", "steps", "silent", "device", "dtype"):
            known.pop(name, None)
        given = differing("settings", self.settings, known, self.method)
        of_path = dict(signature(path.__init__).parameters)
        of_path.pop("self")
        scales = differing("schedule_settings", self.schedule_settings, of_path, self.schedule)
        object.__setattr__(self, "settings", given)
        object.__setattr__(self, "schedule_settings", scales)
        if given:
            self._require_a_run("settings", given)
        elif scales:
            self._require_a_run("schedule_settings", scales)

    @classmethod
    def variants(cls) -> list[Self]:
        names = ("HeunSampler", "zABSampler", "DDPMSampler")
        return cls.if_installed({}, *({"method": name} for name in names))

    @property
    def code(self) -> Any:
        return getattr(_module("sample"), self.method)

    def _built(self, denoiser: Any, steps: int) -> Any:
        return self.code(denoiser, steps=steps, silent=True, **(self.settings or {}))

    @property
    def _path(self) -> Any:
        return getattr(_module("noise"), self.schedule)(**(self.schedule_settings or {}))

    def _scales(self, steps: int) -> list[tuple[float, float]]:
        """(α, σ) at each of its times, which are float32."""
        alpha, sigma = self._path(self._built(None, steps).timesteps)
        return list(zip(alpha.tolist(), sigma.tolist(), strict=True))

    def own(self, schedule: NoiseSchedule, steps: int) -> OwnLevels:
        with refused("steps", steps):
            scales = self._scales(steps)
        return own_levels(schedule, scales, steps)

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        sampler, posterior = self._ready(model, levels, noise)
        if _stops_after_steps(self.code):
            posterior.keeps = False
            pairs = sampler.timesteps.unfold(0, 2, 1).to(device=x.device)
            for step, (t, s) in enumerate(pairs):
                with self.drawing(posterior.draws.at(step)):
                    x = sampler.step(x, t, s)
                yield Step(x, posterior.x0_hat)
            return
        with self.drawing(posterior.draws):
            last = sampler(x)
        # a multistep method evaluates each state once
        for x, x0_hat in zip([*posterior.states[1:], last], posterior.outputs, strict=True):
            yield Step(x, x0_hat)

    def last_state(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Tensor | None:
        if _stops_after_steps(self.code):
            return None
        sampler, posterior = self._ready(model, levels, noise)
        posterior.keeps = False
        with self.drawing(posterior.draws):
            last: Tensor = sampler(x)
        return last

    def _ready(self, model: Denoiser, levels: Levels, noise: Noise) -> tuple[Any, Posterior]:
        """Their sampler for a run, and the model that it calls."""
        assert isinstance(levels, OwnLevels)
        draws = Drawing(noise, self.stochastic or bool(self.settings))
        posterior = Posterior(model, self._path, draws)
        sampler = self._built(posterior, levels.requested)
        posterior.places = self._places(sampler.timesteps, model.schedule, levels.requested)
        return sampler, posterior

    def _places(self, times: Tensor, schedule: NoiseSchedule, steps: int) -> dict[float, Place]:
        """The place of each time on a path."""

        def find() -> dict[float, Place]:
            own = places(schedule, self._scales(steps))
            return dict(zip(times.tolist(), own, strict=True))

        return self._kept(steps, schedule, find)


def _stops_after_steps(kind: Any) -> bool:
    """Whether a class has azula's own loop: a call of `step` for each pair of times, no more."""
    same: bool = kind.__call__ is _module("sample").Sampler.__call__
    return same


class Posterior:
    """Our denoiser as a denoiser of azula: `schedule` and a call that returns a mean.

    Attributes:
        x0_hat: the x̂₀ of the last call.
        places: the place of each time.
        keeps: whether the states and outputs of all calls are kept.
        states: the states of all calls.
        outputs: the outputs of all calls.
    """

    def __init__(self, model: Denoiser, schedule: Any, draws: Drawing) -> None:
        self.model, self.schedule, self.draws, self.keeps = model, schedule, draws, True
        self.states: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.places: dict[float, Place] = {}

    def __call__(self, x: Tensor, t: Tensor) -> Mean:
        self.x0_hat = self.places[float(t)].x0_hat(self.model, x)
        if self.keeps:
            self.states.append(x)
            self.outputs.append(self.x0_hat)
        return Mean(self.x0_hat)


@dataclass(frozen=True)
class Mean:
    """The part of a posterior that azula reads."""

    mean: Tensor


def _module(name: str) -> Any:
    return import_module(f"azula.{name}")


def _chosen(module: str, base: str, field_: str, name: str) -> Any:
    """A class of a module of azula."""
    home = _module(module)
    parent = getattr(home, base)
    kinds = {
        one: kind
        for one, kind in vars(home).items()
        if isclass(kind) and issubclass(kind, parent) and kind is not parent
    }
    listed = did_you_mean(related(str(name), kinds)) or f": {', '.join(kinds)}"
    require(name in kinds, field_, name, f"a class of azula.{module}{listed}")
    return kinds[name]

"""The sampling functions of k-diffusion, run by their own code on their own σ.

    sigmas = k_diffusion.sampling.get_sigmas_karras(N, sigma_min, sigma_max)
    x = k_diffusion.sampling.sample_heun(model, x, sigmas)

Our denoiser replaces `model`: x̂₀ at α = 1 and the σ of the call.

Only `sampling.py` of the package is loaded. The package itself needs torchvision, CLIP, kornia and
more; `sampling.py` uses only one function of three lines from the rest of it. It also imports an
SDE library, the default source of noise of some functions, which we replace by ours, and an ODE
library for likelihoods. If these are not installed, empty modules replace them during loading.

A function runs from its first to its last step in one call. Its states come from its callback, and
are kept until the run ends. Functions that choose their own steps between σ_max and σ_min
(`sample_dpm_fast`, `sample_dpm_adaptive`) give only their last state.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from inspect import Parameter, signature
from threading import Lock
from typing import Any, ClassVar, Self

from torch import Tensor

from samplerbench.core.grids import Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.errors import did_you_mean, missing, related, require
from samplerbench.samplers.base import Step
from samplerbench.samplers.peers import (
    Brownian,
    Drawing,
    OwnLevels,
    Peer,
    Place,
    differing,
    own_levels,
    places,
    refused,
)

KARRAS = "get_sigmas_karras"
#: The range of σ in the configs of the package's own models.
RANGE = {"sigma_min": 0.01, "sigma_max": 80.0}
#: Arguments of a function and of a grid that the loop sets.
_OURS = (
    *("model", "x", "sigmas", "extra_args", "callback", "disable", "noise_sampler"),
    *("n", "sigma_min", "sigma_max", "device", "return_info"),
)


@dataclass(frozen=True)
class KDiffusion(Peer):
    """A function of the installed k-diffusion, unchanged.

    The grids and Heun's method are those of Karras et al. 2022 (arXiv 2206.00364), Eq. 5 and
    Algorithm 2.

    Args:
        function: the name of the function.
        settings: keyword arguments that differ from its defaults, such as eta, s_churn or order.
        sigmas: the function that makes the grid; null is get_sigmas_karras.
        sigmas_settings: arguments of the grid that differ from the defaults; sigma_min and
            sigma_max, which have no defaults in the package, are those of `RANGE` by default.
    """

    package: ClassVar[str] = "k-diffusion"
    yields_late: ClassVar[bool] = True
    function: str = "sample_dpmpp_2m"
    settings: Mapping[str, Any] | None = field(default=None, hash=False)
    sigmas: str | None = None
    sigmas_settings: Mapping[str, Any] | None = field(default=None, hash=False)
    version: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", self.installed())
        function = _named("sample_", "function", self.function)
        grid = _named("get_sigmas_", "sigmas", self.sigmas or KARRAS)
        own = {k: v for k, v in signature(function).parameters.items() if k not in _OURS}
        of_grid = {
            k: v.replace(default=RANGE.get(k, v.default))
            for k, v in signature(grid).parameters.items()
            if k not in ("n", "device")
        }
        given = differing("settings", self.settings, own, self.function)
        scales = differing("sigmas_settings", self.sigmas_settings, of_grid, grid.__name__)
        object.__setattr__(self, "settings", given)
        object.__setattr__(self, "sigmas", None if self.sigmas == KARRAS else self.sigmas)
        object.__setattr__(self, "sigmas_settings", scales)
        fits = self._takes_sigmas or "sigma_min" in of_grid
        require(fits, "sigmas", self.sigmas, "a grid between sigma_min and sigma_max")
        if scales:
            with refused("sigmas_settings", scales):
                levels = self._grid(2)
            falls = levels.isreal().all() and (levels.real.diff() < 0).all()  # not if it is NaN
            allowed = "settings with which σ falls, as with 0 < sigma_min < sigma_max"
            require(bool(falls), "sigmas_settings", scales, allowed)
            self._require_a_run("sigmas_settings", scales)
        elif given:
            self._require_a_run("settings", given)

    @property
    def code(self) -> Any:
        return getattr(sampling(), self.function)

    @property
    def adaptive(self) -> bool:  # type: ignore[override]  # one of the functions is
        return self.function == "sample_dpm_adaptive"

    def evaluations(self, steps: int) -> int | None:
        return None if self.adaptive else super().evaluations(steps)

    @classmethod
    def variants(cls) -> list[Self]:
        names = ("sample_heun", "sample_euler_ancestral", "sample_dpmpp_sde")
        return cls.if_installed({}, *({"function": name} for name in names))

    def _grid(self, steps: int) -> Tensor:
        grid = getattr(sampling(), self.sigmas or KARRAS)
        return grid(steps, **self._scales(grid))  # type: ignore[no-any-return]

    def _scales(self, function: Callable[..., Any]) -> dict[str, Any]:
        """The arguments of the grid that a function takes."""
        known = _known(function)
        scales = RANGE | dict(self.sigmas_settings or {})
        return {k: v for k, v in scales.items() if k in known}

    def _prepared(self, schedule: NoiseSchedule, steps: int) -> tuple[Tensor, dict[float, Place]]:
        """The grid, and the known places on a path, to which a run adds others."""

        def find() -> tuple[Tensor, dict[float, Place]]:
            grid = self._grid(steps)
            sigmas = grid.tolist()
            own = places(schedule, [(1.0, sigma) for sigma in sigmas])
            return grid, dict(zip(sigmas, own, strict=True))

        return self._kept(steps, schedule, find)

    @property
    def _takes_sigmas(self) -> bool:
        return "sigmas" in _known(self.code)

    def own(self, schedule: NoiseSchedule, steps: int) -> OwnLevels:
        with refused("steps", steps):
            sigmas = self._grid(steps).tolist()
        if not self._takes_sigmas:
            ends = self._scales(self.code)
            sigmas = [ends["sigma_max"], ends["sigma_min"]]
        return own_levels(schedule, [(1.0, sigma) for sigma in sigmas], steps)

    def steps(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Iterator[Step]:
        states: list[Tensor] = []
        outputs: list[Tensor] = []

        def keep(info: Mapping[str, Any]) -> None:
            states.append(info["x"])
            outputs.append(info["denoised"])

        last, ask = self._run(model, x, levels, noise, keep)
        if not self._takes_sigmas:
            yield Step(last, ask.x0_hat)
            return
        for x, x0_hat in zip([*states[1:], last], outputs, strict=True):
            yield Step(x, x0_hat)

    def last_state(self, model: Denoiser, x: Tensor, levels: Levels, noise: Noise) -> Tensor:
        return self._run(model, x, levels, noise)[0]

    def _run(
        self,
        model: Denoiser,
        x: Tensor,
        levels: Levels,
        noise: Noise,
        callback: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> tuple[Tensor, Denoised]:
        """The last state of a run, and the model that it called."""
        assert isinstance(levels, OwnLevels)
        function = self.code
        known = _known(function)
        draws = Drawing(noise, self.stochastic or bool(self.settings))
        grid, found = self._prepared(model.schedule, levels.requested)
        grid = grid.to(x.device, copy=True)
        # an adaptive function has other σ in every run
        ask = Denoised(model, dict(found) if self.adaptive else found)
        more = dict(self.settings or {}, disable=True)
        if "noise_sampler" in known:
            more["noise_sampler"] = Brownian(ask, draws)
        if not self._takes_sigmas:
            more |= self._scales(function) | ({"n": levels.requested} if "n" in known else {})
            with self.drawing(draws):
                return function(ask, x, **more), ask
        with self.drawing(draws):
            return function(ask, x, grid, callback=callback, **more), ask


class Denoised:
    """Our denoiser as a model of k-diffusion: (x, σ of each row) ↦ x̂₀.

    Args:
        model: our denoiser.
        known: the places of known σ; those of other calls are added.

    Attributes:
        x0_hat: the x̂₀ of the last call.
    """

    def __init__(self, model: Denoiser, known: dict[float, Place]) -> None:
        self.model, self._places = model, known

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        value = float(sigma[0])
        if value not in self._places:
            (self._places[value],) = places(self.model.schedule, [(1.0, value)])
        self.x0_hat = self._places[value].x0_hat(self.model, x)
        return self.x0_hat


@cache
def _known(function: Callable[..., Any]) -> Mapping[str, Parameter]:
    """The parameters of a function."""
    return signature(function).parameters


_LOADING = Lock()


@cache
def sampling() -> types.ModuleType:
    """`k_diffusion.sampling`, without the rest of its package.

    Raises:
        InvalidSetting: k-diffusion is not installed.
    """
    spec = find_spec("k_diffusion")
    if spec is None:
        raise missing("k-diffusion", "peers")
    with _LOADING:
        package, utils = types.ModuleType("k_diffusion"), types.ModuleType("k_diffusion.utils")
        package.__path__ = list(spec.submodule_search_locations or ())
        utils.append_dims = _append_dims  # type: ignore[attr-defined]
        package.utils = utils  # type: ignore[attr-defined]
        stand_ins = {package.__name__: package, utils.__name__: utils}
        for name, members in {"torchdiffeq": ("odeint",), "torchsde": ()}.items():
            if find_spec(name) is None:
                stand_ins[name] = types.ModuleType(name)
                for member in members:
                    setattr(stand_ins[name], member, None)
        before = {name: sys.modules.get(name) for name in stand_ins}
        sys.modules.update(stand_ins)
        try:
            return import_module("k_diffusion.sampling")
        finally:
            sys.modules.pop("k_diffusion.sampling", None)
            for name, module in before.items():
                if module is None:
                    del sys.modules[name]
                else:
                    sys.modules[name] = module


def _append_dims(x: Tensor, dims: int) -> Tensor:
    return x[(..., *(None,) * (dims - x.ndim))]


def _named(prefix: str, field_: str, name: str) -> Callable[..., Any]:
    """A function of the package by its name."""
    functions = [one for one in vars(sampling()) if one.startswith(prefix)]
    listed = did_you_mean(related(str(name), functions)) or f": {', '.join(functions)}"
    require(name in functions, field_, name, f"a function of k_diffusion.sampling{listed}")
    found: Callable[..., Any] = getattr(sampling(), name)
    return found

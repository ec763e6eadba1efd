"""Samplers of other packages, run by their own code.

A peer uses its own grid, its own last step and its own precision of coefficients. We replace three
things, so that the data, the model, the start and the metric are the same as for our samplers:

- **the model.** At κ' = σ'/α' of its own path the denoiser is evaluated at the level of the job's
  schedule with the same κ, and the state is rescaled to it: x/α is the same on all paths. A κ'
  beyond the end of the schedule is only possible for an exact denoiser, which is evaluated at the
  peer's own level. The output that the code needs follows from x̂₀: ε̂ = (x − α·x̂₀)/σ,
  v = α·ε̂ − σ·x̂₀, or ε̂ − x̂₀. At σ = 0 we set ε̂ = −σ·s(x) = 0.
- **the noise.** Within a step `torch.randn` and `torch.randn_like` return our keyed numbers, so a
  run depends on its key only, and neither reads nor changes the global generator. The two functions
  are replaced in the module `torch`. Code that has imported these functions by name, or draws by
  other functions of torch, runs in a `TorchFunctionMode` instead, which finds every call and is
  slower. `torch.normal` and `normal_` then return our keyed numbers too; functions that draw from
  other laws get a generator that is seeded by our key.
- **the levels** of its states, `OwnLevels`, instead of those of the job's grid.

A peer declares no order. `Peer.stochastic` and `evaluations` come from a run on `Toy`.
"""

from __future__ import annotations

import copy
import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from threading import Lock
from typing import Any, ClassVar, Protocol, Self, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from samplerbench.core.grids import Grid, Level, Levels
from samplerbench.core.models import Counted, Denoiser, Score
from samplerbench.core.noise import KeyedNoise, Noise
from samplerbench.core.schedules import EDM, NoiseSchedule
from samplerbench.errors import InvalidSetting, first_line, needs, require
from samplerbench.samplers.base import Sampler, final_state
from samplerbench.samplers.toy import Toy

Found = TypeVar("Found")


@dataclass(frozen=True, eq=False)
class OwnLevels(Levels):
    """The levels of a peer's states; where its code goes back to more noise, the level is kept.

    Args:
        requested: the number of steps that its code is called with; the code may take more steps.
    """

    requested: int


def own_levels(
    schedule: NoiseSchedule, scales: Sequence[tuple[float, float]], requested: int
) -> OwnLevels:
    """The levels with the given (α, σ) of a peer's path; t is the job's time with the same κ."""
    kept: list[tuple[float, float]] = []
    for alpha, sigma in scales:
        back = bool(kept) and sigma * kept[-1][0] > kept[-1][1] * alpha
        kept.append(kept[-1] if back else (alpha, sigma))
    alpha, sigma = torch.tensor(kept, dtype=torch.float64).T
    t = schedule.time_at(sigma / alpha).nan_to_num(nan=1.0, posinf=1.0).clamp(0, 1)
    with refused("steps", requested):  # with some settings a scale is negative
        return OwnLevels(t, alpha.contiguous(), sigma.contiguous(), requested)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model is evaluated for a state of a peer.

    Args:
        alpha: signal scale of the peer's state.
        sigma: noise scale of the peer's state.
        level: the level of the job's path with the same σ/α.
        scale: the factor from the peer's state to the state at `level`.
    """

    alpha: float
    sigma: float
    level: Level[float]
    scale: float

    def x0_hat(self, model: Denoiser, x: Tensor) -> Tensor:
        """x̂₀ of a state of the peer."""
        return model.denoiser(x if self.scale == 1 else x * self.scale, self.level)

    def eps_hat(self, x: Tensor, x0_hat: Tensor) -> Tensor:
        """ε̂ = (x − α·x̂₀)/σ; 0 where σ = 0."""
        if not self.sigma:
            return torch.zeros_like(x)
        return torch.sub(x, x0_hat, alpha=self.alpha).div_(self.sigma)


def places(schedule: NoiseSchedule, scales: Sequence[tuple[float, float]]) -> list[Place]:
    """The place of each (α, σ) of a peer's path."""
    alpha, sigma = torch.tensor(scales, dtype=torch.float64).reshape(-1, 2).T
    kappa = sigma / alpha
    least, largest = schedule.noise_range
    inside = (kappa >= least) & (kappa <= largest * (1 + 1e-9))
    at = torch.where(inside, kappa, least if largest == torch.inf else largest)
    t = schedule.time_at(at).clamp(0, 1)
    t = torch.where(inside, t, (kappa > least).double())
    ours = torch.stack(schedule(t))
    own = torch.stack([alpha, sigma])
    # if the paths differ only by rounding, use the peer's own numbers
    same = ((ours - own).abs() <= 1e-12 * own.abs()).all(0) | ~inside
    ours = torch.where(same, own, ours)
    ratio = torch.where(same, 1.0, ours.norm(dim=0) / own.norm(dim=0))
    columns = (alpha, sigma, t, *ours, ratio)
    return [
        Place(a, s, Level(time, b, r), scale)
        for a, s, time, b, r, scale in zip(*(c.tolist() for c in columns), strict=True)
    ]


class Drawing:
    """The draws of a run: the keyed numbers of each step, one draw after the other.

    Args:
        noise: the source of the numbers.
        matters: whether the result depends on the numbers. k-diffusion also draws numbers that it
            does not use; torch's own generator, seeded here, is faster for these.

    Attributes:
        from_global: the number of draws for which the code used torch's global generator.
    """

    def __init__(self, noise: Noise, matters: bool = True) -> None:
        self.noise, self.step, self.draw = noise, 0, 0
        self.spare = None if matters else torch.Generator().manual_seed(0)
        self.from_global = 0

    def at(self, step: int) -> Self:
        """Go to the state before the first draw of a step."""
        self.step, self.draw = step, 0
        return self

    def normal(self, like: Tensor) -> Tensor:
        """The next draw of the step."""
        if self.spare is not None:
            numbers = torch.empty(like.shape, dtype=like.dtype)
            return numbers.normal_(generator=self.spare).to(like.device)
        self.draw += 1
        return self.noise.normal(like, self.step, self.draw - 1)

    def randn(self, *shape: Any, **kwargs: Any) -> Tensor:
        """Replaces `torch.randn`; its argument `generator` is not used."""
        self.from_global += kwargs.get("generator") is None
        keep = {k: kwargs[k] for k in ("dtype", "device") if kwargs.get(k) is not None}
        return self.normal(torch.empty(*(shape or (kwargs["size"],)), **keep))

    def randn_like(self, *args: Any, **kwargs: Any) -> Tensor:
        """Replaces `torch.randn_like`."""
        self.from_global += kwargs.get("generator") is None
        return self.normal(torch.empty_like(*args, **kwargs))

    def normal_(self, x: Tensor, mean: Any = 0.0, std: Any = 1.0, **kwargs: Any) -> Tensor:
        """Replaces `Tensor.normal_`."""
        self.from_global += kwargs.get("generator") is None
        return x.copy_(self.normal(x) * std + mean)

    def of_moments(self, mean: Any, std: Any = 1.0, size: Any = None, **kwargs: Any) -> Tensor:
        """Replaces `torch.normal`."""
        like = torch.empty(size or (mean + torch.as_tensor(std)).shape)
        like = like.to(kwargs.get("dtype") or getattr(mean, "dtype", None) or like.dtype)
        device = kwargs.get("device") or getattr(mean, "device", "cpu")
        return self.normal_(like.to(device), mean, std, generator=kwargs.get("generator"))

    def seeded(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A call of another random function of torch, with a generator that the next draw seeds."""
        self.from_global += kwargs.get("generator") is None
        device = kwargs.get("device") or getattr(args[0], "device", "cpu")
        self.draw += 1
        like = torch.empty(1, dtype=torch.float64)
        seed = 2**53 * float(self.noise.uniform(like, self.step, self.draw - 1))
        return func(*args, **kwargs | {"generator": torch.Generator(device).manual_seed(int(seed))})


class Everywhere(TorchFunctionMode):
    """A context in which all random functions of torch draw from `draws`.

    This includes calls by other names. Every torch function gets slower, by some microseconds.
    """

    def __init__(self, draws: Drawing) -> None:
        super().__init__()
        self.draws = draws

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in _RANDOM:
            return _RANDOM[func](self.draws, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _seeded(func: Callable[..., Any]) -> Callable[..., Any]:
    return lambda draws, *args, **kwargs: draws.seeded(func, *args, **kwargs)


_RANDN, _RANDN_LIKE = torch.randn, torch.randn_like
#: The random functions of torch, and what replaces them.
_RANDOM: Mapping[Callable[..., Any], Callable[..., Any]] = {
    **{
        one: _seeded(one)
        for one in (
            *(torch.rand, torch.rand_like, torch.randint, torch.randint_like, torch.randperm),
            *(torch.bernoulli, torch.multinomial, torch.poisson, Tensor.bernoulli),
            *(Tensor.multinomial, Tensor.uniform_, Tensor.exponential_, Tensor.bernoulli_),
            *(Tensor.random_, Tensor.cauchy_, Tensor.geometric_, Tensor.log_normal_),
        )
    },
    torch.normal: Drawing.of_moments,
    Tensor.normal_: Drawing.normal_,
    _RANDN: Drawing.randn,
    _RANDN_LIKE: Drawing.randn_like,
}
#: The draws of this thread's run, inside `by_name`.
_HERE: ContextVar[Drawing | None] = ContextVar("draws", default=None)
_RUNS, _CHANGING = [0], Lock()
#: Held by the thread whose draws change the global generator, until it is as before.
_FORKING = Lock()


def _randn(*args: Any, **kwargs: Any) -> Tensor:
    draws = _HERE.get()
    return (_RANDN if draws is None else draws.randn)(*args, **kwargs)


def _randn_like(*args: Any, **kwargs: Any) -> Tensor:
    draws = _HERE.get()
    return (_RANDN_LIKE if draws is None else draws.randn_like)(*args, **kwargs)


@contextmanager
def by_name(draws: Drawing) -> Iterator[None]:
    """A context in which the names `torch.randn` and `torch.randn_like` draw from `draws`.

    Other threads still draw from torch's generator.
    """

    def count(change: int) -> None:
        with _CHANGING:
            _RUNS[0] += change
            torch.randn, torch.randn_like = (
                (_randn, _randn_like) if _RUNS[0] else (_RANDN, _RANDN_LIKE)
            )

    count(1)
    before = _HERE.set(draws)
    try:
        yield
    finally:
        _HERE.reset(before)
        count(-1)


class Called(Protocol):
    """A model that keeps the x̂₀ of its last call."""

    @property
    def x0_hat(self) -> Tensor:
        """The x̂₀ of the last call."""
        ...


class Brownian:
    """The noise between two σ: the increment of a Brownian motion in σ, divided by its deviation.

    This is the law of `BrownianTreeNoiseSampler` of k-diffusion and diffusers, which draws with
    generators of its own. Two calls in one step overlap: [σ, σ'] and [σ, σ''].
    """

    def __init__(self, model: Called, draws: Drawing) -> None:
        self.model, self.draws = model, draws  # each step calls the model first
        self.first: float | None = None
        #: the path at the σ that are known; it is 0 at the first σ of a step
        self.known: dict[float, Tensor] = {}

    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        first, to = float(sigma), float(sigma_next)
        if first != self.first:
            self.first, self.known = first, {}
        if to not in self.known:
            same = to == first
            self.known[to] = torch.zeros_like(self.model.x0_hat) if same else self._drawn(first, to)
        increment: Tensor = self.known[to] / (first - to) ** 0.5
        return increment

    def _drawn(self, first: float, to: float) -> Tensor:
        """The path at a new σ, from the nearest known points above and below in σ."""
        fresh = self.draws.normal(self.model.x0_hat)
        above = min(s for s in (first, *self.known) if s > to)
        below = max((s for s in self.known if s < to), default=None)
        if below is None:
            moved: Tensor = fresh * (above - to) ** 0.5
            return moved if above == first else self.known[above] + moved
        share = (above - to) / (above - below)
        deviation = ((above - to) * (to - below) / (above - below)) ** 0.5
        low = self.known[below]
        # most functions draw once in a step; the steps with more draws need the 0 at the first σ
        high = self.known[above] if above != first else torch.zeros_like(low)
        mean = high + share * (low - high)
        return mean.add_(deviation * fresh)


class Peer(Sampler):
    """A sampler of another package. Members are frozen dataclasses with the field `version`."""

    brings_levels: ClassVar[bool] = True
    order: ClassVar[int | None] = None  # it is measured, not declared
    #: The package, as it is installed.
    package: ClassVar[str]
    version: str

    @abstractmethod
    def own(self, schedule: NoiseSchedule, steps: int) -> OwnLevels:
        """The levels of its states for a number of steps.

        Raises:
            InvalidSetting: the code refuses this number; the message is the package's.
        """

    @property
    @abstractmethod
    def code(self) -> Any:
        """The class or function of the package."""

    @property
    def clips(self) -> str:
        """The setting with which it clips x̂₀; empty if it does not."""
        return ""

    def time_error(self, steps: int) -> float:
        """The largest |ln κ of the model's input − ln κ of the state| in a run of N steps."""
        return 0.0

    def table_visited(self) -> tuple[int, int]:
        """How many levels of its table a run with all T steps visits, and T; (0, 0) without one."""
        return 0, 0

    @classmethod
    def installed(cls) -> str:
        """The version of the package.

        Raises:
            InvalidSetting: the package is not installed.
        """
        with needs(cls.package, "peers"):
            return version(cls.package)

    @classmethod
    def if_installed(cls, *settings: Mapping[str, Any]) -> list[Self]:
        """The members with the given settings; an empty list if the package is not installed."""
        return [cls(**one) for one in settings] if find_spec(cls.package.replace("-", "_")) else []

    def levels(self, grid: Grid, schedule: NoiseSchedule, steps: int) -> OwnLevels:
        return self.own(schedule, steps)

    def why_incompatible(self, model: Score, levels: Levels) -> str | None:
        if not isinstance(levels, OwnLevels):
            return f"{type(self).__name__} brings its own levels: use sampler.levels(…)"
        return super().why_incompatible(model, levels)

    def _why_not_on(self, levels: Levels) -> str | None:
        return None  # a peer runs on its own levels

    @property
    def ends_at_data(self) -> bool:
        return False  # a peer has its own last step

    @cached_property
    def draws(self) -> bool:
        """Whether its code draws random numbers in a run on `Toy`."""
        return self._count(Everywhere) > 0

    @cached_property
    def _draws_by_name(self) -> bool:
        """Whether its code draws only by the names `torch.randn` and `torch.randn_like`."""
        # for draws by other names; of two threads the second would keep numbers of the first
        with _FORKING, torch.random.fork_rng([]):
            return self._count(by_name) == self._count(Everywhere)

    def _count(self, within: Callable[[Drawing], AbstractContextManager[Any]]) -> int:
        """The number of draws that a context finds in a run on `Toy`."""
        noise = _Counting()
        self._run_within(within, self.few, noise)
        return noise.count

    def _run_within(
        self, within: Callable[[Drawing], AbstractContextManager[Any]], steps: int, noise: Noise
    ) -> None:
        """Run on `Toy`, with all draws from the noise."""
        self._as(_within=within, stochastic=True)._toy_run(steps, noise)

    def _kept(self, steps: int, schedule: NoiseSchedule | None, find: Callable[[], Found]) -> Found:
        """What `find` gave for the last block, if it had these steps and this schedule."""
        known = self.__dict__.get("_last")
        if known is None or known[0] != steps or known[1] is not schedule:
            known = self.__dict__["_last"] = steps, schedule, find()
        found: Found = known[2]
        return found

    def _as(self, **facts: Any) -> Self:
        """A copy that takes these facts as known; other threads use the peer at the same time."""
        one = copy.copy(self)
        one.__dict__.update(facts)
        return one

    @cached_property
    def few(self) -> int:
        """A small number of steps with which its code runs on `Toy`."""
        errors: list[Exception] = []
        for steps in (6, 3, 2, 1, 20):
            try:
                self._run_within(Everywhere, steps, KeyedNoise(("toy",)))
            except Exception as error:  # it may raise anything
                errors.append(error)
            else:
                return steps
        raise errors[0]

    @cached_property
    def fewest_steps(self) -> int:
        """The smallest number of steps with which its code runs on `Toy`; 4 for PNDM."""
        for steps in range(1, 21):
            with suppress(Exception):  # it may raise anything
                self._run_within(Everywhere, steps, KeyedNoise(("toy",)))
                return steps
        return 1

    def _require_a_run(self, field: str, given: object) -> None:
        """Refuse settings with which its code fails at every number of steps, with its message."""
        try:
            _ = self.few
        except Exception as error:
            why = first_line(error.__cause__ or error)
            raise InvalidSetting(field, given, f"another one: {why}") from error
        noise = [row.sigma / row.alpha for row in self.own(EDM(), self.few).rows[:-1] if row.alpha]
        falls = len(noise) < 2 or noise[-1] < noise[0]  # `own_levels` never rise
        require(falls, field, given, "another one: its noise does not fall")

    @cached_property
    def global_draws(self) -> bool:
        """Whether its code draws from torch's global generator in a run on `Toy`."""
        found: list[Drawing] = []

        def within(draws: Drawing) -> AbstractContextManager[Any]:
            found.append(draws)
            return Everywhere(draws)

        self._count(within)
        return any(one.from_global for one in found)

    def drawing(self, draws: Drawing, sure: bool = True) -> AbstractContextManager[Any]:
        """The context in which its code runs; code that does not draw needs none, and is faster.

        Args:
            draws: the draws of the run.
            sure: whether code that does not draw on `Toy` never draws. This is false for churn in
                a window of σ, for example.
        """
        within = self.__dict__.get("_within")
        if within is None:
            if sure and not self.draws:
                return nullcontext()
            # with a count of 0 we do not know by which names it draws
            within = by_name if self.draws and self._draws_by_name else Everywhere
        return within(draws)

    @cached_property
    def stochastic(self) -> bool:
        """Whether its result depends on the noise: keys give different results."""
        if not self.draws:
            return False
        with_noise = self._as(stochastic=True)
        # few discrete draws can agree for two keys
        ends = [with_noise._toy_run(self.few, KeyedNoise((key, "toy")))[0] for key in range(4)]
        return any(not torch.equal(ends[0], one) for one in ends[1:])

    def evaluations(self, steps: int) -> int | None:
        """The evaluations in a run on `Toy`; None if its code fails with so few steps."""
        return _counted(self, steps)

    @torch.no_grad()
    def _toy_run(self, steps: int, noise: Noise) -> tuple[Tensor, int]:
        """The result and the evaluations of a run on `Toy`."""
        model = Counted(Toy(EDM()))
        levels = self.own(EDM(), steps)
        x = torch.full((1, 2), levels.rows[0].sigma, dtype=torch.float64)
        return final_state(self, model, x, levels, noise), model.evaluations


@lru_cache(maxsize=2**14)
def _counted(peer: Peer, steps: int) -> int | None:
    try:
        return peer._toy_run(steps, KeyedNoise((0, "toy")))[1]
    except Exception:  # its code may raise anything; a cell with these steps reports the message
        return None


class _Counting:
    """Noise that counts its draws."""

    def __init__(self) -> None:
        self.noise, self.count = KeyedNoise(("toy",)), 0

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """Standard normal numbers."""
        self.count += 1
        return self.noise.normal(like, step, draw)

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """Uniform numbers."""
        self.count += 1
        return self.noise.uniform(like, step, draw)


def differing(
    field: str,
    settings: Mapping[str, Any] | None,
    known: Mapping[str, inspect.Parameter],
    name: str,
) -> dict[str, Any]:
    """The settings that differ from the defaults of a class or function of a package.

    Raises:
        InvalidSetting: there is no such parameter; the message lists those that exist.
    """
    for key, value in (settings or {}).items():
        allowed = f"left out: {name} has {', '.join(known) or 'no setting at all'}"
        require(key in known, f"{field}.{key}", value, allowed)
    return {k: v for k, v in (settings or {}).items() if v != known[k].default}


@contextmanager
def refused(field: str, value: object) -> Iterator[None]:
    """A context that turns an error of a package's code into InvalidSetting, with its message."""
    try:
        yield
    except InvalidSetting:
        raise
    except Exception as error:  # their code may raise anything
        raise InvalidSetting(field, value, f"another one: {first_line(error)}") from error

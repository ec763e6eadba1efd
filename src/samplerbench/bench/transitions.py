"""A sampler as a chain of Gaussian transitions, found by running its unchanged code.

A sampler yields states. Other variables that it remembers are hidden in its loop. An *event* of a
run is a call of the model, or a yielded state. At an event the states can be replaced: new ones are
written into the tensor with which the sampler continues. A test shows whether this replaces all of
its memory: two rows exchange their states, and from then on their noise. Then all later states must
be exchanged too. If this fails at all events between two draws, x̂₀ of the yielded step is also
exchanged, since a method of two steps remembers it. For code that yields its states only when the
run has ended, the events are its calls and its last state, and x̂₀ is that of the call before.

If there is such an event after every draw, the run is a Markov chain. Its transitions are

    x' = m(x) + s·z,   z ~ N(0, I) ,

with the same s for all states, if the noise enters as a Gaussian. This is tested too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from samplerbench.core.grids import AnyLevel, Levels
from samplerbench.core.models import Call, Counted, Score
from samplerbench.core.noise import KeyedNoise
from samplerbench.samplers.base import Sampler

#: The largest difference of two equal states, relative to their width; networks are float32.
_SAME = 1e-5

#: A draw with a smaller width, relative to that of the states, is ignored: some samplers add noise
#: of 1e-10 in their last step to avoid a division by 0.
_NEGLIGIBLE = 1e-9

#: Called at an event with its number, the states (n, dim), and x̂₀ if they are yielded.
OnEvent = Callable[[int, Tensor, Tensor | None], None]


@dataclass(frozen=True)
class Transition:
    """A Gaussian transition, from the previous event of the chain (or the start) to its own."""

    event: int  # the number of its event
    with_x0: bool  # whether the sampler remembers x̂₀ besides its state at this event
    scale: float = 0.0  # s, the standard deviation of its noise
    slope: float = 0.0  # the largest |∂m/∂x| along some paths, in one dimension


class Refused(ValueError):
    """The sampler is not a chain of Gaussian transitions; the message gives the reason."""


class _Watched(Counted):
    """A model that reports the states of each call, and its output of the call before."""

    def __init__(self, model: Score, on_call: Callable[[Tensor, Tensor | None], None]) -> None:
        super().__init__(model)
        self._on_call = on_call
        self._output: Tensor | None = None

    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        self._on_call(x, self._output)
        self._output = super().denoiser(x, level)
        return self._output

    def score(self, x: Tensor, level: AnyLevel) -> Tensor:
        self._on_call(x, None)
        return super().score(x, level)

    def parallel(self, call: Call, x: Tensor, level: AnyLevel) -> Tensor:
        raise Refused("it evaluates several states of a sample at once")


class _Draws:
    """Noise from a function of the number of the draw and a tensor of its shape."""

    def __init__(self, make: Callable[[int, Tensor], Tensor]) -> None:
        self._make, self._count = make, 0

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        self._count += 1
        return self._make(self._count - 1, like).to(like)

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        raise Refused("it draws uniform numbers: its transitions are not Gaussian")


def drive(
    sampler: Sampler,
    model: Score,
    x: Tensor,
    levels: Levels,
    make_noise: Callable[[int, Tensor], Tensor],
    on_event: OnEvent,
) -> int:
    """Run a sampler, call a function at every event, and return the number of evaluations.

    Args:
        sampler: a method that can run on model and levels.
        model: the model that the sampler needs.
        x: the first states, shape (n, dim).
        make_noise: the number of a draw and states ↦ standard normal numbers for them.
        on_event: may replace the states, and x̂₀, in place.
    """
    events = 0

    def happened(state: Tensor, x0_hat: Tensor | None = None) -> None:
        nonlocal events
        events += 1
        on_event(events - 1, state, x0_hat)

    def called(state: Tensor, before: Tensor | None) -> None:
        happened(state, before if sampler.yields_late else None)

    watched = _Watched(model, called)
    steps = sampler.steps(watched, x, levels, _Draws(make_noise))
    for step in deque(steps, maxlen=1) if sampler.yields_late else steps:
        happened(step.x, step.x0_hat)
    return watched.evaluations


@torch.no_grad()
def transitions(
    sampler: Sampler, model: Score, levels: Levels, starts: Tensor
) -> tuple[list[Transition], int]:
    """The transitions of a sampler, one for each of its draws, and its number of evaluations.

    Args:
        sampler: a method that can run on model and levels.
        model: the model that the sampler needs.
        starts: first states, at least two different ones, shape (n, dim).

    Raises:
        Refused: the run is not a chain of Gaussian transitions.
    """
    if sampler.adaptive:
        raise Refused("it chooses its own steps")
    found, evaluations = _replaceable(sampler, model, levels, starts[:2])
    return _measured(sampler, model, levels, starts, found), evaluations


def _replaceable(
    sampler: Sampler, model: Score, levels: Levels, pair: Tensor
) -> tuple[list[Transition], int]:
    """The first event after each draw at which states can be replaced; the last one always can."""
    source, before_draw, shows, events = KeyedNoise(("transitions",)), [0], set[int](), 0
    before_draw.clear()

    def count(event: int, x: Tensor, x0_hat: Tensor | None) -> None:
        nonlocal events
        events = event + 1
        if x0_hat is not None:
            shows.add(event)

    def note(draw: int, like: Tensor) -> Tensor:
        before_draw.append(events)
        return source.normal(like, draw)

    evaluations = drive(sampler, model, pair.clone(), levels, note, count)
    if not before_draw:
        return [], evaluations
    last = events - 1
    within = range(before_draw[0], last)
    tests = [(event, False) for event in within]
    tests += [(event, True) for event in within if event in shows]
    passed = torch.zeros(len(tests) + 1, dtype=torch.bool)  # the first pair is never exchanged
    worst = torch.zeros(len(tests) + 1, dtype=pair.dtype)

    def as_pairs(x: Tensor) -> Tensor:
        return x.reshape(len(tests) + 1, *pair.shape)

    def exchange(x: Tensor, rows: Tensor) -> None:
        pairs = as_pairs(x).clone()
        pairs[rows] = pairs[rows].flip(1)
        x.copy_(pairs.reshape(x.shape))

    def at(event: int, x: Tensor, x0_hat: Tensor | None) -> None:
        if x0_hat is not None:
            pairs = as_pairs(x).cpu()
            plain = pairs[0]
            gap = (pairs - plain.flip(0)).abs().amax((1, 2)) / (plain[0] - plain[1]).abs().max()
            torch.maximum(worst, torch.where(passed, gap.nan_to_num(0.0), 0.0), out=worst)
        here = torch.tensor([False, *(place == event for place, _ in tests)])
        if here.any():
            with_x0 = torch.tensor([False, *(whole for _, whole in tests)])
            exchange(x, here)
            if x0_hat is not None:
                exchange(x0_hat, here & with_x0)
            passed.logical_or_(here)

    def make(draw: int, like: Tensor) -> Tensor:
        z = source.normal(pair, draw).expand(len(tests) + 1, *pair.shape).clone()
        z[passed] = z[passed].flip(1)
        return z.reshape(like.shape)

    drive(sampler, model, pair.repeat(len(tests) + 1, 1), levels, make, at)
    fine = {test for test, bad in zip(tests, (worst[1:] > _SAME).tolist(), strict=True) if not bad}
    fine |= {(last, False)}
    found = []
    for begin, end in pairwise([*before_draw, events]):
        if begin == end:
            raise Refused("it draws twice before its state is seen")
        of_draw = [(event, whole) for whole in (False, True) for event in range(begin, end)]
        chosen = next((test for test in of_draw if test in fine), None)
        if chosen is None:
            raise Refused("it remembers more than its state and the last x̂₀")
        found.append(Transition(*chosen))
    return found, evaluations


def _measured(
    sampler: Sampler, model: Score, levels: Levels, starts: Tensor, chain: list[Transition]
) -> list[Transition]:
    """The transitions with scale and slope, measured along noisy paths from the starts."""
    source, place = KeyedNoise(("transitions", "scale")), {one.event: one for one in chain}
    # four versions of each path: unchanged, the draw moved by 1 and −2, and the state moved
    moves = torch.tensor([0.0, 1.0, -2.0, 0.0], dtype=starts.dtype)[:, None, None]
    distance = 1e-4 * float((starts - starts.mean(0)).abs().max())
    measured: dict[int, Transition] = {}

    def at(event: int, x: Tensor, x0_hat: Tensor | None) -> None:
        nonlocal distance
        if event not in place:
            return
        plain, one, minus_two, moved = x.reshape(4, *starts.shape).double().cpu()
        by_draw = one - plain
        moved_by = torch.maximum(by_draw.abs().max(), (minus_two - plain).abs().max())
        if moved_by <= _NEGLIGIBLE * (plain.max() - plain.min()):
            return  # also a draw with the factor 0, as in the last step of some codes
        scale = float(by_draw.mean())
        wrong = torch.stack([by_draw - scale, minus_two - plain + 2 * scale]).abs().max()
        if not wrong <= _SAME * abs(scale) + 1e-12 * float(plain.abs().max()) or scale == 0:
            raise Refused("its noise does not enter as a Gaussian of the same width for all states")
        slope = float((moved - plain).abs().max()) / distance
        measured[event] = Transition(event, place[event].with_x0, abs(scale), slope)
        distance = 1e-3 * abs(scale)
        again = plain.repeat(4, 1, 1)
        again[3] += distance
        x.copy_(again.reshape(x.shape))
        if x0_hat is not None and place[event].with_x0:
            x0_hat.copy_(x0_hat[: len(starts)].repeat(4, 1))

    def make(draw: int, like: Tensor) -> Tensor:
        return (source.normal(starts, draw) + moves).reshape(like.shape)

    first = starts.repeat(4, 1)
    first[-len(starts) :] += distance
    drive(sampler, model, first, levels, make, at)
    return [measured[one.event] for one in chain if one.event in measured]

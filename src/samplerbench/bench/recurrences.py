"""The run of a sampler as a recurrence, by running its code on symbols in place of states.

A sampler with fixed steps combines states, outputs of the denoiser and draws linearly. Here its
code runs once on symbolic linear combinations. Each evaluation gives its state a new name, so there
are few terms: the state of evaluation k is

    u_k = w_k·x + Σ_{j<k} p_kj·u_j + Σ_{j<k} q_kj·x̂₀(u_j) + Σ_i b_ki·z_i ,     k = 1, …, K,

with the start x and the draws z_i; the last state is one more such row. If the code does more with
a state than adding it and multiplying it by a number, there is no recurrence; `coefficients` runs
such code on vectors.

If the denoiser acts on each coordinate separately, x̂₀(u_k) = g_k·u_k + h_k, the derivatives of the
last state follow from the last evaluation to the first:

    ∂x_out/∂x̂₀_j = Σ_{k>j} q_kj·∂x_out/∂u_k ,
    ∂x_out/∂u_j  = Σ_{k>j} p_kj·∂x_out/∂u_k + g_j·∂x_out/∂x̂₀_j .

If each state depends only on the one before it, both are products of K factors.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, ClassVar, NoReturn, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from samplerbench.core.grids import AnyLevel, Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import Noise
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.samplers.base import Sampler, iterate

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


class NotTraced(Exception):
    """The code of a sampler does more with a state than adding and multiplying by a number."""


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms of one kind: the coefficient `value` of vector `place` in state `row`.

    All have one entry for each term. The rows are the states of the K evaluations, then the last.
    """

    row: Indices
    place: Indices
    value: Array

    def table(self, places: int, rows: int) -> Array:
        """The coefficients as an array, shape (places, rows)."""
        full = np.zeros((places, rows))
        full[self.place, self.row] = self.value
        return full

    def along(self, by_state: Array, places: int) -> Array:
        """The derivatives by these vectors, (places, dim), from those by the states."""
        full = np.zeros((places, by_state.shape[1]))
        terms = self.value[:, None] * by_state[self.row]
        if len(self.place) and np.bincount(self.place).max() > 1:
            np.add.at(full, self.place, terms)
        else:
            full[self.place] = terms
        return full


@dataclass(frozen=True, eq=False)
class Recurrence:
    """The coefficients of a run."""

    levels: Array  # t, α and σ of the evaluations, shape (3, K)
    draws: int  # D
    start: Terms  # terms with x, whose place is 0
    outputs: Terms  # terms with outputs of the denoiser
    drawn: Terms  # terms with draws
    states: Terms  # terms with states of earlier evaluations

    def weights(self) -> Array:
        """The states in terms of start, outputs and draws alone, shape (K + 1, 1 + K + D)."""
        count = self.levels.shape[1]
        kinds = (self.start, 1), (self.outputs, count), (self.drawn, self.draws)
        known = np.concatenate([kind.table(places, 1 + count).T for kind, places in kinds], 1)
        states = self.states.table(count, 1 + count).T.copy()
        first = (states != 0).argmax(1).tolist()
        for k in range(1, count + 1):
            known[k] += states[k, first[k] : k] @ known[first[k] : k]
        return known

    def derivatives(self, gain: Array) -> tuple[Array, Array, Array]:
        """Derivatives of the last state by start, outputs and draws: (dim,), (K, dim), (D, dim).

        Args:
            gain: g, shape (K, dim).
        """
        count, dim = gain.shape
        by_state = np.ones((count + 1, dim))
        both = self.outputs, self.states
        if any((kind.row > kind.place + 1).any() for kind in both):
            by_output = self._backward(gain, by_state)
        else:  # each state depends only on the one before it
            by_x0, by_x = np.zeros((2, count, 1))
            for coefficients, kind in zip((by_x0, by_x), both, strict=True):
                coefficients[kind.place, 0] = kind.value
            by_state[:count] = np.cumprod((by_x + gain * by_x0)[::-1], 0)[::-1]
            by_output = by_x0 * by_state[1:]
        by_start = self.start.along(by_state, 1)[0]
        return by_start, by_output, self.drawn.along(by_state, self.draws)

    def _backward(self, gain: Array, by_state: Array) -> Array:
        """The derivatives by the outputs; fills in `by_state`, the derivatives by the states."""
        count = len(gain)
        outputs, states = (one.table(count, 1 + count) for one in (self.outputs, self.states))
        ends = (count + 1 - ((outputs != 0) | (states != 0))[:, ::-1].argmax(1)).tolist()
        by_output = np.empty(gain.shape)
        for j in reversed(range(count)):
            own = slice(j + 1, ends[j])
            by_output[j] = outputs[j, own] @ by_state[own]
            by_state[j] = states[j, own] @ by_state[own] + gain[j] * by_output[j]
        return by_output


def from_weights(weights: Array, levels: Array) -> Recurrence:
    """The recurrence of known states in terms of start, outputs and draws, (K + 1, 1 + K + D).

    The levels are t, α and σ of the evaluations, shape (3, K).
    """
    count = levels.shape[1]
    draws = weights.shape[1] - 1 - count
    kinds = []
    for part in (*np.split(weights, [1, 1 + count], 1), weights[:, :0]):
        row, place = part.nonzero()
        kinds.append(Terms(row, place, part[row, place]))
    return Recurrence(levels, draws, *kinds)


def traced(
    sampler: Sampler, schedule: NoiseSchedule, levels: Levels, steps: int | None = None
) -> Recurrence:
    """The recurrence of a run with fixed steps, or of the first `steps`; raises `NotTraced`."""
    tracer = _Tracer(schedule)
    x, noise = cast(Tensor, _Combination({_START: 1.0})), cast(Noise, tracer)
    try:
        last = deque(islice(iterate(sampler, tracer, x, levels, noise), steps), maxlen=1)[0].x
        states = [*tracer.states, _terms(last)]
    except Exception as error:  # if it is a real fault, it occurs again on numbers
        raise NotTraced(str(error)) from error
    name = np.array([*chain.from_iterable(states)])
    value = np.array([*chain.from_iterable([one.values() for one in states])])
    row = np.arange(len(states)).repeat([*map(len, states)])
    kind, place = name % 4, name // 4
    kinds = [Terms(row[own], place[own], value[own]) for own in (kind == one for one in range(4))]
    rows = [(level.t, level.alpha, level.sigma) for level in tracer.levels]
    return Recurrence(np.array(rows).T, len(tracer.draws), *kinds)


#: The name of the start. Output k, draw k and state k have the names 4k + 1, 4k + 2 and 4k + 3.
_START = 0
_NUMBERS = (float, int)


class _Combination:
    """A state: a scaled linear combination of named vectors, which are not known."""

    __slots__ = ("scale", "terms")
    shape: ClassVar[tuple[int, ...]] = (1, 1)
    #: Operators of NumPy's numbers leave a product to this class.
    __array_ufunc__ = None

    def __init__(self, terms: dict[int, float], scale: float = 1.0) -> None:
        self.terms, self.scale = terms, scale

    def __mul__(self, factor: object) -> _Combination:
        if not isinstance(factor, _NUMBERS):
            raise NotTraced(f"a state times {type(factor).__name__}")
        return _Combination(self.terms, self.scale * factor)

    __rmul__ = __mul__

    def __truediv__(self, factor: object) -> _Combination:
        if not isinstance(factor, _NUMBERS):
            raise NotTraced(f"a state divided by {type(factor).__name__}")
        return _Combination(self.terms, self.scale / factor)

    def __neg__(self) -> _Combination:
        return _Combination(self.terms, -self.scale)

    def add(self, other: object, *, alpha: float = 1.0) -> _Combination:
        """self + alpha·other, as the method of a tensor."""
        if not isinstance(other, _Combination):
            raise NotTraced(f"a state plus {type(other).__name__}")
        own, factor = self.scale, other.scale * alpha
        terms = {name: own * value for name, value in self.terms.items()}
        for name, value in other.terms.items():
            terms[name] = terms.get(name, 0.0) + factor * value
        return _Combination(terms)

    __add__ = add

    def __sub__(self, other: object) -> _Combination:
        return self.add(other, alpha=-1.0)

    def __radd__(self, other: object) -> _Combination:
        if other != 0:  # the sum of a list begins with 0
            raise NotTraced("a state plus a number")
        return self

    def _refuse(self, *given: object) -> NoReturn:
        raise NotTraced("a state is not a number")

    __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __iadd__ = __isub__ = __imul__ = __itruediv__ = _refuse

    @classmethod
    def __torch_function__(cls, *given: object) -> NoReturn:
        raise NotTraced("a state is not a tensor")


def _terms(x: object) -> dict[int, float]:
    """The coefficients of a state by name, which must not be changed."""
    if not isinstance(x, _Combination):
        raise NotTraced(f"a state is {type(x).__name__}")
    if x.scale == 1:
        return x.terms
    return {name: x.scale * value for name, value in x.terms.items()}


class _Tracer(Denoiser):
    """A denoiser and noise that give names to their outputs and to the evaluated states."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.schedule = schedule
        self.states: list[dict[int, float]] = []
        self.levels: list[AnyLevel] = []
        self.draws: dict[tuple[int, int], int] = {}

    def denoiser(self, x: Tensor, level: AnyLevel) -> Any:
        k, state = len(self.states), cast(_Combination, x)
        self.states.append(_terms(state))
        self.levels.append(level)
        state.terms, state.scale = {4 * k + 3: 1.0}, 1.0
        return _Combination({4 * k + 1: 1.0})

    def derivative(self, x: Tensor, level: AnyLevel) -> NoReturn:
        """The derivative depends on the model, which is not linear."""
        raise NotTraced("the run uses the derivative of the denoiser")

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Any:
        """A draw, with a new name."""
        return _Combination({4 * self.draws.setdefault((step, draw), len(self.draws)) + 2: 1.0})

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> NoReturn:
        """Uniform numbers are not linear."""
        raise NotTraced("the run draws uniform numbers")

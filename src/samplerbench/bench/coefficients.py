"""A run of a sampler as a table of coefficients, and many runs as rows of one batch.

A sampler with fixed steps combines states and outputs of the denoiser linearly. So the state of its
k-th evaluation is

    u_k = a_k0·x + Σ_{j≤k} a_kj·x̂₀(u_j) + Σ_i b_ki·z_i ,     k = 1, …, K,

with the start x and the draws z_i of its noise; the last state is one more such row. The rows and
the K noise levels are the *table* of the run. They depend on the levels, not on the states.
`recorded` reads them off the code of the sampler, see `recurrences`. Code that cannot be read this
way, such as that of other packages, runs on unit vectors. Additional columns with other numbers
show whether such a run is linear.

Runs on different levels have different tables and the same loop. So `Runs` evaluates the denoiser
once for all of them, on a batch in which every row has its own noise level.

`Runs.variations` computes how the last states change with each level. In few dimensions it follows
the change through one run, by ∂x̂₀/∂x and by one more evaluation at a moved level. In many
dimensions it makes one run for each level; these share the evaluations before that level.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from samplerbench.bench.recurrences import NotTraced, traced
from samplerbench.core.grids import AnyLevel, Level, Levels, TruncatedLevels, in_data_units
from samplerbench.core.models import Counted, Denoiser
from samplerbench.core.noise import KeyedNoise
from samplerbench.core.schedules import NoiseSchedule
from samplerbench.samplers.base import Sampler, final_state, iterate

#: With this many states per grid, a call for each grid is as fast as one for all grids.
_ENOUGH = 128
#: Dimensions up to which the derivative of a denoiser costs less than a run for each level.
_FEW = 4
#: Up to this many levels, one batch with a run for each costs less than following derivatives.
_SEVERAL = 6
#: The largest difference between a run and its table, as a share of the largest state.
_SAME = 1e-5
#: The largest number of columns of a table, whose run then takes 130 MB.
_WIDEST = 4096
#: The number of additional columns, which test whether a run is linear.
_PROBES = 8
#: The size of test numbers. A clip of x̂₀ at smaller values is seen.
_LARGE = 1e4


class NotLinear(ValueError):
    """The run of a sampler is not linear in its start, its draws and the denoiser's outputs."""


@dataclass(frozen=True, eq=False)
class Table:
    """The coefficients of a run, float64."""

    # shape (K + 1, 1 + K + D): the states of the K evaluations and the last state, in terms of the
    # start, the K outputs and the D draws
    weights: Tensor
    levels: Tensor  # t, α and σ of the evaluations, shape (3, K)
    # the largest difference between the states of a run on test numbers and those by the weights,
    # as a share of the largest term; 0 if the weights are read off the code
    error: float

    @property
    def evaluations(self) -> int:
        """The number of evaluations, K."""
        return self.levels.shape[1]

    @property
    def draws(self) -> int:
        """The number of draws, D."""
        return self.weights.shape[1] - 1 - self.evaluations


def recorded(sampler: Sampler, schedule: NoiseSchedule, levels: Levels) -> Table:
    """The table of a run with fixed steps; its last row gives the output in the units of the data.

    Raises:
        NotLinear: the run evaluates something else than a denoiser, draws uniform numbers, or does
            not make the number of evaluations that it declares.
    """
    table = table_of_states(sampler, schedule, levels)
    declared = _declared(sampler, levels)
    if table.evaluations != declared:
        found = f"{table.evaluations} evaluations, and declares {declared}"
        raise NotLinear(f"{type(sampler).__name__} makes {found}")
    last = in_data_units(table.weights[-1:], levels)
    return replace(table, weights=torch.cat([table.weights[:-1], last]))


@torch.no_grad()
def table_of_states(
    sampler: Sampler, schedule: NoiseSchedule, levels: Levels, steps: int | None = None
) -> Table:
    """The table as in `recorded`; its last row gives the state after some of the steps, or all."""
    declared = _declared(sampler, levels)
    with suppress(NotTraced):
        run = traced(sampler, schedule, levels, steps)
        return Table(torch.from_numpy(run.weights()), torch.from_numpy(run.levels), 0.0)
    draws = 2 * levels.steps if sampler.stochastic else 0
    if 1 + declared + draws > _WIDEST:
        raise NotLinear(f"the table of {declared} evaluations is too large")
    first = levels.rows[0]
    recorder = _Recorder(schedule, declared, draws, math.hypot(first.alpha, first.sigma))
    taken = islice(iterate(sampler, recorder, recorder.start, levels, recorder), steps)
    last = deque(taken, maxlen=1)[0].x
    states = torch.cat([*recorder.states, last])
    done = 1 + len(recorder.levels)
    # the columns of evaluations that were not made are left out
    after = slice(1 + declared, 1 + declared + len(recorder.columns))
    weights = torch.cat([states[:, :done], states[:, after]], 1)
    numbers = torch.cat([recorder.numbers[:done], recorder.numbers[after]])
    difference = states[:, -_PROBES:] - weights @ numbers
    size = float((weights.abs() @ numbers.abs()).max())
    rows = [(level.t, level.alpha, level.sigma) for level in recorder.levels]
    of_levels = torch.tensor(rows, dtype=torch.float64).reshape(-1, 3).T.contiguous()
    return Table(weights, of_levels, float(difference.abs().max()) / size)


def _declared(sampler: Sampler, levels: Levels) -> int:
    """The number of evaluations of a run, as the sampler declares it."""
    plain = isinstance(levels, TruncatedLevels)
    declared = (sampler.plain_evaluations if plain else sampler.evaluations)(levels.steps)
    if declared is None:
        raise NotLinear(f"{type(sampler).__name__} chooses its own steps")
    return declared


class _Recorder(Denoiser):
    """A denoiser and noise whose outputs are unit vectors; keeps the states and levels.

    The start, each output and each draw is another unit vector, with test numbers in the last
    columns. These show whether a state is the same linear combination of the test numbers.

    Args:
        evaluations: the largest number of outputs of the denoiser.
        draws: the largest number of draws.
        size: the scale of the start in the last columns.
    """

    def __init__(self, schedule: NoiseSchedule, evaluations: int, draws: int, size: float) -> None:
        super().__init__()
        self.schedule = schedule
        self.evaluations, self.draws = evaluations, draws
        places = torch.arange(1 + evaluations + draws, dtype=torch.float64)
        waves = torch.cos(places[:, None] * (1 + places.new_tensor(range(_PROBES))))
        self.numbers = _LARGE * waves
        self.numbers[0] *= size
        units = torch.eye(len(places), dtype=torch.float64)
        vectors = torch.split(torch.cat([units, self.numbers], 1), 1)
        self.start, self._outputs = vectors[0], vectors[1:]
        self.states: list[Tensor] = []
        self.levels: list[Level[float]] = []
        self.columns: dict[tuple[int, int], int] = {}

    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        if len(self.states) == self.evaluations:
            raise NotLinear(f"the run makes more than {self.evaluations} evaluations")
        assert isinstance(level.t, float)
        self.states.append(x.clone())
        self.levels.append(Level(level.t, float(level.alpha), float(level.sigma)))
        return self._outputs[len(self.states) - 1]

    def derivative(self, x: Tensor, level: AnyLevel) -> tuple[Tensor, Tensor]:
        """The derivative depends on the model, which is not linear."""
        raise NotLinear("the run uses the derivative of the denoiser")

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """A draw: the next unit vector."""
        column = self.columns.setdefault((step, draw), len(self.columns))
        if column >= self.draws:
            raise NotLinear("the run draws more noise than it declares")
        return self._outputs[self.evaluations + column]

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        """Uniform numbers are not linear."""
        raise NotLinear("the run draws uniform numbers")


#: Outputs of a denoiser, shape (grids, n, dim), for states of that shape and a level with fields of
#: shape (grids, 1, 1).
Evaluate = Callable[[Tensor, Level[Tensor]], Tensor]


def by_rows(model: Denoiser) -> Evaluate:
    """A denoiser on states (grids, n, dim): one call for many small grids, or one for each."""

    def evaluate(x: Tensor, level: Level[Tensor]) -> Tensor:
        if len(x) == 1 or x.shape[1] >= _ENOUGH:
            rows = torch.stack([level.t, level.alpha, level.sigma]).flatten(1).T.tolist()
            grids = zip(x, rows, strict=True)
            return torch.stack([model.denoiser(own, Level(*row)) for own, row in grids])
        scales = (level.t, level.alpha, level.sigma)
        columns = (scale.expand(*x.shape[:-1], 1).reshape(-1, 1) for scale in scales)
        return model.denoiser(x.reshape(-1, x.shape[-1]), Level(*columns)).reshape(x.shape)

    return evaluate


def with_tangents_by_rows(model: Denoiser) -> Evaluate:
    """As `by_rows`, on states with tangents, shape (grids, (1 + dim)·n, dim): `core.tangents`."""

    def evaluate(x: Tensor, level: Level[Tensor]) -> Tensor:
        grids, rows, dim = x.shape
        count = rows // (1 + dim)
        parts = x.reshape(grids, 1 + dim, count, dim).transpose(0, 1).flatten(1, 2)
        scales = (level.t, level.alpha, level.sigma)
        own: AnyLevel
        if grids == 1:
            own = Level(*(float(scale) for scale in scales))
        else:
            own = Level(*(scale.expand(grids, count, 1).reshape(-1, 1) for scale in scales))
        x0_hat, moved = model.along(parts[0], parts[1:], own)
        out = torch.cat([x0_hat[None], moved]).reshape(1 + dim, grids, count, dim)
        return out.transpose(0, 1).reshape(x.shape)

    return evaluate


class Runs:
    """Runs of one sampler on many grids at once.

    Args:
        sampler: if its runs are not linear, each is made separately.
        x: the starts, shape (n, dim).
        example: the levels of one run, which is compared with the table of that run.
        tangents: whether the starts have tangents; see `core.tangents`.
        draws: maps the number D of draws to the draws, shape (D, n, dim).

    Attributes:
        linear: whether the runs are rows of one batch.
        grids: the number of grids so far.
        evaluations: the evaluations of the denoiser so far; a call for n states counts n times.

    Raises:
        NotLinear: the runs are not linear, and with tangents or draws cannot be made separately.
    """

    def __init__(
        self,
        sampler: Sampler,
        model: Denoiser,
        x: Tensor,
        example: Levels,
        *,
        tangents: bool = False,
        draws: Callable[[int], Tensor] | None = None,
    ) -> None:
        self.sampler, self.model, self.x = sampler, model, x
        self._evaluate = (with_tangents_by_rows if tangents else by_rows)(model)
        #: The last grid that ran alone: its times, its table and the terms of its states.
        self._known: tuple[Tensor, Table, Tensor] | None = None
        self._draws = draws
        self.grids = self.evaluations = 0
        self._follows = x.shape[1] <= _FEW and not tangents and draws is None
        reason = None if tangents or draws else self._why_not_linear(example)
        self.linear = reason is None

    def _why_not_linear(self, levels: Levels) -> str | None:
        """Why the table of a run does not give its output, from a few starts; None if it does."""
        try:
            table = recorded(self.sampler, self.model.schedule, levels)
        except NotLinear as error:
            return str(error)
        few = Runs.__new__(Runs)
        vars(few).update(vars(self), x=self.x[:4])
        tabled, alone = few._run([table], [0])[0][0], few._alone(levels)
        scale = max(float(self.x.abs().max()), float(alone.abs().max()))
        same = bool(((tabled - alone).abs() <= _SAME * scale).all())
        return None if same else f"{type(self.sampler).__name__} is not linear"

    def _alone(self, levels: Levels) -> Tensor:
        """The last states of one run, shape (n, dim)."""
        counted = Counted(self.model)
        out = final_state(self.sampler, counted, self.x, levels, KeyedNoise(("none",)))
        self.evaluations += counted.evaluations * len(self.x)
        return in_data_units(out, levels)

    def outputs(self, grids: Sequence[Levels]) -> Tensor:
        """The last states, shape (grids, n, dim), in the units of the data."""
        if not self.linear:
            self.grids += len(grids)
            return torch.stack([self._alone(levels) for levels in grids])
        tables = [recorded(self.sampler, self.model.schedule, levels) for levels in grids]
        last, terms = self._run(tables, [0] * len(tables))
        if len(grids) == 1:
            self._known = (grids[0].t, tables[0], terms)
        return last

    def variations(self, base: Levels, moved: Sequence[Levels], change: float) -> Tensor:
        """The last states on `base`, and to first order on grids with one moved level each.

        Shape (1 + grids, n, dim).

        Args:
            moved: in each grid a later level is moved than in the grid before.
            change: the small change of ln κ of a moved level.
        """
        if not self.linear:
            return self.outputs([base, *moved])
        known = self._known if self._known and torch.equal(self._known[0], base.t) else None
        own = known[1] if known else recorded(self.sampler, self.model.schedule, base)
        tables = [recorded(self.sampler, self.model.schedule, levels) for levels in moved]
        if self._follows and len(moved) > _SEVERAL:
            return self._followed(own, tables, change)
        since = [0, *(_first_difference(own, table) for table in tables)]
        return self._run([own, *tables], since, known[2] if known else None)[0]

    @torch.no_grad()
    def _followed(self, base: Table, moved: Sequence[Table], change: float) -> Tensor:
        """The states of `variations` from one run, with the derivative of the denoiser."""
        count, shape = base.evaluations, self.x.shape
        weights = base.weights.to(self.x)
        rates = (torch.stack([table.weights for table in moved]).to(self.x) - weights) / change
        logs = torch.stack([_log_ratio(table.levels) for table in (base, *moved)])
        shifts = (logs[1:] - logs[0]).nan_to_num(nan=0.0)  # NaN without signal: ∞ − ∞
        terms = self.x.new_zeros(1 + count, self.x.numel())
        by_level = self.x.new_zeros(len(moved), 1 + count, self.x.numel())
        terms[0] = self.x.reshape(-1)
        for k in range(count + 1):
            state = (weights[k] @ terms).reshape(shape)
            change_of_state = (rates[:, k] @ terms + weights[k] @ by_level).reshape(-1, *shape)
            if k == count:
                break
            x0_hat, jacobian = self.model.derivative(state, _level(base.levels, k))
            change_of_x0 = _times(jacobian, change_of_state)
            most = int(shifts[:, k].abs().argmax())
            if shifts[most, k] != 0:  # all of these levels lie on one path
                other = self.model.denoiser(state, _level(moved[most].levels, k))
                slope = (other - x0_hat) / shifts[most, k]
                change_of_x0 += (shifts[:, k] / change).to(slope)[:, None, None] * slope
            terms[1 + k] = x0_hat.reshape(-1)
            by_level[:, 1 + k] = change_of_x0.flatten(1)
            self.evaluations += 2 * len(self.x)
        self.grids += 1 + len(moved)
        return torch.cat([state[None], state + change * change_of_state])

    @torch.no_grad()
    def _run(
        self, tables: Sequence[Table], since: Sequence[int], known: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The last states, and the terms of all states, shape (grids, 1 + K + D, n·dim).

        Args:
            since: for each grid, the first evaluation that differs from the first grid's.
            known: the terms of the first grid, if it has run before.
        """
        count, size = tables[0].evaluations, self.x.numel()
        weights = torch.stack([table.weights for table in tables]).to(self.x)
        levels = torch.stack([table.levels for table in tables], 1).to(self.x.device)
        terms = self.x.new_zeros(len(tables), weights.shape[2], size)
        terms[:, 0] = self.x.reshape(-1)
        if tables[0].draws:
            assert self._draws is not None
            terms[:, 1 + count :] = self._draws(tables[0].draws).reshape(-1, size)
        new = 0 if known is None else 1
        if known is not None:
            terms[:, 1 : 1 + count] = known[:, 1 : 1 + count]
        for k in range(count):
            own = 1 + max(place for place, first in enumerate(since) if first <= k)
            if own == new:
                continue
            states = torch.bmm(weights[new:own, k : k + 1], terms[new:own])
            level = Level(*(scale[new:own, k, None, None] for scale in levels.unbind()))
            out = self._evaluate(states.reshape(-1, *self.x.shape), level).reshape(-1, size)
            terms[new:own, 1 + k] = out
            if known is None:
                terms[own:, 1 + k] = out[0]
            self.evaluations += (own - new) * len(self.x)
        self.grids += len(tables) - new
        last = torch.bmm(weights[:, count:], terms).reshape(-1, *self.x.shape)
        return last, terms


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Products of small matrices (n, dim, dim) and vectors (l, n, dim), shape (l, n, dim)."""
    # a few operations on all of them are faster than a product for each
    total = matrices[..., 0] * vectors[..., :1]
    for place in range(1, vectors.shape[-1]):
        total.addcmul_(matrices[..., place], vectors[..., place, None])
    return total


def _first_difference(one: Table, other: Table) -> int:
    """The first evaluation whose state or level differs; K if only the last state does."""
    differs = (one.weights[:-1] != other.weights[:-1]).any(1)
    differs |= (one.levels != other.levels).any(0)
    places = differs.nonzero()
    return int(places[0]) if len(places) else one.evaluations


def _level(levels: Tensor, k: int) -> Level[float]:
    """The level of evaluation k, from t, α and σ of all."""
    return Level(*levels[:, k].tolist())


def _log_ratio(levels: Tensor) -> Tensor:
    """ln κ of levels, shape (K,); ∞ without signal."""
    return levels[2].log() - levels[1].log()

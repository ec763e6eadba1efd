"""Objects that several test files build with few differences."""

import inspect
import time
from contextlib import contextmanager
from dataclasses import fields
from functools import partial, wraps

import numpy as np
import pandas as pd
import pytest
import torch

from samplerbench.bench.cell import CELL, Row
from samplerbench.bench.sweep import Sweep
from samplerbench.core.grids import karras
from samplerbench.core.models import Denoiser
from samplerbench.core.schedules import EDM
from samplerbench.core.starts import Exact, Prior
from samplerbench.errors import InvalidSetting
from samplerbench.samplers.base import Step
from samplerbench.samplers.ddim import DDIM


def sweep_of(law, samplers, steps, **changes):
    """A sweep of the exact denoiser on EDM(10) and Karras's grid, without metrics.

    Samplers without a name have that of their class. `changes` are fields of `Sweep`; a schedule
    changes the denoiser too.
    """
    schedule = changes.setdefault("schedule", EDM(10.0))
    changes.setdefault("reference", None)
    if changes["reference"] is None:
        changes["reference"] = law.draws(100, "evaluation", 0)
    settings = {
        "dataset": law,
        "grid": partial(karras, noise_min=0.02, rho=5.0),
        "denoisers": {"oracle": law.exact_score(schedule)},
        "starts": {"prior": Prior(), "exact": Exact()},
        "samplers": [s if isinstance(s, tuple) else (type(s).__name__, s) for s in samplers],
        "steps": list(steps),
        "metrics": {},
        "n_samples": 100,
        "repetitions": 1,
    }
    return Sweep(**settings | changes)


def row(**values):
    """A row of the results; of what is not given, a text is empty and a number is zero."""
    plain = {field.name: {"str": "", "int": 0, "float": 0.0}[field.type] for field in fields(Row)}
    return Row(**plain | {"status": "ok"} | values)


def rows_of(values, **cell):
    """Rows of the results table: one finished repetition of a cell for each value."""
    plain = dict.fromkeys(CELL, "") | {"eta": np.nan, "steps": 4, "n_samples": 10, "nfe": 4}
    shared = plain | {"denoiser": "oracle", "seconds": 1.0, "status": "ok"} | cell
    return pd.DataFrame([shared | {"repetition": r, "value": v} for r, v in enumerate(values)])


def mostly_slow(cases, *quick):
    """Cases of a parametrised test: those at the places `quick` are in the default suite.

    The others are in the slow suite.
    """
    rows = [case if isinstance(case, tuple) else (case,) for case in cases]
    marked = type(pytest.param())  # its marks would be lost
    assert not any(isinstance(one, marked) for row in rows for one in (row, *row))
    marks = [[pytest.mark.slow] * (place not in quick) for place in range(len(rows))]
    return [pytest.param(*row, marks=mark) for row, mark in zip(rows, marks, strict=True)]


def each(names, cases):
    """As `pytest.mark.parametrize`, in one test: for many cases that take no time.

    A case that fails is named in the traceback, and the cases after it are not tried.
    """
    own = [names] if isinstance(names, str) else list(names)
    rows = [(case,) if len(own) == 1 else tuple(case) for case in cases]
    assert rows, names

    def decorate(test):
        signature = inspect.signature(test)
        others = [one for name, one in signature.parameters.items() if name not in own]

        @wraps(test)
        def every(**fixtures):
            for row in rows:
                try:
                    test(**dict(zip(own, row, strict=True)), **fixtures)
                except BaseException as error:
                    error.add_note(f"the case: {row}")
                    raise

        every.__signature__ = signature.replace(parameters=others)
        return every

    return decorate


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


class Shrunk(Denoiser):
    """x̂₀ of the oracle times 1 − share: its score is off by α·share·x̂₀/σ²."""

    def __init__(self, oracle, share=0.1):
        super().__init__()
        self.oracle, self.share, self.schedule = oracle, share, oracle.schedule

    def denoiser(self, x, level):
        return (1 - self.share) * self.oracle.denoiser(x, level)


class Clipped(DDIM):
    """DDIM(0) that clips x̂₀ and does not say that it is not affine."""

    def steps(self, model, x, levels, noise):
        for _, now, to in levels.pairs():
            x0_hat = model.denoiser(x, now).clamp(-1, 1)
            x = to.alpha * x0_hat + to.sigma / now.sigma * (x - now.alpha * x0_hat)
            yield Step(x, x0_hat)


@contextmanager
def refused_in_one_line(match=None, field=None):
    """An `InvalidSetting` whose text is one line and matches; if given, of this field."""
    with pytest.raises(InvalidSetting, match=match) as caught:
        yield
    assert "\n" not in str(caught.value)
    assert field in (None, caught.value.field)


def until(condition, seconds=120):
    """What a condition gives as soon as it is true; it is asked again and again."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
    return found


def by_turns(ways, rounds, clock=time.process_time, warm=1):
    """The seconds of each of several functions in each round, after some rounds to warm up.

    They run by turns, so that a busy machine slows all of them.
    """
    seconds = {name: [] for name in ways}
    for number in range(warm + rounds):
        for name, way in ways.items():
            before = clock()
            way()
            spent = clock() - before
            if number >= warm:
                seconds[name].append(spent)
    return seconds


def normal(*shape, seed=0):
    """Standard normal numbers, float64."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))

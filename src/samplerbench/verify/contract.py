"""The contract of every kind of member: named promises, and a check of each.

A check takes a member and returns one line about the fault, None if the promise is kept, and "" if
it does not apply to this member. The first line of its docstring is the promise. The member is a
function for two kinds, which are built from other parts: for a network a function of a seed, and
for an objective a function of a network (None: its own network).
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Mapping
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np
import torch

from samplerbench.errors import kind_and_line
from samplerbench.identity import describe
from samplerbench.verify.core_contracts import GRID, LEVEL_LAW, SCHEDULE, START, TARGET, WEIGHTING
from samplerbench.verify.dataset_contract import DATASET
from samplerbench.verify.metric_contract import METRIC
from samplerbench.verify.network_contract import NETWORK
from samplerbench.verify.objective_contract import OBJECTIVE
from samplerbench.verify.sampler_contract import SAMPLER, Check


def settings(member: Any, *_: Any) -> str | None:
    """It is a frozen dataclass or a function with settings; these identify its values."""
    frozen = getattr(getattr(member, "__dataclass_params__", None), "frozen", False)
    if not (frozen or isinstance(member, partial | FunctionType)):
        return f"write @dataclass(frozen=True) above class {type(member).__name__}"
    describe(member)  # raises an error with the fault
    return None


_SETTINGS = {"settings": settings}
CONTRACTS: dict[str, dict[str, Check]] = {
    "dataset": DATASET | _SETTINGS,
    "schedule": SCHEDULE | _SETTINGS,
    "grid": GRID | _SETTINGS,
    "network": NETWORK,
    "target": TARGET | _SETTINGS,
    "level_law": LEVEL_LAW | _SETTINGS,
    "weighting": WEIGHTING | _SETTINGS,
    "objective": OBJECTIVE,
    "sampler": SAMPLER | _SETTINGS,
    "start": START | _SETTINGS,
    "metric": METRIC | _SETTINGS,
}


def faults(promises: Mapping[str, Check], member: Any, *bed: Any) -> dict[str, str | None]:
    """The result of each check; an error that it raises is a fault, too."""
    lines: dict[str, str | None] = {}
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        for place, (name, check) in enumerate(promises.items()):
            # a new state before each check: seeding a generator again could restore a known state
            seed = 2**31 + place
            torch.default_generator.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            random.seed(seed)
            before = _global_generators()
            try:
                lines[name] = check(member, *bed)
            except Exception as error:  # the code of a user's member may raise anything
                lines[name] = kind_and_line(error)
            if _global_generators() != before:
                lines[name] = "a global random generator is used"
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        random.setstate(kept[2])
    return lines


def _global_generators() -> tuple[object, ...]:
    """The state of the global random generators, which no member may use."""
    legacy = np.random.get_state(legacy=True)  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes(), pickle.dumps(legacy), random.getstate()


def broken(promises: Mapping[str, Check], member: Any, *bed: Any) -> list[str]:
    """The broken promises of a member, one line each: "neighbours: a sample depends on …"."""
    return [f"{name}: {line}" for name, line in faults(promises, member, *bed).items() if line]

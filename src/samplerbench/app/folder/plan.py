"""The plan of a multirun: its jobs, read from the file that Hydra writes in the folder.

A job is identified by the words of its command, not by its folder or its number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product
from pathlib import Path

from omegaconf import OmegaConf

#: The file in which Hydra writes the plan, in the folder of the jobs.
PLAN = "multirun.yaml"

#: Limits, since a plan from another person may contain an endless range.
MOST_VALUES, MOST_JOBS = 10**5, 10**4

#: The words of a job, in any order.
Words = frozenset[str]


@dataclass(frozen=True)
class Plan:
    """The jobs of a multirun."""

    count: int  # the number of jobs
    jobs: tuple[Words, ...]  # the words of each job; at most `MOST_JOBS` are listed

    def includes(self, words: Iterable[str]) -> bool:
        """Whether a job with these words is in the plan; True if not all jobs are listed."""
        return self.count > len(self.jobs) or frozenset(words) in self._job_set

    @cached_property
    def _job_set(self) -> frozenset[Words]:
        return frozenset(self.jobs)

    def short_names(self, jobs: Iterable[Words]) -> list[str]:
        """A name for each job: its words that not all jobs of the plan share."""
        common = frozenset.intersection(*self.jobs)
        return [" ".join(sorted(job - common)) for job in jobs]


def read_plan(path: Path) -> Plan | None:
    """Read a plan; None if it cannot be read, or if the sweeper is not Hydra's own."""
    try:
        hydra = OmegaConf.load(path).hydra
        sweeper = OmegaConf.select(hydra, "sweeper._target_") or "BasicSweeper"
        if not sweeper.endswith("BasicSweeper"):
            return None
        params = OmegaConf.select(hydra, "sweeper.params") or {}
        words = [f"{key}={value}" for key, value in params.items()]
        values: dict[str, list[str]] = {}
        from hydra.core.override_parser.overrides_parser import OverridesParser  # slow to import

        for override in OverridesParser.create().parse_overrides([*words, *hydra.overrides.task]):
            key = override.get_key_element()
            if override.is_sweep_override():
                swept = islice(override.sweep_string_iterator(), MOST_VALUES)
                values[key] = [f"{key}={value}" for value in swept]
            elif not override.is_hydra_override():
                values[key] = [f"{key}={override.get_value_element_as_str()}"]
    except Exception:  # the file may have any content
        return None
    jobs = islice(product(*values.values()), MOST_JOBS)
    count = math.prod(map(len, values.values()))
    return Plan(count, tuple(frozenset(job) for job in jobs))

"""The identities of a sweep's cells, and the rows of its values.

`cell` describes the five identities of a row. The settings that all cells of a sweep share are
described once. Every field of a sweep, a cell or a reference that affects a value is part of an
identity (`tests/bench/test_books.py` checks each field).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from samplerbench.bench.cell import Against, Cell, Labels, Origin, Row
from samplerbench.bench.own_grids import OwnGrid, find_own
from samplerbench.identity import describe, identity, settings_text
from samplerbench.metrics.base import Measurement
from samplerbench.samplers.base import Sampler
from samplerbench.version import __version__


@dataclass(frozen=True)
class Books:
    """The settings that all cells of a sweep share; makes identities and rows from them."""

    law: str  # identity of the data's law
    truth: str  # identity of the law that samples are measured against; empty if it is `law`
    schedule: str  # identity of the schedule
    path: str  # identity of schedule and grid
    path_setting: str  # `path` without the training seeds, on which a fitted grid depends
    # `path` for samplers that stay at one level, and the name of their grid
    held: tuple[str, str]
    starts: Mapping[str, str]  # identities by name
    origins: Mapping[str, Origin]  # the origins of the denoisers, by name
    n_samples: int  # n
    block: int  # rows of a block
    dtype: str  # of the state
    device: str  # of the states: cpu or cuda
    arithmetic: str  # the processor's vector instructions
    threads: int  # per operation
    versions: Mapping[str, str]  # of the software that determines the bits
    seeds: Mapping[str, Any]  # by the names of `SEEDS`
    labels: Labels  # names for the table
    final: str  # the end of runs; see `Cell`
    own_grids: Sequence[OwnGrid] = ()  # grids of single samplers, in place of the sweep's grid

    @cached_property
    def _shared(self) -> dict[str, Any]:
        names = ("law", "n_samples", "dtype", "device", "arithmetic", "threads", "versions")
        return {name: getattr(self, name) for name in names}

    def _described(self, thing: object) -> Any:
        """The description of a sampler or metric with its code, computed once per object."""
        if id(thing) not in self._descriptions:
            self._descriptions[id(thing)] = thing, describe(thing, code=True)
        return self._descriptions[id(thing)][1]

    @cached_property
    def _descriptions(self) -> dict[int, tuple[object, Any]]:
        return {}

    @cached_property
    def sweep_id(self) -> str:
        """Identity of the settings that all cells of the sweep share."""
        names = ("truth", "path", "block", "seeds", "final")
        own = [[own.sampler, own.steps, own.identities[0]] for own in self.own_grids]
        shared = [self._shared, *(getattr(self, name) for name in names)]
        return identity(shared + ([own] if own else []))

    def samples_id(self, cell: Cell) -> str:
        """Identity of the cell's samples: everything that determines their bits."""
        random: dict[str, Any] = {"seed": self.seeds["seed"], "repetition": cell.repetition}
        if cell.settings is not None:
            random |= {"steps": cell.steps, "denoiser": self.origins[cell.denoiser].id}
            own = self.own_grid(cell)
            random |= {} if own is None else {"levels": own.identities[0]}
        return identity([self._samples(cell, self.path), random])

    def samples_setting(self, cell: Cell) -> str:
        """Identity of a cell's samples without seeds and repetition."""
        return identity([self._samples(cell, self.path_setting), cell.steps])

    def _samples(self, cell: Cell, path: str) -> dict[str, Any]:
        """The description of a cell's samples without random numbers, steps and training seeds."""
        if cell.settings is None:
            even = bool(cell.start)
            return {"floor": "even" if even else "random", "truth": self.truth, **self._shared}
        origin = self.origins[cell.denoiser]
        return {
            "path": self._path(cell, cell.settings, path),
            "denoiser": [origin.kind, origin.recipe],
            "start": self.starts[cell.start],
            "sampler": self._described(cell.settings),
            "noise": "coupled" if cell.coupled else "keyed",
            "final": self._final(cell),
            "block": self.block,
            **self._shared,
        }

    def row(
        self,
        cell: Cell,
        metric: str,
        settings: object,
        to: Against,
        measured: Measurement | None = None,
        **found: Any,
    ) -> Row:
        """The row of a value, or of a cell without a value.

        Args:
            settings: the metric or diagnostic, for `identity.describe`.
            found: the columns nfe, rounds, seconds, status and message.
        """
        samples_id = self.samples_id(cell)
        measure = {"truth": self.truth, "metric": self._described(settings)}
        reference = {"reference": to.name, "n": to.count}
        origin = self.origins.get(cell.denoiser, Origin("law"))
        learned, on_law, labels = origin.kind == "learned", cell.settings is None, self.labels
        networks = {"learned": labels.network, "pretrained": labels.model}
        value = {
            "samples": samples_id,
            "metric_seed": self.seeds["metric_seed"],
            "to": reference | {"content": to.content},
            **measure,
        }
        samples = self._samples(cell, self.path_setting)
        setting = {"of": samples, "to": reference | {"setting": to.setting}, **measure}
        shared = {"law": self.law, "to": to.name, **measure}
        return Row(
            cell_id=identity(value),
            samples_id=samples_id,
            setting_id=identity(setting),
            measure_id=identity(shared),
            sweep_id=self.sweep_id,
            training_id=origin.id if origin.kind in networks else "",
            run=labels.run,
            experiment=labels.experiment,
            dataset=labels.dataset,
            network=networks.get(origin.kind, ""),
            objective=labels.objective if learned else "",
            schedule="" if on_law else labels.schedule,
            target=labels.target if learned else "",
            grid=self._grid(cell),
            final=self._final(cell),
            denoiser=cell.denoiser,
            start=cell.start,
            sampler=cell.sampler,
            sampler_settings="" if cell.settings is None else settings_text(cell.settings),
            eta=_eta(cell.settings),
            steps=cell.steps,
            **self.seeds,
            repetition=cell.repetition,
            n_samples=self.n_samples,
            reference=to.name,
            n_reference=to.count,
            metric=metric,
            metric_settings=json.dumps(describe(settings), sort_keys=True),
            block=self.block,
            device=self.device,
            dtype=self.dtype,
            version=__version__,
            **{"nfe": 0, "rounds": 0, "seconds": 0.0, "status": "", "message": "", **found},
            **columns(measured),
        )

    def own_grid(self, cell: Cell) -> OwnGrid | None:
        """The cell's own grid; None if it runs on the sweep's grid, or ends at another level."""
        if cell.final not in ("", self.final):
            return None
        return find_own(self.own_grids, cell.settings, cell.steps)

    def _path(self, cell: Cell, sampler: Sampler, path: str) -> Any:
        if sampler.brings_levels:
            return self.schedule
        own = self.own_grid(cell)
        if own is not None:
            return [self.schedule, own.identities[1]]
        return self.held[0] if sampler.holds else path

    def _final(self, cell: Cell) -> str:
        """The end of a cell's runs; empty for samplers with an end of their own."""
        sampler = cell.settings
        if sampler is None or sampler.holds or sampler.brings_levels:
            return ""
        return cell.final or self.final

    def _grid(self, cell: Cell) -> str:
        sampler = cell.settings
        if sampler is None:
            return ""
        if sampler.brings_levels:
            return "own"
        own = self.own_grid(cell)
        if own is not None:
            return own.name
        return self.held[1] if sampler.holds else self.labels.grid


def columns(
    measured: Measurement | None, info: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """The columns of a measurement, with more `info`; NaN without a measurement."""
    if measured is None:
        measured = Measurement(math.nan, math.nan, math.nan, None, 0, {})
    info = {**(info or {}), **measured.info}
    return {
        "value": measured.value,
        "lower": measured.lower,
        "upper": measured.upper,
        "info": json.dumps(info, sort_keys=True) if info else "",
    }


def _eta(settings: Sampler | None) -> float:
    """η of a sampler; NaN if it has no number of this name."""
    eta = getattr(settings, "eta", None)
    return float(eta) if isinstance(eta, int | float) else math.nan

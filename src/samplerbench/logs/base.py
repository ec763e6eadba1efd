"""Loggers: the settings of a log, and the open log of one run.

A run is one training and one grid of cells. A `Logger` has plain settings. It opens a `Log`, which
receives everything that a run can show:

- the config, when the log is opened,
- the losses of the training, one by one or all at once,
- the table of all cells, figures, files, and curves against the number of evaluations or steps.

    with Wandb().open(RunInfo(run_dir, "heun · edm", config)) as log:
        train(objective, data, directory=run_dir, log=log.losses)
        log.table("cells", cells)
        log.figure("distance", run_dir / "distance.png")
        log.curves("distance", cells, ["nfe", "steps"], "value", by=["denoiser", "start", "eta"])
        log.files([run_dir / "report.txt"])

There is one call for each number of steps, not for each cell, so a service that limits the rate of
calls is not called too often.

Logs are copies for viewing; the results are in `cells.parquet`. All files of a log are in one
folder below the run's directory. A job that starts again logs everything again, so its last log is
complete; the folder of its earlier log gets a number, as in `wandb.1`.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from samplerbench.training.weights import Loss

if TYPE_CHECKING:
    import pandas as pd

message = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunInfo:
    """The information about a run that its log gets."""

    directory: Path  # every file of the log is below it
    name: str  # the name of the run for readers
    config: Mapping[str, object]  # the resolved config, plain values only
    group: str | None = None  # a name that all runs of one multirun share
    tags: Sequence[str] = ()  # words for finding the run


class Log(AbstractContextManager["Log"]):
    """The open log of one run; it is closed at the end, as failed if the block raises an error.

    The methods here do nothing. A subclass overrides those that it supports.
    """

    _logged = 0
    """Number of losses logged so far."""

    @property
    @abstractmethod
    def where(self) -> str:
        """The place of the log: a folder, a URL, or an empty text."""

    def losses(self, rows: Sequence[Loss]) -> None:
        """Log all losses of a training so far; those that are already logged are skipped."""
        for row in rows[self._logged :]:
            self._loss(*row)
        self._logged = max(self._logged, len(rows))

    def _loss(self, step: int, name: str, loss: float) -> None:
        """Log one more loss."""

    def table(self, key: str, frame: pd.DataFrame) -> None:
        """Log a whole table, once."""

    def figure(self, key: str, png: Path) -> None:
        """Log a figure."""

    def curves(
        self, key: str, frame: pd.DataFrame, x: Sequence[str], y: str, by: Sequence[str]
    ) -> None:
        """Log `y` against the first column of `x`, one curve for each combination of `by`.

        A curve has a name like "distance/learned/prior/eta=0.5", in characters that the log's
        viewer accepts. The other columns of `x` are logged with each point, as other x axes for
        the same curve. Rows that agree in `x` and `by` are repetitions and are averaged; a point
        that is not finite is left out.
        """

    def files(self, paths: Iterable[Path]) -> None:
        """Keep a copy of finished files of the run."""

    def close(self, failed: bool) -> None:
        """Write everything that is not written yet and release all resources."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(failed=kind is not None)


class Logger(ABC):
    """The settings of a log."""

    @abstractmethod
    def open(self, run: RunInfo) -> Log:
        """Start the log of one run."""


@dataclass(frozen=True)
class NoLogger(Logger):
    """No log at all."""

    def open(self, run: RunInfo) -> Log:
        return NoLog()


class NoLog(Log):
    """Accepts everything and keeps nothing."""

    where = ""


def keep_earlier_log(folder: Path) -> None:
    """Rename the folder of this job's earlier log, if there is one, by a number at its end."""
    if folder.exists():
        candidates = (folder.with_name(f"{folder.name}.{number}") for number in count(1))
        free = next(name for name in candidates if not name.exists())
        folder.rename(free)
        message.warning("an earlier log of this job is now %s; the new log is complete", free)


def run_name(samplers: Iterable[str], model: str, dataset: str, changes: Iterable[str] = ()) -> str:
    """The name of a run for readers: "ddim,heun · edm · grid_mixture · seed=1".

    Args:
        samplers: the names of the samplers; the first three are listed, the others counted.
        model: the objective of the training, or the name of an exact denoiser.
        dataset: the name of the data set.
        changes: the settings that vary in the multirun: "key=value".
    """
    names = list(dict.fromkeys(samplers))
    listed = ",".join(names[:3]) + (f" +{len(names) - 3}" if len(names) > 3 else "")
    in_name = {"sampler", "objective", "dataset"}
    varied = [change for change in changes if change.partition("=")[0] not in in_name]
    return " · ".join(filter(None, [listed, model, dataset, " ".join(varied)]))


def curve_points(
    key: str, frame: pd.DataFrame, x: Sequence[str], y: str, by: Sequence[str]
) -> dict[tuple[float, ...], dict[str, float]]:
    """The points of `Log.curves`: for each x, in order, the value of every curve there."""
    curves: dict[tuple[float, ...], dict[str, float]] = {}
    # rows with a missing value, such as the eta of Heun, are a group too, without it in the name
    for values, group in frame.groupby([*x, *by], dropna=False, sort=True):
        mean = float(group[y].astype(float).mean(skipna=False))
        if math.isfinite(mean):
            settings = zip(by, values[len(x) :], strict=True)
            parts = [_part(column, value) for column, value in settings]
            curve = "/".join([key, *filter(None, parts)])
            point = tuple(float(group[column].iloc[0]) for column in x)
            curves.setdefault(point, {})[curve] = mean
    return curves


def _part(column: str, value: object) -> str:
    """One part of a curve's name; empty for a missing value."""
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    return f"{column}={value:g}" if isinstance(value, float) else f"{column}={value}"

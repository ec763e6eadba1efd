"""Where a run is logged: wandb, CSV files, TensorBoard or nowhere.

A run is one training and one grid of cells. A `Logger` holds plain settings; it opens a `Log` for
one run, which takes what a run has to show:

- the config, when the log is opened,
- the losses of its training, as they come or all at once,
- the table of all cells, figures, curves against the number of evaluations or of steps, and files.

    with Wandb().open(Run(run_dir, "heun · edm", config)) as log:
        train(objective, data, directory=run_dir, log=log.losses)
        log.table("cells", cells)
        log.figure("distance", run_dir / "distance.png")
        log.curves("distance", cells, ["nfe", "steps"], "value", by=["denoiser", "start", "eta"])
        log.files([run_dir / "report.txt"])

How many calls that makes does not depend on how many cells there are, only on how many different
numbers of steps: a service that limits the rate of calls is never asked for one a cell.

Logs are views: `cells.parquet` is the record. Everything lands under the run's directory, in a
folder of the log's own. A job that is begun again logs everything again, so that one log is whole;
the folder of its earlier log gets a number, as in `wandb.1`. Loggers are imported when a log is
opened, never before: `--help` has to stay fast.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from samplerbench.environment import environment
from samplerbench.errors import RunFailed, first_line, require
from samplerbench.training.weights import Loss

if TYPE_CHECKING:
    import pandas as pd
    import wandb

message = logging.getLogger(__name__)

Mode = Literal["online", "offline", "disabled"]


@dataclass(frozen=True)
class Run:
    """What a log is told about its run.

    Args:
        directory: every file of the log goes below it.
        name: what a person calls the run.
        config: the resolved config, plain values only.
        group: what the runs of one multirun share.
        tags: words to find it by.
    """

    directory: Path
    name: str
    config: Mapping[str, object]
    group: str | None = None
    tags: Sequence[str] = ()


class Log(AbstractContextManager["Log"]):
    """The open log of one run; closed at the end, as failed where an exception leaves the block."""

    _told = 0  # so many losses

    def losses(self, rows: Sequence[Loss]) -> None:
        """Log the losses of a training.

        Args:
            rows: all of them so far, in the order they came; those that were logged are left out.
        """
        for row in rows[self._told :]:
            self._loss(*row)
        self._told = max(self._told, len(rows))

    @abstractmethod
    def _loss(self, step: int, name: str, loss: float) -> None:
        """Log one more loss."""

    @property
    @abstractmethod
    def where(self) -> str:
        """Where to look at the log: a folder, an address, or nothing."""

    @abstractmethod
    def table(self, key: str, frame: pd.DataFrame) -> None:
        """Log a whole table, once."""

    @abstractmethod
    def figure(self, key: str, png: Path) -> None:
        """Log a picture."""

    @abstractmethod
    def curves(
        self, key: str, frame: pd.DataFrame, x: Sequence[str], y: str, by: Sequence[str]
    ) -> None:
        """Log `y` against the first column of `x`, one curve for each combination of `by`.

        A curve is named like "distance/learned/prior/eta=0.5", in letters that the log's viewer
        understands. The other columns of `x` are logged beside each point, to draw the same curve
        against. Rows that agree in `x` and `by` are averaged (repetitions); a point that is not
        finite is left out.
        """

    @abstractmethod
    def files(self, paths: Iterable[Path]) -> None:
        """Keep a copy of finished files of the run."""

    @abstractmethod
    def close(self, failed: bool) -> None:
        """Write what is left and release everything."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(failed=kind is not None)


class Logger(ABC):
    """The settings of a log."""

    @abstractmethod
    def open(self, run: Run) -> Log:
        """Start the log of one run."""


def _put_earlier_aside(folder: Path) -> None:
    """Give the folder of this job's earlier log, if there is one, a name with a number."""
    if folder.exists():
        names = (folder.with_name(f"{folder.name}.{number}") for number in count(1))
        aside = next(name for name in names if not name.exists())
        folder.rename(aside)
        message.warning("an earlier log of this job is now %s; the new one holds all of it", aside)


def run_name(samplers: Iterable[str], model: str, dataset: str, changes: Iterable[str] = ()) -> str:
    """What a person calls a run: "ddim,heun · edm · grid_mixture · seed=1".

    Args:
        samplers: their names; of more than three the others are counted.
        model: what was trained, or which exact denoiser was used.
        dataset: its name.
        changes: in what else it differs from the other runs of its multirun: "key=value".
    """
    names = list(dict.fromkeys(samplers))
    listed = ",".join(names[:3]) + (f" +{len(names) - 3}" if len(names) > 3 else "")
    said = {"sampler", "objective", "dataset"}
    other = [word for word in changes if word.partition("=")[0] not in said]
    return " · ".join(filter(None, [listed, model, dataset, " ".join(other)]))


def points(
    key: str, frame: pd.DataFrame, x: Sequence[str], y: str, by: Sequence[str]
) -> dict[tuple[float, ...], dict[str, float]]:
    """The points of `Log.curves`: for each x, in order, the value of every curve there."""
    curves: dict[tuple[float, ...], dict[str, float]] = {}
    # An unknown value (a sampler without eta) is a group of its own, and not a part of the name.
    for at, group in frame.groupby([*x, *by], dropna=False, sort=True):
        value = float(group[y].astype(float).mean(skipna=False))
        if math.isfinite(value):
            parts = [_part(column, of) for column, of in zip(by, at[len(x) :], strict=True)]
            curve = "/".join([key, *filter(None, parts)])
            place = tuple(float(group[column].iloc[0]) for column in x)
            curves.setdefault(place, {})[curve] = value
    return curves


def _part(column: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    return f"{column}={value:g}" if isinstance(value, float) else f"{column}={value}"


@dataclass(frozen=True)
class Wandb(Logger):
    """Weights & Biases; offline unless told otherwise: no account, no network, no question asked.

    Online, where the server cannot be reached or there is no key, the run goes on offline with one
    warning. No code, git state, console output or machine data is captured.

    Args:
        project: name of the project.
        entity: team or user; the account's own by default.
        mode: online, offline or disabled.
        init_timeout: seconds to wait for the server at the start (wandb's own 90 hang a run).
        finish_timeout: seconds to wait for uploads at the end; what is left stays on disk.
    """

    project: str = "samplerbench"
    entity: str | None = None
    mode: Mode = "offline"
    init_timeout: float = 6.0
    finish_timeout: float = 300.0

    def __post_init__(self) -> None:
        named = 0 < len(self.project) <= 128 and not set(self.project) & set("/\\#?%:")
        require(named, "project", self.project, "1 to 128 characters, none of / \\ # ? % :")
        modes = get_args(Mode)
        require(self.mode in modes, "mode", self.mode, f"one of {', '.join(modes)}")
        for field, seconds in (
            ("init_timeout", self.init_timeout),
            ("finish_timeout", self.finish_timeout),
        ):
            require(0 < seconds < math.inf, field, seconds, "more than 0 seconds, and finite")

    def open(self, run: Run) -> Log:
        return WandbLog(self, run)


class WandbLog(Log):
    """One wandb run in a wandb service of its own, which ends with the log.

    So two runs in one process share neither a run nor the settings of the first one, and nothing
    is left in the background.
    """

    def __init__(self, settings: Wandb, run: Run) -> None:
        import wandb

        folder = run.directory.absolute() / "wandb"
        if settings.mode != "disabled":
            _put_earlier_aside(folder)
        # the user's own, whose lengths nobody has looked at
        tags = [*run.tags, *map(str.strip, os.environ.get("WANDB_TAGS", "").split(","))]
        with ExitStack() as stack:
            # wandb reads these from nowhere but the environment.
            stack.enter_context(
                environment(
                    {
                        # Copies of the tables, which `wandb sync` uploads later, and the service's
                        # own log. By default both lie in the home folder.
                        "WANDB_DATA_DIR": str(folder / "data"),
                        "WANDB_CACHE_DIR": str(folder / "cache"),
                        # Error reports leave as the process ends, and hang without a network.
                        "WANDB_ERROR_REPORTING": "false",
                        # A job's run is its own, and whole, so it never goes on with another one.
                        "WANDB_TAGS": None,
                        "WANDB_RUN_ID": None,
                        "WANDB_RESUME": None,
                    }
                )
            )
            stack.callback(wandb.teardown)
            identity = secrets.token_hex(4)
            options = {
                "dir": str(run.directory.absolute()),
                "id": identity,
                "project": settings.project,
                "entity": settings.entity,
                "name": _shortened(run.name, 128),
                "group": run.group and _shortened(run.group, 128),
                "tags": [_shortened(tag, 64) for tag in dict.fromkeys(filter(None, tags))],
                "config": dict(run.config),
            }
            try:
                self._run = _start(settings, settings.mode, options)
            except (wandb.Error, TimeoutError) as error:
                wandb.teardown()
                for attempt in folder.glob(f"run-*-{identity}"):
                    shutil.rmtree(attempt)
                reason = first_line(error).rstrip(".")
                message.warning("wandb: %s. This run is logged offline, in %s", reason, folder)
                self._run = _start(settings, "offline", options)
            # The losses' x axis.
            self._run.define_metric("trainer/global_step")
            self._run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
            self._stack = stack.pop_all()

    def _loss(self, step: int, name: str, loss: float) -> None:
        self._run.log({f"{name}/loss": loss, "trainer/global_step": step})

    @property
    def where(self) -> str:
        folder = Path(self._run.dir).parent
        return self._run.url or (str(folder) if folder.exists() else "")

    def table(self, key: str, frame: pd.DataFrame) -> None:
        import wandb

        most = wandb.Table.MAX_ROWS
        if len(frame) > most:
            message.warning("wandb: shows the first %d of %d rows of %s", most, len(frame), key)
        # NaN is no JSON: wandb writes it all the same, and others cannot read the file.
        plain = frame.astype(object).where(frame.notna(), None)
        # as an array, and told where nothing is missing: a frame it reads and types cell by cell
        table = wandb.Table(
            columns=list(frame.columns),
            data=plain.to_numpy(),
            optional=frame.isna().any().tolist(),
            allow_mixed_types=True,
        )
        self._run.log({key: table})

    def figure(self, key: str, png: Path) -> None:
        import wandb

        self._run.log({key: wandb.Image(str(png))})

    def curves(
        self, key: str, frame: pd.DataFrame, x: Sequence[str], y: str, by: Sequence[str]
    ) -> None:
        # A metric with its own x, never `step=`: wandb drops a log with an earlier step, silently.
        # One log for each x, not for each point: many logs are rate-limited online.
        rows = points(key, frame, x, y, by)
        for axis in x:
            self._run.define_metric(axis, hidden=True)
        for curve in dict.fromkeys(curve for row in rows.values() for curve in row):
            self._run.define_metric(_sortable(curve), step_metric=x[0])
        for at, row in rows.items():
            named = {_sortable(curve): of for curve, of in row.items()}
            self._run.log({**dict(zip(x, at, strict=True)), **named})

    def files(self, paths: Iterable[Path]) -> None:
        for path in paths:
            # Now: the file is whole. The default watches it for changes until the run ends.
            self._run.save(path, base_path=path.parent, policy="now", glob=False)

    def close(self, failed: bool) -> None:
        with self._stack:
            try:
                self._run.finish(exit_code=int(failed))
            except TimeoutError:
                folder = Path(self._run.dir).parent
                message.warning("wandb: not all was uploaded; later: wandb sync %s", folder)


def _sortable(curve: str) -> str:
    """A curve's name in the letters with which wandb's app can sort and filter runs by it.

    They are those of a GraphQL name, and the slash: "prior/ddim η=0.5" is "prior/ddim_eta_0_5".
    """
    return re.sub(r"[^a-zA-Z0-9_/]", "_", curve.replace("η", "eta").replace("+", ""))


def _shortened(text: str, most: int) -> str:
    """A text that wandb's server takes: a long one ends with a digest, which keeps it another's."""
    if len(text) <= most:
        return text
    return f"{text[: most - 9]}…{sha256(text.encode()).hexdigest()[:8]}"


def _start(settings: Wandb, mode: Mode, options: Mapping[str, Any]) -> wandb.Run:
    """Start a run.

    Raises:
        RunFailed: wandb refuses one of its own settings, which it reads in the environment.
    """
    import wandb
    from pydantic import ValidationError

    try:
        of_wandb = wandb.Settings(
            mode=mode,
            # Silent also means that it never asks for a key: it raises an error instead.
            silent=True,
            init_timeout=settings.init_timeout,
            finish_timeout=settings.finish_timeout,
            finish_timeout_raises=True,
            console="off",
            save_code=False,
            disable_code=True,
            disable_git=True,
            symlink=False,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )
        wandb.setup(settings=of_wandb)
    except ValidationError as error:
        wrong = error.errors()[0]
        setting = "_".join(map(str, wrong["loc"])).upper()
        raise RunFailed(f"logger=wandb: WANDB_{setting} is refused: {wrong['msg']}") from error
    with _no_launch(wandb.Run):
        return wandb.init(settings=of_wandb, reinit="create_new", **options)


@contextmanager
def _no_launch(kind: type[wandb.Run]) -> Iterator[None]:
    """A run then does not ask wandb's launch service for inputs: half a second of imports.

    No setting says so. The method is wandb's own affair; in a version without it nothing is saved.
    """
    name = "_detect_and_apply_job_inputs"
    before = getattr(kind, name, None)
    if before is None:
        yield
        return
    setattr(kind, name, lambda run: None)
    try:
        yield
    finally:
        setattr(kind, name, before)


@dataclass(frozen=True)
class Csv(Logger):
    """CSV files: csv/losses.csv, and csv/KEY.csv for a table."""

    def open(self, run: Run) -> Log:
        return CsvLog(run)


class CsvLog(Log):
    """A folder of CSV files. Figures and files lie beside it, and the curves are in the table."""

    def __init__(self, run: Run) -> None:
        self._folder = run.directory / "csv"
        _put_earlier_aside(self._folder)
        self._folder.mkdir(parents=True)

    def _loss(self, step: int, name: str, loss: float) -> None:
        path = self._folder / "losses.csv"
        head = "" if path.exists() else "step,name,loss\n"
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{head}{step},{name},{loss!r}\n")

    @property
    def where(self) -> str:
        return str(self._folder)

    def table(self, key: str, frame: pd.DataFrame) -> None:
        frame.to_csv(self._folder / f"{key}.csv", index=False)

    def figure(self, key: str, png: Path) -> None:
        pass

    def curves(
        self, key: str, frame: pd.DataFrame, x: Sequence[str], y: str, by: Sequence[str]
    ) -> None:
        pass

    def files(self, paths: Iterable[Path]) -> None:
        pass

    def close(self, failed: bool) -> None:
        pass


@dataclass(frozen=True)
class TensorBoard(Logger):
    """TensorBoard event files in tensorboard/. It is an extra: samplerbench[tensorboard]."""

    def __post_init__(self) -> None:
        require(
            find_spec("tensorboard") is not None,
            "tensorboard",
            "missing",
            "installed: pip install 'samplerbench[tensorboard]'",
        )

    def open(self, run: Run) -> Log:
        return TensorBoardLog(run)


class TensorBoardLog(Log):
    """One folder of event files; the x of a curve is its global step, rounded."""

    def __init__(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = run.directory / "tensorboard"
        _put_earlier_aside(self._folder)
        self._writer = SummaryWriter(str(self._folder))
        self._writer.add_text("config", f"```\n{json.dumps(run.config, indent=1)}\n```")

    def _loss(self, step: int, name: str, loss: float) -> None:
        self._writer.add_scalar(f"{name}/loss", loss, global_step=step)

    @property
    def where(self) -> str:
        return str(self._folder)

    def table(self, key: str, frame: pd.DataFrame) -> None:
        self._writer.add_text(key, _markdown(frame))

    def figure(self, key: str, png: Path) -> None:
        from matplotlib.image import imread

        self._writer.add_image(key, imread(png), dataformats="HWC")

    def curves(
        self, key: str, frame: pd.DataFrame, x: Sequence[str], y: str, by: Sequence[str]
    ) -> None:
        for at, row in points(key, frame, x, y, by).items():
            for curve, value in row.items():
                self._writer.add_scalar(curve, value, global_step=round(at[0]))

    def files(self, paths: Iterable[Path]) -> None:
        pass

    def close(self, failed: bool) -> None:
        self._writer.close()


def _markdown(frame: pd.DataFrame) -> str:
    cells = [[str(column) for column in frame.columns], ["---"] * len(frame.columns)]
    cells += [[str(value) for value in row] for row in frame.itertuples(index=False)]
    # A bar or a line break would end a cell.
    clean = [[c.replace("|", "\\|").replace("\n", " ") for c in row] for row in cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in clean)


@dataclass(frozen=True)
class NoLogger(Logger):
    """No log at all."""

    def open(self, run: Run) -> Log:
        return NoLog()


class NoLog(Log):
    """Takes everything and keeps nothing."""

    def _loss(self, step: int, name: str, loss: float) -> None:
        pass

    @property
    def where(self) -> str:
        return ""

    def table(self, key: str, frame: pd.DataFrame) -> None:
        pass

    def figure(self, key: str, png: Path) -> None:
        pass

    def curves(
        self, key: str, frame: pd.DataFrame, x: Sequence[str], y: str, by: Sequence[str]
    ) -> None:
        pass

    def files(self, paths: Iterable[Path]) -> None:
        pass

    def close(self, failed: bool) -> None:
        pass

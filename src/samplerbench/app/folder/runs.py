"""Read the folder of a run, finished or not.

    config.yaml   the resolved configuration; the job that creates it owns the folder
    .lock         held by the process that works on the run (see `lock`)
    run.json      the chosen member of each group, the command, the versions, the machines that
                  worked on it, the number of values
    grid.json     the table of a grid that was fitted to a denoiser; its cost is in run.json
    status.json   running, finished, failed or interrupted, and the first line of the reason
    cells/        the values, one file each, and cells.parquet, the table made of them
    checkpoints/  the trained model

A stored config is data, perhaps from another person. `construct` makes its objects, so it can only
name members of trusted packages, and weights are read without executing code. It contains only
values: interpolations could read the environment of the person who opens it. A data set from a file
is read from the path in the config, as numbers. So look at `dataset.path` before you publish the
pictures of a run from another person.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import yaml
from omegaconf import DictConfig, OmegaConf

from samplerbench.app.folder.lock import LOCK, is_locked
from samplerbench.errors import InvalidSetting, refusing

if TYPE_CHECKING:
    import pandas as pd

State = Literal["running", "finished", "failed", "interrupted"]
CONFIG, STATUS, ABOUT, CHECKPOINTS = "config.yaml", "status.json", "run.json", "checkpoints"

#: What the folder of a run must be, for messages.
COMPLETE = "a complete run of this version"


def weights_folder(training: str) -> str:
    """The subfolder of a run that has the weights of a training: `learned`, or a guide's."""
    return CHECKPOINTS if training == "learned" else f"{CHECKPOINTS}/{training}"


@dataclass(frozen=True)
class StoredRun:
    """The content of a run's folder."""

    directory: Path
    config: DictConfig  # the resolved configuration
    choices: Mapping[str, Any]  # the chosen member of each group
    overrides: Sequence[str]  # the words of the command
    versions: Mapping[str, str]  # of the software that determines the run's bits, and of Python
    values: int  # the number of values of the complete run; 0 if it is not known
    sweep_id: str  # identity of the sweep; empty if it is not known
    state: State  # of the run; interrupted if its process has ended too early
    message: str  # why the run has not finished, in one line
    machines: Sequence[Mapping[str, Any]] = ()  # that worked on it, see `identity.machine`

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.directory.name

    def table(self) -> pd.DataFrame:
        """The values so far, one row each, with the columns of `bench.store.Row`."""
        return self.values_and_problems()[0]

    def values_and_problems(self) -> tuple[pd.DataFrame, list[str]]:
        """The values so far, and a line for each file that cannot be read."""
        from samplerbench.bench.store import Store  # slow: imports pandas

        return Store(self.directory, self.sweep_id).readable()


def open_run(directory: Path) -> StoredRun:
    """Read a run's folder."""
    path = directory / CONFIG
    if not path.is_file():
        allowed = "a folder that a job of samplerbench made, with its config.yaml"
        raise InvalidSetting("run", directory, allowed)
    with refusing("run", directory, COMPLETE):
        config = _read_config(path)
        if not (directory / STATUS).exists():  # the last of the three files of a new run
            ended = "ended when it started"
            return StoredRun(directory, config, {}, [], {}, 0, "", "interrupted", ended)
        about, machines = read_about(directory), read_machines(directory)
        status = read_status(directory)
        state, message = status["state"], str(status["message"])
        if state == "running" and is_gone(directory, status):
            state, message = "interrupted", "its process has ended"
        return StoredRun(directory, config, *about, state, message, machines)


def _read_config(path: Path) -> DictConfig:
    """A stored config, which contains only values.

    Raises:
        ValueError: it is not a mapping, or contains an interpolation or an alias. A few lines with
            aliases can become a config of any size.
    """
    text = path.read_text(encoding="utf-8")
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent) or "${" in getattr(event, "value", ""):
            line = event.start_mark.line + 1
            raise ValueError(f"{path.name}, line {line}: only values are allowed")
    config = OmegaConf.load(StringIO(text))
    if not isinstance(config, DictConfig):
        raise ValueError(f"{path.name} is not a mapping")
    return config


def find_runs(directory: Path) -> list[Path]:
    """The folder itself, or the folders of runs below it, sorted by name."""
    runs = sorted(path.parent for path in directory.rglob(CONFIG))
    if not runs:
        allowed = "a folder that a job of samplerbench made, or one that contains such folders"
        names = [path.name for path in directory.parent.glob("*/")] if directory.name else []
        near = [] if directory.exists() else get_close_matches(directory.name, names)
        also = f"; near it: {', '.join(str(directory.with_name(name)) for name in near)}"
        raise InvalidSetting("run", directory, allowed + also * bool(near))
    return runs


def read_about(directory: Path) -> tuple[dict[str, Any], list[str], dict[str, str], int, str]:
    """Choices, overrides, versions, the number of values and the identity of the sweep."""
    about = json.loads((directory / ABOUT).read_bytes())
    return (
        dict(about["choices"]),
        list(about["overrides"]),
        dict(about["versions"]),
        int(about["values"]),
        str(about.get("sweep_id", "")),
    )


def read_machines(directory: Path) -> list[dict[str, Any]]:
    """The machines that worked on a run; none if it was made before they were recorded."""
    return list(json.loads((directory / ABOUT).read_bytes()).get("machines", []))


def read_status(directory: Path) -> dict[str, Any]:
    """The state of a run, and the process that wrote it."""
    status = dict(json.loads((directory / STATUS).read_bytes()))
    if status["state"] not in get_args(State):
        raise ValueError(f"{status['state']} is not a state of a run")
    if not isinstance(status["host"], str) or not isinstance(status["process"], int):
        raise ValueError("it does not name its process")
    return status


def is_gone(directory: Path, status: Mapping[str, Any]) -> bool:
    """Whether the process that wrote this status has ended: it no longer has the lock."""
    return bool(status.get("lock")) and is_locked(directory / LOCK) is False

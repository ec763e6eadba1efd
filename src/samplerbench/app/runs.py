"""Runs on disk: what a finished, failed or half-finished job left in its folder.

    config.yaml   the resolved configuration; whoever creates it has the folder
    .lock         held by the process that works on the run (see `owner`)
    run.json      which member of each group was chosen, the command, the versions, how many values
    status.json   running, finished, failed or interrupted, and the first line of why
    cells/        the values, one file each, and cells.parquet, the table made of them
    checkpoints/  the trained model

A stored config is data, perhaps somebody else's: it is built by `construct`, so it can name members
of trusted packages only, and weights are read without executing anything. It holds values, never
interpolations, which could read the environment of whoever opens it. A data set that is a file is
read where the config says, as numbers: look at what `dataset.path` is before you show others the
pictures of a run that is not yours.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, get_args

import pandas as pd
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from samplerbench.app.construct import trusted_packages
from samplerbench.app.owner import CONFIG, STATUS, hold, is_gone, release, signature, stored
from samplerbench.bench.store import Store
from samplerbench.errors import InvalidSetting, first_line, kind_and_line
from samplerbench.files import create_atomically, set_aside, write_atomically

if TYPE_CHECKING:
    from samplerbench.app.build import Job

State = Literal["running", "finished", "failed", "interrupted"]
ABOUT, CHECKPOINTS = "run.json", "checkpoints"
#: What a run writes besides its config, and what would be somebody else's where that is missing.
WRITTEN = (ABOUT, STATUS, CHECKPOINTS, "cells", "cells.parquet", "losses.csv", "report.txt")


@dataclass(frozen=True)
class StoredRun:
    """A run's folder, read.

    Args:
        directory: where it is.
        config: the resolved configuration.
        choices: which member of each group was chosen.
        overrides: the words of its command.
        versions: of the software that decides its bits, and of Python.
        values: how many values it is to have; 0 if it never came so far.
        sweep_id: identity of its sweep; empty where that is not known.
        state: what became of it. A run whose process is gone was interrupted.
        message: why, in one line, unless it finished.
    """

    directory: Path
    config: DictConfig
    choices: Mapping[str, Any]
    overrides: Sequence[str]
    versions: Mapping[str, str]
    values: int
    sweep_id: str
    state: State
    message: str

    @property
    def name(self) -> str:
        """What the run is called."""
        return self.directory.name

    def table(self) -> pd.DataFrame:
        """Its values so far, one row each, with the columns of `bench.store.Row`."""
        return self.values_and_problems()[0]

    def values_and_problems(self) -> tuple[pd.DataFrame, list[str]]:
        """Its values so far, and what of them cannot be read, a line each."""
        return Store(self.directory, self.sweep_id).readable()

    def job(self, **changes: Any) -> Job:
        """The run's objects, built again, the learned denoiser with its trained weights.

        If code or data have changed since the training, the learned denoiser keeps the identity of
        the training that made its weights.

        Args:
            changes: top-level keys of the config to change before, such as device="cuda".

        Raises:
            InvalidSetting: something cannot be built here, or the weights are not there.
        """
        # torch takes seconds to import, and a run's values can be read without it
        from samplerbench.app.build import build
        from samplerbench.bench.cell import Origin
        from samplerbench.identity import identity_of_model
        from samplerbench.training.weights import WEIGHTS, load, training_of

        config = OmegaConf.merge(self.config, changes)
        assert isinstance(config, DictConfig)
        # a log is opened by a job that runs, and its package may be missing here
        config.logger = {"_target_": "samplerbench.logs.base.NoLogger"}
        config.cache = "off"
        try:
            job = build(config, self.choices, self.name)
        except OmegaConfBaseException as error:  # a key that this version has, and the run has not
            allowed = f"a whole run of this version ({first_line(error)})"
            raise InvalidSetting("run", self.directory, allowed) from error
        if job.training is not None:
            model = job.training.objective.model
            path = self.directory / CHECKPOINTS / WEIGHTS
            try:
                load(model, path)
            except Exception as error:  # whatever the file holds
                allowed = f"one with the weights of its own network ({kind_and_line(error)})"
                raise InvalidSetting("run", path, allowed) from error
            model.to(job.sweep.device)
            made_by = training_of(path) or identity_of_model(model)
            if made_by != job.sweep.origins["learned"].id:
                learned = Origin("learned", made_by, made_by)
                sweep = replace(job.sweep, origins={**job.sweep.origins, "learned": learned})
                budget = None if job.budget is None else replace(job.budget, sweep=sweep)
                job = replace(job, sweep=sweep, budget=budget)
        return job


def claim(directory: Path, config: DictConfig, about: Mapping[str, Any]) -> None:
    """Make the folder this run's, by a file that only one run can create: the resolved config.

    Args:
        directory: of the run.
        config: of the run.
        about: choices, overrides, values and sweep_id, as in `StoredRun`.

    Raises:
        InvalidSetting: another run has the folder; nothing of it is touched. The same one goes on
            in its own, where its process has ended or Slurm begins its job again. What cannot be
            read of how far it came is named and set aside.
    """
    content = stored(config)
    if not (directory / CONFIG).exists() and any((directory / name).exists() for name in WRITTEN):
        _refuse(directory, f"it has no {CONFIG}")
    try:
        create_atomically(directory / CONFIG, content)
        goes_on = False
    except FileExistsError:
        goes_on = not _requeued(directory)
    if goes_on and (directory / CONFIG).read_bytes() != content:
        _refuse(directory, f"its {CONFIG} is another run's")
    locked = hold(directory)
    if goes_on and locked is False:
        _refuse(directory, "it still runs")
    reason = _why_not_on(directory, locked) if goes_on else ""
    if reason:
        release(directory)
        _refuse(directory, reason)
    _write(directory / ABOUT, {**about, "versions": versions()})
    tell(directory, "running")


def versions() -> dict[str, str]:
    """Of the software that decides a run's bits: of trusted packages their code, and of Python."""
    # torch takes seconds to import, and a run's values can be read without it
    from samplerbench.identity import VERSIONS, package_code

    code = {package: package_code(package) for package in trusted_packages()}
    return {**VERSIONS, **code, "python": platform.python_version()}


def tell(directory: Path, state: State, message: str = "") -> None:
    """Write down what has become of the run; unless it is running, its folder is free again."""
    here = {**signature(directory), "slurm": _slurm()}
    _write(directory / STATUS, {"state": state, "message": message, **here})
    if state != "running":
        release(directory)


def open_run(directory: Path) -> StoredRun:
    """Read a run's folder.

    Raises:
        InvalidSetting: it holds no run, or one that cannot be read.
    """
    path = directory / CONFIG
    if not path.is_file():
        allowed = "a folder that a job of samplerbench made, with its config.yaml"
        raise InvalidSetting("run", directory, allowed)
    try:
        config = _read_config(path)
        if not (directory / STATUS).exists():  # the last of the three that a run begins with
            return StoredRun(
                directory, config, {}, [], {}, 0, "", "interrupted", "ended as it began"
            )
        about = _about(directory / ABOUT)
        state, message = _state(directory / STATUS)
        return StoredRun(directory, config, *about, state, message)
    except Exception as error:  # whatever somebody else's file holds
        allowed = f"a whole run of this version ({kind_and_line(error)})"
        raise InvalidSetting("run", directory, allowed) from error


def _read_config(path: Path) -> DictConfig:
    """A stored config, which is all values.

    Raises:
        ValueError: it is no mapping, or holds an interpolation, or an alias, by which few lines can
            become a config of any size.
    """
    text = path.read_text(encoding="utf-8")
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent) or "${" in getattr(event, "value", ""):
            line = event.start_mark.line + 1
            raise ValueError(f"{path.name}, line {line}: it is to hold values only")
    config = OmegaConf.load(StringIO(text))
    if not isinstance(config, DictConfig):
        raise ValueError(f"{path.name} is no mapping")
    return config


def find_runs(directory: Path) -> list[Path]:
    """The folder itself, or the folders of runs below it, in order of their names.

    Raises:
        InvalidSetting: there is no such folder, or no run in it.
    """
    found = sorted(path.parent for path in directory.rglob(CONFIG))
    if not found:
        allowed = "a folder that a job of samplerbench made, or one that holds such folders"
        raise InvalidSetting("run", directory, allowed)
    return found


def why_refused(run: StoredRun) -> str:
    """Why the command of a run does not go on in its folder; empty where it does."""
    if run.state == "running":
        return "it still runs"
    return _unlike(run.versions)


def words_of(directory: Path) -> list[str] | None:
    """The words of a run's command, without opening it; None where they cannot be read."""
    try:
        return _about(directory / ABOUT)[1]
    except Exception:  # whatever the file holds
        return None


def _refuse(directory: Path, reason: str) -> NoReturn:
    allowed = f"a folder that holds no run, or this one, ended ({reason}); what is there is kept"
    raise InvalidSetting("hydra.run.dir", directory, allowed)


def _why_not_on(directory: Path, locked: bool | None) -> str:
    """Why the same run cannot go on in its folder; what cannot be read there is set aside.

    Args:
        directory: of the run.
        locked: whether its lock is ours; None where there are no locks.
    """
    about = _readable(directory / ABOUT, _about)
    status = _readable(directory / STATUS, _status)
    if status is not None and status["state"] == "running":
        # the lock that it had is ours now: it has ended
        ended = (locked and status.get("lock")) or is_gone(directory, status)
        who = f"process {status['process']} on {status['host']}"
        if not ended:
            return f"it still runs, says {STATUS}: {who}; delete that file if it does not"
    return _unlike(about[2] if about is not None else {})


def _unlike(before: Mapping[str, str]) -> str:
    """What is of another version than before; empty where nothing is, or nothing is known."""
    if before in ({}, versions()):
        return ""
    now = versions()
    changed = sorted(name for name in {**now, **before} if now.get(name) != before.get(name))
    told = ", ".join(f"{name} {before.get(name)}, now {now.get(name)}" for name in changed)
    return f"it is of other versions: {told}; take another folder"


T = TypeVar("T")


def _readable(path: Path, read: Callable[[Path], T]) -> T | None:
    """What a file of a run's holds; None where it is not there, or now set aside."""
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever it holds
        set_aside(path, error)
        return None


def _about(path: Path) -> tuple[dict[str, Any], list[str], dict[str, str], int, str]:
    """Choices, overrides, versions, the number of values and the identity of the sweep."""
    about = json.loads(path.read_bytes())
    return (
        dict(about["choices"]),
        list(about["overrides"]),
        dict(about["versions"]),
        int(about["values"]),
        str(about.get("sweep_id", "")),
    )


def _status(path: Path) -> dict[str, Any]:
    status = dict(json.loads(path.read_bytes()))
    if status["state"] not in get_args(State):
        raise ValueError(f"{status['state']} is no state of a run")
    if not isinstance(status["host"], str) or not isinstance(status["process"], int):
        raise ValueError("it does not say whose it is")
    return status


def _state(path: Path) -> tuple[State, str]:
    status = _status(path)
    if status["state"] == "running" and is_gone(path.parent, status):
        return "interrupted", "its process is gone"
    return status["state"], str(status["message"])


def _slurm() -> list[str] | None:
    """Slurm's number of this job, which stays when it is requeued, and how often it was."""
    job = os.environ.get("SLURM_JOB_ID")
    return [job, os.environ.get("SLURM_RESTART_COUNT", "0")] if job else None


def _requeued(directory: Path) -> bool:
    """Whether the folder is this very job's, which Slurm began and now begins again."""
    here = _slurm()
    try:
        before = json.loads((directory / STATUS).read_bytes())["slurm"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if here is None or not isinstance(before, list) or len(before) != 2:
        return False
    return bool(before[0] == here[0] and before[1] != here[1])


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False).encode())

"""`samplerbench` without the name of a command: Hydra runs one job, or several with `-m`.

Bad input ends with one line on standard error and status 2, before any work; `debug=true` shows the
traceback. torch is imported after the config is composed and its numbers are checked, so most
errors are reported at once.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import traceback
from contextlib import suppress
from functools import cache
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, read_write
from omegaconf.errors import OmegaConfBaseException

from samplerbench.app.commands.complaints import (
    complain,
    misplaced,
    no_text,
    not_understood,
    raised_by_hydra,
    subdirs,
    without_trace,
)
from samplerbench.app.config.compose import (
    check_choices,
    missing_key,
    require_different_jobs,
    value_not_a_name,
)
from samplerbench.app.config.construct import trusting
from samplerbench.app.config.folders import conf_directory, require_own_names
from samplerbench.app.config.numbers import check_numbers
from samplerbench.app.folder.claim import own_folder, why_refused
from samplerbench.app.folder.plan import PLAN, read_plan
from samplerbench.app.folder.runs import STATUS, open_run
from samplerbench.app.terminal import replace_unencodable
from samplerbench.errors import InvalidSetting, RunFailed, kind_and_line
from samplerbench.memory import first_import

#: The largest number of failed jobs that are named at the end of a multirun.
MOST_NAMED = 10


@hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="config")
def _job(config: DictConfig) -> float | None:
    replace_unencodable()  # again: a launcher may have started another process
    try:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            _settle(config)
            if current_process().name.startswith("LokyProcess"):  # a worker of joblib
                _end_with_launcher()
        sources = HydraConfig.get().runtime.config_sources
        require_own_names(Path(source.path) for source in sources if source.schema == "file")
        with trusting(config.trusted):
            if HydraConfig.get().mode == RunMode.RUN:  # a multirun's job writes a status first
                check_numbers(config)
            with first_import("torch"):
                from samplerbench.app.job.run import run

            value = run(config)
    except Exception as error:
        expected = isinstance(error, InvalidSetting | OmegaConfBaseException | RunFailed)
        alone = HydraConfig.get().mode == RunMode.RUN
        if config.get("debug") or (alone and not expected):
            raise
        status = 2 if expected and not isinstance(error, RunFailed) else 1
        if alone:
            sys.exit(complain(str(error), status))
        if not expected:  # the traceback goes into the log of the job
            traceback.print_exc()
        hydra = HydraConfig.get()
        folders = hydra.runtime.output_dir, os.path.abspath(hydra.sweep.dir)
        raise JobFailed(_with_job(error), status, *folders) from None
    finally:
        if HydraConfig.get().mode == RunMode.RUN:
            _remove_empty(Path(HydraConfig.get().runtime.output_dir))
    return value


def _remove_empty(directory: Path) -> None:
    """Remove the empty folder that Hydra made for a refused job, and its empty parents."""
    here = Path.cwd()
    for folder in (directory, *directory.parents):
        if here not in folder.parents:
            return
        try:
            folder.rmdir()
        except OSError:  # it has files
            return


def _settle(config: DictConfig) -> None:
    """Use the folder that contains this job: its number in the multirun may have changed."""
    hydra = HydraConfig.get()
    params = hydra.sweeper.get("params") or {}  # `main` has checked the other words
    require_different_jobs(f"{key}={value}" for key, value in params.items())
    multirun = Path(os.path.abspath(os.path.join(hydra.runtime.cwd, hydra.sweep.dir)))
    directory = Path(os.path.abspath(hydra.runtime.output_dir))
    if multirun not in directory.parents:
        raise _outside(hydra.sweep.subdir)
    with suppress(OmegaConfBaseException):  # a config that cannot be resolved is refused later
        own = own_folder(directory, multirun, config)
        if own != directory:
            own.mkdir(exist_ok=True)
            with suppress(OSError):  # Hydra created it; it stays if it has files of another job
                directory.rmdir()
            whole: Any = HydraConfig.instance().cfg
            with read_write(whole.hydra):
                whole.hydra.runtime.output_dir = str(own)


@cache  # once per process, which may run several jobs
def _end_with_launcher() -> None:
    """End this process after its parent has ended; joblib's workers would continue."""
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _outside(subdir: str) -> InvalidSetting:
    return InvalidSetting("hydra.sweep.subdir", subdir, "a folder below hydra.sweep.dir")


class JobFailed(RuntimeError):
    """A job of a multirun ended without all its values; Hydra raises it when all jobs have ended.

    Its fields are plain text, which every launcher can send between processes: the message, the
    exit status, and the folders of the job and of its multirun.
    """

    def __init__(self, *fields: Any) -> None:
        super().__init__(*fields)
        self.message, self.status, self.folder, self.multirun = fields

    def __str__(self) -> str:
        return str(self.message)


def _with_job(error: Exception) -> str:
    """The message of an error, with the number of its job in the multirun."""
    hydra = HydraConfig.get()
    return f"job {hydra.job.num} of {hydra.sweep.dir}: {kind_and_line(error)}"


def _other_failures(first: JobFailed) -> list[str]:
    """A line for each other job that failed or was refused; Hydra raises only the first error."""
    folder = Path(first.multirun)
    plan = read_plan(folder / PLAN)
    places = [path.parent.relative_to(folder) for path in folder.rglob(STATUS)]
    lines = []
    for place in sorted(places, key=lambda place: (len(str(place)), str(place))):
        with suppress(InvalidSetting):  # the run cannot be read
            run = open_run(folder / place)
            ended = run.state in ("failed", "interrupted")
            message = run.message if ended else why_refused(run)
            # failures of earlier commands are not reported again
            planned = plan is None or not run.overrides or plan.includes(run.overrides)
            if message and planned and run.directory != Path(first.folder):
                lines.append(f"job {place} of {os.path.relpath(folder)}: {message}")
    more = len(lines) - MOST_NAMED
    if more <= 0:
        return lines
    return [*lines[:MOST_NAMED], f"{more} more jobs failed: `samplerbench report` names all"]


def main(words: list[str]) -> None:
    """Run the job or jobs, and exit with status 2 for bad input, 1 for a failure."""
    wrong = no_text(words) or misplaced(words)
    if wrong:
        sys.exit(complain(wrong))
    for subdir in subdirs(words):  # before Hydra creates it
        if subdir.startswith("/") or ".." in Path(subdir).parts:
            sys.exit(complain(str(_outside(subdir))))
    # Hydra removes a group by ~ on the command line, and by null in a yaml file
    sys.argv[1:] = ["~dataset" if word == "dataset=null" else word for word in words]
    # makes Hydra raise its errors instead of printing several lines and exiting with status 1
    os.environ["HYDRA_FULL_ERROR"] = "1"
    debug = any(re.fullmatch(r"\+*debug=(true|1|yes|on)", word, re.I) for word in words)
    try:
        if any(word in ("-m", "--multirun", "hydra.mode=MULTIRUN") for word in words):
            require_different_jobs(words)
        check_choices(words)
        _job()
    except OverrideParseException as error:
        if debug:
            raise
        sys.exit(complain(not_understood(str(error.override), str(error))))
    except (InvalidSetting, HydraException, OmegaConfBaseException) as error:
        if debug:
            raise
        reason = missing_key(error, words) if isinstance(error, HydraException) else None
        sys.exit(complain(str(reason or error)))
    except JobFailed as error:
        for line in [str(error), *_other_failures(error)]:
            complain(line)
        sys.exit(error.status)
    except RuntimeError as error:
        # from a launcher: a job was killed or could not start
        if debug or not raised_by_hydra(error):
            raise
        sys.exit(complain(without_trace(str(error)), 1))
    except BrokenPipeError:  # see `main.entry`
        raise
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        # from Hydra's own code: a folder that it cannot create, an unknown member of a group, an
        # invalid yaml file
        if debug or not raised_by_hydra(error):
            raise
        sys.exit(complain(str(value_not_a_name(words) or error)))
    except KeyboardInterrupt:
        print("samplerbench: interrupted; finished results are kept", file=sys.stderr)
        sys.exit(130)

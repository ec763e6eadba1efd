"""The objects of a stored run, built again from its config and its trained weights."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from samplerbench.app.folder.runs import CHECKPOINTS, StoredRun
from samplerbench.app.job.build import Job, build
from samplerbench.errors import InvalidSetting, first_line, kind_and_line
from samplerbench.training.weights import WEIGHTS, load


def rebuild(run: StoredRun, **changes: Any) -> Job:
    """The job of a run, its learned denoiser with the trained weights.

    Args:
        run: as `open_run` returns it.
        changes: top-level keys of the config to change before, such as device="cuda".

    Raises:
        InvalidSetting: an object cannot be built here, or there are no weights.
    """
    config = OmegaConf.merge(run.config, changes)
    assert isinstance(config, DictConfig)
    # only a job that runs opens a log, and the log's package may be missing here
    config.logger = {"_target_": "samplerbench.logs.base.NoLogger"}
    config.cache = "off"
    try:
        job = build(config, run.choices, run.name)
    except OmegaConfBaseException as error:  # the run's version did not have one of the keys
        allowed = f"a whole run of this version ({first_line(error)})"
        raise InvalidSetting("run", run.directory, allowed) from error
    if job.training is not None:
        model = job.training.objective.model
        path = run.directory / CHECKPOINTS / WEIGHTS
        try:
            load(model, path)
        except Exception as error:  # the file may hold anything
            allowed = f"one with the weights of its own network ({kind_and_line(error)})"
            raise InvalidSetting("run", path, allowed) from error
        model.to(job.sweep.device)
    return job

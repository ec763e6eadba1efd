"""Build the objects of a stored run again, from its config and its trained weights."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from samplerbench.app.folder.runs import COMPLETE, StoredRun, weights_folder
from samplerbench.app.job.build import Job, build, with_sweep
from samplerbench.app.job.denoisers import GRIDS, altered_origin
from samplerbench.bench.best_grids import CHOICES, read, with_best
from samplerbench.bench.cell import Origin
from samplerbench.bench.designing import DESIGNS, DesignedGrid, designed, from_json, with_designs
from samplerbench.bench.fitting import TABLE, fitted, with_table
from samplerbench.bench.sweep import Sweep
from samplerbench.core.fitted_grids import FittedGrid
from samplerbench.errors import InvalidSetting, first_line, refusing
from samplerbench.identity import identity_of_model
from samplerbench.training.weights import WEIGHTS, load, training_of


def rebuild(run: StoredRun, **changes: Any) -> Job:
    """The job of a run, with the trained weights in its learned denoisers.

    If code or data have changed since a training, a denoiser keeps the identity of the training
    that made its weights.

    Args:
        run: a result of `open_run`.
        changes: top-level keys of the config to change first, such as device="cuda".
    """
    config = OmegaConf.merge(run.config, changes)
    assert isinstance(config, DictConfig)
    # only a running job opens a log, and the package of the log may be missing here
    config.logger = {"_target_": "samplerbench.logs.base.NoLogger"}
    config.cache = "off"
    given = config.get("weights") is not None
    config.weights = None  # the run has a copy
    try:
        job = build(config, run.choices, run.name)
    except OmegaConfBaseException as error:  # the run's version did not have one of the keys
        reason = f"{COMPLETE} ({first_line(error)})"
        raise InvalidSetting("run", run.directory, reason) from error
    if job.trainings:
        job = _with_weights(run, job, given)
    if isinstance(job.sweep.grid, FittedGrid):
        job = with_sweep(job, _with_grid(run, job.sweep))
    if isinstance(job.sweep.grid, DesignedGrid):
        return with_sweep(job, _with_designs(run, job.sweep))
    return with_sweep(job, _with_choices(run, job.sweep)) if job.grids else job


def _with_weights(run: StoredRun, job: Job, given: bool) -> Job:
    """The job with the weights of the run and the identities of the trainings that made them.

    Args:
        given: whether the weights of the learned denoiser were read from a file, not trained.
    """
    made_by = {}
    for name, training in job.trainings.items():
        model, path = training.objective.model, run.directory / weights_folder(name) / WEIGHTS
        with refusing("run", path, "one with the weights of its own network"):
            load(model, path)
        model.to(job.sweep.device)
        found = ("" if given and name == "learned" else training_of(path)) or identity_of_model(
            model
        )
        same = found == training.id
        made_by[name] = (training.id, training.recipe) if same else (found, found)
    if all(ids[0] == job.trainings[name].id for name, ids in made_by.items()):
        return job
    origins = dict(job.sweep.origins)
    for name, origin in origins.items():
        if origin.kind == "learned":
            origins[name] = Origin(origin.kind, *made_by["learned"])
        elif origin.kind in GRIDS and job.config.get("altered") == "learned":
            score = job.sweep.denoisers[name]
            origins[name] = altered_origin(origin.kind, score, made_by)
    return with_sweep(job, replace(job.sweep, origins=origins))


def _with_choices(run: StoredRun, sweep: Sweep) -> Sweep:
    """The sweep with the grids that were chosen in the run."""
    path = run.directory / CHOICES
    with refusing("run", path, "one with the choices of its grids"):
        return with_best(sweep, read(path.read_bytes()))


def _with_designs(run: StoredRun, sweep: Sweep) -> Sweep:
    """The sweep with the levels that were designed in the run, or new ones if it has none."""
    path = run.directory / DESIGNS
    if not path.exists():
        return designed(sweep)[0]
    with refusing("run", path, "one with the designs of its own grids"):
        return with_designs(sweep, list(map(from_json, json.loads(path.read_bytes()))))


def _with_grid(run: StoredRun, sweep: Sweep) -> Sweep:
    """The sweep with the grid that was fitted in the run, or a new fit in a run without one."""
    path = run.directory / TABLE
    if not path.exists():
        return fitted(sweep)[0]
    with refusing("run", path, "one with the table of its own grid"):
        return with_table(sweep, path.read_bytes())

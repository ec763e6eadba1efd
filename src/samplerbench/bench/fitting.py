"""The grid of a sweep, fitted to one of its denoisers once the denoiser exists.

A fit has an identity: recipe, path, law, denoiser, and the software and the machine that determine
its bits. This process remembers its fits, and a cache keeps them for other processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import torch

from samplerbench.bench.cell import Origin
from samplerbench.core.fitted_grids import TABLES, Fitted, FittedGrid, Fitting, from_bytes, to_bytes
from samplerbench.core.grids import Grid
from samplerbench.core.models import Denoiser, Score
from samplerbench.datasets.gaussian_spectrum import gaussian_twin
from samplerbench.errors import (
    InvalidSetting,
    RunFailed,
    kind_and_line,
    require,
    require_compatible,
)
from samplerbench.identity import arithmetic, identity

if TYPE_CHECKING:
    from samplerbench.bench.sweep import Sweep

#: The name of the exact denoiser, which a fit may use although the job does not sample with it.
ORACLE = "oracle"
#: The files of a fit in a cache.
TABLE, COST = "grid.json", "evaluations.txt"


class Archives(Protocol):
    """The part of `cache.Cache` that keeps fits."""

    def recall_archive(
        self, archive_id: str, check: Callable[[Mapping[str, bytes]], None]
    ) -> dict[str, bytes] | None: ...
    def keep_archive(self, archive_id: str, files: Mapping[str, bytes]) -> None: ...


@dataclass(frozen=True)
class Fit:
    """A fit, for the output and `run.json`."""

    grid: str  # the name of the recipe
    denoiser: str  # the name of the model
    evaluations: int  # of the model; a call for n states counts n times
    known: bool  # whether it was computed before
    fit_id: str  # identity of everything that determines the table
    table: bytes  # the content of its file

    @property
    def line(self) -> str:
        """The cost in words."""
        cost = f"{self.evaluations:,} evaluations of the {self.denoiser} denoiser"
        return f"grid: {self.grid}, {cost}, {'known' if self.known else 'kept'}"


#: The fits of this process, by their identity.
_KNOWN: dict[str, Fit] = {}


def fitted(
    sweep: Sweep, cache: Archives | None = None, refresh: bool = False
) -> tuple[Sweep, Fit | None]:
    """The sweep with its recipe replaced by the fitted grid, and the fit; None without a recipe.

    A learned denoiser must be trained. `refresh` ignores known fits.

    Raises:
        InvalidSetting: the recipe cannot be fitted here.
        RunFailed: the code of the denoiser or of the recipe raised an error.
    """
    recipe = sweep.grid
    if not isinstance(recipe, FittedGrid):
        return sweep, None
    require_fits(sweep)
    name, model, origin = model_of(sweep, recipe.denoiser)
    fit_id = _identity(sweep, recipe, origin)
    fit = None if refresh else _KNOWN.get(fit_id) or _recalled(fit_id, cache, sweep, name)
    if fit is None:
        fit = _computed(sweep, recipe, name, model, fit_id)
        if cache is not None:
            files = {TABLE: fit.table, COST: str(fit.evaluations).encode()}
            cache.keep_archive(fit_id, files)
    _KNOWN[fit_id] = replace(fit, known=True)
    # a known fit may have had other names
    return with_table(sweep, fit.table), replace(fit, grid=_called(sweep), denoiser=name)


def with_table(sweep: Sweep, table: bytes) -> Sweep:
    """The sweep with its recipe replaced by a table that was fitted before: a file's content."""
    recipe = sweep.grid
    assert isinstance(recipe, FittedGrid)
    origin = model_of(sweep, recipe.denoiser)[2]
    return replace(sweep, grid=Fitted(from_bytes(table), recipe, f"{origin.kind} {origin.recipe}"))


def require_fits(sweep: Sweep) -> None:
    """Refuse a recipe that cannot be fitted to the sweep's denoiser, before any work."""
    recipe = sweep.grid
    if not isinstance(recipe, FittedGrid):
        return
    reason = recipe.why_incompatible(model_of(sweep, recipe.denoiser)[1], sweep.dataset)
    require_compatible(reason, "grid", sweep.labels.grid)


def model_of(
    sweep: Sweep, wanted: str | None, *, only_denoisers: bool = False
) -> tuple[str, Score, Origin]:
    """The name, the model and the origin of the denoiser that a recipe names, or the usual one."""
    models: dict[str, Score] = dict(sweep.denoisers)
    exact = sweep.dataset.exact_score(sweep.schedule) if sweep.dataset.known_law else None
    if exact is not None:
        models.setdefault(ORACLE, exact.to(sweep.device))
    # the usual one is the oracle, or else the first with all levels, or else the first
    able = [name for name, model in models.items() if isinstance(model, Denoiser)]
    if only_denoisers:
        models = {name: models[name] for name in able}
    first = ORACLE if ORACLE in able else next(iter(able or models), "")
    allowed = f"null, or one of {', '.join(models) or 'none here: it needs a denoiser'}"
    name = wanted or first
    require(name in models, "grid.denoiser", wanted, allowed)
    origin = sweep.origin_of(name) if name in sweep.denoisers else Origin(ORACLE)
    return name, models[name], origin


def _identity(sweep: Sweep, recipe: FittedGrid, origin: Origin) -> str:
    return identity(
        {
            "recipe": recipe,
            "path": sweep.schedule,
            "law": sweep.dataset,
            "denoiser": [origin.kind, origin.id, origin.recipe],
            "dtype": str(sweep.dtype),
            "device": sweep.device.type,
            "arithmetic": arithmetic(),
            "threads": torch.get_num_threads(),
            "versions": sweep.versions,
        }
    )


@torch.no_grad()
def _computed(sweep: Sweep, recipe: FittedGrid, name: str, model: Score, fit_id: str) -> Fit:
    assert isinstance(model, Denoiser)  # see require_fits
    law = sweep.dataset
    to = Fitting(model, law, lambda: gaussian_twin(law).variances, sweep.dtype, sweep.device)
    called = _called(sweep)
    try:
        grid: Grid = recipe.fit(to)
    except InvalidSetting as error:
        raise InvalidSetting(f"grid.{error.field}", error.value, error.allowed) from error
    except Exception as error:  # the network or the recipe may be a user's
        raise RunFailed(f"grid={called} cannot be fitted: {kind_and_line(error)}") from error
    allowed = f"a recipe whose fit returns {' or '.join(TABLES)}"
    require(type(grid) in TABLES.values(), "grid", type(grid).__name__, allowed)
    return Fit(called, name, to.evaluations, False, fit_id, to_bytes(grid))


def _called(sweep: Sweep) -> str:
    """The name of the sweep's recipe: that of its yaml, or its class."""
    return sweep.labels.grid or type(sweep.grid).__name__


def _recalled(fit_id: str, cache: Archives | None, sweep: Sweep, name: str) -> Fit | None:
    def check(files: Mapping[str, bytes]) -> None:
        from_bytes(files[TABLE])
        int(files[COST])

    files = None if cache is None else cache.recall_archive(fit_id, check)
    if files is None:
        return None
    return Fit(sweep.labels.grid, name, int(files[COST]), True, fit_id, files[TABLE])

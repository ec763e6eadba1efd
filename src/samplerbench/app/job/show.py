"""Print, draw and log the results of a job.

The cache keeps figures beside the values, so matplotlib is imported only to draw a new figure.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console

from samplerbench.app.job.build import Job
from samplerbench.app.job.console import (
    print_beyond,
    print_budget,
    print_cells,
    print_chains,
    print_claims,
    print_failures,
    print_paired,
    print_score_errors,
)
from samplerbench.app.job.scenes import scene_description
from samplerbench.app.terminal import shown
from samplerbench.bench.budget.parts import parts
from samplerbench.bench.budget.run import Budget
from samplerbench.bench.budget.words import verdict
from samplerbench.bench.cell import sampler_name, sampler_names
from samplerbench.bench.scene import Scene
from samplerbench.bench.score_error import COLUMNS, score_errors
from samplerbench.bench.statistics import CHAIN, at_equal_cost, complete, summary, varied_setting
from samplerbench.bench.store import table_digest, to_data
from samplerbench.errors import kind_and_line
from samplerbench.figures.common import repetitions, sizes
from samplerbench.files import write_atomically
from samplerbench.identity import describe, drawing_versions, identity, settings_text
from samplerbench.logs.base import Log
from samplerbench.metrics.base import exact_names

if TYPE_CHECKING:
    from samplerbench.figures.base import Drawings, Picture

SCORE_ERRORS = "score_errors.csv"


@dataclass(frozen=True, eq=False)
class Showing:
    """Prints, draws and logs the results of a job."""

    job: Job
    directory: Path  # of the run; figures and tables are written there
    log: Log
    out: Console  # the console

    def score_errors(self) -> None:
        """The errors of the scores, if the exact one is known."""
        sweep = self.job.sweep
        oracle = sweep.dataset.oracle(sweep.schedule) if sweep.dataset.known_law else None
        if oracle is None:
            return
        exact = oracle.to(sweep.device)
        rows = [row for row in sweep.levels(max(sweep.all_steps)).rows if row.sigma > 0]
        chosen = sorted({round(k * (len(rows) - 1) / 4) for k in range(5)}) if rows else []
        path = self.directory / SCORE_ERRORS
        # a guided score is not meant to be the exact one
        kinds = {name: origin.kind for name, origin in sweep.origins.items()}
        guided = ("guided", "autoguided")
        measured = [name for name in sweep.denoisers if kinds.get(name) not in guided]

        def make() -> list[Path]:
            errors = score_errors(
                {name: sweep.denoisers[name] for name in measured},
                exact,
                sweep.dataset,
                [rows[k] for k in chosen],
                count=sweep.n_samples,
                repetitions=sweep.repetitions,
                seed=sweep.seed,
                device=sweep.device,
            )
            write_atomically(path, errors.to_csv(index=False).encode())
            return [path]

        points = {"n": sweep.n_samples, "repetitions": sweep.repetitions}
        inputs = {"score_errors": points, "scene": scene_description(sweep)}
        self._cached_files(inputs, make, check_score_errors)
        errors = read_score_errors(path.read_bytes())
        print_score_errors(self.out, errors)
        self.log.table("score_errors", errors)

    def results(self, table: pd.DataFrame) -> None:
        """Print the table of all values and the conclusions from it; draw and log its figures."""
        sweep = self.job.sweep
        shown_cells, unit = to_data(table), "N"
        beyond = pd.DataFrame()
        if sweep.nfe:  # samplers at equal cost, not at equal steps
            unit = "NFE"
            shown_cells, beyond = at_equal_cost(shown_cells, sweep.nfe)
        view = self.job.floor_free
        metrics = sweep.metrics if view is None else {**sweep.metrics, **view.metrics}
        law = sweep.law
        print_cells(self.out, shown_cells, unit, law.known_law, metrics, exact_names(metrics, law))
        print_beyond(self.out, beyond)
        if view is not None:
            print_paired(self.out, view.pairs(table), view.converged_steps, "N")
            for line in view.absent:
                self.out.print(line)
        chains = table[table["reference"] == CHAIN]
        print_chains(self.out, chains)
        chained = any(one.holds and not one.anneals for _, one in sweep.samplers)
        if self.job.chains == 0 and chained:
            text = "chains were not examined for mixing: chains=20 examines 20 of each sampler"
            self.out.print(text)
        print_failures(self.out, table)
        print_claims(self.out, shown_cells, self.job.wanted, metrics, unit, chains, data=law)
        self.log.table("cells", table.drop(columns=["metric_settings"]))
        if self.job.budget is not None:
            self._budget(self.job.budget, table)
        sampled = to_data(table)
        sampled = sampled[sampled["denoiser"] != "law"]
        ok, whole = sampled[sampled["status"] == "ok"], complete(sampled)
        for metric in sweep.metrics:
            rows = ok[ok["metric"] == metric]
            if rows["steps"].nunique() > 1:  # one point is not a curve
                if self.job.look.format:
                    self._distance(table, metric, "nfe" if sweep.nfe else "steps")
                    if (rows["rounds"] != rows["nfe"]).any():
                        self._distance(table, metric, "rounds")
                # only complete cells: a mean of the surviving repetitions is not their distance
                lines = summary(whole[whole["metric"] == metric])
                lines = lines.assign(name=sampler_names(lines))
                by = ["denoiser", "start", "name"]
                self.log.curves(metric, lines, ["nfe", "rounds", "steps"], "mean", by)
            elif len(rows) > 0:
                self._setting(table, metric)

    def pictures(self, view: Scene) -> list[str]:
        """Draw the chosen pictures of the trained model; return a line for each that failed.

        Names of files begin with the picture's name, which is unique in the job.
        """
        failed = []
        for name, picture in self.job.pictures.items():
            try:
                for path in self._picture(name, picture, view):
                    self._figure(f"{name}/{path.stem}", path)
            except OSError:  # for example a full disk; the job stops
                raise
            except Exception as error:  # for example too large for the memory
                if self.job.config.get("debug"):
                    raise
                failed.append(f"picture={name}: not drawn: {kind_and_line(error)}; see debug=true")
                self.out.print(failed[-1])
        return failed

    def _picture(self, name: str, picture: Picture, view: Scene) -> list[Path]:
        def draw() -> Drawings:
            return {
                stem if f"{stem}_".startswith(f"{name}_") else f"{name}_{stem}": drawn
                for stem, drawn in picture.draw(view).items()
            }

        if not type(picture).__module__.startswith(f"{__package__.partition('.')[0]}."):
            return self._draw(draw)  # pictures of trusted packages may depend on anything
        seen = scene_description(self.job.sweep)
        return self._drawn({"picture": describe(picture), "name": name, "scene": seen}, draw)

    def _distance(self, table: pd.DataFrame, metric: str, x: str) -> None:
        """The figure of a metric against steps, evaluations at equal cost, or their rounds."""
        samplers, view = self.job.sweep.samplers, self.job.floor_free
        name = f"{metric}_rounds" if x == "rounds" else metric
        with_view = view is not None and view.row_count() > 0 and metric == view.metric_above

        def draw() -> Drawings:
            from samplerbench.figures.distance_families import MOST_CURVES, distance_figure, family
            from samplerbench.figures.floor_free import with_floor_free

            families = {sampler_name(n, settings_text(s)): family(s) for n, s in samplers}
            if view is not None and with_view and len(families) <= MOST_CURVES:
                return {f"distance_{name}": with_floor_free(table, metric, x, view)}
            return {f"distance_{name}": distance_figure(to_data(table), metric, x, families)}

        inputs = {"distance": metric, "x": x, "view": with_view, "table": table_digest(table)}
        for path in self._drawn(inputs, draw):
            self._figure(f"distance/{name}", path)

    def _setting(self, table: pd.DataFrame, metric: str) -> None:
        """The figure of a metric against a setting of the sampler, if exactly one varies."""
        values = to_data(table)
        values = values[values["metric"] == metric]
        setting = varied_setting(values)
        if setting is None:
            return

        def draw() -> Drawings:
            from samplerbench.figures.setting import setting_figure

            return {f"setting_{metric}": setting_figure(values, metric, setting)}

        inputs = {"setting": setting, "metric": metric, "table": table_digest(table)}
        for path in self._drawn(inputs, draw):
            self._figure(f"setting/{metric}", path)

    def _budget(self, budget: Budget, table: pd.DataFrame) -> None:
        """Print the budget as a table and in words, and draw its figures, for every metric."""
        lines = parts(table, budget.converged_steps)
        print_budget(self.out, lines)
        for line in verdict(budget, table):
            self.out.print(line)
        self.out.print()
        write_atomically(self.directory / "budget.csv", lines.to_csv(index=False).encode())
        self.log.table("budget", lines)
        sweep = budget.sweep
        counts = repetitions(lines.loc[lines["part"] != "floor", "count"])

        def caption(metric: str) -> str:
            size = sizes([metric], [sweep.n_samples], metric in sweep.exact_metrics)
            if metric in sweep.exact_metrics:
                return f"{sweep.labels.dataset}, {size}"
            text = f"{sweep.labels.dataset}, {size}, {counts}"
            return f"{text}; bars: 95 % intervals of the mean"

        settings = {"steps": budget.converged_steps, "nfe": list(sweep.nfe)}

        def draw(metric: str) -> Drawings:
            from samplerbench.figures.budget import waterfall
            from samplerbench.figures.paired_error import paired_error_against_nfe, paired_errors

            figures = {}
            if not sweep.nfe:  # at equal cost the samplers have different numbers of steps
                figures[f"budget_{metric}"] = waterfall(lines, metric, caption(metric))
            if paired_errors(table, metric)["nfe"].nunique() > 1:
                figures[f"paired_error_{metric}"] = paired_error_against_nfe(table, metric)
            return figures

        for metric in dict.fromkeys(lines["metric"]):
            inputs = {"budget": metric, **settings, "caption": caption(metric)}
            inputs["table"] = table_digest(table)
            for path in self._drawn(inputs, partial(draw, metric)):
                self._figure(f"{path.stem.removesuffix(f'_{metric}')}/{metric}", path)

    def _figure(self, name: str, path: Path) -> None:
        """Log a figure and print its path."""
        if path.suffix in (".png", ".gif"):  # logs cannot show vector formats
            self.log.figure(name, path)
        self.out.print(f"figure: {shown(path)}")

    def _draw(self, draw: Callable[[], Drawings]) -> list[Path]:
        from samplerbench.figures.base import write

        return write(draw(), self.directory)

    def _drawn(self, inputs: object, draw: Callable[[], Drawings]) -> list[Path]:
        """The files of figures and animations, from the cache or drawn now."""
        return self._cached_files(inputs, lambda: self._draw(draw), check_figures)

    def _cached_files(
        self,
        inputs: object,
        make: Callable[[], Iterable[Path]],
        check: Callable[[Mapping[str, bytes]], None],
    ) -> list[Path]:
        """Files in the folder of the run: from the job's cache, or made now and stored there.

        `inputs` and the software determine them. `check` raises an error for files of another kind.
        """
        cache = self.job.cache
        if cache is None:
            return list(make())
        look, versions = asdict(self.job.look), dict(self.job.sweep.versions)
        archive = identity([inputs, look, versions, drawing_versions()])
        known = cache.recall_archive(archive, check)
        if known is None:
            paths = list(make())
            cache.keep_archive(archive, {path.name: path.read_bytes() for path in paths})
            return paths
        for name, content in known.items():
            write_atomically(self.directory / name, content, durable=False)  # also in the cache
        return [self.directory / name for name in known]


def check_figures(files: Mapping[str, bytes]) -> None:
    """Refuse files that are not figures or animations."""
    for name in files:
        if not re.fullmatch(r"[\w-][\w.+-]{0,150}\.(png|gif|pdf|svg)", name, re.ASCII):
            raise ValueError(f"it contains {name[:50]!r}, which is not a figure")


def check_score_errors(files: Mapping[str, bytes]) -> None:
    """Refuse all files except the table of score errors."""
    if list(files) != [SCORE_ERRORS]:
        raise ValueError(f"it contains other files than {SCORE_ERRORS}")
    read_score_errors(files[SCORE_ERRORS])


def read_score_errors(content: bytes) -> pd.DataFrame:
    """The errors of scores, from the content of a file; ValueError if it has none."""
    errors = pd.read_csv(io.BytesIO(content), float_precision="round_trip")
    if tuple(errors.columns) != COLUMNS:
        raise ValueError(f"it has other columns than {', '.join(COLUMNS)}")
    return errors

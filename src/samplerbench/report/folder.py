"""The folder of a report: the page, tables, values and figures.

    report.html        the page, which contains plotly and needs no network
    cells.csv          every value, one row each
    differences.csv    of two runs, with --compare
    reach.csv          the evaluations for a distance, with reach=…
    table.md, .tex     means and intervals, for a README and for a paper
    figures/           with figures=…

The files are written into a temporary folder, which is renamed when it is complete.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from pyarrow import Table
from pyarrow.csv import write_csv

from samplerbench.errors import InvalidSetting
from samplerbench.files import temporary_name, write_atomically
from samplerbench.report.content import Report
from samplerbench.report.page import render
from samplerbench.report.tables import latex, markdown


def write_report(report: Report, directory: Path, figures: Sequence[str] = ()) -> None:
    """Write the folder, complete or not at all."""
    allowed = "a new folder: nothing is overwritten"
    if directory.exists() or directory.is_symlink():
        raise InvalidSetting("out", directory, allowed)
    temporary = temporary_name(directory)
    try:
        temporary.mkdir(parents=True)
        _write_tables(report, temporary)
        if figures:
            # matplotlib is slow to import
            from samplerbench.report.figures import write_figures

            (temporary / "figures").mkdir()
            write_figures(report, temporary / "figures", figures)
        _write(temporary / "report.html", render(report))
        temporary.rename(directory)
    except OSError as error:
        raise InvalidSetting("out", directory, f"a place to write to ({error.strerror})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    # the name of a run's folder may contain bytes that are not valid text
    write_atomically(path, text.encode(errors="replace"))


def _write_tables(report: Report, directory: Path) -> None:
    # pandas takes seven times as long; the name of a folder may contain bytes that are not text
    runs = report.values["run"].map(lambda name: name.encode(errors="replace").decode())
    values = Table.from_pandas(report.values.assign(run=runs), preserve_index=False)
    write_csv(values, directory / "cells.csv")
    if report.comparison is not None:
        _write(directory / "differences.csv", report.comparison.lines.to_csv(index=False))
    if not report.reached.empty:
        _write(directory / "reach.csv", report.reached.to_csv(index=False))
    _write(directory / "table.md", markdown(report))
    _write(directory / "table.tex", latex(report))

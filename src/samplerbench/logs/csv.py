"""A log as CSV files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from samplerbench.logs.base import Log, Logger, RunInfo, keep_earlier_log

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Csv(Logger):
    """CSV files: csv/losses.csv, and csv/KEY.csv for a table."""

    def open(self, run: RunInfo) -> Log:
        return CsvLog(run)


class CsvLog(Log):
    """A folder of CSV files; figures, files and curves are in the run's folder anyway."""

    def __init__(self, run: RunInfo) -> None:
        self._folder = run.directory / "csv"
        keep_earlier_log(self._folder)
        self._folder.mkdir(parents=True)

    @property
    def where(self) -> str:
        return str(self._folder)

    def _loss(self, step: int, name: str, loss: float) -> None:
        path = self._folder / "losses.csv"
        header = "" if path.exists() else "step,name,loss\n"
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{header}{step},{name},{loss!r}\n")

    def table(self, key: str, frame: pd.DataFrame) -> None:
        frame.to_csv(self._folder / f"{key}.csv", index=False)

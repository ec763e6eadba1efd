"""A log as TensorBoard event files. TensorBoard is an extra: samplerbench[tensorboard]."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from samplerbench.errors import require
from samplerbench.logs.base import Log, Logger, RunInfo, curve_points, keep_earlier_log

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TensorBoard(Logger):
    """TensorBoard event files in tensorboard/."""

    def __post_init__(self) -> None:
        allowed = "installed: pip install 'samplerbench[tensorboard]'"
        require(find_spec("tensorboard") is not None, "tensorboard", "missing", allowed)

    def open(self, run: RunInfo) -> Log:
        return TensorBoardLog(run)


class TensorBoardLog(Log):
    """One folder of event files; the x of a curve is its global step, rounded."""

    def __init__(self, run: RunInfo) -> None:
        from torch.utils.tensorboard import SummaryWriter  # an extra, and slow to import

        self._folder = run.directory / "tensorboard"
        keep_earlier_log(self._folder)
        self._writer = SummaryWriter(str(self._folder))
        self._writer.add_text("config", f"```\n{json.dumps(run.config, indent=1)}\n```")

    @property
    def where(self) -> str:
        return str(self._folder)

    def _loss(self, step: int, name: str, loss: float) -> None:
        self._writer.add_scalar(f"{name}/loss", loss, global_step=step)

    def table(self, key: str, frame: pd.DataFrame) -> None:
        self._writer.add_text(key, _markdown(frame))

    def figure(self, key: str, png: Path) -> None:
        from matplotlib.image import imread

        self._writer.add_image(key, imread(png), dataformats="HWC")

    def curves(
        self, key: str, frame: pd.DataFrame, x: Sequence[str], y: str, by: Sequence[str]
    ) -> None:
        for point, values in curve_points(key, frame, x, y, by).items():
            for curve, value in values.items():
                self._writer.add_scalar(curve, value, global_step=round(point[0]))

    def close(self, failed: bool) -> None:
        self._writer.close()


def _markdown(frame: pd.DataFrame) -> str:
    """A Markdown table; pandas' own needs one more package."""
    rows = [list(frame.columns), ["---"] * len(frame.columns), *frame.itertuples(index=False)]
    # a bar or a line break would end a cell of the table
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)

"""Select the cells of a report with `where`, in the words of the filter on its page.

`where='objective=edm seed=0,1'` keeps the cells that have, in every named column, one of the listed
values. Tests have Holm's correction over the kept cells. The floor and the limits of an error
budget are kept if a cell of their run is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from samplerbench.bench.cell import SEEDS, setting_text
from samplerbench.bench.store import LIMIT
from samplerbench.errors import InvalidSetting, require, similar

#: Columns that the rows of the floor have too.
_SHARED = ("dataset", "metric", "n_samples")
#: Columns of `bench.cell.Row` that `where` can name.
COLUMNS = (
    *_SHARED,
    *("sampler", "eta", "steps", "nfe", "denoiser", "start", "objective", "network"),
    *("schedule", "target", "grid", "final", *SEEDS),
)
#: The names by which tables and charts can be grouped, and their columns in `cells.cell_lines`.
GROUPS = {"sampler": "name"} | {
    name: name
    for name in ("run", "denoiser", "objective", "network", "schedule", "grid", "dataset")
}


def group_column(name: str) -> str:
    """The column of a group; empty for an empty name."""
    allowed = f"one of {', '.join(GROUPS)}{similar(name, GROUPS)}"
    require(not name or name in GROUPS, "group", name, allowed)
    return GROUPS.get(name, "")


def conditions(where: str) -> dict[str, list[str]]:
    """The values of each column in `where`: "objective=edm seed=0,1"."""
    found: dict[str, list[str]] = {}
    for word in where.split():
        name, equals, text = word.partition("=")
        allowed = "column=value or column=value,value, with spaces between columns"
        require(bool(equals and text), "where", word, allowed)
        known = f"one of the columns {', '.join(COLUMNS)}{similar(name, COLUMNS)}"
        require(name in COLUMNS, "where", name, known)
        require(name not in found, "where", name, "given once, with commas between its values")
        found[name] = text.split(",")
    return found


def chosen(values: pd.DataFrame, where: str) -> pd.DataFrame:
    """The rows that `where` selects from all rows of a report (`entries.all_values`).

    Raises:
        InvalidSetting: a column or value is unknown, or no cell has all values.
    """
    beside = (values["denoiser"] == "law") | values["sampler"].str.endswith(LIMIT)
    keep = pd.Series(True, index=values.index)
    for name, texts in conditions(where).items():
        written = values[name].map(setting_text)
        known = list(dict.fromkeys(written[~beside].loc[lambda text: ~text.isin(["", "nan"])]))
        for text in texts:
            if text not in known:
                raise InvalidSetting(name, text, f"{_listed(known)}{similar(text, known)}")
        fits = written.isin(texts)
        keep &= fits if name in _SHARED else fits | beside
    allowed = "such that some cell has all of these values"
    require(bool((keep & ~beside).any()), "where", where, allowed)
    runs = values.loc[keep & ~beside, "run"].unique()
    return values[keep & values["run"].isin(runs)].reset_index(drop=True)


def _listed(known: Sequence[str]) -> str:
    more = f" and {len(known) - 20} more" if len(known) > 20 else ""
    return f"one of {', '.join(known[:20])}{more}" if known else "left out: no cell has a value"

"""The page of a suite: standings, curves and one view per entrant, in one file without a network.

The page contains all values. Its scripts compute runtimes, shares, ratios and standings for the
problems that a reader chooses, by the definitions of `bench/suite/standing.py`; a test compares the
two. Values have four digits, and more if rounding would move them across a target.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from samplerbench.bench.suite import standing
from samplerbench.bench.suite.results import NOT_RECORDED, RECORDED, with_records
from samplerbench.errors import require
from samplerbench.figures.common import QUANTITIES, UNITS, quantity_title, unit_title
from samplerbench.files import write_atomically
from samplerbench.report.charts import PALETTE
from samplerbench.report.page import filled

#: The name of the page's file.
PAGE = "index.html"
#: The number of digits of an identity on the page; results.parquet has all digits.
IDENTITY = 10
#: The number of entrants whose curves are shown at first.
SHOWN = 12
ENDS = ("lower", "upper")
_TASK = standing.TASK
#: Columns of a value that do not depend on the job that computed it.
_VALUE = [
    *(*_TASK, "entrant", "nfe", "steps", "chosen", "version"),
    *("value", "lower", "upper", "status", "message", "cell_id"),
]
_NEEDED = [*_VALUE, *standing.ABOUT, "unit", "grid", "command"]


def write_suite_page(
    results: pd.DataFrame, folder: Path, targets: Mapping[str, Sequence[float]], size: str = ""
) -> Path:
    """Write the page of a suite; an older page is replaced.

    Args:
        results: one row per value, from `bench.suite.results`.
        folder: the folder of the page; it is created if it does not exist.
        targets: the targets of each quantity.
        size: the version and the size of the suite.

    Returns:
        The path of the page.

    Raises:
        InvalidSetting: a column is missing, there is no value, or a quantity has no targets.
    """
    content = {**page_content(results, targets), "folder": str(folder)}
    problems = sum(len(content["targets"][task["quantity"]]) for task in content["tasks"])
    units = {task["quantity"]: task["unit"] for task in content["tasks"]}
    page = filled(
        "suite.html.jinja",
        content,
        size=size,
        entrants=len(content["entrants"]),
        tasks=len(content["tasks"]),
        problems=problems,
        values=len(content["values"]["task"]),
        quantities=[
            (
                title,
                QUANTITIES.get(name, ("", title))[1],
                UNITS.get(units[name], ("", f"in {units[name]}"))[1],
            )
            for name, title in content["titles"].items()
        ],
        commands=sorted(content["texts"]["command"]),
        budget=standing.BUDGET,
        unsolved=int(standing.UNSOLVED),
        few=standing.FEW,
        identity=IDENTITY,
        folder=content["folder"],
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PAGE
    write_atomically(path, page.encode(errors="replace"))
    return path


def page_content(
    results: pd.DataFrame, targets: Mapping[str, Sequence[float]]
) -> Mapping[str, Any]:
    """The data for the scripts of the page, as values of JSON.

    Columns of text have indices into the lists `texts`. A value that several grid settings share
    occurs once; `links` has its grid settings and commands, and how their jobs ran.
    """
    missing = [name for name in _NEEDED if name not in results]
    require(not missing, "results", f"no column {', '.join(missing)}", "the results of a suite")
    require(len(results) > 0, "results", "no rows", "at least one value")
    known = ", ".join(targets)
    for name in results["quantity"].unique():
        require(name in targets, "quantity", name, f"one with targets: {known}")
    rows = with_records(results)
    rows = rows.sort_values([*_TASK, "entrant", "steps", "nfe", "grid"], ignore_index=True)
    rows["made"] = rows[RECORDED].agg(tuple, axis=1).map(functools.cache(_made))
    tasks = rows[[*_TASK, "unit"]].drop_duplicates(_TASK, ignore_index=True)
    entrants = rows[["entrant", *standing.ABOUT]].drop_duplicates("entrant")
    first = entrants["package"] != "samplerbench"
    entrants = entrants.assign(first=first).sort_values(
        ["first", "package", "entrant"], ignore_index=True
    )
    rows["task"] = rows.groupby(_TASK, sort=False).ngroup()
    rows["entrant"] = rows["entrant"].map({n: k for k, n in enumerate(entrants["entrant"])})
    same = ["task", *_VALUE[len(_TASK) :]]
    rows["link"] = rows.groupby(same, sort=False, dropna=False).ngroup()
    values = rows.drop_duplicates("link")
    texts: dict[str, list[str]] = {}

    def places(table: pd.DataFrame, column: str) -> list[int]:
        codes, different = pd.factorize(table[column].fillna("").astype(str))
        texts[column] = different.tolist()
        return codes.tolist()

    limits = {name: np.array(own, dtype=float) for name, own in targets.items()}
    numbers = values["value"].to_numpy(float)
    short = _short(numbers, 4)
    for name, own in limits.items():
        mine = (values["quantity"] == name).to_numpy()
        short[mine] = _on_its_side(short[mine], numbers[mine], own)
    return {
        "targets": {name: sorted(own.tolist(), reverse=True) for name, own in limits.items()},
        "titles": {str(name): quantity_title(str(name)) for name in tasks["quantity"].unique()},
        "units": {str(unit): unit_title(unit) for unit in tasks["unit"].unique()},
        "constants": {
            "budget": standing.BUDGET,
            "unsolved": standing.UNSOLVED,
            "at": standing.AT,
            "ranked": standing.RANKED,
            "peers": standing.PEERS,
            "draws": standing.DRAWS,
            "ends": [standing.LOW, standing.HIGH],
            "student": standing.STUDENT,
            "shown": SHOWN,
        },
        "palette": PALETTE,
        "tasks": tasks.to_dict("records"),
        "entrants": [
            {
                **one,
                "order": None if np.isnan(one["order"]) else float(one["order"]),
                "noise": bool(one["noise"]),
            }
            for one in entrants.drop(columns="first").to_dict("records")
        ],
        "values": {
            "task": values["task"].tolist(),
            "entrant": values["entrant"].tolist(),
            "nfe": values["nfe"].astype(int).tolist(),
            "steps": values["steps"].astype(int).tolist(),
            **{name: places(values, name) for name in ("chosen", "version", "status", "message")},
            "value": _json(short),
            **{name: _json(_distances(values[name], values["value"])) for name in ENDS},
            "id": values["cell_id"].str[:IDENTITY].tolist(),
        },
        "links": {
            "value": rows["link"].diff().fillna(0).astype(int).tolist(),  # differences are short
            **{name: places(rows, name) for name in ("grid", "command", "made")},
        },
        "texts": texts,
    }


def _made(records: tuple[str, str]) -> str:
    """How a job ran, in words: versions and machines."""
    versions, machines = records
    if NOT_RECORDED in records:
        return f"versions of the software and machine: {NOT_RECORDED}"
    software = ", ".join(f"{name} {number}" for name, number in json.loads(versions).items())
    return f"{software}; {' and '.join(map(_machine, json.loads(machines)))}"


def _machine(one: Mapping[str, Any]) -> str:
    threads = one.get("threads")
    facts = (one.get(name) for name in ("model", "processor", "instructions", "system"))
    return ", ".join([*map(str, filter(None, facts)), f"{threads} thread{'s' * (threads != 1)}"])


def _short(values: NDArray[np.float64], digits: int) -> NDArray[np.float64]:
    """Values rounded to some significant digits."""
    return np.array([float(f"{value:.{digits}g}") for value in values.tolist()])


def _distances(ends: pd.Series, values: pd.Series) -> NDArray[np.float64]:
    """Ends of intervals as distances from the value, in thousandths of the value, with two digits.

    NaN for an exact value. For a value of 0 the unit is one thousandth.
    """
    distances = (ends - values).abs().to_numpy(float)
    scale = values.abs().where(values != 0, 1.0).to_numpy(float)
    return np.where(distances > 0, _short(1000 * distances / scale, 2), np.nan)


def _on_its_side(
    short: NDArray[np.float64], values: NDArray[np.float64], targets: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The short values, but the full value if rounding would move it across a target."""
    moved = ((short[:, None] <= targets) != (values[:, None] <= targets)).any(1)
    return np.where(moved, values, short)


def _json(values: NDArray[np.float64]) -> list[float | int | None]:
    """Finite values; 12.0 as 12."""
    return [
        None if not np.isfinite(value) else int(value) if value.is_integer() else value
        for value in values.tolist()
    ]

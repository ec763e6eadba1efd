"""Runs as a report sees them, and the one table of all their values.

Values of several runs may be compared where they measure the same: metric and its settings, data
set and its settings, n, and what they are measured to. What differs in any of it is another
*measure*, named by what differs, and never shares a chart or a table with the first.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from samplerbench.bench.cell import MEASURE
from samplerbench.bench.store import LIMIT


@dataclass(frozen=True, eq=False)
class Entry:
    """One run, read.

    Args:
        label: short, for legends: "#1".
        name: of its folder.
        state: running, finished, failed, interrupted or unreadable.
        message: why, in one line, unless it finished.
        expected: how many values it is to have; 0 where that is not known.
        values: its rows so far, with the columns of `bench.store.Row`.
        overrides: the words of its command.
        config: the resolved config as plain values; empty where it cannot be read.
        config_text: the same as it is stored.
        versions: of the software.
        problems: what in its folder could not be read, a line each.
        unordered: its metrics of which a smaller value need not be a better one.
    """

    label: str
    name: str
    state: str
    message: str
    expected: int
    values: pd.DataFrame
    overrides: Sequence[str]
    config: Mapping[str, Any]
    config_text: str
    versions: Mapping[str, str]
    problems: Sequence[str]
    unordered: frozenset[str] = frozenset()

    @property
    def told(self) -> str:
        """Its state in words: "running, 412 of 872 values"."""
        of = f" of {self.expected:,}" if self.expected else ""
        text = f"{self.state}, {len(self.values):,}{of} values"
        return f"{text}: {self.message}" if self.message else text

    def without_value(self) -> list[str]:
        """What gave no value, and why: a line for each reason."""
        bad = self.values[self.values["status"] != "ok"]
        return [
            f"{len(rows)} {status}: {next(iter(str(message).splitlines()), '')}"
            for (status, message), rows in bad.groupby(["status", "message"])
        ]


def all_values(entries: Sequence[Entry]) -> pd.DataFrame:
    """The rows of all runs, with `run` their label, and data sets named by what differs."""
    settings: dict[str, dict[str, Any]] = defaultdict(dict)
    for entry in entries:
        for name in entry.values["dataset"].unique():
            settings[name][entry.label] = entry.config.get("dataset")
    names = {
        (label, name): told
        for name, of in settings.items()
        for label, told in zip(of, distinguished(name, list(of.values())), strict=True)
    }
    tables = [
        entry.values.assign(
            run=entry.label,
            dataset=[names[entry.label, name] for name in entry.values["dataset"]],
        )
        for entry in entries
    ]
    filled = [table for table in tables if not table.empty]
    return pd.concat(filled or tables, ignore_index=True)


def to_data(values: pd.DataFrame) -> pd.DataFrame:
    """The distances to data or law, without a budget's helpers, with the column `measure`."""
    limits = values["sampler"].str.endswith(LIMIT)
    rows = values[values["reference"].isin(["data", "law", ""]) & ~limits]
    kinds = rows[MEASURE].drop_duplicates()
    named = []
    for metric, of_metric in kinds.groupby("metric", sort=False):
        records = of_metric.drop(columns="measure_id").to_dict("records")
        records = [r | {"metric_settings": _parsed(r["metric_settings"])} for r in records]
        names = pd.Series(distinguished(str(metric), records), index=of_metric.index)
        # another law under the same name and settings is told by its identity alone
        same = names.duplicated(keep=False)
        names[same] += ", measure " + of_metric.loc[same, "measure_id"].str[:6]
        named.append(of_metric.assign(measure=names))
    if not named:
        return rows.assign(measure="")
    return rows.merge(pd.concat(named), on=MEASURE, how="left")


def distinguished(name: str, settings: Sequence[Any]) -> list[str]:
    """The name for each of several settings, with what tells it from the others: "sliced, p=1"."""
    flat = [_flat(of) for of in settings]
    keys = dict.fromkeys(key for of in flat for key in of)
    differing = [key for key in keys if len({repr(of.get(key)) for of in flat}) > 1]
    return [
        ", ".join([name, *(f"{_SHORT.get(key, key)}={of[key]}" for key in differing if key in of)])
        for of in flat
    ]


_SHORT = {"n_samples": "n", "n_reference": "m"}


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Nested mappings as one, by the last part of their keys."""
    if not isinstance(value, Mapping):
        return {key: value} if key else {}
    return {inner: leaf for k, v in value.items() for inner, leaf in _flat(v, str(k)).items()}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"settings": text}


def warnings(entries: Sequence[Entry], measured: pd.DataFrame) -> list[str]:
    """What a reader has to know before comparing: unlike measures, versions, what was not read."""
    found = [f"{entry.label}: skipped {problem}" for entry in entries for problem in entry.problems]
    names = measured.groupby("metric")["measure"].unique()
    found += [
        f"{metric} is measured in {len(own)} ways that are kept apart: {'; '.join(own)}"
        for metric, own in names.items()
        if len(own) > 1
    ]
    for software in dict.fromkeys(name for entry in entries for name in entry.versions):
        by_version: dict[str, list[str]] = defaultdict(list)
        for entry in entries:
            if software in entry.versions:
                by_version[entry.versions[software]].append(entry.label)
        if len(by_version) > 1:
            told = "; ".join(f"{version} in {few(own)}" for version, own in by_version.items())
            found.append(f"versions of {software} differ: {told}")
    return found


def few(labels: Sequence[str], between: str = ", ", most: int = 6) -> str:
    """The first labels, and how many more there are."""
    more = f" and {len(labels) - most:,} more" if len(labels) > most else ""
    return between.join(labels[:most]) + more

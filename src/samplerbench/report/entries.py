"""The runs of a report, and one table of all their values.

Values of several runs can be compared if they have the same *measure*: the metric and its settings,
the data set and its settings, n, and the reference. Values with different measures never share a
chart or a table, and the names of the measures show the difference.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from samplerbench.bench.cell import MEASURE
from samplerbench.bench.store import LIMIT
from samplerbench.logs.base import run_name


@dataclass(frozen=True, eq=False)
class Entry:
    """One run, as it was read."""

    label: str  # short, for legends: its differences from the other runs, "ncsn · seed=1", or "#1"
    name: str  # the name of its folder
    state: str  # running, finished, failed, interrupted or unreadable
    message: str  # the reason, in one line, unless the run is finished or running
    expected: int  # the number of values of the complete run; 0 if it is not known
    values: pd.DataFrame  # its rows so far, with the columns of `bench.store.Row`
    overrides: Sequence[str]  # the words of its command
    config: Mapping[str, Any]  # the resolved config as plain values; empty if it cannot be read
    config_text: str  # the config as it is stored
    versions: Mapping[str, str]  # of the software
    problems: Sequence[str]  # files of its folder that could not be read, one line each
    unordered: frozenset[str] = frozenset()  # its metrics with `smaller_is_better = False`

    @property
    def summary(self) -> str:
        """Its state in words: "running, 412 of 872 values"."""
        expected = f" of {self.expected:,}" if self.expected else ""
        text = f"{self.state}, {len(self.values):,}{expected} values"
        return f"{text}: {self.message}" if self.message else text

    def without_value(self) -> list[str]:
        """The cells without a value: one line for each reason."""
        bad = self.values[self.values["status"] != "ok"]
        return [
            f"{len(rows)} {status}: {next(iter(str(message).splitlines()), '')}"
            for (status, message), rows in bad.groupby(["status", "message"])
        ]


_BETWEEN = " · "
#: The longest label that fits into a legend.
_LONGEST = 48


def labelled(entries: Sequence[Entry]) -> list[Entry]:
    """The runs with labels that show their differences, in the words of `logs.base.run_name`.

    A run without such words, or with the same words as another run, keeps its label.
    """
    commands = [set(entry.overrides) for entry in entries if entry.config]
    fixed = set.intersection(*commands) if commands else set()
    names = [_run_name(entry, fixed) if entry.config else [] for entry in entries]
    shared = set.intersection(*map(set, filter(None, names))) if any(names) else set()
    own = [_fitting([part for part in name if part not in shared]) for name in names]
    labels = [
        label if label and own.count(label) == 1 else _BETWEEN.join(filter(None, [label, given]))
        for label, given in zip(own, (entry.label for entry in entries), strict=True)
    ]
    return [replace(entry, label=label) for entry, label in zip(entries, labels, strict=True)]


def _fitting(parts: Sequence[str]) -> str:
    """The first parts that fit into a legend, and the number of the others: "ncsn · … 2 more"."""
    for count in range(len(parts), 0, -1):
        more = [f"… {len(parts) - count} more"] * (count < len(parts))
        text = _BETWEEN.join([*parts[:count], *more])
        if len(text) <= _LONGEST:
            return text
    return _BETWEEN.join(parts[:1])[: _LONGEST - 1] + "…" * bool(parts)


def without_sampler(label: str, sampler: str) -> str:
    """The label of a run, without the part that lists its samplers if `sampler` is one of them.

    The name of a curve already begins with its sampler.
    """
    parts = label.split(_BETWEEN)
    listed = (sampler in part.split(",") or re.search(r" \+\d+$", part) for part in parts)
    return _BETWEEN.join(part for part, drop in zip(parts, listed, strict=True) if not drop)


def _run_name(entry: Entry, fixed: set[str]) -> list[str]:
    """The parts of a run's name, given the words that all commands share."""
    rows = entry.values[entry.values["denoiser"] != "law"]
    first = {name: next(filter(None, rows[name]), "") for name in ("objective", "dataset")}
    model = first["objective"] or next(iter(rows["denoiser"]), "")
    varied = [word for word in entry.overrides if word not in fixed and _affects_values(word)]
    name = run_name(sorted(rows["sampler"].unique()), model, first["dataset"], varied)
    # "ddim,heun,rk2 +4" is one part
    words = (re.split(r" (?!\+\d+$)", part) for part in name.split(_BETWEEN))
    return [word for part in words for word in part if word]


def _affects_values(word: str) -> bool:
    """Whether a word of a command affects values, not only the place where they are written."""
    return not word.lstrip("+~").startswith(("hydra", "logger", "cache", "picture", "workers"))


def common(labels: Iterable[str]) -> str:
    """The common words of the labels of several runs: "seed=1"."""
    first, *further = [label.split(_BETWEEN) for label in labels]
    return _BETWEEN.join(part for part in first if all(part in other for other in further))


def all_values(entries: Sequence[Entry]) -> pd.DataFrame:
    """The rows of all runs.

    The column `run` has their labels. Data sets with the same name get names that differ.
    """
    settings: dict[str, dict[str, Any]] = defaultdict(dict)
    for entry in entries:
        for dataset in entry.values["dataset"].unique():
            settings[dataset][entry.label] = entry.config.get("dataset")
    names = {
        (label, dataset): name
        for dataset, by_label in settings.items()
        for label, name in zip(
            by_label, distinguished(dataset, list(by_label.values())), strict=True
        )
    }
    tables = [
        entry.values.assign(
            run=entry.label,
            dataset=[names[entry.label, dataset] for dataset in entry.values["dataset"]],
        )
        for entry in entries
    ]
    filled = [table for table in tables if not table.empty]
    return pd.concat(filled or tables, ignore_index=True)


def distances(values: pd.DataFrame) -> pd.DataFrame:
    """The distances to data or law, with the column `measure`, without a budget's other rows."""
    limits = values["sampler"].str.endswith(LIMIT)
    rows = values[values["reference"].isin(["data", "law", ""]) & ~limits]
    named = []
    for metric, measures in rows[MEASURE].drop_duplicates().groupby("metric", sort=False):
        records = measures.drop(columns="measure_id").to_dict("records")
        records = [r | {"metric_settings": _parsed(r["metric_settings"])} for r in records]
        names = pd.Series(distinguished(str(metric), records), index=measures.index)
        # laws with the same name and settings differ only in their identity
        same = names.duplicated(keep=False)
        names[same] += ", measure " + measures.loc[same, "measure_id"].str[:6]
        named.append(measures.assign(measure=names))
    if not named:
        return rows.assign(measure="")
    return rows.merge(pd.concat(named), on=MEASURE, how="left")


def distinguished(name: str, settings: Sequence[Any]) -> list[str]:
    """A name for each of several settings, with the values that differ: "sliced, p=1"."""
    flat = [_flat(setting) for setting in settings]
    keys = dict.fromkeys(key for setting in flat for key in setting)
    differing = [key for key in keys if len({repr(setting.get(key)) for setting in flat}) > 1]
    return [
        ", ".join(
            [name, *(f"{_SHORT.get(key, key)}={own[key]}" for key in differing if key in own)]
        )
        for own in flat
    ]


_SHORT = {"n_samples": "n", "n_reference": "m"}


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping, by the last part of their keys."""
    if not isinstance(value, Mapping):
        return {key: value} if key else {}
    return {inner: leaf for k, v in value.items() for inner, leaf in _flat(v, str(k)).items()}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"settings": text}


def warnings(entries: Sequence[Entry], rows: pd.DataFrame) -> list[str]:
    """Warnings for a reader who compares runs: unread files, different measures and versions."""
    lines = [f"{entry.label}: skipped {problem}" for entry in entries for problem in entry.problems]
    names = rows.groupby("metric")["measure"].unique()
    lines += [
        f"{metric} has {len(own)} different measures in separate charts: {'; '.join(own)}"
        for metric, own in names.items()
        if len(own) > 1
    ]
    cells = rows[rows["denoiser"] != "law"]
    for name in ("objective", "network", "schedule", "grid"):
        found = [value for value in cells[name].unique() if value]
        if len(entries) > 1 and len(found) > 1:
            text = f"the runs differ in {name} ({few(found)}): each has its own curves"
            lines.append(text + ", also of the exact score" * (name in ("schedule", "grid")))
    for software in dict.fromkeys(name for entry in entries for name in entry.versions):
        labels: dict[str, list[str]] = defaultdict(list)
        for entry in entries:
            if software in entry.versions:
                labels[entry.versions[software]].append(entry.label)
        if len(labels) > 1:
            versions = "; ".join(f"{version} in {few(own)}" for version, own in labels.items())
            lines.append(f"versions of {software} differ: {versions}")
    return lines


def few(labels: Sequence[str], separator: str = ", ") -> str:
    """The first six labels, and the number of the remaining ones."""
    more = f" and {len(labels) - 6:,} more" if len(labels) > 6 else ""
    return separator.join(labels[:6]) + more

"""`samplerbench score FILE…`: the distance between samples of any source and data, with its floor.

    samplerbench score samples.npy dataset=grid_mixture
    samplerbench score a.npy b.npy reference=data.npy metric=sliced
    samplerbench score samples.npy dataset=two_moons out=scores.csv

A file has one sample per row: .npy, .npz, .pt, .csv, .tsv, .txt or .parquet. `array` chooses one of
several arrays in a .npz or .pt file, `columns` the columns of a table. A folder has one image per
file, of the size of the data. `layout` is for files of Markov chains and names their first axes:
layout=draw for one chain, layout=chain,draw or layout=draw,chain for several; a .nc file of ArviZ
names its axes itself. If files have different layouts, write one for each file, in order, separated
by /, with `none` for independent samples: layout=chain,draw/draw,chain/none. `frame` is for files
with states along the sampling path, as `sample --every` writes them: frame=last scores the last
state, frame=all scores each of them.

The other words are as in a job, also in the form `--dataset grid_mixture`: `dataset` and `metric`
with their settings, `n_reference`, and `seed`, which determines all random numbers. `reference` is
a file of data; it replaces `dataset` and `n_reference`, and its floor comes from the rows of both
files; `columns` chooses its columns too, if it is a table. `out` is a new .csv or .json file for
the numbers of the tables.

With several files, a second table has the difference of each pair. See `bench.scoring` for the
floor, the intervals, the verdicts and the differences.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from samplerbench.app.commands.complaints import choice_of
from samplerbench.app.commands.output import new_path, whole_or_nothing
from samplerbench.app.commands.words import read_words
from samplerbench.app.config.compose import compose_config
from samplerbench.app.config.construct import construct
from samplerbench.app.config.groups import chosen_members, title_of_data
from samplerbench.app.config.numbers import whole_number
from samplerbench.app.terminal import console
from samplerbench.bench.rounding import difference, distance, plain
from samplerbench.errors import InvalidSetting, require
from samplerbench.paths import expanded, similar_path

if TYPE_CHECKING:  # torch is slow to import: functions import it after the words are checked
    from torch import Tensor

    from samplerbench.bench.scoring import Cloud, Line, Truth

#: The keys of a job that are used here; `GROUPS` are those with settings.
USED = ("dataset", "metric", "n_reference", "seed")
GROUPS = ("dataset", "metric")
#: Options for reading files.
READING = ("layout", "array", "columns", "frame")
#: The allowed suffixes of `out`.
WRITTEN = (".csv", ".json")


def main(words: list[str]) -> None:
    """Print a table with the nearest file first."""
    keys = ("reference", "out", *READING, *USED)
    files, values = read_words("score", words, keys, groups=GROUPS, place="file or folder")
    reading = {key: values.pop(key) for key in READING if key in values}
    allowed = "followed by files of samples: samplerbench score a.csv dataset=grid_mixture"
    require(len(files) > 0, "", "score", allowed)
    reference, out = values.pop("reference", None), values.pop("out", None)
    if out is not None:
        require(Path(out).suffix in WRITTEN, "out", out, f"a file of {' or '.join(WRITTEN)}")
        new_path(Path(out), "file")
    for key, name in [("", name) for name in files] + [("reference", reference)]:
        if name is not None and (name == "" or not os.path.exists(expanded(name))):
            is_member = "dataset" not in values and not Path(name).suffix
            near = similar_path(name) or (choice_of(name, GROUPS) if is_member else "")
            allowed = f"a file that exists{near}"
            raise InvalidSetting(key, name or '""', allowed)
    name = shlex.quote(files[0])
    allowed = f"compared with a file of data (samplerbench score {name} reference=data.csv) or "
    allowed += f"with a data set of `samplerbench list datasets` (samplerbench score {name} "
    allowed += "dataset=grid_mixture)"
    require(reference is not None or "dataset" in values, "", files[0], allowed)
    for key in values if reference is not None else ():
        allowed = "left out beside a reference: samples are compared with its points"
        require(key.partition(".")[0] not in ("dataset", "n_reference"), key, values[key], allowed)
    lines = score_files(files, reference, values, **reading)
    if out is not None:
        from samplerbench.bench.scoring import table_of

        table = table_of(lines)
        is_csv = Path(out).suffix == ".csv"
        if is_csv:
            text = table.to_csv(index=False)
        else:
            text = table.to_json(orient="records", indent=1, double_precision=15)
        with whole_or_nothing(Path(out)) as path:
            path.write_text(text, encoding="utf-8", errors="replace")


def score_files(
    files: Sequence[str], reference: str | None, words: Mapping[str, str], **reading: str
) -> list[Line]:
    """Print the tables of each metric; return the lines of all tables.

    Args:
        reference: a file of data; None for the data of the config.
        words: keys of the config and their values.
        reading: options for reading files, see `READING`.
    """
    from samplerbench.bench.jackknife import FEWEST
    from samplerbench.bench.scoring import differences, distances, require_fits

    layouts = _layouts(reading.pop("layout", None), files)
    for file in files:
        require(files.count(file) == 1, "", file, "given once")
    shape, truths = read_truths(reference, words, reading.get("columns"))
    clouds: dict[str, Cloud] = {}
    for file, layout in zip(files, layouts, strict=True):
        with typed_as(""):
            clouds |= read_clouds(file, shape, layout, **reading)
    for truth in truths:
        require_fits(clouds, truth)
    is_way = reading.get("frame") == "all"
    lines: list[Line] = []
    for truth in truths:
        measured = distances(clouds, truth)
        if not is_way:  # states along a path stay in their order
            measured.sort(key=lambda line: line.distance)
        show(truth, measured, any(cloud.chains is not None for cloud in clouds.values()))
        gaps = [] if is_way else differences(clouds, truth)
        if gaps:
            show_differences(truth, gaps)
        lines += [*measured, *gaps]
        if reference is None and any(line.floor_sets < 2 for line in measured):
            text = "too few rows of data for a floor: reference=FILE takes it from both files"
            console().print(text)
    for name, cloud in clouds.items():
        worth, _ = cloud.ess_and_r_hat
        if worth < FEWEST:
            worth_of = f"{worth} rows" if cloud.chains is None else f"an ESS of {worth}"
            console().print(f"{name}: no interval from {worth_of}: at least {FEWEST} have one")
        if cloud.other_layout:
            console().print(f"{name}: {cloud.other_layout}")
        if cloud.chains is None and cloud.lag:
            layout, array = cloud.layout
            text = f"{name}: {cloud.dependence}: use layout={layout} for {array}"
            console().print(f"{text}, or shuffle them if they are independent and sorted")
    return lines


def _layouts(typed: str | None, files: Sequence[str]) -> list[str | None]:
    """The layout of each file; None for independent samples, or if the file names its axes."""
    if typed is None:
        return [None] * len(files)
    own = typed.split("/")
    allowed = f"one for all files, or one for each of the {len(files)}, with / between them"
    require(len(own) in (1, len(files)), "layout", typed, allowed)
    layouts = own * len(files) if len(own) == 1 else own
    return [None if layout == "none" else layout for layout in layouts]


@contextmanager
def typed_as(key: str) -> Iterator[None]:
    """In errors about a file, replace the field "path" by the key that was typed."""
    try:
        yield
    except InvalidSetting as error:
        if error.field != "path":
            raise
        raise InvalidSetting(key, error.value, error.allowed) from error


def read_truths(
    reference: str | None, words: Mapping[str, str], columns: str | None = None
) -> tuple[tuple[int, ...] | None, list[Truth]]:
    """The shape of a datum, if it is known, and for each metric what it compares samples with.

    Args:
        reference: a file of data; None for the data of the config.
        words: keys of the config and their values.
        columns: the columns of the reference, if it is a table.
    """
    from samplerbench.bench.scoring import Cloud, reference_size, truths
    from samplerbench.datasets.base import Dataset
    from samplerbench.datasets.file import TABLES, require_upright
    from samplerbench.metrics.base import Metric

    config, chosen = compose_config([f"{key}={value}" for key, value in words.items()])
    metrics = chosen_members(config, "metric")
    require(len(metrics) > 0, "metric", words.get("metric"), "at least one: see list metrics")
    used = any(isinstance(metric, Metric) for metric in metrics.values())
    allowed = f"left out: {', '.join(metrics)} compares with the law itself"
    require(used or "n_reference" not in words, "n_reference", words.get("n_reference"), allowed)
    seed = whole_number(config, "seed")
    if reference is not None:
        is_table = Path(reference).suffix.lower() in TABLES
        own = {"columns": columns} if is_table and columns is not None else {}
        with typed_as("reference"):
            points, shape = read_samples(reference, None, **own)
            require_upright(points, reference)
        dependence = Cloud(points).dependence
        if dependence:
            text = f"{reference}: {dependence}, and the floor is too low for that; thin it"
            console().print(text)
        return shape, truths(points, reference, metrics, 0, seed)
    dataset: Dataset = construct(config.dataset, "dataset")
    name = title_of_data(str(chosen["dataset"]), config.dataset)
    count = whole_number(config, "n_reference")
    if "n_reference" not in words:
        count = reference_size(dataset, count)
    return dataset.event_shape, truths(dataset, name, metrics, count, seed)


def read_samples(
    path: str, shape: tuple[int, ...] | None = None, **reading: str
) -> tuple[Tensor, tuple[int, ...] | None]:
    """Independent samples, shape (n, dim), and the shape of one if they are images."""
    import torch

    from samplerbench.datasets.file import read_points

    if not os.path.isdir(expanded(path)):
        return read_points(path, **reading), None
    from samplerbench.datasets.image_folder import read_samples as read_images

    allowed = f"left out: {path} is a folder of images"
    require(not reading, *next(iter(reading.items()), ("", "")), allowed)
    images = torch.from_numpy(read_images(path, shape))
    return images.flatten(1), tuple(images.shape[1:])


def read_clouds(
    file: str,
    shape: tuple[int, ...] | None,
    layout: str | None = None,
    frame: str | None = None,
    **reading: str,
) -> dict[str, Cloud]:
    """The samples in a file or folder, by name: one cloud, or one for each frame.

    Args:
        file: a file or folder.
        shape: the shape of a datum, if it is known.
        layout: the layout of chains, see `datasets.file.as_chains`; None for independent samples.
        frame: last or all, for the states of `sample --every`; None for samples.
        reading: which array or columns of the file.
    """
    from samplerbench.bench.scoring import Cloud
    from samplerbench.datasets.file import names_axes, read_chains, read_frames

    if frame is not None:
        require(frame in ("last", "all"), "frame", frame, "last or all")
        require(layout is None, "layout", layout, "left out with frame: its file has no chains")
        frames = read_frames(file, **reading)
        if frame == "last":
            return {file: Cloud(frames[-1])}
        return {f"{file}[{number}]": Cloud(points) for number, points in enumerate(frames)}
    if layout is None and not names_axes(file):
        points, of_images = read_samples(file, shape, **reading)
        return {file: Cloud(points, in_order=of_images is None)}
    return {file: Cloud.of_chains(read_chains(file, layout, **reading), file)}


def show(truth: Truth, lines: Sequence[Line], chains: bool) -> None:
    """Print the distances to the data; with `chains` also ESS and R̂."""
    out = console()
    out.print(f"{truth.metric} to {truth.name}; distance with its 95 % interval")
    table = Table(box=None, pad_edge=False)
    widest = max(len(line.samples) for line in lines)
    table.add_column("samples", overflow="fold", min_width=min(widest, 40))
    for column in ("n", *("ESS", "R̂") * chains, "distance", "floor", "95 % of perfect samples"):
        table.add_column(column, no_wrap=True, justify="right")
    table.add_column(f"verdict by {truth.metric}")
    for line in lines:
        known = line.floor_sets > 1
        ends = f"{plain(line.floor_lower)} to {plain(line.floor_upper)} ({line.floor_sets} sets)"
        table.add_row(
            line.samples,
            f"{line.n:,}",
            *(f"{line.ess:,}", "–" if math.isnan(line.r_hat) else f"{line.r_hat:.3f}") * chains,
            distance(line.distance, line.half_width),
            *((plain(line.floor), ends) if known else ("–", "–")),
            line.verdict,
        )
    out.print(table)


def show_differences(truth: Truth, lines: Sequence[Line]) -> None:
    """Print the differences of distances, the larger distance minus the smaller one."""
    out, count = console(), sum(not math.isnan(line.p_value) for line in lines)
    family = f"; Holm over {count} comparison" + "s" * (count > 1) if count else ""
    out.print(f"differences of {truth.metric}, row by row, with 95 % intervals{family}")
    table = Table(box=None, pad_edge=False)
    for column in ("farther", "nearer"):
        table.add_column(column, overflow="fold")
    for column in ("n", "difference", "p-value"):
        table.add_column(column, no_wrap=True, justify="right")
    table.add_column(f"verdict by {truth.metric}", no_wrap=True)
    for line in lines:
        gap = difference(line.distance, line.half_width)
        texts = (f"{line.n:,}", gap, plain(line.p_value, 2), line.verdict)
        table.add_row(line.samples, line.minus, *texts)
    out.print(table)

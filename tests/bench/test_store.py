"""The store: whole fragments, and a table that is only a view of them."""

import json
import math
from dataclasses import fields

import pandas as pd
import pyarrow.parquet as pq
import pytest

from helpers import row
from samplerbench.bench.cell import Row, fragment_name
from samplerbench.bench.store import Store, row_of, to_data


def test_rows_come_back_as_they_went_in(tmp_path):
    store = Store(tmp_path)
    store.write(row(cell_id="a", value=1 / 3, lower=math.nan, message="β ≠ 1", steps=3))
    table = store.compact()
    read = pd.read_parquet(tmp_path / "cells.parquet")
    pd.testing.assert_frame_equal(table, read, check_exact=True, check_dtype=False)
    assert read.loc[0, "value"] == 1 / 3
    assert math.isnan(read.loc[0, "lower"])
    assert read.loc[0, "message"] == "β ≠ 1"
    assert list(read.columns) == [field.name for field in fields(Row)]


def test_the_table_does_not_depend_on_the_order_of_writing(tmp_path):
    rows = [row(cell_id=str(i), steps=i % 3, repetition=i, eta=float(i % 2)) for i in range(12)]
    for name, order in (("a", rows), ("b", rows[::-1])):
        store = Store(tmp_path / name)
        for one in order:
            store.write(one)
        store.compact()
    first, second = ((tmp_path / name / "cells.parquet").read_bytes() for name in "ab")
    assert first == second


def test_an_empty_store_is_a_typed_empty_table(tmp_path):
    Store(tmp_path).compact()
    assert pq.read_schema(tmp_path / "cells.parquet").field("value").type == "double"


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.write(row(cell_id="a", value=1.0))

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("samplerbench.files.os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        store.write(row(cell_id="a", value=2.0))
    assert store.table().loc[0, "value"] == 1.0
    assert len(list(store.fragments.glob("*.json"))) == 1


@pytest.mark.parametrize(
    "change",
    [
        None,  # cut off
        {"value": None},
        {"value": math.inf},
        {"steps": 10**30},
        {"steps": 2**63},
        {"message": "\ud800"},
        {"dataset": 3},
    ],
)
def test_a_fragment_that_cannot_be_read_is_named_and_put_aside(tmp_path, caplog, change):
    store = Store(tmp_path)
    store.write(row(cell_id="a", value=1.0))
    text = (store.fragments / fragment_name(row(cell_id="a"))).read_text()
    spoilt = text[:40] if change is None else json.dumps(json.loads(text) | change)
    (store.fragments / "zz.json").write_text(spoilt)
    table, problems = Store(tmp_path).readable()
    assert list(table["cell_id"]) == ["a"]
    assert [line.partition(":")[0] for line in problems] == ["zz.json"]
    assert list(store.compact()["cell_id"]) == ["a"]
    assert "zz.json is not usable" in caplog.text
    assert (store.fragments / "zz.json.unusable").read_text() == spoilt
    assert Store(tmp_path).readable()[1] == []


def test_a_value_that_is_ok_is_a_number_except_of_a_chain_that_does_not_move(tmp_path):
    store = Store(tmp_path)
    for name, values in {
        "chain": {"reference": "chain"},
        "bad": {"status": "diverged"},
        "none": {"reference": "data"},
    }.items():
        store.write(row(cell_id=name, value=math.nan, **values))
    paths = store.fragments.glob("*.json")
    contents = {path.name.partition("-")[0]: path.read_bytes() for path in paths}
    with pytest.raises(ValueError, match="no number"):
        row_of(json.loads(contents["none"]))
    assert math.isnan(row_of(json.loads(contents["chain"])).value)
    assert sorted(store.table()["cell_id"]) == ["bad", "chain"]


def test_values_of_one_identity_and_several_names_are_all_kept(tmp_path):
    """A sampler under two names has the same settings, and two rows."""
    store = Store(tmp_path)
    for name in ("ddim", "ancestral"):
        for metric in ("sliced", "renamed"):
            store.write(row(cell_id="a", sampler=name, metric=metric))
            store.write(row(cell_id="a", sampler=name, metric=metric))  # again
    assert len(store.compact()) == 4


def test_a_table_is_of_the_job_as_it_is_now(tmp_path):
    """Values of an earlier state of a job, such as other data in its file, are not pooled."""
    Store(tmp_path, "before").write(row(cell_id="a", sweep_id="before"))
    now = Store(tmp_path, "now")
    now.write(row(cell_id="b", sweep_id="now"))
    table, problems = now.readable()
    assert list(table["cell_id"]) == ["b"]
    assert problems == ["cells: 1 values of an earlier state of the job are left out"]
    assert list(now.compact()["cell_id"]) == ["b"]
    assert list(now.readable()[0]["cell_id"]) == ["b"]
    assert len(list(now.fragments.glob("*.json"))) == 2


def test_the_values_of_the_grid_are_distances_to_data_or_law(tmp_path):
    """Distances to training points, between two runs of a budget, and of limits are left out."""
    store = Store(tmp_path)
    for reference in ("data", "law", "training", "exact", "doubled", "chain"):
        for sampler in ("heun", "heun limit", "ODE limit"):
            store.write(row(cell_id=reference + sampler, reference=reference, sampler=sampler))
    assert sorted(to_data(store.table())["cell_id"]) == ["dataheun", "lawheun"]


def test_values_of_a_version_without_rounds_had_one_evaluation_in_each(tmp_path):
    store = Store(tmp_path)
    store.write(row(cell_id="a", nfe=7, rounds=7))
    (path,) = (tmp_path / "cells").glob("*.json")
    record = json.loads(path.read_text())
    del record["rounds"]
    path.write_text(json.dumps(record))
    table, problems = store.readable()
    assert problems == []
    assert table.loc[0, "rounds"] == 7

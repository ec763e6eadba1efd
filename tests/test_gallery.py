"""`multirun/gallery/make.py`: the index of the entries, and the table of all samplers."""

import json
import sys
from pathlib import Path

import pytest

from samplerbench.app.config.folders import conf_directory
from samplerbench.verify.orders import Order

NAME = "n0/chain"


@pytest.fixture
def gallery(tmp_path, monkeypatch, gallery_script):
    """The script, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return gallery_script("make")


def test_the_index_shows_what_there_is(gallery):
    place = gallery.GALLERY / NAME
    own = place.with_name(f"{place.name}{gallery.OWN_SETTING}")
    for folder in (gallery.GALLERY / gallery.MAIN, place, own):
        folder.mkdir(parents=True)
    (place / "chain_ula.png").touch()
    (place / gallery.SECONDS).write_text("142\n")
    (place / gallery.REPORT).write_text("figure: multirun/a/chain_ula.png\ntable:  x\n\n")
    page = gallery.index()
    assert "\n`samplerbench`\n" in page
    assert page.index("### main") < page.index(f"### {NAME}")
    assert f"`samplerbench experiment={NAME}`: 142 s\n" in page
    assert f"`samplerbench experiment={NAME} fidelity=notebook repetitions=4`" in page
    assert f"![chain_ula]({NAME}/chain_ula.png)" in page
    assert "Its numbers" not in page
    (place / gallery.REPORT).write_text("figure: a\nw: 1 of 2 cells\n")
    assert "```\nw: 1 of 2 cells\n```" in gallery.index()


def test_a_word_that_names_no_experiment_is_refused(gallery):
    assert gallery.experiments([NAME, "n1/ddim"]) == [NAME, "n1/ddim"]
    with pytest.raises(SystemExit, match="no experiment n1/dim; one of"):
        gallery.experiments([NAME, "n1/dim"])


def test_every_sampler_is_in_the_table_of_orders(gallery, monkeypatch):
    errors = (1.0, 0.5, 0.25, 0.125)
    measured = Order("mixture", weak=False, steps=(40, 80, 160, 320), errors=errors)
    monkeypatch.setattr(
        gallery,
        "measured_order",
        lambda sampler, schedule, law: measured if law == "mixture" else None,
    )
    gallery.GALLERY.mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["make.py", gallery.ORDERS])
    gallery.main()
    lines = (gallery.GALLERY / "orders.md").read_text().splitlines()
    titles, *rows = (line.strip("| ").split(" | ") for line in lines if line.startswith("| "))
    assert len(titles) == 8
    assert all(row[2:] == ["–"] * 3 + ["1.00"] * 3 for row in rows)
    names = {row[0].split()[0] for row in rows}
    assert names == {path.stem for path in (conf_directory() / "sampler").glob("*.yaml")}
    declared = {row[0]: row[1] for row in rows}
    assert (declared["heun"], declared["ddim η=1"]) == ("2", "1 weak")
    assert "](orders.md)" in (gallery.GALLERY / "README.md").read_text()


@pytest.fixture
def grids(gallery_script):
    return gallery_script("grids")


def test_the_page_has_the_measured_table_of_samplers_on_their_own_grids(grids):
    panels = json.loads(grids.FACTS.read_text(encoding="utf-8"))
    page = (Path(__file__).parents[1] / "docs" / "grids.md").read_text(encoding="utf-8")
    assert grids.table(panels) in page
    assert grids.statements(panels) in page


def test_the_page_has_the_measured_gains_of_designs(grids):
    rows = json.loads(grids.GAINED.read_text(encoding="utf-8"))
    page = (Path(__file__).parents[1] / "docs" / "grids.md").read_text(encoding="utf-8")
    assert grids.gains_table(rows) in page
    assert all(len(row["seeds"]) == len(grids.SEEDS) for row in rows)


def test_orders_are_counted_from_significant_pairs(grids):
    row = {"common": [1.0, 0.9, 1.1], "own": [0.5, 0.4, 0.6], "gain": [2.0, 1.5, 2.5]}
    panel = {
        "data": "x",
        "nfe": 6,
        "rows": {"a": row, "b": {**row, "gain": [3.0, 2.5, 3.5]}, "c": row},
        "pairs": [["a", "b"], ["a", "c"], ["b", "c"]],
        "signs": {"common": [-1, -1, 1], "own": [-1, 0, -1]},
    }
    line = grids.table([panel]).splitlines()[-1]
    assert "3 of 3: 1, 1, 1" in line
    assert "a 2 [1.5, 2.5], b 3 [2.5, 3.5]" in line
    assert grids.statements([panel]).splitlines()[-1].startswith("| b : c | 0 : 1 | 1 : 0 |")

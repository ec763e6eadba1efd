"""The gallery's index is made of what there is, and its table holds every sampler."""

import subprocess
import sys

import pytest

from samplerbench.app import gallery
from samplerbench.app.config.folders import conf_directory
from samplerbench.verify.orders import Order

NAME = "n0/chain"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = gallery.GALLERY / NAME
    folder.mkdir(parents=True)
    return folder


def test_a_report_without_numbers_has_no_block(place):
    (place / "chain_ula.png").touch()
    (place / gallery.REPORT).write_text("figure: multirun/a/chain_ula.png\ntable:  x\n\n")
    page = gallery.index()
    assert f"![chain_ula]({NAME}/chain_ula.png)" in page
    assert "Its numbers" not in page
    (place / gallery.REPORT).write_text("figure: a\nw: 1 of 2 cells\n")
    page = gallery.index()
    assert "Its numbers" in page
    assert "```\nw: 1 of 2 cells\n```" in page


def test_a_run_in_the_notebooks_own_setting_is_shown_beside(place):
    own = place.with_name(f"{place.name}{gallery.OWN_SETTING}")
    assert "fidelity=notebook`" not in gallery.index().partition("\n## ")[2]
    own.mkdir()
    (own / "loss.png").touch()
    page = gallery.index()
    assert f"`samplerbench experiment={NAME} fidelity=notebook`" in page
    assert f"![loss]({NAME}{gallery.OWN_SETTING}/loss.png)" in page


def test_the_main_job_stands_first_and_is_the_command_alone(place):
    (gallery.GALLERY / gallery.MAIN).mkdir()
    page = gallery.index()
    assert page.index("### main") < page.index(f"### {NAME}")
    assert "\nThe main job: what `samplerbench` does when you say nothing else.\n" in page
    assert "\n`samplerbench`\n" in page
    assert "defaults" not in page


def test_the_seconds_of_a_run_are_in_the_index(place, monkeypatch):
    def finished(command, **_):
        (directory,) = [word.partition("=")[2] for word in command if "hydra.run.dir" in word]
        folder = place.parents[3] / directory
        folder.mkdir(parents=True)
        (folder / gallery.REPORT).write_text("a number\n")
        return subprocess.CompletedProcess(command, 0)

    clock = iter([10.0, 152.4])
    monkeypatch.setattr(gallery.subprocess, "run", finished)
    monkeypatch.setattr(gallery.time, "perf_counter", lambda: next(clock))
    assert f"experiment={NAME}`\n" in gallery.index()
    assert gallery.run(NAME)
    assert f"`samplerbench experiment={NAME}`: 142 s\n" in gallery.index()


def test_a_word_that_names_no_experiment_is_refused_beside_others_too():
    assert gallery.experiments([NAME, "n1/ddim"]) == [NAME, "n1/ddim"]
    with pytest.raises(SystemExit, match="no experiment n1/dim; one of"):
        gallery.experiments([NAME, "n1/dim"])


def test_every_sampler_is_in_the_table_of_orders(place, monkeypatch):
    errors = (1.0, 0.5, 0.25, 0.125)
    measured = Order("mixture", weak=False, steps=(40, 80, 160, 320), errors=errors)
    monkeypatch.setattr(
        gallery,
        "measured_order",
        lambda sampler, schedule, law: measured if law == "mixture" else None,
    )
    monkeypatch.setattr(sys, "argv", ["gallery", gallery.ORDERS])
    gallery.main()
    lines = (gallery.GALLERY / "orders.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    titles, *rows = rows
    assert len(titles) == 8
    assert all(row[2:] == ["–"] * 3 + ["1.00"] * 3 for row in rows)
    names = {row[0].split()[0] for row in rows}
    assert names == {path.stem for path in (conf_directory() / "sampler").glob("*.yaml")}
    declared = {row[0]: row[1] for row in rows}
    assert declared["heun"] == "2"
    assert declared["ddim η=1"] == "1 weak"
    assert "](orders.md)" in (gallery.GALLERY / "README.md").read_text()

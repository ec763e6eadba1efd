"""The report's folder: complete, self-contained and escaped; it never replaces other files."""

import json
import re
import zlib
from base64 import b64decode
from dataclasses import replace

import pandas as pd
import pytest

from samplerbench.errors import InvalidSetting
from samplerbench.figures.distance import distance_curves
from samplerbench.report.compare import compare
from samplerbench.report.content import gather
from samplerbench.report.folder import write_report
from samplerbench.report.page import _with_links, render
from samplerbench.report.tables import latex, markdown

NASTY = '</script><script>alert(1)</script><img src=x onerror="alert(2)">&\u2028'


def unpacked(page, name):
    """The text of a compressed script element."""
    found = re.search(rf'<script type="text/plain" id="{name}">(.*?)</script>', page, re.S)
    return zlib.decompress(b64decode(found[1])).decode()


def embedded(page, name):
    """A part of the page's content."""
    return json.loads(unpacked(page, "content"))[name]


def test_the_folder_has_everything(rows, entry, tmp_path, monkeypatch):
    drawn = []

    def draw(cells, *args):
        drawn.append(cells)
        return distance_curves(cells, *args)

    monkeypatch.setattr("samplerbench.report.figures.distance_curves", draw)
    both = [entry("#1", rows()), entry("#2", rows(seed=1))]
    out = tmp_path / "a" / "out"
    write_report(replace(gather(both), comparison=compare(*both)), out, ["png", "pdf"])
    files = {"report.html", "cells.csv", "differences.csv", "table.md", "table.tex", "figures"}
    assert {path.name for path in out.iterdir()} == files
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]
    assert len(pd.read_csv(out / "cells.csv")) == 2 * len(rows())
    assert len(pd.read_csv(out / "differences.csv")) == 6
    pdf = next((out / "figures").glob("*.pdf"))
    assert pdf.read_bytes().startswith(b"%PDF")
    assert pdf.with_suffix(".png").is_file()
    # rows of one setting and two seeds are one curve
    assert set(drawn[0]["name"]) == {"ddim η=0", "ddim η=1"}
    write_report(gather(both), tmp_path / "page")
    assert not (tmp_path / "page" / "figures").exists()


@pytest.mark.slow
def test_nothing_is_overwritten_and_nothing_is_left_after_an_error(
    rows, entry, tmp_path, monkeypatch
):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "empty").mkdir()
    for name in ("mine", "empty"):
        with pytest.raises(InvalidSetting, match="nothing is overwritten"):
            write_report(gather([entry("#1", rows())]), tmp_path / name)
    assert (tmp_path / "mine").read_text() == "mine"
    with pytest.raises(InvalidSetting, match="a place to write to"):
        write_report(gather([entry("#1", rows())]), tmp_path / "mine" / "below")

    def full(report):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("samplerbench.report.folder.render", full)
    with pytest.raises(InvalidSetting, match=r"a place to write to \(No space left on device\)"):
        write_report(gather([entry("#1", rows())]), tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "mine"]


def test_the_page_loads_nothing_and_its_charts_are_complete(rows, entry):
    oracle = [row for row in rows(denoiser="oracle", etas=[0.0]) if row.steps > 0]
    page = render(gather([entry("#1", rows() + oracle)]))
    own = re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.S)
    assert not re.findall(r'(?:src|href)="(?!#|data:|https://arxiv\.org)[^"]*"', own)
    assert "@import" not in own
    assert unpacked(page, "plotly").count("plotly.js v") == 1

    (floor,) = embedded(page, "distances")["floors"]
    low, mean, high = floor["band"]
    assert 0.8 < low < mean < high < 1.2
    assert floor["title"] == "sliced W₂"
    # of the learned score only, which has two values of eta
    assert [figure["data"][0]["type"] for figure in embedded(page, "figures")] == ["heatmap"]


def test_the_numbers_of_the_page_have_six_digits_or_are_null(rows, entry):
    some = [replace(row, value=float("nan"), status="failed") for row in rows(etas=[0.5])]
    report = gather([entry("#1", [*rows(etas=[0.0]), *some[4:]])])
    table = embedded(render(report), "data")
    place = {name: k for k, (name, *_) in enumerate(table["columns"])}
    shown = {(row[place["name"]], row[place["steps"]]): row[place["mean"]] for row in table["rows"]}
    lines = report.lines[report.lines["eta"] == 0]
    for steps, mean in zip(lines["steps"], lines["mean"], strict=True):
        assert shown["ddim η=0", steps] == pytest.approx(mean, rel=5e-6)
    assert [shown["ddim η=0.5", steps] for steps in (4, 16, 64)] == [None] * 3


def test_references_are_escaped_and_linked():
    link = '<a href="https://arxiv.org/abs/2010.02502">arXiv 2010.02502</a>'
    assert _with_links("A <b> & C, arXiv 2010.02502") == f"A &lt;b&gt; &amp; C, {link}"


def test_names_and_messages_are_escaped(rows, entry):
    bad = rows(dataset=NASTY, start=NASTY, message=NASTY, status="failed", value=float("nan"))
    good = rows(dataset=NASTY, start=NASTY, sampler=NASTY)
    both = [
        entry("#1", good, overrides=[NASTY], config_text=NASTY, versions={NASTY: NASTY}),
        entry("#2", bad, name=NASTY, message=NASTY, state="failed", problems=[NASTY]),
    ]
    page = render(replace(gather(both), comparison=compare(both[0], both[0])))
    assert "alert(1)" in page + unpacked(page, "content")
    for attack in ("<script>alert", "<img src=x", "</script><script>alert"):
        assert attack not in page
    # the table still has the exact text
    table = embedded(page, "data")
    column = [name for name, *_ in table["columns"]].index("dataset")
    assert {row[column] for row in table["rows"]} == {NASTY}
    titles = json.dumps([chart["data"] for chart in embedded(page, "figures")])
    assert "<img" not in titles


@pytest.mark.slow
def test_nothing_is_best_if_smaller_values_need_not_be_better(rows, entry):
    for unordered in (frozenset(), frozenset({"sliced"})):
        report = gather([entry("#1", rows(), unordered=unordered)])
        (floor,) = embedded(render(report), "distances")["floors"]
        assert (r"\mathbf" in latex(report)) == floor["ordered"] == (not unordered)
        assert any("sliced: a smaller value is not" in note for note in report.notes) == bool(
            unordered
        )


def test_a_page_says_what_is_missing(entry, rows):
    page = render(gather([entry("#1", [], state="running", expected=90)]))
    assert "No values yet" in page
    assert "0 of 90" in page
    failed = {"state": "failed", "expected": 90, "message": "RuntimeError: out of memory"}
    page = render(gather([entry("#1", rows()[:20], **failed)]))
    assert "20 of 90" in page
    assert "RuntimeError: out of memory" in page


@pytest.mark.slow
def test_a_run_has_its_command_also_without_words(entry, rows):
    """Only a run whose config cannot be read has none."""
    runs = [entry("#1", rows()), entry("#2", rows(seed=1), overrides=[])]
    runs.append(entry("#3", [], config={}, overrides=[], state="unreadable"))
    found = re.findall(r'<td class="command">(.*?)</td>', render(gather(runs)))
    assert found == ["samplerbench experiment=tiny", "samplerbench", "–"]


def test_markdown_and_latex_are_escaped_and_complete(rows, entry):
    name = "a_b|c&d%\nx"
    both = [
        entry("#1", rows(dataset=name)),
        entry("#2", rows(dataset=name, seed=1, objective="ncsn")),
    ]
    report = replace(gather(both), comparison=compare(*both))
    tex = latex(report)
    assert r"a\_b|c\&d\% x, n = 500" in tex
    assert tex.count(r"\toprule") == tex.count(r"\bottomrule") == 2
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 2
    assert r"ddim $\eta$=1" in tex
    body = tex.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == 4
    assert all(line.count("&") == 6 and line.endswith(r"\\") for line in body)
    assert r"\mathbf{" in tex
    text = markdown(report)
    assert r"a\_b\|c\&d% x, n = 500" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace(r"\|", "").count("|") for line in lines[:6]}) == 1
    assert r" \*" not in "".join(lines)
    assert "^*" not in tex
    near = gather([entry("#1", rows(etas=[0.0], steps=[4000]))])  # at the floor
    assert r" \* |" in markdown(near)
    assert "^*$" in latex(near)


@pytest.mark.slow
def test_many_cells_make_a_page_that_is_not_too_large(rows, entry):
    many = rows(etas=[k / 200 for k in range(200)], steps=range(1, 11), repetitions=2)
    page = render(gather([entry("#1", many)]))
    assert len(embedded(page, "data")["rows"]) == 2000
    # a line of the table has 30 numbers and names
    assert len(page.encode()) - len(render(gather([entry("#1", rows())])).encode()) < 60 * 2000


@pytest.mark.slow
def test_rounds_are_shown_where_they_are_not_the_evaluations(rows, entry):
    def kind(page):
        return {name: kind for name, *_, kind in embedded(page, "data")["columns"]}["rounds"]

    assert kind(render(gather([entry("#1", rows())]))) == "hidden"
    assert kind(render(gather([entry("#1", rows(nfe=40, rounds=9))]))) == "shown"

"""The report's folder: whole, self-contained, escaped, and never in anybody's place."""

import json
import re
from dataclasses import replace

import pandas as pd
import pytest

from samplerbench.errors import InvalidSetting
from samplerbench.report.compare import compare
from samplerbench.report.content import gather
from samplerbench.report.folder import write_report
from samplerbench.report.page import render

NASTY = '</script><script>alert(1)</script><img src=x onerror="alert(2)">&\u2028'


def embedded(page, name):
    """What a script element of JSON holds."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.S)
    return json.loads(found[1])


def test_the_folder_has_everything(rows, entry, tmp_path):
    write_report(gather([entry("#1", rows()), entry("#2", rows(seed=1))]), tmp_path / "a" / "out")
    out = tmp_path / "a" / "out"
    assert {path.name for path in out.iterdir()} == {
        "report.html",
        "cells.csv",
        "table.md",
        "table.tex",
        "figures",
    }
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]
    assert len(pd.read_csv(out / "cells.csv")) == 2 * len(rows())
    pdf = next((out / "figures").glob("*.pdf"))
    assert pdf.read_bytes().startswith(b"%PDF")
    assert pdf.with_suffix(".png").is_file()


def test_nothing_is_overwritten(rows, entry, tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "empty").mkdir()
    for name in ("mine", "empty"):
        with pytest.raises(InvalidSetting, match="nothing is overwritten"):
            write_report(gather([entry("#1", rows())]), tmp_path / name)
    assert (tmp_path / "mine").read_text() == "mine"
    with pytest.raises(InvalidSetting, match="a place to write to"):
        write_report(gather([entry("#1", rows())]), tmp_path / "mine" / "below")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "mine"]


def test_nothing_is_loaded_from_elsewhere(rows, entry):
    page = render(gather([entry("#1", rows())]))
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert not re.findall(r'(?:src|href)="(?!#|data:|https://arxiv\.org)[^"]*"', own)
    assert "@import" not in own
    assert page.count("plotly.js v") == 1


def test_names_and_messages_are_escaped(rows, entry):
    bad = rows(dataset=NASTY, start=NASTY, message=NASTY, status="failed", value=float("nan"))
    good = rows(dataset=NASTY, start=NASTY)
    made = [
        entry("#1", good, overrides=[NASTY], config_text=NASTY, versions={NASTY: NASTY}),
        entry("#2", bad, name=NASTY, message=NASTY, state="failed", problems=[NASTY]),
    ]
    report = gather(made)
    page = render(replace(report, comparison=compare(made[0], made[0])))
    assert "alert(1)" in page
    for attack in ("<script>alert", "<img src=x", "</script><script>alert"):
        assert attack not in page
    # and nothing is lost by it
    table = embedded(page, "data")
    place = [name for name, *_ in table["columns"]].index("dataset")
    assert {row[place] for row in table["rows"]} == {NASTY}
    titles = json.dumps([chart["data"] for chart in embedded(page, "figures")])
    assert "<img" not in titles


def test_nothing_is_best_where_a_smaller_value_need_not_be_better(rows, entry, tmp_path):
    for name, unordered in (("a", frozenset()), ("b", frozenset({"sliced"}))):
        report = gather([entry("#1", rows(), unordered=unordered)])
        write_report(report, tmp_path / name)
        best = r"\mathbf" in (tmp_path / name / "table.tex").read_text()
        traces = [
            trace.get("name")
            for figure in embedded((tmp_path / name / "report.html").read_text(), "figures")
            for trace in figure["data"]
        ]
        assert best == ("Pareto front" in traces) == (not unordered)
        assert any("sliced: neither small nor" in note for note in report.notes) == bool(unordered)


def test_a_page_without_a_value_says_so(entry, rows):
    page = render(gather([entry("#1", [], state="running", expected=90)]))
    assert "No values yet" in page
    assert "0 of 90" in page


def test_a_page_says_what_is_missing(entry, rows):
    part = rows()[:20]
    made = entry("#1", part, state="failed", expected=90, message="RuntimeError: out of memory")
    page = render(gather([made]))
    assert "20 of 90" in page
    assert "RuntimeError: out of memory" in page


def test_charts_have_bands_fronts_and_three_axes(rows, entry):
    figures = embedded(render(gather([entry("#1", rows())])), "figures")
    titles = [figure["layout"]["xaxis"]["title"]["text"] for figure in figures]
    assert titles[0] == "number of steps N"
    assert "NFE" in titles[1]
    assert "seconds" in titles[2]
    names = {trace["name"] for trace in figures[0]["data"]}
    assert names == {"Pareto front", "ddim η=0", "ddim η=1"}
    band = figures[0]["layout"]["shapes"][0]
    assert band["type"] == "rect"
    assert 0.8 < band["y0"] < 1 < band["y1"] < 1.2
    assert figures[3]["data"][0]["type"] == "heatmap"


def test_markdown_and_latex_are_escaped_and_whole(rows, entry, tmp_path):
    made = [entry("#1", rows(dataset="a_b|c&d%")), entry("#2", rows(dataset="a_b|c&d%", seed=1))]
    report = gather(made)
    write_report(replace(report, comparison=compare(*made)), tmp_path / "out")
    tex = (tmp_path / "out" / "table.tex").read_text()
    assert r"a\_b|c\&d\%" in tex
    assert tex.count(r"\toprule") == tex.count(r"\bottomrule") == 2
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 2
    assert r"ddim $\eta$=1" in tex
    body = tex.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == 4
    assert all(line.count("&") == 6 and line.endswith(r"\\") for line in body)
    assert r"\mathbf{" in tex
    markdown = (tmp_path / "out" / "table.md").read_text()
    assert r"a\_b\|c\&d%" in markdown
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({line.replace(r"\|", "").count("|") for line in lines[:6]}) == 1
    assert (tmp_path / "out" / "differences.csv").is_file()


def test_ten_thousand_cells_make_a_page_that_is_not_too_large(rows, entry):
    many = rows(etas=[place / 1000 for place in range(1000)], steps=range(1, 11), repetitions=2)
    page = render(gather([entry("#1", many)]))
    assert len(embedded(page, "data")["rows"]) == 10_000
    assert len(page.encode()) < 15e6
    assert "settings farther from the data are in the table only" in page

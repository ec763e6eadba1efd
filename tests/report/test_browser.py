"""The page in a real browser: sorted, filtered, clicked, downloaded, without a request or an error.

It needs Chromium and its driver, such as Debian's packages chromium and chromium-driver.
"""

import csv
import json
from dataclasses import replace

import pytest

from helpers import until
from samplerbench.report.compare import compare
from samplerbench.report.content import gather
from samplerbench.report.entries import labelled
from samplerbench.report.folder import write_report


@pytest.fixture(scope="module")
def page(tmp_path_factory, rows, entry):
    runs = [
        entry("#1", rows(etas=[0.0, 0.5, 1.0], steps=[2, 4, 8, 16, 32, 64])),
        entry("#2", rows(steps=[4, 16], shift=0.2, dataset="<img src=x onerror=window.hit=1>")),
        entry("#3", rows(etas=[0.0, 1.0], steps=[4, 16], shift=0.3)),
    ]
    report = gather(runs, targets=[2.1], group="run")
    report = replace(report, comparison=compare(runs[0], runs[2]))
    out = tmp_path_factory.mktemp("page") / "out"
    write_report(report, out)
    return out / "report.html"


@pytest.fixture
def opened(browser, page):
    visit(browser, page)
    return browser


def visit(browser, page):
    """Open a page and wait for its table: on a busy machine `get` returns before its script."""
    browser.get(page.as_uri())
    until(lambda: browser.find_elements("css selector", "#cells .sheet tbody td"))


class Sheet:
    """A table of the page.

    Args:
        browser: with the open page.
        section: its id.
    """

    def __init__(self, browser, section="cells"):
        self.browser, self.section = browser, section

    def find(self, part):
        return self.browser.find_elements("css selector", f"#{self.section} .sheet {part}")

    def texts(self, part):
        # .text leaves out texts that are not in the visible part of the page
        return [element.get_attribute("textContent") for element in self.find(part)]

    def column(self, title):
        return self.texts(f"tbody td:nth-child({self.texts('th').index(title) + 1})")

    def numbers(self, title):
        return [float(text.split(" ")[0]) for text in self.column(title)]

    def click(self, part):
        (element,) = self.find(part)
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def sort(self, title):
        self.click(f"th:nth-child({self.texts('th').index(title) + 1}) button")

    def filter(self, words):
        (field,) = self.find(".filter")
        field.clear()
        field.send_keys(words)

    def shown(self):
        (text,) = self.texts(".shown")
        return text

    def download(self):
        self.click(".csv")
        path = self.browser.downloads / f"{self.section}.csv"
        until(path.is_file)
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
        path.unlink()
        return lines


def test_a_click_on_a_title_sorts_and_another_reverses(opened):
    cells = Sheet(opened)
    cells.sort("mean")
    means = cells.numbers("mean")
    assert len(means) == 26
    assert means == sorted(means)
    assert cells.find("th[aria-sort]")[0].get_attribute("aria-sort") == "ascending"
    cells.sort("N")
    cells.sort("N")
    steps = cells.numbers("N")
    assert steps == sorted(steps, reverse=True)
    assert steps[0] == 64
    assert len(cells.find("th[aria-sort]")) == 1


def test_words_and_choices_filter_and_the_csv_is_what_the_table_shows(opened):
    cells = Sheet(opened)
    cells.filter("η=0.5 above")
    assert set(cells.column("sampler")) == {"ddim η=0.5"}
    assert "of 6 cells (26 in all)" in cells.shown()
    cells.filter("nothing has this")
    assert cells.column("sampler") == []
    cells.filter("η=1 #1")
    cells.sort("N")
    lines = cells.download()
    assert [line["steps"] for line in lines] == ["2", "4", "8", "16", "32", "64"]
    assert {line["name"] for line in lines} == {"ddim η=1"}
    assert float(lines[0]["mean"]) == pytest.approx(4.0, abs=0.2)
    cells.filter(" ")
    cells.click("select[aria-label=run] option[value='#3']")
    assert set(cells.column("run")) == {"#3"}


def test_a_name_with_markup_is_text(opened):
    assert "<img src=x onerror=window.hit=1>" in Sheet(opened).column("data")
    assert opened.execute_script("return window.hit") is None
    assert opened.find_elements("css selector", "img") == []


def test_the_differences_are_a_table_of_their_own(opened):
    differences = Sheet(opened, "differences")
    assert differences.numbers("difference") == pytest.approx([-0.3] * 4)
    assert set(differences.column("verdict")) == {"the first is nearer"}
    differences.sort("#1")
    differences.sort("#1")
    means = differences.numbers("#1")
    assert means == sorted(means, reverse=True)
    differences.filter("η=1")
    assert set(differences.column("sampler")) == {"ddim η=1"}
    assert "of 2 cells (4 in all)" in differences.shown()
    assert len(Sheet(opened).column("sampler")) == 26, "the other table stays as it is"
    downloaded = [float(line["first"]) for line in differences.download()]
    assert downloaded == pytest.approx(means[:2], rel=1e-3)


def test_the_evaluations_for_a_distance_and_the_group_of_the_command(opened):
    needed = Sheet(opened, "reach")
    needed.filter("η=0.5")
    assert needed.numbers("evaluations") == [8]  # 1 + .5 + 4/N
    (colour,) = opened.find_elements("css selector", "#distances select[name=colour]")
    assert colour.get_attribute("value") == "run"


def draw_all(browser):
    """Draw the charts outside of the visible part, too, as for a printer."""
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    charts = browser.find_elements("css selector", ".chart")
    until(lambda: all(chart.find_elements("css selector", ".main-svg") for chart in charts))
    return charts


def test_every_chart_is_drawn_and_a_click_in_its_legend_hides_a_curve(opened):
    charts = draw_all(opened)
    assert len(charts) >= 5
    figure = opened.find_element("css selector", "figure:has([data-distance])")
    chart = figure.find_element("css selector", ".chart")
    keys = until(lambda: figure.find_elements("css selector", ".legend button"))
    assert keys[0].get_attribute("textContent") == "Pareto front"
    hidden = "return arguments[0].data.filter(t => t.visible === false).length"
    assert opened.execute_script(hidden, chart) == 0
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", keys[-1])
    keys[-1].click()
    until(lambda: opened.execute_script(hidden, chart) > 0)
    assert keys[-1].get_attribute("aria-pressed") == "false"


def traces(browser, place=0):
    """Name, x and y of the curves of a chart of distances."""
    draw_all(browser)
    script = """return document.querySelector(`[data-distance="${arguments[0]}"]`).data
        .filter(t => t.name).map(t => ({name: t.name, x: t.x, y: t.y, colour: t.line.color}))"""
    return until(lambda: browser.execute_script(script, place))


def choose(browser, name, value):
    script = """const select = document.querySelector(`#distances select[name="${arguments[0]}"]`);
        select.value = arguments[1]; select.dispatchEvent(new Event("change"))"""
    browser.execute_script(script, name, value)


@pytest.mark.slow
def test_the_front_has_the_cells_that_none_beats(browser, tmp_path, rows, entry):
    steps = dict(zip([1, 2, 4, 6, 8], [5.0, 2.5, 2.6, 2.5, 1.0], strict=True))
    some = [
        replace(row, value=steps[row.steps]) if row.steps else row
        for row in rows(etas=[0.0], steps=list(steps), repetitions=2)
    ]
    write_report(gather([entry("#1", some)]), tmp_path / "out")
    visit(browser, tmp_path / "out" / "report.html")
    front, curve = traces(browser)
    assert (front["x"], front["y"]) == ([1, 2, 8], [5.0, 2.5, 1.0])
    assert curve["y"] == list(steps.values())


@pytest.fixture(scope="module")
def multirun(tmp_path_factory, rows, entry):
    """Two objectives with two seeds each: 22 curves are too many for one chart."""
    runs = [
        entry(
            f"#{place}",
            rows(objective=name, seed=seed, shift=up, etas=[k / 10 for k in range(11)]),
            overrides=[f"objective={name}", f"seed={seed}"],
        )
        for place, (name, seed, up) in enumerate(
            [("edm", 0, 0.0), ("edm", 1, 0.2), ("ncsn", 0, 50.0), ("ncsn", 1, 50.2)]
        )
    ]
    out = tmp_path_factory.mktemp("multirun") / "out"
    write_report(gather(labelled(runs)), out)
    return out / "report.html"


@pytest.mark.slow
def test_what_varies_is_found_and_what_is_hidden_is_counted(browser, multirun):
    visit(browser, multirun)
    cells = Sheet(browser)
    for words, run in (("ncsn seed=1", "ncsn · seed=1"), ("objective=edm seed=0", "edm · seed=0")):
        cells.filter(words)
        assert set(cells.column("run")) == {run}
        assert "of 33 cells (132 in all)" in cells.shown()
    (told,) = browser.find_elements("css selector", "#distances .shown")
    assert told.text.startswith("20 of 22 curves are shown: of each chart those that come nearest")
    choose(browser, "curves", "")
    assert told.text.startswith("22 of 22 curves are shown.")
    (words,) = browser.find_elements("css selector", "#distances .filter")
    words.send_keys("ncsn")
    assert told.text.startswith("11 of 22")
    assert {"ddim η=0 · ncsn", "Pareto front"} <= {trace["name"] for trace in traces(browser)}
    choose(browser, "seeds", "each")
    names = {trace["name"] for trace in traces(browser)}
    assert {"ddim η=0 · ncsn · seed=0", "ddim η=0 · ncsn · seed=1"} <= names


@pytest.mark.slow
def test_exact_scores_of_two_paths_have_the_colours_of_their_paths(browser, rows, entry, tmp_path):
    runs = []
    for place, (name, path) in enumerate([("edm", "edm"), ("flow", "rectified")]):
        learned = rows(objective=name, schedule=path, etas=[0.0], shift=place)
        exact = rows(denoiser="oracle", objective="", schedule=path, etas=[0.0], shift=place / 2)
        both = [*learned, *(row for row in exact if row.start)]
        runs.append(entry(f"#{place + 1}", both, overrides=[f"objective={name}"]))
    write_report(gather(labelled(runs), group="objective"), tmp_path / "out")
    visit(browser, tmp_path / "out" / "report.html")
    of_names = {}
    for trace in traces(browser):
        of_names.setdefault(trace["name"], []).append(trace["colour"])
    del of_names["Pareto front"]
    assert [len(colours) for colours in of_names.values()] == [2, 2]
    assert [len(set(colours)) for colours in of_names.values()] == [1, 1]
    assert len({colours[0] for colours in of_names.values()}) == 2


@pytest.mark.slow
def test_a_sampler_has_one_colour_and_the_axis_is_logarithmic_over_decades(browser, multirun):
    visit(browser, multirun)
    colours = {trace["name"]: trace["colour"] for trace in traces(browser)}
    assert colours["ddim η=0 · edm"] == colours["ddim η=0 · ncsn"] != colours["ddim η=0.1 · edm"]
    script = """return document.querySelector("[data-distance]").layout.yaxis.type"""
    assert browser.execute_script(script) == "log"
    choose(browser, "y", "linear")
    draw_all(browser)  # a chart that is out of view waits until it comes into view
    until(lambda: browser.execute_script(script) == "linear")
    choose(browser, "colour", "objective")
    by_objective = {trace["name"]: trace["colour"] for trace in traces(browser)}
    assert by_objective["ddim η=0 · edm"] == by_objective["ddim η=0.1 · edm"]
    assert by_objective["ddim η=0 · edm"] != by_objective["ddim η=0 · ncsn"]


@pytest.mark.slow
def test_it_fits_on_a_phone_and_a_dark_screen_is_dark(opened):
    draw_all(opened)
    phone = {"width": 420, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    width = "return document.documentElement.scrollWidth"
    until(lambda: opened.execute_script(width) == 420)
    # a wide table scrolls, and a shadow at its side says so
    (table,) = opened.find_elements("css selector", "#cells .scroll")
    assert opened.execute_script(
        "return arguments[0].scrollWidth > arguments[0].clientWidth", table
    )
    background = opened.execute_script("return getComputedStyle(arguments[0]).background", table)
    assert background.count("linear-gradient") == 4
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    colour = "return getComputedStyle(document.body).backgroundColor"
    light = opened.execute_script(colour)
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    try:
        assert (light, opened.execute_script(colour)) == ("rgb(255, 255, 255)", "rgb(20, 23, 26)")
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.slow
def test_thousands_of_cells_open_and_sort(browser, tmp_path, rows, entry):
    etas = [place / 300 for place in range(300)]
    many = entry("#1", rows(etas=etas, steps=range(1, 11), repetitions=2))
    write_report(gather([many]), tmp_path / "out")
    visit(browser, tmp_path / "out" / "report.html")
    cells = Sheet(browser)
    assert "1–30 of 3000" in cells.shown()
    cells.sort("mean")
    cells.sort("mean")
    assert cells.numbers("mean")[0] == pytest.approx(6.0, abs=0.3)
    cells.click(".next")
    assert "31–60 of 3000" in cells.shown()


def test_there_was_no_request_and_no_error(opened):
    """In this test and in those before that had this browser: another process has its own."""
    levels = {line["level"] for line in opened.get_log("browser")}
    assert not levels & {"SEVERE", "WARNING"}
    events = [json.loads(line["message"])["message"] for line in opened.get_log("performance")]
    schemes = {
        event["params"]["request"]["url"].split(":", 1)[0]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert "file" in schemes
    # chrome: is the first page of the browser
    assert schemes <= {"file", "data", "blob", "chrome", "chrome-untrusted"}

"""The page in a real browser: sorted, filtered, clicked, downloaded, without a request or an error.

It needs Chromium and its driver, such as Debian's packages chromium and chromium-driver.
"""

import csv
import json
import shutil
import time
from dataclasses import replace

import pytest

from samplerbench.report.compare import compare
from samplerbench.report.content import gather
from samplerbench.report.folder import write_report

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="no Chromium with chromedriver on the path (Debian: chromium chromium-driver)",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    home = tmp_path_factory.mktemp("browser")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(word)
    options.add_argument(f"--user-data-dir={home / 'profile'}")
    options.add_argument("--window-size=1280,900")
    logs = {"browser": "ALL", "performance": "ALL"}
    options.set_capability("goog:loggingPrefs", logs)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.downloads = home / "downloads"
    driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(driver.downloads)}
    )
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory, rows, entry):
    nasty = "<img src=x onerror=window.hit=1>"
    runs = [
        entry("#1", rows(etas=[0.0, 0.5, 1.0], steps=[2, 4, 8, 16, 32, 64])),
        entry("#2", rows(steps=[4, 16], shift=0.2, dataset=nasty)),
        entry("#3", rows(etas=[0.0, 1.0], steps=[4, 16], shift=0.3)),
    ]
    report = replace(gather(runs), comparison=compare(runs[0], runs[2]))
    out = tmp_path_factory.mktemp("page") / "out"
    write_report(report, out)
    return out / "report.html"


@pytest.fixture
def opened(browser, page):
    visit(browser, page)
    return browser


def visit(browser, page):
    """Open a page and wait for its table: on a busy machine `get` comes back before its script."""
    browser.get(page.as_uri())
    until(lambda: browser.find_elements("css selector", "#cells .sheet tbody td"))


def column(browser, title, sheet="#cells"):
    """The texts of a column of a table that is shown."""

    def read(what):
        # .text leaves out what is scrolled out of sight
        found = browser.find_elements("css selector", f"{sheet} .sheet {what}")
        return [one.get_attribute("textContent") for one in found]

    return read(f"tbody td:nth-child({read('th').index(title) + 1})")


def button(browser, title, sheet="#cells"):
    found = browser.find_elements("css selector", f"{sheet} .sheet th button")
    return next(one for one in found if one.get_attribute("textContent") == title)


def click(browser, element):
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
    return found


def test_a_click_on_a_title_sorts_and_another_turns_it(opened):
    click(opened, button(opened, "mean"))
    means = [float(text.split(" ±")[0]) for text in column(opened, "mean")]
    assert len(means) == 26
    assert means == sorted(means)
    cell = opened.find_element("css selector", "#cells th[aria-sort]")
    assert cell.get_attribute("aria-sort") == "ascending"
    click(opened, button(opened, "N"))
    click(opened, button(opened, "N"))
    steps = list(map(int, column(opened, "N")))
    assert steps == sorted(steps, reverse=True)
    assert steps[0] == 64
    assert len(opened.find_elements("css selector", "#cells th[aria-sort]")) == 1


def test_words_and_choices_filter(opened):
    field = opened.find_element("css selector", "#cells .filter")
    field.send_keys("η=0.5 above")
    assert set(column(opened, "sampler")) == {"ddim η=0.5"}
    assert "of 6 cells (26 in all)" in opened.find_element("css selector", "#cells .shown").text
    field.clear()
    field.send_keys("nothing has this")
    assert column(opened, "sampler") == []
    field.clear()
    field.send_keys(" ")
    choice = opened.find_element("css selector", "select[aria-label=run]")
    choice.find_element("css selector", "option[value='#3']").click()
    assert set(column(opened, "run")) == {"#3"}


def test_a_name_of_markup_is_text(opened):
    assert "<img src=x onerror=window.hit=1>" in column(opened, "data")
    assert opened.execute_script("return window.hit") is None
    assert opened.find_elements("css selector", "img") == []


def test_the_csv_is_what_the_table_shows(opened):
    opened.find_element("css selector", "#cells .filter").send_keys("η=1 #1")
    click(opened, button(opened, "N"))
    click(opened, opened.find_element("css selector", "#cells .csv"))
    path = opened.downloads / "cells.csv"
    until(path.is_file)
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["steps"] for line in lines] == ["2", "4", "8", "16", "32", "64"]
    assert {line["name"] for line in lines} == {"ddim η=1"}
    assert float(lines[0]["mean"]) == pytest.approx(4.0, abs=0.2)
    path.unlink()


def test_the_differences_sort_and_filter_by_themselves(opened):
    sheet = "#differences"

    def shown(title):
        return column(opened, title, sheet)

    assert opened.find_element("id", "differences").is_displayed()
    gaps = [float(text.split(" ±")[0]) for text in shown("difference")]
    assert gaps == pytest.approx([-0.3] * 4)
    assert set(shown("verdict")) == {"the first is nearer"}
    click(opened, button(opened, "#1", sheet))
    click(opened, button(opened, "#1", sheet))
    means = list(map(float, shown("#1")))
    assert means == sorted(means, reverse=True)
    field = opened.find_element("css selector", f"{sheet} .filter")
    field.send_keys("η=1")
    assert set(shown("sampler")) == {"ddim η=1"}
    count = opened.find_element("css selector", f"{sheet} .shown")
    assert "of 2 cells (4 in all)" in count.text
    assert len(column(opened, "sampler")) == 26, "the other table stays as it is"
    click(opened, opened.find_element("css selector", f"{sheet} .csv"))
    path = opened.downloads / "differences.csv"
    until(path.is_file)
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["first"]) for line in lines] == pytest.approx(means[:2], rel=1e-3)
    path.unlink()


def test_a_click_in_the_legend_hides_a_curve(opened):
    charts = opened.find_elements("css selector", ".chart")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", charts[2])
    toggles = until(lambda: charts[2].find_elements("css selector", ".legendtoggle"))
    hidden = "return arguments[0].data.filter(t => t.visible === 'legendonly').length"
    assert opened.execute_script(hidden, charts[2]) == 0
    toggles[-1].click()
    until(lambda: opened.execute_script(hidden, charts[2]) > 0)


def test_every_chart_is_drawn(opened):
    opened.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    charts = opened.find_elements("css selector", ".chart")
    assert len(charts) > 6
    done = (
        "return [...document.querySelectorAll('.chart')].every(c => c.querySelector('.main-svg'))"
    )
    until(lambda: opened.execute_script(done))
    # a page that no window of a phone has to be moved sideways for
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True},
    )
    width = "return document.documentElement.scrollWidth"
    until(lambda: opened.execute_script(width) == 400)
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_dark_is_dark(opened):
    colour = "return getComputedStyle(document.body).backgroundColor"
    light = opened.execute_script(colour)
    media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        assert (light, opened.execute_script(colour)) == ("rgb(255, 255, 255)", "rgb(20, 23, 26)")
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_ten_thousand_cells_open_and_sort(browser, tmp_path, rows, entry):
    etas = [place / 1000 for place in range(1000)]
    many = entry("#1", rows(etas=etas, steps=range(1, 11), repetitions=2))
    write_report(gather([many]), tmp_path / "out")
    visit(browser, tmp_path / "out" / "report.html")
    assert "1–30 of 10000" in browser.find_element("css selector", "#cells .shown").text
    click(browser, button(browser, "mean"))
    click(browser, button(browser, "mean"))
    assert float(column(browser, "mean")[0].split(" ±")[0]) == pytest.approx(6.0, abs=0.3)
    click(browser, browser.find_element("css selector", "#cells .next"))
    assert "31–60 of 10000" in browser.find_element("css selector", "#cells .shown").text


def test_there_was_no_request_and_no_error(browser):
    """Of all the tests before: they have one browser."""
    said = [line for line in browser.get_log("browser") if line["level"] in ("SEVERE", "WARNING")]
    assert said == []
    events = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    schemes = {
        event["params"]["request"]["url"].split(":", 1)[0]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert "file" in schemes
    # chrome: is the browser's own first page
    assert schemes <= {"file", "data", "blob", "chrome", "chrome-untrusted"}

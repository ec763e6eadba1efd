"""The page of a suite: the numbers of its script are those of Python; opened in a real browser."""

import json
import math
import re
import shlex
import zlib
from base64 import b64decode
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from helpers import until
from samplerbench.bench.suite import standing
from samplerbench.bench.suite.results import NOT_RECORDED, TARGETS
from samplerbench.errors import InvalidSetting
from samplerbench.report.suite_page import page_content, write_suite_page

NASTY = "<img src=x onerror=window.hit=1>"


@pytest.fixture(scope="module")
def results(suite):
    return suite()


@pytest.fixture(scope="module")
def page(results, suite_targets, tmp_path_factory):
    return write_suite_page(results, tmp_path_factory.mktemp("suite"), suite_targets)


@pytest.fixture
def opened(browser, page):
    return visit(browser, page)


def visit(browser, page, address=""):
    browser.get("about:blank")  # another address of the same page would not load it again
    browser.get(page.as_uri() + address)
    until(lambda: find(browser, "#standings tbody td") or find(browser, ".facts dt"))
    return browser


def find(browser, part):
    return browser.find_elements("css selector", part)


def texts(browser, part):
    return [element.get_attribute("textContent") for element in find(browser, part)]


def choose(browser, name, value):
    script = """const select = document.querySelector(arguments[0]);
        select.value = arguments[1]; select.dispatchEvent(new Event("change"))"""
    browser.execute_script(script, f"select[name={name}]", value)


def click(browser, part):
    element = find(browser, part)[0]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def traces(browser, part="#ecdf"):
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    until(lambda: find(browser, f"{part} .main-svg"))
    script = """return document.querySelector(arguments[0]).data.map((t) => ({
        name: t.name, x: t.x, y: t.y, mode: t.mode, colour: t.line.color}))"""
    return browser.execute_script(script, part)


#: Selections of the page and the same in Python: conditions on rows, and targets that are left.
SELECTIONS = [
    ({"grid": "common"}, {}),
    ({"grid": "own"}, {}),
    ({"grid": "own", "law": "two_moons", "path": "rectified"}, {}),
    ({"grid": "common", "quantity": "kl_law", "noise": "without"}, {"noise": False}),
    ({"grid": "own", "order": "2"}, {"order": 2.0}),
    ({"grid": "common", "targets": ["paired:0.1", "kl_law:0.03"]}, {"target": (0.1, 0.03)}),
]


def in_python(results, targets, selection, more):
    times = standing.runtimes(results, targets)
    for name in ("grid", "law", "path", "quantity"):
        if name in selection:
            times = times[times[name] == selection[name]]
    if "target" in more:
        paired = (times["quantity"] == "paired") & (times["target"] == more["target"][0])
        times = times[
            paired | (times["quantity"] == "kl_law") & (times["target"] == more["target"][1])
        ]
    for name in ("noise", "order"):
        if name in more:
            times = times[times[name] == more[name]]
    return times


@pytest.mark.parametrize(("selection", "more"), SELECTIONS)
def test_the_browser_computes_what_python_computes(opened, results, suite_targets, selection, more):
    times = in_python(results, suite_targets, selection, more)
    script = """return suite.standing(arguments[0]).lines.map((line) => ({
        name: suite.entrants[line.entrant].entrant, problems: line.problems, log2: line.mean,
        rank: line.rank,
        shares: suite.constants.at.map(line.share), toField: line.toField, tied: line.tied,
        ends: [line.lower, line.upper],
        solved: line.times.filter((time) => time !== undefined).map(String)}))"""
    lines = opened.execute_script(script, selection)
    table = standing.standing(times)
    assert {line["name"] for line in lines} == set(table["entrant"])
    assert len(lines) > 1
    of = {line["name"]: line for line in lines}
    for row in table.to_dict("records"):
        line = of[row["entrant"]]
        own = times[times["entrant"] == row["entrant"]]
        found = sorted(math.inf if text == "Infinity" else float(text) for text in line["solved"])
        assert found == sorted(own["runtime"])
        assert line["problems"] == row["problems"]
        if np.isclose(table["to_field"], row["to_field"]).sum() == 1:
            assert line["rank"] == row["rank"]
        assert line["shares"] == pytest.approx([row[f"solved_{n}"] for n in standing.AT])
        assert line["log2"] == pytest.approx(row["log2_runtime"])
        assert line["toField"] == pytest.approx(row["to_field"])
        # other random numbers: they matter little if there are several tasks
        width = row["upper"] - row["lower"]
        if len(own.drop_duplicates(standing.TASK)) > 5 and np.isfinite(width):
            assert line["ends"] == pytest.approx([row["lower"], row["upper"]], abs=0.2 * width)
    # equal means may change their places
    assert [line["toField"] for line in lines] == pytest.approx(list(table["to_field"]))


def test_an_interval_is_that_of_the_studentised_bootstrap(opened):
    random = np.random.default_rng(3)
    # of few values Student's interval can have an outer end: here both, and the lower one
    few = ([-4.0, -4.0, -3.0, 3.0, 4.0, 4.0], [0.0, 0.0, 0.1, 0.2, 1.0, 3.0])
    for values in map(
        np.array, (random.lognormal(0, 1, 40), random.normal(2, 1, 25), np.full(8, 3.0), *few)
    ):
        ends = opened.execute_script("return suite.interval(arguments[0])", values.tolist())
        expected = standing.interval(values)
        assert ends == pytest.approx(expected.tolist(), abs=0.05 * np.ptp(expected) + 1e-12)
        if len(values) == 6:  # Student's end has no random numbers
            assert ends[0] == pytest.approx(expected[0])
    script = "return suite.interval([3]).map(String)"
    assert opened.execute_script(script) == ["-Infinity", "Infinity"]


def test_ratios_agree_with_python(opened, results, suite_targets):
    names = ["unipc", "ddim η=0", "k_diffusion sample_lms", "sde_heun"]
    times = standing.runtimes(results, suite_targets)
    script = """const place = (name) => suite.entrants.findIndex(({entrant}) => entrant === name);
        const ratio = suite.ratio({grid: "own"}, place(arguments[0]), place(arguments[1]));
        return [ratio.value, ratio.lower, ratio.upper, ratio.tasks, ratio.problems]"""
    for a, b in pairwise(names):
        expected = standing.ratio(times, a, b, "own")
        value, lower, upper, tasks, problems = opened.execute_script(script, a, b)
        assert (tasks, problems) == (expected.tasks, expected.problems)
        assert value == pytest.approx(expected.value)
        width = math.log(expected.upper / expected.lower)
        assert math.log(lower / expected.lower) == pytest.approx(0, abs=0.12 * width)
        assert math.log(upper / expected.upper) == pytest.approx(0, abs=0.12 * width)


def test_the_figure_has_the_best_dozen_and_a_click_shows_another(opened, results, suite_targets):
    own = in_python(results, suite_targets, {"grid": "common"}, {})
    table = standing.standing(own)
    steps = [trace for trace in traces(opened) if trace["mode"] != "markers"]
    best = [name.replace("<", "&lt;").replace(">", "&gt;") for name in table["entrant"][:12]]
    assert [trace["name"] for trace in steps] == best
    shares = standing.shares(own)
    for trace in steps[:3]:
        curve = shares[shares["entrant"] == trace["name"]].set_index("nfe")["share"]
        inner = [(x, y) for x, y in zip(trace["x"], trace["y"], strict=True) if x in curve]
        assert [y for _, y in inner] == pytest.approx([curve[x] for x, _ in inner])
    # the entrant with failures has a cross
    assert "dpmpp_3m" in {trace["name"] for trace in traces(opened) if trace["mode"] == "markers"}
    assert texts(opened, "#shares .counts")[0].startswith("These samplers have 32 to 58 problems")
    last = table["entrant"].iloc[12]
    click(opened, f"#standings .mark[aria-label='show or hide {last}']")
    shown = last.replace("<", "&lt;").replace(">", "&gt;")
    assert shown in {trace["name"] for trace in traces(opened)}
    click(opened, "#shares .chips button")
    assert best[0] not in {trace["name"] for trace in traces(opened)}
    click(opened, "#shares .more button:last-child")
    assert traces(opened) == []
    click(opened, "#shares .more button")
    assert [trace["name"] for trace in traces(opened) if trace["mode"] != "markers"] == best


def test_choices_change_everything_and_stay_in_the_address(opened, page):
    assert texts(opened, ".chosen .shown") == ["58 problems of 10 tasks, 13 samplers"]
    choose(opened, "path", "vp_linear")
    assert texts(opened, ".chosen .shown") == ["3 problems of 1 task, 13 samplers"]
    assert len(find(opened, "#tasks figure")) == 1
    choose(opened, "path", "")
    choose(opened, "quantity", "kl_law")
    click(opened, ".targets summary")
    click(opened, ".targets button[value='kl_law:0.03']")
    choose(opened, "grid", "own")
    choose(opened, "noise", "without")
    words = "4 problems of 4 tasks, 11 samplers"
    assert texts(opened, ".chosen .shown") == [words]
    address = opened.execute_script("return location.hash")
    visit(opened, page, address)
    assert texts(opened, ".chosen .shown") == [words]
    assert (
        opened.execute_script("return document.querySelector('select[name=grid]').value") == "own"
    )


def test_the_table_is_sorted_by_a_click_and_filtered_by_words(opened):
    titles = texts(opened, "#standings th")
    place = titles.index("≤ 8") + 1
    click(opened, f"#standings th:nth-child({place}) button")
    shares = [
        float(t.removesuffix(" %")) for t in texts(opened, f"#standings td:nth-child({place})")
    ]
    assert len(shares) == 13
    assert shares == sorted(shares)
    find(opened, "#standings .filter")[0].send_keys("package=diffusers")
    names = texts(opened, f"#standings td:nth-child({titles.index('sampler') + 1})")
    assert len(names) == 2
    assert all("diffusers" in name for name in names)


def test_an_entrant_of_one_path_has_no_rank_beside_those_of_all(
    browser, results, suite_targets, tmp_path
):
    """The page says why, and has a rank for it on its path."""
    name = "azula DDIMSampler"
    some = results[(results["entrant"] != name) | (results["path"] == "vp_linear")]
    visit(browser, write_suite_page(some, tmp_path, suite_targets))
    (words,) = texts(browser, "#standings .unranked")
    assert words.startswith("1 sampler without a rank at the end: they have fewer than half")
    titles, last = texts(browser, "#standings th"), texts(browser, "#standings tr:last-child td")
    shown = dict(zip(titles, last, strict=True))
    assert (shown["rank"], shown["sampler"], shown["problems"]) == ("", name, "3 of 58")
    times = standing.runtimes(some, suite_targets)
    table = standing.standing(times[times["grid"] == "common"])
    script = "return suite.standing({grid: 'common'}).lines.map(({rank}) => rank)"
    ranks = [None if np.isnan(rank) else rank for rank in table["rank"].astype(float)]
    assert browser.execute_script(script) == ranks == [*range(1, 13), None]
    choose(browser, "path", "vp_linear")
    assert not find(browser, "#standings .unranked")[0].is_displayed()
    assert name in texts(browser, "#standings td a")
    choose(browser, "path", "")
    click(browser, "#standings tr:last-child td a")
    until(lambda: texts(browser, "#entrant .title") == [name])
    facts = dict(zip(texts(browser, ".facts dt"), texts(browser, ".facts dd"), strict=True))
    assert facts["rank"] == "none: it has 3 of the 58 problems, less than half"


def test_a_task_has_its_values_crosses_and_reasons(opened, results):
    choose(opened, "law", "grid_mixture")
    choose(opened, "path", "rectified")
    choose(opened, "quantity", "paired")
    (chart,) = find(opened, "#tasks .chart")
    task = f"#tasks [data-task='{chart.get_attribute('data-task')}']"
    drawn = traces(opened, task)
    here = results[
        (results["law"] == "grid_mixture")
        & (results["path"] == "rectified")
        & (results["quantity"] == "paired")
        & (results["grid"] == "common")
    ]
    (line,) = (t for t in drawn if t["name"] == "unipc" and t["mode"] != "markers")
    own = here[here["entrant"] == "unipc"].sort_values("nfe")
    assert line["x"] == own["nfe"].tolist()
    assert line["y"] == pytest.approx(own["value"].tolist(), rel=6e-4)
    (cross,) = (t for t in drawn if t["name"] == "dpmpp_3m" and t["mode"] == "markers")
    assert cross["x"] == [4, 8, 12]
    assert min(cross["y"]) > here["value"].max()
    assert "1 cannot be measured on any of them" in texts(opened, ".chosen .shown")[0]
    (reasons,) = texts(opened, "#tasks .reasons")
    assert "not measured: k_diffusion sample_lms (k-diffusion has no rectified path)" in reasons


def test_a_touched_point_tells_its_number_and_how_to_compute_it_again(opened, results):
    choose(opened, "quantity", "kl_law")
    choose(opened, "law", "two_moons")
    choose(opened, "path", "edm")
    (chart,) = find(opened, "#tasks .chart")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    until(lambda: chart.find_elements("css selector", ".main-svg"))
    names = [t["name"] for t in traces(opened, "#tasks .chart")]
    script = """const place = arguments[0], l = place._fullLayout;
        const box = place.getBoundingClientRect();
        const t = place.data[arguments[1]], k = t.x.indexOf(16);
        return [box.x + l._size.l + l.xaxis.c2p(t.x[k]), box.y + l._size.t + l.yaxis.c2p(t.y[k])]"""
    x, y = opened.execute_script(script, chart, names.index("unipc"))
    for below in (20, 0):
        moved = {"type": "mouseMoved", "x": x, "y": y + below}
        opened.execute_cdp_cmd("Input.dispatchMouseEvent", moved)
    (bar,) = find(opened, "#value")
    until(lambda: bar.is_displayed() and bar.text.startswith("×\nunipc on"))
    text = bar.get_attribute("textContent")
    key = ["law", "path", "quantity", "grid", "entrant", "nfe"]
    wanted = ["two_moons", "edm", "kl_law", "common", "unipc", 16]
    row = results[(results[key] == wanted).all(axis=1)].iloc[0]
    shown, lower, upper = map(float, re.search(r"([\d.e-]+) nats \[(.*), (.*)\]", text).groups())
    assert shown == float(f"{row['value']:.4g}")
    assert [lower, upper] == pytest.approx([row["lower"], row["upper"]], rel=0.01)
    assert "16 evaluations" in text
    assert f"identity {row['cell_id'][:10]}" in text
    assert "samplerbench 0.1.0" in text
    assert texts(opened, "#value .command") == [row["command"]]
    click(opened, "#value .close")
    assert not bar.is_displayed()


def test_an_entrant_has_a_page_of_its_own(opened, results, suite_targets):
    click(opened, "#standings td a[href*='deis']")
    until(lambda: texts(opened, "#entrant .title") == ["deis order=3"])
    facts = dict(zip(texts(opened, ".facts dt"), texts(opened, ".facts dd"), strict=True))
    assert facts["settings"] == "order = 3"
    assert facts["package"] == "samplerbench 0.1.0"
    assert facts["failed"] == "× 4 not a density"
    own = results[results["entrant"] == "deis order=3"]
    assert set(texts(opened, ".facts details p")) == set(own[own["grid"] == "common"]["command"])
    assert len(find(opened, "#tasks figure")) == 10
    assert len(texts(opened, "#entrant .ratios tbody tr")) == 3
    times = standing.runtimes(results, suite_targets)
    times = times[(times["grid"] == "common") & (times["entrant"] == "deis order=3")]
    shown = texts(opened, "#entrant .tables td.number")
    expected = [f"{t:.0f}" if np.isfinite(t) else "–" for t in times["runtime"]]
    assert sorted(shown) == sorted(expected)
    click(opened, "#entrant .tables td.number button")
    (command,) = texts(opened, "#value .command")
    assert command.startswith("samplerbench experiment=suite/v1/")
    opened.back()
    until(lambda: find(opened, "#suite")[0].is_displayed())
    assert not find(opened, "#entrant")[0].is_displayed()


def test_two_samplers_are_compared_by_law_and_path(opened):
    for name, value in (("a", "ddim η=0"), ("b", "unipc")):
        script = """return [...document.querySelector(arguments[0]).options]
            .find((option) => option.text === arguments[1]).value"""
        choose(opened, name, opened.execute_script(script, f"select[name={name}]", value))
    (words,) = texts(opened, "#compare .statement")
    assert re.fullmatch(
        r"ddim η=0 needs [\d.]+ times the evaluations of unipc, with a 95 % interval of .*\.", words
    )
    rows = texts(opened, "#compare tbody tr")
    assert [row.startswith(("law", "path", "error", "all")) for row in rows] == [True] * 10


def told(browser):
    """The parts of the bar of a number: its text, its command, and the values behind it."""
    (bar,) = find(browser, "#value")
    until(bar.is_displayed)
    number, command = texts(browser, "#value b")[-1], texts(browser, "#value > .command")[-1]
    return number, shlex.split(command), texts(browser, "#value .behind")[0]


@pytest.fixture
def again(command, capsys):
    """Runs the command of a number: what it prints."""

    def run(words):
        assert words[:3] == ["samplerbench", "suite", "table"]
        capsys.readouterr()
        assert command(*words[1:]) == 0
        return capsys.readouterr().out

    return run


def test_a_number_of_a_table_has_a_command_and_the_values_behind_it(opened, results, page):
    click(opened, "#compare tbody td.number button")
    text, words, behind = told(opened)
    assert re.match(r"[\d.]+ \[.* over \d+ tasks", text)
    assert words[:4] == ["samplerbench", "suite", "table", str(page.parent)]
    names = [word.partition("=")[2] for word in words[4:6]]
    own = results[results["entrant"].isin(names) & (results["grid"] == "common")]
    assert f"made of {len(own)} values" in behind
    assert all(one[:10] in behind for one in own["cell_id"])
    assert NOT_RECORDED in behind


@pytest.mark.slow
def test_a_computed_number_has_the_command_that_computes_it_and_the_values_behind_it(
    browser, results, again, tmp_path, monkeypatch
):
    """The commands run here, on the results beside the page."""
    monkeypatch.chdir(tmp_path)
    made = {"versions": '{"torch": "2.13.0"}', "machines": '[{"model": "A CPU", "threads": 1}]'}
    known, rows = results["grid"] == "common", results.copy()
    for name, text in made.items():
        rows[name] = np.where(known, text, NOT_RECORDED)
    page = write_suite_page(rows, Path("runs"), TARGETS)
    rows.to_parquet("runs/results.parquet", index=False)
    visit(browser, page.resolve())
    # the standings: every number of a row has the command of its row
    titles, row = texts(browser, "#standings th"), "#standings tbody tr:nth-child(2)"
    shown = dict(zip(titles, texts(browser, f"{row} td"), strict=True))
    number = f"{row} td:nth-child({titles.index('mean runtime') + 1}) button"
    click(browser, number)
    text, words, behind = told(browser)
    assert text == shown["mean runtime"]
    assert words[3:] == ["runs", f"entrant={shown['sampler']}", "grid=common"]
    (line,) = re.findall(r"^│ +\d.*", again(words), re.MULTILINE)
    rank, _, problems, *shares, _, mean = map(str.strip, line.strip("│").split("│"))
    assert [rank.rstrip("="), problems] == [shown["rank"].lstrip("≈ "), shown["problems"]]
    assert shares[-4:] == [shown[f"≤ {n}"].replace(" ", "") for n in standing.AT]
    assert mean.split()[0] == shown["mean runtime"].split()[0]
    own = rows[(rows["entrant"] == shown["sampler"]) & (rows["grid"] == "common")]
    assert f"made of {len(own)} values of {own['command'].nunique()} jobs" in behind
    for one in own.to_dict("records"):
        assert one["cell_id"][:10] in behind
        assert one["command"] in behind
    assert "torch 2.13.0; A CPU, 1 thread" in behind
    cells = len(find(browser, f"{row} td.number"))
    assert len(find(browser, f"{row} td.number .derived")) >= cells - 1  # without a failed one
    # the comparison, of a law on the grids of their own
    choose(browser, "grid", "own")
    for name, value in (("a", "unipc"), ("b", "ddim η=0")):
        script = """return [...document.querySelector(arguments[0]).options]
            .find((option) => option.text === arguments[1]).value"""
        choose(browser, name, browser.execute_script(script, f"select[name={name}]", value))
    lines = texts(browser, "#compare tbody tr td:nth-child(2)")
    place = lines.index("two_moons") + 1
    click(browser, f"#compare tbody tr:nth-child({place}) td:nth-child(3) button")
    text, words, behind = told(browser)
    choices = ["entrant=unipc", "over=ddim η=0", "law=two_moons", "grid=own"]
    assert words[3:] == ["runs", *choices]
    shape = r"(\S+) \[.*?\] over (\d+) tasks?, (\d+) problem"
    assert re.search(shape, again(words)).groups() == re.search(shape, text).groups()
    assert NOT_RECORDED in behind
    # every number of the table, the sentence above it, the figure and the view of an entrant
    assert len(find(browser, "#compare td.number .derived")) == len(
        find(browser, "#compare td.number")
    )
    click(browser, "#compare .statement .derived")
    text, words, _ = told(browser)
    assert words[3:] == ["runs", "entrant=unipc", "over=ddim η=0", "grid=own"]
    assert re.search(shape, text)
    visit(browser, page.resolve(), "#entrant=unipc&path=edm")
    click(browser, ".facts .derived")
    assert told(browser)[1][3:] == ["runs", "entrant=unipc", "path=edm", "grid=common"]
    click(browser, "#entrant .ratios .derived")
    assert again(told(browser)[1])


def test_names_are_text_and_nothing_is_loaded(opened, page):
    assert NASTY in texts(opened, "#standings td a")
    visit(opened, page, "#entrant=" + NASTY.replace(" ", "+").replace("=", "%3D"))
    assert texts(opened, "#entrant .title") == [NASTY]
    assert opened.execute_script("return window.hit") is None
    assert find(opened, "img") == []
    opened.get_log("performance")
    visit(opened, page)
    traces(opened)
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    sent = [
        m["params"]["request"]["url"]
        for m in messages
        if m["method"] == "Network.requestWillBeSent"
    ]
    assert {url.split(":")[0] for url in sent} <= {"file", "data", "about", "blob"}
    severe = [entry for entry in opened.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []


def test_every_job_is_listed(opened, results):
    assert set(texts(opened, "#about .jobs code")) == set(results["command"])


def test_one_entrant_with_a_value_of_zero_is_a_page(browser, results, suite_targets, tmp_path):
    one = results[(results["entrant"] == "unipc") & (results["grid"] == "own")].copy()
    one.loc[one["nfe"] >= 64, ["value", "lower"]] = 0.0  # an interval from 0 to something
    browser.get_log("browser")
    visit(browser, write_suite_page(one, tmp_path, suite_targets))
    assert len(find(browser, "#standings tbody tr")) == 1
    assert not find(browser, "#compare")[0].is_displayed()
    (curve,) = traces(browser, "#tasks .chart")
    assert curve["x"][-1] == 128
    assert 0 < curve["y"][-1] < min(curve["y"][:7]), "it is at the lower end of the axis"
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_it_fits_on_a_phone(opened, page):
    phone = {"width": 420, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        for address in ("", "#entrant=unipc"):
            visit(opened, page, address)
            opened.execute_script("dispatchEvent(new Event('beforeprint'))")
            until(lambda: find(opened, "#tasks .chart .main-svg"))
            assert opened.execute_script("return document.documentElement.scrollWidth") == 420
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_value_is_never_rounded_across_a_target(results, suite_targets):
    close = results[results["quantity"] == "paired"].head(3).copy()
    close["value"] = close["lower"] = close["upper"] = [0.1000001, 0.1, 0.0999999]
    values = page_content(close, suite_targets)["values"]["value"]
    assert [value <= 0.1 for value in values] == [False, True, True]
    assert (
        page_content(close.assign(value=0.123456), suite_targets)["values"]["value"] == [0.1235] * 3
    )


def test_a_value_of_two_grid_settings_is_there_once(results, suite_targets):
    content = page_content(results, suite_targets)
    peers = results["package"] != "samplerbench"
    once = peers & (results["grid"] == "own")
    assert len(content["values"]["id"]) == len(results) - once.sum()
    assert len(content["links"]["grid"]) == len(results)


def test_the_file_is_small_and_replaced(results, suite_targets, page, tmp_path):
    whole = page.read_text(encoding="utf-8")
    packed = re.search(r'id="content">(.*?)</script>', whole, re.S)[1]
    assert len(packed) < 30 * len(results)
    assert json.loads(zlib.decompress(b64decode(packed)))["tasks"]
    (tmp_path / "index.html").write_text("older")
    path = write_suite_page(results.head(50), tmp_path, suite_targets, "v7")
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert '<p class="kicker">samplerbench suite v7</p>' in text


def test_bad_results_are_refused(results, suite_targets, tmp_path):
    with pytest.raises(InvalidSetting, match="no column nfe"):
        write_suite_page(results.drop(columns="nfe"), tmp_path, suite_targets)
    with pytest.raises(InvalidSetting, match="quantity"):
        write_suite_page(results, tmp_path, {"paired": (1.0,)})
    with pytest.raises(InvalidSetting, match="no rows"):
        write_suite_page(results.head(0), tmp_path, suite_targets)
    assert list(tmp_path.iterdir()) == []

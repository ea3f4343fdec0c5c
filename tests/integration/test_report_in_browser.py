"""The report in a real browser: sort, filter, hide, zoom, by mouse and keys, in a narrow and in a wide window."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from benchmarks.records.examples import Example, Examples, write_examples
from benchmarks.records.read import load_records
from benchmarks.report.all_cases import leaderboard_page
from benchmarks.report.html import write_html
from benchmarks.report.spec import Group, ReportSpec, accuracy
from benchmarks.report.summary import summarise
from benchmarks.report.write import report
from tests.helpers.browser import NEEDS_BROWSER, browser, complaints, opened, requested
from tests.helpers.synthetic_runs import LEVEL, TYPES, write_suite

pytestmark = NEEDS_BROWSER
BAD = "<img src=x onerror=\"document.documentElement.dataset.run='yes'\">"


def examples_of(strategy: str, seed: int) -> Examples:
    """Nine questions of three kinds; STL is wrong on all, MTL right on all, the others in between."""
    stream = BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 30)).save(stream, "PNG")
    right = {"STL": 0, "MTL": 9}.get(strategy, 4 + seed)
    items = tuple(
        Example(
            item=place,
            question=f"{BAD} question {place}",
            right=("red",),
            given="red" if place < right else BAD,
            score=float(place < right),
            confidence=0.5,
            kind=TYPES[place % 3],
            pictures=("0",),
        )
        for place in range(9)
    )
    return Examples(items, {"0": stream.getvalue()}, kinds="Question type")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_suite(tmp_path_factory.mktemp("suite"), seeds=2, items=60)
    for run in load_records(root, "demo", "default").finished:
        write_examples(run.folder, examples_of(run.strategy, run.seed))
    spec = ReportSpec(f"Demo {BAD}", accuracy(), groups=(Group("question_type", "question type"),), notes=(BAD,))
    return report("demo", "default", root, spec=spec, known=tuple(LEVEL), console=Console(file=StringIO())).html


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def column(driver: Any, title: str, place: int) -> list[str]:
    """The shown cells of a column in the table under a heading."""
    script = """
    const titled = each => each.querySelector("h2").textContent === arguments[0];
    const section = [...document.querySelectorAll("section")].find(titled);
    const rows = [...section.querySelector("tbody").rows].filter(row => !row.hidden);
    return rows.map(row => row.cells[arguments[1]].innerText);
    """
    return driver.execute_script(script, title, place)


TITLE = "Equal steps: every strategy runs as long as MTL"


@pytest.mark.parametrize("width", [375, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_asks_no_host_and_runs_no_foreign_script(driver: Any, page: Path, width: int, dark: bool) -> None:
    opened(driver, page, width, dark=dark)
    found = driver.execute_script("""
        const root = document.documentElement;
        return [root.dataset.ready, root.dataset.run ?? "", root.scrollWidth <= innerWidth,
                [...document.querySelectorAll(".scroll")].every(each => each.scrollWidth <= each.clientWidth + 1)]
    """)
    assert found == ["1", "", True, True]
    assert complaints(driver) == []
    assert requested(driver) == {page.as_uri()}
    background = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(21, 24, 28)" if dark else "rgb(255, 255, 255)")


def test_a_column_sorts_by_click_and_by_key(driver: Any, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(driver, page, 1400)
    before = column(driver, TITLE, 0)
    head = driver.find_element("xpath", f"//section[h2='{TITLE}']//th[3]/button")
    head.click()
    values = [float(cell.split(" ")[0]) for cell in column(driver, TITLE, 2)[:5]]
    assert values == sorted(values, reverse=True)
    assert column(driver, TITLE, 0)[5:] == before[5:], "floors stay below"
    head.send_keys(Keys.ENTER)
    values = [float(cell.split(" ")[0]) for cell in column(driver, TITLE, 2)[:5]]
    assert values == sorted(values)
    assert driver.execute_script("return arguments[0].parentElement.ariaSort", head) == "ascending"
    driver.find_element("xpath", f"//section[h2='{TITLE}']//th[1]/button").click()
    assert column(driver, TITLE, 0)[:5] == sorted(LEVEL, key=str.lower)


def test_a_narrow_window_sorts_by_a_list(driver: Any, page: Path) -> None:
    from selenium.webdriver.support.ui import Select

    opened(driver, page, 375)
    select = driver.find_element("xpath", f"//section[h2='{TITLE}']//select")
    assert select.is_displayed()
    Select(select).select_by_value("2 1")
    values = [float(cell.split(" ")[0]) for cell in column(driver, TITLE, 2)[:5]]
    assert values == sorted(values)
    Select(select).select_by_value("")
    assert column(driver, TITLE, 0)[0] == "STL"


@pytest.mark.parametrize("width", [375, 1400])
def test_the_gallery_shows_most_different_first_and_filters(driver: Any, page: Path, width: int) -> None:
    from selenium.webdriver.support.ui import Select

    opened(driver, page, width)
    cards = driver.find_elements("css selector", ".item")
    assert len(cards) == 9
    assert "question 5" in cards[0].text, "there all but two seeds of three strategies are wrong: scores differ most"
    order, kind, which = map(Select, driver.find_elements("css selector", ".asked select"))

    def shown() -> list[str]:
        return [card.text for card in driver.find_elements("css selector", ".item") if card.is_displayed()]

    kind.select_by_visible_text("colour")
    assert len(shown()) == 3
    assert all("colour" in text for text in shown())
    order.select_by_value("written")
    assert ["question 1" in shown()[0], "question 4" in shown()[1]] == [True, True]
    which.select_by_value("right")
    assert shown() == [], "STL is wrong on every item"
    which.select_by_value("")
    kind.select_by_value("")
    order.select_by_value("worst")
    assert all("question" in text and "✗" in text for text in shown())
    assert len(shown()) == 9
    assert complaints(driver) == []


def test_a_strategy_is_hidden_by_its_legend_and_values_are_named(driver: Any, page: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    opened(driver, page, 1400)
    chart = driver.find_element("css selector", "figure.chart")
    button = chart.find_element("xpath", ".//li[@data-name='Switch']/button")
    series = chart.find_element("css selector", ".series[data-name='Switch']")
    assert series.is_displayed()
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert not series.is_displayed()
    button.send_keys(Keys.SPACE)
    assert series.is_displayed()

    svg, value = chart.find_element("css selector", "svg.plot"), chart.find_element("css selector", ".value")
    ActionChains(driver).move_to_element(series.find_element("css selector", ".mark")).perform()
    assert "of full MTL's training FLOPs" in value.text
    mark = chart.find_element("css selector", ".series[data-name='MTL'] .mark")
    place = mark.get_attribute("transform")
    svg.send_keys(Keys.ARROW_RIGHT)
    named = value.text
    svg.send_keys(Keys.ARROW_RIGHT)
    assert value.text not in ("", named)
    svg.send_keys("+")
    assert mark.get_attribute("transform") != place
    svg.send_keys("0")
    assert mark.get_attribute("transform") == place
    chart.find_element("xpath", ".//button[text()='Everything']").click()
    assert mark.get_attribute("transform") != place
    ActionChains(driver).move_to_element_with_offset(svg, -80, -60).click_and_hold().move_by_offset(
        120, 80
    ).release().perform()
    dragged = mark.get_attribute("transform")
    ActionChains(driver).double_click(svg).perform()
    assert mark.get_attribute("transform") == place != dragged
    assert complaints(driver) == []


@pytest.mark.parametrize("width", [375, 1400])
def test_the_leaderboard_filters_rows(driver: Any, page: Path, tmp_path: Path, width: int) -> None:
    records = load_records(page.parents[2], "demo", "default")
    spec = ReportSpec("Demo", accuracy())
    summary = summarise(records, spec, benchmark="demo", recipe="default", known=tuple(LEVEL))
    board = tmp_path / "leaderboard.html"
    write_html(leaderboard_page([("demo", spec, summary), ("other", spec, summary)], (BAD,), "command"), [], board)
    opened(driver, board, width)
    title = "Every strategy in every view"
    assert len(column(driver, title, 0)) == 20
    driver.find_element("xpath", f"//section[h2='{title}']//input").send_keys("other Switch")
    assert column(driver, title, 0) == ["other", "other"]
    assert [text.split("\n")[-1] for text in column(driver, title, 1)] == ["Switch", "Switch"]
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert driver.find_element("link text", "demo").get_attribute("href").endswith("/demo/default/report.html")
    assert complaints(driver) == []
    assert requested(driver) == {board.as_uri()}


def test_without_scripts_everything_is_there(page: Path, tmp_path: Path) -> None:
    with browser(tmp_path / "profile", scripts=False) as still:
        opened(still, page, 1400)
        assert len(still.find_elements("css selector", ".item")) == 9
        marks = still.find_elements("css selector", ".chart .series[data-name='MTL'] .mark")
        assert marks
        assert all(mark.is_displayed() for mark in marks)
        assert not still.find_elements("css selector", "main button")
        assert still.find_element("css selector", ".finding").is_displayed()
        assert "question" in still.find_element("css selector", ".item h3").text

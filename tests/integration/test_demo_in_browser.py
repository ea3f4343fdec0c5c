"""The demo in a real browser: every tab by clicks and by keys, hostile files, narrow and wide, light and dark."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import mt2st
from mt2st.trained.occlusion import looked_at
from tests.helpers.browser import NEEDS_BROWSER, browser, complaints, opened, requested
from tests.helpers.shown_runs import HOSTILE, colour, png, write_shown_run
from tests.helpers.trained_folder import QUESTIONS

pytestmark = [NEEDS_BROWSER, pytest.mark.skipif(find_spec("gradio") is None, reason="needs the extra demo")]
ROOT = Path(__file__).parents[2]
SECONDS = 60  # to wait for what a page shows; a busy machine takes long


class Running:
    """A demo that runs in a process of its own, its runs, and where its temporary files go."""

    def __init__(self, folder: Path) -> None:
        self.runs = [write_shown_run(folder / "one", "MTL", "red"), write_shown_run(folder / "two", "Switch", "no")]
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        command = [sys.executable, "-m", "benchmarks", "demo", *map(str, self.runs), "--port", "0"]
        limits = ["--device", "cpu", "--most-megabytes", "0.2", "--most-megapixels", "1"]
        environment = {**os.environ, "TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT), "HOME": str(folder)}
        self.process = subprocess.Popen(
            [*command, *limits], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        self.told = self.process.stdout.readline()
        self.url = self.told.split()[1] + "/"

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(SECONDS)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("demo"))
    try:
        yield running
    finally:
        if running.process.poll() is None:
            assert running.end() == 0
        assert list(running.temporary.iterdir()) == [], "it leaves nothing behind"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def page(driver: Any, demo: Running) -> Callable[..., Any]:
    """Opens the page, and waits until it can be used."""

    def open_page(width: int = 1400, *, dark: bool = False) -> Any:
        opened(driver, demo.url, width, dark=dark)
        wait(driver, lambda: driver.find_elements("css selector", "#picker input"))
        wait(driver, lambda: driver.find_elements("css selector", "#examples button"))
        return driver

    return open_page


@pytest.fixture
def model(demo: Running) -> Any:
    return mt2st.load(demo.runs[0], device="cpu")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    path.write_bytes(png(colour(200, 90, 40, (60, 60))))
    return path


def wait(driver: Any, condition: Callable[[], Any]) -> Any:
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    waiting = WebDriverWait(driver, SECONDS, ignored_exceptions=[StaleElementReferenceException])
    return waiting.until(lambda _: condition())


def text_in(driver: Any, place: str, *parts: str) -> str:
    """What a place says, once it holds all `parts`."""

    def found() -> str:
        (element,) = driver.find_elements("css selector", f"#{place}")
        return element.text if all(part in element.text for part in parts) else ""

    return str(wait(driver, found))


def choose(driver: Any, path: Path) -> None:
    driver.find_element("css selector", "#picker input").send_keys(str(path))


def tab(driver: Any, name: str) -> Any:
    """The button of a tab, opened first where a narrow window folds it away."""
    return wait(
        driver,
        lambda: next(
            (each for each in driver.find_elements("css selector", "[role=tab]") if each.text.strip() == name), None
        ),
    )


def field(driver: Any, name: str) -> Any:
    return wait(driver, lambda: driver.find_element("css selector", f"#{name} input, #{name} textarea"))


def well(driver: Any, demo: Running) -> None:
    """Nothing complained, nothing was asked of another host, and no text became a script."""
    assert complaints(driver) == []
    foreign = {url for url in requested(driver) if not url.startswith((demo.url, "blob:"))}
    assert foreign == set()
    assert driver.title == "mt2st demo"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [375, 1400])
def test_the_page_fits_and_asks_no_other_host(page: Callable[..., Any], demo: Running, width: int, dark: bool) -> None:
    driver = page(width, dark=dark)
    for name in ("Ask", "Search", "Compare", "Why"):
        tab(driver, name).click()
        fits = driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        assert fits, name
    brightness = driver.execute_script("""
        const found = getComputedStyle(document.body).backgroundColor;
        return found.match(/[0-9.]+/g).slice(0, 3).reduce((sum, each) => sum + Number(each), 0) / 3;
    """)
    assert brightness < 80 if dark else brightness > 200
    well(driver, demo)


def test_ask_by_clicks(page: Callable[..., Any], demo: Running, picture: Path, model: Any) -> None:
    driver = page()
    choose(driver, picture)
    text_in(driver, "shown", "60 × 60 pixels")
    field(driver, "question").send_keys(QUESTIONS[0])
    driver.find_element("id", "ask").click()
    found = text_in(driver, "answers", "%")
    expected = model.answer(picture, QUESTIONS[0])
    assert found.split("\n")[0] == expected[0].text
    for answer in expected:
        assert f"{100 * answer.probability:.1f} %" in found
    assert "Right:" not in found, "nothing is known of this question"
    well(driver, demo)


def test_ask_an_example_by_keys(page: Callable[..., Any], demo: Running) -> None:
    from selenium.webdriver.common.keys import Keys

    driver = page(375)
    button = driver.find_elements("css selector", "#examples button")[1]
    driver.execute_script("arguments[0].focus()", button)
    button.send_keys(Keys.ENTER)
    found = text_in(driver, "answers", "Right: red", "this run said red (61 % sure), right.")
    assert field(driver, "question").get_attribute("value") == QUESTIONS[1]
    text_in(driver, "shown", "40 × 24 pixels")
    field(driver, "question").send_keys(Keys.HOME, "x", Keys.ENTER)  # another question, so nothing is known
    wait(driver, lambda: "Right:" not in driver.find_element("id", "answers").text)
    assert "%" in found
    well(driver, demo)


def test_hostile_text_stays_text(page: Callable[..., Any], demo: Running) -> None:
    driver = page()
    driver.find_elements("css selector", "#examples button")[2].click()
    text_in(driver, "answers", "Right: red")
    assert field(driver, "question").get_attribute("value") == HOSTILE
    tab(driver, "Why").click()
    driver.find_element("id", "why").click()
    text_in(driver, "looked", "speak for it most")
    well(driver, demo)


def test_search_by_text_and_by_the_picture(page: Callable[..., Any], demo: Running, picture: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    driver = page(375)
    tab(driver, "Search").click()
    driver.find_element("id", "by-picture").click()
    text_in(driver, "hits", "choose a picture first")
    field(driver, "query").send_keys("a red circle", Keys.ENTER)
    found = text_in(driver, "hits", "The best 4 of 4 pictures", "test picture 0")
    scores = [float(line.split()[0]) for line in found.split("\n") if line[:1] in "-01"]
    assert scores == sorted(scores, reverse=True)
    driver.find_elements("css selector", "#examples button")[3].click()
    text_in(driver, "shown", "40 × 24 pixels")
    driver.find_element("id", "by-picture").click()
    text_in(driver, "hits", "1.000 test picture 3")
    assert len(driver.find_elements("css selector", "#hits img")) == 4
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    well(driver, demo)


@pytest.mark.parametrize("width", [375, 1400])
def test_compare_two_runs(page: Callable[..., Any], demo: Running, width: int) -> None:
    driver = page(width)
    driver.find_elements("css selector", "#examples button")[0].click()
    text_in(driver, "shown", "40 × 24 pixels")
    tab(driver, "Compare").click()
    driver.find_element("id", "both-ask").click()
    said = ("this run said red (61 % sure), right.", "this run said no (61 % sure), wrong.")
    text_in(driver, "compared", "MTL, seed 0", "Switch, seed 0", *said)
    columns = driver.find_elements("css selector", ".mt-pair section")
    beside = abs(columns[0].location["y"] - columns[1].location["y"]) < 5
    assert beside == (width == 1400)
    field(driver, "both-query").send_keys("a red circle")
    driver.find_element("id", "both-search").click()
    text_in(driver, "compared", "The best 4 of 4 pictures")
    assert len(driver.find_elements("css selector", "#compared img")) == 8
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    well(driver, demo)


@pytest.mark.parametrize("width", [375, 1400])
def test_why_shows_the_patches(page: Callable[..., Any], demo: Running, picture: Path, model: Any, width: int) -> None:
    driver = page(width)
    choose(driver, picture)
    field(driver, "question").send_keys(QUESTIONS[0])
    text_in(driver, "shown", "60 × 60 pixels")
    tab(driver, "Why").click()
    driver.find_element("id", "why").click()
    seen = looked_at(model, picture, QUESTIONS[0])
    row, column = seen.strongest
    text_in(driver, "looked", seen.answer, f"row {row + 1}, column {column + 1}: ")
    assert len(driver.find_elements("css selector", "#looked rect")) == 64
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    well(driver, demo)


def bomb() -> bytes:
    """A PNG of a hundred bytes that claims 60,000 × 60,000 pixels."""
    content = bytearray(png(colour(1, 2, 3)))
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    return bytes(content)


HOSTILE_FILES = {
    "text.png": (b"no picture", "cannot be decoded"),
    "cut.png": (png(colour(9, 9, 9))[:90], "cannot be decoded"),
    "bomb.png": (bomb(), "above the limit"),
    "script.svg": (b"<svg xmlns='http://www.w3.org/2000/svg' onload='document.title=1'/>", "cannot be decoded"),
    "large.png": (b"\x89PNG\r\n\x1a\n" + bytes(300_000), "choose a file of at most 0.2 MB"),
    "pixels.png": (png(colour(9, 9, 9, (1200, 900))), "1200×900 pixels above the limit"),
    "<b>name.png": (b"", "cannot be decoded"),
}


def test_hostile_files_are_refused_in_one_line(page: Callable[..., Any], demo: Running, tmp_path: Path) -> None:
    driver = page()
    field(driver, "question").send_keys(QUESTIONS[0])
    for name, (content, reason) in HOSTILE_FILES.items():
        (tmp_path / name).write_bytes(content)
        choose(driver, tmp_path / name)
        if name == "large.png":  # the page itself refuses it
            text_in(driver, "picker", reason)
            text_in(driver, "shown", "choose a picture first")
        else:
            text_in(driver, "picker", name)
            text_in(driver, "shown", reason)
        driver.find_element("id", "ask").click()
        text_in(driver, "answers", "choose a picture first" if name == "large.png" else reason)
    assert list(demo.temporary.rglob("*.png")) == []
    well(driver, demo)


def answer_of(request: urllib.request.Request | str) -> tuple[int, Any]:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=SECONDS) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


def test_only_the_page_is_served(demo: Running) -> None:
    status, headers = answer_of(demo.url)
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    for path in ("upload", "file=/etc/passwd", "file/etc/passwd", "proxy=http://127.0.0.1/", "process_recording"):
        assert answer_of(f"{demo.url}gradio_api/{path}")[0] == 404
    for path in ("docs", "monitoring", "login", "gradio_api/runs", "gradio_api/../gradio_api/upload"):
        assert answer_of(demo.url + path)[0] == 404
    large = urllib.request.Request(demo.url + "gradio_api/queue/join", data=b"{" + b" " * 400_000 + b"}")
    assert answer_of(large)[0] == 413
    upload = urllib.request.Request(demo.url + "gradio_api/upload", data=b"x", method="POST")
    assert answer_of(upload)[0] == 404
    assert "for this machine alone" in demo.told

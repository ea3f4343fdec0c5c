"""What the demo does without its page: uploads, runs that it cannot show, what two runs share, text that stays text."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.cli import main
from benchmarks.demo.functions import Demo
from benchmarks.demo.html import answers, example_buttons, hits, said
from benchmarks.demo.options import Options
from benchmarks.demo.server import Guard
from benchmarks.demo.uploads import data_address, decoded
from mt2st.errors import Mt2stError
from tests.helpers.shown_runs import HOSTILE, colour, png, write_shown_run
from tests.helpers.trained_folder import QUESTIONS

LIMITS = {"most_bytes": 1000, "most_pixels": 2000}


def address(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def test_a_picture_comes_through_as_it_is_whatever_its_type_says() -> None:
    picture = colour(1, 200, 3)
    found = decoded(address(png(picture), "text/html"), **LIMITS)
    assert found.tobytes() == picture.tobytes()
    assert decoded(data_address(picture), **LIMITS).size == (40, 24)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("", "choose a picture first"),
        ("https://a.example/x.png", "this is no picture"),
        ("file:///etc/passwd", "this is no picture"),
        ("data:", "this is no picture"),
        ("data:image/png,abc", "this is no picture"),
        ("data:image/png;base64,*", "arrived damaged"),
        (address(b""), "cannot be decoded"),
        (address(b"<svg/>"), "cannot be decoded"),
        (address(png(colour(1, 2, 3))[:60]), "cannot be decoded"),
        (address(bytes(1100)), "larger than 0.001 MB; choose a smaller one"),
        (address(png(Image.new("RGB", (60, 50)))), "60×50 pixels above the limit"),
    ],
)
def test_other_uploads_are_refused_in_one_line_that_is_for_people(given: str, reason: str) -> None:
    with pytest.raises(Mt2stError, match=reason) as caught:
        decoded(given, **LIMITS)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value), "who uses a page has no command line"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("shown")
    runs = (write_shown_run(folder / "one", "MTL", "red"), write_shown_run(folder / "two", "Switch", "no"))
    return Demo(Options(runs, device="cpu"))


def test_an_example_has_its_right_answer_and_what_each_run_said_of_it(demo: Demo) -> None:
    picture, question = demo.example_picture(1), demo.examples[1].question
    one, two = demo.ask_all(picture, question)
    assert (one.example, two.example) != (None, None)
    assert "this run said <b>red</b> (61 % sure), right." in answers(one)
    assert "this run said <b>no</b> (61 % sure), wrong." in answers(two)
    assert demo.ask(picture, "another question?").example is None
    assert demo.ask(demo.example_picture(0), question).example is None, "another picture"
    with pytest.raises(Mt2stError, match="example 4 is none of 4"):
        demo.example_picture(4)


def test_texts_stay_texts(demo: Demo) -> None:
    found = [example_buttons([demo.example_picture(2)], [demo.examples[2]])]
    found.append(answers(demo.ask(demo.example_picture(2), HOSTILE)))
    found.append(said(lambda: answers(demo.ask("", HOSTILE))))
    found.append(said(lambda: hits(demo.search_text(HOSTILE * 40))))
    assert not any("<img src=x" in text for text in found)
    assert "write at most 1,000" in found[-1]


def test_without_examples_or_with_one_run_it_says_what_to_do(tmp_path: Path) -> None:
    run = write_shown_run(tmp_path / "run", "MTL", "red")
    (run / "examples.json").unlink()
    demo = Demo(Options((run,), device="cpu"))
    assert demo.examples == ()
    with pytest.raises(Mt2stError, match="start the demo with --gallery FOLDER"):
        demo.search_text("red")
    with pytest.raises(Mt2stError, match="demo RUN RUN2"):
        demo.ask_all(data_address(colour(1, 2, 3)), QUESTIONS[0])


def test_a_run_of_retrieval_is_searched_and_explained(tmp_path: Path) -> None:
    demo = Demo(Options((write_shown_run(tmp_path / "run", "MTL", "", answers=()),), device="cpu"))
    picture = data_address(colour(220, 30, 30))
    assert demo.examples == ()
    assert demo.search_picture(picture).hits[0].score == pytest.approx(1, abs=1e-5)
    why = demo.why(picture, "a red circle")
    assert (why.is_answer, why.seen.answer) == (False, "a red circle")
    with pytest.raises(Mt2stError, match="does not answer questions"):
        demo.ask(picture, "what colour is it?")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["RUN", "RUN", "RUN"], "demo shows one run or two, not 3"),
        (["RUN", "--port", "70000"], "port = 70000"),
        (["RUN", "--most-megabytes", "0"], "most_megabytes = 0"),
        (["RUN", "--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid:7860"),
    ],
)
def test_bad_options_are_one_line(options: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", *options]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1


def sent(guard: Guard, method: str, path: str, *parts: bytes) -> list[dict[str, Any]]:
    """What an ASGI application sends back."""
    import asyncio

    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    found: list[dict[str, Any]] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        found.append(message)

    asyncio.run(guard({"type": "http", "method": method, "path": path}, receive, send))
    return found


def test_the_guard_serves_known_paths_and_small_bodies_alone() -> None:
    asked: list[bytes] = []

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        asked.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Cache-Control", b"public")]})
        await send({"type": "http.response.body", "body": asked[-1]})

    guard = Guard(echo, 10)
    start, body = sent(guard, "POST", "/gradio_api/queue/join", b"12345", b"67890")
    assert (start["status"], body["body"]) == (200, b"1234567890")
    headers = dict(start["headers"])
    assert re.match("default-src 'none'; .*connect-src 'self'", headers[b"content-security-policy"].decode())
    assert headers[b"cache-control"] == b"no-store"
    assert sent(guard, "POST", "/gradio_api/queue/join", b"12345", b"678901")[0]["status"] == 413
    for path in ("/gradio_api/upload", "/gradio_api/file=/etc/passwd", "/assets/../../etc/passwd", "/docs", ""):
        assert sent(guard, "GET", path)[0]["status"] == 404
    assert len(asked) == 1, "what is refused never arrives"

"""`python -m mt2st predict`: what is asked, what is written, and what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import mt2st
from mt2st.__main__ import main
from tests.helpers.trained_folder import QUESTIONS, pictures, write_run


@pytest.fixture
def places(tmp_path: Path) -> tuple[str, str]:
    """A run's folder and a folder of pictures a.png, b.png and deep/c.png."""
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for name, picture in zip(("a.png", "b.png", "deep/c.png"), pictures(3), strict=True):
        picture.save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return str(write_run(tmp_path / "run")), str(folder)


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_one_question_for_every_picture(places: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    run, folder = places
    assert (
        main(["predict", run, "--images", folder, "--question", QUESTIONS[0], "--top", "2", "--batch-size", "1"]) == 0
    )
    printed = capsys.readouterr()
    found = rows(printed.out)
    assert [Path(row["image"]).name for row in found] == ["a.png", "b.png", "c.png"]
    model = mt2st.load(run)
    for row in found:
        expected = model.answer(row["image"], QUESTIONS[0], top=2)
        assert [answer["answer"] for answer in row["answers"]] == [answer.text for answer in expected]
        assert row["answer"] == expected[0].text
        assert row["probability"] == pytest.approx(expected[0].probability, abs=1e-5)
    assert "3 answers in " in printed.err


@pytest.mark.parametrize("form", ["lines", "list", "challenge"])
def test_a_file_of_questions(places: tuple[str, str], tmp_path: Path, form: str) -> None:
    run, folder = places
    asked = [
        {"question_id": 9, "image": "b.png", "question": QUESTIONS[1]},
        {"question_id": 4, "image": "deep/c.png", "question": QUESTIONS[0]},
        {"question_id": 5, "image": "b.png", "question": QUESTIONS[0]},
    ]
    file = tmp_path / "questions"
    if form == "lines":
        file.write_text("\n".join(json.dumps(row) for row in asked) + "\n\n")
    else:
        named = [{**row, "image_id": Path(row.pop("image")).stem} for row in map(dict, asked)]
        file.write_text(json.dumps({"questions": named} if form == "challenge" else asked))
        (Path(folder) / "c.png").write_bytes((Path(folder) / "deep" / "c.png").read_bytes())
    out = tmp_path / "results" / "answers.json"
    arguments = ["predict", run, "--images", folder, "--questions", str(file), "--format", "vqa", "--out", str(out)]
    assert main([*arguments, "--image-name", "{image_id}.png"]) == 0
    found = json.loads(out.read_text())
    assert [set(row) for row in found] == [{"question_id", "answer"}] * 3
    assert [row["question_id"] for row in found] == [9, 4, 5]
    model = mt2st.load(run)
    assert [row["answer"] for row in found] == [
        model.answer(Path(folder) / row["image"], row["question"])[0].text for row in asked
    ]


def test_a_bad_picture_ends_all_or_is_left_out(
    places: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = places
    (Path(folder) / "b.png").write_bytes(b"torn")
    out = tmp_path / "answers.jsonl"
    arguments = ["predict", run, "--images", folder, "--question", "red?", "--out", str(out)]
    assert main(arguments) == 2
    assert "b.png" in capsys.readouterr().err
    assert not out.exists()
    assert main([*arguments, "--on-error", "skip"]) == 1
    assert [Path(row["image"]).name for row in rows(out.read_text())] == ["a.png", "c.png"]
    assert "1 questions have no answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--images", "{folder}/*.gif", "--question", "?"], "holds no pictures"),
        (["--images", "{folder}", "--question", "?", "--top", "0"], "--top 0 must be ≥ 1"),
        (["--images", "{folder}", "--question", "?", "--format", "vqa"], "needs question_ids"),
        (["--images", "{folder}/a.png", "--questions", "{file}"], "is no folder; --questions names the pictures"),
        (["--images", "{folder}", "--questions", "{file}"], "line 2 needs the texts question and image"),
        (["--images", "{folder}", "--questions", "nowhere"], "nowhere does not exist"),
        (["--images", "{folder}", "--questions", "{folder}/notes.txt"], "line 1 is no JSON"),
        (["--images", "{folder}", "--questions", "{folder}/a.png"], "is not UTF-8 text"),
    ],
)
def test_wrong_usage_is_one_line(
    places: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    run, folder = places
    file = tmp_path / "questions.jsonl"
    file.write_text('{"image": "a.png", "question": "?"}\n{"image": 7, "question": "?"}\n')
    assert main(["predict", run, *(word.format(folder=folder, file=file) for word in more)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_run_without_answers(places: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "retrieval", answers=())
    assert main(["predict", str(run), "--images", places[1], "--question", "?"]) == 2
    assert "does not answer questions" in capsys.readouterr().err

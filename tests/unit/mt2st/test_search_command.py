"""`python -m mt2st search`: galleries that are kept, go on and change; every way to ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mt2st
from mt2st.__main__ import main
from mt2st.trained import gallery as galleries
from mt2st.trained.gallery import embed_gallery
from tests.helpers.trained_folder import QUESTIONS, pictures, write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", answers=())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven pictures, one in a folder inside."""
    place = tmp_path / "pictures"
    (place / "deep").mkdir(parents=True)
    for number, picture in enumerate(pictures(7)):
        picture.save(place / ("deep/6.png" if number == 6 else f"{number}.png"))
    return place


def search(run: Path, capsys: pytest.CaptureFixture[str], *more: object) -> list[dict[str, Any]]:
    assert main(["search", str(run), "--json", *map(str, more)]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("index", ["exact", "faiss_cpu:Flat"])
def test_texts_and_pictures_find_what_is_nearest(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], index: str
) -> None:
    if index.startswith("faiss"):
        pytest.importorskip("faiss")
    wanted = folder / "3.png"
    places = ("--gallery", folder, "--cache", tmp_path / "cache", "--index", index, "--top", 7)
    by_text, by_picture = search(run, capsys, QUESTIONS[0], "--image", wanted, *places)
    model = mt2st.load(run)
    names = [str(path) for path in sorted(folder.rglob("*.png"))]
    for found, query in ((by_text, model.embed_texts([QUESTIONS[0]])), (by_picture, model.embed_images([wanted]))):
        scores = (model.embed_images(names) @ query.T)[:, 0]
        assert [row["name"] for row in found["results"]] == [names[at] for at in np.argsort(-scores, kind="stable")]
        assert [row["score"] for row in found["results"]] == pytest.approx(sorted(scores, reverse=True), abs=1e-5)
    assert by_picture["results"][0]["name"] == str(wanted)
    assert by_picture["results"][0]["score"] == pytest.approx(1, abs=1e-5)


def test_a_list_of_texts_is_searched_by_a_picture(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("\n\n".join(QUESTIONS) + "\n")
    (found,) = search(run, capsys, "--texts", file, "--image", folder / "1.png", "--top", 9)
    model = mt2st.load(run)
    scores = (model.embed_texts(QUESTIONS) @ model.embed_images([folder / "1.png"]).T)[:, 0]
    assert [row["name"] for row in found["results"]] == [QUESTIONS[at] for at in np.argsort(-scores)]


def test_a_gallery_is_embedded_once_and_follows_its_folder(run: Path, folder: Path, tmp_path: Path) -> None:
    model = mt2st.load(run)
    first = embed_gallery(model, folder, tmp_path / "cache")
    assert (first.embedded, len(first.names)) == (7, 7)
    again = embed_gallery(model, folder, tmp_path / "cache")
    assert again.embedded == 0
    assert again.names == first.names
    assert (again.embeddings == first.embeddings).all()
    (folder / "0.png").unlink()
    pictures(9)[8].save(folder / "1.png")
    pictures(9)[7].save(folder / "new.png")
    changed = embed_gallery(model, folder, tmp_path / "cache")
    assert changed.embedded == 2
    assert changed.names == ["1.png", "2.png", "3.png", "4.png", "5.png", "deep/6.png", "new.png"]
    expected = model.embed_images([folder / name for name in changed.names])
    assert np.allclose(changed.embeddings, expected, atol=1e-6)


def test_another_model_has_embeddings_of_its_own(run: Path, folder: Path, tmp_path: Path) -> None:
    first = embed_gallery(mt2st.load(run), folder, tmp_path / "cache")
    other = mt2st.load(write_run(tmp_path / "other", answers=()))
    second = embed_gallery(other, folder, tmp_path / "cache")
    assert second.embedded == 7
    assert not np.allclose(first.embeddings, second.embeddings)
    assert embed_gallery(mt2st.load(run), folder, tmp_path / "cache").embedded == 0


def test_what_was_interrupted_goes_on(run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = mt2st.load(run)
    monkeypatch.setattr(galleries, "_PART", 3)
    done: list[int] = []

    def stop(count: int) -> None:
        done.append(count)
        if sum(done) > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_gallery(model, folder, tmp_path / "cache", on_pictures=stop)
    found = embed_gallery(model, folder, tmp_path / "cache")
    assert found.embedded == 4
    assert np.allclose(found.embeddings, model.embed_images([folder / name for name in found.names]), atol=1e-6)


def test_a_torn_part_is_made_again(run: Path, folder: Path, tmp_path: Path) -> None:
    model = mt2st.load(run)
    embed_gallery(model, folder, tmp_path / "cache")
    (part,) = (tmp_path / "cache").rglob("part-*")
    part.write_bytes(part.read_bytes()[:100])
    assert embed_gallery(model, folder, tmp_path / "cache").embedded == 7


def test_a_picture_that_cannot_be_read_is_named(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "torn.png").write_bytes(b"torn")
    arguments = ["search", str(run), "red", "--gallery", str(folder), "--cache", str(tmp_path / "cache")]
    for embedded in ("8 embedded now, 0 kept", "0 embedded now, 8 kept"):
        assert main(arguments) == 1
        printed = capsys.readouterr()
        assert "left out: torn.png: " in printed.err
        assert embedded in printed.err
        assert len(printed.out.splitlines()) == 8  # the query and seven results


def test_the_page_is_whole_in_itself(run: Path, folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "found.html"
    query = "<script>alert(1)</script>"
    arguments = ["--gallery", str(folder), "--cache", str(tmp_path / "cache"), "--html", str(page), "--top", "2"]
    assert main(["search", str(run), query, *arguments]) == 0
    text = page.read_text()
    assert "<script" not in text
    assert text.count("<img src='data:image/png;base64,") == 2
    assert "http" not in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--gallery", "{folder}"], "nothing to look for"),
        (["x", "--gallery", "{folder}", "--top", "0"], "--top 0 must be ≥ 1"),
        (["x", "--gallery", "{folder}/nowhere"], "nowhere is no folder of pictures"),
        (["x", "--gallery", "{folder}", "--index", "exakt"], "index backend 'exakt'"),
        (["x", "--texts", "{folder}/0.png"], "is not UTF-8 text"),
    ],
)
def test_wrong_usage_is_one_line(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    arguments = [word.format(folder=folder) for word in more]
    assert main(["search", str(run), *arguments, "--cache", str(tmp_path / "cache")]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]

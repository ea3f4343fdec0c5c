"""The model of a finished `vqa --smoke`, used in every way from a folder where nothing else of the suite is."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mt2st
from benchmarks.cli import main
from benchmarks.demo.functions import Demo
from benchmarks.demo.html import answers, hits, map_of, said, side_by_side
from benchmarks.demo.options import Options
from benchmarks.demo.uploads import data_address
from mt2st.__main__ import main as use
from tests.integration.test_load_runs import DRAWN

SMOKE = [
    *("vqa", "--smoke", "--data", str(DRAWN), "--image-size", "16", "--steps", "8", "--validations", "1"),
    *("--views", "equal-steps", "--strategies", "MTL", "Switch", "--validation-fraction", "0.3", "--jobs", "1"),
    *("--images-per-batch", "4", "--caption-images-per-batch", "8", "--on-leak", "drop", "--label-fraction", "1"),
    *("--encoder.width", "16", "--encoder.embedding-width", "16", "--encoder.fusion-width", "16"),
    *("--encoder.stem-width", "4", "--encoder.vocabulary-size", "300"),
]
QUESTION = "what colour is it?"


def test_a_finished_smoke_run_is_used_in_every_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # -- a suite is made, two runs are copied, and all else is gone
    made, clean = tmp_path / "made", tmp_path / "clean"
    assert main([*SMOKE, "--data-folder", str(made / "data"), "--results", str(made / "results")]) == 0
    folder = made / "results" / "vqa" / "default-smoke"
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")
    clean.mkdir()
    for strategy in ("mtl", "switch"):
        shutil.copytree(next(folder.glob(f"{strategy}-*")), clean / strategy)
    shutil.rmtree(made)
    monkeypatch.chdir(clean)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    # -- load
    model = mt2st.load("mtl", device="cpu")
    pictures = [Image.new("RGB", (20, 30), colour) for colour in ("red", "blue", "white")]
    Path("pictures").mkdir()
    for place, picture in enumerate(pictures):
        picture.save(f"pictures/{place}.png")
    best = [model.answer(picture, QUESTION, top=2) for picture in pictures]
    images, texts = model.embed_images(pictures), model.embed_texts([QUESTION])

    # -- predict
    assert use(["predict", "mtl", "--images", "pictures", "--question", QUESTION, "--out", "answers.jsonl"]) == 0
    rows = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in rows] == [answered[0].text for answered in best]

    # -- search
    capsys.readouterr()
    arguments = ["search", "mtl", "--gallery", "pictures", "--json", "--html", "found.html"]
    assert use([*arguments, "--image", "pictures/1.png", QUESTION]) == 0
    by_text, by_picture = map(json.loads, capsys.readouterr().out.splitlines())
    order = np.argsort(-(images @ texts[0]), kind="stable")
    assert by_text["results"][0]["name"] == f"pictures/{order[0]}.png"
    assert by_picture["results"][0] == {"name": "pictures/1.png", "score": pytest.approx(1, abs=1e-5)}
    assert "data:image/png;base64," in Path("found.html").read_text()

    # -- export
    assert use(["export", "mtl", "--format", "safetensors", "--out", "exported"]) == 0
    assert np.array_equal(mt2st.load("exported", device="cpu").embed_images(pictures), images)
    assert "Trained by mt2st" in Path("exported/README.md").read_text()
    for form in ("open_clip", "hf"):
        assert use(["export", "mtl", "--format", form, "--out", form]) == 2
        assert not Path(form).exists(), "small towers are nobody else's"
    if all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        import onnxruntime

        assert use(["export", "mtl", "--format", "onnx", "--out", "onnx"]) == 0
        session = onnxruntime.InferenceSession("onnx/image.onnx")
        (found,) = session.run(None, {"pixels": model.pixels(pictures).numpy()})
        assert np.allclose(found, images, atol=1e-5)

    # -- the demo's functions
    demo = Demo(Options((Path("mtl"), Path("switch")), gallery=Path("pictures"), device="cpu"))
    address = data_address(pictures[0])
    asked = demo.ask(address, QUESTION)
    assert asked.answers[:2] == best[0]
    assert asked.example is None
    (mtl, switch) = demo.ask_all(address, QUESTION)
    assert mtl == asked
    assert switch.answers == mt2st.load("switch", device="cpu").answer(pictures[0], QUESTION)
    assert [Path(hit.name).stem for hit in demo.search_text(QUESTION).hits] == [str(place) for place in order]
    assert demo.search_picture(address).hits[0].name == "0.png"
    assert len(demo.search_text_all(QUESTION)) == 2
    why = demo.why(address, QUESTION)
    assert why.seen.answer == asked.answers[0].text
    assert why.seen.drops.shape == (8, 8)
    example = demo.examples[0]
    known = demo.ask(demo.example_picture(0), example.question)
    assert known.example == example
    assert "Right: <b>" in answers(known)
    shown = side_by_side([(mtl.run, answers(mtl)), (switch.run, hits(demo.search_text(QUESTION)))]) + map_of(why)
    assert "MTL, seed 0" in shown
    assert shown.count("<rect") == 64
    assert said(lambda: answers(demo.ask("", QUESTION))).endswith("choose a picture first, or take an example</p>")

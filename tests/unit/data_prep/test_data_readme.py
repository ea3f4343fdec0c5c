"""The blocks of data_prep/README.md run, in order, on pictures drawn here; and the data they make train a model."""

from __future__ import annotations

import json
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks.cli import main as benchmarks_main
from data_prep.__main__ import main
from mt2st.data.splits import PreparedDataset
from tests.helpers.documentation import ROOT, blocks_of, files_of

README = ROOT / "data_prep" / "README.md"

BIRDS = ("robin", "wren", "finch", "heron")
IN_SMALL = [
    "--steps", "2", "--seeds", "1", "--strategies", "STL", "Switch", "--images-per-batch", "4",
    "--caption-images-per-batch", "4", "--validation-fraction", "0.3", "--validations", "1", "--views", "equal-steps",
]  # fmt: skip


def draw(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (40, 30), "white")
    ImageDraw.Draw(image).ellipse((number, 3, number + 20, 24), fill=((number * 50) % 256, 90, 200))
    image.save(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the README assumes a reader has: photos/ and birds/."""
    monkeypatch.chdir(tmp_path)
    for start, split in enumerate(("train", "test")):
        rows = []
        for n in range(8):
            draw(tmp_path / "photos" / split / f"p{n}.png", 8 * start + n)
            rows += [{"image": f"p{n}.png", "question": f"what is it, {q}?", "answer": "a cat"} for q in range(2)]
            draw(tmp_path / "birds" / split / f"kind{n}_{BIRDS[n % 4]}.png", 8 * start + n)
        (tmp_path / "photos" / split / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_the_blocks_run_in_order(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = python_blocks = 0
    for kind, text, file in blocks_of(README):
        if file:
            (folder / file).write_text(text, encoding="utf-8")
        elif kind == "console":
            for line in text.splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words[:3] == ["python", "-m", "benchmarks"]:
                    commands += 1
                    assert benchmarks_main([*words[3:], *IN_SMALL]) == 0, (line, capsys.readouterr())
                    continue
                assert words[:3] == ["python", "-m", "data_prep"]
                if "easy_vqa" in words:
                    continue  # the whole set is prepared, checked and shown in tests of its own
                commands += 1
                assert main(words[3:]) == 0, (line, capsys.readouterr())
        elif kind == "python":
            python_blocks += 1
            (folder / "reading.py").write_text(text, encoding="utf-8")
            names = runpy.run_path(str(folder / "reading.py"))
            assert np.asarray(names["pixels"]).shape == (2, 32, 32, 3)
            assert len(names["questions"]) == 2 * names["training"].num_images
    assert (commands, python_blocks) == (8, 1)
    sets = {
        PreparedDataset.open(path).card.name
        for path in (folder / "prepared").iterdir()
        if not path.name.startswith(".")
    }
    assert sets == {"pets", "toml_pets"}
    assert (folder / "preview" / "birds.html").exists()
    assert all((folder / "results" / case / "default" / "report.html").exists() for case in ("retrieval", "vqa"))


def test_an_adapter_is_about_15_lines() -> None:
    adapters = [text for file, text in files_of(README).items() if file.endswith(".py")]
    assert len(adapters) == 2
    assert all(len([line for line in text.splitlines() if line.strip()]) <= 15 for text in adapters)

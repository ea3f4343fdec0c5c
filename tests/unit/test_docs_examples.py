"""What the documentation tells a reader to save and to run is saved and run."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import cases as cases_package
from benchmarks.cli import main
from benchmarks.records.read import load_records
from benchmarks.strategies import default_strategies
from tests.helpers.documentation import PAGES, ROOT, blocks_of, commands_of, files_of
from tests.helpers.tiny import streams, tiny_encoder

DOCS = ROOT / "docs"
DRAWN = ROOT / "tests" / "helpers" / "drawn_dataset.py"
RUN_ELSEWHERE = ("README.md",)  # test_public.py and test_data_readme.py run these pages
IN_SMALL = [
    "--data", str(DRAWN), "--data-folder", "data", "--image-size", "16", "--label-fraction", "0.5", "--steps", "4",
    "--validations", "1", "--images-per-batch", "4", "--questions-per-image", "2", "--caption-images-per-batch", "8",
    "--encoder.width", "16", "--encoder.embedding-width", "16", "--encoder.fusion-width", "16",
    "--encoder.stem-width", "4", "--encoder.vocabulary-size", "300", "--threads", "1", "--jobs", "1",
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the reader's own, from which modules are imported; nothing of it stays imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "") or "").startswith(str(tmp_path)):
            del sys.modules[name]


def save_files(page: Path, folder: Path) -> None:
    for name, text in files_of(page).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


PYTHON = {
    f"{page.relative_to(DOCS)} {number}": (page, block.text)
    for page in PAGES
    if page.name not in RUN_ELSEWHERE
    for number, block in enumerate(blocks_of(page), start=1)
    if block.kind == "python" and not block.file
}


def test_there_is_something_to_run() -> None:
    assert {name.split()[0] for name in PYTHON} >= {
        "schedules.md",
        "each.md",
        "methods/diminish.md",
        "methods/switch.md",
        "methods/sampled.md",
        "methods/peers.md",
        "add/objective.md",
    }


@pytest.mark.parametrize("name", PYTHON)
def test_a_block_runs(name: str, place: Path) -> None:
    page, text = PYTHON[name]
    save_files(page, place)
    (place / "block.py").write_text(text, encoding="utf-8")
    found = runpy.run_path(str(place / "block.py"))
    if "loss_at" in found:  # three lines in a stranger's loop: the auxiliary runs first, and not at the end
        calls: list[str] = []

        def auxiliary(batch: Any) -> float:
            calls.append("auxiliary")
            return 1.0

        first = found["loss_at"](0, 1000, None, lambda batch: 2.0, auxiliary)
        last = found["loss_at"](999, 1000, None, lambda batch: 2.0, auxiliary)
        assert (first, last, len(calls)) == (3.0, 2.0, 1)


def test_a_strategy_of_the_readers_own(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = DOCS / "add" / "strategy.md"
    save_files(page, place)
    assert len((place / "my_fade.py").read_text().splitlines()) <= 30
    commands = commands_of(page)
    assert " ".join(commands[0]) == "benchmarks vqa --smoke --strategies STL MTL my_fade.py:Cosine"
    assert len(commands) == 2
    for number, words in enumerate(commands):
        results = place / f"results{number}"
        assert main([*words[1:], *IN_SMALL, "--results", str(results)]) == 0, capsys.readouterr()
        assert "Cosine" in capsys.readouterr().out
        runs = load_records(results, "vqa", "default-smoke").finished
        assert {run.strategy for run in runs} == {"STL", "MTL", "Cosine"}
        settings = [run.values["config"]["strategy"] for run in runs if run.strategy == "Cosine"]
        mtl = cases_package.load_card("vqa").knobs("default", smoke=True).strategy("MTL")
        assert mtl.learning_rate != type(mtl)().learning_rate, "or the next line could not fail"
        found = {(own["learning_rate"], own["weight"]) for own in settings}
        assert found == {(mtl.learning_rate, 0.5 if number else mtl.weight)}, "else MTL's"


@pytest.mark.parametrize("name", ["each.md", "methods/peers.md", "start.md"])
def test_a_command_is_understood(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("benchmarks.commands._case.run_case", lambda card, knobs, *rest: seen.append(knobs) or 0)
    commands = commands_of(DOCS / name)
    assert all(main(words[1:]) == 0 for words in commands)
    assert len(seen) == len(commands) >= 2


def test_an_objective_of_the_readers_own(place: Path) -> None:
    save_files(DOCS / "add" / "objective.md", place)
    encoder = tiny_encoder()
    batch = streams(encoder)["captions"].batch(0)
    torch.manual_seed(0)
    objective = runpy.run_path(str(place / "mean_colour.py"))["MeanColourObjective"](8)
    optimizer = torch.optim.Adam([*encoder.parameters(), *objective.parameters()], lr=1e-2)
    losses = []
    for _ in range(20):
        loss = objective(encoder.features(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert loss.shape == ()
    assert losses[-1] < losses[0] / 2
    assert any(parameter.grad is not None for parameter in encoder.parameters())


def test_a_case_of_the_readers_own(place: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    page = DOCS / "add" / "case.md"
    package = place / "cases_of_the_page"
    package.mkdir()
    (package / "__init__.py").write_text("")
    save_files(page, package)
    monkeypatch.setattr(cases_package, "CASES_FOLDER", package)
    monkeypatch.setattr(cases_package, "PACKAGE", package.name)
    (command,) = commands_of(page)
    assert main([*command[1:], "--jobs", "1"]) == 0, capsys.readouterr()
    runs = load_records(place / "results", "points", "default-smoke").finished
    assert {run.strategy for run in runs} == set(default_strategies())
    assert all(run.values["floors"] == {"chance": {"accuracy": 0.25}} for run in runs)
    assert main(["list"]) == 0
    assert "points           Points in the plane: in which quadrant?" in capsys.readouterr().out

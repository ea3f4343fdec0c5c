"""Every number of the published tables comes out of the published records again."""

from __future__ import annotations

import json
import math
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.cases import case_names, load_card
from benchmarks.records.pack import PACK_FILE, read_pack
from benchmarks.report import write
from benchmarks.report.all_cases import CaseSummary, all_cases_page
from benchmarks.report.page import page_to_markdown
from benchmarks.strategies import strategy_names
from benchmarks.suite.tuning import not_taken
from mt2st.files import read_sealed_json
from mt2st.metrics.calibration import expected_calibration_error

PUBLISHED = Path(__file__).parents[2] / "results" / "published"
CASES = [case for case in case_names() if (PUBLISHED / case / "default" / PACK_FILE).exists()]


def test_the_tables_come_out_byte_for_byte_and_the_summaries_to_the_last_but_a_few_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, CaseSummary] = {}
    summarise = write.summarise

    def kept(records: Any, spec: Any, **more: Any) -> Any:  # the table of all cases needs each summary again
        summary = summarise(records, spec, **more)
        found[more["benchmark"]] = (more["benchmark"], spec, summary)
        return summary

    monkeypatch.setattr(write, "summarise", kept)
    differing = []
    for case in CASES:
        folder = tmp_path / case / "default"
        folder.mkdir(parents=True)
        shutil.copy(PUBLISHED / case / "default" / PACK_FILE, folder)
        console = Console(file=StringIO())
        write.report(case, "default", tmp_path, spec=load_card(case).spec, known=strategy_names(), console=console)
        published = PUBLISHED / case / "default"
        if (folder / "TABLE.md").read_bytes() != (published / "TABLE.md").read_bytes():
            differing.append(f"{case}/TABLE.md")
        # A bootstrap is a matrix product, whose order of additions, and so the last bits, depend on the processor.
        again, before = (json.loads((place / "summary.json").read_text()) for place in (folder, published))
        if not _close(again, before):
            differing.append(f"{case}/summary.json")
    if page_to_markdown(all_cases_page([found[case] for case in CASES])) != (PUBLISHED / "TABLE.md").read_text():
        differing.append("TABLE.md")
    again = f"python -m benchmarks all --cases {' '.join(CASES)} --only-table --results results/published"
    assert not differing, (
        "the report has changed: derive the published files again, by `python -m benchmarks report CASE --results "
        f"results/published` and `{again}`"
    )


def _close(left: Any, right: Any) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_close(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_close, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-12)
    return type(left) is type(right) and left == right


def test_rounded_confidences_give_the_recorded_calibration_error_but_for_a_rounding() -> None:
    for case in sorted({"image", "representation", "text", "vqa"} & set(CASES)):
        pack = read_pack(PUBLISHED / case / "default" / PACK_FILE)
        assert pack.steps == {"confidence": 0.001}
        for run_id, record in pack.records.items():
            items = pack.items(run_id)
            again = expected_calibration_error(items["confidence"].clip(0, 1), items["score"])
            # Rounding moves a bin's mean by 0.0005 at most, but also answers at a bin's edge into the next bin.
            assert again == pytest.approx(record["metrics"]["test"]["ece"], abs=0.003)


def test_everything_published_stays_small() -> None:
    sizes = [path.stat().st_size for path in PUBLISHED.rglob("*") if path.is_file() and path.suffix != ".html"]
    assert sum(sizes) < 50e6, "pages are not kept in the repository"
    assert not list(PUBLISHED.rglob("items.safetensors"))


@pytest.mark.parametrize("log", sorted(PUBLISHED.rglob("tuning.json")), ids=lambda path: path.parent.name)
def test_recipes_have_the_settings_that_the_published_search_found(log: Path) -> None:
    """A log that lies in a recipe's folder is that recipe's, also where the search began with another one."""
    found = read_sealed_json(log, "publish it again")
    card = load_card(found["case"])
    recipe = log.parent.name if log.parent.name in card.module.RECIPES else found["recipe"]
    assert not_taken(found, card.knobs(recipe)) == []

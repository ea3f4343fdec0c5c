"""The public surface is a list, its names import lazily, and the README's blocks run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mt2st
from tests.helpers.documentation import blocks_of

ROOT = Path(__file__).parents[3]
SURFACE = [
    "Aligned", "Answer", "AnswerVocabulary", "CaptionStream", "Constant", "DatasetCard", "Diminish", "Example",
    "Flattening", "FlopCounter", "FlopLedger", "Forked", "Listens", "MT2ST", "Mt2stError", "Off",
    "PreparedDataset", "PreparedSplit", "QuestionStream", "Sampled", "SamplesWeight", "Schedule", "Switch", "Task",
    "TrainConfig", "Trainer", "VisionLanguageEncoder", "carve_validation", "count_flops", "describe",
    "evaluate_retrieval", "leaked_images", "load", "vqa_accuracy", "without_leaked",
]  # fmt: skip


def test_public_surface() -> None:
    assert sorted(mt2st.__all__) == sorted(SURFACE)
    for name in SURFACE:
        assert getattr(mt2st, name) is not None
    with pytest.raises(AttributeError, match="Swich"):
        mt2st.Swich  # noqa: B018


def test_schedules_need_no_torch() -> None:
    code = "import sys, mt2st.schedules, mt2st; mt2st.Diminish; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("number", range(2))
def test_readme_blocks_run(number: int, tmp_path: Path) -> None:
    blocks = [block.text for block in blocks_of(ROOT / "README.md") if block.kind == "python"]
    assert len(blocks) == 2
    script = tmp_path / "block.py"
    script.write_text(blocks[number], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False, env=_environment()
    )
    assert done.returncode == 0, done.stderr
    if number == 1:
        assert "topic" in done.stdout
        assert "style" in done.stdout


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}

"""Hit rates against CLIP_benchmark 1.6.2 (its image_retrieval is text → image, its text_retrieval image → text)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mt2st.evaluate import evaluate_retrieval

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("index", [None, "exact"])
def test_golden_hit_rates(index: str | None) -> None:
    golden = json.loads((DATA / "hit_rate.json").read_text())
    with np.load(DATA / "hit_rate.npz", allow_pickle=False) as stored:
        arrays = [stored[name] for name in ("image_embeddings", "text_embeddings", "text_image_index")]
    ours = evaluate_retrieval(*arrays, ks=(1, 5, 10, 50), index=index)
    names = {"image_retrieval_recall": "text_to_image/hit_rate", "text_retrieval_recall": "image_to_text/hit_rate"}
    assert len(golden) == 8
    for name, value in golden.items():
        theirs, _, k = name.partition("@")
        assert ours[f"{names[theirs]}@{k}"] == pytest.approx(value, abs=1e-6), name
    # One relevant image a text: recall is the hit rate; several texts an image: it is not.
    assert ours["text_to_image/recall@5"] == ours["text_to_image/hit_rate@5"]
    assert ours["image_to_text/recall@5"] < ours["image_to_text/hit_rate@5"]

"""Augmented embeddings: each item follows from its number and the seed alone, and the files are what `index` takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import mt2st
from benchmarks.commands.augment import main
from benchmarks.embeddings.augmented import augmented
from benchmarks.search.data import load
from mt2st.errors import Mt2stError
from tests.helpers.trained_folder import pictures, write_run


def test_an_item_follows_from_its_number_and_the_seed() -> None:
    pixels = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = augmented(pixels, 0, 12, seed=1)
    assert whole.shape == (12, 3, 16, 16)
    assert whole.dtype == torch.uint8
    torch.testing.assert_close(augmented(pixels, 5, 9, seed=1), whole[5:9], rtol=0, atol=0)
    assert (augmented(pixels, 0, 12, seed=2) != whole).any()
    assert (whole[0] != whole[3]).any(), "two items of one picture differ"


def test_a_plain_picture_keeps_its_colour_within_the_stated_change() -> None:
    grey = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    found = augmented(grey, 0, 200, seed=0).float()
    low, high = 100 * 0.75 - 0.15 * 255, 100 * 1.25 + 0.15 * 255
    assert low - 1 <= found.min() < found.max() <= high + 1
    assert (found.amax(dim=(2, 3)) == found.amin(dim=(2, 3))).all(), "a plain picture stays plain"


def test_files_for_the_index_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = write_run(tmp_path / "run")
    (tmp_path / "pictures").mkdir()
    for number, picture in enumerate(pictures(3)):
        picture.save(tmp_path / "pictures" / f"{number}.png")
    arguments = [str(run), "--pictures", str(tmp_path / "pictures"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--items", "20", "--queries", "4"]) == 0
    data = load(str(tmp_path / "out" / "gallery.npy"), str(tmp_path / "out" / "queries.npy"), "", "text_to_image", 5, 0)
    assert data.gallery.shape == (20, mt2st.load(run).embedding_width)
    assert data.queries.shape[0] == 4
    np.testing.assert_allclose(np.linalg.norm(data.gallery, axis=1), 1, atol=1e-5)
    assert not (data.gallery[:4] == data.queries).all(axis=1).any()
    about = json.loads((tmp_path / "out" / "augmented.json").read_text())
    assert (about["pictures"], about["items"], about["seed"]) == (3, 20, 0)
    with pytest.raises(Mt2stError, match="no folder of pictures"):
        main([str(run), "--pictures", str(tmp_path / "none"), "--out", str(tmp_path / "out")])
    with pytest.raises(Mt2stError, match="--items = 0"):
        main([*arguments, "--items", "0"])

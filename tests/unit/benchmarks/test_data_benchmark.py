"""The parts of `python -m benchmarks data` on a handful of images: that they measure what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from benchmarks.commands.data import main
from benchmarks.speed.decoding import bare_chunk, draw_photos, measure_decoding
from benchmarks.speed.memory import measure_memory
from benchmarks.speed.reading import FileImages
from mt2st.errors import Mt2stError


def test_both_sides_decode_the_same_files(tmp_path: Path) -> None:
    draw_photos(tmp_path / "photos", 6)
    paths = sorted((tmp_path / "photos").iterdir())
    with Image.open(paths[0]) as first, Image.open(paths[1]) as second:
        assert first.size == (640, 480)
        assert first.tobytes() != second.tobytes()
    assert bare_chunk(paths, 16) == 6
    found = measure_decoding(tmp_path, image_size=16, rounds=1, workers=1)
    assert found["share_of_limit"] == pytest.approx(
        found["prepare_images_per_second"] / found["bare_images_per_second"]
    )
    assert FileImages(paths, 16)[3].shape == (3, 16, 16)


def test_memory_is_measured_in_fresh_processes(tmp_path: Path) -> None:
    found = measure_memory(tmp_path, 1000)
    assert found["images"] == [10, 1000]
    assert all(40 < peak < 400 for peak in found["peak_mb"]), "of the child alone, not of this process"


def test_too_small_a_measurement_is_refused() -> None:
    with pytest.raises(Mt2stError, match="images = 5"):
        main(["--images", "5"])

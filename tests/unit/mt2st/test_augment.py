"""Shifted training images: off they change nothing, on each batch is a pure function of its index."""

from __future__ import annotations

import pytest
import torch

from benchmarks.strategies.stl import SingleTask
from mt2st.batch import Batch
from mt2st.errors import Mt2stError
from mt2st.training.augment import augment, shifted
from mt2st.training.config import TrainConfig, TrainSettings, deciding
from tests.helpers.toy_models import Rows


class Pictures:
    """Batch i holds four drawn pictures, shared out over processes."""

    def batch(self, index: int, rank: int = 0, world: int = 1) -> Batch:
        drawn = torch.randint(256, (4, 3, 6, 5), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        each = 4 // world
        return {"pixels": drawn[rank * each : (rank + 1) * each], "label": torch.arange(each)}


def test_a_shift_moves_down_and_right_and_repeats_edges() -> None:
    picture = torch.arange(1, 10, dtype=torch.uint8).reshape(1, 1, 3, 3)
    assert shifted(picture, torch.tensor([[1, 0]])).tolist() == [[[[1, 2, 3], [1, 2, 3], [4, 5, 6]]]]
    assert shifted(picture, torch.tensor([[0, -1]])).tolist() == [[[[2, 3, 3], [5, 6, 6], [8, 9, 9]]]]
    assert shifted(picture, torch.tensor([[9, 9]])).unique().tolist() == [1]
    assert torch.equal(shifted(picture, torch.tensor([[0, 0]])), picture)


def test_batches_are_pure_in_their_index_and_differ_by_seed_and_stream() -> None:
    streams = {"primary": Pictures(), "auxiliary": Pictures()}
    config = TrainConfig(4, shift_pixels=2)
    found = augment(streams, config)
    first = found["primary"].batch(3)
    assert torch.equal(first["pixels"], augment(streams, config)["primary"].batch(3)["pixels"])
    assert first["label"].tolist() == [0, 1, 2, 3]
    source = Pictures().batch(3)["pixels"]
    others = [source, found["auxiliary"].batch(3)["pixels"]]
    others.append(augment(streams, TrainConfig(4, shift_pixels=2, seed=1))["primary"].batch(3)["pixels"])
    assert not any(torch.equal(first["pixels"], other) for other in others)
    possible = [
        [shifted(image[None], torch.tensor([[down, right]]))[0] for down in range(-2, 3) for right in range(-2, 3)]
        for image in source
    ]
    for image, choices in zip(first["pixels"], possible, strict=True):
        assert any(torch.equal(image, choice) for choice in choices)


def test_processes_take_the_shifts_of_their_rows() -> None:
    stream = augment({"primary": Pictures()}, TrainConfig(4, shift_pixels=3))["primary"]
    shares = [stream.batch(5, rank, 2)["pixels"] for rank in (0, 1)]
    assert torch.equal(torch.cat(shares), stream.batch(5)["pixels"])


def test_off_changes_neither_streams_nor_identity() -> None:
    rows = Rows()
    assert augment({"primary": rows}, TrainConfig(4))["primary"] is rows
    assert "shift_pixels" not in deciding(TrainSettings())
    assert "shift_pixels" not in deciding(SingleTask())
    assert deciding(SingleTask(shift_pixels=2))["shift_pixels"] == 2


def test_a_stream_without_images_passes_and_none_with_images_is_refused() -> None:
    found = augment({"text": Rows(), "images": Pictures()}, TrainConfig(4, shift_pixels=1))
    assert set(found["text"].batch(0)) == {"x", "y"}
    with pytest.raises(Mt2stError, match="no batch of text has any; set it to 0"):
        augment({"text": Rows()}, TrainConfig(4, shift_pixels=1))
    with pytest.raises(Mt2stError, match="shift_pixels = -1"):
        TrainSettings(shift_pixels=-1)


def test_stl_shifts_by_itself() -> None:
    assert SingleTask(shift_pixels=2).train(TrainSettings()).shift_pixels == 2
    assert SingleTask().train(TrainSettings(shift_pixels=1)).shift_pixels == 1

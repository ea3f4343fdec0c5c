"""Batches made ahead are the batches of the stream, in whatever order they are asked for."""

from __future__ import annotations

import gc
import threading
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mt2st.errors import Mt2stError
from mt2st.training.prefetch import Prefetched


class Counting:
    """Batch i is the number i (and the rank); remembers what was asked, and by which threads."""

    def __init__(self) -> None:
        self.made: list[int] = []
        self.threads: set[str] = set()

    def batch(self, index: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        self.made.append(index)
        self.threads.add(threading.current_thread().name)
        if index == 13:
            raise OSError("13.png is torn")
        time.sleep(0.001 * (index % 3))
        return {"number": torch.tensor([index, rank, world])}


@settings(max_examples=30, deadline=None)
@given(indices=st.lists(st.integers(0, 12), max_size=12), workers=st.integers(1, 4), rank=st.integers(0, 1))
def test_same_batches_as_the_stream(indices: list[int], workers: int, rank: int) -> None:
    ahead = Prefetched(Counting(), workers)
    for index in indices:
        try:
            found = ahead.batch(index, rank, 2)["number"]
        except OSError:  # a batch ahead is not asked for, so its error stays with it
            pytest.fail("the error of another batch was raised")
        assert found.tolist() == [index, rank, 2]


def test_each_batch_is_made_once_and_by_workers() -> None:
    source = Counting()
    ahead = Prefetched(source, 2)
    for index in range(8):
        ahead.batch(index)
    del ahead
    assert sorted(source.made)[:8] == list(range(8))
    assert len(source.made) == len(set(source.made)) <= 10
    assert any(name.startswith("batches") for name in source.threads)


def test_a_workers_error_is_its_own_and_comes_with_its_batch() -> None:
    ahead = Prefetched(Counting(), 3)
    ahead.batch(11)
    ahead.batch(12)
    with pytest.raises(OSError, match=r"13\.png is torn"):
        ahead.batch(13)
    assert ahead.batch(14)["number"][0] == 14


def test_threads_end_with_the_stream() -> None:
    before = threading.active_count()
    ahead = Prefetched(Counting(), 3)
    ahead.batch(0)
    del ahead
    gc.collect()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_no_workers_is_an_error() -> None:
    with pytest.raises(Mt2stError, match="workers = 0"):
        Prefetched(Counting(), 0)

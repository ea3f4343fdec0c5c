"""Work over processes: the same ranks, scores and ids as in one, whatever the number of workers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mt2st.errors import Mt2stError
from mt2st.evaluate import evaluate_retrieval
from mt2st.index.exact import Index, search_over_processes
from mt2st.metrics.ranks import RetrievalRanks, retrieval_ranks
from mt2st.processes import side_by_side, worker_number


def drawn(images: int, texts: int, kind: str = "float32") -> tuple[NDArray, NDArray, NDArray]:
    """Images, texts and owners: many exact ties, some images without a text, texts near their image."""
    random = np.random.default_rng(7)
    image = random.normal(size=(images, 12))
    image[1 : images // 3] = image[0]  # ties
    owner = random.integers(0, max(1, images - 5), texts)
    text = image[owner] + 0.8 * random.normal(size=(texts, 12))
    text[texts // 2 :] = text[0]
    return image.astype(kind), text.astype(kind), owner


def assert_equal_ranks(found: RetrievalRanks, expected: RetrievalRanks) -> None:
    for name in ("text_to_image", "image_to_text", "image_to_text_each"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize(("images", "texts"), [(6200, 1537), (7, 1100), (900, 3)])
def test_ranks_are_those_of_one_process(images: int, texts: int, workers: int, tmp_path: Path) -> None:
    """More images than a block, texts that fill no block, fewer blocks than workers."""
    image, text, owner = drawn(images, texts)
    expected = retrieval_ranks(image, text, owner)
    assert_equal_ranks(retrieval_ranks(image, text, owner, workers=workers, scratch=tmp_path), expected)
    assert not list(tmp_path.iterdir())


def test_ranks_of_mapped_files_are_those_of_arrays(tmp_path: Path) -> None:
    """float64 in one file, float16 in the other: the processes read what the caller would."""
    image, _, owner = drawn(1200, 1030, "float64")
    text = drawn(1200, 1030, "float16")[1]
    paths = tmp_path / "images.npy", tmp_path / "texts.npy"
    np.save(paths[0], image)
    np.save(paths[1], text)
    expected = retrieval_ranks(image, text, owner)
    assert_equal_ranks(retrieval_ranks(*paths, owner), expected)
    assert_equal_ranks(retrieval_ranks(*paths, owner, workers=2, scratch=tmp_path), expected)
    assert evaluate_retrieval(*paths, owner, workers=2) == evaluate_retrieval(image, text, owner)


@pytest.mark.parametrize("queries", [1, 1023, 2049, 5000])
def test_search_gives_the_bits_of_one_process(queries: int, tmp_path: Path) -> None:
    image, text, _ = drawn(900, queries)
    index = Index(threads=1)
    index.add(image)
    expected = index.search(text, 9)
    np.save(tmp_path / "gallery.npy", image)
    for workers in (1, 2, 3):
        found = search_over_processes(tmp_path / "gallery.npy", text, 9, workers=workers)
        np.testing.assert_array_equal(found[0], expected[0], err_msg=f"scores of {workers} workers")
        np.testing.assert_array_equal(found[1], expected[1], err_msg=f"ids of {workers} workers")


def test_search_for_more_than_there_is() -> None:
    image, text, _ = drawn(3, 4)
    index = Index(threads=1)
    index.add(image)
    expected = index.search(text, 5)
    found = search_over_processes(image, text, 5, workers=2)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    scores, ids = search_over_processes(image, text[:0], 5, workers=2)
    assert scores.shape == ids.shape == (0, 5)


@pytest.mark.parametrize("workers", [0, -1])
def test_bad_numbers_of_workers(workers: int) -> None:
    image, text, owner = drawn(9, 9)
    with pytest.raises(Mt2stError, match="workers = "):
        retrieval_ranks(image, text, owner, workers=workers)
    with pytest.raises(Mt2stError, match="workers = "):
        search_over_processes(image, text, 2, workers=workers)


def test_bad_arguments() -> None:
    image, text, owner = drawn(9, 9)
    with pytest.raises(Mt2stError, match="leave workers out, or index"):
        evaluate_retrieval(image, text, owner, index="exact", workers=2)
    with pytest.raises(Mt2stError, match="k = 0"):
        search_over_processes(image, text, 0, workers=2)
    with pytest.raises(Mt2stError, match="no items"):
        search_over_processes(image[:0], text, 1, workers=2)


def test_pieces_have_their_results_and_errors_come_through() -> None:
    assert sorted(side_by_side(_square, [3, 1, 2], 2)) == [(1, 1), (2, 4), (3, 9)]
    assert list(side_by_side(_square, [3, 1, 2], 1)) == [(3, 9), (1, 1), (2, 4)]
    assert list(side_by_side(_square, [], 2)) == []
    with pytest.raises(Mt2stError, match="13 is unlucky"):
        list(side_by_side(_square, [1, 13], 2))


def test_workers_are_numbered_and_have_their_threads() -> None:
    found = dict(side_by_side(_surroundings, [0, 1], 2, threads=3))
    assert {number for number, _ in found.values()} <= {0, 1}
    assert {threads for _, threads in found.values()} == {"3"}


def test_a_worker_that_dies_is_one_error() -> None:
    with pytest.raises(Mt2stError, match="ended without a word"):
        list(side_by_side(_die, [1, 2], 2))


def test_workers_do_not_outlive_their_parent(tmp_path: Path) -> None:
    """The parent is killed, so it cannot tell them to end."""
    script = tmp_path / "parent.py"
    script.write_text(
        "from pathlib import Path\n"
        "from mt2st.processes import side_by_side\n"
        "from tests.unit.mt2st.test_side_by_side import _note_and_wait\n"
        "if __name__ == '__main__':\n"
        f"    list(side_by_side(_note_and_wait, [Path({str(tmp_path)!r}) / n for n in 'ab'], 2))\n"
    )
    root = Path(__file__).resolve().parents[3]
    parent = subprocess.Popen([sys.executable, str(script)], cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    notes = [tmp_path / "a", tmp_path / "b"]
    try:
        _until(lambda: all(note.exists() and note.read_text() for note in notes))
        pids = [int(note.read_text()) for note in notes]
    finally:
        parent.kill()
        parent.wait()
    _until(lambda: not any(_alive(pid) for pid in pids))


def _until(happened: object, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _note_and_wait(note: Path) -> None:
    note.write_text(str(os.getpid()))
    time.sleep(300)


def _square(number: int) -> int:
    if number == 13:
        raise Mt2stError("13 is unlucky")
    return number * number


def _surroundings(_: int) -> tuple[int, str]:
    return worker_number(), os.environ["OMP_NUM_THREADS"]


def _die(_: int) -> None:
    os._exit(7)

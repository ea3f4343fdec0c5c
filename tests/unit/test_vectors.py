"""Reading and normalising embeddings; nothing is ever unpickled."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from mt2st.errors import Mt2stError
from mt2st.vectors import matrix_hash, read_vectors, unit_rows


def test_unit_rows_are_a_copy_of_length_one() -> None:
    given = np.array([[3.0, 4.0], [1e-30, 0.0], [1e100, 1e100]])
    unit = unit_rows("given", given)
    assert unit.dtype == np.float32
    assert unit.flags.c_contiguous
    np.testing.assert_allclose(unit, [[0.6, 0.8], [1, 0], [0.5**0.5, 0.5**0.5]], rtol=1e-6)


def test_reuse_gives_back_unit_rows_as_they_are() -> None:
    unit = unit_rows("a", np.random.default_rng(0).standard_normal((50, 8)))
    assert unit_rows("a", unit, reuse=True) is unit
    assert unit_rows("a", unit) is not unit
    assert unit_rows("a", 2 * unit, reuse=True) is not unit
    for value, words in ((np.nan, "NaN"), (0.0, "zero")):
        wrong = unit.copy()
        wrong[3] = value
        with pytest.raises(Mt2stError, match=words):
            unit_rows("a", wrong, reuse=True)


def test_hash_tells_content_type_and_shape_apart() -> None:
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    others = [matrix + 1, matrix.astype(np.float64), matrix.reshape(4, 3), matrix[:2]]
    assert len({matrix_hash(array) for array in [matrix, *others]}) == 5
    assert matrix_hash(matrix) == matrix_hash(np.asfortranarray(matrix))


def test_reads_npy_and_safetensors(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    matrix = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    np.save(tmp_path / "a.npy", matrix)
    np.testing.assert_array_equal(read_vectors(tmp_path / "a.npy")[""], matrix)
    tensors = {
        "image": torch.from_numpy(matrix),
        "half": torch.from_numpy(matrix).half(),
        "brain": torch.from_numpy(matrix).bfloat16(),
        "index": torch.arange(5),
        "empty": torch.zeros(0, 3),
    }
    save_file(tensors, tmp_path / "a.safetensors", metadata={"made": "here"})
    read = read_vectors(tmp_path / "a.safetensors")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read[name], tensor.float().numpy() if name == "brain" else tensor.numpy())


class Bomb:
    def __reduce__(self) -> tuple:
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize("suffix", [".npy", ".safetensors", ".pkl", ".pt"])
def test_pickles_are_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"evil{suffix}"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(Mt2stError, match="evil"):
        read_vectors(path)


def test_object_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "evil.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(Mt2stError, match=r"not a plain \.npy"):
        read_vectors(tmp_path / "evil.npy")


def test_torn_and_foreign_files(tmp_path: Path) -> None:
    from safetensors.numpy import save

    whole = save({"a": np.ones((4, 4), np.float32)})
    cases = {
        "cut.safetensors": whole[:-1],
        "head.safetensors": whole[:20],
        "short.safetensors": b"\x01",
        "empty.safetensors": b"",
        "list.safetensors": (2).to_bytes(8, "little") + b"[]",
        "huge.safetensors": (1 << 60).to_bytes(8, "little") + whole,
        "type.safetensors": save({"a": np.ones(4, np.uint8)}),
        "negative.safetensors": whole.replace(b"[0,64]", b"[-4,6]"),
        "cut.npy": b"\x93NUMPY\x01\x00v\x00{'descr'",
        "text.npy": b"hello",
        "empty.npy": b"",
        "a.csv": b"1,2",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Mt2stError, match=name):
            read_vectors(tmp_path / name)
    for missing in (tmp_path / "none.npy", tmp_path):
        with pytest.raises(Mt2stError, match="is not a file"):
            read_vectors(missing)

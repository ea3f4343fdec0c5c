"""Reading and normalising embeddings; nothing is ever unpickled."""

from __future__ import annotations

import json
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


def npy_of_shape(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(24)


def safetensors_of(**entry: object) -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} | entry}).encode()
    return len(header).to_bytes(8, "little") + header + np.ones(6, np.float32).tobytes()


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"data_offsets": [0, 24, 24]}, "no readable safetensors header"),
        ({"data_offsets": [24]}, "no readable safetensors header"),
        ({"data_offsets": 24}, "no readable safetensors header"),
        ({"data_offsets": [0.0, 24.0]}, "which no array has"),
        ({"data_offsets": ["0", "24"]}, "which no array has"),
        ({"data_offsets": [0, 2**70]}, "is torn"),
        ({"data_offsets": [-24, 0]}, "which no array has"),
        ({"shape": [-2, -3]}, r"shape \[-2, -3\].*which no array has"),
        ({"shape": [-1, 6], "data_offsets": [24, 0]}, "which no array has"),
        ({"shape": [2**70]}, "is torn"),
        ({"shape": [2**62, 2**62], "data_offsets": [0, 0]}, "is torn"),  # a product that wraps around to 0
        ({"shape": [0, 2**70], "data_offsets": [0, 0]}, "no readable safetensors header"),
        ({"shape": [2.0, 3.0]}, "which no array has"),
        ({"shape": [True, 6]}, "which no array has"),
        ({"shape": [None, 6]}, "which no array has"),
        ({"shape": [1] * 99}, "which no array has"),
        ({"shape": 6}, "no readable safetensors header"),
        ({"dtype": ["F32"]}, "no readable safetensors header"),
        ({"dtype": "F\n8"}, "which is no embedding"),
    ],
)
def test_safetensors_headers_that_lie(entry: dict, words: str, tmp_path: Path) -> None:
    path = tmp_path / "lie.safetensors"
    path.write_bytes(safetensors_of())
    assert read_vectors(path)["a"].shape == (2, 3), "the file is good but for the lie"
    path.write_bytes(safetensors_of(**entry))
    with pytest.raises(Mt2stError, match=rf"lie\.safetensors.*({words})") as caught:
        read_vectors(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "header", [b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b'{"a": {}}', b"{\xff}", b'{"a": 1}', b'{"a": "b"}']
)
def test_safetensors_headers_that_are_none(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(Mt2stError, match=r"none\.safetensors has no readable safetensors header"):
        read_vectors(path)


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
        "huge.npy": npy_of_shape("(1180591620717411303424,)"),
        "wrapping.npy": npy_of_shape("(4611686018427387904, 2)"),
        "negative.npy": npy_of_shape("(-2, -3)"),
        "nested.npy": npy_of_shape("-" * 9000 + "1"),
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

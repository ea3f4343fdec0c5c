"""What a frozen tower makes of every input, computed once and read from memory-mapped files ever after.

    part = encoder.parts()["text"]                         # frozen whole, in evaluation mode
    keep_outputs(folder, part, Texts([train_tokens, test_tokens], part.source.pad_id), count=count_flops)
    use_outputs(part, FrozenOutputs(folder))               # encoder.features(batch) reads them from now on

Outputs are found by content: the token ids without the padding behind them, or the pixels. So nobody has to number
items, and an input that is not kept (masked tokens, a turned picture) goes through the tower as before.

    keys.npy         [M, 2] uint64, BLAKE2b of each distinct input, sorted
    places.npy       [M, 3] int64: its row in embeddings.npy, the first of its rows in tokens.npy, how many they are
    embeddings.npy   [N, E] float32 or float16
    tokens.npy       [rows, D], the states of real tokens or of patches; only where they were asked for
    manifest.json    what they are outputs of, what the pass cost, size of each file; sealed

A folder is written aside and renamed when whole, so an interrupted pass is never taken for a whole one.
"""

from __future__ import annotations

import hashlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mt2st.data.prepared import PreparedSplit
from mt2st.data.streams import pixels_tensor
from mt2st.encoders import TowerOutput
from mt2st.encoders.fine_tuning import Part, Source
from mt2st.errors import Mt2stError
from mt2st.files import PARTIAL_SUFFIX, read_sealed_json, sync_file, sync_folder, write_sealed_json
from mt2st.torch_internals import times_written
from mt2st.vectors import write_npy_header

MANIFEST = "manifest.json"
KIND = "mt2st outputs of a frozen tower"
FORMAT_VERSION = 1
_AT_ONCE = 256  # inputs a forward pass
_CURE = "delete that folder; the next run makes it again"
Keys = NDArray[np.uint64]


class FrozenOutputs:
    """A whole folder of outputs, opened.

    Raises:
        Mt2stError: the folder is missing, torn, or not ours.
    """

    def __init__(self, folder: Path) -> None:
        self.facts = read_sealed_json(folder / MANIFEST, _CURE)
        if self.facts.get("kind") != KIND or self.facts.get("format_version") != FORMAT_VERSION:
            raise Mt2stError(f"{folder / MANIFEST} is of another kind or version; {_CURE}")
        for name, size in self.facts["files"].items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != size:
                raise Mt2stError(f"{path} is missing or has not {size} bytes, so it is torn; {_CURE}")
        self._keys: Keys = np.load(folder / "keys.npy", mmap_mode="r")
        self._places = np.load(folder / "places.npy", mmap_mode="r")
        self._embeddings = np.load(folder / "embeddings.npy", mmap_mode="r")
        self._tokens = np.load(folder / "tokens.npy", mmap_mode="r") if "tokens.npy" in self.facts["files"] else None
        self._pad_id: int | None = self.facts["pad_id"]

    def __call__(self, inputs: Tensor) -> TowerOutput | None:
        """The outputs of `inputs`, token ids [B, T] or pixels [B, 3, S, S], in float32; None unless all are kept.

        States at padding are zeros; whoever reads them masks them.
        """
        keys = input_keys(inputs, self._pad_id)
        found = np.searchsorted(self._keys[:, 0], keys[:, 0])
        found[found == len(self._keys)] = 0
        if not (self._keys[found] == keys).all():
            return None
        rows, starts, lengths = self._places[found].T
        embedding = torch.from_numpy(self._embeddings[rows].astype(np.float32)).to(inputs.device)
        if self._tokens is None:
            return TowerOutput(_NotKept(), embedding)  # type: ignore[arg-type]
        width = inputs.shape[1] if self._pad_id is not None else int(lengths.max(initial=0))
        real = np.arange(width) < lengths[:, None]  # [B, T]
        states = np.zeros((len(keys), width, self._tokens.shape[1]), np.float32)
        states[real] = self._tokens[(starts[:, None] + np.arange(width))[real]]
        return TowerOutput(torch.from_numpy(states).to(inputs.device), embedding)


class _NotKept:
    """In place of token states where only embeddings are kept."""

    def __getattr__(self, name: str) -> Any:
        raise Mt2stError("the frozen tower's token states are not kept, only its embeddings; keep them (tokens=True)")


def use_outputs(part: Part, outputs: FrozenOutputs) -> None:
    """Let the part's tower read what is kept; what is not goes through it as before.

    Raises:
        Mt2stError: (when the tower is used) its weights were changed since.
    """
    owner, method, _ = _source(part)
    live: Callable[..., TowerOutput] = getattr(owner, method)
    parameters = list(part.module.parameters())
    seen = [times_written(each) for each in parameters]

    def remembered(inputs: Tensor, *more: Any) -> TowerOutput:
        versions = [times_written(each) for each in parameters]
        if versions != seen:  # a checkpoint was loaded, say
            if weights_hash(part) != outputs.facts["weights"]:
                raise Mt2stError("a frozen tower's weights have changed since its outputs were kept; keep them anew")
            seen[:] = versions
        plain = all(each is None for each in more)
        found = outputs(inputs) if plain and not inputs.is_floating_point() else None
        return live(inputs, *more) if found is None else found

    setattr(owner, method, torch.compiler.disable(remembered))


def weights_hash(part: Part) -> str:
    """SHA-256 (hex) of what decides a part's outputs: architecture, parameters, buffers, normalisation of pixels."""
    modules = [part.module, getattr(_source(part).owner, "normalize", None)]
    digest = hashlib.sha256()
    for module in modules:
        digest.update(repr(module).encode())
        if isinstance(module, nn.Module):
            for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def input_keys(inputs: Tensor, pad_id: int | None) -> Keys:
    """The key of each input [B, 2]: of token ids [B, T] without the padding behind, or of uint8 pixels [B, 3, S, S]."""
    if pad_id is None:
        rows = inputs.detach().cpu().permute(0, 2, 3, 1).contiguous().numpy()
        return _hashes(row.data for row in rows)
    ids = inputs.detach().cpu().numpy().astype(np.int64)
    return _hashes(row[:length].tobytes() for row, length in zip(ids, text_lengths(ids, pad_id), strict=True))


def text_lengths(ids: NDArray[np.int64], pad_id: int) -> NDArray[np.int64]:
    """Tokens of each text [B, T] without the padding behind."""
    real = ids != pad_id
    lengths: NDArray[np.int64] = np.where(real.any(1), ids.shape[1] - real[:, ::-1].argmax(1), 0)
    return lengths


def _hashes(rows: Iterable[Any]) -> Keys:
    raw = b"".join(hashlib.blake2b(row, digest_size=16).digest() for row in rows)
    return np.frombuffer(raw, dtype=np.uint64).reshape(-1, 2)


def _source(part: Part) -> Source:
    if part.source is None:
        raise Mt2stError("this part of the encoder does not say what its outputs are, so they cannot be kept")
    return part.source


# -- the pass ----------------------------------------------------------------------------------------------------------


class Inputs(Protocol):
    """What a pass runs over: how many inputs, and the hash of what they are."""

    items: int
    content_hash: str

    def states(self, a_picture: int) -> int:
        """Rows of token states in all, where a picture has `a_picture` of them."""

    def batches(self) -> Iterator[Tensor]:
        """All inputs, in one order."""


class Texts:
    """The distinct texts among tensors of token ids [N, T], the shortest first, so that little is padded."""

    def __init__(self, texts: Sequence[Tensor], pad_id: int) -> None:
        keys = np.concatenate([input_keys(each, pad_id) for each in texts])
        lengths = np.concatenate([text_lengths(each.numpy(), pad_id) for each in texts])
        owner = np.repeat(np.arange(len(texts)), [len(each) for each in texts])
        row = np.concatenate([np.arange(len(each)) for each in texts])
        first = np.unique(keys, axis=0, return_index=True)[1]
        order = first[np.argsort(lengths[first], kind="stable")]
        self._texts, self._pad_id = texts, pad_id
        self._places = np.stack([owner[order], row[order], lengths[order]], axis=1)
        self.items = len(order)
        self.content_hash = hashlib.sha256(keys[order].tobytes()).hexdigest()

    def states(self, a_picture: int) -> int:
        return int(self._places[:, 2].sum())

    def batches(self) -> Iterator[Tensor]:
        for start in range(0, self.items, _AT_ONCE):
            some = self._places[start : start + _AT_ONCE].tolist()
            batch = torch.full((len(some), max(1, some[-1][2])), self._pad_id, dtype=torch.int64)
            for place, (owner, row, length) in enumerate(some):
                batch[place, :length] = self._texts[owner][row, :length]
            yield batch


class Pictures:
    """The pictures of splits, those without pixels left out."""

    def __init__(self, splits: Sequence[PreparedSplit]) -> None:
        self._splits = [(split, np.flatnonzero(split.has_pixels())) for split in splits]
        self.items = sum(len(rows) for _, rows in self._splits)
        digest = hashlib.sha256()
        for split, rows in self._splits:
            digest.update(f"{split.dataset.content_hash} {split.image_size}".encode())
            digest.update(split.image_hashes()[rows].tobytes())
        self.content_hash = digest.hexdigest()

    def states(self, a_picture: int) -> int:
        return self.items * a_picture

    def batches(self) -> Iterator[Tensor]:
        for split, rows in self._splits:
            for start in range(0, len(rows), _AT_ONCE):
                yield pixels_tensor(split, rows[start : start + _AT_ONCE])


def keep_outputs(
    folder: Path,
    part: Part,
    inputs: Inputs,
    *,
    count: Callable[[Callable[[], None]], int],
    tokens: bool = True,
    dtype: Literal["float32", "float16"] = "float32",
    facts: Mapping[str, Any] | None = None,
    announce: Callable[[str], None] = lambda line: None,
) -> None:
    """Run a frozen part over all its inputs once, and keep what it makes of them in `folder`.

    Args:
        part: frozen whole and in evaluation mode; it runs in its own precision.
        count: runs a function and returns its FLOPs (`mt2st.flops.count_flops`).
        tokens: also keep the states of tokens or patches, and not embeddings alone.
        dtype: of what is kept; float16 halves the disk it takes and rounds to 3 digits.
        facts: further JSON values for the manifest.
        announce: gets a line that says what will be done and how much disk it takes.

    Raises:
        Mt2stError: there are no inputs, or the disk has no room for the outputs.
    """
    owner, method, pad_id = _source(part)
    live: Callable[[Tensor], TowerOutput] = getattr(owner, method)
    device = next(part.module.parameters()).device
    first = next(inputs.batches(), None)
    if first is None:
        raise Mt2stError("a frozen tower has no inputs whose outputs could be kept; set cache_frozen to off")
    with torch.no_grad():
        sample = TowerOutput(*live(first[:1].to(device)))
    shapes = {"embeddings.npy": (inputs.items, sample.embedding.shape[-1])}
    if tokens:
        shapes["tokens.npy"] = (inputs.states(sample.tokens.shape[1]), sample.tokens.shape[-1])
    needed = sum(rows * width for rows, width in shapes.values()) * np.dtype(dtype).itemsize + 40 * inputs.items
    folder.parent.mkdir(parents=True, exist_ok=True)
    announce(f"{inputs.items:,} inputs once; {needed / 1e6:,.1f} MB in {folder}")
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise Mt2stError(
            f"the outputs of a frozen tower need {needed / 1e9:.3g} GB in {folder.parent}, but {free / 1e9:.3g} GB are "
            "free; make room, take another --data-folder, halve them with --encoder.cache-frozen float16, or do "
            "without: --encoder.cache-frozen off"
        )
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}")
    partial.mkdir()
    try:
        index = _Index()
        with _Files(partial, shapes, np.dtype(dtype)) as files:

            def run() -> None:
                for batch in inputs.batches():
                    made = TowerOutput(*live(batch.to(device)))
                    lengths = np.full(len(batch), made.tokens.shape[1])
                    if pad_id is not None:
                        lengths = text_lengths(batch.numpy(), pad_id)
                    index.add(input_keys(batch, pad_id), lengths)
                    files.write("embeddings.npy", made.embedding)
                    if tokens:
                        real = torch.from_numpy(np.arange(made.tokens.shape[1]) < lengths[:, None])
                        files.write("tokens.npy", made.tokens.cpu()[real])

            started = time.perf_counter()
            with torch.no_grad():
                flops = count(run)
            seconds = time.perf_counter() - started
        index.save(partial)
        names = ["keys.npy", "places.npy", *shapes]
        for name in names:
            sync_file(partial / name)
        sizes = {name: (partial / name).stat().st_size for name in names}
        cost = {"items": inputs.items, "flops": flops, "seconds": seconds, "bytes": sum(sizes.values())}
        made_of = {**(facts or {}), "weights": weights_hash(part), "pad_id": pad_id, "dtype": dtype}
        kind = {"kind": KIND, "format_version": FORMAT_VERSION}
        write_sealed_json(partial / MANIFEST, {**kind, **made_of, **cost, "files": sizes})
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise Mt2stError(f"{folder}: {error.strerror}; make room or mend the disk, and repeat the command") from None
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(folder.parent)


class _Index:
    """Keys and places of what is written, row after row; of equal inputs the first counts."""

    def __init__(self) -> None:
        self._keys: list[Keys] = []
        self._lengths: list[NDArray[np.int64]] = []

    def add(self, keys: Keys, lengths: NDArray[np.int64]) -> None:
        self._keys.append(keys)
        self._lengths.append(lengths)

    def save(self, folder: Path) -> None:
        lengths = np.concatenate(self._lengths)
        starts = np.cumsum(lengths) - lengths
        keys, first = np.unique(np.concatenate(self._keys), axis=0, return_index=True)
        np.save(folder / "keys.npy", keys)
        np.save(folder / "places.npy", np.stack([first, starts[first], lengths[first]], axis=1).astype(np.int64))


class _Files:
    """`.npy` files, written row after row: name → (rows, width). A map of them would end the process on a full disk."""

    def __init__(self, folder: Path, shapes: Mapping[str, tuple[int, int]], dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._streams: dict[str, BinaryIO] = {}
        for name, shape in shapes.items():
            self._streams[name] = (folder / name).open("wb")
            write_npy_header(self._streams[name], dtype, shape)

    def __enter__(self) -> _Files:
        return self

    def write(self, name: str, rows: Tensor) -> None:
        self._streams[name].write(np.ascontiguousarray(rows.float().cpu().numpy(), self._dtype).tobytes())

    def __exit__(self, *exc_info: Any) -> None:
        for stream in self._streams.values():
            stream.close()

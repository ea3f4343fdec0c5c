"""Reading prepared data: a folder of memory-mapped files that many processes may read at once.

Use it through `mt2st.data.splits`.

    data = PreparedDataset.open(Path("data/easy_vqa-32px-…"))
    train = data.split("train")
    pixels = train.pixels(np.array([0, 5]))          # uint8 [2, 32, 32, 3]

Layout (`data_prep.prepare` writes it, and publishes the whole folder with one rename):
    manifest.json    sealed: card, counts, row ranges of the splits, size and SHA-256 of every file, content hash
    images.bin       store "pixels": uint8 [N, S, S, 3]; store "encoded": the original encoded bytes, one after another
    images.arrow     one row an image (or text-only item), in the order of the splits
    captions.arrow   one row a caption        questions.arrow   one row a question
Texts stay in Arrow and pixels on disk until asked for; nothing is held as one Python object an item.

A *row* is a number inside a split, 0 … num_images − 1 (or num_captions − 1, num_questions − 1). A text-only item, which
has no image, has a row like an image and no pixels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mt2st.data.card import Answer, DatasetCard
from mt2st.data.images import decode_image, load_rgb
from mt2st.data.manifest import CURE, IMAGES_BIN, MANIFEST, TABLES, check_manifest, check_tables
from mt2st.errors import Mt2stError, check_range, unknown_name
from mt2st.files import file_hash, read_sealed_json
from mt2st.randomness import hashed_order

if TYPE_CHECKING:
    from PIL.Image import Image


class PreparedDataset:
    """A prepared folder, opened with `PreparedDataset.open`. Data workers may share it: each reopens the folder."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.card = DatasetCard(**{**manifest["card"], "splits": dict(manifest["card"]["splits"])})
        self.content_hash: str = manifest["content_hash"]
        self.image_size: int = manifest["image_size"]
        self.splits: tuple[str, ...] = tuple(manifest["split_order"])

    @classmethod
    def open(cls, folder: Path | str, verify: str = "quick") -> PreparedDataset:
        """Open a prepared folder.

        Args:
            folder: what `prepare` returned.
            verify: "quick" checks the manifest's seal and every file's size; "full" also every file's SHA-256.

        Raises:
            Mt2stError: the folder is missing, torn, edited, of another format version, or not ours.
        """
        if verify not in ("quick", "full"):
            raise unknown_name("verify", verify, ("quick", "full"))
        folder = Path(folder)
        if not folder.is_dir():
            raise Mt2stError(f"{folder} is not a folder of prepared data; `python -m data_prep prepare NAME` makes one")
        manifest = read_sealed_json(folder / MANIFEST, CURE)
        check_manifest(manifest, folder / MANIFEST)
        for name, facts in manifest["files"].items():
            _verify_file(folder / name, FileFacts(facts["bytes"], facts["sha256"]), full=verify == "full")
        return cls(folder, manifest)

    def split(self, name: str) -> PreparedSplit:
        """All of a split. Unknown names are answered with the known ones."""
        if name not in self.manifest["splits"]:
            raise unknown_name(f"split of {self.card.name!r}", name, self.splits)
        return PreparedSplit(self, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.folder, self.content_hash)

    @cached_property
    def tables(self) -> dict[str, Any]:
        """The Arrow tables `images`, `captions` and `questions`, memory-mapped."""
        import pyarrow as pa

        tables = {}
        for name in TABLES:
            path = self.folder / f"{name}.arrow"
            try:
                tables[name] = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                told = " ".join(str(error).split())[:200]
                raise Mt2stError(f"{path} cannot be read as Arrow ({told}); {CURE}") from None
        check_tables(tables, self.manifest, self.folder)
        return tables

    @cached_property
    def store(self) -> np.ndarray:
        """Store "pixels": uint8 [rows, S, S, 3]; store "encoded": uint8 [bytes]. Memory-mapped, read-only."""
        size = self.manifest["files"][IMAGES_BIN]["bytes"]
        side = self.image_size
        shape: tuple[int, ...] = (
            (size // (3 * side * side), side, side, 3) if self.manifest["store"] == "pixels" else (size,)
        )
        if size == 0:
            return np.zeros(shape, dtype=np.uint8)
        mapped = np.memmap(self.folder / IMAGES_BIN, dtype=np.uint8, mode="r", shape=shape)
        return mapped.view(np.ndarray)  # a plain array is read from without the checks of its subclass


class PreparedSplit:
    """A split, or a subset of its images with their captions and questions. Immutable; rows are local to it.

    Does not assume that every image has captions or questions, nor that questions of one image follow each other.
    """

    def __init__(self, dataset: PreparedDataset, name: str, image_rows: np.ndarray | None = None) -> None:
        """`image_rows`: rows of the whole split to keep, in that order; None keeps all."""
        self.dataset = dataset
        self.name = name
        self._range = dataset.manifest["splits"][name]
        whole = self._range["images"][1] - self._range["images"][0]
        self._all = image_rows is None
        self._rows = (
            np.arange(whole)
            if image_rows is None
            else _checked_rows(image_rows, whole, f"split {name!r}", distinct=True)
        )
        self._rows.setflags(write=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return PreparedSplit, (self.dataset, self.name, None if self._all else np.array(self._rows))

    def __repr__(self) -> str:
        return (
            f"PreparedSplit({self.dataset.card.name}/{self.name}: {self.num_images} images, "
            f"{self.num_captions} captions, {self.num_questions} questions)"
        )

    @property
    def image_size(self) -> int:
        """Side of the images, in pixels."""
        return self.dataset.image_size

    @property
    def num_images(self) -> int:
        """Number of images (and text-only items)."""
        return len(self._rows)

    @property
    def num_captions(self) -> int:
        """Number of captions of these images."""
        return len(self._captions[0])

    @property
    def num_questions(self) -> int:
        """Number of questions on these images."""
        return len(self._questions[0])

    # -- images ------------------------------------------------------------------------------------------------------

    def pixels(self, rows: np.ndarray | Sequence[int]) -> np.ndarray:
        """Pixels of the images `rows`: uint8 [len(rows), S, S, 3], RGB, a copy of the caller's own."""
        rows = self._checked_pixel_rows(rows)
        if self.dataset.manifest["store"] == "pixels":
            return np.asarray(self.dataset.store[self._pixel_rows[rows]])
        side = self.image_size
        squares = [decode_image(encoded, side, fit=self.dataset.manifest["fit"]) for encoded in self._encoded(rows)]
        return np.array(squares, dtype=np.uint8).reshape(-1, side, side, 3)

    def pictures(self, rows: np.ndarray | Sequence[int]) -> list[Image]:
        """PIL images (RGB) of the images `rows`: originals where they are stored, else the stored squares."""
        from PIL import Image as Pillow

        if self.dataset.manifest["store"] == "pixels":
            return [Pillow.fromarray(square) for square in self.pixels(rows)]
        return [load_rgb(encoded) for encoded in self._encoded(self._checked_pixel_rows(rows))]

    def has_pixels(self) -> np.ndarray:
        """bool [num_images]: False for text-only items."""
        return self._pixel_rows >= 0

    def image_ids(self, rows: np.ndarray | Sequence[int] | None = None) -> list[str]:
        """The set's own ids of the images `rows` (None: of all)."""
        return self._image_values("image_id", rows)

    def image_hashes(self) -> np.ndarray:
        """Content hash of every image, "S64" (SHA-256 in hex) [num_images].

        It is the hash of the S × S pixels, or of a text-only item's texts. Images that are equal at their original size
        are equal at any smaller size, so equal hashes here are the stricter test.
        """
        raw = b"".join(self._image_column("sha256").to_pylist())
        return np.frombuffer(raw.hex().encode(), dtype="S64").copy()

    def labels(self) -> list[str | None]:
        """The class name of every image, None where it has none."""
        return self._image_values("label", None)

    def extra(self, row: int) -> dict[str, Any]:
        """Further values of an image, as given with the first example that showed it."""
        return json.loads(self._image_values("extra", [row])[0])

    def extra_values(self, name: str) -> list[Any]:
        """The value of `extra[name]` of every image, None where there is none."""
        quoted = json.dumps(name)
        return [json.loads(text).get(name) if quoted in text else None for text in self._image_values("extra", None)]

    # -- captions ----------------------------------------------------------------------------------------------------

    def caption_texts(self, rows: np.ndarray | Sequence[int] | None = None) -> list[str]:
        """The captions `rows`; None: all of them, in stored order."""
        own = self._captions[0]
        if rows is not None:
            own = own[_checked_rows(rows, len(own), f"captions of split {self.name!r}")]
        return self._texts("captions", "text", own)

    def caption_images(self) -> np.ndarray:
        """int64 [num_captions]: the image row that each caption belongs to."""
        return self._captions[1]

    def caption_ranks(self) -> np.ndarray:
        """int64 [num_captions]: 0 for an image's first caption, which is its main one, 1 for its second, and so on."""
        images = self._captions[1]
        order = np.argsort(images, kind="stable")
        starts = np.searchsorted(images[order], images[order])
        ranks = np.empty(len(images), dtype=np.int64)
        ranks[order] = np.arange(len(images)) - starts
        return ranks

    # -- questions ---------------------------------------------------------------------------------------------------

    def question_texts(self) -> list[str]:
        """All questions, in stored order."""
        return self._texts("questions", "question", self._questions[0])

    def question_images(self) -> np.ndarray:
        """int64 [num_questions]: the image row that each question is on."""
        return self._questions[1]

    def question_ids(self) -> list[str]:
        """The set's own ids of the questions; unique within a split."""
        return self._texts("questions", "question_id", self._questions[0])

    def question_types(self) -> list[str]:
        """The set's own type of each question, "" where it has none."""
        return self._texts("questions", "question_type", self._questions[0])

    def answers(self, row: int) -> tuple[Answer, ...]:
        """The annotators' answers to question `row`; empty for an unlabelled question."""
        return tuple(Answer(**answer) for answer in self._question_value("answers", row))

    def answer_texts(self) -> list[tuple[str, ...]]:
        """The answers' texts of every question."""
        found = self.dataset.tables["questions"].column("answers").take(self._questions[0]).to_pylist()
        return [tuple(answer["text"] for answer in answers) for answers in found]

    def choices(self, row: int) -> tuple[str, ...]:
        """The options of a multiple-choice question; empty for an open one."""
        return tuple(self._question_value("choices", row))

    def question_extra(self, row: int) -> dict[str, Any]:
        """Further values of question `row`."""
        return json.loads(self._question_value("extra", row))

    # -- parts of a split --------------------------------------------------------------------------------------------

    def subset(self, image_rows: np.ndarray) -> PreparedSplit:
        """Only the images `image_rows`, in that order, with their captions and questions in stored order.

        Raises:
            Mt2stError: a row is out of range or named twice.
        """
        rows = _checked_rows(image_rows, self.num_images, f"split {self.name!r}", distinct=True)
        return PreparedSplit(self.dataset, self.name, self._rows[rows])

    def labelled_fraction(self, fraction: float, seed: int, *, stratified: bool = False) -> np.ndarray:
        """A deterministic choice of round(fraction · num_images) image rows, ascending.

        There is at least 1 unless `fraction` is 0. Nested: with the same seed, a smaller fraction is a subset of a
        larger one. 0 = none, 1 = all.

        Args:
            fraction: the share of images.
            seed: which ones.
            stratified: take the share of each class (by `labels()`) instead, so at least one image of every class, also
                of one that has a single image.
        """
        check_range("fraction", fraction, 0.0, 1.0, "give the share of images whose labels are used")
        order = hashed_order([f"{at}" for at in self._rows.tolist()], "labelled", seed)
        labels = self.labels() if stratified else [None] * self.num_images
        members: dict[str | None, list[int]] = {}
        for row in order:
            members.setdefault(labels[row], []).append(row)
        least = 1 if fraction > 0 else 0
        chosen = [row for rows in members.values() for row in rows[: max(round(fraction * len(rows)), least)]]
        return np.array(sorted(chosen), dtype=np.int64)

    # -- inside ------------------------------------------------------------------------------------------------------

    @cached_property
    def _captions(self) -> tuple[np.ndarray, np.ndarray]:
        return self._belonging("captions")

    @cached_property
    def _questions(self) -> tuple[np.ndarray, np.ndarray]:
        return self._belonging("questions")

    @cached_property
    def _pixel_rows(self) -> np.ndarray:
        return self._image_column("pixel_row").to_numpy()

    def _belonging(self, table: str) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the whole table that belong to these images, int64 [n], and their image rows here, int64 [n]."""
        first, last = self._range[table]
        start, stop = self._range["images"]
        images = self.dataset.tables[table].column("image").slice(first, last - first).to_numpy() - start
        here = np.full(stop - start, -1, dtype=np.int64)
        here[self._rows] = np.arange(len(self._rows))
        local = here[images] if len(images) else np.zeros(0, dtype=np.int64)
        kept = np.flatnonzero(local >= 0)
        rows, local = kept + first, local[kept]
        rows.setflags(write=False)
        local.setflags(write=False)
        return rows, local

    def _checked_pixel_rows(self, rows: np.ndarray | Sequence[int]) -> np.ndarray:
        rows = _checked_rows(rows, self.num_images, f"split {self.name!r}")
        textual = rows[self._pixel_rows[rows] < 0]
        if textual.size:
            (item,) = self.image_ids(textual[:1])
            cure = "ask only for rows where has_pixels() is true"
            raise Mt2stError(f"split {self.name!r}: item {item!r} is text-only and has no pixels; {cure}")
        return rows

    def _encoded(self, rows: np.ndarray) -> Iterator[bytes]:
        offsets, lengths = (self._image_column(name).to_numpy()[rows] for name in ("offset", "length"))
        for offset, length in zip(offsets, lengths, strict=True):
            yield self.dataset.store[offset : offset + length].tobytes()

    def _image_column(self, name: str) -> Any:
        return self.dataset.tables["images"].column(name).take(self._rows + self._range["images"][0])

    def _image_values(self, name: str, rows: np.ndarray | Sequence[int] | None) -> list[Any]:
        if rows is None:
            return self._image_column(name).to_pylist()
        rows = _checked_rows(rows, self.num_images, f"split {self.name!r}")
        return self.dataset.tables["images"].column(name).take(self._rows[rows] + self._range["images"][0]).to_pylist()

    def _texts(self, table: str, column: str, rows: np.ndarray) -> list[str]:
        return self.dataset.tables[table].column(column).take(rows).to_pylist()

    def _question_value(self, column: str, row: int) -> Any:
        at = int(_checked_rows([row], self.num_questions, f"questions of split {self.name!r}")[0])
        return self.dataset.tables["questions"].column(column)[int(self._questions[0][at])].as_py()


@dataclass(frozen=True)
class FileFacts:
    """Size in bytes and SHA-256 (hex) of a file of a prepared folder."""

    bytes: int
    sha256: str


def _verify_file(path: Path, wanted: FileFacts, full: bool) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise Mt2stError(f"{path} cannot be read ({error.strerror}); {CURE}") from None
    if found != wanted.bytes:
        raise Mt2stError(f"{path} has {found} bytes instead of {wanted.bytes}, so it is torn; {CURE}")
    if full and file_hash(path) != wanted.sha256:
        raise Mt2stError(f"{path} does not match its SHA-256, so it is damaged or edited; {CURE}")


def _reopen(folder: Path, content_hash: str) -> PreparedDataset:
    dataset = PreparedDataset.open(folder)
    if dataset.content_hash != content_hash:
        raise Mt2stError(f"{folder} was prepared anew with other content while it was in use; start the run again")
    return dataset


def _checked_rows(rows: np.ndarray | Sequence[int], count: int, place: str, distinct: bool = False) -> np.ndarray:
    array = np.asarray(rows)
    if array.size == 0:
        return np.zeros(0, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise Mt2stError(
            f"{place}: rows must be a one-dimensional array of integers, got {array.dtype} {array.shape}; "
            "np.flatnonzero turns a mask into rows"
        )
    array = array.astype(np.int64)
    if array.min() < 0 or array.max() >= count:
        worst = int(array.min() if array.min() < 0 else array.max())
        raise Mt2stError(f"{place}: row {worst} is outside 0 … {count - 1}")
    if distinct and len(np.unique(array)) != len(array):
        raise Mt2stError(f"{place}: a row is named twice; each image can be in a subset once")
    return array

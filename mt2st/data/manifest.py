"""What stands in a prepared folder: the manifest's fields and the tables' columns.

`data_prep` writes them and `mt2st.data.prepared` checks them. A manifest's seal finds damage. These checks make sure
that what stands under a whole seal is used as what it says, or refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from mt2st.data.images import FITS, checked_fit
from mt2st.errors import Mt2stError

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
IMAGES_BIN = "images.bin"
TABLES = ("images", "captions", "questions")
STORES = ("pixels", "encoded")
CURE = "remove the folder and run `python -m data_prep prepare` again"
_LARGEST_SIDE = 1 << 14
_CARD_TEXTS = (
    "name",
    "title",
    "task",
    "source",
    "revision",
    "licence",
    "main_metric",
    "protocol",
    "paper",
    "requires",
    "notes",
)


def schemas() -> dict[str, Any]:
    """Arrow schemas of the tables. `image` counts over all splits; the manifest holds each split's range."""
    import pyarrow as pa

    answer = pa.struct([("text", pa.string()), ("annotator", pa.string())])
    return {
        "images": pa.schema(
            [
                ("image_id", pa.string()),
                ("sha256", pa.binary(32)),
                ("label", pa.string()),
                ("extra", pa.string()),
                ("pixel_row", pa.int64()),
                ("offset", pa.int64()),
                ("length", pa.int64()),
            ]
        ),
        "captions": pa.schema([("image", pa.int64()), ("text", pa.string())]),
        "questions": pa.schema(
            [
                ("image", pa.int64()),
                ("question_id", pa.string()),
                ("question", pa.string()),
                ("question_type", pa.string()),
                ("answers", pa.list_(answer)),
                ("choices", pa.list_(pa.string())),
                ("extra", pa.string()),
            ]
        ),
    }


def check_manifest(manifest: Mapping[str, Any], path: Path) -> None:
    """Raise unless every field that reading relies on is there and makes sense.

    Raises:
        Mt2stError: names the file, the field and its value.
    """

    def refuse(field: str, value: object, wanted: str) -> Mt2stError:
        return Mt2stError(
            f"{path} is no manifest of prepared data: {field} = {str(value)[:60]!r} is not {wanted}; {CURE}"
        )

    if manifest.get("format_version") != FORMAT_VERSION:
        found = repr(manifest.get("format_version"))[:60]
        raise Mt2stError(f"{path} has format_version {found}, this program reads {FORMAT_VERSION}; {CURE}")
    side = manifest.get("image_size")
    if not _count(side) or not 1 <= side <= _LARGEST_SIDE:
        raise refuse("image_size", side, f"a number of pixels from 1 to {_LARGEST_SIDE}")
    if manifest.get("store") not in STORES:
        raise refuse("store", manifest.get("store"), f"one of {', '.join(STORES)}")
    if not _is_fit(manifest.get("fit")):
        raise refuse("fit", manifest.get("fit"), f"one of {', '.join(FITS)} or a checkpoint's own")
    if not isinstance(manifest.get("content_hash"), str):
        raise refuse("content_hash", manifest.get("content_hash"), "a text")
    card = manifest.get("card")
    if (
        not isinstance(card, dict)
        or set(card) != {*_CARD_TEXTS, "splits"}
        or not all(isinstance(card[name], str) for name in _CARD_TEXTS)
    ):
        raise refuse("card", card, "a dataset card")
    pairs = card.get("splits")
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs
    ):
        raise refuse("card.splits", pairs, "a list of pairs")
    if not isinstance(manifest.get("counts"), dict):
        raise refuse("counts", manifest.get("counts"), "counts by split")
    files = manifest.get("files")
    names = {IMAGES_BIN, *(f"{table}.arrow" for table in TABLES)}
    if not isinstance(files, dict) or set(files) != names:
        raise refuse("files", files, f"the facts of {', '.join(sorted(names))}")
    for name, facts in files.items():
        if not isinstance(facts, dict) or not _count(facts.get("bytes")) or not isinstance(facts.get("sha256"), str):
            raise refuse(f"files[{name!r}]", facts, "a size and a SHA-256")
    if manifest["store"] == "pixels" and files[IMAGES_BIN]["bytes"] % (3 * side * side):
        raise refuse(
            f"files[{IMAGES_BIN!r}].bytes", files[IMAGES_BIN]["bytes"], f"a whole number of {side}×{side} images"
        )
    splits, order = manifest.get("splits"), manifest.get("split_order")
    if not isinstance(splits, dict) or not splits:
        raise refuse("splits", splits, "row ranges by split")
    if (
        not isinstance(order, list)
        or not all(isinstance(name, str) for name in order)
        or sorted(order) != sorted(splits)
    ):
        raise refuse("split_order", order, "the names of the splits")
    for name, ranges in splits.items():
        for table in TABLES:
            rows = ranges.get(table) if isinstance(ranges, dict) else None
            if not isinstance(rows, list) or len(rows) != 2 or not all(map(_count, rows)) or rows[0] > rows[1]:
                raise refuse(f"splits[{name!r}].{table}", rows, "a range of rows [first, after the last]")


def check_tables(tables: Mapping[str, Any], manifest: Mapping[str, Any], folder: Path) -> None:
    """Raise unless the Arrow data are sound, and columns, row ranges and the places they point to fit together.

    Raises:
        Mt2stError: names the table and what does not fit.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    def refuse(table: str, what: str) -> Mt2stError:
        return Mt2stError(f"{folder / table}.arrow does not fit {MANIFEST}: {what}; {CURE}")

    def bounds(table: str, column: str) -> tuple[int, int]:
        found = pc.min_max(tables[table].column(column)).as_py()
        return (0, -1) if found["min"] is None else (found["min"], found["max"])

    for table, schema in schemas().items():
        try:
            tables[table].validate(
                full=True
            )  # reads all of it once; offsets that leave their buffer would crash a later access
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise refuse(table, " ".join(str(error).split())[:200]) from None
        if not tables[table].schema.equals(schema):
            raise refuse(table, f"its columns are not {', '.join(schema.names)}")
        for name, ranges in manifest["splits"].items():
            if ranges[table][1] > len(tables[table]):
                raise refuse(table, f"split {name!r} ends at row {ranges[table][1]} of {len(tables[table])}")
    for table, column in (
        ("images", "pixel_row"),
        ("images", "offset"),
        ("images", "length"),
        ("captions", "image"),
        ("questions", "image"),
    ):
        if tables[table].column(column).null_count:
            raise refuse(table, f"{column} has missing values")
    size = manifest["files"][IMAGES_BIN]["bytes"]
    if manifest["store"] == "pixels":
        rows = size // (3 * manifest["image_size"] ** 2)
        if bounds("images", "pixel_row")[1] >= rows:
            raise refuse("images", f"pixel_row reaches {bounds('images', 'pixel_row')[1]}, of {rows} images")
    else:
        ends = pc.add(tables["images"].column("offset"), tables["images"].column("length"))
        last = pc.max(ends).as_py() or 0
        if last > size or min(bounds("images", "offset")[0], bounds("images", "length")[0]) < 0:
            raise refuse("images", f"offset and length leave the {size} bytes of {IMAGES_BIN}")
    for table in ("captions", "questions"):
        for name, ranges in manifest["splits"].items():
            first, after = ranges[table]
            found = pc.min_max(tables[table].column("image").slice(first, after - first)).as_py()
            low, high = ranges["images"]
            if found["min"] is not None and not (low <= found["min"] and found["max"] < high):
                raise refuse(
                    table,
                    f"split {name!r} has rows of images {found['min']} … {found['max']}, outside {low} … {high - 1}",
                )


def _is_fit(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(checked_fit(value))
    except Mt2stError:
        return False


def _count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62

"""Rows of a table file, one at a time: parquet, JSON Lines, CSV and TSV. A bad line is named by file and record."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mt2st.errors import Mt2stError

TABLE_SUFFIXES = (".parquet", ".jsonl", ".csv", ".tsv")
# A line above this is no annotation: it would be read into memory whole.
MAX_LINE_BYTES = 64 << 20
_BATCH_ROWS = 64


def read_table(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table file as dictionaries, in file order, in bounded memory.

    Raises:
        Mt2stError: the file is missing, of an unknown kind, or broken; names file and record.
    """
    readers = {".parquet": _parquet, ".jsonl": _json_lines, ".csv": _csv, ".tsv": _csv}
    if path.suffix not in readers:
        raise Mt2stError(f"{path} is no table we read; known are {', '.join(TABLE_SUFFIXES)}")
    try:
        yield from readers[path.suffix](path)
    except FileNotFoundError:
        raise Mt2stError(f"{path} is missing; check the path, or the source folder") from None
    except UnicodeDecodeError as error:
        raise Mt2stError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None


def read_json(path: Path) -> Any:
    """A whole JSON file.

    Raises:
        Mt2stError: the file is missing or not valid JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Mt2stError(
            f"{path} is missing; the source folder must hold it (see `python -m data_prep list`)"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Mt2stError(f"{path} is not valid JSON ({error}); download it again") from None


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=_BATCH_ROWS):
                yield from batch.to_pylist()
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise Mt2stError(
            f"{path} is not a readable parquet file ({' '.join(str(error).split())[:200]}); write it again"
        ) from None


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES):
            if len(line) == MAX_LINE_BYTES:
                raise Mt2stError(f"{path}, line {number + 1} is longer than {MAX_LINE_BYTES} bytes; is it JSON Lines?")
            number += 1
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise Mt2stError(f"{path}, line {number} is not valid JSON ({error})") from None
            if not isinstance(row, dict):
                raise Mt2stError(f"{path}, line {number} holds {type(row).__name__}, not an object with columns")
            yield row


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    with path.open(encoding="utf-8-sig", newline="") as stream:
        # Caption files are not quoted: a caption may begin with a quotation mark.
        unquoted = path.suffix == ".tsv"
        reader = csv.reader(stream, delimiter=delimiter, quoting=csv.QUOTE_NONE if unquoted else csv.QUOTE_MINIMAL)
        try:
            header = next(reader, None)
            if not header or len(set(header)) != len(header):
                raise Mt2stError(f"{path}, line 1: expected a header with distinct column names, got {header}")
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise Mt2stError(
                        f"{path}, line {reader.line_num}: {len(row)} fields, but the header has {len(header)}"
                    )
                yield dict(zip(header, row, strict=True))
        except csv.Error as error:
            raise Mt2stError(f"{path}, line {reader.line_num}: {error}") from None

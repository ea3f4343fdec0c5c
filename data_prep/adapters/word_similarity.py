"""Word-similarity files: pairs of words with a human score, one pair a line. Text only.

Reads the usual files of a folder (*.txt, *.tsv, *.csv; or one file): `word1 word2 score`, separated by tab, blank or
comma. One example is one pair: two captions, `extra["score"]`, and `extra["set"]`, the file's stem. Lines beginning
with "#" and a first line whose score is no number (a header) are skipped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from mt2st.data.card import DatasetCard, Example
from mt2st.errors import Mt2stError

CARD = DatasetCard(
    name="word_similarity",
    title="Word-similarity files",
    task="word-similarity",
    source="files of the user's, such as WordSim-353, SimLex-999, MEN",
    revision="as given",
    licence="each file's own",
    splits={"test": None},
    main_metric="spearman",
    requires="folder with files of lines `word1 word2 score`",
    notes="Scores of different files have different scales: correlate within one `set` only.",
)

_SEPARATOR = re.compile(r"[\t,; ]+")


def examples(split: str, *, source: Path) -> Iterator[Example]:
    """All pairs, file by file in alphabetical order."""
    paths = (
        [source]
        if source.is_file()
        else sorted(path for path in source.iterdir() if path.suffix in (".txt", ".tsv", ".csv"))
    )
    if not paths:
        raise Mt2stError(f"{source} holds no .txt, .tsv or .csv file; give the folder of the word-similarity files")
    for path in paths:
        yield from _pairs(path)


def _pairs(path: Path) -> Iterator[Example]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise Mt2stError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    found = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = _SEPARATOR.split(line.strip())
        score = _number(fields[2]) if len(fields) == 3 else None
        if score is None:
            if number == 1 and len(fields) >= 3:
                continue
            raise Mt2stError(f"{path}, line {number}: {line[:60]!r} is not `word1 word2 score`")
        found += 1
        yield Example(
            image_id=f"{path.stem}:{number}",
            captions=(fields[0], fields[1]),
            extra={"score": score, "set": path.stem, "group": path.stem},
        )
    if not found:
        raise Mt2stError(f"{path} holds no pair; expected lines `word1 word2 score`")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None

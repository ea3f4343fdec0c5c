"""What the gloss cases read of their data. It does not depend on the draw, so it is read once a process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from benchmarks.cases.shared.data import facts, guarded, prepared
from benchmarks.cases.shared.gloss_knobs import GlossKnobs
from benchmarks.cases.shared.labels import class_codes, class_names
from mt2st.data.prepared import PreparedDataset, PreparedSplit
from mt2st.encoders.split_texts import SplitTexts
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.encoders.words import words_of
from mt2st.errors import Mt2stError


class ReadGlosses:
    """The texts of a split with what is known of them; no draw changes it.

    Attributes:
        texts: the definitions [N].
        codes: class numbers [N] int64.
        lemmas: each synset's first lemma, "" where the set has none.
        above: ids of the synsets above.
        parts: parts of speech, "" where the set names none.
    """

    def __init__(self, split: PreparedSplit, names: Sequence[str]) -> None:
        texts, items = split.caption_texts(), split.caption_images()
        first = dict(reversed(list(zip(items.tolist(), texts, strict=True))))
        if len(first) != split.num_images:
            row = next(row for row in range(split.num_images) if row not in first)
            raise Mt2stError(
                f"split {split.name!r}: item {split.image_ids([row])[0]!r} has no text; map a column to caption"
            )
        self.split = split
        self.ids = split.image_ids()
        self.texts = [first[row] for row in range(split.num_images)]
        self.codes = class_codes(split, names)
        self.lemmas = [_words(value) for value in split.extra_values("lemmas")]
        self.above = [str(value or "").split(" ") for value in split.extra_values("hypernyms")]
        self.parts = [str(value or "") for value in split.extra_values("pos")]


class ReadData:
    """The splits of a gloss case, read once for all draws.

    Attributes:
        facts: what every record says of the data.
        names: the classes.
        whole: the training split, validation part included.
        test: the test split.
        words: the texts split into whole words; `pieces`: into what byte-pair encoding treats one by one.
    """

    def __init__(self, dataset: PreparedDataset, knobs: GlossKnobs) -> None:
        test = dataset.split(knobs.test_split)
        whole, leaked = guarded(dataset.split(knobs.train_split), [test], knobs.on_leak, "glosses")
        if knobs.training_share < 1:
            whole = whole.subset(whole.labelled_fraction(knobs.training_share, seed=0))
        self.facts = facts(dataset, leaked)
        self.names = class_names(whole)
        self.whole, self.test = ReadGlosses(whole, self.names), ReadGlosses(test, self.names)
        self.words, self.pieces = SplitTexts(words_of), SplitTexts(TextTokenizer.split)

    @classmethod
    def of(cls, knobs: GlossKnobs, console: Console) -> ReadData:
        """The data of these knobs; those of the last call are kept."""
        dataset = prepared(knobs, None, console=console)
        chosen = (knobs.train_split, knobs.test_split, knobs.on_leak, knobs.training_share)
        key = (str(dataset.folder.resolve()), dataset.content_hash, *chosen)
        if key not in _READ:
            _READ.clear()
            _READ[key] = cls(dataset, knobs)
        return _READ[key]


_READ: dict[tuple[Any, ...], ReadData] = {}  # at most one


def _words(lemmas: object) -> str:
    """The first of a synset's lemmas, its "_" turned into blanks."""
    return str(lemmas or "").split(" ")[0].replace("_", " ")

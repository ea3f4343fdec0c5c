"""What the gloss cases share: texts with classes, lemmas and hypernyms; splits; grading; floors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from benchmarks.cases import AUXILIARY, PRIMARY, TestResult
from benchmarks.cases.shared.clusters import clusters_of
from benchmarks.cases.shared.data import carved, facts, guarded, prepared
from benchmarks.cases.shared.gloss_knobs import GlossKnobs
from benchmarks.cases.shared.labels import (
    check_taught,
    class_codes,
    class_names,
    graded,
    macro_f1,
    majority,
    stratified_rows,
)
from mt2st.data.prepared import PreparedSplit
from mt2st.data.streams import ItemStream
from mt2st.errors import Mt2stError
from mt2st.predict import predict_classes

Tokenize = Callable[[Sequence[str], int], Tensor]


class Glosses:
    """The texts of a split with what is known of them.

    Attributes:
        texts: the definitions [N].
        codes: class numbers [N] int64.
        lemmas: each synset's first lemma, "" where the set has none.
        hypernyms: first lemma of the synset above, "" where there is none.
        parts: part-of-speech numbers [N] int64, and `part_names`.
    """

    def __init__(self, split: PreparedSplit, names: Sequence[str], lemma_of: Mapping[str, str]) -> None:
        texts, items = split.caption_texts(), split.caption_images()
        first = dict(reversed(list(zip(items.tolist(), texts, strict=True))))
        if len(first) != split.num_images:
            row = next(row for row in range(split.num_images) if row not in first)
            raise Mt2stError(
                f"split {split.name!r}: item {split.image_ids([row])[0]!r} has no text; map a column to caption"
            )
        self.split = split
        self.texts = [first[row] for row in range(split.num_images)]
        self.codes = class_codes(split, names)
        self.lemmas = [_words(value) for value in split.extra_values("lemmas")]
        above = [str(value or "").split(" ") for value in split.extra_values("hypernyms")]
        self.hypernyms = [next((lemma_of[key] for key in keys if key in lemma_of), "") for keys in above]
        parts = [str(value or "") for value in split.extra_values("pos")]
        self.part_names = sorted(set(parts))
        self.parts = np.searchsorted(self.part_names, parts)

    def __len__(self) -> int:
        return len(self.texts)


class GlossData:
    """Splits, classes and floors of a gloss case, made once."""

    def __init__(self, knobs: GlossKnobs, console: Console, draw: int = 0) -> None:
        dataset = prepared(knobs, None, console=console)
        test_split = dataset.split(knobs.test_split)
        whole, leaked = guarded(dataset.split(knobs.train_split), [test_split], knobs.on_leak, "glosses")
        if knobs.training_share < 1:
            whole = whole.subset(whole.labelled_fraction(knobs.training_share, seed=0))
        self.names = class_names(whole)
        train, validation = carved(whole, knobs.validation_fraction, draw)
        lemma_of = dict(zip(train.image_ids(), map(_words, train.extra_values("lemmas")), strict=True))
        self.train = Glosses(train, self.names, lemma_of)
        self.validation = Glosses(validation, self.names, lemma_of)
        self.test = Glosses(test_split, self.names, lemma_of)
        self.labelled = stratified_rows(self.train.codes, knobs.label_fraction, draw, self.names)  # rows of train
        self.taught = self.train.codes[self.labelled]
        check_taught(self.taught, self.test.codes, self.names, "test")
        check_taught(self.taught, self.validation.codes, self.names, "validation")
        if not any(self.train.lemmas) and {"gloss_lemma", "matching", "hypernym"} & set(knobs.auxiliaries):
            raise Mt2stError(
                f"{knobs.data!r} names no lemmas (extra 'lemmas'); leave gloss_lemma, matching and hypernym out: for "
                "example --auxiliaries masked_lm (text) or --auxiliaries skip_gram (representation)"
            )
        if "hypernym" in knobs.auxiliaries and not any(self.train.hypernyms):
            raise Mt2stError(
                f"{knobs.data!r} names no hypernyms (extra 'hypernyms'); leave hypernym out of auxiliaries"
            )
        if "part_of_speech" in knobs.auxiliaries and len(np.unique(self.train.parts)) < 2:
            raise Mt2stError(
                f"{knobs.data!r} names fewer than two parts of speech (extra 'pos'); leave part_of_speech out of "
                "auxiliaries"
            )
        with console.status("floors"):
            self.floors = {
                "majority class": majority(self.taught, self.test.codes),
                "bag of words + logistic regression": bag_of_words(
                    [self.train.texts[row] for row in self.labelled], self.taught, self.test.texts, self.test.codes
                ),
            }
        self.data: dict[str, Any] = {
            **facts(dataset, leaked),
            "training_glosses": len(self.train),
            "labelled_glosses": len(self.labelled),
            "validation_glosses": len(self.validation),
            "test_glosses": len(self.test),
            "classes": len(self.names),
        }

    def auxiliary_tensors(
        self, tokens: Tensor, tokenize: Tokenize, lemma_length: int, glosses: Glosses | None = None
    ) -> dict[str, Tensor]:
        """What the auxiliary batch holds of each gloss; `tokens` [N, T] are the glosses themselves.

        Args:
            glosses: None = those of training.
        """
        part = glosses or self.train
        places = np.searchsorted(self.train.part_names, [part.part_names[number] for number in part.parts])
        return {
            "tokens": tokens,
            "lemma_tokens": tokenize(part.lemmas, lemma_length),
            "lemma_group": _groups(part.lemmas),
            "hypernym_tokens": tokenize(part.hypernyms, lemma_length),
            "hypernym_group": _groups(part.hypernyms),
            "part": torch.from_numpy(places),
        }

    def streams(
        self, knobs: Any, tokens: Tensor, auxiliary_tensors: Mapping[str, Tensor], seed: int
    ) -> dict[str, ItemStream]:
        """The streams of an experiment; `tokens` [N, T] are the training glosses."""
        labelled = {"tokens": tokens[self.labelled], "label": torch.from_numpy(self.taught)}
        return _streams(knobs, labelled, auxiliary_tensors, seed)

    def validation_streams(self, knobs: Any, tokens: Tensor, tokenize: Tokenize, seed: int) -> dict[str, ItemStream]:
        """The same over the validation split; `tokens` [N, T] are its glosses."""
        labelled = {"tokens": tokens, "label": torch.from_numpy(self.validation.codes)}
        tensors = self.auxiliary_tensors(tokens, tokenize, knobs.lemma_length, self.validation)
        return _streams(knobs, labelled, tensors, seed)

    def grade(self, encoder: Any, objective: Any, tokens: Tensor) -> TestResult:
        """Everything measured on the test split; `tokens` [N, T] are its glosses."""
        found = predict_classes(encoder, objective, ItemStream({"tokens": tokens}, items_per_batch=1).in_order())
        metrics, items = graded(found, self.test.codes)
        items["cluster"] = clusters_of(self.test.lemmas)
        return TestResult(metrics, items, {"label": self.names}, self.floors)

    def validator(self, encoder: Any, objective: Any, tokens: Tensor) -> Callable[[], dict[str, float]]:
        """Accuracy on the validation split; `tokens` [N, T] are its glosses."""
        stream = ItemStream({"tokens": tokens}, items_per_batch=1)

        def validate() -> dict[str, float]:
            found = predict_classes(encoder, objective, stream.in_order())
            return {"accuracy": float((found.prediction == self.validation.codes).mean())}

        return validate


def _streams(
    knobs: Any, labelled: Mapping[str, Tensor], auxiliary: Mapping[str, Tensor], seed: int
) -> dict[str, ItemStream]:
    of_auxiliary = knobs.auxiliary_glosses_per_batch
    return {
        PRIMARY: ItemStream(labelled, items_per_batch=knobs.glosses_per_batch, seed=seed, name="labelled"),
        AUXILIARY: ItemStream(auxiliary, items_per_batch=of_auxiliary, seed=seed, name="glosses"),
    }


def bag_of_words(texts: Sequence[str], taught: np.ndarray, asked: Sequence[str], truth: np.ndarray) -> dict[str, float]:
    """Floor: logistic regression on the TF-IDF of the same labelled texts (scikit-learn, C = 10)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    model = LogisticRegression(C=10.0, max_iter=100, tol=1e-3).fit(words.fit_transform(texts), taught)
    guess = np.asarray(model.predict(words.transform(asked)), dtype=np.int64)
    return {"accuracy": float((guess == truth).mean()), "macro_f1": macro_f1(guess, truth)}


def _words(lemmas: object) -> str:
    """The first of a synset's lemmas, its "_" turned into blanks."""
    return str(lemmas or "").split(" ")[0].replace("_", " ")


def _groups(texts: Sequence[str]) -> Tensor:
    """[N] int64: equal numbers for equal texts, −1 for empty ones."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(text, len(numbers)) if text else -1 for text in texts], dtype=torch.int64)

"""What the gloss cases share: texts with classes, lemmas and hypernyms; splits; grading; floors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from benchmarks.cases import AUXILIARY, PRIMARY, TestResult
from benchmarks.cases.shared.clusters import clusters_of
from benchmarks.cases.shared.gloss_knobs import GlossKnobs
from benchmarks.cases.shared.gloss_reading import ReadData, ReadGlosses
from benchmarks.cases.shared.labels import (
    check_taught,
    graded,
    macro_f1,
    majority,
    stratified_rows,
)
from benchmarks.cases.shared.same_class import SameClassQuestion
from mt2st.data.splits import carve_validation
from mt2st.data.streams import ItemStream
from mt2st.errors import Mt2stError
from mt2st.objectives.classification import ClassificationObjective
from mt2st.objectives.same_class import SameClassObjective
from mt2st.predict import predict_classes

if TYPE_CHECKING:
    from mt2st.training.trainer import Stream

Tokenize = Callable[[Sequence[str], int], Tensor]
_READ_LEMMAS = {"gloss_lemma", "matching", "hypernym"}  # auxiliaries


class Glosses:
    """The glosses of a part.

    Attributes:
        texts: the definitions [N].
        codes: class numbers [N] int64.
        lemmas: each synset's first lemma, "" where the set has none.
        hypernyms: first lemma of the synset above, "" where there is none.
        parts: part-of-speech numbers [N] int64, and `part_names`.
    """

    def __init__(self, read: ReadGlosses, rows: np.ndarray, lemma_of: Mapping[str, str]) -> None:
        places = rows.tolist()
        self.texts, self.lemmas = ([values[row] for row in places] for values in (read.texts, read.lemmas))
        self.codes = read.codes[rows]
        self.ids = [read.ids[row] for row in places]
        self.hypernyms = [next((lemma_of[key] for key in read.above[row] if key in lemma_of), "") for row in places]
        parts = [read.parts[row] for row in places]
        self.part_names = sorted(set(parts))
        self.parts = np.searchsorted(self.part_names, parts)

    def __len__(self) -> int:
        return len(self.texts)


class GlossData:
    """Splits, classes and floors of a gloss case, made once."""

    def __init__(self, knobs: GlossKnobs, console: Console, draw: int = 0) -> None:
        read = ReadData.of(knobs, console)
        self._auxiliaries = knobs.auxiliaries
        self.read, self.names = read, read.names
        train, validation = carve_validation(read.whole.split, knobs.validation_fraction, seed=draw)
        lemma_of = {read.whole.ids[row]: read.whole.lemmas[row] for row in train.tolist()}
        self.train, self.validation = (Glosses(read.whole, rows, lemma_of) for rows in (train, validation))
        self.test = Glosses(read.test, np.arange(len(read.test.texts)), lemma_of)
        self.question = _SameClass(self, knobs, draw) if knobs.question == "same_class" else _Class(self, knobs, draw)
        if not any(self.train.lemmas) and _READ_LEMMAS & set(knobs.auxiliaries):
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
        self.data: dict[str, Any] = {
            **read.facts,
            "training_glosses": len(self.train),
            "validation_glosses": len(self.validation),
            "test_glosses": len(self.test),
            "classes": len(self.names),
            **self.question.data,
        }

    def auxiliary_tensors(
        self, tokens: Tensor, tokenize: Tokenize, lemma_length: int, glosses: Glosses | None = None
    ) -> dict[str, Tensor]:
        """What the auxiliary batch holds of each gloss; `tokens` [N, T] are the glosses themselves.

        Lemmas and hypernyms are there where an auxiliary reads them.

        Args:
            glosses: None = those of training.
        """
        part = glosses or self.train
        places = np.searchsorted(self.train.part_names, [part.part_names[number] for number in part.parts])
        tensors = {"tokens": tokens, "part": torch.from_numpy(places), "label": torch.from_numpy(part.codes)}
        for name, texts, readers in (("lemma", part.lemmas, _READ_LEMMAS), ("hypernym", part.hypernyms, {"hypernym"})):
            if readers & set(self._auxiliaries):
                tensors |= {f"{name}_tokens": tokenize(texts, lemma_length), f"{name}_group": _groups(texts)}
        return tensors

    def streams(
        self, knobs: Any, tokens: Tensor, auxiliary_tensors: Mapping[str, Tensor], seed: int
    ) -> dict[str, Stream]:
        """The streams of an experiment; `tokens` [N, T] are the training glosses."""
        auxiliary = knobs.auxiliary_glosses_per_batch
        return {
            PRIMARY: self.question.stream(tokens, knobs.glosses_per_batch, seed),
            AUXILIARY: ItemStream(auxiliary_tensors, items_per_batch=auxiliary, seed=seed, name="glosses"),
        }

    def validation_streams(self, knobs: Any, tokens: Tensor, tokenize: Tokenize, seed: int) -> dict[str, Stream]:
        """The same over the validation split; `tokens` [N, T] are its glosses."""
        tensors = self.auxiliary_tensors(tokens, tokenize, knobs.lemma_length, self.validation)
        auxiliary = knobs.auxiliary_glosses_per_batch
        return {
            PRIMARY: self.question.validation_stream(tokens, knobs.glosses_per_batch, seed),
            AUXILIARY: ItemStream(tensors, items_per_batch=auxiliary, seed=seed, name="glosses"),
        }


class _SameClass:
    """Are both glosses of one supersense? Few pairs are labelled."""

    def __init__(self, glosses: GlossData, knobs: GlossKnobs, draw: int) -> None:
        parts = (glosses.train, glosses.validation, glosses.test)
        self._asked = SameClassQuestion(
            [part.codes for part in parts],
            labelled=knobs.labelled_pairs,
            validation=knobs.validation_pairs,
            test=len(glosses.test),
            draw=draw,
            vectors=lambda: latent_semantics([part.texts for part in parts]),
            about="LSA",
        )
        self.data = self._asked.data
        self.asked_rows = self._asked.asked_rows

    def regression(self, vectors: Sequence[np.ndarray]) -> dict[str, float]:
        """Logistic regression on `vectors` of the glosses `asked_rows`, graded on test."""
        return {"accuracy": self._asked.regression(vectors)}

    def objective(self, width: int) -> SameClassObjective:
        return SameClassObjective(width)

    def stream(self, tokens: Tensor, glosses_per_batch: int, seed: int) -> Stream:
        return self._asked.stream(ItemStream({"tokens": tokens}, items_per_batch=1), glosses_per_batch // 2, seed)

    def validation_stream(self, tokens: Tensor, glosses_per_batch: int, seed: int) -> Stream:
        items = ItemStream({"tokens": tokens}, items_per_batch=1)
        return self._asked.validation_stream(items, glosses_per_batch // 2, seed)

    def validator(self, encoder: Any, objective: Any, tokens: Tensor) -> Callable[[], dict[str, float]]:
        return self._asked.validator(encoder, objective, ItemStream({"tokens": tokens}, items_per_batch=1))

    def grade(self, encoder: Any, objective: Any, tokens: Tensor) -> TestResult:
        return self._asked.grade(encoder, objective, ItemStream({"tokens": tokens}, items_per_batch=1))


class _Class:
    """Of which supersense is a gloss? Few glosses are labelled."""

    def __init__(self, glosses: GlossData, knobs: GlossKnobs, draw: int) -> None:
        train, self._validation, self._test = glosses.train, glosses.validation.codes, glosses.test.codes
        self._clusters = clusters_of(glosses.test.lemmas)
        self._names = glosses.names
        self._rows = stratified_rows(train.codes, knobs.label_fraction, draw, glosses.names)  # of train
        self._taught = train.codes[self._rows]
        check_taught(self._taught, self._test, glosses.names, "test")
        check_taught(self._taught, self._validation, glosses.names, "validation")
        self.floors = {
            "majority class": majority(self._taught, self._test),
            "bag of words + logistic regression": bag_of_words(
                [train.texts[row] for row in self._rows], self._taught, glosses.test.texts, self._test
            ),
        }
        self.data = {"labelled_glosses": len(self._rows)}
        none = np.zeros(0, dtype=np.int64)
        self.asked_rows = [self._rows, none, np.arange(len(self._test))]

    def regression(self, vectors: Sequence[np.ndarray]) -> dict[str, float]:
        """Logistic regression on `vectors` of the glosses `asked_rows`, graded on test (standardised, C = 0.1)."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300)).fit(vectors[0], self._taught)
        guess = np.asarray(model.predict(vectors[2]), dtype=np.int64)
        return {"accuracy": float((guess == self._test).mean()), "macro_f1": macro_f1(guess, self._test)}

    def objective(self, width: int) -> ClassificationObjective:
        return ClassificationObjective(width, len(self._names), name="supersense")

    def stream(self, tokens: Tensor, glosses_per_batch: int, seed: int) -> Stream:
        labelled = {"tokens": tokens[self._rows], "label": torch.from_numpy(self._taught)}
        return ItemStream(labelled, items_per_batch=glosses_per_batch, seed=seed, name="labelled")

    def validation_stream(self, tokens: Tensor, glosses_per_batch: int, seed: int) -> Stream:
        labelled = {"tokens": tokens, "label": torch.from_numpy(self._validation)}
        return ItemStream(labelled, items_per_batch=glosses_per_batch, seed=seed, name="labelled")

    def validator(self, encoder: Any, objective: Any, tokens: Tensor) -> Callable[[], dict[str, float]]:
        stream = ItemStream({"tokens": tokens}, items_per_batch=1)

        def validate() -> dict[str, float]:
            found = predict_classes(encoder, objective, stream.in_order())
            return {"accuracy": float((found.prediction == self._validation).mean())}

        return validate

    def grade(self, encoder: Any, objective: Any, tokens: Tensor) -> TestResult:
        found = predict_classes(encoder, objective, ItemStream({"tokens": tokens}, items_per_batch=1).in_order())
        metrics, items = graded(found, self._test)
        items["cluster"] = self._clusters
        return TestResult(metrics, items, {"label": self._names}, self.floors)


def latent_semantics(parts: Sequence[Sequence[str]], width: int = 100) -> list[np.ndarray]:
    """Vectors [N, width] of each part's texts: latent semantic analysis of the first part (scikit-learn).

    TF-IDF, then the first singular vectors (Deerwester et al., 1990), of at most 20,000 texts.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    fitted = words.fit_transform(parts[0][:20_000])
    axes = TruncatedSVD(min(width, *(side - 1 for side in fitted.shape)), random_state=0).fit(fitted)
    return [axes.transform(words.transform(part)).astype(np.float32) for part in parts]


def bag_of_words(texts: Sequence[str], taught: np.ndarray, asked: Sequence[str], truth: np.ndarray) -> dict[str, float]:
    """Floor: logistic regression on the TF-IDF of the same labelled texts (scikit-learn, C = 10)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    model = LogisticRegression(C=10.0, max_iter=100, tol=1e-3).fit(words.fit_transform(texts), taught)
    guess = np.asarray(model.predict(words.transform(asked)), dtype=np.int64)
    return {"accuracy": float((guess == truth).mean()), "macro_f1": macro_f1(guess, truth)}


def _groups(texts: Sequence[str]) -> Tensor:
    """[N] int64: equal numbers for equal texts, −1 for empty ones."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(text, len(numbers)) if text else -1 for text in texts], dtype=torch.int64)

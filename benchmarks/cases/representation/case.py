"""The representation case: word embeddings from glosses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from rich.console import Console
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks.cases import Experiment, TestResult, Tuning
from benchmarks.cases.representation.knobs import WORDS, Knobs
from benchmarks.cases.shared.auxiliaries import Builder, build_auxiliaries
from benchmarks.cases.shared.fine_tuning import tune_towers
from benchmarks.cases.shared.glosses import GlossData
from benchmarks.cases.shared.init_from import inherited_words
from benchmarks.cases.shared.text_encoders import (
    frozen_floor,
    given_texts,
    loadable_texts,
    pretrained_text_encoder,
)
from data_prep.call import adapter_source
from data_prep.find import find_adapter
from mt2st.encoders.frozen_outputs import Texts
from mt2st.encoders.words import BagEncoder, WordVocabulary
from mt2st.errors import Mt2stError
from mt2st.files import write_text
from mt2st.objectives.classification import ClassificationObjective
from mt2st.objectives.gloss_lemma import GlossLemmaObjective
from mt2st.objectives.hypernym import HypernymObjective
from mt2st.objectives.skip_gram import SkipGramObjective


class RepresentationCase:
    """Data, vocabulary and word pairs, made once; `build` makes a fresh model for a seed."""

    AUXILIARIES: ClassVar[Mapping[str, Builder]] = {
        "supersense": lambda case, encoder: ClassificationObjective(
            encoder.width, len(case.glosses.names), name="supersense"
        ),
        "skip_gram": lambda case, encoder: SkipGramObjective(
            case.vocabulary.counts, encoder.word_width, window=case.knobs.window, negatives=case.knobs.negatives
        ),
        "gloss_lemma": lambda case, encoder: GlossLemmaObjective(
            encoder.width, getattr(encoder, "word_width", encoder.width)
        ),
        "hypernym": lambda case, encoder: HypernymObjective(margin=case.knobs.margin),
    }

    def __init__(self, knobs: Knobs, console: Console, draw: int = 0) -> None:
        self.knobs = knobs
        self.glosses = GlossData(knobs, console, draw)
        glosses = self.glosses
        self.vocabulary: WordVocabulary | None = None
        self.pairs: dict[str, WordPairs] = {}
        self.data: Mapping[str, Any] = glosses.data
        if knobs.encoder.model == WORDS:
            texts = [*glosses.train.texts, *glosses.train.lemmas]
            words = glosses.read.words
            self.vocabulary = inherited_words(knobs.init_from, texts) or WordVocabulary.most_frequent(
                words.counts(texts), knobs.vocabulary_size, at_least=knobs.word_at_least
            )
            self.pairs = word_pairs(knobs.word_similarity, self.vocabulary)
            encode, length = self.vocabulary.wordwise(words), knobs.context_length
            similarity = {name: len(pairs.scores) for name, pairs in self.pairs.items()}
            self.data = {**glosses.data, "words": len(self.vocabulary) - 1, "word_similarity": similarity}
        else:
            encode, length = self._encoder(0).tokenize, knobs.encoder.context_length
        self.encode = encode
        self.tokens, self.validation_tokens, self.test_tokens = (
            encode(part.texts, length) for part in (glosses.train, glosses.validation, glosses.test)
        )
        # Another seed trains on what this one holds out, and reads the same kept outputs.
        self.held_out_lemmas = encode(glosses.validation.lemmas, knobs.lemma_length)
        self.auxiliary_tensors = glosses.auxiliary_tensors(self.tokens, encode, knobs.lemma_length)

    def build(self, seed: int) -> Experiment:
        knobs, glosses = self.knobs, self.glosses
        encoder = self._encoder(seed)
        tuning = Tuning()
        if self.vocabulary is None:
            inputs = {"text": lambda: Texts(self._texts(), encoder.pad_id)}
            tuning = tune_towers(knobs.encoder, encoder, inputs, folder=knobs.data_folder, tokens=False)
        primary = glosses.question.objective(encoder.width)

        def test() -> TestResult:
            result = glosses.question.grade(encoder, primary, self.test_tokens)
            if self.vocabulary is None:
                return replace(result, floors=result.floors | self.frozen_floor)
            result.metrics.update(similarity_metrics(encoder.table.weight.detach().cpu().numpy(), self.pairs))
            return result

        def save(folder: Path) -> None:
            if self.vocabulary is not None:
                write_text(folder / "words.txt", "\n".join(self.vocabulary.words[1:]) + "\n")

        return Experiment(
            encoder=encoder,
            primary=primary,
            auxiliaries=build_auxiliaries(self, encoder),
            tuning=tuning,
            streams=glosses.streams(knobs, self.tokens, self.auxiliary_tensors, seed),
            validation_streams=lambda: glosses.validation_streams(knobs, self.validation_tokens, self.encode, seed),
            validate=glosses.question.validator(encoder, primary, self.validation_tokens),
            test=test,
            save=save,
            loadable=loadable_texts(
                knobs.encoder,
                {"words": self._sizes()} if self.vocabulary is not None else {},
                context_length=int(self.tokens.shape[1]),
                question=knobs.question,
                classes=glosses.names,
                head=primary.name,
            ),
        )

    def _encoder(self, seed: int) -> Any:
        knobs = self.knobs
        if self.vocabulary is None:
            return pretrained_text_encoder(knobs.encoder, WORDS, seed)
        torch.manual_seed(seed)
        return BagEncoder(len(self.vocabulary), **self._sizes())

    def _sizes(self) -> dict[str, Any]:
        knobs = self.knobs
        return {"word_width": knobs.word_width, "width": knobs.width, "dropout": knobs.word_dropout}

    def _texts(self) -> list[Tensor]:
        """The tokens of all that a checkpoint is given."""
        parts = (self.tokens, self.validation_tokens, self.test_tokens, self.held_out_lemmas)
        return given_texts(self.knobs.auxiliaries, parts, self.auxiliary_tensors)

    @cached_property
    def frozen_floor(self) -> dict[str, dict[str, float]]:
        """What the checkpoint as it came gives, with the same labels."""
        parts = (self.tokens, self.validation_tokens, self.test_tokens)
        knobs = self.knobs
        return frozen_floor(
            knobs.encoder, self._encoder(0), self.glosses.question, parts, texts=self._texts(), folder=knobs.data_folder
        )


class WordPairs:
    """The pairs of a word-similarity set whose words are both known.

    Attributes:
        ids: [n, 2] word ids.
        scores: [n] human scores, on the set's own scale.
        coverage: share of the set's pairs that are known.
    """

    def __init__(self, ids: np.ndarray, scores: np.ndarray, coverage: float) -> None:
        self.ids, self.scores, self.coverage = ids, scores, coverage


def word_pairs(folder: str, vocabulary: WordVocabulary) -> dict[str, WordPairs]:
    """The word-similarity sets of `folder` (see data_prep/adapters/word_similarity.py), by name; none for "".

    Raises:
        Mt2stError: no such folder, a file out of format, or a set of which fewer than two pairs are known.
    """
    if not folder:
        return {}
    adapter: Any = find_adapter("word_similarity")
    found: dict[str, list[tuple[int | None, int | None, float]]] = {}
    for pair in adapter.examples("test", source=adapter_source(adapter, Path(folder))):
        one, other = pair.captions
        found.setdefault(str(pair.extra["set"]), []).append(
            (vocabulary.index(one), vocabulary.index(other), float(pair.extra["score"]))
        )
    sets = {}
    for name, rows in found.items():
        known = [row for row in rows if row[0] is not None and row[1] is not None]
        if len(known) < 2:
            raise Mt2stError(
                f"word-similarity set {name!r} in {folder}: {len(known)} of {len(rows)} pairs have both words in the "
                f"vocabulary of {len(vocabulary) - 1} words; a correlation needs two; take the file away, or raise "
                "vocabulary_size"
            )
        ids = np.array([[one, other] for one, other, _ in known], dtype=np.int64)
        sets[name] = WordPairs(ids, np.array([score for *_, score in known]), len(known) / len(rows))
    return sets


def similarity_metrics(table: np.ndarray, pairs: Mapping[str, WordPairs]) -> dict[str, float]:
    """Spearman correlation of cosine and human score for each set, their mean, and the coverage.

    Args:
        table: word vectors [V, D].
    """
    unit = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    metrics: dict[str, float] = {}
    for name, known in pairs.items():
        cosine = (unit[known.ids[:, 0]] * unit[known.ids[:, 1]]).sum(1)
        correlation = float(spearmanr(cosine, known.scores).statistic)
        metrics[f"{name}/spearman"] = (
            0.0 if np.isnan(correlation) else correlation
        )  # constant scores correlate with nothing
        metrics[f"{name}/coverage"] = known.coverage
    if pairs:
        for metric in ("spearman", "coverage"):
            metrics[metric] = float(np.mean([metrics[f"{name}/{metric}"] for name in pairs]))
    return metrics

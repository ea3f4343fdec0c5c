"""The VQA case: few labelled questions, many captions (issue 2)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from torch import Tensor, nn

from benchmarks.cases.shared.data import build_encoder, guarded, prepared, train_tokenizer, trimming
from benchmarks.cases.vqa.knobs import Knobs
from benchmarks.suite.runner import AUXILIARY, PRIMARY, Experiment, TestResult
from mt2st.data.splits import PreparedSplit, carve_validation
from mt2st.data.streams import CaptionStream, QuestionStream
from mt2st.data.vocabulary import AnswerVocabulary
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.encoders.vision_language import VisionLanguageEncoder
from mt2st.errors import Mt2stError, unknown_name
from mt2st.files import write_text
from mt2st.metrics import PROTOCOLS, expected_calibration_error, vqa_accuracy
from mt2st.objectives.contrastive import ContrastiveObjective
from mt2st.objectives.masked_lm import MaskedLanguageObjective
from mt2st.objectives.matching import MatchingObjective
from mt2st.objectives.vqa import AnswerObjective
from mt2st.predict import predict_answers
from mt2st.training.trainer import Stream

AUXILIARIES = ("contrastive", "sigmoid", "masked_lm", "matching")


class VqaCase:
    """Data, splits and vocabulary, made once; `build` makes a fresh model for a seed."""

    def __init__(self, knobs: Knobs, console: Console) -> None:
        for name in knobs.auxiliaries:
            if name not in AUXILIARIES:
                raise unknown_name("auxiliary", name, AUXILIARIES)
        self.knobs = knobs
        dataset = prepared(knobs, knobs.image_size, console=console)
        self.protocol = dataset.card.protocol or "official-2021"
        self.test_split = labelled_only(dataset.split(knobs.test_split))
        whole, leaked = guarded(dataset.split(knobs.train_split), [self.test_split], knobs.on_leak)
        train_rows, validation_rows = carve_validation(whole, knobs.validation_fraction, seed=0)
        self.train, self.validation = whole.subset(train_rows), labelled_only(whole.subset(validation_rows))
        self.labelled = self.train.subset(self.train.labelled_fraction(knobs.label_fraction, seed=0))
        for name, split in (
            ("test", self.test_split),
            ("validation", self.validation),
            ("labelled training", self.labelled),
        ):
            if not split.num_questions:
                raise Mt2stError(
                    f"the {name} part of {knobs.data!r} has no labelled questions; raise its fraction or choose "
                    "another split"
                )
        self.vocabulary = AnswerVocabulary.build(self.labelled.answer_texts(), knobs.answer_vocabulary)
        self.texts = "captions" if self.train.num_captions else "questions"
        words = (
            self.train.caption_texts() + self.labelled.question_texts()
            if self.train.num_captions
            else self.train.question_texts()
        )
        self.tokenizer = train_tokenizer(knobs.encoder, words)
        self.data: Mapping[str, Any] = {
            "name": dataset.card.name,
            "revision": dataset.card.revision,
            "content_hash": dataset.content_hash,
            "training_images": self.train.num_images,
            "training_captions": self.train.num_captions,
            "labelled_images": self.labelled.num_images,
            "labelled_questions": self.labelled.num_questions,
            "validation_questions": self.validation.num_questions,
            "test_questions": self.test_split.num_questions,
            **leaked,
            "answers": len(self.vocabulary),
            "answer_coverage": self.vocabulary.coverage,
        }

    def build(self, seed: int) -> Experiment:
        knobs = self.knobs
        encoder = build_encoder(knobs.encoder, knobs.image_size, self.tokenizer, seed)
        tokenize = trimming(encoder.towers.tokenize, encoder.towers.pad_id)
        primary = AnswerObjective(knobs.encoder.fusion_width, len(self.vocabulary))
        streams: dict[str, Stream] = {
            PRIMARY: QuestionStream(
                self.labelled,
                tokenize,
                self.vocabulary,
                images_per_batch=knobs.images_per_batch,
                questions_per_image=knobs.questions_per_image,
                seed=seed,
            ),
            AUXILIARY: CaptionStream(
                self.train, tokenize, images_per_batch=knobs.caption_images_per_batch, seed=seed, texts=self.texts
            ),
        }
        auxiliaries = [make_auxiliary(name, encoder, self.tokenizer, knobs) for name in knobs.auxiliaries]
        judge = Judge(encoder, primary, self.vocabulary, self.protocol, tokenize)

        def save(folder: Path) -> None:
            if self.tokenizer is not None:
                self.tokenizer.save(folder / "tokenizer.json")
            write_text(folder / "answers.txt", "\n".join(self.vocabulary.answers) + "\n")

        return Experiment(
            encoder=encoder,
            primary=primary,
            auxiliaries=auxiliaries,
            streams=streams,
            validate=judge.validator(self.validation),
            test=lambda: judge.test(self.test_split, self.labelled),
            save=save,
        )


def make_auxiliary(name: str, encoder: VisionLanguageEncoder, tokenizer: TextTokenizer | None, knobs: Any) -> Any:
    """An auxiliary objective by name, with fresh weights."""
    width = knobs.encoder.fusion_width
    if name in ("contrastive", "sigmoid"):
        return ContrastiveObjective("softmax" if name == "contrastive" else "sigmoid", name=name)
    if name == "matching":
        return MatchingObjective(width)
    frame = (tokenizer.start_id, tokenizer.end_id) if tokenizer is not None else ()
    towers = encoder.towers
    return MaskedLanguageObjective(width, towers.vocabulary_size, towers.mask_id, rate=knobs.mask_rate, frame_ids=frame)


def labelled_only(split: PreparedSplit) -> PreparedSplit:
    """The images of `split` that have at least one question; their unlabelled questions are counted when scored."""
    return split.subset(np.unique(split.question_images()))


class Judge:
    """Grades predicted answers."""

    def __init__(
        self,
        encoder: VisionLanguageEncoder,
        objective: nn.Module,
        vocabulary: AnswerVocabulary,
        protocol: str,
        tokenize: Callable[[list[str]], Tensor],
    ) -> None:
        self.encoder, self.objective, self.vocabulary = encoder, objective, vocabulary
        self.protocol, self.tokenize = protocol, tokenize

    def validator(self, split: PreparedSplit) -> Callable[[], dict[str, float]]:
        """Validation with the questions tokenised once."""
        tokens = self.tokenize(split.question_texts())
        answers = split.answer_texts()

        def validate() -> dict[str, float]:
            predicted = predict_answers(self.encoder, self.objective, split, tokens).prediction
            return {"vqa_accuracy": float(np.nanmean(self.scores(predicted, answers, self.protocol)))}

        return validate

    def scores(self, predicted: np.ndarray, answers: Sequence[tuple[str, ...]], protocol: str) -> np.ndarray:
        """VQA accuracy of each question [Q] float32; NaN for an unlabelled one."""
        texts = self.vocabulary.answers
        return np.array(
            [
                _score(texts[choice], given, protocol) if given else np.nan
                for choice, given in zip(predicted, answers, strict=True)
            ],
            dtype=np.float32,
        )

    def test(self, split: PreparedSplit, labelled: PreparedSplit) -> TestResult:
        """Everything measured on the test split."""
        answers, wordings = split.answer_texts(), split.question_texts()
        result = predict_answers(self.encoder, self.objective, split, self.tokenize(wordings))
        score = self.scores(result.prediction, answers, self.protocol)
        graded = ~np.isnan(score)
        metrics = {"vqa_accuracy": float(score[graded].mean())}
        for protocol in PROTOCOLS:
            metrics[f"vqa_accuracy/{protocol}"] = float(np.nanmean(self.scores(result.prediction, answers, protocol)))
        metrics["ece"] = expected_calibration_error(result.confidence[graded], score[graded])
        metrics["unlabelled_questions"] = float((~graded).sum())
        metrics["answers_outside_vocabulary"] = float(
            sum(bool(given) and all(self.vocabulary.index(text) is None for text in given) for given in answers)
        )
        question_types, question_names = codes([kind or "other" for kind in split.question_types()])
        answer_types, answer_names = codes([answer_type(given) for given in answers])
        items = {
            "score": score[graded],
            "prediction": result.prediction[graded].astype(np.int32),
            "confidence": result.confidence[graded],
            "question_type": question_types[graded].astype(np.int32),
            "answer_type": answer_types[graded].astype(np.int32),
        }
        prior = language_prior(labelled.question_texts(), labelled.answer_texts(), wordings, self.vocabulary.answers)
        floors = {
            "language prior": {"vqa_accuracy": float(np.nanmean(self.scores(prior, answers, self.protocol)))},
            "chance": {"vqa_accuracy": self.chance(answers)},
        }
        return TestResult(metrics, items, {"question_type": question_names, "answer_type": answer_names}, floors)

    def chance(self, answers: Sequence[tuple[str, ...]]) -> float:
        """Expected accuracy of an answer drawn uniformly from the vocabulary."""
        counts = Counter(given for given in answers if given)
        texts = self.vocabulary.answers
        means = {given: float(np.mean([_score(text, given, self.protocol) for text in texts])) for given in counts}
        return sum(means[given] * count for given, count in counts.items()) / counts.total()


@lru_cache(maxsize=1 << 18)
def _score(prediction: str, answers: tuple[str, ...], protocol: str) -> float:
    return vqa_accuracy(prediction, answers, protocol)


def language_prior(
    wordings: Sequence[str], answers: Sequence[Sequence[str]], asked: Sequence[str], vocabulary: Sequence[str]
) -> np.ndarray:
    """The most frequent training answer to each asked wording (for a wording never seen: of all), as vocabulary
    positions [Q].
    """
    by_wording: dict[str, Counter[str]] = defaultdict(Counter)
    overall: Counter[str] = Counter()
    known = set(vocabulary)
    for wording, given in zip(wordings, answers, strict=True):
        inside = [text for text in given if text in known]
        by_wording[wording].update(inside)
        overall.update(inside)

    def most_frequent(counts: Counter[str]) -> int:
        return min(range(len(vocabulary)), key=lambda index: (-counts[vocabulary[index]], index))

    fallback = most_frequent(overall)
    best = {wording: most_frequent(counts) for wording, counts in by_wording.items() if counts}
    return np.array([best.get(wording, fallback) for wording in asked], dtype=np.int64)


def answer_type(answers: Sequence[str]) -> str:
    """VQA's answer types: "yes/no", "number" or "other", by the most frequent answer; "unlabelled" without answers."""
    if not answers:
        return "unlabelled"
    most = Counter(answers).most_common(1)[0][0].strip().lower()
    return "yes/no" if most in ("yes", "no") else "number" if most.isdigit() else "other"


def codes(values: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Integer codes [N] of texts, and the names of the codes, in alphabetical order."""
    names = sorted(set(values))
    index = {name: code for code, name in enumerate(names)}
    return np.array([index[value] for value in values], dtype=np.int64), names

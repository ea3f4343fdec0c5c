"""Grading of answers: VQA accuracy under its protocols, calibration, floors."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from torch import Tensor, nn

from benchmarks.cases import TestResult
from benchmarks.cases.shared.clusters import clusters_of
from benchmarks.cases.shared.examples import sample_rows, thumbnails
from benchmarks.records.examples import Example, Examples
from mt2st.data.prepared import PreparedSplit
from mt2st.data.vocabulary import AnswerVocabulary
from mt2st.encoders.vision_language import VisionLanguageEncoder
from mt2st.metrics import PROTOCOLS, expected_calibration_error, vqa_accuracy
from mt2st.predict import Answers, predict_answers


class AnswerGrader:
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

    def test(
        self,
        split: PreparedSplit,
        labelled: PreparedSplit,
        simple: Mapping[str, Callable[[PreparedSplit], np.ndarray]],
    ) -> TestResult:
        """Everything measured on the test split.

        Args:
            simple: tuned floor → what answers a split's questions, as positions in the vocabulary.
        """
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
            "cluster": clusters_of(split.question_images()[graded].tolist()),
        }
        prior = language_prior(labelled.question_texts(), labelled.answer_texts(), wordings, self.vocabulary.answers)
        floors = {
            "language prior": {"vqa_accuracy": float(np.nanmean(self.scores(prior, answers, self.protocol)))},
            **{
                floor: {"vqa_accuracy": float(np.nanmean(self.scores(answer(split), answers, self.protocol)))}
                for floor, answer in simple.items()
            },
            "chance": {"vqa_accuracy": self.chance(answers)},
        }
        names = {"question_type": question_names, "answer_type": answer_names}
        return TestResult(metrics, items, names, floors, self.examples(split, result, score, np.flatnonzero(graded)))

    def examples(self, split: PreparedSplit, found: Answers, score: np.ndarray, graded: np.ndarray) -> Examples:
        """A few graded questions with the model's answers.

        Args:
            found: answers to all Q questions of the split; score: [Q], of each.
            graded: [G] int64, the places of the labelled questions, in the order of the item arrays.
        """
        answers, wordings = split.answer_texts(), split.question_texts()
        kinds, images = split.question_types(), split.question_images()
        chosen = sample_rows(len(graded))
        items = tuple(
            Example(
                item=int(place),
                question=wordings[row],
                right=tuple(text for text, _ in Counter(answers[row]).most_common(3)),
                given=self.vocabulary.answers[found.prediction[row]],
                score=float(score[row]),
                confidence=round(float(found.confidence[row]), 4),
                kind=kinds[row] or "other",
                pictures=(str(images[row]),),
            )
            for place, row in zip(chosen.tolist(), graded[chosen].tolist())
        )
        return Examples(items, thumbnails(split, images[graded[chosen]]), kinds="Question type")

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
    """The most frequent training answer to each asked wording, as vocabulary positions [Q].

    For a wording never seen it is the most frequent answer of all.
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

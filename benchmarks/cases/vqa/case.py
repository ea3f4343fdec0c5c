"""The VQA case: few labelled questions, many captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from rich.console import Console
from torch import Tensor

from benchmarks.cases import AUXILIARY, PRIMARY, Experiment
from benchmarks.cases.shared.auxiliaries import Builder, build_auxiliaries
from benchmarks.cases.shared.data import carved, facts, guarded, prepared
from benchmarks.cases.shared.fine_tuning import tune_towers
from benchmarks.cases.shared.frozen_features import frozen_features
from benchmarks.cases.shared.init_from import inherited_tokenizer
from benchmarks.cases.shared.vision_language import (
    build_encoder,
    loadable,
    masked_language,
    tower_inputs,
    train_tokenizer,
    trimming,
)
from benchmarks.cases.vqa.frozen_answers import COMPONENTS, FrozenAnswers
from benchmarks.cases.vqa.grading import AnswerGrader
from benchmarks.cases.vqa.knobs import Knobs
from benchmarks.cases.vqa.ridge_answers import RidgeAnswers
from mt2st.data.prepared import PreparedSplit
from mt2st.data.streams import CaptionStream, QuestionStream
from mt2st.data.vocabulary import AnswerVocabulary
from mt2st.encoders.preprocessing import own_fit
from mt2st.encoders.vision_language import VisionLanguageEncoder
from mt2st.errors import Mt2stError
from mt2st.files import write_text
from mt2st.objectives.contrastive import ContrastiveObjective
from mt2st.objectives.matching import MatchingObjective
from mt2st.objectives.vqa import AnswerObjective
from mt2st.training.trainer import Stream


class VqaCase:
    """Data, splits and vocabulary, made once; `build` makes a fresh model for a seed."""

    AUXILIARIES: ClassVar[Mapping[str, Builder]] = {
        "contrastive": lambda case, encoder: ContrastiveObjective("softmax", name="contrastive"),
        "sigmoid": lambda case, encoder: ContrastiveObjective("sigmoid", name="sigmoid"),
        "masked_lm": lambda case, encoder: masked_language(encoder, case.tokenizer, case.knobs.mask_rate),
        "matching": lambda case, encoder: MatchingObjective(encoder.fusion.width),
    }

    def __init__(self, knobs: Knobs, console: Console, draw: int = 0) -> None:
        self.knobs = knobs
        self._frozen_answers: FrozenAnswers | None = None
        dataset = prepared(knobs, knobs.image_size, fit=own_fit(knobs.encoder.towers), console=console)
        self.fit = str(dataset.manifest["fit"])
        self.protocol = dataset.card.protocol or "official-2021"
        self.test_split = labelled_only(dataset.split(knobs.test_split))
        whole, leaked = guarded(dataset.split(knobs.train_split), [self.test_split], knobs.on_leak)
        self.whole = whole
        self.train, validation = carved(whole, knobs.validation_fraction, draw)
        self.validation = labelled_only(validation)
        self.labelled = self.train.subset(self.train.labelled_fraction(knobs.label_fraction, seed=draw))
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
        self.tokenizer = train_tokenizer(knobs.encoder, words, inherited_tokenizer(knobs.init_from))
        self.data: Mapping[str, Any] = {
            **facts(dataset, leaked),
            "training_images": self.train.num_images,
            "training_captions": self.train.num_captions,
            "labelled_images": self.labelled.num_images,
            "labelled_questions": self.labelled.num_questions,
            "validation_questions": self.validation.num_questions,
            "test_questions": self.test_split.num_questions,
            "answers": len(self.vocabulary),
            "answer_coverage": self.vocabulary.coverage,
        }

    @cached_property
    def ridge(self) -> RidgeAnswers:
        """The tuned floor; found once, when the first run is tested."""
        return RidgeAnswers(self.labelled, self.validation, self.vocabulary, self.protocol)

    def floors(
        self, encoder: VisionLanguageEncoder, tokenize: Callable[[list[str]], Tensor]
    ) -> dict[str, Callable[[PreparedSplit], np.ndarray]]:
        """The tuned floors; found once, when the first run is tested."""
        if self._frozen_answers is None:
            features = frozen_features(
                *(self.knobs.encoder, encoder, lambda: self._encoder(0), tokenize),
                *(self.labelled, self.labelled.question_texts(), COMPONENTS),
            )
            if features is not None:
                parts = (self.labelled, self.validation)
                self._frozen_answers = FrozenAnswers(features, *parts, self.vocabulary, self.protocol)
        found: dict[str, Callable[[PreparedSplit], np.ndarray]] = {"ridge": self.ridge}
        return found if self._frozen_answers is None else {"frozen_regression": self._frozen_answers, **found}

    def build(self, seed: int) -> Experiment:
        knobs = self.knobs
        encoder = self._encoder(seed)
        tokenize = trimming(encoder.towers.tokenize, encoder.towers.pad_id)
        inputs = tower_inputs(encoder, tokenize, [self.whole, self.test_split], self._texts)
        tuning = tune_towers(knobs.encoder, encoder, inputs, folder=knobs.data_folder)
        primary = AnswerObjective(knobs.encoder.fusion_width, len(self.vocabulary))

        def streams(asked: PreparedSplit, shown: PreparedSplit) -> dict[str, Stream]:
            return {
                PRIMARY: QuestionStream(
                    asked,
                    tokenize,
                    self.vocabulary,
                    images_per_batch=knobs.images_per_batch,
                    questions_per_image=knobs.questions_per_image,
                    seed=seed,
                ),
                AUXILIARY: CaptionStream(
                    shown, tokenize, images_per_batch=knobs.caption_images_per_batch, seed=seed, texts=self.texts
                ),
            }

        auxiliaries = build_auxiliaries(self, encoder)
        grader = AnswerGrader(encoder, primary, self.vocabulary, self.protocol, tokenize)

        def save(folder: Path) -> None:
            if self.tokenizer is not None:
                self.tokenizer.save(folder / "tokenizer.json")
            write_text(folder / "answers.txt", "\n".join(self.vocabulary.answers) + "\n")

        return Experiment(
            encoder=encoder,
            primary=primary,
            auxiliaries=auxiliaries,
            tuning=tuning,
            streams=streams(self.labelled, self.train),
            validation_streams=lambda: streams(self.validation, self.validation),
            validate=grader.validator(self.validation),
            test=lambda: grader.test(self.test_split, self.labelled, self.floors(encoder, tokenize)),
            save=save,
            loadable=loadable(knobs.encoder, knobs.image_size, self.fit, primary.name),
        )

    def _encoder(self, seed: int) -> VisionLanguageEncoder:
        return build_encoder(self.knobs.encoder, self.knobs.image_size, self.tokenizer, seed)

    def _texts(self) -> list[list[str]]:
        """The texts that the encoder is given, masks aside, whichever questions a seed labels or holds out."""
        return [self.whole.caption_texts(), self.whole.question_texts(), self.test_split.question_texts()]


def labelled_only(split: PreparedSplit) -> PreparedSplit:
    """The images of `split` that have at least one question; their unlabelled questions are counted when scored."""
    return split.subset(np.unique(split.question_images()))

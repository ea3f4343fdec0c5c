"""The text case: a small BERT on glosses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from rich.console import Console

from benchmarks.cases import Experiment, TestResult
from benchmarks.cases.shared.auxiliaries import Builder, build_auxiliaries
from benchmarks.cases.shared.fine_tuning import tune_towers
from benchmarks.cases.shared.glosses import GlossData, Tokenize
from benchmarks.cases.shared.init_from import inherited_tokenizer
from benchmarks.cases.shared.text_encoders import (
    frozen_floor,
    given_texts,
    loadable_texts,
    pretrained_text_encoder,
)
from benchmarks.cases.text.knobs import Knobs
from mt2st.encoders.frozen_outputs import Texts
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.encoders.text_transformer import TextConfig, TextEncoder
from mt2st.objectives.classification import ClassificationObjective
from mt2st.objectives.gloss_lemma import GlossLemmaObjective
from mt2st.objectives.masked_tokens import MaskedTokenObjective


class TextCase:
    """Data and tokens, made once; `build` makes a fresh model for a seed."""

    AUXILIARIES: ClassVar[Mapping[str, Builder]] = {
        "supersense": lambda case, encoder: ClassificationObjective(
            encoder.width, len(case.glosses.names), name="supersense"
        ),
        "masked_lm": lambda case, encoder: MaskedTokenObjective(
            encoder.token_width,
            encoder.vocabulary_size,
            encoder.mask_id,
            rate=case.knobs.mask_rate,
            frame_ids=encoder.frame_ids,
            table=encoder.token_table(),
        ),
        "part_of_speech": lambda case, encoder: ClassificationObjective(
            encoder.width, len(case.glosses.train.part_names), label="part", name="part_of_speech"
        ),
        "matching": lambda case, encoder: GlossLemmaObjective(
            encoder.width, encoder.width, both_ways=True, name="matching"
        ),
    }

    def __init__(self, knobs: Knobs, console: Console, draw: int = 0) -> None:
        self.knobs = knobs
        self.glosses = GlossData(knobs, console, draw)
        glosses = self.glosses
        self.tokenizer: TextTokenizer | None = None
        if knobs.encoder.model == "small":
            with console.status("training the tokenizer"):
                self.tokenizer = inherited_tokenizer(knobs.init_from) or TextTokenizer.train(
                    glosses.train.texts, knobs.vocabulary_size
                )
        model = self._encoder(0)
        encode: Tokenize = model.tokenize
        if self.tokenizer is not None and not knobs.init_from:  # an inherited one may split texts in another way
            encode = self.tokenizer.wordwise(glosses.read.pieces)
        with console.status("tokenising"):
            self.tokens, self.validation_tokens, self.test_tokens = (
                encode(part.texts, knobs.encoder.context_length)
                for part in (glosses.train, glosses.validation, glosses.test)
            )
            # Another seed trains on what this one holds out, and reads the same kept outputs.
            self.held_out_lemmas = encode(glosses.validation.lemmas, knobs.lemma_length)
            self.auxiliary_tensors = glosses.auxiliary_tensors(self.tokens, encode, knobs.lemma_length)
        self.data: Mapping[str, Any] = {**glosses.data, "tokens": model.vocabulary_size}

    def build(self, seed: int) -> Experiment:
        knobs, glosses = self.knobs, self.glosses
        encoder = self._encoder(seed)
        inputs = {"text": lambda: Texts(self._texts(), encoder.pad_id)}
        tuning = tune_towers(knobs.encoder, encoder, inputs, folder=knobs.data_folder, tokens=False)
        primary = glosses.question.objective(encoder.width)

        def test() -> TestResult:
            result = glosses.question.grade(encoder, primary, self.test_tokens)
            return replace(result, floors=result.floors | self.frozen_floor) if self.tokenizer is None else result

        def save(folder: Path) -> None:
            if self.tokenizer is not None:
                self.tokenizer.save(folder / "tokenizer.json")

        return Experiment(
            encoder=encoder,
            primary=primary,
            auxiliaries=build_auxiliaries(self, encoder),
            tuning=tuning,
            streams=glosses.streams(knobs, self.tokens, self.auxiliary_tensors, seed),
            validation_streams=lambda: glosses.validation_streams(
                knobs, self.validation_tokens, encoder.tokenize, seed
            ),
            validate=glosses.question.validator(encoder, primary, self.validation_tokens),
            test=test,
            save=save,
            loadable=loadable_texts(
                knobs.encoder,
                {"small": asdict(self._sizes())} if self.tokenizer is not None else {},
                context_length=encoder.context_length,
                question=knobs.question,
                classes=glosses.names,
                head=primary.name,
            ),
        )

    def _texts(self) -> list[torch.Tensor]:
        """The tokens of all that the encoder is given as it stands, masks aside."""
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

    def _encoder(self, seed: int) -> TextEncoder:
        if self.tokenizer is None:
            return pretrained_text_encoder(self.knobs.encoder, "small", seed)
        torch.manual_seed(seed)
        return TextEncoder.small(self._sizes(), self.tokenizer)

    def _sizes(self) -> TextConfig:
        sizes = self.knobs.encoder
        return TextConfig(sizes.width, sizes.layers, sizes.heads, sizes.mlp_ratio, sizes.context_length)

"""The text case: a small BERT on glosses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from rich.console import Console

from benchmarks.cases import Experiment
from benchmarks.cases.shared.auxiliaries import Builder, build_auxiliaries
from benchmarks.cases.shared.fine_tuning import tune_towers
from benchmarks.cases.shared.glosses import GlossData
from benchmarks.cases.shared.init_from import inherited_tokenizer
from benchmarks.cases.text.knobs import Knobs
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.encoders.text_transformer import TextConfig, TextEncoder
from mt2st.errors import unknown_name
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
            encoder.width,
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
        elif not knobs.encoder.model.startswith("hf:"):
            raise unknown_name(
                "model", knobs.encoder.model, ("small",), "Or hf:NAME_OR_FOLDER of a bidirectional checkpoint."
            )
        model = self._encoder(0)
        with console.status("tokenising"):
            self.tokens = model.tokenize(glosses.train.texts)
            self.validation_tokens, self.test_tokens = (
                model.tokenize(part.texts) for part in (glosses.validation, glosses.test)
            )
            self.auxiliary_tensors = glosses.auxiliary_tensors(self.tokens, model.tokenize, knobs.lemma_length)
        self.data: Mapping[str, Any] = {**glosses.data, "tokens": model.vocabulary_size}

    def build(self, seed: int) -> Experiment:
        knobs, glosses = self.knobs, self.glosses
        encoder = self._encoder(seed)
        rates = tune_towers(knobs.encoder, encoder)
        primary = glosses.question.objective(encoder.width)

        def save(folder: Path) -> None:
            if self.tokenizer is not None:
                self.tokenizer.save(folder / "tokenizer.json")

        return Experiment(
            encoder=encoder,
            primary=primary,
            auxiliaries=build_auxiliaries(self, encoder),
            rates=rates,
            streams=glosses.streams(knobs, self.tokens, self.auxiliary_tensors, seed),
            validation_streams=lambda: glosses.validation_streams(
                knobs, self.validation_tokens, encoder.tokenize, seed
            ),
            validate=glosses.question.validator(encoder, primary, self.validation_tokens),
            test=lambda: glosses.question.grade(encoder, primary, self.test_tokens),
            save=save,
        )

    def _encoder(self, seed: int) -> TextEncoder:
        torch.manual_seed(seed)
        sizes = self.knobs.encoder
        if self.tokenizer is None:
            return TextEncoder.pretrained(sizes.model.removeprefix("hf:"), sizes.context_length)
        return TextEncoder.small(
            TextConfig(sizes.width, sizes.layers, sizes.heads, sizes.mlp_ratio, sizes.context_length), self.tokenizer
        )

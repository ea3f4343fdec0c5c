"""The retrieval case: find a picture by its query, and the query by the picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from rich.console import Console
from safetensors.numpy import save
from torch import Tensor

from benchmarks.cases import AUXILIARY, PRIMARY, Experiment, TestResult
from benchmarks.cases.retrieval.captions import MAIN_CAPTION, Captions, captions_of, words
from benchmarks.cases.retrieval.examples import examples_of
from benchmarks.cases.retrieval.floors import COMPONENTS, FrozenFloor, RidgeFloor, chance
from benchmarks.cases.retrieval.gallery import draw_gallery
from benchmarks.cases.retrieval.knobs import Knobs
from benchmarks.cases.shared.auxiliaries import Builder, build_auxiliaries
from benchmarks.cases.shared.clusters import clusters_of
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
from mt2st.data.prepared import PreparedSplit
from mt2st.data.streams import CaptionStream
from mt2st.encoders.preprocessing import own_fit
from mt2st.encoders.vision_language import VisionLanguageEncoder
from mt2st.errors import Mt2stError
from mt2st.evaluate import evaluate_retrieval
from mt2st.files import write_bytes
from mt2st.metrics.ranks import retrieval_ranks
from mt2st.objectives.contrastive import ContrastiveObjective
from mt2st.objectives.matching import MatchingObjective
from mt2st.predict import embed_split
from mt2st.training.trainer import Stream

COMPOSITIONAL = "test_compositional"  # a second test split: OpenMoji's, of combinations whose parts were all seen


class RetrievalCase:
    """Data, splits and tokenizer, made once; `build` makes a fresh model for a seed."""

    AUXILIARIES: ClassVar[Mapping[str, Builder]] = {
        "captions": lambda case, encoder: ContrastiveObjective(name="captions"),
        "masked_lm": lambda case, encoder: masked_language(encoder, case.tokenizer, case.knobs.mask_rate),
        "matching": lambda case, encoder: MatchingObjective(encoder.fusion.width),
    }

    def __init__(self, knobs: Knobs, console: Console, draw: int = 0) -> None:
        self.knobs = knobs
        self._frozen_floor: FrozenFloor | None = None
        options = {"languages": knobs.languages} if knobs.data == "openmoji" else None
        dataset = prepared(knobs, knobs.image_size, options=options, fit=own_fit(knobs.encoder.towers), console=console)
        self.fit = str(dataset.manifest["fit"])
        # The usual protocols ask with every caption (five an image on COCO and Flickr30k); a card can say that one of
        # them is the name.
        main_only = dataset.card.protocol == MAIN_CAPTION
        self.tests = {"": captions_of(dataset.split(knobs.test_split), main_only)}
        second = knobs.second_test_split
        if second == "auto":
            second = COMPOSITIONAL if COMPOSITIONAL in dataset.splits else ""
        if second:
            self.tests["compositional/"] = captions_of(dataset.split(second), main_only)
        whole, leaked = guarded(
            dataset.split(knobs.train_split), [captions.split for captions in self.tests.values()], knobs.on_leak
        )
        self.whole = whole
        self.train, validation = carved(whole, knobs.validation_fraction, draw)
        self.validation = captions_of(validation, main_only)
        if not self.tests[""].split.num_captions or not self.validation.split.num_captions:
            raise Mt2stError(f"{knobs.data!r} has no captions to test or validate on; choose another split or fraction")
        if knobs.label_fraction < 1 and not main_only:
            console.print(f"{knobs.data}: every caption asks, so every training image is labelled", highlight=False)
        fraction = knobs.label_fraction if main_only else 1.0
        self.labelled = self.train.subset(self.train.labelled_fraction(fraction, seed=draw))
        self.names = captions_of(self.labelled, main_only)
        unlabelled = ~np.isin(self.train.image_ids(), self.labelled.image_ids())
        # The auxiliaries see every caption but the queries that are withheld.
        self.further = np.flatnonzero(~unlabelled[self.train.caption_images()] | (self.train.caption_ranks() > 0))
        self.tokenizer = train_tokenizer(
            knobs.encoder, self.train.caption_texts(self.further), inherited_tokenizer(knobs.init_from)
        )
        seen = {word for text in self.names.texts for word in words(text)}
        asked = [words(text) for text in self.tests[""].texts]
        self.data: Mapping[str, Any] = {
            **facts(dataset, leaked),
            "training_images": self.train.num_images,
            "training_captions": len(self.further),
            "labelled_images": self.labelled.num_images,
            "validation_images": self.validation.split.num_images,
            "test_images": self.tests[""].split.num_images,
            "test_captions_with_an_unseen_word": sum(any(word not in seen for word in found) for found in asked),
            "test_captions_of_unseen_words_only": sum(all(word not in seen for word in found) for found in asked),
        }

    @cached_property
    def ridge(self) -> RidgeFloor:
        """The tuned floor; found once, when the first run is tested."""
        return RidgeFloor(self.train, self.names, self.further, self.validation)

    def floors(
        self, encoder: VisionLanguageEncoder, tokenize: Callable[[list[str]], Tensor]
    ) -> dict[str, Callable[[Captions], Mapping[str, float]]]:
        """Floor → what grades it on a test split; the tuned ones are found once, when the first run is tested."""
        if self._frozen_floor is None:
            features = frozen_features(
                *(self.knobs.encoder, encoder, lambda: self._encoder(0), tokenize),
                *(self.train, self.train.caption_texts(self.further), (COMPONENTS, COMPONENTS)),
            )
            if features is not None:
                self._frozen_floor = FrozenFloor(features, self.names, self.validation)
        found: dict[str, Callable[[Captions], Mapping[str, float]]] = {"ridge": self.ridge, "chance": chance}
        return found if self._frozen_floor is None else {"frozen_regression": self._frozen_floor, **found}

    def _encoder(self, seed: int) -> VisionLanguageEncoder:
        return build_encoder(self.knobs.encoder, self.knobs.image_size, self.tokenizer, seed)

    def build(self, seed: int) -> Experiment:
        knobs = self.knobs
        encoder = self._encoder(seed)
        tokenize = trimming(encoder.towers.tokenize, encoder.towers.pad_id)
        splits = [self.whole, *(captions.split for captions in self.tests.values())]
        inputs = tower_inputs(encoder, tokenize, splits, lambda: [split.caption_texts() for split in splits])
        fused = not set(knobs.auxiliaries) <= {"captions"}  # the others may ask for token states
        tuning = tune_towers(knobs.encoder, encoder, inputs, folder=knobs.data_folder, tokens=fused)

        def streams(names: Captions, further: PreparedSplit, rows: np.ndarray | None) -> dict[str, Stream]:
            return {
                PRIMARY: CaptionStream(
                    names.split,
                    tokenize,
                    images_per_batch=knobs.images_per_batch,
                    seed=seed,
                    name="names",
                    rows=names.rows,
                ),
                AUXILIARY: CaptionStream(
                    further, tokenize, images_per_batch=knobs.caption_images_per_batch, seed=seed, rows=rows
                ),
            }

        def embeddings(captions: Captions) -> tuple[np.ndarray, np.ndarray]:
            return embed_split(encoder, captions.split, tokenize(captions.texts))

        def validate() -> dict[str, float]:
            measured = evaluate_retrieval(*embeddings(self.validation), self.validation.images, ks=(1, 5, 10))
            return {
                "text_to_image/mrr": measured["text_to_image/mrr"],
                "text_to_image/hit_rate@10": measured["text_to_image/hit_rate@10"],
            }

        def save_files(folder: Path) -> None:
            if self.tokenizer is not None:
                self.tokenizer.save(folder / "tokenizer.json")
            captions = self.tests[""]
            images, texts = embeddings(captions)
            tensors = {"image_embeddings": images, "text_embeddings": texts, "text_image_index": captions.images}
            write_bytes(folder / "embeddings.safetensors", save(tensors))
            draw_gallery(folder / "gallery.png", captions.split, captions.texts, captions.images, images, texts)

        def test() -> TestResult:
            metrics: dict[str, float] = {}
            items: dict[str, np.ndarray] = {}
            for prefix, captions in self.tests.items():
                images, texts = embeddings(captions)
                measured = evaluate_retrieval(images, texts, captions.images, ks=(1, 5, 10))
                metrics |= {f"{prefix}{name}": value for name, value in measured.items()}
                ranks = retrieval_ranks(images, texts, captions.images)
                slug = prefix.replace("/", "_")
                items[f"{slug}text_to_image_rank"] = ranks.text_to_image
                items[f"{slug}image_to_text_rank"] = ranks.image_to_text
                items[f"{slug}cluster"] = clusters_of(captions.bases())
                if not prefix:
                    examples = examples_of(captions, images, texts, ranks.text_to_image)
            return TestResult(
                metrics,
                items,
                {},
                {
                    floor: {
                        f"{prefix}{name}": value
                        for prefix, captions in self.tests.items()
                        for name, value in measure(captions).items()
                    }
                    for floor, measure in self.floors(encoder, tokenize).items()
                },
                examples,
            )

        return Experiment(
            encoder=encoder,
            primary=ContrastiveObjective(name="retrieval"),
            auxiliaries=build_auxiliaries(self, encoder),
            tuning=tuning,
            streams=streams(self.names, self.train, self.further),
            validation_streams=lambda: streams(self.validation, self.validation.split, None),
            validate=validate,
            test=test,
            save=save_files,
            loadable=loadable(knobs.encoder, knobs.image_size, self.fit),
        )

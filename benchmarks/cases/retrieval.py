"""The retrieval case: find a pictogram by its name, and the name by the pictogram (issue 3)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from safetensors.numpy import save
from torch import nn

from benchmarks.cases.common import build_encoder, guarded, prepared, train_tokenizer, trimming
from benchmarks.cases.gallery import draw_gallery
from benchmarks.recipes.retrieval import Knobs
from benchmarks.runner import AUXILIARY, PRIMARY, Experiment, TestResult
from mt2st.dataset import PreparedSplit, carve_validation
from mt2st.encoders.vision_language import VisionLanguageEncoder
from mt2st.errors import Mt2stError, unknown_name
from mt2st.evaluate import evaluate_retrieval
from mt2st.files import write_bytes
from mt2st.metrics.ranks import retrieval_ranks
from mt2st.objectives.contrastive import ContrastiveObjective
from mt2st.objectives.masked_lm import MaskedLanguageObjective
from mt2st.objectives.matching import MatchingObjective
from mt2st.predict import embed_split
from mt2st.streams import CaptionStream
from mt2st.trainer import Stream

AUXILIARIES = ("captions", "masked_lm", "matching")
COMPOSITIONAL = "test_compositional"  # OpenMoji's second test split: combinations whose parts were all seen


class RetrievalCase:
    """Data, splits and tokenizer, made once; `build` makes a fresh model for a seed."""

    def __init__(self, knobs: Knobs, console: Console) -> None:
        for name in knobs.auxiliaries:
            if name not in AUXILIARIES:
                raise unknown_name("auxiliary", name, AUXILIARIES)
        self.knobs = knobs
        options = {"languages": knobs.languages} if knobs.data == "openmoji" else None
        dataset = prepared(knobs, knobs.image_size, options=options, console=console)
        self.tests = {"": first_captions(dataset.split(knobs.test_split))}
        second = knobs.second_test_split
        if second == "auto":
            second = COMPOSITIONAL if COMPOSITIONAL in dataset.splits else ""
        if second:
            self.tests["compositional/"] = first_captions(dataset.split(second))
        whole, leaked = dataset.split(knobs.train_split), 0
        for captions in self.tests.values():
            whole, count = guarded(whole, captions.split, knobs.on_leak)
            leaked += count
        train_rows, validation_rows = carve_validation(whole, knobs.validation_fraction, seed=0)
        self.train, self.validation = whole.subset(train_rows), first_captions(whole.subset(validation_rows))
        if not self.tests[""].split.num_captions or not self.validation.split.num_captions:
            raise Mt2stError(f"{knobs.data!r} has no captions to test or validate on; choose another split or fraction")
        self.names = first_captions(self.train)
        self.tokenizer = train_tokenizer(knobs.encoder, self.train.caption_texts())
        seen = {word for text in self.names.texts for word in words(text)}
        asked = [words(text) for text in self.tests[""].texts]
        self.data: Mapping[str, Any] = {
            "name": dataset.card.name,
            "revision": dataset.card.revision,
            "content_hash": dataset.content_hash,
            "training_images": self.train.num_images,
            "training_captions": self.train.num_captions,
            "validation_images": self.validation.split.num_images,
            "test_images": self.tests[""].split.num_images,
            "training_images_dropped_for_being_in_test": leaked,
            "test_captions_with_an_unseen_word": sum(any(word not in seen for word in found) for found in asked),
            "test_captions_of_unseen_words_only": sum(all(word not in seen for word in found) for found in asked),
        }

    def build(self, seed: int) -> Experiment:
        knobs = self.knobs
        encoder = build_encoder(knobs.encoder, knobs.image_size, self.tokenizer, seed)
        tokenize = trimming(encoder.towers.tokenize, encoder.towers.pad_id)
        streams: dict[str, Stream] = {
            PRIMARY: CaptionStream(
                self.train, tokenize, images_per_batch=knobs.images_per_batch, seed=seed, name="names", rows=self.names.rows
            ),
            AUXILIARY: CaptionStream(self.train, tokenize, images_per_batch=knobs.caption_images_per_batch, seed=seed),
        }

        def embeddings(captions: Captions) -> tuple[np.ndarray, np.ndarray]:
            return embed_split(encoder, captions.split, tokenize(captions.texts))

        def validate() -> dict[str, float]:
            measured = evaluate_retrieval(*embeddings(self.validation), self.validation.images, ks=(1, 5, 10))
            return {"text_to_image/mrr": measured["text_to_image/mrr"], "text_to_image/hit_rate@10": measured["text_to_image/hit_rate@10"]}

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
            return TestResult(metrics, items, {}, {"chance": chance(self.tests[""])})

        return Experiment(
            encoder=encoder,
            primary=ContrastiveObjective(name="retrieval"),
            auxiliaries=[self._auxiliary(name, encoder) for name in knobs.auxiliaries],
            streams=streams,
            validate=validate,
            test=test,
            save=save_files,
        )

    def _auxiliary(self, name: str, encoder: VisionLanguageEncoder) -> Any:
        if name == "captions":
            return ContrastiveObjective(name="captions")
        if name == "matching":
            return MatchingObjective(self.knobs.encoder.fusion_width)
        frame = (self.tokenizer.start_id, self.tokenizer.end_id) if self.tokenizer is not None else ()
        towers = encoder.towers
        width = self.knobs.encoder.fusion_width
        objective: nn.Module = MaskedLanguageObjective(
            width, towers.vocabulary_size, towers.mask_id, rate=self.knobs.mask_rate, frame_ids=frame
        )
        return objective


class Captions:
    """One caption an image of a split: the first, which is the name the image goes by."""

    def __init__(self, split: PreparedSplit, rows: np.ndarray) -> None:
        texts = split.caption_texts()
        self.split = split
        self.rows = rows
        self.texts = [texts[row] for row in rows]
        self.images = split.caption_images()[rows]


def first_captions(split: PreparedSplit) -> Captions:
    """The first caption of every image of `split` that has one; images without a caption are left out of the gallery."""
    split = split.subset(np.unique(split.caption_images())) if split.num_images else split
    images = split.caption_images()
    _, rows = np.unique(images, return_index=True)
    return Captions(split, rows)


def chance(captions: Captions) -> dict[str, float]:
    """Expected values for a random order of the gallery, one relevant item among n: hit rate k / n, median (n + 1) / 2, MRR H_n / n."""
    size = captions.split.num_images
    harmonic = float((1.0 / np.arange(1, size + 1)).sum())
    values: dict[str, float] = {}
    for direction in ("text_to_image", "image_to_text"):
        values |= {f"{direction}/hit_rate@{k}": min(1.0, k / size) for k in (1, 5, 10)}
        values |= {f"{direction}/median_rank": (size + 1) / 2, f"{direction}/mean_rank": (size + 1) / 2, f"{direction}/mrr": harmonic / size}
    return values


def words(text: str) -> list[str]:
    """Lower-case words of a caption, punctuation aside."""
    return "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()

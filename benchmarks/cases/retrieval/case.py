"""The retrieval case: find a pictogram by its name, and the name by the pictogram."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from rich.console import Console
from safetensors.numpy import save

from benchmarks.cases import AUXILIARY, PRIMARY, Experiment, TestResult
from benchmarks.cases.retrieval.gallery import draw_gallery
from benchmarks.cases.retrieval.knobs import Knobs
from benchmarks.cases.shared.auxiliaries import Builder, build_auxiliaries
from benchmarks.cases.shared.clusters import clusters_of
from benchmarks.cases.shared.data import carved, facts, guarded, prepared
from benchmarks.cases.shared.fine_tuning import tune_towers
from benchmarks.cases.shared.init_from import inherited_tokenizer
from benchmarks.cases.shared.vision_language import (
    build_encoder,
    masked_language,
    tower_inputs,
    train_tokenizer,
    trimming,
)
from mt2st.data.prepared import PreparedSplit
from mt2st.data.streams import CaptionStream
from mt2st.encoders.preprocessing import own_fit
from mt2st.errors import Mt2stError
from mt2st.evaluate import evaluate_retrieval
from mt2st.files import write_bytes
from mt2st.metrics.ranks import retrieval_ranks
from mt2st.objectives.contrastive import ContrastiveObjective
from mt2st.objectives.matching import MatchingObjective
from mt2st.predict import embed_split
from mt2st.training.trainer import Stream

MAIN_CAPTION = "main-caption"  # a card's protocol: each image's first caption asks, the others are further texts
COMPOSITIONAL = "test_compositional"  # OpenMoji's second test split: combinations whose parts were all seen


class RetrievalCase:
    """Data, splits and tokenizer, made once; `build` makes a fresh model for a seed."""

    AUXILIARIES: ClassVar[Mapping[str, Builder]] = {
        "captions": lambda case, encoder: ContrastiveObjective(name="captions"),
        "masked_lm": lambda case, encoder: masked_language(encoder, case.tokenizer, case.knobs.mask_rate),
        "matching": lambda case, encoder: MatchingObjective(encoder.fusion.width),
    }

    def __init__(self, knobs: Knobs, console: Console, draw: int = 0) -> None:
        self.knobs = knobs
        options = {"languages": knobs.languages} if knobs.data == "openmoji" else None
        dataset = prepared(knobs, knobs.image_size, options=options, fit=own_fit(knobs.encoder.towers), console=console)
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
        self.names = captions_of(self.train, main_only)
        self.tokenizer = train_tokenizer(
            knobs.encoder, self.train.caption_texts(), inherited_tokenizer(knobs.init_from)
        )
        seen = {word for text in self.names.texts for word in words(text)}
        asked = [words(text) for text in self.tests[""].texts]
        self.data: Mapping[str, Any] = {
            **facts(dataset, leaked),
            "training_images": self.train.num_images,
            "training_captions": self.train.num_captions,
            "validation_images": self.validation.split.num_images,
            "test_images": self.tests[""].split.num_images,
            "test_captions_with_an_unseen_word": sum(any(word not in seen for word in found) for found in asked),
            "test_captions_of_unseen_words_only": sum(all(word not in seen for word in found) for found in asked),
        }

    def build(self, seed: int) -> Experiment:
        knobs = self.knobs
        encoder = build_encoder(knobs.encoder, knobs.image_size, self.tokenizer, seed)
        tokenize = trimming(encoder.towers.tokenize, encoder.towers.pad_id)
        splits = [self.whole, *(captions.split for captions in self.tests.values())]
        inputs = tower_inputs(encoder, tokenize, splits, lambda: [split.caption_texts() for split in splits])
        fused = not set(knobs.auxiliaries) <= {"captions"}  # the others may ask for token states
        tuning = tune_towers(knobs.encoder, encoder, inputs, folder=knobs.data_folder, tokens=fused)

        def streams(split: PreparedSplit, names: np.ndarray) -> dict[str, Stream]:
            return {
                PRIMARY: CaptionStream(
                    split, tokenize, images_per_batch=knobs.images_per_batch, seed=seed, name="names", rows=names
                ),
                AUXILIARY: CaptionStream(split, tokenize, images_per_batch=knobs.caption_images_per_batch, seed=seed),
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
            by_chance = {
                f"{prefix}{name}": value
                for prefix, captions in self.tests.items()
                for name, value in chance(captions).items()
            }
            return TestResult(metrics, items, {}, {"chance": by_chance})

        return Experiment(
            encoder=encoder,
            primary=ContrastiveObjective(name="retrieval"),
            auxiliaries=build_auxiliaries(self, encoder),
            tuning=tuning,
            streams=streams(self.train, self.names.rows),
            validation_streams=lambda: streams(self.validation.split, self.validation.rows),
            validate=validate,
            test=test,
            save=save_files,
        )


class Captions:
    """The captions `rows` of a split, which ask for their images."""

    def __init__(self, split: PreparedSplit, rows: np.ndarray) -> None:
        texts = split.caption_texts()
        self.split = split
        self.rows = rows
        self.texts = [texts[row] for row in rows]
        self.images = split.caption_images()[rows]

    def bases(self) -> list[str]:
        """What each caption's image is a variant of; its own id where the set names no groups."""
        groups, ids = self.split.extra_values("group"), self.split.image_ids()
        return [f"group {groups[row]}" if groups[row] is not None else f"image {ids[row]}" for row in self.images]


def captions_of(split: PreparedSplit, main_only: bool) -> Captions:
    """The captions of `split`, or the first of each image; images without a caption are left out of the gallery."""
    split = split.subset(np.unique(split.caption_images())) if split.num_images else split
    images = split.caption_images()
    rows = np.unique(images, return_index=True)[1] if main_only else np.arange(len(images))
    return Captions(split, rows)


def chance(captions: Captions) -> dict[str, float]:
    """Expected values for a random order of the gallery.

    A text has one relevant image; an image's own captions are relevant to it.
    """
    of_image = np.bincount(captions.images, minlength=captions.split.num_images)
    values: dict[str, float] = {}
    for direction, items, relevant in (
        ("text_to_image", captions.split.num_images, np.ones(1, np.int64)),
        ("image_to_text", len(captions.images), of_image),
    ):
        share = first_rank_by_chance(items, relevant)
        ranks, reached = np.arange(1, items + 1), np.cumsum(share)
        values |= {f"{direction}/hit_rate@{k}": float(reached[min(k, items) - 1]) for k in (1, 5, 10)}
        middle = [int(np.flatnonzero(reached >= half)[0]) + 1 for half in (0.5 - 1e-9, 0.5 + 1e-9)]
        values[f"{direction}/median_rank"] = sum(middle) / 2
        values[f"{direction}/mean_rank"] = float((share * ranks).sum())
        values[f"{direction}/mrr"] = float((share / ranks).sum())
    return values


def first_rank_by_chance(items: int, relevant: np.ndarray) -> np.ndarray:
    """Probability [items] that the first relevant item of a randomly ordered gallery has rank 1 … items.

    It is the mean over the queries. With R relevant among T, all of the first r are irrelevant with probability
    ∏_{i<r} (T − R − i) / (T − i).

    Args:
        items: T.
        relevant: R of each query, int64 [Q], each ≥ 1.
    """
    total = np.zeros(items)
    counts, queries = np.unique(relevant, return_counts=True)
    for count, weight in zip(counts, queries, strict=True):
        place = np.arange(items)
        missed = np.cumprod(np.maximum(items - count - place, 0) / (items - place))
        total += weight / queries.sum() * -np.diff(missed, prepend=1.0)
    return total


def words(text: str) -> list[str]:
    """Lower-case words of a caption, punctuation aside."""
    return "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()

"""The image case: few labels, many pictures (issue 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.cases.image.knobs import Knobs, VitKnobs
from benchmarks.cases.shared.data import guarded, prepared
from benchmarks.cases.shared.labels import (
    check_taught,
    class_codes,
    class_names,
    graded,
    linear_probe,
    macro_f1,
    majority,
    nearest_neighbours,
    stratified_rows,
)
from benchmarks.suite.runner import AUXILIARY, PRIMARY, Experiment, TestResult
from mt2st.data.splits import PreparedSplit, carve_validation
from mt2st.data.streams import ItemStream
from mt2st.encoders.image_transformer import ImageConfig, ImageEncoder
from mt2st.errors import Mt2stError, unknown_name
from mt2st.objectives.classification import ClassificationObjective
from mt2st.objectives.masked_patches import MaskedPatchObjective
from mt2st.objectives.rotation import RotationObjective
from mt2st.objectives.two_views import TwoViewObjective
from mt2st.predict import predict_classes

AUXILIARIES = ("masked_patches", "rotation", "two_views")


class ImageCase:
    """Data and splits, made once; `build` makes a fresh model for a seed."""

    def __init__(self, knobs: Knobs, console: Console) -> None:
        for name in knobs.auxiliaries:
            if name not in AUXILIARIES:
                raise unknown_name("auxiliary", name, AUXILIARIES)
        self.knobs = knobs
        dataset = prepared(knobs, knobs.image_size, console=console)
        self.test_split = dataset.split(knobs.test_split)
        whole, leaked = guarded(dataset.split(knobs.train_split), [self.test_split], knobs.on_leak)
        if not whole.has_pixels().all():
            raise Mt2stError(
                f"{knobs.data!r} has items without a picture; the image case needs a set of pictures with labels"
            )
        self.names = class_names(whole)
        train_rows, validation_rows = carve_validation(whole, knobs.validation_fraction, seed=0)
        self.train, self.validation = whole.subset(train_rows), whole.subset(validation_rows)
        codes = class_codes(self.train, self.names)
        rows = stratified_rows(codes, knobs.label_fraction, 0, self.names)
        self.labelled, self.taught = self.train.subset(rows), codes[rows]
        self.truth = class_codes(self.test_split, self.names)
        self.validation_truth = class_codes(self.validation, self.names)
        check_taught(self.taught, self.truth, self.names, "test")
        check_taught(self.taught, self.validation_truth, self.names, "validation")
        self.floors = self._floors()
        self.data: Mapping[str, Any] = {
            "name": dataset.card.name,
            "revision": dataset.card.revision,
            "content_hash": dataset.content_hash,
            "training_images": self.train.num_images,
            "labelled_images": self.labelled.num_images,
            "validation_images": self.validation.num_images,
            "test_images": self.test_split.num_images,
            **leaked,
            "classes": len(self.names),
        }

    def build(self, seed: int) -> Experiment:
        knobs = self.knobs
        encoder = build_image_encoder(knobs.encoder, knobs.image_size, seed)
        primary = ClassificationObjective(encoder.width, len(self.names))
        labelled = items_of(self.labelled, self.taught, knobs.images_per_batch, seed)
        validation = items_of(self.validation, self.validation_truth)
        test = items_of(self.test_split, self.truth)

        def validate() -> dict[str, float]:
            found = predict_classes(encoder, primary, validation.in_order())
            return {"accuracy": float((found.prediction == self.validation_truth).mean())}

        def measure() -> TestResult:
            found = predict_classes(encoder, primary, test.in_order())
            frozen = predict_classes(encoder, primary, labelled.in_order()).embeddings
            metrics, items = graded(found, self.truth)
            for name, probe in (("linear_probe", linear_probe), ("knn", nearest_neighbours)):
                right = probe(frozen, self.taught, found.embeddings) == self.truth
                metrics[f"{name}/accuracy"] = float(right.mean())
                items[f"{name}_score"] = right.astype(np.float32)
            return TestResult(metrics, items, {"label": self.names}, self.floors)

        return Experiment(
            encoder=encoder,
            primary=primary,
            auxiliaries=[self._auxiliary(name, encoder) for name in knobs.auxiliaries],
            streams={
                PRIMARY: labelled,
                AUXILIARY: ItemStream(
                    {}, split=self.train, items_per_batch=knobs.auxiliary_images_per_batch, seed=seed, name="pictures"
                ),
            },
            validate=validate,
            test=measure,
        )

    def _auxiliary(self, name: str, encoder: ImageEncoder) -> Any:
        if name == "masked_patches":
            return MaskedPatchObjective(encoder.width, encoder.patch_size, rate=self.knobs.mask_rate)
        if name == "rotation":
            return RotationObjective(encoder.width)
        return TwoViewObjective(encoder.width, temperature=self.knobs.temperature)

    def _floors(self) -> dict[str, dict[str, float]]:
        """The most frequent class; nearest neighbours on raw pixels, from the same labels."""
        taught, asked = (
            split.pixels(np.arange(split.num_images)).reshape(split.num_images, -1).astype(np.float32)
            for split in (self.labelled, self.test_split)
        )
        found = nearest_neighbours(taught, self.taught, asked)
        pixels = {"accuracy": float((found == self.truth).mean()), "macro_f1": macro_f1(found, self.truth)}
        return {"majority class": majority(self.taught, self.truth), "k-NN on pixels": pixels}


def items_of(split: PreparedSplit, codes: np.ndarray, items_per_batch: int = 1, seed: int = 0) -> ItemStream:
    """Pictures with their class numbers."""
    return ItemStream(
        {"label": torch.from_numpy(codes)}, split=split, items_per_batch=items_per_batch, seed=seed, name="labelled"
    )


def build_image_encoder(knobs: VitKnobs, image_size: int, seed: int) -> ImageEncoder:
    """An image encoder with initial weights that depend on `seed` alone, or the checkpoint's."""
    torch.manual_seed(seed)
    if knobs.model.startswith("hf:"):
        encoder = ImageEncoder.pretrained(knobs.model.removeprefix("hf:"))
        if encoder.image_size != image_size:
            raise Mt2stError(
                f"{knobs.model!r} takes {encoder.image_size} px; set image_size = {encoder.image_size} (now "
                f"{image_size})"
            )
        return encoder
    if knobs.model != "small":
        raise unknown_name("model", knobs.model, ("small",), "Or hf:NAME_OR_FOLDER of a ViT checkpoint.")
    return ImageEncoder.small(
        ImageConfig(image_size, knobs.patch_size, knobs.width, knobs.layers, knobs.heads, knobs.mlp_ratio)
    )

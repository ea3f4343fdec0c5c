"""The image case: few labels, many pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from rich.console import Console

from benchmarks.cases import AUXILIARY, PRIMARY, Experiment, TestResult
from benchmarks.cases.image.knobs import Knobs
from benchmarks.cases.shared.auxiliaries import Builder, build_auxiliaries
from benchmarks.cases.shared.data import carved, facts, guarded, prepared
from benchmarks.cases.shared.fine_tuning import tune_towers
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
from benchmarks.cases.shared.pictures import build_image_encoder, items_of
from mt2st.data.prepared import PreparedSplit
from mt2st.data.streams import ItemStream
from mt2st.encoders.preprocessing import own_fit
from mt2st.errors import Mt2stError
from mt2st.objectives.classification import ClassificationObjective
from mt2st.objectives.masked_patches import MaskedPatchObjective
from mt2st.objectives.rotation import RotationObjective
from mt2st.objectives.two_views import TwoViewObjective
from mt2st.predict import predict_classes


class ImageCase:
    """Data and splits, made once; `build` makes a fresh model for a seed."""

    AUXILIARIES: ClassVar[Mapping[str, Builder]] = {
        "masked_patches": lambda case, encoder: MaskedPatchObjective(
            encoder.width, encoder.patch_size, rate=case.knobs.mask_rate
        ),
        "rotation": lambda case, encoder: RotationObjective(encoder.width),
        "two_views": lambda case, encoder: TwoViewObjective(encoder.width, temperature=case.knobs.temperature),
    }

    def __init__(self, knobs: Knobs, console: Console, draw: int = 0) -> None:
        self.knobs = knobs
        dataset = prepared(knobs, knobs.image_size, fit=own_fit(knobs.encoder.model), console=console)
        self.test_split = dataset.split(knobs.test_split)
        whole, leaked = guarded(dataset.split(knobs.train_split), [self.test_split], knobs.on_leak)
        if not whole.has_pixels().all():
            raise Mt2stError(
                f"{knobs.data!r} has items without a picture; the image case needs a set of pictures with labels"
            )
        self.names = class_names(whole)
        self.train, self.validation = carved(whole, knobs.validation_fraction, draw)
        codes = class_codes(self.train, self.names)
        rows = stratified_rows(codes, knobs.label_fraction, draw, self.names)
        self.labelled, self.taught = self.train.subset(rows), codes[rows]
        self.truth = class_codes(self.test_split, self.names)
        self.validation_truth = class_codes(self.validation, self.names)
        check_taught(self.taught, self.truth, self.names, "test")
        check_taught(self.taught, self.validation_truth, self.names, "validation")
        self.floors = self._floors()
        self.data: Mapping[str, Any] = {
            **facts(dataset, leaked),
            "training_images": self.train.num_images,
            "labelled_images": self.labelled.num_images,
            "validation_images": self.validation.num_images,
            "test_images": self.test_split.num_images,
            "classes": len(self.names),
        }

    def build(self, seed: int) -> Experiment:
        knobs = self.knobs
        encoder = build_image_encoder(knobs.encoder, knobs.image_size, seed)
        rates = tune_towers(knobs.encoder, encoder)
        primary = ClassificationObjective(encoder.width, len(self.names))
        labelled = items_of(self.labelled, self.taught, knobs.images_per_batch, seed)
        validation = items_of(self.validation, self.validation_truth)
        test = items_of(self.test_split, self.truth)

        def pictures(split: PreparedSplit) -> ItemStream:
            per_batch = knobs.auxiliary_images_per_batch
            return ItemStream({}, split=split, items_per_batch=per_batch, seed=seed, name="pictures")

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
            auxiliaries=build_auxiliaries(self, encoder),
            rates=rates,
            streams={PRIMARY: labelled, AUXILIARY: pictures(self.train)},
            validation_streams=lambda: {
                PRIMARY: items_of(self.validation, self.validation_truth, knobs.images_per_batch, seed),
                AUXILIARY: pictures(self.validation),
            },
            validate=validate,
            test=measure,
        )

    def _floors(self) -> dict[str, dict[str, float]]:
        """The most frequent class; nearest neighbours on raw pixels, from the same labels."""
        taught, asked = (
            split.pixels(np.arange(split.num_images)).reshape(split.num_images, -1).astype(np.float32)
            for split in (self.labelled, self.test_split)
        )
        found = nearest_neighbours(taught, self.taught, asked)
        pixels = {"accuracy": float((found == self.truth).mean()), "macro_f1": macro_f1(found, self.truth)}
        return {"majority class": majority(self.taught, self.truth), "k-NN on pixels": pixels}

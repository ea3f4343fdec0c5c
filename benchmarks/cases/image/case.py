"""The image case: few pairs, or few pictures, with an answer; and many pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
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
from benchmarks.cases.shared.pictures import build_image_encoder, items_of, loadable_images
from benchmarks.cases.shared.same_class import SameClassQuestion
from mt2st.data.prepared import PreparedSplit
from mt2st.data.streams import ItemStream
from mt2st.encoders.frozen_outputs import Pictures
from mt2st.encoders.preprocessing import own_fit
from mt2st.errors import Mt2stError
from mt2st.objectives.classification import ClassificationObjective
from mt2st.objectives.masked_patches import MaskedPatchObjective
from mt2st.objectives.rotation import RotationObjective
from mt2st.objectives.same_class import SameClassObjective
from mt2st.objectives.two_views import TwoViewObjective
from mt2st.predict import predict_classes

if TYPE_CHECKING:
    from mt2st.training.trainer import Stream


class ImageCase:
    """Data and splits, made once; `build` makes a fresh model for a seed."""

    AUXILIARIES: ClassVar[Mapping[str, Builder]] = {
        "class": lambda case, encoder: ClassificationObjective(encoder.width, len(case.names)),
        "masked_patches": lambda case, encoder: MaskedPatchObjective(
            encoder.width, encoder.patch_size, rate=case.knobs.mask_rate
        ),
        "rotation": lambda case, encoder: RotationObjective(encoder.width),
        "two_views": lambda case, encoder: TwoViewObjective(encoder.width, temperature=case.knobs.temperature),
    }

    def __init__(self, knobs: Knobs, console: Console, draw: int = 0) -> None:
        self.knobs = knobs
        self.fit = own_fit(knobs.encoder.model)
        dataset = prepared(knobs, knobs.image_size, fit=self.fit, console=console)
        self.test_split = dataset.split(knobs.test_split)
        whole, leaked = guarded(dataset.split(knobs.train_split), [self.test_split], knobs.on_leak)
        if not whole.has_pixels().all():
            raise Mt2stError(
                f"{knobs.data!r} has items without a picture; the image case needs a set of pictures with labels"
            )
        self.names = class_names(whole)
        self.whole = whole
        self.train, self.validation = carved(whole, knobs.validation_fraction, draw)
        self.splits = (self.train, self.validation, self.test_split)
        self.codes = [class_codes(split, self.names) for split in self.splits]
        kind = _SameClass if knobs.question == "same_class" else _Class
        self.question = kind(self, draw)
        self.data: Mapping[str, Any] = {
            **facts(dataset, leaked),
            "training_images": self.train.num_images,
            "validation_images": self.validation.num_images,
            "test_images": self.test_split.num_images,
            "classes": len(self.names),
            **self.question.data,
        }

    def build(self, seed: int) -> Experiment:
        knobs, question = self.knobs, self.question
        encoder = build_image_encoder(knobs.encoder, knobs.image_size, seed)
        inputs = {"image": lambda: Pictures([self.whole, self.test_split])}
        tuning = tune_towers(knobs.encoder, encoder, inputs, folder=knobs.data_folder, tokens=False)
        primary = question.objective(encoder.width)

        def pictures(part: int) -> ItemStream:
            labels = {"label": torch.from_numpy(self.codes[part])} if "class" in knobs.auxiliaries else {}
            return ItemStream(
                labels,
                split=self.splits[part],
                items_per_batch=knobs.auxiliary_images_per_batch,
                seed=seed,
                name="pictures",
            )

        return Experiment(
            encoder=encoder,
            primary=primary,
            auxiliaries=build_auxiliaries(self, encoder),
            tuning=tuning,
            streams={PRIMARY: question.stream(seed), AUXILIARY: pictures(0)},
            validation_streams=lambda: {PRIMARY: question.validation_stream(seed), AUXILIARY: pictures(1)},
            validate=question.validator(encoder, primary),
            test=lambda: question.grade(encoder, primary),
            loadable=loadable_images(
                knobs.encoder,
                knobs.image_size,
                self.fit,
                question=knobs.question,
                classes=self.names,
                head=primary.name,
            ),
        )


class _SameClass:
    """Are both pictures of one class? Few pairs are labelled."""

    def __init__(self, case: ImageCase, draw: int) -> None:
        self._knobs = case.knobs
        self._train, self._validation, self._test = (
            ItemStream({}, split=split, items_per_batch=1) for split in case.splits
        )
        self._asked = SameClassQuestion(
            case.codes,
            labelled=case.knobs.labelled_pairs,
            validation=case.knobs.validation_pairs,
            test=case.test_split.num_images,
            draw=draw,
            vectors=lambda: principal_components([grey_pixels(split) for split in case.splits]),
            about="pixels",
        )
        self.data = self._asked.data

    def objective(self, width: int) -> SameClassObjective:
        return SameClassObjective(width)

    def stream(self, seed: int) -> Stream:
        return self._asked.stream(self._train, self._knobs.images_per_batch // 2, seed)

    def validation_stream(self, seed: int) -> Stream:
        return self._asked.validation_stream(self._validation, self._knobs.images_per_batch // 2, seed)

    def validator(self, encoder: Any, primary: Any) -> Callable[[], dict[str, float]]:
        return self._asked.validator(encoder, primary, self._validation)

    def grade(self, encoder: Any, primary: Any) -> TestResult:
        return self._asked.grade(encoder, primary, self._test)


class _Class:
    """Of which class is a picture? Few pictures are labelled."""

    def __init__(self, case: ImageCase, draw: int) -> None:
        self._knobs, self._names = case.knobs, case.names
        train, self._validation_truth, self._truth = case.codes
        rows = stratified_rows(train, case.knobs.label_fraction, draw, case.names)
        self._labelled, self._taught = case.train.subset(rows), train[rows]
        check_taught(self._taught, self._truth, case.names, "test")
        check_taught(self._taught, self._validation_truth, case.names, "validation")
        self._validation, self._test = case.validation, case.test_split
        self.floors = self._simple()
        self.data = {"labelled_images": self._labelled.num_images}

    def objective(self, width: int) -> ClassificationObjective:
        return ClassificationObjective(width, len(self._names))

    def stream(self, seed: int) -> Stream:
        return items_of(self._labelled, self._taught, self._knobs.images_per_batch, seed)

    def validation_stream(self, seed: int) -> Stream:
        return items_of(self._validation, self._validation_truth, self._knobs.images_per_batch, seed)

    def validator(self, encoder: Any, primary: Any) -> Callable[[], dict[str, float]]:
        validation = items_of(self._validation, self._validation_truth)

        def validate() -> dict[str, float]:
            found = predict_classes(encoder, primary, validation.in_order())
            return {"accuracy": float((found.prediction == self._validation_truth).mean())}

        return validate

    def grade(self, encoder: Any, primary: Any) -> TestResult:
        found = predict_classes(encoder, primary, items_of(self._test, self._truth).in_order())
        frozen = predict_classes(encoder, primary, items_of(self._labelled, self._taught).in_order()).embeddings
        metrics, items = graded(found, self._truth)
        for name, probe in (("linear_probe", linear_probe), ("knn", nearest_neighbours)):
            right = probe(frozen, self._taught, found.embeddings) == self._truth
            metrics[f"{name}/accuracy"] = float(right.mean())
            items[f"{name}_score"] = right.astype(np.float32)
        return TestResult(metrics, items, {"label": self._names}, self.floors)

    def _simple(self) -> dict[str, dict[str, float]]:
        """The most frequent class; nearest neighbours on raw pixels, from the same labels."""
        found = nearest_neighbours(flat_pixels(self._labelled), self._taught, flat_pixels(self._test))
        pixels = {"accuracy": float((found == self._truth).mean()), "macro_f1": macro_f1(found, self._truth)}
        return {"majority class": majority(self._taught, self._truth), "k-NN on pixels": pixels}


def flat_pixels(split: PreparedSplit) -> np.ndarray:
    """Pixels [N, S·S·3] float32."""
    return split.pixels(np.arange(split.num_images)).reshape(split.num_images, -1).astype(np.float32)


def grey_pixels(split: PreparedSplit) -> np.ndarray:
    """Mean of the three colours [N, S·S] float32."""
    parts = np.array_split(np.arange(split.num_images), 1 + split.num_images // 1000)
    return np.concatenate([split.pixels(rows).mean(3, dtype=np.float32).reshape(len(rows), -1) for rows in parts])


def principal_components(parts: Sequence[np.ndarray], width: int = 20) -> list[np.ndarray]:
    """Vectors [N, width] of each part's [N, D]: principal components of the first (scikit-learn)."""
    from sklearn.decomposition import PCA

    axes = PCA(min(width, *parts[0].shape), random_state=0).fit(parts[0][:10_000])
    return [axes.transform(part).astype(np.float32) for part in parts]

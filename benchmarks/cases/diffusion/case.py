"""The diffusion case: a class-conditional denoiser of small pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from benchmarks.cases import AUXILIARY, PRIMARY, Experiment, Loadable, TestResult
from benchmarks.cases.diffusion.classifier import PictureClassifier, frechet_distance
from benchmarks.cases.diffusion.gaussian import Asked, gaussian_floor
from benchmarks.cases.diffusion.knobs import NOISE_LEVELS, SAMPLES_FILE, Knobs
from benchmarks.cases.shared.auxiliaries import Builder, build_auxiliaries
from benchmarks.cases.shared.data import carved, facts, guarded, prepared
from benchmarks.cases.shared.labels import check_taught, class_codes, class_names, stratified_rows
from mt2st.data.prepared import PreparedSplit
from mt2st.data.streams import ItemStream
from mt2st.encoders.denoiser import Denoiser, DenoiserConfig, cosine_signal
from mt2st.errors import Mt2stError
from mt2st.files import atomic_path
from mt2st.objectives.alignment import AlignmentObjective
from mt2st.objectives.classification import ClassificationObjective
from mt2st.objectives.clean_image import CleanImageObjective
from mt2st.objectives.denoising import DenoisingObjective
from mt2st.randomness import generator
from mt2st.training.trainer import Stream

_VALIDATION_IMAGES = 128
Labelled = tuple[PreparedSplit, np.ndarray]
_GAUSSIAN_VALUES = 16_000_000  # numbers in the training pictures, at most, that a Gaussian is fitted to (in seconds)


class DiffusionCase:
    """Data, classifier and floors, made once; `build` makes a fresh model for a seed."""

    AUXILIARIES: ClassVar[Mapping[str, Builder]] = {
        "unconditional": lambda case, encoder: DenoisingObjective(name="unconditional"),
        "class": lambda case, encoder: ClassificationObjective(encoder.width, len(case.names)),
        "clean_image": lambda case, encoder: CleanImageObjective(encoder.width, encoder.config.channels),
        "alignment": lambda case, encoder: AlignmentObjective(encoder.width, case.classifier.encoder),
    }

    def __init__(self, knobs: Knobs, console: Console, draw: int = 0) -> None:
        self.knobs = knobs
        dataset = prepared(knobs, knobs.image_size, console=console)
        test_split = dataset.split(knobs.test_split)
        whole, leaked = guarded(dataset.split(knobs.train_split), [test_split], knobs.on_leak)
        if not (whole.has_pixels().all() and test_split.has_pixels().all()):
            raise Mt2stError(
                f"{knobs.data!r} has items without a picture; the diffusion case needs a set of pictures with labels"
            )
        self.names = class_names(whole)
        self.train, validation = carved(whole, knobs.validation_fraction, draw)
        self.codes = class_codes(self.train, self.names)
        self.test = some_of(test_split, knobs.test_images)
        self.test_codes = class_codes(self.test, self.names)
        validation = some_of(validation, _VALIDATION_IMAGES)
        rows = stratified_rows(self.codes, knobs.label_fraction, draw, self.names)
        self.labelled, self.taught = self.train.subset(rows), self.codes[rows]
        check_taught(self.taught, self.test_codes, self.names, "test")
        self.held_out = noised(self.test, self.test_codes, knobs.encoder.channels)
        self.validation_split, self.validation_codes = validation, class_codes(validation, self.names)
        self.validation = noised(validation, self.validation_codes, knobs.encoder.channels)
        self._data_hash = dataset.content_hash + (f"/draw {draw}" if draw else "")
        if "alignment" in knobs.auxiliaries:
            with console.status(f"training the classifier, {knobs.classifier_steps} steps"):
                _ = self.classifier  # before any model is built: its training draws random numbers
        self.asked = torch.from_numpy(
            np.resize(self.test_codes, knobs.samples)
        )  # classes of the samples, with test's shares
        self.data: Mapping[str, Any] = {
            **facts(dataset, leaked),
            "training_images": self.train.num_images,
            "labelled_images": self.labelled.num_images,
            "validation_images": validation.num_images,
            "test_images": self.test.num_images,
            "classes": len(self.names),
        }

    def build(self, seed: int) -> Experiment:
        knobs = self.knobs
        torch.manual_seed(seed)
        sizes = knobs.encoder
        config = DenoiserConfig(
            image_size=knobs.image_size,
            fold=sizes.fold,
            widths=sizes.widths,
            classes=len(self.names),
            drop_class=sizes.drop_class,
            channels=sizes.channels,
        )
        encoder = Denoiser(config)

        def streams(primary: Labelled, auxiliary: Labelled) -> dict[str, Stream]:
            """Of splits with their class numbers."""
            return {
                PRIMARY: ItemStream(
                    {"condition": torch.from_numpy(primary[1])},
                    split=primary[0],
                    items_per_batch=knobs.images_per_batch,
                    seed=seed,
                    name="pictures",
                ),
                AUXILIARY: ItemStream(
                    {"label": torch.from_numpy(auxiliary[1])},
                    split=auxiliary[0],
                    items_per_batch=knobs.auxiliary_images_per_batch,
                    seed=seed,
                    name="auxiliary",
                ),
            }

        drawn: dict[str, Tensor] = {}

        def test() -> TestResult:
            losses = held_out_losses(encoder, self.held_out)  # [N, levels]
            drawn["samples"] = sampled(encoder, self.asked, knobs.sampling_steps)
            metrics = {"denoising_loss": float(losses.mean())}
            metrics |= {
                f"t{level}/denoising_loss": float(losses[:, at].mean()) for at, level in enumerate(NOISE_LEVELS)
            }
            metrics["frechet_distance"] = frechet_distance(
                self.classifier.features(drawn["samples"]), self.test_features
            )
            metrics["samples/accuracy"] = self.classifier.accuracy(drawn["samples"], self.asked.numpy())
            items = {"loss": losses.mean(1), "label": self.test_codes}
            items |= {f"loss_t{level}": losses[:, at] for at, level in enumerate(NOISE_LEVELS)}
            return TestResult(metrics, items, {"label": self.names}, self.floors)

        def save(folder: Path) -> None:
            draw_samples(folder / SAMPLES_FILE, drawn["samples"], self.asked.tolist(), self.names)

        return Experiment(
            encoder=encoder,
            primary=DenoisingObjective(),
            auxiliaries=build_auxiliaries(self, encoder),
            streams=streams((self.labelled, self.taught), (self.train, self.codes)),
            validation_streams=lambda: streams(*[(self.validation_split, self.validation_codes)] * 2),
            validate=lambda: {"denoising_loss": float(held_out_losses(encoder, self.validation).mean())},
            test=test,
            save=save,
            loadable=Loadable(
                "diffusion",
                {"denoiser": asdict(config), "classes": self.names, "sampling_steps": knobs.sampling_steps},
            ),
        )

    @cached_property
    def classifier(self) -> PictureClassifier:
        """Judge of samples and teacher of alignment; trained once for a draw, and kept in the data folder."""
        knobs = self.knobs
        return PictureClassifier.trained(
            self.train,
            self.codes,
            self.names,
            sizes=knobs.classifier,
            steps=knobs.classifier_steps,
            folder=knobs.data_folder,
            data_hash=self._data_hash,
        )

    @cached_property
    def test_features(self) -> np.ndarray:
        """What the classifier sees in the held-out pictures, [N, D]."""
        return self.classifier.features(self.test)

    @cached_property
    def floors(self) -> dict[str, dict[str, float]]:
        """Gaussian denoisers; the noise's mean, 0, as prediction; the mean training picture as every sample; and real
        pictures, a ceiling.

        The loss of predicting 0 is the mean square of the very noise that the runs are measured with, near 1.
        """
        zero = float(torch.cat([batch["noise"].square().mean((1, 2, 3)) for batch in self.held_out.in_order()]).mean())
        pictures = self.train.pixels(np.arange(min(self.train.num_images, 4096)))
        mean = torch.from_numpy(pictures.mean(0).round().astype(np.uint8)).permute(2, 0, 1)
        features = self.test_features
        copies = self.classifier.features(mean[None].repeat(2, 1, 1, 1))
        real = self.classifier.features(some_of(self.train, self.knobs.samples))
        return {
            **{name: {"denoising_loss": loss} for name, loss in self._gaussians().items()},
            "unconditional mean": {"denoising_loss": zero, "frechet_distance": frechet_distance(copies, features)},
            "training pictures": {"frechet_distance": frechet_distance(real, features)},
        }

    def _gaussians(self) -> dict[str, float]:
        """Floor's name → loss. One Gaussian of each class, of the labelled pictures; where few are labelled, also one
        of all pictures, and one of each class as if all were labelled.
        """
        questions = [asked_of(stream) for stream in (self.validation, self.held_out)]
        channels = self.knobs.encoder.channels
        most = min(20_000, _GAUSSIAN_VALUES // questions[0].clean.shape[1])
        labelled, every = some_of(self.labelled, most), some_of(self.train, most)
        codes = class_codes(every, self.names)
        taught = {"Gaussian denoiser of each class": (labelled, class_codes(labelled, self.names))}
        if self.labelled.num_images < self.train.num_images:
            taught["Gaussian denoiser of all pictures"] = (every, np.full_like(codes, -1))
            taught["Gaussian denoiser of each class, all labels"] = (every, codes)
        return {
            name: gaussian_floor(plain(split.pixels(np.arange(split.num_images)), channels), codes, *questions)
            for name, (split, codes) in taught.items()
        }


def asked_of(stream: ItemStream) -> Asked:
    """What `noised` made, for the Gaussian denoiser."""
    tensors = stream.tensors
    noise = tensors["noise"].permute(0, 2, 3, 1)
    clean = plain(tensors["pixels"].permute(0, 2, 3, 1).numpy(), noise.shape[-1])
    levels = cosine_signal()[tensors["level"]].numpy()
    return Asked(clean, noise.flatten(1).numpy(), levels, tensors["condition"].numpy())


def plain(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Pictures [N, S, S, 3] uint8 as the denoiser takes them, flat: [N, S·S·channels] float32 in [−1, 1]."""
    values = pixels.mean(3, dtype=np.float32) if channels == 1 else pixels.astype(np.float32)
    return values.reshape(len(values), -1) / np.float32(127.5) - 1


def some_of(split: PreparedSplit, count: int) -> PreparedSplit:
    """At most `count` of a split's images, always the same."""
    if split.num_images <= count:
        return split
    return split.subset(np.sort(generator(0, "held out", 0).permutation(split.num_images)[:count]))


def noised(split: PreparedSplit, codes: np.ndarray, channels: int = 3) -> ItemStream:
    """Every image at each of `NOISE_LEVELS`, image by image, with noise [N, channels, S, S] that is always the same."""
    count, levels, side = split.num_images, len(NOISE_LEVELS), split.image_size
    noise = torch.randn(count * levels, channels, side, side, generator=torch.Generator().manual_seed(0))
    pixels = torch.from_numpy(split.pixels(np.arange(count))).permute(0, 3, 1, 2)
    return ItemStream(
        {
            "pixels": pixels.repeat_interleave(levels, 0),
            "condition": torch.from_numpy(codes).repeat_interleave(levels),
            "level": torch.tensor(NOISE_LEVELS).repeat(count),
            "noise": noise,
        },
        items_per_batch=1,
    )


@torch.inference_mode()
def held_out_losses(encoder: Denoiser, stream: ItemStream) -> np.ndarray:
    """Mean squared error of the predicted noise [N, levels] float32, in evaluation mode."""
    losses = []
    for batch in _evaluating(encoder, lambda: stream.in_order(256)):
        features = encoder.features(batch)
        losses.append((features.predicted_noise.float() - features.noise).square().mean((1, 2, 3)).cpu())
    return torch.cat(losses).reshape(-1, len(NOISE_LEVELS)).numpy()


def sampled(encoder: Denoiser, classes: Tensor, steps: int) -> Tensor:
    """Samples [N, 3, S, S] uint8 of these classes."""
    parts = _evaluating(encoder, lambda: ({"condition": part} for part in classes.split(128)))
    return torch.cat([encoder.sample(part["condition"], steps=steps, seed=number) for number, part in enumerate(parts)])


def _evaluating(encoder: Denoiser, batches: Callable[[], Any]) -> Any:
    """The batches on the encoder's device, the encoder in evaluation mode while they are used."""
    training = encoder.training
    encoder.eval()
    try:
        for batch in batches():
            yield {name: tensor.to(encoder.signal.device) for name, tensor in batch.items()}
    finally:
        encoder.train(training)


def draw_samples(path: Path, samples: Tensor, classes: list[int], names: list[str], *, columns: int = 12) -> None:
    """A grid of samples, a row a class, enlarged."""
    from PIL import Image, ImageDraw

    scale = max(1, 48 // samples.shape[-1])
    side = samples.shape[-1] * scale
    shown = sorted(set(classes))
    sheet = Image.new("RGB", (110 + columns * (side + 2), len(shown) * (side + 2)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, code in enumerate(shown):
        pen.text((4, row * (side + 2) + side // 2 - 6), names[code][:16], fill="black")
        of_class = [at for at, other in enumerate(classes) if other == code][:columns]
        for column, at in enumerate(of_class):
            picture = Image.fromarray(samples[at].permute(1, 2, 0).numpy()).resize(
                (side, side), Image.Resampling.NEAREST
            )
            sheet.paste(picture, (110 + column * (side + 2), row * (side + 2)))
    with atomic_path(path) as partial:
        sheet.save(partial, format="PNG")

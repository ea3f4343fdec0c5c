"""The denoiser against diffusers' own forward pass, its lazy features, the Fréchet distance, the judge, and OpenMoji's
classes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch.nn import functional

from benchmarks.cases.diffusion.case import asked_of, draw_samples, held_out_losses, noised, some_of
from benchmarks.cases.diffusion.classifier import PictureClassifier, frechet_distance
from benchmarks.cases.diffusion.knobs import NOISE_LEVELS, Knobs
from benchmarks.cases.shared.data import prepared
from benchmarks.cases.shared.data_knobs import DataKnobs
from benchmarks.cases.shared.encoder_knobs import VitKnobs
from benchmarks.cases.shared.labels import class_codes, class_names
from data_prep.adapters.openmoji_classes import class_of
from mt2st.encoders.denoiser import Denoiser, DenoiserConfig
from mt2st.errors import Mt2stError
from mt2st.flops import count_flops
from mt2st.objectives.alignment import AlignmentObjective
from mt2st.objectives.clean_image import CleanImageObjective
from tests.helpers.unimodal import tiny_denoiser, tiny_vit


def pictures(count: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


class TestDenoiser:
    def test_down_and_up_are_diffusers_own_forward_pass(self) -> None:
        encoder = Denoiser(DenoiserConfig(image_size=8, fold=2, widths=(8, 16), classes=4)).eval()
        noisy, level, condition = torch.randn(3, 3, 8, 8), torch.tensor([0, 500, 999]), torch.tensor([0, 3, 4])
        with torch.no_grad():
            whole = encoder.unet(functional.pixel_unshuffle(noisy, 2), level, condition).sample
            torch.testing.assert_close(
                encoder.predict_noise(noisy, level, condition), functional.pixel_shuffle(whole, 2)
            )

    def test_noising_keeps_the_variance_and_fixed_noise_is_used(self) -> None:
        encoder = tiny_denoiser()
        noise = torch.randn(3, 3, 8, 8)
        given = {"pixels": pictures(), "level": torch.tensor([0, 500, 999]), "noise": noise}
        features = encoder.features(given)
        signal = encoder.signal[given["level"]][:, None, None, None]
        torch.testing.assert_close(features.noisy, signal.sqrt() * features.clean + (1 - signal).sqrt() * noise)
        assert signal[0] > 0.99
        assert signal[2] < 1e-3
        assert features.clean.min() >= -1
        assert features.clean.max() <= 1

    def test_the_bottleneck_costs_no_up_path_and_nothing_is_computed_twice(self) -> None:
        encoder = tiny_denoiser()
        batch = {"pixels": pictures()}
        middle = count_flops(lambda: encoder.features(batch).embedding)
        whole = count_flops(lambda: encoder.features(batch).predicted_noise)

        def both() -> None:
            features = encoder.features(batch)
            assert features.embedding.shape == (3, encoder.width)
            assert features.predicted_noise.shape == (3, 3, 8, 8)

        assert 0 < middle < whole == count_flops(both)

    def test_a_class_is_hidden_in_training_only_and_absent_means_any(self) -> None:
        encoder = Denoiser(DenoiserConfig(image_size=8, fold=1, widths=(8, 16), classes=4, drop_class=1.0))
        batch = {"pixels": pictures(), "condition": torch.tensor([0, 1, 2])}
        assert encoder.train().features(batch).condition.tolist() == [4, 4, 4]
        assert encoder.eval().features(batch).condition.tolist() == [0, 1, 2]
        assert encoder.features({"pixels": pictures()}).condition.tolist() == [4, 4, 4]

    def test_samples_depend_on_seed_and_class_alone(self) -> None:
        encoder = tiny_denoiser().eval()
        classes = torch.tensor([0, 1, 2])
        one = encoder.sample(classes, steps=3, seed=1)
        torch.manual_seed(9)
        assert torch.equal(one, encoder.sample(classes, steps=3, seed=1))
        assert not torch.equal(one, encoder.sample(classes, steps=3, seed=2))
        assert (one.dtype, one.shape) == (torch.uint8, (3, 3, 8, 8))
        with pytest.raises(Mt2stError, match="steps = 0"):
            encoder.sample(classes, steps=0)

    def test_grey_pictures_have_one_channel_of_noise_and_samples_of_three_equal_ones(self) -> None:
        encoder = Denoiser(DenoiserConfig(image_size=8, fold=2, widths=(8, 16), classes=4, channels=1)).eval()
        features = encoder.features({"pixels": pictures()})
        assert features.clean[:, 0].numpy() == pytest.approx(pictures().float().mean(1).numpy() / 127.5 - 1, abs=1e-5)
        assert features.noise.shape == features.noisy.shape == features.predicted_noise.shape == (3, 1, 8, 8)
        assert CleanImageObjective(encoder.width, 1)(features).ndim == 0
        samples = encoder.sample(torch.tensor([0, 1]), steps=2)
        assert (samples.dtype, samples.shape) == (torch.uint8, (2, 3, 8, 8))
        assert torch.equal(samples[:, 0], samples[:, 1])
        assert torch.equal(samples[:, 0], samples[:, 2])
        with pytest.raises(Mt2stError, match="channels = 2 must be 3"):
            DenoiserConfig(channels=2)  # type: ignore[arg-type]

    def test_sizes_that_do_not_fit(self) -> None:
        with pytest.raises(Mt2stError, match="choose a multiple of 8"):
            DenoiserConfig(image_size=30, fold=2, widths=(8, 8, 8))
        with pytest.raises(Mt2stError, match="multiples of 8"):
            DenoiserConfig(widths=(12,))

    def test_without_diffusers_the_error_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "diffusers", None)
        with pytest.raises(Mt2stError, match=r"pip install .mt2st\[diffusion\]"):
            tiny_denoiser()


def test_alignment_is_zero_for_equal_directions_and_the_teacher_stays_frozen() -> None:
    teacher = tiny_vit()
    objective = AlignmentObjective(16, teacher)
    objective.train()
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    encoder = tiny_denoiser()
    loss = objective(encoder.features({"pixels": pictures()}))
    loss.backward()
    assert 0 <= loss.item() <= 2
    assert all(parameter.grad is None for parameter in teacher.parameters())


class TestFrechet:
    def test_against_the_matrix_square_root(self) -> None:
        random = np.random.default_rng(0)
        one, other = random.normal(size=(60, 5)) @ random.normal(size=(5, 5)), random.normal(size=(40, 5)) + 1
        first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
        means = one.mean(0) - other.mean(0)
        wanted = means @ means + np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
        assert frechet_distance(one, other) == pytest.approx(wanted, rel=1e-8)
        assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one))

    def test_zero_for_equal_sets_and_defined_for_few_rows(self) -> None:
        features = np.random.default_rng(0).normal(size=(6, 20))
        assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)
        point = np.zeros((2, 20))
        wanted = (features.mean(0) ** 2).sum() + features.var(0, ddof=1).sum()
        assert frechet_distance(point, features) == pytest.approx(wanted)
        with pytest.raises(Mt2stError, match="at least two rows"):
            frechet_distance(features[:1], features)


class TestCase:
    @pytest.fixture(scope="class")
    @staticmethod
    def digits(tmp_path_factory: pytest.TempPathFactory):
        from rich.console import Console

        folder = tmp_path_factory.mktemp("digits")
        return prepared(DataKnobs(data="digits", data_folder=folder), 8, console=Console(quiet=True)).split("test")

    def test_held_out_losses_are_fixed_and_of_the_floor_for_a_network_that_says_zero(self, digits) -> None:
        part = some_of(digits, 10)
        encoder = tiny_denoiser()
        with torch.no_grad():
            encoder.unet.conv_out.weight.zero_()
            encoder.unet.conv_out.bias.zero_()
        encoder.unet.class_embedding = torch.nn.Embedding(11, encoder.unet.class_embedding.embedding_dim)
        stream = noised(part, class_codes(part, class_names(digits)))
        losses = held_out_losses(encoder, stream)
        assert losses.shape == (10, len(NOISE_LEVELS))
        assert encoder.training
        assert losses == pytest.approx(
            stream.tensors["noise"].square().mean((1, 2, 3)).reshape(10, -1).numpy(), rel=1e-5
        )

    def test_the_gaussian_sees_the_pictures_as_the_denoiser_does(self, digits) -> None:
        part = some_of(digits, 4)
        codes = class_codes(part, class_names(digits))
        for channels in (1, 3):
            stream = noised(part, codes, channels)
            encoder = Denoiser(DenoiserConfig(image_size=8, fold=1, widths=(8,), classes=10, channels=channels))
            asked = asked_of(stream)
            features = encoder.features(next(stream.in_order()))
            kept = asked.signal[:, None]
            noisy = np.sqrt(kept) * asked.clean + np.sqrt(1 - kept) * asked.noise
            assert noisy == pytest.approx(features.noisy.permute(0, 2, 3, 1).flatten(1).numpy(), abs=1e-5)

    def test_the_judge_is_trained_once_and_read_again_and_a_damaged_one_is_named(self, digits, tmp_path: Path) -> None:
        names = class_names(digits)
        codes = class_codes(digits, names)
        sizes = VitKnobs(width=16, layers=1, heads=2)
        first, again = (
            PictureClassifier.trained(digits, codes, names, sizes=sizes, steps=30, folder=tmp_path, data_hash="d")
            for _ in range(2)
        )
        assert first.training_flops > 0 == again.training_flops
        pixels = torch.from_numpy(digits.pixels(np.arange(50))).permute(0, 3, 1, 2)
        assert np.array_equal(first.features(pixels), again.features(pixels))
        assert first.accuracy(pixels, codes[:50]) > 0.15
        next(tmp_path.glob("classifier-*.safetensors")).write_bytes(b"torn")
        with pytest.raises(Mt2stError, match=r"classifier-.*damaged.*delete it"):
            PictureClassifier.trained(digits, codes, names, sizes=sizes, steps=30, folder=tmp_path, data_hash="d")

    def test_the_grid_has_a_row_a_class(self, tmp_path: Path) -> None:
        from PIL import Image

        draw_samples(tmp_path / "samples.png", pictures(5), [0, 2, 2, 0, 0], ["a", "b", "c"], columns=2)
        with Image.open(tmp_path / "samples.png") as sheet:
            assert sheet.size == (110 + 2 * 50, 2 * 50)

    def test_knobs_out_of_range(self) -> None:
        with pytest.raises(Mt2stError, match="samples = 1"):
            Knobs(samples=1)
        with pytest.raises(Mt2stError, match="auxiliaries is empty"):
            Knobs(auxiliaries=())


@pytest.mark.parametrize(
    ("stem", "wanted"),
    [("1F600", "faces"), ("1F469-1F3FD-200D-1F52C", "people"), ("1F1E9-1F1EA", "flags"), ("1F34E", "food"),
     ("1F431", "nature"), ("1F697", "travel"), ("26BD", "symbols"), ("1F4BB", "objects"),
     ("1F3F4-200D-2620-FE0F", "flags"), ("E000", "objects")],
)  # fmt: skip
def test_openmoji_classes_by_unicode(stem: str, wanted: str) -> None:
    assert class_of(stem) == wanted

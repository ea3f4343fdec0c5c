"""Knobs that make a run cheaper: off they change nothing, on they cost what a hand count says, and they resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.cases.shared.suite_knobs import SuiteKnobs
from mt2st.batch import Batch
from mt2st.data.streams import CaptionStream
from mt2st.encoders.open_clip_towers import small_towers
from mt2st.encoders.reduced_images import resized
from mt2st.errors import Mt2stError
from mt2st.mixture import MT2ST, Task
from mt2st.objectives.contrastive import ContrastiveObjective
from mt2st.randomness import generator
from mt2st.schedules import Constant
from mt2st.training.average import AverageWeights
from mt2st.training.config import TrainConfig, TrainSettings, deciding
from mt2st.training.economy import Economical, economise, kept_patches, shrunk
from mt2st.training.trainer import Trainer
from tests.helpers.tiny import DrawnSplit, mixture, streams, tiny_config, tiny_encoder, tokenizer
from tests.helpers.toy_models import LinearEncoder, Rows, regression


class Numbers:
    """Batch i holds the numbers 8 · i … 8 · i + 7, and shares are cut as streams cut them."""

    def batch(self, index: int, rank: int = 0, world: int = 1) -> Batch:
        each = 8 // world
        return {"x": torch.arange(8 * index + rank * each, 8 * index + (rank + 1) * each)}


def economical(config: TrainConfig, source: Any = None, encoder: Any = None, *, drops: bool = False) -> Economical:
    return Economical(source or Numbers(), "numbers", config, encoder, drops=drops)


class TestIdentity:
    def test_knobs_that_are_off_are_left_out(self) -> None:
        names = {"patch_dropout", "low_resolution_until", "low_resolution_scale", "small_batch_until"}
        names |= {"small_batch_parts", "average_decay"}
        assert not names & set(deciding(TrainSettings()))
        assert not names & set(SuiteKnobs().shared()["train"])
        assert deciding(TrainSettings(patch_dropout=0.5))["patch_dropout"] == 0.5

    def test_without_a_knob_the_streams_are_the_same_objects(self) -> None:
        rows = Rows()
        encoder, tasks = regression()
        assert economise({"primary": rows}, tasks, TrainConfig(4), encoder)["primary"] is rows

    @pytest.mark.parametrize(
        ("knobs", "words"),
        [
            ({"patch_dropout": 1.0}, "patch_dropout = 1.0"),
            ({"low_resolution_until": -0.1}, "low_resolution_until = -0.1"),
            ({"small_batch_parts": 1}, "small_batch_parts = 1"),
            ({"average_decay": 1.0}, "average_decay = 1.0"),
        ],
    )
    def test_values_out_of_range(self, knobs: dict[str, Any], words: str) -> None:
        with pytest.raises(Mt2stError, match=words):
            TrainSettings(**knobs)

    def test_what_cannot_work_is_refused(self) -> None:
        encoder, tasks = regression()
        for config, words in (
            (TrainConfig(4, patch_dropout=0.5), "LinearEncoder takes no reduced images"),
            (TrainConfig(total_flops=10**6, small_batch_until=0.5), "need a fixed number of steps"),
        ):
            with pytest.raises(Mt2stError, match=words):
                economise({"primary": Rows()}, tasks, config, encoder)


class TestSmallBatches:
    @pytest.mark.parametrize(("until", "total", "accumulation"), [(0.5, 6, 1), (0.3, 10, 1), (0.5, 4, 2), (1.0, 3, 1)])
    def test_every_item_comes_once_in_order(self, until: float, total: int, accumulation: int) -> None:
        config = TrainConfig(total, small_batch_until=until, accumulation=accumulation)
        stream = economical(config)
        found, sizes = [], []
        for index in range(total * accumulation):
            numbers = stream.batch(index)["x"].tolist()
            sizes.append(len(numbers))
            found += numbers
        small = sum(step / total < until for step in range(total)) * accumulation
        assert sizes == [4] * small + [8] * (total * accumulation - small)
        skipped = 4 * (small % 2)  # half a batch, where the part that is cut has an odd number of steps
        assert sorted(set(found)) == [n for n in range(max(found) + 1) if n // 4 != small or not skipped]

    def test_processes_share_a_part(self) -> None:
        stream = economical(TrainConfig(8, small_batch_until=1.0, small_batch_parts=4))
        assert [stream.batch(5, rank, 2)["x"].tolist() for rank in (0, 1)] == [[10], [11]]

    def test_a_first_batch_has_the_shapes_of_its_time(self) -> None:
        stream = economical(TrainConfig(10, small_batch_until=0.5))
        assert [len(stream.first(progress)["x"]) for progress in (0.0, 0.49, 0.5, 0.9)] == [4, 4, 8, 8]


class TestReducedImages:
    def test_shrinking_takes_means(self) -> None:
        pixels = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
        pixels[..., :2, :2] = 200
        small = shrunk(pixels, 0.5)
        assert small.dtype == torch.uint8
        assert small.shape == (1, 3, 2, 2)
        assert small[0, 0].tolist() == [[200, 0], [0, 0]]
        assert shrunk(torch.full((1, 1, 5, 5), 77, dtype=torch.uint8), 0.6).tolist() == [[[[77] * 3] * 3]]

    def test_kept_patches_are_distinct_and_shared_out(self) -> None:
        kept = kept_patches(generator(0, "a", 3), 4, 9, 0.5)
        assert kept.shape == (4, 4)
        assert all(len(set(row.tolist())) == 4 for row in kept)
        assert torch.equal(kept, kept.sort(1).values)
        shares = [kept_patches(generator(0, "a", 3), 2, 9, 0.5, rank=rank, world=2) for rank in (0, 1)]
        assert torch.equal(torch.cat(shares), kept)

    def test_all_patches_and_the_own_size_change_nothing(self) -> None:
        encoder = tiny_encoder()
        towers = encoder.towers.eval()
        pixels = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
        every = torch.arange(towers.image_patches(16)).expand(3, -1)
        own = towers.encode_image(pixels)
        for reduced in (towers.encode_reduced_image(pixels), towers.encode_reduced_image(pixels, every)):
            torch.testing.assert_close(reduced.tokens, own.tokens)
            torch.testing.assert_close(reduced.embedding, own.embedding)

    def test_what_is_left_out_is_not_seen(self) -> None:
        """One patch kept: the embedding is that of a tower whose other tokens are not there."""
        towers = tiny_encoder().towers.eval()
        visual = towers.model.visual
        visual.conv1 = nn.Conv2d(3, towers.image_width, 8, 8, bias=False)  # so that patches do not see each other
        first = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
        other = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
        other[..., 8:, :8] = first[..., 8:, :8]  # patch 2 of the 2 × 2
        kept = torch.full((2, 1), 2)
        one, same = (towers.encode_reduced_image(pixels, kept) for pixels in (first, other))
        assert one.tokens.shape[1] == 1
        torch.testing.assert_close(one.embedding, same.embedding)

    def test_position_embeddings_get_their_gradient(self) -> None:
        towers = tiny_encoder().towers
        pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
        towers.encode_reduced_image(pixels).embedding.sum().backward()
        assert towers.model.visual.positional_embedding.grad.abs().sum() > 0
        plane = torch.cat([torch.zeros(1, 2), torch.full((16, 2), 3.0)])
        torch.testing.assert_close(resized(plane, 2), torch.cat([torch.zeros(1, 2), torch.full((4, 2), 3.0)]))

    def test_a_side_that_patches_do_not_divide_is_refused(self) -> None:
        with pytest.raises(Mt2stError, match="12 px are no multiple of the image tower's patches of 8 px"):
            tiny_encoder().image_patches(12)


class TestLedger:
    """FLOPs of the image tower by hand, forward: of a layer on n tokens 8 · n · D² + 4 · n² · D, and the MLP's."""

    @pytest.mark.parametrize(
        ("knobs", "patches"),
        [
            ({}, 16),
            ({"patch_dropout": 0.5}, 8),
            ({"low_resolution_until": 1.0}, 4),
            ({"low_resolution_until": 1.0, "patch_dropout": 0.5}, 2),
        ],
    )
    def test_a_contrastive_step(self, knobs: dict[str, Any], patches: int) -> None:
        split: Any = DrawnSplit(image_size=32)
        encoder = tiny_encoder(small_towers(tiny_config(image_size=32), tokenizer()))
        tokenize = encoder.towers.tokenize
        names = {"primary": 4, "captions": 8}
        made = {name: CaptionStream(split, tokenize, images_per_batch=count) for name, count in names.items()}
        tasks = MT2ST(
            Task(Embedding("main"), stream="primary"), [Task(Embedding("aux"), Constant(), stream="captions")]
        )
        config = TrainConfig(3, **knobs)
        run = Trainer(encoder, tasks, made, config)
        run.fit()
        small = "low_resolution_until" in knobs  # of both streams; patches are left out of one
        found = run.ledger.by_task()["aux"]["forward"] / 3
        other = run.ledger.by_task()["main"]["forward"] / 3
        side = 2 if small else 4
        primary = image_flops(encoder, 4, side, side * side)
        assert other == primary
        assert found == image_flops(encoder, 8, side, patches)


class Embedding(nn.Module):
    """The mean of the image embeddings: a loss without FLOPs of its own."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, features: Any) -> torch.Tensor:
        loss: torch.Tensor = features.image_embedding.mean()
        return loss


def image_flops(encoder: Any, images: int, side: int, patches: int) -> int:
    """The stem on a side of `side` patches, the transformer on `patches` and a class token, and the projection."""
    visual = encoder.towers.model.visual
    width = visual.positional_embedding.shape[1]
    total, pixels = 0, 8 * side
    for layer in visual.conv1:
        if isinstance(layer, nn.Conv2d):
            pixels //= 2
            total += 2 * pixels**2 * 9 * layer.in_channels * layer.out_channels
    tokens = patches + 1
    for block in visual.transformer.resblocks:
        hidden = block.mlp.c_fc.out_features
        total += tokens * (8 * width**2 + 4 * width * hidden) + 4 * tokens**2 * width
    return int(images * (total + 2 * width * visual.proj.shape[1]))


class TestAverage:
    def test_it_is_the_slow_twin(self) -> None:
        """Every weight so far with its share, written out."""
        model = nn.Linear(2, 1, bias=False)
        average = AverageWeights(model, decay=0.6)
        seen, shares = [model.weight.detach().clone()], [1.0]
        for update in range(1, 6):
            with torch.no_grad():
                model.weight.add_(torch.randn(1, 2))
            average.update()
            decay = min(0.6, (1 + update) / (10 + update))
            seen.append(model.weight.detach().clone())
            shares = [share * decay for share in shares] + [1 - decay]
        wanted = sum(share * each for share, each in zip(shares, seen, strict=True))
        torch.testing.assert_close(average.tensors["weight"], wanted)
        before = model.weight.detach().clone()
        with average.shown():
            torch.testing.assert_close(model.weight.detach(), wanted)
        assert torch.equal(model.weight, before)
        assert average.flops == 6

    def test_training_takes_the_same_steps_and_ends_with_the_average(self, tmp_path: Path) -> None:
        validated: list[torch.Tensor] = []
        ends = []
        for decay in (0.0, 0.5):
            encoder, tasks = regression()

            def validate(encoder: LinearEncoder = encoder) -> dict[str, float]:
                validated.append(encoder.hidden[0].weight.detach().clone())
                return {"metric": 1.0}

            config = TrainConfig(6, average_decay=decay, evaluate_every_steps=3, log_every_steps=1)
            losses: list[float] = []
            run = Trainer(
                *(encoder, tasks, {"primary": Rows()}, config),
                folder=tmp_path / str(decay),
                validate=validate,
                log=lambda line, losses=losses: losses.append(line.get("loss/main", 0.0)),
            )
            result = run.fit()
            ends.append((encoder.hidden[0].weight.detach().clone(), losses, result))
        assert ends[0][1] == ends[1][1]
        assert not torch.equal(ends[0][0], ends[1][0])
        assert torch.equal(ends[1][0], validated[-1])  # what was validated last is what is kept
        assert ends[0][2].ledger.total == ends[1][2].ledger.total
        parameters = sum(parameter.numel() for parameter in run.parameters())
        assert ends[1][2].optimiser_flops - ends[0][2].optimiser_flops == 6 * 3 * parameters


@pytest.mark.parametrize(
    "knobs",
    [
        {"average_decay": 0.8},
        {"patch_dropout": 0.5, "low_resolution_until": 0.5, "small_batch_until": 0.4, "average_decay": 0.8},
    ],
)
def test_a_resumed_run_has_the_same_bits(tmp_path: Path, knobs: dict[str, Any]) -> None:
    def run(folder: Path, stop: int = 0) -> list[torch.Tensor]:
        encoder = tiny_encoder()
        tasks = mixture(encoder, contrastive=Constant(), masked_lm=Constant())
        config = TrainConfig(5, checkpoint_every_steps=1, **knobs)

        def on_step(step: int) -> None:
            if step == stop:
                raise KeyboardInterrupt

        trainer = Trainer(encoder, tasks, streams(encoder), config, folder=folder, on_step=on_step)
        if stop:
            with pytest.raises(KeyboardInterrupt):
                trainer.fit()
        else:
            trainer.fit()
        return [parameter.detach().clone() for parameter in trainer.parameters()]

    whole = run(tmp_path / "whole")
    run(tmp_path / "cut", stop=4)  # after the checkpoint of step 3, past every turn
    assert all(torch.equal(one, other) for one, other in zip(whole, run(tmp_path / "cut"), strict=True))


class TestContrastiveChunks:
    def test_they_give_the_loss_and_gradient_of_the_whole(self) -> None:
        found = []
        for rows in (0, 3):
            encoder = tiny_encoder()
            objective = ContrastiveObjective(chunk_rows=rows)
            loss = objective(encoder.features(streams(encoder, images=8)["captions"].batch(0)))
            loss.backward()
            found.append((loss.detach(), encoder.towers.logit_scale.grad, encoder.towers.model.visual.proj.grad))
        for whole, parts in zip(*found, strict=True):
            torch.testing.assert_close(parts, whole)

    def test_chunks_of_the_sigmoid_loss_are_refused(self) -> None:
        with pytest.raises(Mt2stError, match="chunk_rows = 4 with loss 'sigmoid'"):
            ContrastiveObjective("sigmoid", chunk_rows=4)

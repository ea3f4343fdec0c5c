"""Objectives against open_clip's losses and slow twins; what runs when, and what does not."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor, nn
from torch.nn import functional

from mt2st.encoders.open_clip_towers import OpenClipTowers
from mt2st.encoders.vision_language import VisionLanguageEncoder
from mt2st.errors import Mt2stError
from mt2st.objectives.contrastive import ContrastiveObjective, bounded_scale
from mt2st.objectives.masked_lm import MaskedLanguageObjective, choose_positions
from mt2st.objectives.matching import MatchingObjective, hard_negatives
from mt2st.objectives.vqa import soft_cross_entropy
from mt2st.schedules import Constant, Switch
from tests.helpers.tiny import mixture, objective, streams, tiny_encoder, tiny_towers


class Embedded:
    """Features that are given instead of computed."""

    def __init__(
        self, image: Tensor, text: Tensor, group: Tensor, *, scale: float = 2.0, bias: float | None = None
    ) -> None:
        towers = SimpleNamespace(
            logit_scale=torch.tensor(scale), logit_bias=None if bias is None else torch.tensor(bias)
        )
        self.encoder = SimpleNamespace(towers=towers)
        self.image_embedding, self.caption_embedding = (
            functional.normalize(image, dim=-1),
            functional.normalize(text, dim=-1),
        )
        self._group = group

    def __getitem__(self, name: str) -> Tensor:
        return {"caption_group": self._group}[name]


def embedded(rows: int = 6, group: list[int] | None = None, **more: Any) -> Embedded:
    random = torch.Generator().manual_seed(rows)
    image, text = torch.randn(rows, 4, generator=random), torch.randn(rows, 4, generator=random)
    return Embedded(image, text, torch.tensor(list(range(rows)) if group is None else group), **more)


class TestContrastive:
    def test_distinct_captions_give_open_clips_softmax_loss(self) -> None:
        features = embedded()
        expected = ClipLoss()(features.image_embedding, features.caption_embedding, torch.tensor(2.0).exp())
        torch.testing.assert_close(ContrastiveObjective("softmax")(features), expected)

    def test_distinct_captions_give_open_clips_sigmoid_loss(self) -> None:
        features = embedded(bias=-3.0)
        expected = SigLipLoss()(
            features.image_embedding, features.caption_embedding, torch.tensor(2.0).exp(), torch.tensor(-3.0)
        )
        torch.testing.assert_close(ContrastiveObjective("sigmoid")(features), expected)

    def test_identical_captions_are_positives_of_each_other(self) -> None:
        """Softmax: −mean over rows of the mean log-probability of the row's positives, both directions.

        Sigmoid: sum over pairs.
        """
        group = [0, 1, 0, 2, 1, 0]
        features = embedded(group=group, bias=-1.0)
        scores = math.exp(2.0) * features.image_embedding @ features.caption_embedding.T
        softmax, sigmoid = 0.0, 0.0
        for row in range(6):
            positives = [other for other in range(6) if group[other] == group[row]]
            for logits in (scores[row], scores[:, row]):
                softmax -= sum(float(logits[p] - torch.logsumexp(logits, 0)) for p in positives) / len(positives) / 12
            for column in range(6):
                sign = 1 if column in positives else -1
                sigmoid += math.log1p(math.exp(-sign * float(scores[row, column] - 1.0))) / 6
        assert float(ContrastiveObjective("softmax")(features)) == pytest.approx(softmax, rel=1e-5)
        assert float(ContrastiveObjective("sigmoid")(features)) == pytest.approx(sigmoid, rel=1e-5)

    def test_one_caption_everywhere_and_one_row_are_defined(self) -> None:
        assert float(ContrastiveObjective()(embedded(1))) == pytest.approx(0.0, abs=1e-6)
        assert torch.isfinite(ContrastiveObjective()(embedded(4, [7, 7, 7, 7])))

    def test_the_temperature_is_bounded_and_can_come_back(self) -> None:
        scale = torch.tensor(6.0, requires_grad=True)
        bounded = bounded_scale(scale)
        bounded.backward()
        assert bounded.item() == pytest.approx(100.0, rel=1e-5)
        assert scale.grad.item() == pytest.approx(100.0, rel=1e-5)
        assert bounded_scale(torch.tensor(2.0)).item() == pytest.approx(math.exp(2.0))

    def test_an_unknown_loss(self) -> None:
        with pytest.raises(Mt2stError, match="unknown contrastive loss 'softmx'; did you mean 'softmax'"):
            ContrastiveObjective("softmx")  # type: ignore[arg-type]


class TestMaskedLanguage:
    @given(
        rows=st.integers(1, 5),
        length=st.integers(1, 12),
        rate=st.floats(0.01, 1.0),
        seed=st.integers(0, 10**6),
        share=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    )
    @settings(max_examples=60, deadline=None)
    def test_chosen_positions_are_distinct_maskable_and_of_constant_number(
        self, rows: int, length: int, rate: float, seed: int, share: float
    ) -> None:
        torch.manual_seed(seed)
        maskable = torch.rand(rows, length) < share
        positions, chosen = choose_positions(maskable, rate)
        assert positions.shape == chosen.shape == (rows, max(1, math.ceil(rate * length)))
        for row in range(rows):
            assert len(set(positions[row].tolist())) == positions.shape[1]
            assert maskable[row, positions[row, chosen[row]]].all()
            assert int(chosen[row].sum()) == math.ceil(rate * int(maskable[row].sum()) - 1e-6)

    def test_every_maskable_position_is_chosen_equally_often(self) -> None:
        torch.manual_seed(0)
        maskable = torch.tensor([[False, True, True, True, True, False]]).expand(4000, -1)
        positions, chosen = choose_positions(maskable, 0.25)
        counts = torch.bincount(positions[chosen], minlength=6) / 4000
        torch.testing.assert_close(counts, torch.tensor([0.0, 0.25, 0.25, 0.25, 0.25, 0.0]), atol=0.03, rtol=0)

    def test_the_head_sees_masked_positions_only_and_frames_stay(self) -> None:
        encoder = tiny_encoder()
        towers = encoder.towers
        start, a, end = towers.tokenize(["a"])[0, :3].tolist()
        assert towers.frame_ids == (start, end)
        frame = torch.tensor([start, a, end])
        task = MaskedLanguageObjective(16, towers.vocabulary_size, towers.mask_id, rate=0.5, frame_ids=(a,))
        seen: list[Tensor] = []
        task.head.register_forward_hook(lambda module, args, output: seen.append(args[0]))
        texts: list[Tensor] = []
        read = towers.read_text
        towers.read_text = lambda tokens: texts.append(tokens) or read(tokens)  # type: ignore[method-assign]
        batch = streams(encoder)["captions"].batch(0)
        torch.manual_seed(0)
        loss = task(encoder.features(batch))
        length = batch["caption_tokens"].shape[1]
        assert seen[0].shape == (4, math.ceil(0.5 * length), 16)
        (masked,) = texts
        originals = batch["caption_tokens"]
        replaced = masked != originals
        assert replaced.any(1).all()
        assert (masked[replaced] == towers.mask_id).all()
        assert not (replaced & ((originals == towers.pad_id) | torch.isin(originals, frame))).any()
        assert torch.isfinite(loss)

    def test_it_equals_the_cross_entropy_of_all_positions_restricted_to_the_masked_ones(self) -> None:
        encoder = tiny_encoder().eval()
        task = objective("masked_lm", encoder)
        features = encoder.features(streams(encoder)["captions"].batch(0))
        torch.manual_seed(3)
        found = task(features)
        torch.manual_seed(3)
        positions, chosen = choose_positions(task.maskable(features), task.rate)
        total, count = 0.0, 0
        for row in range(4):
            places = positions[row, chosen[row]]
            tokens = features["caption_tokens"][row].clone()
            wanted = tokens[places].clone()
            tokens[places] = encoder.towers.mask_id
            text = encoder.towers.encode_text(tokens[None]).tokens
            fused, _ = encoder.fusion(features.image_tokens[row : row + 1], text, features.caption_mask[row : row + 1])
            logits = task.head(fused[0, places])
            total += functional.cross_entropy(logits, wanted, reduction="sum").item()
            count += len(places)
        assert found.item() == pytest.approx(total / count, rel=1e-4)

    def test_captions_without_a_maskable_token_teach_nothing(self) -> None:
        encoder = tiny_encoder()
        batch = dict(streams(encoder)["captions"].batch(0))
        batch["caption_tokens"] = torch.full_like(batch["caption_tokens"], encoder.towers.pad_id)
        assert objective("masked_lm", encoder)(encoder.features(batch)).item() == 0.0

    @pytest.mark.parametrize("rate", [0.0, -0.1, 1.01, float("nan")])
    def test_rates_out_of_range(self, rate: float) -> None:
        with pytest.raises(Mt2stError, match=r"rate = .* is outside"):
            MaskedLanguageObjective(8, 10, 9, rate=rate)


def causal_towers() -> OpenClipTowers:
    torch.manual_seed(0)
    text = {"context_length": 12, "vocab_size": 60, "width": 16, "heads": 2, "layers": 1}
    vision = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
    model = open_clip.CustomTextCLIP(embed_dim=8, vision_cfg=vision, text_cfg=text)
    tokenize = lambda texts: torch.ones(len(texts), 12, dtype=torch.int64)  # noqa: E731
    return OpenClipTowers(model, tokenize, context_length=12, pad_id=0, mask_id=None)


@pytest.mark.parametrize("layers", [0, 1])
def test_fusion_gives_a_causal_tower_its_right_context(layers: int) -> None:
    """What a fused token depends on, by gradient. Without a fusion layer a causal tower shows the left context only."""
    towers = causal_towers()
    encoder = VisionLanguageEncoder(towers, fusion_width=16, fusion_layers=layers).eval()
    tokens = torch.tensor([[5, 6, towers.mask_id, 7, 8, 9, 0, 0]])
    embedded: list[Tensor] = []
    towers.model.text.token_embedding.register_forward_hook(
        lambda module, args, output: embedded.append(output.requires_grad_(True))
    )
    text = towers.encode_text(tokens).tokens
    image = towers.encode_image(torch.zeros(1, 3, 16, 16, dtype=torch.uint8)).tokens
    fused, _ = encoder.fusion(image, text, tokens != towers.pad_id)
    for source, right_seen in ((text[0, 2], False), (fused[0, 2], layers > 0)):
        (gradient,) = torch.autograd.grad(source.pow(2).sum(), embedded[0], retain_graph=True)
        depends = gradient[0].abs().sum(-1) > 1e-9
        assert depends[:3].all()  # itself and its left context
        assert depends[3:6].tolist() == [right_seen] * 3
        assert not depends[6:].any()  # never padding


class TestMatching:
    @given(seed=st.integers(0, 10**6), groups=st.lists(st.integers(0, 3), min_size=1, max_size=8))
    @settings(max_examples=60, deadline=None)
    def test_a_negative_never_has_the_same_caption(self, seed: int, groups: list[int]) -> None:
        torch.manual_seed(seed)
        group = torch.tensor(groups)
        same = group[:, None] == group[None, :]
        negatives, has = hard_negatives(30 * torch.randn(len(groups), len(groups)), same)
        for row, (negative, real) in enumerate(zip(negatives.tolist(), has.tolist(), strict=True)):
            assert real == any(other != groups[row] for other in groups)
            assert not real or groups[negative] != groups[row]

    def test_hard_ones_are_drawn_in_proportion_to_exp_of_their_logit(self) -> None:
        torch.manual_seed(0)
        logits = torch.tensor([[9.0, 0.0, 1.0, 2.0]]).expand(8000, -1)
        same = torch.tensor([[True, False, False, False]]).expand(8000, -1)
        shares = torch.bincount(hard_negatives(logits, same)[0], minlength=4) / 8000
        torch.testing.assert_close(shares[1:], torch.softmax(torch.tensor([0.0, 1.0, 2.0]), 0), atol=0.02, rtol=0)
        assert shares[0] == 0

    def test_rows_without_a_negative_count_with_their_positive_alone(self) -> None:
        encoder = tiny_encoder().eval()
        task = objective("matching", encoder)
        batch = dict(streams(encoder)["captions"].batch(0))
        batch["caption_group"] = torch.zeros(4, dtype=torch.int64)
        features = encoder.features(batch)
        _, joint = features.fuse(features.image_tokens, features.caption_tokens, features.caption_mask)
        expected = functional.cross_entropy(task.head(joint), torch.ones(4, dtype=torch.int64))
        torch.testing.assert_close(task(features), expected)

    def test_true_pairs_are_label_one_and_negatives_zero(self) -> None:
        encoder = tiny_encoder().eval()
        task = MatchingObjective(16)
        seen: list[Tensor] = []
        task.head.register_forward_hook(lambda module, args, output: seen.append(output))
        batch = streams(encoder)["captions"].batch(0)
        torch.manual_seed(0)
        loss = task(encoder.features(batch))
        group = batch["caption_group"]
        has = torch.tensor([any(other != mine for other in group) for mine in group])
        labels = torch.tensor([1] * 4 + [0] * 8)
        losses = functional.cross_entropy(seen[0], labels, reduction="none")
        counted = torch.cat([torch.ones(4, dtype=torch.bool), has, has])
        torch.testing.assert_close(loss, losses[counted].mean())

    def test_it_leaves_a_gradient_to_those_who_share_its_features(self) -> None:
        """Hard negatives need no gradient, but the memoised features they come from do."""
        encoder = tiny_encoder()
        features = encoder.features(streams(encoder)["captions"].batch(0))
        objective("matching", encoder)(features).backward(retain_graph=True)
        visual: Any = encoder.towers.model.visual
        assert visual.conv1[0].weight.grad.abs().sum() > 0
        before = visual.proj.grad
        objective("contrastive", encoder)(features).backward()
        assert before is None
        assert visual.proj.grad.abs().sum() > 0

    def test_a_diverged_model_gives_a_nan_loss_not_a_sampling_error(self) -> None:
        encoder = tiny_encoder()
        with torch.no_grad():
            encoder.towers.logit_scale.fill_(float("nan"))
            encoder.fusion.joint[1].weight.fill_(float("nan"))
        assert torch.isnan(objective("matching", encoder)(encoder.features(streams(encoder)["captions"].batch(0))))


class TestAnswering:
    def test_soft_targets_against_a_loop(self) -> None:
        torch.manual_seed(0)
        logits, targets = torch.randn(5, 4), torch.rand(5, 4)
        targets[2] = 0
        logs = torch.log_softmax(logits, -1)
        expected = [-sum(float(targets[row, a] * logs[row, a]) for a in range(4)) for row in range(5) if row != 2]
        assert float(soft_cross_entropy(logits, targets)) == pytest.approx(sum(expected) / 4, rel=1e-5)

    def test_one_hot_targets_are_the_usual_cross_entropy(self) -> None:
        torch.manual_seed(0)
        logits, labels = torch.randn(5, 4), torch.tensor([0, 3, 1, 1, 2])
        torch.testing.assert_close(
            soft_cross_entropy(logits, functional.one_hot(labels, 4).float()), functional.cross_entropy(logits, labels)
        )

    def test_rows_of_zeros_teach_nothing(self) -> None:
        logits = torch.randn(3, 4, requires_grad=True)
        loss = soft_cross_entropy(logits, torch.zeros(3, 4))
        loss.backward()
        assert float(loss.detach()) == 0.0
        assert float(logits.grad.abs().sum()) == 0.0

    def test_each_question_is_answered_with_its_own_image(self) -> None:
        encoder = tiny_encoder().eval()
        task = objective("vqa", encoder)
        random = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (2, 3, 16, 16), generator=random, dtype=torch.uint8)
        tokens = encoder.towers.tokenize(["what colour is it?", "which shape is it?", "is it red?"])
        owner = torch.tensor([1, 0, 1])
        together = task.logits(encoder.features({"pixels": pixels, "question_tokens": tokens, "question_image": owner}))
        for row in range(3):
            alone = {"pixels": pixels[owner[row]][None], "question_tokens": tokens[row][None]}
            torch.testing.assert_close(together[row], task.logits(encoder.features(alone))[0], rtol=1e-4, atol=1e-5)


class Calls:
    """Counts how often an encoder's towers are run, the fusion of tokens, and joint embeddings."""

    def __init__(self, encoder: VisionLanguageEncoder) -> None:
        self.counts = {"image": 0, "text": 0, "fusion": 0, "joint": 0}
        towers: Any = encoder.towers
        fusion = {"fusion": encoder.fusion.norm, "joint": encoder.fusion.joint}
        for name, module in {"image": towers.model.visual, "text": towers.model.text.token_embedding, **fusion}.items():
            module.register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        def count(module: nn.Module, args: Any, output: Any) -> None:
            self.counts[name] += 1

        return count


@pytest.mark.parametrize(
    ("active", "image", "text", "fusion", "joint"),
    [
        (["vqa"], 1, 1, 1, 1),
        (["contrastive"], 1, 1, 0, 0),
        (["masked_lm"], 1, 1, 1, 0),
        (["matching"], 1, 1, 1, 1),
        (["contrastive", "sigmoid"], 1, 1, 0, 0),
        (["contrastive", "matching"], 1, 1, 1, 1),
        (["contrastive", "masked_lm", "matching"], 1, 2, 2, 1),
        (["vqa", "contrastive", "masked_lm"], 2, 3, 2, 1),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else str(value),
)
def test_what_no_active_objective_asks_for_is_not_computed(
    active: list[str], image: int, text: int, fusion: int, joint: int
) -> None:
    encoder = tiny_encoder(tiny_towers(sigmoid=True))
    tasks = mixture(encoder, **{name: Constant() for name in ("contrastive", "sigmoid", "masked_lm", "matching")})
    batches = {name: stream.batch(0) for name, stream in streams(encoder).items()}
    calls = Calls(encoder)
    losses = tasks(encoder.features, batches, dict.fromkeys(active, 1.0))
    assert list(losses) == active
    assert calls.counts == {"image": image, "text": text, "fusion": fusion, "joint": joint}


def test_the_stream_of_inactive_tasks_is_not_even_read() -> None:
    encoder = tiny_encoder()
    tasks = mixture(encoder, contrastive=Switch(0.5))
    weights = tasks.weights(5, 10, seed=0)
    assert tasks.streams(weights) == ["primary"]
    batches = {"primary": streams(encoder)["primary"].batch(0)}  # no "captions" at all
    assert list(tasks(encoder.features, batches, weights)) == ["vqa"]


def test_a_batch_that_lacks_what_a_task_needs() -> None:
    encoder = tiny_encoder()
    batch = streams(encoder)["primary"].batch(0)
    with pytest.raises(
        Mt2stError, match=r"the batch has no 'caption_group', only answer_targets, pixels, .*give the task a stream"
    ):
        objective("contrastive", encoder)(encoder.features(batch))

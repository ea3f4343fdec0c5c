"""Every schedule, objective and pair of towers keeps its protocol.

A new file in `objectives/` or `encoders/` that is not swept fails here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import open_clip
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

import mt2st.encoders
import mt2st.listening
import mt2st.objectives
import mt2st.schedules
from mt2st.encoders import Towers
from mt2st.encoders.hugging_face import hugging_face_towers
from mt2st.encoders.open_clip_towers import OpenClipTowers
from mt2st.encoders.vision_language import VisionLanguageEncoder
from mt2st.flops import FlopCounter
from mt2st.listening import Aligned, Flattening, Forked
from mt2st.objectives import Objective
from mt2st.schedules import Constant, Diminish, Listens, Off, Sampled, SamplesWeight, Schedule, Switch, weight_at
from tests.helpers.tiny import mixture, objective, tiny_encoder, tiny_towers, tokenizer
from tests.helpers.unimodal import ENCODER_FILES, objective_files

SCHEDULES: dict[str, Schedule] = {
    "constant": Constant(0.7),
    "off": Off(),
    "diminish": Diminish(initial=2.0, rate=3.0, cutoff=0.2),
    "diminish-late": Diminish(rate=8.0, shape=3.0),
    "switch": Switch(0.4, initial=0.5),
    "switch-at-once": Switch(0.0),
    "sampled": Sampled(Diminish(initial=3.0, rate=2.0)),
    "sampled-switch": Sampled(Switch(0.5)),
    "flattening": Flattening(initial=2.0),
    "forked": Forked(),
    "aligned": Aligned(threshold=0.1),
}
OBJECTIVES = ("vqa", "contrastive", "sigmoid", "masked_lm", "matching")
TEXTS = ["a red square", "a blue bar", "a grey square", "a green bar"]


def causal_open_clip(folder: Path) -> OpenClipTowers:
    text = {"context_length": 12, "vocab_size": 310, "width": 12, "heads": 2, "layers": 1}
    vision = {"image_size": 16, "layers": 1, "width": 20, "head_width": 10, "patch_size": 8}
    model = open_clip.CustomTextCLIP(embed_dim=8, vision_cfg=vision, text_cfg=text)
    words = tokenizer()
    return OpenClipTowers(
        model, lambda texts: words.encode(texts, 12), context_length=12, pad_id=words.pad_id, mask_id=None
    )


def _words(folder: Path) -> Any:
    vocabulary = {
        word: at
        for at, word in enumerate(
            ("[PAD]", "[UNK]", "[MASK]", *sorted({word for text in TEXTS for word in text.split()}))
        )
    }
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    roles = {"unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    saved = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, model_max_length=12, padding_side="right", **roles
    )
    saved.save_pretrained(folder)
    return saved


SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def hf_siglip(folder: Path) -> nn.Module:
    words = _words(folder)
    text = {**SIZES, "vocab_size": len(words), "max_position_embeddings": 12, "projection_size": 16, "pad_token_id": 0}
    vision = {**SIZES, "image_size": 16, "patch_size": 8}
    transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    return hugging_face_towers(str(folder))


def hf_pair(folder: Path) -> nn.Module:
    words = _words(folder / "text")
    config = transformers.BertConfig(vocab_size=len(words), max_position_embeddings=12, **SIZES)
    transformers.BertModel(config).save_pretrained(folder / "text")
    transformers.ViTModel(transformers.ViTConfig(**SIZES, image_size=16, patch_size=8)).save_pretrained(
        folder / "vision"
    )
    return hugging_face_towers(str(folder / "vision"), text=str(folder / "text"), embedding_width=8)


TOWERS: dict[str, Callable[[Path], Any]] = {
    "small": lambda folder: tiny_towers(),
    "small-sigmoid": lambda folder: tiny_towers(sigmoid=True),
    "open_clip": causal_open_clip,
    "hf-siglip": hf_siglip,
    "hf-pair": hf_pair,
}


@pytest.fixture(params=TOWERS)
def towers(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    torch.manual_seed(0)
    return TOWERS[request.param](tmp_path)


def pixels(count: int = 4) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def batches(towers: Any) -> dict[str, dict[str, torch.Tensor]]:
    targets = torch.eye(9)[:4]
    questions = towers.tokenize(["a red", "a blue", "a grey", "bar"])
    return {
        "primary": {"pixels": pixels(), "question_tokens": questions, "answer_targets": targets},
        "captions": {
            "pixels": pixels(),
            "caption_tokens": towers.tokenize(TEXTS),
            "caption_group": torch.tensor([0, 1, 2, 1]),
        },
    }


class TestSchedules:
    def test_every_schedule_of_the_module_is_swept(self) -> None:
        own = {
            kind
            for module in (mt2st.schedules, mt2st.listening)
            for name, kind in inspect.getmembers(module, inspect.isclass)
            if kind.__module__ == module.__name__ and not name.startswith("_")
        }
        assert {type(schedule) for schedule in SCHEDULES.values()} == own - {Schedule, SamplesWeight, Listens}

    @pytest.mark.parametrize("name", SCHEDULES)
    def test_protocol_range_start_and_purity(self, name: str) -> None:
        schedule = SCHEDULES[name]
        assert isinstance(schedule, Schedule)
        curve = [schedule(step / 50) for step in range(51)]
        assert curve == [schedule(step / 50) for step in range(51)]
        assert all(0 <= weight <= schedule.initial for weight in curve)
        assert curve == sorted(curve, reverse=True)  # none of ours rises
        assert curve[0] in (schedule.initial, 0.0)
        assert hash(schedule) == hash(schedule)
        with pytest.raises(ValueError, match="progress"):
            schedule(1.01)

    @pytest.mark.parametrize("name", SCHEDULES)
    def test_a_steps_weight_depends_on_seed_step_and_task_alone(self, name: str) -> None:
        schedule = SCHEDULES[name]
        weights = [weight_at(schedule, step=step, total_steps=40, seed=3, task="aux") for step in range(40)]
        again = [weight_at(schedule, step=step, total_steps=40, seed=3, task="aux") for step in reversed(range(40))]
        assert weights == again[::-1]
        assert all(weight >= 0 for weight in weights)

    @pytest.mark.parametrize("name", SCHEDULES)
    def test_the_mixture_runs_a_task_exactly_where_its_weight_is_not_zero(self, name: str) -> None:
        tasks = mixture(tiny_encoder(), contrastive=SCHEDULES[name])
        for step in range(20):
            weight = weight_at(SCHEDULES[name], step=step, total_steps=20, seed=0, task="contrastive")
            active = tasks.weights(step, 20, seed=0)
            assert active == ({"vqa": 1.0, "contrastive": weight} if weight else {"vqa": 1.0})


class TestTowers:
    def test_every_file_of_encoders_is_known(self) -> None:
        families = {"open_clip_towers", "hugging_face"}
        around = {
            "_lazy",
            "architecture",
            "attention",
            "factory",
            "fine_tuning",
            "freezing",
            "frozen_outputs",
            "fusion",
            "installed",
            "last_block",
            "normalisation",
            "open_clip_folder",
            "pair",
            "preprocessing",
            "reduced_images",
            "split_texts",
            "stem",
            "text_tokenizer",
            "vision_language",
        }
        assert {module.name for module in iter_modules(mt2st.encoders.__path__)} == families | around | ENCODER_FILES

    def test_protocol_and_shapes(self, towers: Any) -> None:
        assert isinstance(towers, Towers)
        tokens = towers.tokenize(TEXTS)
        assert (tokens.dtype, tokens.shape) == (torch.int64, (4, towers.context_length))
        assert int(tokens.max()) < towers.vocabulary_size
        assert 0 <= towers.pad_id < towers.vocabulary_size
        assert 0 <= towers.mask_id < towers.vocabulary_size
        assert towers.mask_id != towers.pad_id
        assert not (tokens == towers.mask_id).any()
        assert all(0 <= frame_id < towers.vocabulary_size for frame_id in towers.frame_ids)
        shown = (tokens != towers.pad_id) & ~torch.isin(tokens, torch.tensor(towers.frame_ids, dtype=torch.int64))
        assert shown.any(1).all()
        image, text = towers.encode_image(pixels()), towers.encode_text(tokens)
        assert image.tokens.shape[::2] == (4, towers.image_width)
        assert text.tokens.shape == (4, towers.context_length, towers.text_width)
        assert image.embedding.shape == text.embedding.shape == (4, towers.embedding_width)
        assert towers.logit_scale.requires_grad
        assert any(parameter is towers.logit_scale for parameter in towers.parameters())

    def test_rows_do_not_depend_on_each_other_in_evaluation(self, towers: Any) -> None:
        towers.eval()
        tokens = towers.tokenize(TEXTS)
        with torch.no_grad():
            for whole, alone in (
                (towers.encode_image(pixels()), towers.encode_image(pixels()[1:2])),
                (towers.encode_text(tokens), towers.encode_text(tokens[1:2])),
            ):
                torch.testing.assert_close(whole.embedding[1:2], alone.embedding, rtol=1e-3, atol=1e-4)
                torch.testing.assert_close(whole.tokens[1:2], alone.tokens, rtol=1e-3, atol=1e-4)

    def test_texts_may_be_cut_to_their_longest(self, towers: Any) -> None:
        towers.eval()
        tokens = towers.tokenize(TEXTS)
        used = int((tokens != towers.pad_id).any(0).nonzero().max()) + 1
        assert used < towers.context_length
        with torch.no_grad():
            torch.testing.assert_close(
                towers.encode_text(tokens[:, :used]).embedding,
                towers.encode_text(tokens).embedding,
                rtol=1e-3,
                atol=1e-4,
            )

    def test_weights_round_trip_through_a_state_dict(self, towers: Any) -> None:
        state = {name: tensor.clone() for name, tensor in towers.state_dict().items()}
        with torch.no_grad():
            before = towers.eval().encode_text(towers.tokenize(TEXTS)).embedding
            for parameter in towers.parameters():
                parameter.zero_()
            towers.load_state_dict(state)
            torch.testing.assert_close(towers.encode_text(towers.tokenize(TEXTS)).embedding, before)


class TestObjectives:
    def test_every_file_of_objectives_is_swept(self) -> None:
        encoder = tiny_encoder()
        swept = {type(objective(name, encoder)).__module__.rpartition(".")[2] for name in OBJECTIVES}
        assert {module.name for module in iter_modules(mt2st.objectives.__path__)} == swept | objective_files()
        for name in swept:
            import_module(f"mt2st.objectives.{name}")

    @pytest.mark.parametrize("name", OBJECTIVES)
    def test_every_objective_trains_on_every_pair_of_towers(self, towers: Any, name: str) -> None:
        """A finite scalar whose gradient reaches the image tower, counted without an operation that has no formula."""
        encoder = VisionLanguageEncoder(towers, fusion_width=16, fusion_layers=1, fusion_heads=2)
        task = objective(name, encoder)
        assert isinstance(task, Objective)
        assert task.name == name
        batch = batches(towers)["primary" if name == "vqa" else "captions"]
        with FlopCounter() as counter:
            with counter.task(name):
                loss = task(encoder.features(batch))
            loss.backward()
        assert loss.shape == ()
        assert torch.isfinite(loss)
        assert counter.counts.keys() == {name}
        assert counter.counts[name]["backward"] > counter.counts[name]["forward"] > 0
        image = towers.encode_image(batch["pixels"]).tokens
        reached = [
            parameter
            for parameter in encoder.parameters()
            if parameter.grad is not None and parameter.grad.abs().sum() > 0
        ]
        own = torch.autograd.grad(image.sum(), [p for p in towers.parameters() if p.requires_grad], allow_unused=True)
        image_tower = [
            p
            for p, gradient in zip((p for p in towers.parameters() if p.requires_grad), own, strict=True)
            if gradient is not None
        ]
        assert image_tower
        assert any(parameter is other for parameter in reached for other in image_tower)

    @pytest.mark.parametrize("name", OBJECTIVES)
    def test_the_same_random_state_gives_the_same_loss_and_a_step_lowers_it(self, name: str) -> None:
        encoder = tiny_encoder()
        task = objective(name, encoder)
        batch = batches(encoder.towers)["primary" if name == "vqa" else "captions"]
        optimizer = torch.optim.AdamW([*encoder.parameters(), *task.parameters()], lr=3e-3)
        losses = []
        for _ in range(12):
            torch.manual_seed(0)
            loss = task(encoder.features(batch))
            torch.manual_seed(0)
            assert torch.equal(task(encoder.features(batch)).detach(), loss.detach()) or encoder.training
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]

    @pytest.mark.parametrize("name", OBJECTIVES)
    def test_the_weight_is_not_applied_by_the_objective(self, name: str) -> None:
        encoder = tiny_encoder().eval()
        tasks = mixture(encoder, **({} if name == "vqa" else {name: Constant(5.0)}))
        given = batches(encoder.towers)
        given["primary"]["answer_targets"] = torch.eye(tasks.tasks["vqa"].objective.head.out_features)[:4]  # type: ignore[attr-defined]
        found = []
        for weight in (1.0, 5.0):
            torch.manual_seed(0)
            found.append(tasks(encoder.features, given, {name: weight})[name])
        assert torch.equal(found[0], found[1])

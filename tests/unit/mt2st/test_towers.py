"""Towers by open_clip, and the factory.

Named models: a tiny configuration of each architecture, and one real small one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip import factory as open_clip_factory
from open_clip import pretrained as open_clip_pretrained
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mt2st.encoders import Towers
from mt2st.encoders.factory import make_towers
from mt2st.encoders.open_clip_towers import OpenClipTowers, SmallConfig, named_towers, small_towers
from mt2st.errors import Mt2stError
from tests.helpers.tiny import tiny_config, tiny_towers, tokenizer

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
CONFIGS: dict[str, dict[str, Any]] = {
    "tiny-vit": {"embed_dim": 8, "vision_cfg": VIT, "text_cfg": TEXT},
    "tiny-rn": {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": TEXT,
    },
    "tiny-timm": {
        "embed_dim": 8,
        "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "linear", "image_size": 160},
        "text_cfg": {**TEXT, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
        "custom_text": True,
        "init_logit_bias": -10.0,
    },
    "tiny-convnext": {
        "embed_dim": 8,
        "vision_cfg": {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear", "image_size": 64},
        "text_cfg": TEXT,
    },
    "tiny-coca": {
        "embed_dim": 8,
        "vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {
            "context_length": 16,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 1,
            "attn_pooler_heads": 2,
        },
        "custom_text": True,
    },
    "tiny-siglip": {
        "embed_dim": 16,
        "vision_cfg": VIT,
        "text_cfg": {
            **TEXT,
            "vocab_size": 10,
            "no_causal_mask": True,
            "pool_type": "last",
            "hf_tokenizer_name": "set by the fixture",
        },
        "custom_text": True,
    },
    "tiny-hf-text": {
        "embed_dim": 8,
        "vision_cfg": VIT,
        "text_cfg": {
            "hf_model_name": "roberta-base",
            "hf_tokenizer_name": "roberta-base",
            "hf_pooler_type": "mean_pooler",
        },
        "custom_text": True,
    },
}
RUNNING = [name for name in CONFIGS if name != "tiny-hf-text"]
WORDS = ("<unk>", "</s>", "a", "photo", "of", "cat", "two", "dogs")
TEXTS = ["a photo of a cat", "two dogs"]


@pytest.fixture(autouse=True)
def tiny_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip knows `CONFIGS` for the length of one test."""
    for name, config in CONFIGS.items():
        (tmp_path / "configs").mkdir(exist_ok=True)
        text = json.dumps(config).replace("set by the fixture", str(tmp_path / "words"))
        (tmp_path / "configs" / f"{name}.json").write_text(text)
    words = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    roles = {"unk_token": "<unk>", "pad_token": "</s>", "eos_token": "</s>", "padding_side": "right"}
    PreTrainedTokenizerFast(tokenizer_object=words, **roles).save_pretrained(tmp_path / "words")
    monkeypatch.setattr(open_clip_factory, "_MODEL_CONFIG_PATHS", list(open_clip_factory._MODEL_CONFIG_PATHS))
    monkeypatch.setattr(open_clip_factory, "_MODEL_CONFIGS", dict(open_clip_factory._MODEL_CONFIGS))
    open_clip.add_model_config(tmp_path / "configs")


def pixels(size: int, count: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize("name", RUNNING)
def test_named_towers_give_the_embeddings_of_open_clip(name: str) -> None:
    torch.manual_seed(0)
    towers = named_towers(name).eval()
    assert isinstance(towers, Towers)
    tokens = towers.tokenize(TEXTS)
    images = pixels(towers.image_size)
    model = open_clip.create_model(name, force_custom_text=True).eval()
    weights = towers.model.state_dict()
    weights["text.token_embedding.weight"] = weights["text.token_embedding.weight"][:-1]  # the mask token is ours
    if name != "tiny-coca":  # whose decoder holds further weights, all the same
        model.load_state_dict(weights)
    else:
        model.load_state_dict(weights, strict=False)
    mean = torch.tensor(model.visual.image_mean or open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
    std = torch.tensor(model.visual.image_std or open_clip.OPENAI_DATASET_STD).view(3, 1, 1)
    with torch.no_grad():
        image, text = towers.encode_image(images), towers.encode_text(tokens)
        torch.testing.assert_close(
            image.embedding, model.encode_image((images / 255 - mean) / std, normalize=False), rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(text.embedding, model.encode_text(tokens, normalize=False), rtol=1e-4, atol=1e-4)
    if name != "tiny-siglip":
        assert towers.frame_ids == (49406, 49407)
    assert image.tokens.ndim == text.tokens.ndim == 3
    assert (image.tokens.shape[-1], text.tokens.shape[-1]) == (towers.image_width, towers.text_width)
    assert text.tokens.shape[:2] == tokens.shape
    assert towers.mask_id == towers.vocabulary_size - 1 == model.text.token_embedding.num_embeddings


@pytest.mark.parametrize("name", RUNNING)
def test_columns_of_padding_may_be_cut_without_changing_an_embedding(name: str) -> None:
    towers = named_towers(name).eval()
    tokens = towers.tokenize(TEXTS)
    used = int((tokens != towers.pad_id).any(0).nonzero().max()) + 1
    assert used < towers.context_length
    with torch.no_grad():
        whole, cut = towers.encode_text(tokens), towers.encode_text(tokens[:, :used])
    torch.testing.assert_close(cut.embedding, whole.embedding, rtol=1e-4, atol=1e-5)
    assert cut.tokens.shape[1] == used


@pytest.mark.parametrize("name", RUNNING)
def test_named_towers_take_shorter_texts_with_masks_and_learn(name: str) -> None:
    towers = named_towers(name)
    tokens = towers.tokenize(TEXTS)[:, :10]
    tokens[0, 2] = towers.mask_id
    image, text = towers.encode_image(pixels(towers.image_size)), towers.encode_text(tokens)
    (image.tokens.sum() + image.embedding.sum() + text.tokens.sum() + text.embedding.sum()).backward()
    assert towers.model.text.token_embedding.weight.grad[towers.mask_id].abs().sum() > 0


def test_a_real_small_model_by_name() -> None:
    towers = named_towers("ViT-S-32-alt").eval()
    assert (towers.image_size, towers.context_length, towers.embedding_width) == (224, 77, 256)
    with torch.no_grad():
        assert towers.encode_image(pixels(224, 1)).tokens.shape == (1, 49, towers.image_width)


def test_local_safetensors_weights_come_back(tmp_path: Path) -> None:
    torch.manual_seed(3)
    plain = open_clip.create_model("tiny-vit").eval()  # as open_clip's own training saves it
    save_file({name: tensor.contiguous() for name, tensor in plain.state_dict().items()}, tmp_path / "mine.safetensors")
    towers = named_towers("tiny-vit", str(tmp_path / "mine.safetensors")).eval()
    tokens = towers.tokenize(["a cat"])
    with torch.no_grad():
        torch.testing.assert_close(towers.encode_text(tokens).embedding, plain.encode_text(tokens))
    assert towers.logit_scale.item() == plain.logit_scale.item()


def test_weights_of_another_model_or_torn_ones_are_one_clear_line(tmp_path: Path) -> None:
    save_file({"something": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\0\0\0")
    for name in ("other", "torn"):
        with pytest.raises(Mt2stError, match=f"{name}.safetensors.* for tiny-vit") as caught:
            named_towers("tiny-vit", str(tmp_path / f"{name}.safetensors"))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".pth", ".ckpt", ".npz"])
def test_weights_that_can_execute_code_are_refused_unread(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"never opened")
    with pytest.raises(
        Mt2stError, match=rf"are not safetensors; other formats can execute code.*{suffix}:weights-only"
    ):
        named_towers("tiny-vit", str(path))


def tensors_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


def test_pickled_weights_load_as_tensors_alone_where_that_is_asked_for(tmp_path: Path) -> None:
    torch.manual_seed(3)
    plain = open_clip.create_model("tiny-vit")
    torch.save({"state_dict": tensors_of(plain)}, tmp_path / "mine.pt")
    towers = make_towers(f"open_clip:tiny-vit:{tmp_path / 'mine.pt'}:weights-only")
    torch.testing.assert_close(towers.model.visual.proj, plain.visual.proj)
    assert make_towers("open_clip:tiny-vit:weights-only").image_size == 16, "fresh weights stay fresh"


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("content", ["bomb", [1], {}, {1: 2}, {"state_dict": 3}, {"a": torch.zeros(2)}, b"", b"torn"])
def test_pickles_of_something_else_are_one_clear_line(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "mine.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"a": Bomb(tmp_path / "executed")} if content == "bomb" else content, path)
    words = r"mine\.pt' for tiny-vit hold more than tensors" if content == "bomb" else r"mine\.pt' for tiny-vit"
    with pytest.raises(Mt2stError, match=words) as caught:
        named_towers("tiny-vit", str(path), weights_only=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


class Hub:
    """A Hub that holds the files of one folder, and remembers what it was asked for."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **tag: Any) -> None:
        self.folder, self.asked = folder, list[str]()
        folder.mkdir()
        monkeypatch.setitem(open_clip_pretrained._PRETRAINED, "tiny-vit", {"mine": {"url": "", "hf_hub": "", **tag}})
        monkeypatch.setattr(open_clip_pretrained, "hf_hub_download", self.download)
        monkeypatch.setattr(
            open_clip_pretrained, "download_pretrained_from_url", lambda url, cache_dir: self.download("url", url)
        )

    def download(self, repo_id: str, filename: str, **more: Any) -> str:
        self.asked.append(f"{repo_id}/{filename}")
        if not (self.folder / filename).is_file():
            raise FileNotFoundError(f"no {filename} in {repo_id}")
        return str(self.folder / filename)


@pytest.mark.parametrize(
    ("entry", "safe", "pickled"),
    [
        ("me/mine/", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
        ("me/mine/w.bin", "w.safetensors", "w.bin"),
    ],
)
def test_a_tag_is_safetensors_unless_asked_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str, safe: str, pickled: str
) -> None:
    torch.manual_seed(3)
    plain = open_clip.create_model("tiny-vit")
    hub = Hub(tmp_path / "hub", monkeypatch, hf_hub=entry, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
    torch.save(tensors_of(plain), hub.folder / pickled)
    with pytest.raises(
        Mt2stError, match=rf"cannot load weights 'mine' for tiny-vit as safetensors .*no {safe}.*mine:weights-only"
    ):
        named_towers("tiny-vit", "mine")
    assert hub.asked == [f"me/mine/{safe}"], "a pickle is not even downloaded"
    allowed = make_towers("open_clip:tiny-vit:mine:weights-only")
    assert hub.asked[-1] == f"me/mine/{pickled}"
    save_file(tensors_of(plain), hub.folder / safe)
    for towers in (allowed, named_towers("tiny-vit", "mine")):
        torch.testing.assert_close(towers.model.visual.proj, plain.visual.proj)
        black = towers.normalize(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))[0, :, 0, 0]
        torch.testing.assert_close(black, torch.tensor([-0.2, -0.4, -0.6]))  # by the tag's own mean and std
    assert hub.asked[-1] == f"me/mine/{safe}"


def test_a_tag_that_is_nowhere_safetensors_is_refused_before_it_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    plain = open_clip.create_model("tiny-vit")
    hub = Hub(tmp_path / "hub", monkeypatch, url="mine.pt")
    torch.save(tensors_of(plain), hub.folder / "mine.pt")
    with pytest.raises(
        Mt2stError, match=r"'mine' for tiny-vit has no safetensors; other formats can execute code.*mine:weights-only"
    ):
        named_towers("tiny-vit", "mine")
    assert hub.asked == []
    torch.testing.assert_close(named_towers("tiny-vit", "mine", weights_only=True).model.visual.proj, plain.visual.proj)


def test_a_tag_of_another_activation_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(tmp_path / "hub", monkeypatch, hf_hub="me/mine/", quick_gelu=True)
    save_file(tensors_of(open_clip.create_model("tiny-vit")), hub.folder / "open_clip_model.safetensors")
    with pytest.warns(UserWarning, match="QuickGELU"):
        named_towers("tiny-vit", "mine")


def test_missing_weights_unknown_names_and_tags() -> None:
    with pytest.raises(Mt2stError, match="are not a file"):
        named_towers("tiny-vit", "nowhere/weights.safetensors")
    with pytest.raises(Mt2stError, match="unknown open_clip model 'ViT-B-23'; did you mean 'ViT-B-32'"):
        named_towers("ViT-B-23")
    with pytest.raises(
        Mt2stError, match="unknown pretrained tag of ViT-B-32 'laion2b_s34b_b79'; did you mean 'laion2b_s34b_b79k'"
    ):
        named_towers("ViT-B-32", "laion2b_s34b_b79")


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip_pretrained, "hf_hub_download", offline)
    cure = "offline, give a local safetensors"
    for weights_only in (False, True):
        with pytest.raises(
            Mt2stError, match=f"cannot load weights 'openai' for RN50-quickgelu .*no route to host.*; {cure}"
        ):
            named_towers("RN50-quickgelu", "openai", weights_only=weights_only)


def test_open_clip_models_with_a_hugging_face_text_tower_point_to_hf() -> None:
    with pytest.raises(Mt2stError, match=r"text tower of transformers, roberta-base; use hf:VISION\+roberta-base"):
        named_towers("tiny-hf-text")


def test_images_of_another_size_are_an_error_with_a_cure() -> None:
    with pytest.raises(
        Mt2stError, match="images are 32×32 px, but these towers take 16×16; prepare the data with image_size=16"
    ):
        tiny_towers().encode_image(pixels(32))


def test_small_towers_mask_padding_and_are_bidirectional() -> None:
    towers = tiny_towers().eval()
    tokens = towers.tokenize(["a red square", "a blue bar"])
    with torch.no_grad():
        whole, cut = towers.encode_text(tokens), towers.encode_text(tokens[:, :8])
        torch.testing.assert_close(whole.embedding, cut.embedding, rtol=1e-4, atol=1e-5)
        changed = tokens.clone()
        changed[:, 3] = towers.mask_id
        first = towers.encode_text(changed).tokens[:, 1]
    assert not torch.allclose(first, whole.tokens[:, 1])  # an earlier token sees a later one


def test_small_towers_start_with_the_papers_temperatures() -> None:
    assert tiny_towers().logit_scale.exp().item() == pytest.approx(1 / 0.07, rel=1e-4)
    assert tiny_towers().logit_bias is None
    sigmoid = tiny_towers(sigmoid=True)
    assert (sigmoid.logit_scale.exp().item(), sigmoid.logit_bias.item()) == (pytest.approx(10, rel=1e-4), -10.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 20}, "image_size = 20 px must be a multiple of 8"),
        ({"width": 15}, "width = 15 is not divisible by heads = 2"),
    ],
)
def test_sizes_that_do_not_fit(changes: dict[str, int], message: str) -> None:
    with pytest.raises(Mt2stError, match=message):
        small_towers(tiny_config(**changes), tokenizer())


def test_the_default_size_is_what_its_docstring_says() -> None:
    towers = small_towers(SmallConfig(), tokenizer())
    assert 0.1e6 < sum(parameter.numel() for parameter in towers.parameters()) < 0.25e6


class TestFactory:
    def test_small(self) -> None:
        towers = make_towers("small", small=tiny_config(), tokenizer=tokenizer(), sigmoid=True)
        assert isinstance(towers, OpenClipTowers)
        assert towers.image_size == 16
        assert towers.logit_bias is not None

    def test_small_needs_a_tokenizer(self) -> None:
        with pytest.raises(Mt2stError, match=r"small towers need a tokenizer; train one .* TextTokenizer\.train"):
            make_towers("small")

    def test_open_clip_with_weights(self, tmp_path: Path) -> None:
        torch.manual_seed(3)
        plain = open_clip.create_model("tiny-vit")
        save_file(
            {name: tensor.contiguous() for name, tensor in plain.state_dict().items()}, tmp_path / "w.safetensors"
        )
        towers = make_towers(f"open_clip:tiny-vit:{tmp_path / 'w.safetensors'}")
        torch.testing.assert_close(towers.model.visual.proj, plain.visual.proj)
        assert make_towers("open_clip:tiny-vit").tokenize(["a cat"]).shape == (1, 16)

    def test_hugging_face_names_reach_their_loader(self, tmp_path: Path) -> None:
        with pytest.raises(Mt2stError, match="vision/one' is not a folder"):
            make_towers(f"hf:{tmp_path}/vision/one+{tmp_path}/text")

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("smal", "unknown towers 'smal'; did you mean 'small'"),
            ("clip:ViT-B-32", "unknown towers 'clip'; did you mean 'open_clip'"),
            ("open_clip", "are not of the form 'open_clip:NAME"),
            ("open_clip:", "are not of the form 'open_clip:NAME"),
            ("hf", "are not of the form 'hf:NAME_OR_FOLDER.*for example 'hf:openai/clip-vit-base-patch32'"),
            ("small:64", "are not of the form 'small'"),
            ("", "unknown towers ''"),
        ],
    )
    def test_unknown_words_get_suggestions(self, spec: str, message: str) -> None:
        with pytest.raises(Mt2stError, match=message):
            make_towers(spec)

"""Towers by transformers, on tiny models written by `save_pretrained` into a temporary folder.

Nothing is downloaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from mt2st.encoders import Towers
from mt2st.encoders.hugging_face import hugging_face_towers
from mt2st.encoders.vision_language import VisionLanguageEncoder
from mt2st.errors import Mt2stError
from tests.helpers.checkpoints import DUAL, TEXTS, WORDS, bert, clip, dinov2, resnet, vit, word_tokenizer


def pixels(size: int = 16, count: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize("name", DUAL)
def test_dual_towers_give_the_embeddings_of_transformers_own_pipeline(tmp_path: Path, name: str) -> None:
    folder = DUAL[name](tmp_path)
    towers = hugging_face_towers(folder).eval()
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    # SigLIP's texts are padded to the full context by its own processor; CLIP's to the longest of the batch.
    texts = tokenizer(TEXTS, padding=True if name == "clip" else "max_length", return_tensors="pt")
    texts = {"input_ids": texts["input_ids"]}
    images = pixels()
    statistics = ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    if name == "clip":
        statistics = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in statistics)
    normalised = (images / 255 - mean) / std
    given: dict[str, Any] = {"pixel_values": normalised}
    if name == "siglip2":
        from transformers.models.siglip2.image_processing_siglip2 import convert_image_to_patches

        given = {
            "pixel_values": torch.stack([convert_image_to_patches(image, 8) for image in normalised]),
            "pixel_attention_mask": torch.ones(3, 4, dtype=torch.int64),
            "spatial_shapes": torch.tensor([[2, 2]] * 3),
        }
    with torch.no_grad():
        found_image, found_text = (
            towers.encode_image(images).embedding,
            towers.encode_text(towers.tokenize(TEXTS)).embedding,
        )
        expected = model(**texts, **given)
    normal = torch.nn.functional.normalize
    torch.testing.assert_close(normal(found_image, dim=-1), expected.image_embeds, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(normal(found_text, dim=-1), expected.text_embeds, rtol=1e-4, atol=1e-5)
    assert len(towers.frame_ids) == {"clip": 2, "siglip": 1, "siglip2": 1}[name]
    assert towers.logit_scale.item() == model.logit_scale.item()
    assert (towers.logit_bias is None) == (name == "clip")


@pytest.mark.parametrize("name", DUAL)
def test_columns_of_padding_may_be_cut_without_changing_an_embedding(tmp_path: Path, name: str) -> None:
    towers = hugging_face_towers(DUAL[name](tmp_path)).eval()
    tokens = towers.tokenize(TEXTS)
    used = int((tokens != towers.pad_id).any(0).nonzero().max()) + 1
    assert used < towers.context_length
    with torch.no_grad():
        whole, cut = towers.encode_text(tokens), towers.encode_text(tokens[:, :used])
    torch.testing.assert_close(cut.embedding, whole.embedding)
    assert cut.tokens.shape[1] == used


@pytest.mark.parametrize("vision", [vit, dinov2, resnet])
def test_any_vision_model_pairs_with_any_text_model(tmp_path: Path, vision: Any) -> None:
    size = 64 if vision is resnet else 16
    towers = hugging_face_towers(vision(tmp_path / "v"), text=bert(tmp_path / "t"), embedding_width=6, image_size=size)
    assert isinstance(towers, Towers)
    image, text = towers.encode_image(pixels(size)), towers.encode_text(towers.tokenize(TEXTS))
    assert image.embedding.shape == text.embedding.shape == (3, 6)
    assert image.tokens.ndim == 3
    assert image.tokens.shape[-1] == towers.image_width
    assert towers.mask_id == 2  # BERT's own
    assert towers.vocabulary_size == len(WORDS) + 3
    (image.embedding.sum() + text.embedding.sum()).backward()
    assert towers.image_projection.weight.grad is not None


def test_padding_does_not_change_a_pairs_text_embedding(tmp_path: Path) -> None:
    towers = hugging_face_towers(vit(tmp_path / "v"), text=bert(tmp_path / "t")).eval()
    tokens = towers.tokenize(["a red circle"])
    with torch.no_grad():
        torch.testing.assert_close(
            towers.encode_text(tokens).embedding, towers.encode_text(tokens[:, :3]).embedding, atol=1e-6, rtol=1e-4
        )


def test_a_missing_mask_token_is_appended_and_learns(tmp_path: Path) -> None:
    towers = hugging_face_towers(clip(tmp_path))
    embedding = towers.text.text.get_input_embeddings()
    assert towers.mask_id == embedding.num_embeddings - 1 == towers.vocabulary_size - 1
    torch.testing.assert_close(embedding.weight[-1], embedding.weight[:-1].mean(0))
    tokens = towers.tokenize(TEXTS)
    assert int(tokens.max()) < towers.mask_id
    towers.encode_text(tokens.masked_fill(tokens == tokens[0, 1], towers.mask_id)).tokens.sum().backward()
    assert embedding.weight.grad[-1].abs().sum() > 0


def test_pixels_are_normalised_as_the_preprocessor_says(tmp_path: Path) -> None:
    folder = vit(tmp_path / "v", preprocessor={"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.25, 1.0]})
    towers = hugging_face_towers(folder, text=bert(tmp_path / "t"))
    found = towers.normalize(torch.full((1, 3, 16, 16), 255, dtype=torch.uint8))[0, :, 0, 0]
    torch.testing.assert_close(found, torch.tensor([0.9 / 0.5, 0.8 / 0.25, 0.7]))
    (tmp_path / "v" / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    towers = hugging_face_towers(folder, text=bert(tmp_path / "t"))
    torch.testing.assert_close(
        towers.normalize(torch.full((1, 3, 16, 16), 51, dtype=torch.uint8))[0, :, 0, 0], torch.full((3,), 0.2)
    )


def test_another_image_size_interpolates_positions_and_other_pixels_are_an_error(tmp_path: Path) -> None:
    towers = hugging_face_towers(vit(tmp_path / "v"), text=bert(tmp_path / "t"), image_size=32)
    assert towers.encode_image(pixels(32)).tokens.shape[1] == 17
    with pytest.raises(Mt2stError, match=r"16×16 px, but these towers take 32×32; .*image_size=32"):
        towers.encode_image(pixels(16))


def test_half_precision_weights_become_float32(tmp_path: Path) -> None:
    folder = clip(tmp_path)
    transformers.AutoModel.from_pretrained(folder).half().save_pretrained(folder)
    assert {parameter.dtype for parameter in hugging_face_towers(folder).parameters()} == {torch.float32}


def test_the_encoder_takes_them(tmp_path: Path) -> None:
    encoder = VisionLanguageEncoder(hugging_face_towers(clip(tmp_path)), fusion_width=16)
    features = encoder.features({"pixels": pixels(), "question_tokens": encoder.towers.tokenize(TEXTS)})
    assert features.question_joint.shape == (3, 16)


def test_no_texts_give_no_tokens(tmp_path: Path) -> None:
    assert hugging_face_towers(clip(tmp_path)).tokenize([]).shape == (0, 24)


def test_a_model_that_is_not_dual_asks_for_a_partner(tmp_path: Path) -> None:
    with pytest.raises(Mt2stError, match="is a vit model, not a vision and a text model in one; pair it"):
        hugging_face_towers(vit(tmp_path))


def test_roles_must_fit(tmp_path: Path) -> None:
    folder = bert(tmp_path / "b")
    with pytest.raises(Mt2stError, match="is a bert model, which is no vision encoder"):
        hugging_face_towers(folder, text=folder)
    with pytest.raises(Mt2stError, match="is a vit model, which is no text encoder"):
        hugging_face_towers(vit(tmp_path / "v"), text=str(tmp_path / "v"))


def test_a_missing_folder_and_a_context_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(Mt2stError, match="is not a folder; give a folder that save_pretrained wrote"):
        hugging_face_towers(str(tmp_path / "nowhere"))
    with pytest.raises(Mt2stError, match=r"context_length of .* = 99 is outside \[1, 24\]"):
        hugging_face_towers(clip(tmp_path), context_length=99)


def test_the_hub_out_of_reach_is_one_line_with_a_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        Mt2stError,
        match=r"AutoConfig cannot load 'nobody/no-such-model'.*looked in .*hf download nobody.*offline, give",
    ) as caught:
        hugging_face_towers("nobody/no-such-model")
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_refused_and_never_opened(tmp_path: Path) -> None:
    folder = clip(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(
        Mt2stError, match=r"holds only pytorch_model\.bin, which can execute code when loaded; save the model"
    ):
        hugging_face_towers(folder)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(Mt2stError, match="holds no weights"):
        hugging_face_towers(folder)


def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path) -> None:
    folder = clip(tmp_path)
    (tmp_path / "modeling_evil.py").write_text("raise SystemExit('ran')\n")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "modeling_evil.Config", "AutoModel": "modeling_evil.Model"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(Mt2stError, match=r"AutoConfig cannot load .* bring their own code"):
        hugging_face_towers(folder)


def test_a_tokenizer_must_be_there_and_pad(tmp_path: Path) -> None:
    folder = vit(tmp_path / "v")
    text = bert(tmp_path / "t")
    word_tokenizer(("[UNK]",), unk_token="[UNK]").save_pretrained(text)
    with pytest.raises(Mt2stError, match="has no padding token; set one"):
        hugging_face_towers(folder, text=text)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / "t" / name).unlink(missing_ok=True)
    with pytest.raises(Mt2stError, match="holds no tokenizer; save the model's own"):
        hugging_face_towers(folder, text=text)

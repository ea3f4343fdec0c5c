"""Any image tower with any text tower, new projections, and a language-model head tied to a checkpoint's embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from mt2st.encoders import Towers
from mt2st.encoders.factory import make_towers, text_side
from mt2st.encoders.fine_tuning import fine_tune
from mt2st.encoders.text_transformer import TextEncoder
from mt2st.encoders.vision_language import VisionLanguageEncoder
from mt2st.errors import Mt2stError
from mt2st.objectives.masked_lm import MaskedLanguageObjective, TiedHead
from mt2st.objectives.masked_tokens import MaskedTokenObjective
from tests.helpers.checkpoints import TEXTS, bert, clip, save, siglip, vit
from tests.helpers.tiny import tiny_config, tokenizer


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    makers = {"VIT": vit, "BERT": bert, "CLIP": clip, "SIGLIP": siglip}
    return {name: make(tmp_path / name) for name, make in makers.items()}


@pytest.fixture(autouse=True)
def tiny_open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip

    vision = {"image_size": 16, "layers": 1, "width": 20, "head_width": 10, "patch_size": 8}
    text = {"context_length": 16, "vocab_size": 49408, "width": 12, "heads": 2, "layers": 1}
    config = {"embed_dim": 14, "vision_cfg": vision, "text_cfg": text}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-vit", config)


def made(spec: str, folders: dict[str, str]) -> Any:
    for name, folder in folders.items():
        spec = spec.replace(name, folder)
    torch.manual_seed(1)
    words = tokenizer() if text_side(spec) == "small" else None
    return make_towers(spec, small=tiny_config(), tokenizer=words)


@pytest.mark.parametrize(
    "spec",
    [
        "small+hf:BERT",
        "hf:VIT+small",
        "hf:VIT+BERT",
        "open_clip:tiny-vit+hf:BERT",
        "hf:VIT+open_clip:tiny-vit",
        "small+open_clip:tiny-vit",
        "open_clip:tiny-vit+small",
        "hf:CLIP+small",
        "small+hf:SIGLIP",
        "hf:SIGLIP+hf:CLIP",
    ],
)
def test_any_pair_embeds_both_sides_alike_and_learns(spec: str, folders: dict[str, str]) -> None:
    towers = made(spec, folders)
    assert isinstance(towers, Towers)
    pixels = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    tokens = towers.tokenize(TEXTS)
    assert tokens.shape == (3, towers.context_length)
    image, text = towers.encode_image(pixels), towers.encode_text(tokens)
    width = 8 if "small" in spec else 256
    assert image.embedding.shape == text.embedding.shape == (3, width)
    assert (image.tokens.shape[-1], text.tokens.shape[-1]) == (towers.image_width, towers.text_width)
    (image.embedding.sum() + text.embedding.sum()).backward()
    assert all(projection.weight.grad is not None for projection in (towers.image_projection, towers.text_projection))
    parts = towers.parts()
    halves = spec.split("+")
    assert [parts["image"].pretrained, parts["text"].pretrained] == ["hf:" in halves[0], "hf:" in spec and (
        halves[1] == "BERT" or "hf:" in halves[1])]  # fmt: skip
    # Nothing of the half that is not used stays: every weight of the image half belongs to an image tower.
    assert not any("token_embedding" in name for name, _ in towers.image.named_parameters())
    assert not any("conv1" in name or "patch" in name for name, _ in towers.text.named_parameters())


def test_a_half_computes_what_the_whole_model_does(folders: dict[str, str]) -> None:
    whole, half = made("hf:CLIP", folders).eval(), made("hf:CLIP+small", folders).eval()
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        expected, found = whole.encode_image(pixels), half.image.encode_image(half.normalize(pixels))
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.embedding, expected.embedding)


def test_a_pairs_frozen_tower_leaves_the_projections_to_train(folders: dict[str, str]) -> None:
    towers = made("small+hf:BERT", folders)
    groups = fine_tune(towers.parts(), freeze=("text",))
    assert groups == []
    learned = {name for name, parameter in towers.named_parameters() if parameter.requires_grad}
    assert {"text_projection.weight", "image_projection.weight", "logit_scale"} <= learned
    assert not any(name.startswith("text.") for name in learned)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("small+hf:VIT", "is a vit model, which is no text encoder"),
        ("hf:BERT+small", "is a bert model, which is no vision encoder"),
        ("small+", "unknown towers ''"),
        ("small+berth:x", "unknown towers 'berth'"),
        ("small+hf:", "are not of the form 'hf:"),
    ],
)
def test_a_half_that_does_not_fit_is_one_line(spec: str, message: str, folders: dict[str, str]) -> None:
    with pytest.raises(Mt2stError, match=message):
        made(spec, folders)


def test_which_side_is_small() -> None:
    sides = {"small": "small", "small+hf:x": "hf:x", "hf:x+small": "small", "hf:x": "hf:x", "hf:x+y": "hf:y"}
    assert {spec: text_side(spec) for spec in sides} == sides


def test_the_language_head_of_a_checkpoint_is_tied_to_its_embeddings(folders: dict[str, str]) -> None:
    encoder = VisionLanguageEncoder(made("small+hf:BERT", folders), fusion_width=16)
    table = encoder.token_table()
    assert table is encoder.towers.text.text.get_input_embeddings().weight
    objective = MaskedLanguageObjective(16, encoder.towers.vocabulary_size, encoder.towers.mask_id, table=table)
    assert isinstance(objective.head, TiedHead)
    assert not any(parameter is table for parameter in objective.parameters())
    pixels = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    batch = {"pixels": pixels, "caption_tokens": encoder.towers.tokenize(TEXTS)}
    objective(encoder.features(batch)).backward()
    unseen = 1  # [UNK]
    assert unseen not in batch["caption_tokens"]
    assert table.grad[unseen].abs().sum() > 0, "the head's products reach every token's embedding"


def test_a_tied_head_is_transformers_own_given_its_weights(tmp_path: Path) -> None:
    encoder = TextEncoder.pretrained(bert(tmp_path), 8).eval()
    objective = MaskedTokenObjective(16, encoder.vocabulary_size, encoder.mask_id, table=encoder.token_table())
    own = transformers.BertForMaskedLM(encoder.model.config).eval()
    own.bert.load_state_dict({name: tensor for name, tensor in encoder.model.state_dict().items()
                              if not name.startswith("pooler")})  # fmt: skip
    own.tie_weights()
    head, predictions = objective.head, own.cls.predictions
    assert isinstance(head, TiedHead)
    with torch.no_grad():
        predictions.bias.copy_(torch.arange(encoder.vocabulary_size))
        head.bias.copy_(predictions.bias)
        head.transform[0].load_state_dict(predictions.transform.dense.state_dict())
        head.transform[2].load_state_dict(predictions.transform.LayerNorm.state_dict())
        tokens = encoder.tokenize(TEXTS)
        found = head(encoder.encode(tokens), encoder.token_table())
        expected = own(input_ids=tokens, attention_mask=encoder.real(tokens).long()).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_small_towers_keep_a_head_of_their_own(folders: dict[str, str]) -> None:
    encoder = VisionLanguageEncoder(made("hf:VIT+small", folders))
    assert encoder.token_table() is None
    assert isinstance(MaskedLanguageObjective(16, 30, 2, table=None).head, nn.Sequential)


def test_weights_of_another_architecture_are_not_replaced_by_random_ones(tmp_path: Path) -> None:
    folder = bert(tmp_path / "bert")
    other = vit(tmp_path / "vit")
    weights = (Path(other) / "model.safetensors").read_bytes()
    (Path(folder) / "model.safetensors").write_bytes(weights)
    message = r"has no weights for \d+ parameters of the bert that its config\.json describes, such as embeddings\."
    with pytest.raises(Mt2stError, match=message) as caught:
        TextEncoder.pretrained(folder, 8)
    assert "\n" not in str(caught.value)
    deeper = bert(tmp_path / "deeper", num_hidden_layers=2)
    shallow = bert(tmp_path / "shallow", num_hidden_layers=1)
    (Path(deeper) / "model.safetensors").write_bytes((Path(shallow) / "model.safetensors").read_bytes())
    with pytest.raises(Mt2stError, match=r"of the bert that .*, such as encoder\.layer\.1\."):
        TextEncoder.pretrained(deeper, 8)


def test_weights_of_another_width_are_one_line(tmp_path: Path) -> None:
    wide = bert(tmp_path / "wide", hidden_size=32)
    narrow = bert(tmp_path / "narrow")
    (Path(narrow) / "model.safetensors").write_bytes((Path(wide) / "model.safetensors").read_bytes())
    with pytest.raises(Mt2stError, match="AutoModel cannot load") as caught:
        TextEncoder.pretrained(narrow, 8)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_without_its_pooler_is_whole_enough(tmp_path: Path) -> None:
    folder = bert(tmp_path)
    language = transformers.BertForMaskedLM.from_pretrained(folder)  # has no pooler
    language.save_pretrained(folder)
    assert TextEncoder.pretrained(folder, 8).width == 16


def test_images_smaller_than_a_patch_and_tokens_without_embedding(tmp_path: Path) -> None:
    from mt2st.encoders.hugging_face import hugging_face_towers

    with pytest.raises(Mt2stError, match=r"images of 4 px are smaller than the 8 px patches of .* --image-size 16"):
        hugging_face_towers(vit(tmp_path / "v"), text=bert(tmp_path / "t"), image_size=4)
    folder = save(tmp_path / "few", transformers.BertConfig(vocab_size=5, hidden_size=16, intermediate_size=16,
                  num_hidden_layers=1, num_attention_heads=2, pad_token_id=0))  # fmt: skip
    bert(tmp_path / "many")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "few" / name).write_bytes((tmp_path / "many" / name).read_bytes())
    message = r"the tokenizer of .*few' has ids up to 10, but the model only 5 token embeddings; put the tokenizer"
    with pytest.raises(Mt2stError, match=message):
        TextEncoder.pretrained(folder, 8)
    with pytest.raises(Mt2stError, match=message):
        hugging_face_towers(str(tmp_path / "v"), text=folder)

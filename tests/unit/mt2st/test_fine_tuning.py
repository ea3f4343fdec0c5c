"""Learning rates by part and layer, frozen parts, LoRA: what is trained, and what the ledger counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from mt2st.encoders.fine_tuning import LORA_RATE, PRETRAINED_RATE, Part, fine_tune, layer_numbers
from mt2st.encoders.hugging_face import hugging_face_towers
from mt2st.encoders.image_transformer import ImageConfig, ImageEncoder
from mt2st.encoders.text_transformer import TextEncoder
from mt2st.errors import Mt2stError
from mt2st.mixture import MT2ST, Task
from mt2st.objectives.classification import ClassificationObjective
from mt2st.training.config import TrainConfig, learning_rate_at
from mt2st.training.trainer import Trainer
from tests.helpers.checkpoints import bert, clip, resnet, vit
from tests.helpers.tiny import tiny_towers

LAYERS = 3


@pytest.fixture
def encoder(tmp_path: Path) -> TextEncoder:
    return TextEncoder.pretrained(bert(tmp_path, num_hidden_layers=LAYERS), 8)


class Stream:
    def batch(self, index: int, rank: int = 0, world: int = 1) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        tokens = torch.randint(3, 9, (4, 6), generator=generator)
        return {"tokens": tokens, "label": tokens[:, 0] % 2}


def trained(encoder: Any, steps: int = 3, **knobs: Any) -> Trainer:
    torch.manual_seed(3)
    mixture = MT2ST(Task(ClassificationObjective(encoder.width, 2, name="kind"), stream="text"))
    config = TrainConfig(total_steps=steps, learning_rate=1e-2)
    trainer = Trainer(encoder, mixture, {"text": Stream()}, config, rates=fine_tune(encoder.parts(), **knobs))
    trainer.fit()
    return trainer


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def test_layers_are_numbered_from_the_input(encoder: TextEncoder, tmp_path: Path) -> None:
    numbers = layer_numbers(encoder.model)
    assert {number for name, number in numbers.items() if name.startswith("embeddings.")} == {0}
    assert {number for name, number in numbers.items() if name.startswith("encoder.layer.2.")} == {3}
    assert {number for name, number in numbers.items() if name.startswith("pooler.")} == {LAYERS + 1}
    towers = hugging_face_towers(clip(tmp_path / "clip"))
    numbers = layer_numbers(towers.image.vision)
    assert {numbers[name] for name in numbers if name.startswith("embeddings.") or "pre_layrnorm" in name} == {0}
    assert {numbers[name] for name in numbers if "post_layernorm" in name} == {2}
    stages = layer_numbers(transformers.AutoModel.from_pretrained(resnet(tmp_path / "resnet")))
    assert set(stages.values()) == {0, 1, 2}
    visual = layer_numbers(tiny_towers().parts()["image"].module)
    assert {visual["conv1.0.weight"], visual["class_embedding"]} == {0}
    assert visual["proj"] == 2


def test_a_pretrained_tower_has_a_rate_of_its_own_and_the_head_the_runs(encoder: TextEncoder) -> None:
    before = weights(encoder.model)
    trainer = trained(encoder, steps=1)
    count = sum(parameter.numel() for parameter in encoder.parameters())
    head = sum(parameter.numel() for parameter in trainer.mixture.parameters())
    assert trainer.trained == [
        {"group": "others", "parameters": head, "learning_rate": 1e-2},
        {"group": "text", "parameters": count, "learning_rate": PRETRAINED_RATE},
    ]
    # AdamW's first step is the learning rate in size, wherever there is a gradient.
    moved = {name: (after - before[name]).abs().max().item() for name, after in weights(encoder.model).items()}
    assert moved["encoder.layer.0.output.dense.weight"] == pytest.approx(PRETRAINED_RATE, rel=0.02)


def test_rates_fall_from_layer_to_layer_and_follow_one_schedule(encoder: TextEncoder) -> None:
    groups = fine_tune(encoder.parts(), learning_rate=0.01, layer_decay=0.5)
    assert [(group.name, group.learning_rate) for group in groups] == [
        (f"text, layer {layer}", 0.01 * 0.5 ** (LAYERS + 1 - layer)) for layer in range(LAYERS + 2)
    ]
    assert sum(len(group.parameters) for group in groups) == len(list(encoder.parameters()))
    config = TrainConfig(total_steps=20, learning_rate=0.002)
    for step in (0, 7, 19):
        assert learning_rate_at(step, config, 0.01) == pytest.approx(5 * learning_rate_at(step, config))


def test_nothing_moves_in_a_frozen_part_and_no_backward_of_it_is_counted(tmp_path: Path) -> None:
    folder = bert(tmp_path, num_hidden_layers=LAYERS)
    flops = {}
    for freeze in ((), ("text:2",), ("text",)):
        encoder = TextEncoder.pretrained(folder, 8)
        before = weights(encoder.model)
        trainer = trained(encoder, freeze=freeze)
        flops[freeze] = trainer.ledger.by_task()["kind"]
        still = {name for name, after in weights(encoder.model).items() if torch.equal(after, before[name])}
        numbers = layer_numbers(encoder.model)
        limit = {(): -1, ("text:2",): 2, ("text",): LAYERS + 1}[freeze]
        without_gradient = {name for name in numbers if name.startswith(("pooler.", "embeddings.token_type"))}
        assert {name for name, number in numbers.items() if number <= limit} <= still
        assert still <= {name for name, number in numbers.items() if number <= limit} | without_gradient
        optimised = {parameter for group in trainer._optimizer.param_groups for parameter in group["params"]}
        assert optimised == {parameter for parameter in trainer.parameters() if parameter.requires_grad}
    forward = {counts["forward"] for counts in flops.values()}
    assert len(forward) == 1
    whole, part, none = (flops[freeze]["backward"] for freeze in ((), ("text:2",), ("text",)))
    # Three equal layers: one of them left, then none, the head alone. Where the input is frozen, its gradient is not
    # computed: one product instead of two in the head, and in the query, key and value of the lowest layer that learns.
    steps, texts, tokens, width, classes = 3, 4, 24, 16, 2
    head = 2 * texts * width * classes * steps
    assert none == head
    assert part - 2 * head == (whole - 2 * head) / 3 - 3 * 2 * tokens * width * width * steps


def test_a_frozen_tower_stays_in_evaluation_mode() -> None:
    towers = tiny_towers()
    fine_tune(towers.parts(), freeze=("image",))
    towers.train()
    assert towers.model.text.training
    assert not any(module.training for module in towers.model.visual.modules())
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    before = towers.model.visual.conv1[1].running_mean.clone()
    assert not towers.encode_image(pixels).embedding.requires_grad
    assert torch.equal(towers.model.visual.conv1[1].running_mean, before)


def test_small_towers_have_no_rate_of_their_own() -> None:
    assert fine_tune(tiny_towers().parts()) == []
    assert fine_tune(ImageEncoder.small(ImageConfig()).parts()) == []
    with pytest.raises(Mt2stError, match=r"^learning_rate, lora_rank of an encoder with nothing pretrained; leave it"):
        fine_tune(tiny_towers().parts(), learning_rate=1e-4, lora_rank=2)


def test_lora_trains_its_matrices_alone(encoder: TextEncoder) -> None:
    pytest.importorskip("peft")
    tokens = Stream().batch(0)["tokens"]
    encoder.eval()
    with torch.no_grad():
        before = encoder.embed(tokens)
    own = weights(encoder.model)
    encoder.train()
    trainer = trained(encoder, lora_rank=2)
    rows = {str(row["group"]): row for row in trainer.trained}
    # Six linear layers in each of BERT's layers, all 16 × 16 here: two matrices of 2 × 16 beside each.
    assert (rows["text"]["parameters"], rows["text"]["learning_rate"]) == (LAYERS * 6 * 2 * 2 * 16, LORA_RATE)
    assert rows["frozen"]["parameters"] == sum(tensor.numel() for tensor in own.values())
    fixed = {name.replace("base_layer.", ""): tensor for name, tensor in weights(encoder.model).items()}
    assert all(torch.equal(tensor, fixed[name]) for name, tensor in own.items())
    encoder.eval()
    with torch.no_grad():
        assert not torch.allclose(encoder.embed(tokens), before)


def test_lora_starts_where_the_checkpoint_is(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    towers = hugging_face_towers(clip(tmp_path)).eval()
    tokens, pixels = towers.tokenize(["a red circle"]), torch.full((1, 3, 16, 16), 70, dtype=torch.uint8)
    with torch.no_grad():
        text, image = towers.encode_text(tokens).embedding, towers.encode_image(pixels).embedding
    fine_tune(towers.parts(), lora_rank=2, freeze=("image",))
    with torch.no_grad():
        torch.testing.assert_close(towers.encode_text(tokens).embedding, text)
        torch.testing.assert_close(towers.encode_image(pixels).embedding, image)
    named = [name for name, parameter in towers.named_parameters() if parameter.requires_grad]
    assert any("lora" in name for name in named)
    assert all("text" in name or "logit_scale" in name for name in named)


def test_lora_in_open_clips_attention_trains_both_towers() -> None:
    pytest.importorskip("peft")
    towers = tiny_towers().eval()
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    tokens = towers.tokenize(["a red square", "a bar"])
    with torch.no_grad():
        image, text = towers.encode_image(pixels).embedding, towers.encode_text(tokens).embedding
    loaded = {name: Part(part.module, True) for name, part in towers.parts().items()}
    groups = fine_tune(loaded, lora_rank=2)
    # A block of open_clip: attention's joint matrix and its output, and the two matrices of the MLP; two of LoRA each.
    assert [(group.name, len(group.parameters)) for group in groups] == [("image", 8), ("text", 8), ("temperature", 1)]
    found_image, found_text = towers.encode_image(pixels).embedding, towers.encode_text(tokens).embedding
    torch.testing.assert_close(found_image, image, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found_text, text, atol=1e-5, rtol=1e-5)
    (found_image.square().sum() + found_text.square().sum()).backward()
    second = [name for name, parameter in towers.named_parameters() if "lora_B" in name and parameter.grad.any()]
    assert len(second) == 8


def test_what_cannot_be_tuned_is_one_line(encoder: TextEncoder) -> None:
    with pytest.raises(Mt2stError, match="unknown part to freeze 'txt'; did you mean 'text'"):
        fine_tune(encoder.parts(), freeze=("txt",))
    with pytest.raises(Mt2stError, match="freeze names 'text' twice"):
        fine_tune(encoder.parts(), freeze=("text:1", "text"))
    with pytest.raises(Mt2stError, match=r"freeze = 'text:9': text has layers 0 to 3; write text:3 or text$"):
        fine_tune(encoder.parts(), freeze=("text:9",))
    with pytest.raises(Mt2stError, match="layer_decay = 0"):
        fine_tune(encoder.parts(), layer_decay=0.0)
    with pytest.raises(Mt2stError, match="no active task has a parameter to train"):
        Trainer(
            encoder, MT2ST(Task(Free(), stream="text")), {"text": Stream()}, TrainConfig(total_steps=1),
            rates=fine_tune(encoder.parts(), freeze=("text",)),
        ).fit()  # fmt: skip


class Free(nn.Module):
    """An objective without parameters."""

    name = "free"

    def forward(self, features: Any) -> torch.Tensor:
        loss: torch.Tensor = features.embedding.square().mean()
        return loss


def test_a_vit_checkpoint_is_one_part(tmp_path: Path) -> None:
    parts = ImageEncoder.pretrained(vit(tmp_path)).parts()
    assert {name: part.pretrained for name, part in parts.items()} == {"image": True}
    assert isinstance(parts["image"], Part)

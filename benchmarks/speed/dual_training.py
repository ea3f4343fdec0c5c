"""transformers' dual encoder: its contrastive training by transformers' own `Trainer`, and the same model for ours.

`VisionTextDualEncoderModel` of a ViT and a BERT, without dropout, for with it no two trainings would see equal noise.
Shapes as in `mt2st.batch`.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is downloaded here, and asking takes time

import numpy as np
import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, SequentialSampler
from transformers import (
    BertConfig,
    BertModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    VisionTextDualEncoderModel,
    ViTConfig,
    ViTModel,
)

from benchmarks.records.machine import reset_peak_resident
from benchmarks.speed.training_setting import (
    CONTEXT,
    MEAN_STD,
    MEMORY,
    Held,
    Setting,
    found,
    now,
    nudge,
    orders_of,
    warm_steps,
)
from mt2st.batch import Batch
from mt2st.encoders.normalisation import PixelNormalizer
from mt2st.training.config import decay_groups


def dual_model(setting: Setting) -> VisionTextDualEncoderModel:
    """A fresh dual encoder, with the same weights each time; as open_clip's towers in width, layers and patches."""
    torch.manual_seed(setting.seed)
    size = {
        **{"hidden_size": setting.width, "intermediate_size": 4 * setting.width},
        **{"num_hidden_layers": setting.layers, "num_attention_heads": max(1, setting.width // 64)},
        **{"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    }
    vision = ViTModel(ViTConfig(image_size=setting.image_size, patch_size=setting.image_size // 8, **size))
    text = BertModel(BertConfig(vocab_size=49408, max_position_embeddings=CONTEXT, **size))
    torch.manual_seed(setting.seed)
    model = VisionTextDualEncoderModel(vision_model=vision, text_model=text)
    if setting.nudge:
        nudge(model)
    return model


class DualEncoder(nn.Module):
    """The dual encoder as this package's loop takes it: a module with `features(batch)`."""

    def __init__(self, model: VisionTextDualEncoderModel, image_size: int) -> None:
        super().__init__()
        self.model = model
        self.normalize = PixelNormalizer(image_size, **MEAN_STD)

    @property
    def towers(self) -> DualEncoder:
        """What a contrastive loss asks for its temperature."""
        return self

    @property
    def logit_scale(self) -> Tensor:
        scale: Tensor = self.model.logit_scale
        return scale

    def features(self, batch: Batch) -> DualFeatures:
        """Embeddings of one batch."""
        return DualFeatures(self, batch)


class DualFeatures:
    """Embeddings [B, E] of unit length, of the pixels and captions of a batch."""

    def __init__(self, encoder: DualEncoder, batch: Batch) -> None:
        self.encoder, self._batch = encoder, batch

    def __getitem__(self, name: str) -> Tensor:
        return self._batch[name]

    @property
    def image_embedding(self) -> Tensor:
        pixels = self.encoder.normalize(self["pixels"])
        return functional.normalize(self.encoder.model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)

    @property
    def caption_embedding(self) -> Tensor:
        ids = self["caption_tokens"]
        output = self.encoder.model.get_text_features(input_ids=ids, attention_mask=(ids != 0).long())
        return functional.normalize(output.pooler_output, dim=-1)


class _Photos(Dataset[dict[str, Tensor]]):
    """Photos and captions in the order in which they are trained on, each read when it is asked for."""

    def __init__(self, data: Any, rows: list[int]) -> None:
        self._data, self._rows = data, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return _inputs(*self._data[self._rows[place]])


def _inputs(pixels: Tensor, ids: Tensor) -> dict[str, Tensor]:
    return {"pixel_values": pixels, "input_ids": ids, "attention_mask": (ids != 0).long()}


def theirs(setting: Setting) -> dict[str, Any]:
    """The training by transformers' `Trainer`, with its loader, its loop and the model's own loss.

    The optimiser and the course of the learning rate are given, so that both sides have the same.
    """
    from open_clip_train.data import CsvDataset

    model = dual_model(setting)
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=CONTEXT)
    transform = open_clip.image_transform(setting.image_size, is_train=False, **MEAN_STD)
    data: Any = CsvDataset(str(Path(setting.folder) / "photos.tsv"), transform, "filepath", "title", "\t", tokenizer)
    orders = orders_of(setting, len(data))
    optimizer = torch.optim.AdamW(decay_groups(model, 0.01), lr=setting.learning_rate, fused=True)  # their default
    warm = warm_steps(setting)

    def course(step: int) -> float:  # as `open_clip_train.scheduler.cosine_lr`
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, setting.steps - warm)))

    losses: list[Tensor] = []
    stamps: list[tuple[float, float]] = []

    class Stamps(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            stamps.append(now())

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            stamps.append(now())

    class Ours(Trainer):  # type: ignore[misc]
        """Takes the rows in the order given, and keeps the losses, which the log rounds to four places."""

        def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
            return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

        def get_train_dataloader(self) -> DataLoader[Any]:
            if setting.where == MEMORY:
                held = [_inputs(pixels, ids) for pixels, ids in Held(orders, data)]
                reset_peak_resident()
                return DataLoader(held, batch_size=None)  # type: ignore[arg-type]
            loader: DataLoader[Any] = super().get_train_dataloader()
            return loader

        def compute_loss(self, model: Any, inputs: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
            loss = model(**inputs, return_loss=True).loss
            losses.append(loss.detach())
            return loss

    rows = [int(row) for row in np.concatenate(orders)]
    with tempfile.TemporaryDirectory(prefix="dual-") as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=setting.steps,
            per_device_train_batch_size=setting.batch,
            dataloader_num_workers=setting.workers,
            dataloader_drop_last=True,
            max_grad_norm=1.0,
            logging_steps=setting.log_every,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            remove_unused_columns=False,
            seed=setting.seed,
        )
        trainer = Ours(
            model=model,
            args=arguments,
            train_dataset=_Photos(data, rows),
            optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, course)),
            callbacks=[Stamps()],
        )
        reset_peak_resident()
        trainer.train()
    return found(setting, stamps, {step: float(loss) for step, loss in enumerate(losses)})

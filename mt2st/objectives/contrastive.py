"""Image-text contrastive learning: softmax (InfoNCE) or sigmoid, on open_clip's losses.

Identical captions are positives.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from open_clip.loss import ClipLoss, SigLipLoss, gather_features
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mt2st.errors import Mt2stError, unknown_name

LOG_SCALE_LIMIT = math.log(100)


class ContrastiveObjective(nn.Module):
    """InfoNCE (arXiv 2103.00020) or the sigmoid loss (arXiv 2303.15343) over all images × all captions of the batch.

    Logits, gathering across processes (local loss, gathered gradients) and signs are open_clip's. What is ours is the
    target: with few distinct captions a batch holds the same caption many times, and calling an image's own caption a
    negative because it belongs to another row is wrong. So every pair with the same `caption_group` is a positive; in
    InfoNCE the target is uniform over a row's positives. Where all captions differ this equals open_clip's loss.

    Args:
        loss: "softmax" or "sigmoid".
        name: task name in ledger and logs.
        chunk_rows: rows of the matrix of logits that are held at a time, for large batches; they are computed again
            in the backward pass, and the ledger counts that. 0 = the whole matrix at once. Of "softmax" alone.

    Raises:
        Mt2stError: another loss, or chunks of the sigmoid loss.
    """

    def __init__(
        self, loss: Literal["softmax", "sigmoid"] = "softmax", *, name: str = "contrastive", chunk_rows: int = 0
    ) -> None:
        super().__init__()
        if loss not in ("softmax", "sigmoid"):
            raise unknown_name("contrastive loss", loss, ("softmax", "sigmoid"))
        if chunk_rows < 0 or (chunk_rows and loss != "softmax"):
            raise Mt2stError(f"chunk_rows = {chunk_rows} with loss {loss!r}; give rows ≥ 0, and 0 for sigmoid")
        self.name = name
        self.loss = loss
        self.chunk_rows = chunk_rows

    def forward(self, features: Any) -> Tensor:
        towers = features.encoder.towers
        group = features["caption_group"]  # [B]
        scale = bounded_scale(towers.logit_scale)
        bias = getattr(towers, "logit_bias", None)
        image, text = features.image_embedding, features.caption_embedding  # [B, E]
        rank, world = _rank_and_world()
        if self.chunk_rows:
            return _by_chunks(image, text, scale, group, self.chunk_rows)
        if self.loss == "softmax":
            clip = ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=world)
            per_image, per_text = clip.get_logits(image, text, scale)  # [B, B · world]
            positive = (group[:, None] == _gather(group, world)[None, :]).to(per_image.dtype)
            target = positive / positive.sum(-1, keepdim=True)
            return (functional.cross_entropy(per_image, target) + functional.cross_entropy(per_text, target)) / 2
        all_text = text
        if world > 1:
            all_text = gather_features(
                image, text, local_loss=True, gather_with_grad=True, rank=rank, world_size=world
            )[1]
        logits = SigLipLoss().get_logits(image, all_text, scale, bias)
        signs = (
            2.0 * (group[:, None] == _gather(group, world)[None, :]).to(logits.dtype) - 1.0
        )  # +1 positive, −1 negative
        return -functional.logsigmoid(signs * logits).sum() / image.shape[0]


def _by_chunks(image: Tensor, text: Tensor, scale: Tensor, group: Tensor, rows: int) -> Tensor:
    """InfoNCE of [B, E] images and texts, `rows` rows of logits at a time."""
    rank, world = _rank_and_world()
    all_image, all_text, all_group = image, text, _gather(group, world)
    if world > 1:
        all_image, all_text = gather_features(
            image, text, local_loss=True, gather_with_grad=True, rank=rank, world_size=world
        )
    total = torch.zeros((), device=image.device)
    for start in range(0, len(image), rows):
        part = slice(start, start + rows)
        for own, others in ((image, all_text), (text, all_image)):
            arguments = own[part], others, scale, group[part], all_group
            total = total + checkpoint(_summed, *arguments, use_reentrant=False, preserve_rng_state=False)
    return total / (2 * len(image))


def _summed(own: Tensor, others: Tensor, scale: Tensor, group: Tensor, all_group: Tensor) -> Tensor:
    """Summed cross-entropy of the rows `own` [b, E] against `others` [B · world, E]."""
    positive = (group[:, None] == all_group[None, :]).to(own.dtype)
    logits = scale * own @ others.T
    return functional.cross_entropy(logits, positive / positive.sum(-1, keepdim=True), reduction="sum")


def bounded_scale(logit_scale: Tensor) -> Tensor:
    """exp of the learned log-temperature, at most 100 as in CLIP.

    The gradient passes unclamped: with a plain clamp, a temperature that once crossed the limit would never come back.
    """
    return (logit_scale - functional.relu(logit_scale - LOG_SCALE_LIMIT).detach()).exp()


def _rank_and_world() -> tuple[int, int]:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _gather(values: Tensor, world: int) -> Tensor:
    """Concatenate `values` [B] of all processes in rank order."""
    if world == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(world)]
    distributed.all_gather(parts, values.contiguous())
    return torch.cat(parts)

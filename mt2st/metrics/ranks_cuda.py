"""How many competitors reach each positive score, on a GPU: blocks of a float64 product, counted where they are.

Float64 throughout, so nothing needs settling, and TF32 settings play no part. Memory: both embeddings in float64, one
block of scores and its comparison.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mt2st.errors import Mt2stError
from mt2st.metrics.counting import Columns, Doubles, Ints, tie_width

_BLOCK_SCORES = 1 << 24  # 128 MB of float64


def competitors_on_gpu(images: Tensor, texts: Tensor, owner: Ints) -> tuple[Doubles, Ints, Ints]:
    """What `counting.count_competitors` returns, for `images` [N, E] and `texts` [C, E] on any torch device."""
    left, right = _unit("text_embeddings", texts), _unit("image_embeddings", images)
    if left.shape[1] != right.shape[1]:
        raise Mt2stError(
            f"text_embeddings is {left.shape[1]} wide, but {right.shape[1]} is needed; both must come from one model"
        )
    columns = Columns(owner, len(right))
    own = torch.as_tensor(columns.own_column, device=left.device)
    layers = [torch.as_tensor(layer, device=left.device) for layer in columns.layer_texts]
    right = right[torch.as_tensor(columns.image_of_column, device=left.device)]
    positive = torch.cat([(part * right[mine]).sum(1) for part, mine in zip(left.split(8192), own.split(8192))])
    reach = positive - tie_width(left.shape[1])
    ahead_images, ahead_texts = torch.zeros_like(own), torch.zeros_like(own)
    step = max(1, _BLOCK_SCORES // len(right))
    for start in range(0, len(left), step):
        rows = slice(start, start + step)
        scores = left[rows] @ right.T  # [b, N]
        scores[torch.arange(len(scores), device=scores.device), own[rows]] = -torch.inf
        ahead_images[rows] = (scores >= reach[rows, None]).sum(1)
        for layer in layers:
            ahead_texts[layer] += (scores[:, : len(layer)] >= reach[layer]).sum(0)
    return positive.cpu().numpy(), ahead_images.cpu().numpy(), ahead_texts.cpu().numpy()


def _unit(name: str, embeddings: Tensor) -> Tensor:
    """float64 rows of length 1; the checks of `vectors.py` for a tensor that stays where it is."""
    if embeddings.ndim != 2 or not embeddings.is_floating_point() or embeddings.shape[1] == 0:
        raise Mt2stError(
            f"{name} has shape {tuple(embeddings.shape)} and type {embeddings.dtype}; give a floating-point matrix [N, "
            "E]"
        )
    doubles = embeddings.detach().double()
    norms = doubles.norm(dim=1, keepdim=True)
    if not bool(torch.isfinite(norms).all()):
        raise Mt2stError(f"{name} has NaN or infinite values; remove those rows")
    if bool((norms == 0).any()):
        raise Mt2stError(f"{name} has zero vectors; a zero vector has no direction: remove those rows")
    return doubles / norms

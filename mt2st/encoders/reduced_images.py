"""open_clip's vision transformer on fewer patches, or on smaller images than its weights were made for.

Shapes as in `mt2st.batch`. Fewer patches: the tokens of the others are left out before the first layer, as in FLIP
(arXiv 2212.00794). Smaller images: position embeddings are interpolated, as for ViT at another resolution
(arXiv 2010.11929), inside the graph, so their gradient reaches the embeddings that the tower has.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mt2st.errors import Mt2stError

NO_REDUCED_IMAGES = (
    "{tower} takes no reduced images, only open_clip's vision transformers do; set patch_dropout and "
    "low_resolution_until to 0"
)


class ChosenPatches(nn.Module):
    """Stands where the tower has its patch dropout: the class token and the patches `kept` [B, K] go on."""

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self._kept = kept

    def forward(self, tokens: Tensor) -> Tensor:  # [B, 1 + P, D] → [B, 1 + K, D]
        chosen = tokens[:, 1:].gather(1, self._kept[..., None].expand(-1, -1, tokens.shape[-1]))
        return torch.cat([tokens[:, :1], chosen], dim=1)


def patches_of(visual: Any, image_size: int, side: int) -> int:
    """Patches P of images of `side` pixels.

    Args:
        visual: the image tower.
        image_size: side of the images that it was made for, in pixels.

    Raises:
        Mt2stError: another kind of tower, or its patches do not divide the side.
    """
    from open_clip.transformer import VisionTransformer

    if not isinstance(visual, VisionTransformer):
        raise Mt2stError(NO_REDUCED_IMAGES.format(tower=type(visual).__name__))
    patch = image_size // visual.grid_size[0]
    if side < patch or side % patch:
        raise Mt2stError(
            f"images of {side} px are no multiple of the image tower's patches of {patch} px; choose another "
            "low_resolution_scale"
        )
    return int((side // patch) ** 2)


def run_reduced(visual: Any, images: Tensor, image_size: int, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    """Embedding [B, E] and tokens [B, K, D] of normalised images [B, 3, h, w]; `kept` None = of all P patches.

    Raises:
        Mt2stError: as `patches_of`.
    """
    side = round(patches_of(visual, image_size, images.shape[-1]) ** 0.5)
    changed = {}
    if side != visual.grid_size[0]:
        changed["positional_embedding"] = resized(visual.positional_embedding, side)
    own = visual.patch_dropout
    if kept is not None:
        visual.patch_dropout = ChosenPatches(kept)
    try:
        embedding, tokens = torch.func.functional_call(visual, changed, (images,))
    finally:
        visual.patch_dropout = own
    return embedding, tokens


def resized(positions: Tensor, side: int) -> Tensor:
    """Position embeddings [1 + P, D] of a class token and a square grid → [1 + side², D], bilinear, antialiased."""
    grid = round((positions.shape[0] - 1) ** 0.5)
    planes = positions[1:].T.reshape(1, -1, grid, grid)  # [1, D, √P, √P]
    fewer = functional.interpolate(planes.float(), size=(side, side), mode="bilinear", antialias=True)
    return torch.cat([positions[:1], fewer.flatten(2)[0].T.to(positions.dtype)])

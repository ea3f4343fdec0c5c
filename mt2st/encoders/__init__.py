"""Encoders: an image tower and a text tower behind one protocol, `Towers`.

`VisionLanguageEncoder` puts a fusion on top. A new pair of towers is one new file here; it inherits nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from mt2st.batch import pick


class TowerOutput(NamedTuple):
    """What a tower makes of a batch (shape legend in `mt2st.batch`)."""

    tokens: Tensor  # [B, P or T, D]
    embedding: Tensor  # [B, E], not normalised

    def at(self, positions: Tensor) -> Tensor:
        """The tokens [B, M, D] at `positions` [B, M] int64."""
        return pick(self.tokens, positions)


def text_reader(towers: Any) -> str:
    """The method of towers that reads texts: "read_text", which computes what is read of its output, or "encode_text".

    The second is in the protocol; the first is an offer.
    """
    return "read_text" if hasattr(towers, "read_text") else "encode_text"


@runtime_checkable
class Towers(Protocol):
    """An image tower and a text tower with a common embedding space; an `nn.Module`.

    Attributes:
        image_size: height and width of the images it takes, in pixels.
        image_width, text_width: width D of image and text tokens.
        embedding_width: E.
        context_length: T, to which texts are padded and cut.
        vocabulary_size: V, mask token included.
        pad_id, mask_id: ids of the padding and the mask token.
        frame_ids: ids that frame every text, such as start and end; nothing is learned by predicting them.
    """

    image_size: int
    image_width: int
    text_width: int
    embedding_width: int
    context_length: int
    vocabulary_size: int
    pad_id: int
    mask_id: int
    frame_ids: tuple[int, ...]

    @property
    def logit_scale(self) -> Tensor:
        """Learned log-temperature of contrastive objectives (scalar parameter), in the log domain."""

    def encode_image(self, pixels: Tensor) -> TowerOutput:
        """Encode [B, 3, H, W] uint8 RGB pixels; the tower normalises them as its weights expect."""

    def encode_text(self, tokens: Tensor) -> TowerOutput:
        """Encode [B, T] int64 token ids."""

    def tokenize(self, texts: list[str]) -> Tensor:
        """Texts → [N, context_length] int64 on the CPU, padded with `pad_id`."""

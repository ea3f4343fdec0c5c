"""Towers by one word.

    small
    open_clip:NAME[:PRETRAINED[:weights-only]]
    hf:NAME_OR_FOLDER[+TEXT_NAME_OR_FOLDER]
"""

from __future__ import annotations

from typing import Any

from mt2st.encoders.open_clip_towers import WEIGHTS_ONLY, SmallConfig, named_towers, small_towers
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.errors import Mt2stError, unknown_name

FAMILIES = ("small", "open_clip:NAME[:PRETRAINED[:weights-only]]", "hf:NAME_OR_FOLDER[+TEXT_NAME_OR_FOLDER]")


def make_towers(
    spec: str, *, small: SmallConfig | None = None, tokenizer: TextTokenizer | None = None, sigmoid: bool = False
) -> Any:
    """Towers from their specification.

        make_towers("small", tokenizer=TextTokenizer.train(texts, 400))
        make_towers("open_clip:ViT-B-32:laion2b_s34b_b79k")
        make_towers("open_clip:ViT-B-32:weights/mine.safetensors")
        make_towers("open_clip:ViT-B-32:weights/mine.pt:weights-only")  # not safetensors: torch.load, weights_only=True
        make_towers("hf:google/siglip-base-patch16-224")
        make_towers("hf:facebook/dinov2-small+google-bert/bert-base-uncased")

    Args:
        spec: one of `FAMILIES`.
        small: size of `small` towers; others have their own.
        tokenizer: tokenizer of `small` towers, trained on the training texts; others bring their own.
        sigmoid: start `small` towers for the sigmoid loss.

    Returns:
        An `nn.Module` that is a `Towers`; its `tokenize` is the one its weights expect.

    Raises:
        Mt2stError: unknown family or name, weights that are missing, or not safetensors without the ending
            `:weights-only`, `small` without a tokenizer.
    """
    family, _, rest = spec.partition(":")
    if family == "small" and not rest:
        if tokenizer is None:
            raise Mt2stError("small towers need a tokenizer; train one on the training texts with TextTokenizer.train")
        return small_towers(small or SmallConfig(), tokenizer, sigmoid=sigmoid)
    if family == "open_clip" and rest:
        name, _, pretrained = rest.removesuffix(f":{WEIGHTS_ONLY}").partition(":")
        return named_towers(name, pretrained or None, weights_only=rest.endswith(f":{WEIGHTS_ONLY}"))
    if family == "hf" and rest:
        from mt2st.encoders.hugging_face import hugging_face_towers

        name, _, text = rest.partition("+")
        return hugging_face_towers(name, text=text or None)
    if family in ("small", "open_clip", "hf"):
        form = next(known for known in FAMILIES if known.startswith(family))
        raise Mt2stError(f"towers {spec!r} are not of the form {form!r}; for example {_EXAMPLES[family]!r}")
    raise unknown_name("towers", family, ("small", "open_clip", "hf"), f"Write {' or '.join(FAMILIES)}.")


_EXAMPLES = {
    "small": "small",
    "open_clip": "open_clip:ViT-B-32:laion2b_s34b_b79k",
    "hf": "hf:openai/clip-vit-base-patch32",
}

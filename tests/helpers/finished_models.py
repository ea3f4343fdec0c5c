"""Small models with random weights, written as true checkpoints, and sets of drawn photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.speed.checkpoints import write_checkpoint, write_llava

MODEL: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
WORDS = ("red", "green", "small", "large", "dog", "house", "tree", "boat", "sky", "old", "near", "two")


def open_clip_checkpoint(folder: Path, seed: int = 0) -> Path:
    """A random open_clip model in its own local format. Returns the folder."""
    write_checkpoint(folder, MODEL, seed)
    return folder


def photo(number: int) -> Image.Image:
    """A photo-like picture, no square; the same one for the same number."""
    random = np.random.default_rng(number)
    low = random.integers(0, 256, (5, 4, 3), dtype=np.uint8)
    size = (40 + int(random.integers(40)), 40 + int(random.integers(40)))
    return Image.fromarray(low).resize(size, Image.Resampling.BICUBIC)


def captions_of(number: int) -> list[str]:
    """One to three captions of a photo, of different lengths."""
    random = np.random.default_rng(1000 + number)
    return [
        f"a {' '.join(random.choice(WORDS, 2 + int(random.integers(6))))} number {number}"
        for _ in range(1 + int(random.integers(3)))
    ]


def photo_files(folder: Path, count: int) -> list[Path]:
    """PNG files of the first `count` photos."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        photo(number).save(path)
    return paths


def captioned_photos(folder: Path, count: int, name: str = "photos") -> Path:
    """An adapter file for `count` photos with captions, in a split `test`."""
    photo_files(folder / "photos", count)
    return _adapter(
        folder / f"{name}.py",
        f"""
        from pathlib import Path
        from mt2st.data.card import DatasetCard, Example
        from tests.helpers.finished_models import captions_of

        CARD = DatasetCard(
            name="{name}", title="Photos", task="retrieval", source="drawn by the tests", revision="1",
            licence="CC0-1.0", splits={{"test": {count}}}, main_metric="hit_rate@1",
        )

        def examples(split):
            for number in range({count}):
                path = Path({str(folder)!r}, "photos", f"{{number}}.png")
                yield Example(image=path, image_id=str(number), captions=tuple(captions_of(number)))
        """,
    )


def labelled_photos(folder: Path, train: int, test: int, classes: int, name: str = "classes") -> Path:
    """An adapter file for photos with labels c0, c1, …, in splits `train` and `test`."""
    photo_files(folder / "photos", train + test)
    return _adapter(
        folder / f"{name}.py",
        f"""
        from pathlib import Path
        from mt2st.data.card import DatasetCard, Example

        CARD = DatasetCard(
            name="{name}", title="Classes", task="classification", source="drawn by the tests", revision="1",
            licence="CC0-1.0", splits={{"train": {train}, "test": {test}}}, main_metric="accuracy",
        )

        def examples(split):
            first, count = (0, {train}) if split == "train" else ({train}, {test})
            for number in range(first, first + count):
                path = Path({str(folder)!r}, "photos", f"{{number}}.png")
                yield Example(image=path, image_id=str(number), label=f"c{{number % {classes}}}")
        """,
    )


def _adapter(path: Path, text: str) -> Path:
    import textwrap

    path.write_text(textwrap.dedent(text))
    return path


def clip_checkpoint(folder: Path, seed: int = 0) -> Path:
    """A random CLIP model of transformers with tokenizer and image processor, as `save_pretrained` writes them."""
    import transformers

    letters = sorted({letter for word in (*WORDS, "anumberphotf?c0123456789.") for letter in word})
    pieces = ["!", *letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: at for at, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {name: getattr(tokenizer, name) for name in ("eos_token_id", "bos_token_id", "pad_token_id")}
    text = {**sizes, "vocab_size": len(tokenizer), "max_position_embeddings": 77, **ids}
    vision = {**sizes, "image_size": 32, "patch_size": 8}
    torch.manual_seed(seed)
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    return folder


def llava_checkpoint(folder: Path, *, chat_template: bool = True) -> Path:
    """A random generative model that knows the words of the drawn questions. Returns the folder."""
    asked = ("user", "answer", ":", "?", "it", "is", "what", "colour", "which", "shape", "square", "bar", "blue")
    write_llava(folder, (*WORDS, *asked), chat_template=chat_template)
    return folder

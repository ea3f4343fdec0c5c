"""The unimodal encoders, objectives and cases, each in small: what the contract sweeps run over.

A new one is one entry here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.cases.shared.encoder_knobs import VitKnobs
from benchmarks.cases.shared.suite_knobs import SuiteKnobs
from mt2st.encoders.denoiser import Denoiser, DenoiserConfig
from mt2st.encoders.image_transformer import ImageConfig, ImageEncoder
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.encoders.text_transformer import TextConfig, TextEncoder
from mt2st.encoders.words import BagEncoder, WordVocabulary
from mt2st.objectives.alignment import AlignmentObjective
from mt2st.objectives.classification import ClassificationObjective
from mt2st.objectives.clean_image import CleanImageObjective
from mt2st.objectives.denoising import DenoisingObjective
from mt2st.objectives.gloss_lemma import GlossLemmaObjective
from mt2st.objectives.hypernym import HypernymObjective
from mt2st.objectives.masked_patches import MaskedPatchObjective
from mt2st.objectives.masked_tokens import MaskedTokenObjective
from mt2st.objectives.rotation import RotationObjective
from mt2st.objectives.same_class import SameClassObjective
from mt2st.objectives.skip_gram import SkipGramObjective
from mt2st.objectives.two_views import TwoViewObjective


class Trial(NamedTuple):
    """An objective with an encoder and a batch it can learn from."""

    encoder: Any
    objective: nn.Module
    batch: dict[str, Tensor]


def _pictures(count: int = 8) -> dict[str, Tensor]:
    """Pictures whose upper half is as bright as their class says."""
    label = torch.arange(count) % 4
    pixels = torch.randint(0, 30, (count, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    pixels[:, :, :4] += (50 * label)[:, None, None, None].to(torch.uint8)
    return {"pixels": pixels, "label": label}


def tiny_vit() -> ImageEncoder:
    torch.manual_seed(0)
    return ImageEncoder.small(ImageConfig(image_size=8, patch_size=2, width=16, layers=1, heads=2))


GLOSSES = [
    "a small grey animal",
    "a large grey stone",
    "to walk with a large stone",
    "to sleep like a small animal",
] * 2
LEMMAS = ["mouse", "rock", "carry", "doze"] * 2
ABOVE = ["animal", "stone", "walk", "sleep"] * 2


def _glosses(tokenize: Callable[[list[str], int], Tensor]) -> dict[str, Tensor]:
    group = torch.arange(8) % 4
    return {
        "tokens": tokenize(GLOSSES, 10),
        "label": group,
        "lemma_tokens": tokenize(LEMMAS, 4),
        "lemma_group": group,
        "hypernym_tokens": tokenize(ABOVE, 4),
        "hypernym_group": group,
    }


def tiny_bag() -> tuple[BagEncoder, WordVocabulary]:
    vocabulary = WordVocabulary.build([*GLOSSES, *LEMMAS], 100, at_least=1)
    torch.manual_seed(0)
    return BagEncoder(len(vocabulary), word_width=16, width=24), vocabulary


def tiny_bert() -> TextEncoder:
    torch.manual_seed(0)
    tokenizer = TextTokenizer.train([*GLOSSES, *LEMMAS], 280)
    return TextEncoder.small(TextConfig(width=16, layers=1, heads=2, context_length=10), tokenizer)


def tiny_denoiser() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(DenoiserConfig(image_size=8, fold=1, widths=(8, 16), classes=4))


def _bag(objective: Callable[[WordVocabulary], nn.Module]) -> Trial:
    encoder, vocabulary = tiny_bag()
    return Trial(encoder, objective(vocabulary), _glosses(vocabulary.encode))


def _bert(objective: Callable[[TextEncoder], nn.Module]) -> Trial:
    encoder = tiny_bert()
    return Trial(encoder, objective(encoder), _glosses(encoder.tokenize))


TRIALS: dict[str, Callable[[], Trial]] = {
    "class": lambda: Trial(tiny_vit(), ClassificationObjective(16, 4), _pictures()),
    "same_class": lambda: Trial(tiny_vit(), SameClassObjective(16), _pictures() | {"same": torch.tensor([1, 0, 0, 1])}),
    "masked_patches": lambda: Trial(tiny_vit(), MaskedPatchObjective(16, 2), _pictures()),
    "rotation": lambda: Trial(tiny_vit(), RotationObjective(16), _pictures()),
    "two_views": lambda: Trial(tiny_vit(), TwoViewObjective(16), _pictures()),
    "bag-class": lambda: _bag(lambda words: ClassificationObjective(24, 4, name="bag-class")),
    "skip_gram": lambda: _bag(lambda words: SkipGramObjective(words.counts, 16)),
    "gloss_lemma": lambda: _bag(lambda words: GlossLemmaObjective(24, 16)),
    "hypernym": lambda: _bag(lambda words: HypernymObjective()),
    "bert-class": lambda: _bert(lambda bert: ClassificationObjective(16, 4, name="bert-class")),
    "masked_lm": lambda: _bert(
        lambda bert: MaskedTokenObjective(16, bert.vocabulary_size, bert.mask_id, frame_ids=bert.frame_ids)
    ),
    "matching": lambda: _bert(lambda bert: GlossLemmaObjective(16, 16, both_ways=True, name="matching")),
    "bert-hypernym": lambda: _bert(lambda bert: HypernymObjective(name="bert-hypernym")),
    "denoising": lambda: Trial(tiny_denoiser(), DenoisingObjective(), _pictures()),
    "bottleneck-class": lambda: Trial(
        tiny_denoiser(), ClassificationObjective(16, 4, name="bottleneck-class"), _pictures()
    ),
    "clean_image": lambda: Trial(tiny_denoiser(), CleanImageObjective(16), _pictures()),
    "alignment": lambda: Trial(tiny_denoiser(), AlignmentObjective(16, tiny_vit()), _pictures()),
}
ENCODER_FILES = {"denoiser", "image_transformer", "text_transformer", "words"}


def objective_files() -> set[str]:
    """Files of `mt2st/objectives/` that the trials sweep."""
    return {type(trial().objective).__module__.rpartition(".")[2] for trial in TRIALS.values()}


# -- cases -------------------------------------------------------------------------------------------------------------


def _image(folder: Path) -> SuiteKnobs:
    recipe = import_module("benchmarks.cases.image.knobs")
    vit = VitKnobs(patch_size=2, width=16, layers=1, heads=2)
    return recipe.Knobs(images_per_batch=8, auxiliary_images_per_batch=8, encoder=vit)


def _image_pairs(folder: Path) -> SuiteKnobs:
    return replace(_image(folder), question="same_class", auxiliaries=("class", "rotation"), labelled_pairs=40)


def mini_wordnet(folder: Path, synsets: int = 60) -> Path:
    """A few invented synsets in the published wndb format, four supersenses.

    A gloss's words depend on its supersense.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {"noun": ("n", (5, 20)), "verb": ("v", (38,)), "adj": ("a", (0,)), "adv": ("r", (2,))}
    for name, (kind, files) in kinds.items():
        lines = ["  1 Invented for tests.\n"]
        for at in range(synsets):
            lex_file = files[at % len(files)]
            pointers = f"001 @ {at - 2:08d} {kind} 0000" if at > 1 and kind in "nv" else "000"
            words = f"02 w{kind}{at % 9}_{lex_file} 0 other{at} 0"
            gloss = f"{name} number {at % 7} of sort{lex_file} and n{at}"
            lines.append(f'{at:08d} {lex_file:02d} {kind} {words} {pointers} | {gloss}; "an example"  \n')
        (folder / f"data.{name}").write_text("".join(lines), encoding="utf-8")
    return folder


def _glosses_of(folder: Path) -> dict[str, Any]:
    return {"source": str(mini_wordnet(folder / "wordnet")), "glosses_per_batch": 8, "auxiliary_glosses_per_batch": 8,
            "label_fraction": 0.5, "validation_fraction": 0.1}  # fmt: skip


def _representation(folder: Path) -> SuiteKnobs:
    pairs = folder / "pairs"
    pairs.mkdir()
    (pairs / "mini.txt").write_text(
        "noun verb 1.0\nnoun number 7.5\nverb number 3.0\nnoun zebra 2.0\n", encoding="utf-8"
    )
    recipe = import_module("benchmarks.cases.representation.knobs")
    return recipe.Knobs(word_width=16, width=16, word_similarity=str(pairs), **_glosses_of(folder))


def _text(folder: Path) -> SuiteKnobs:
    recipe = import_module("benchmarks.cases.text.knobs")
    bert = recipe.BertKnobs(width=16, layers=1, heads=2, context_length=12)
    return recipe.Knobs(encoder=bert, vocabulary_size=300, mask_rate=0.3, **_glosses_of(folder))


def _pairs_of_glosses(knobs: SuiteKnobs, *auxiliaries: str) -> SuiteKnobs:
    return replace(knobs, question="same_class", labelled_pairs=40, auxiliaries=auxiliaries)


def _diffusion(folder: Path) -> SuiteKnobs:
    recipe = import_module("benchmarks.cases.diffusion.knobs")
    return recipe.Knobs(
        data="digits", image_size=8, images_per_batch=4, auxiliary_images_per_batch=4,
        encoder=recipe.UNetKnobs(1, (8, 16)), classifier=VitKnobs(patch_size=2, width=16, layers=1, heads=2),
        classifier_steps=4, test_images=12, samples=12, sampling_steps=2,
    )  # fmt: skip


def _diffusion_few(folder: Path) -> SuiteKnobs:
    recipe = import_module("benchmarks.cases.diffusion.knobs")
    grey = recipe.UNetKnobs(1, (8, 16), channels=1)
    return replace(_diffusion(folder), label_fraction=0.05, auxiliaries=("unconditional", "clean_image"), encoder=grey)


CASES: dict[str, Callable[[Path], SuiteKnobs]] = {
    "image": _image,
    "image/same_class": _image_pairs,
    "representation": _representation,
    "representation/same_class": lambda folder: _pairs_of_glosses(
        _representation(folder), "supersense", "gloss_lemma", "skip_gram", "hypernym"
    ),
    "text": _text,
    "text/same_class": lambda folder: _pairs_of_glosses(_text(folder), "supersense", "matching", "masked_lm"),
    "diffusion": _diffusion,
    "diffusion/few": _diffusion_few,
}

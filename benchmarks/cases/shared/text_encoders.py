"""Pretrained text encoders of the gloss cases, and the floor that their frozen embeddings give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.cases import Loadable
from benchmarks.cases.shared.encoder_knobs import TextTowerKnobs
from benchmarks.cases.shared.frozen_towers import FrozenTowers
from mt2st.encoders.frozen_outputs import Texts
from mt2st.encoders.installed import resolved
from mt2st.encoders.text_transformer import TextEncoder
from mt2st.errors import unknown_name
from mt2st.trained.texts import TOKENIZER_FILE, WORDS_FILE

_LEMMAS, _HYPERNYMS = "lemma_tokens", "hypernym_tokens"
_READ = {"matching": (_LEMMAS,), "gloss_lemma": (_LEMMAS,), "hypernym": (_LEMMAS, _HYPERNYMS)}
FLOOR = "logistic regression on frozen embeddings"
_AT_ONCE = 256


def pretrained_text_encoder(knobs: TextTowerKnobs, own: str, seed: int) -> TextEncoder:
    """The checkpoint that `knobs.model` names, with a new hidden layer where the knobs want one.

    Args:
        own: the case's other model, for the error.

    Raises:
        Mt2stError: neither `own` nor a checkpoint, or one that cannot be loaded.
    """
    torch.manual_seed(seed)
    spec = resolved(knobs.model)
    if not spec.startswith("hf:"):
        hint = "Or pip:PACKAGE or hf:NAME_OR_FOLDER of a bidirectional checkpoint."
        raise unknown_name("model", knobs.model, (own,), hint)
    return TextEncoder.pretrained(spec.removeprefix("hf:"), knobs.context_length, hidden_width=knobs.hidden_width)


def loadable_texts(
    knobs: TextTowerKnobs,
    own: Mapping[str, Any],
    *,
    context_length: int,
    question: str,
    classes: Sequence[str],
    head: str,
) -> Loadable:
    """How `mt2st.load` makes the trained model again.

    Args:
        own: what builds the case's own encoder, as in `mt2st.trained.texts`; {} where a checkpoint is taken.
        head: name of the primary task.
    """
    build = {"question": question, "classes": list(classes), "head": head, "context_length": context_length}
    if own:
        return Loadable("text", {**build, **own}, (TOKENIZER_FILE, WORDS_FILE))
    build |= {"hidden_width": knobs.hidden_width, **knobs.lora_build}
    return Loadable("text", build, checkpoint=knobs.model)


def given_texts(auxiliaries: Sequence[str], glosses: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """The token ids of all that an encoder is given as it stands, masks aside.

    Args:
        glosses: of training, validation and test; and further texts.
        tensors: of the auxiliary batch, by name; those that no auxiliary reads are left out.
    """
    read = {name for auxiliary in auxiliaries for name in _READ.get(auxiliary, ())}
    return [*glosses, *(tensors[name] for name in sorted(read))]


def frozen_floor(
    knobs: TextTowerKnobs,
    encoder: TextEncoder,
    question: Any,
    parts: Sequence[Tensor],
    *,
    texts: Sequence[Tensor],
    folder: Path,
) -> dict[str, dict[str, float]]:
    """Logistic regression on what the checkpoint as it came makes of the glosses; kept as a frozen tower's outputs.

    Args:
        encoder: fresh, as loaded; it is frozen.
        question: that of the case, which says of which glosses it wants vectors, and grades the regression.
        parts: token ids [N, T] of training, validation and test.
        texts: all that the runs give a tower that is frozen whole; it shares their outputs.
    """
    encoder.requires_grad_(False).eval()
    asked = [tokens[torch.from_numpy(rows)] for tokens, rows in zip(parts, question.asked_rows, strict=True)]
    given = texts if "text" in knobs.freeze else asked
    dtype = "float32" if knobs.cache_frozen == "off" else knobs.cache_frozen
    inputs = {"text": lambda: Texts(given, encoder.pad_id)}
    FrozenTowers(encoder.parts(), inputs, folder, False, dtype).run_once(lambda line: None)
    vectors = [np.zeros((len(tokens), encoder.token_width), np.float32) for tokens in asked]
    for tokens, found in zip(asked, vectors, strict=True):
        for start in range(0, len(tokens), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            found[some] = encoder.encode_text(tokens[some]).embedding.numpy()
    return {FLOOR: question.regression(vectors)}

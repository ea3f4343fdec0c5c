"""A frozen tower is run once: its outputs are kept in the data folder, and all runs that use it share them."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from mt2st.encoders.fine_tuning import Part
from mt2st.encoders.frozen_outputs import MANIFEST, FrozenOutputs, Inputs, keep_outputs, use_outputs, weights_hash
from mt2st.errors import Mt2stError
from mt2st.files import PARTIAL_SUFFIX, content_hash
from mt2st.flops import count_flops

FOLDER = "frozen"  # in the data folder
_LIBRARIES = ("torch", "transformers", "open_clip_torch")


@dataclass(frozen=True)
class FrozenTowers:
    """The parts of an encoder that are frozen whole, and what they will be given.

    Attributes:
        parts: name → part.
        inputs: name of the part → what it will be given; made when it is asked for.
        folder: where outputs are kept.
        tokens: also keep token states; False = only embeddings are asked for.
        dtype: of what is kept.
    """

    parts: Mapping[str, Part]
    inputs: Mapping[str, Callable[[], Inputs]]
    folder: Path
    tokens: bool
    dtype: Any

    def run_once(self, announce: Callable[[str], None]) -> list[dict[str, Any]]:
        """See `benchmarks.cases.Tuning`.

        Returns:
            Of each pass: part, key, items, flops, seconds, bytes, dtype.

        Raises:
            Mt2stError: the disk has no room, or the folder is damaged.
        """
        return [self._once(name, self.parts[name], self.inputs[name](), announce) for name in sorted(self.parts)]

    def _once(self, name: str, part: Part, inputs: Inputs, announce: Callable[[str], None]) -> dict[str, Any]:
        device = next(part.module.parameters()).device.type
        identity = {
            "part": name,
            "weights": weights_hash(part),
            "inputs": inputs.content_hash,
            "tokens": self.tokens,
            "dtype": self.dtype,
            "versions": {library: importlib.metadata.version(library) for library in _LIBRARIES},
            "device": device,
            "threads": torch.get_num_threads() if device == "cpu" else 0,
        }
        key = content_hash(identity)
        place = self.folder / FOLDER / f"{name}-{key[:16]}"
        if not (place / MANIFEST).is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            # One process at a time; the system drops the lock with its owner.
            with FileLock(place.with_name(f".{place.name}.lock"), fallback_to_soft=False):
                for leftover in place.parent.glob(f".{place.name}.*{PARTIAL_SUFFIX}"):  # of a killed process
                    shutil.rmtree(leftover)
                if not (place / MANIFEST).is_file():
                    keep_outputs(
                        *(place, part, inputs),
                        count=count_flops,
                        tokens=self.tokens,
                        dtype=self.dtype,
                        facts=identity,
                        announce=lambda line: announce(f"frozen {name} tower: {line}"),
                    )
        outputs = FrozenOutputs(place)
        if any(outputs.facts.get(fact) != value for fact, value in identity.items()):
            raise Mt2stError(f"{place} holds outputs of another tower or of other data; delete that folder")
        use_outputs(part, outputs)
        return {"part": name, "key": key} | {
            fact: outputs.facts[fact] for fact in ("items", "flops", "seconds", "bytes", "dtype")
        }

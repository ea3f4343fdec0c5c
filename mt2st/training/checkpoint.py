"""Checkpoints: a folder a step, safetensors and sealed JSON, whole or not there.

`step-00000120/` holds `model.safetensors`, `optimizer.safetensors` and `state.json`; the last is sealed and names the
SHA-256 of the others, so a torn or flipped bit anywhere is noticed. Where the best weights so far are kept, they lie in
`best.safetensors`. A folder is written aside and renamed when
whole; older ones are deleted only after the new one has been read back. A moving average of the weights lies in
`average.safetensors`.
"""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn

from mt2st.errors import Mt2stError
from mt2st.files import PARTIAL_SUFFIX, file_hash, read_sealed_json, sync_file, sync_folder, write_sealed_json

_FOLDER = re.compile(r"step-(\d{8})")
_FILES = ("model.safetensors", "optimizer.safetensors")
_FURTHER = ("best", "average")  # what a run may keep besides, each in a file of its own
_CURE = "delete that checkpoint folder; the run then resumes from the one before, or from the start"


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    *,
    further: Mapping[str, Mapping[str, torch.Tensor]] | None = None,
    keep: int = 2,
) -> Path:
    """Write the checkpoint of `step` under `folder`, verify it, and delete all but the last `keep`.

    Args:
        folder: the run's folder of checkpoints.
        step: optimiser steps done.
        state: JSON values kept beside the tensors.
        further: "best" or "average" → tensors of the best weights so far, or of a moving average.

    Returns:
        The folder of the checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{step:08d}"
    partial = folder / f".{final.name}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}"
    partial.mkdir()
    try:
        save_model(model, str(partial / _FILES[0]))
        save_file(_optimizer_tensors(optimizer), partial / _FILES[1])
        files = list(_FILES)
        for kept, tensors in (further or {}).items():
            if tensors:
                files.append(_file_of(kept))
                save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, partial / files[-1])
        for name in files:
            sync_file(partial / name)
        hashes = {name: file_hash(partial / name) for name in files}
        write_sealed_json(partial / "state.json", {**state, "step": step, "files": hashes})
        if final.exists():  # a damaged one of the same step, or the same step saved twice
            shutil.rmtree(final)
        partial.rename(final)
        sync_folder(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _read_state(final)
    # A newer one is damaged, or the run would have gone on from there: it does not count among those that are kept.
    for old in [other for other in _folders(folder) if other.name <= final.name][keep:]:
        shutil.rmtree(old)
    for leftover in folder.glob(f".step-*{PARTIAL_SUFFIX}"):
        shutil.rmtree(leftover, ignore_errors=True)
    return final


def newest_checkpoint(
    folder: Path, report: Callable[[str], None] = lambda message: None
) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole checkpoint and its state, or None; damaged ones are named through `report` and passed over."""
    for candidate in _folders(folder):
        try:
            return candidate, _read_state(candidate)
        except Mt2stError as error:
            report(f"checkpoint passed over: {error}")
    return None


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Load a checkpoint into `model` and `optimizer`; returns its state.

    Raises:
        Mt2stError: a file is missing, torn or foreign, or belongs to another model.
    """
    state = _read_state(path)
    _load_weights(path / _FILES[0], model)
    try:
        tensors = load_file(path / _FILES[1])
    except SafetensorError as error:  # its checksum agrees, so it is no torn file but another one
        raise Mt2stError(f"{path / _FILES[1]} is no safetensors file ({error}); {_CURE}") from None
    _load_optimizer(optimizer, tensors, path / _FILES[1])
    return state


def load_further(path: Path, kept: str) -> dict[str, torch.Tensor]:
    """The tensors "best" or "average" of a checkpoint whose state `newest_checkpoint` has checked; {} without them."""
    file = path / _file_of(kept)
    return load_file(file) if file.exists() else {}


def _file_of(kept: str) -> str:
    return f"{kept}.safetensors"


def load_weights(path: Path, model: nn.Module) -> None:
    """Load only the model's weights from a checkpoint folder.

    Raises:
        Mt2stError: as `load_checkpoint`.
    """
    _read_state(path)
    _load_weights(path / _FILES[0], model)


def _load_weights(path: Path, model: nn.Module) -> None:
    try:
        load_model(model, str(path))
    except (RuntimeError, SafetensorError) as error:
        raise Mt2stError(
            f"{path} does not fit this model ({str(error).splitlines()[0]}); use the run's own configuration"
        ) from None


def _folders(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    if not folder.is_dir():
        return []
    return sorted((item for item in folder.iterdir() if item.is_dir() and _FOLDER.fullmatch(item.name)), reverse=True)


def _read_state(path: Path) -> dict[str, Any]:
    state = read_sealed_json(path / "state.json", _CURE)
    files = state.get("files")
    if not isinstance(files, dict) or set(files) - set(map(_file_of, _FURTHER)) != set(_FILES):
        raise Mt2stError(f"{path / 'state.json'} names no files of a checkpoint; {_CURE}")
    for name, digest in files.items():
        if not (path / name).is_file():
            raise Mt2stError(f"{path / name} is missing; {_CURE}")
        if file_hash(path / name) != digest:
            raise Mt2stError(f"{path / name} does not match its checksum, so it is torn or edited; {_CURE}")
    return state


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Per-parameter state tensors, named by the parameter's position and the state's name."""
    tensors = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            tensor = value if isinstance(value, torch.Tensor) else torch.tensor(float(value))
            tensors[f"{index}.{name}"] = tensor.detach().cpu().contiguous().clone()
    return tensors


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], path: Path) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        if not index.isdecimal() or int(index) >= len(parameters):
            raise Mt2stError(
                f"{path} has state {key!r} but the optimiser only {len(parameters)} parameters; use the run's own "
                "configuration"
            )
        parameter = parameters[int(index)]
        if name != "step" and tensor.shape != parameter.shape:
            raise Mt2stError(
                f"{path} has {key!r} of shape {tuple(tensor.shape)}, the parameter has {tuple(parameter.shape)}; wrong "
                "model"
            )
        states.setdefault(int(index), {})[name] = tensor.to(parameter.device)
    groups, start = [], 0
    for group in optimizer.param_groups:
        numbers = list(range(start, start + len(group["params"])))
        groups.append({**group, "params": numbers})
        start += len(numbers)
    optimizer.load_state_dict({"state": states, "param_groups": groups})

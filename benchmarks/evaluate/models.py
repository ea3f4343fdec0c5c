"""Models by one word, what identifies them before they are loaded, and where their files are looked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HUB_CACHE

from benchmarks.evaluate.dual import CONFIG, hugging_face_model, open_clip_folder, open_clip_model, run_model
from benchmarks.evaluate.generative import GenerativeModel, generative_model, is_generative
from benchmarks.evaluate.model import DualModel
from mt2st.encoders.hugging_face import DUAL_MODELS, load_pretrained
from mt2st.errors import Mt2stError
from mt2st.files import file_hash

FAMILIES = "open_clip:NAME:TAG, open_clip:FOLDER, hf:NAME_OR_FOLDER, or the folder of a run"


def load_model(spec: str) -> DualModel | GenerativeModel:
    """The model that `spec` names, on the CPU, in float32 and evaluation mode.

    Raises:
        Mt2stError: unknown form; files that are missing, foreign or not safetensors; a model that brings its own code,
            or has no text tower; no access to the Hub.
    """
    family, _, rest = spec.partition(":")
    if family == "open_clip" and rest:
        if Path(rest).is_dir():
            return open_clip_folder(Path(rest))
        name, _, tag = rest.partition(":")
        return _from_hub(lambda: open_clip_model(name, tag), spec, _open_clip_repository(name, tag))
    if family == "hf" and rest:
        if "+" in rest and not Path(rest).is_dir():
            raise Mt2stError(
                f"{spec!r} is a pair, whose projections nobody has trained; train it in a case and give the run's "
                "folder"
            )
        return _from_hub(lambda: _hugging_face(rest), spec, "" if Path(rest).is_dir() else rest)
    if (Path(spec) / "config.json").is_file():
        return run_model(Path(spec))
    if Path(spec).is_dir():
        kind = "open_clip" if (Path(spec) / CONFIG).is_file() else "hf"
        raise Mt2stError(f"{spec} is no run's folder; if it holds a checkpoint, write {kind}:{spec}")
    raise Mt2stError(f"unknown model {spec!r}; write {FAMILIES}")


def fingerprint(spec: str) -> dict[str, str]:
    """What tells whether a model is still the same, without loading it: its name, or SHA-256 of its local files."""
    path = Path(spec.partition(":")[2] if spec.startswith(("open_clip:", "hf:")) else spec)
    if not path.is_dir():
        return {"name": spec}
    files = [*path.glob("*.json"), *path.glob("*.safetensors"), *path.glob("checkpoints/*/state.json")]
    return {str(file.relative_to(path)): file_hash(file) for file in sorted(files) if file.name != "run.json"}


def _hugging_face(name: str) -> DualModel | GenerativeModel:
    import transformers

    kind = load_pretrained(transformers.AutoConfig, name, None).model_type
    if is_generative(kind):
        return generative_model(name)
    if kind not in DUAL_MODELS:
        raise Mt2stError(
            f"hf:{name} is a {kind} model without a text tower in the same space, so there is nothing to compare "
            "texts with; give a CLIP or SigLIP model, or one for image-text-to-text"
        )
    return hugging_face_model(name)


def _open_clip_repository(name: str, tag: str) -> str:
    """The Hub's name of where open_clip has the weights; "" where it has them elsewhere, or for a file."""
    import open_clip

    return str((open_clip.get_pretrained_cfg(name, tag) or {}).get("hf_hub", "")).rstrip("/")


def _from_hub(load: Any, spec: str, repository: str) -> Any:
    """`load()`; where the files of a Hub name are not here and cannot be fetched, an error that says how to bring them.

    An error in files that are here stays as it is.
    """
    try:
        return load()
    except Mt2stError:
        here = Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "snapshots"
        if not repository or repository.count("/") != 1 or here.is_dir():
            raise
        family = spec.partition(":")[0]
        raise Mt2stError(
            f"{spec}: the files of {repository} are not in {HF_HUB_CACHE} and the Hub cannot be reached (or has no "
            f"such model); where there is a network, run hf download {repository} --local-dir FOLDER, bring FOLDER "
            f"here, and give {family}:FOLDER"
        ) from None

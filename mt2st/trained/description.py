"""`model.json`: how the model of a run is built, and which of the run's files belong to it.

    {"format": 1, "kind": "vision-language", "build": {...}, "files": {"weights.safetensors": "<sha256>", ...},
     "about": {"run_id": ..., "benchmark": ..., "strategy": ..., "seed": ...}}

It is sealed with its own checksum and written last, so a folder that has it is whole. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mt2st.errors import Mt2stError, unknown_name
from mt2st.files import content_hash, file_hash, read_sealed_json, write_sealed_json

MODEL_FILE = "model.json"
FORMAT = 1
TOWERS_FOLDER = "towers"
"""folder of what `mt2st.encoders.architecture` wrote"""
KINDS = {"vision-language": "vision_language", "image": "images", "text": "texts", "diffusion": "diffusion"}
"""kind → the module of `mt2st.trained` that restores it"""
_CURE = "copy the run's folder anew from where it was trained"


@dataclass(frozen=True)
class Description:
    """What `model.json` says.

    Attributes:
        folder: where it was found.
        kind: a key of `KINDS`.
        build: the kind's own settings, plain values.
        files: file in the folder → its SHA-256 (hex); all of them were compared.
        weights: the file of weights.
        about: run id, benchmark, strategy, seed and the like, for people.
    """

    folder: Path
    kind: str
    build: Mapping[str, Any]
    files: Mapping[str, str]
    weights: str
    about: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that decides the model's numbers."""
        return content_hash([self.kind, dict(self.build), dict(self.files)])

    def path(self, name: str) -> Path:
        """A file of the model.

        Raises:
            Mt2stError: the model has no file of that name.
        """
        if name not in self.files:
            raise Mt2stError(f"{self.folder / MODEL_FILE} lists no {name}; {_CURE}")
        return self.folder / name


def towers_folder(description: Description) -> Path | None:
    """Where the files are that pretrained towers are built from; None = there are none.

    Raises:
        Mt2stError: a file lies there that `model.json` does not list.
    """
    folder = description.folder / TOWERS_FOLDER
    if not any(name.startswith(f"{TOWERS_FOLDER}/") for name in description.files):
        return None
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(description.folder).as_posix()
        if path.is_file() and name not in description.files:
            raise Mt2stError(f"{path} is no file of this model: {MODEL_FILE} does not list it; take it away")
    return folder


def write_description(
    folder: Path,
    kind: str,
    build: Mapping[str, Any],
    *,
    weights: str,
    files: Iterable[str] = (),
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write `model.json` for files that are in `folder` already.

    Args:
        weights: the file of weights, relative to `folder`.
        files: the other files of the model, relative to `folder`.
    """
    if kind not in KINDS:
        raise unknown_name("kind of model", kind, KINDS)
    hashes = {name: file_hash(folder / name) for name in sorted({weights, *files})}
    write_sealed_json(
        folder / MODEL_FILE,
        {
            "format": FORMAT,
            "kind": kind,
            "build": dict(build),
            "weights": weights,
            "files": hashes,
            "about": dict(about or {}),
        },
    )


def read_description(folder: Path) -> Description:
    """Read `model.json` and compare every file that it lists with its hash.

    Raises:
        Mt2stError: it is missing, altered, of a later version or of an unknown kind, or a file of the model is missing,
            altered or outside the folder.
    """
    path = folder / MODEL_FILE
    if not folder.is_dir():
        raise Mt2stError(f"{folder} is no folder; give that of a finished run, results/<benchmark>/<recipe>/<run_id>")
    if not path.is_file():
        raise Mt2stError(f"{folder} has no {MODEL_FILE}: {_why_none(folder)}")
    values = read_sealed_json(path, _CURE)
    found = values.get("format")
    if found != FORMAT:
        raise Mt2stError(f"{path} is of format {found!r}, this version reads {FORMAT}; use the version that wrote it")
    kind, build, files, weights = (values.get(name) for name in ("kind", "build", "files", "weights"))
    about = values.get("about")
    if not isinstance(kind, str) or kind not in KINDS:
        raise unknown_name(f"kind of model in {path}", str(kind), KINDS, "A later version may know it.")
    if not (isinstance(build, dict) and isinstance(files, dict) and weights in files and isinstance(about, dict)):
        raise Mt2stError(f"{path} describes no model; {_CURE}")
    for name, digest in files.items():
        _check_file(folder, name, digest)
    return Description(folder, kind, build, files, str(weights), about)


def _check_file(folder: Path, name: str, digest: object) -> None:
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or "\\" in name:
        raise Mt2stError(f"{folder / MODEL_FILE} names {name!r}, which is outside the folder; {_CURE}")
    path = folder / place
    if not path.is_file():
        raise Mt2stError(f"{path} is missing though {MODEL_FILE} lists it; {_CURE}")
    if file_hash(path) != digest:
        raise Mt2stError(f"{path} does not match its checksum, so it is torn or altered; {_CURE}")


def _why_none(folder: Path) -> str:
    if (folder / "run.json").is_file() and (folder / "checkpoints").is_dir():
        return (
            "the run kept its checkpoints (--keep checkpoints), of which no model can be loaded; repeat the suite's "
            "command in a new results folder, with --keep weights"
        )
    if (folder / "run.json").is_file():
        return (
            "the run kept no weights, or an older version made it; repeat the suite's command in a new results folder, "
            "with --keep weights"
        )
    if (folder / "config.json").is_file():
        return f"the run is not finished; python -m benchmarks resume {folder} goes on with it"
    return "it is no run's folder; give results/<benchmark>/<recipe>/<run_id>"

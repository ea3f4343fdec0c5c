"""What a whole record looks like: files, fields and their kinds. Every reader checks a record before it uses one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mt2st.errors import Mt2stError
from mt2st.files import file_hash

SCHEMA_VERSION = 1  # the one of version 0.1: fields were added since, none changed its meaning
CONFIG_FILE, RECORD_FILE, ITEMS_FILE, LOG_FILE = "config.json", "run.json", "items.safetensors", "metrics.jsonl"
CHECKPOINTS = "checkpoints"  # the folder that the trainer writes to
IDENTITY = ("run_id", "benchmark", "recipe", "strategy", "view", "seed", "config", "config_hash", "suite_hash")
LEFT_IN = "training_images_also_in_test"  # in a record's data, where --on-leak allow left some in
FINISHED_NEEDS = ("views", "started_utc", "steps", "flops", "metrics", "curve")
RECORD_CURE = "run the same command again: it sets the damaged file aside and repeats what is missing"

_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("run_id", "strategy", "view", "status", "why", "config_hash", "suite_hash", "started_utc"), str),
    **dict.fromkeys(
        ("config", "items", "flops", "metrics", "floors", "group_names", "hardware", "versions", "phases_seconds"), dict
    ),
    **dict.fromkeys(("views", "curve"), list),
    **dict.fromkeys(("seed", "steps"), int),
}


def verify_record(folder: Path, value: Mapping[str, Any]) -> None:
    """Check a record against its folder: schema, place, kinds of its fields, and the hash of its items file.

    A seal only says that nobody tore the file; it does not say that this code wrote it. What the report computes with
    is therefore checked for its kind as well.

    Raises:
        Mt2stError: one line that names the file and the cure.
    """
    path = folder / RECORD_FILE
    verify_values(path, value)
    if value["run_id"] != folder.name:
        raise Mt2stError(
            f"{path} belongs to run {value['run_id']!r}, not to this folder; undo the move or delete the copy"
        )
    if value["items"]:
        _verify_items(folder, value["items"])


def verify_values(path: Path, value: Mapping[str, Any]) -> None:
    """Check a record by itself: schema, fields and their kinds. `path` is the file that messages name.

    Raises:
        Mt2stError: one line that names the file and the cure.
    """
    if value.get("schema_version") != SCHEMA_VERSION:
        found = repr(value.get("schema_version"))[:60]
        raise Mt2stError(f"{path} has schema {found}, this code reads {SCHEMA_VERSION}; repeat the run")
    finished = value.get("status") == "finished"
    if missing := [
        name
        for name in (*IDENTITY, "status", "why", "items", "views", *(FINISHED_NEEDS if finished else ()))
        if name not in value
    ]:
        raise Mt2stError(f"{path} lacks {', '.join(missing)}; {RECORD_CURE}")
    for name in _wrong_kinds(value, finished):
        raise Mt2stError(f"{path}: {name} is not of the kind that it must be; {RECORD_CURE}")
    if value["items"]:
        _verify_listing(path, value["items"])


def _wrong_kinds(value: Mapping[str, Any], finished: bool) -> list[str]:
    wrong = [name for name, kinds in _KINDS.items() if name in value and not isinstance(value[name], kinds)]
    if wrong:
        return wrong
    wrong += [f"views[{index}]" for index, view in enumerate(value["views"]) if not isinstance(view, str)]
    wrong += ["flops.total"] if finished and not _number(value["flops"].get("total")) else []
    for field in ("metrics", "floors"):
        for name, numbers in value.get(field, {}).items():
            if not isinstance(numbers, dict) or not all(
                number is None or _number(number) for number in numbers.values()
            ):
                wrong.append(f"{field}.{name}")
    for index, entry in enumerate(value.get("curve", [])):
        if not isinstance(entry, dict) or not all(_number(entry.get(name, 0)) for name in ("step", "flops", "seconds")):
            wrong.append(f"curve[{index}]")
    wrong += [
        f"group_names.{name}" for name, names in value.get("group_names", {}).items() if not isinstance(names, list)
    ]
    return wrong


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _verify_listing(path: Path, listing: Mapping[str, Any]) -> None:
    if listing.get("file") != ITEMS_FILE or not isinstance(listing.get("arrays"), dict):
        raise Mt2stError(
            f"{path} names {listing.get('file')!r} as its items file instead of {ITEMS_FILE}; {RECORD_CURE}"
        )
    for name, described in listing["arrays"].items():
        if (
            not isinstance(described, dict)
            or not isinstance(described.get("shape"), list)
            or not isinstance(described.get("dtype"), str)
        ):
            raise Mt2stError(f"{path}: items.arrays.{name} is no shape and type; {RECORD_CURE}")


def _verify_items(folder: Path, listing: Mapping[str, Any]) -> None:
    items = folder / ITEMS_FILE
    if not items.exists():
        raise Mt2stError(f"{items} is missing though {RECORD_FILE} lists it; {RECORD_CURE}")
    if file_hash(items) != listing.get("sha256"):
        raise Mt2stError(
            f"{items} does not match the checksum in {RECORD_FILE}, so it is torn or altered; {RECORD_CURE}"
        )

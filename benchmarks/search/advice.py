"""What a run comes to: the fastest setting for a recall and a size, as a command to copy."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from benchmarks.search.options import Options
from benchmarks.search.report import cheapest, index_bytes, seconds_a_query

# Options that say what is searched; the others say how it is measured.
_OF_THE_DATA = (
    "data", "queries", "truth", "metric", "tensor", "direction", "distribution", "items", "width",
    "num_queries", "seed",
)  # fmt: skip


def target(rows: list[dict[str, Any]], options: Options, source: str) -> dict[str, Any]:
    """The fastest and the smallest setting that reach the recall within the size, and how to have the fastest again."""
    most = options.memory_mb * 1e6 or math.inf
    fastest = cheapest(rows, options.target_recall, seconds_a_query, most)
    smallest = cheapest(rows, options.target_recall, index_bytes, most)
    return {
        "recall": options.target_recall,
        "memory_mb": options.memory_mb,
        "fastest": fastest["label"] if fastest else None,
        "fastest_queries_per_second": fastest["cost"]["batch_queries_per_second"] if fastest else None,
        "fastest_bytes": fastest["cost"]["index_bytes"] if fastest else None,
        "smallest": smallest["label"] if smallest else None,
        "smallest_bytes": smallest["cost"]["index_bytes"] if smallest else None,
        "setting": setting_of(fastest) if fastest else None,
        "command": command_of(fastest, options, source) if fastest else None,
    }


def setting_of(row: Mapping[str, Any]) -> str:
    """The spec of a row with its search-time knob, as `create_index` and `--settings` take it."""
    knob = row["knob"]
    if not knob:
        return str(row["spec"])
    return f"{row['spec']}{'&' if '?' in row['spec'] else '?'}{knob}={row['parameters'][knob]}"


def command_of(row: Mapping[str, Any], options: Options, source: str) -> str:
    """The command that measures this setting alone on the same data."""
    words = ["python", "-m", "benchmarks", "index", *_words(options, source, _OF_THE_DATA)]
    setting = setting_of(row)
    if row["dimensions"]:
        setting += f"{'&' if '?' in setting else '?'}dimensions={row['dimensions']}"
    return shlex.join([*words, "--settings", setting])


def arguments(options: Options, source: str) -> str:
    """All options that differ from the defaults, as the command takes them."""
    return shlex.join(_words(options, source, tuple(field.name for field in fields(options))))


def _words(options: Options, source: str, names: tuple[str, ...]) -> list[str]:
    default, words = Options(), ["--data", source]
    for name in names:
        value = getattr(options, name)
        if name in ("data", "smoke", "results") or value == getattr(default, name):
            continue
        words.append(f"--{name.replace('_', '-')}")
        if not isinstance(value, bool):
            words += map(str, value) if isinstance(value, tuple) else [str(value)]
    return words


def sentence(found: Mapping[str, Any]) -> str:
    """What a run comes to, in words."""
    size = f" and at most {found['memory_mb']:g} MB" if found["memory_mb"] else ""
    if found["fastest"] is None:
        within = f" within {found['memory_mb']:g} MB" if size else ""
        return f"No setting reaches a recall of {found['recall']:.0%}{within}."
    return (
        f"Cheapest with a recall of at least {found['recall']:.0%}{size}: {found['fastest']} in time "
        f"({found['fastest_queries_per_second']:,.0f} queries/s), {found['smallest']} in size "
        f"({found['smallest_bytes'] / 1e6:.1f} MB)."
    )

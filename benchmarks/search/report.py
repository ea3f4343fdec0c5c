"""The search benchmark's table and picture, from records alone."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.report.statistics import pareto_front
from benchmarks.report.style import FRONT_COLOUR, LOOKS
from benchmarks.report.text_table import NOTHING, TextTable
from mt2st.files import atomic_path

Row = Mapping[str, Any]
_KNOB = re.compile(r" (nprobe|ef_search|k_factor)=\d+$")


def recall_key(rows: Sequence[Row]) -> str:
    """The id of the set recall in these rows, such as "ann_recall@10"."""
    return next(key for key in rows[0]["quality"] if key.startswith("ann_recall@"))


def pareto(rows: Sequence[Row], cost: Callable[[Row], float]) -> list[int]:
    """Places of the rows that no other beats in recall at the same cost or less; cheapest first."""
    key = recall_key(rows)
    return pareto_front([(cost(row), row["quality"][key]) for row in rows])


def seconds_a_query(row: Row) -> float:
    """Time a query takes in batches."""
    return 1 / float(row["cost"]["batch_queries_per_second"])


def index_bytes(row: Row) -> float:
    """Size of the index."""
    return float(row["cost"]["index_bytes"])


def cheapest(
    rows: Sequence[Row], target: float, cost: Callable[[Row], float], most_bytes: float = math.inf
) -> Row | None:
    """The row of least cost whose recall reaches `target` within so many bytes of index; None where none does."""
    key = recall_key(rows)
    reaching = [row for row in rows if row["quality"][key] >= target and index_bytes(row) <= most_bytes]
    return min(reaching, key=cost) if reaching else None


def search_table(record: Mapping[str, Any]) -> TextTable:
    """One line a setting: quality, speed, cost."""
    rows = record["settings"]
    key = recall_key(rows)
    k = key.partition("@")[2]
    hits = [name for name in rows[0]["quality"] if name.startswith("hit_rate@")]
    gpu = any(row["cost"]["gpu_bytes"] for row in rows)
    head = [
        "setting",
        f"recall@{k} %",
        "tolerant %",
        *([f"hits@{'/'.join(name.partition('@')[2] for name in hits)} %"] if hits else []),
    ]
    head += ["batch q/s", "single q/s", "p50 ms", "p95 ms", "p99 ms", "build s", "index MB", "peak MB"]
    head += ["GPU MB"] if gpu else []
    body = []
    for row in rows:
        quality, cost = row["quality"], row["cost"]
        cells = [row["label"], f"{100 * quality[key]:.1f}", f"{100 * quality[f'ann_recall_tolerant@{k}']:.1f}"]
        cells += ["/".join(f"{100 * quality[name]:.1f}" for name in hits)] if hits else []
        cells += [f"{cost['batch_queries_per_second']:,.0f}", f"{cost['single_queries_per_second']:,.0f}"]
        cells += [f"{1e3 * cost[f'single_p{part}_seconds']:.3f}" for part in (50, 95, 99)]
        cells += [
            f"{cost['build_seconds']:.2f}",
            f"{cost['index_bytes'] / 1e6:.1f}",
            f"{cost['peak_above_start_bytes'] / 1e6:.0f}",
        ]
        cells += [f"{cost['gpu_bytes'] / 1e6:.0f}"] if gpu else []
        body.append(tuple(cells))
    body += [(f"{hole['spec']}: {hole['why']}", *[NOTHING] * (len(head) - 1)) for hole in record["holes"]]
    data, protocol = record["data"], record["protocol"]
    caption = (
        f"{data['items']:,} items × {data['width']}, {data['queries']:,} queries, {protocol['threads_used']} threads, "
        f"{protocol['repetitions']} repetitions; tolerant: similarity ≥ exact {k}-th − {protocol['tolerance']:g}; "
        "hits: the task's hit rate through the index; p50 to p99: queries one at a time; peak: resident memory above "
        "that before building"
    )
    return TextTable(f"Search: {record['name']}", tuple(head), tuple(body), caption, 4 + bool(hits))


def more_tables(record: Mapping[str, Any]) -> list[TextTable]:
    """Loads, cold starts, filters and updates, of what was measured."""
    rows, k = record["settings"], recall_key(record["settings"]).partition("@")[2]
    body: dict[str, list[tuple[str, ...]]] = {"loads": [], "cold": [], "filters": [], "updates": []}
    for row in rows:
        label, more = row["label"], row.get("more", {})
        for load in row.get("loads", ()):
            counts = (f"{load[name]:.0f}" for name in ("batch", "threads", "clients", "calls"))
            times = (f"{1e3 * load[f'p{part}_seconds']:.3f}" for part in (50, 95, 99))
            body["loads"].append((label, *counts, f"{load['queries_per_second']:,.0f}", *times))
        if "cold" in more:
            cold = more["cold"]
            times = (f"{1e3 * cold[name]:.2f}" for name in ("first_query_seconds", "warm_query_seconds"))
            body["cold"].append((label, f"{cold['disk_bytes'] / 1e6:.1f}", f"{cold['load_seconds']:.3f}", *times))
        for each in more.get("filters", ()):
            cells = (f"{100 * each['share']:g}", f"{100 * each[f'ann_recall@{k}']:.1f}")
            speed = (f"{each['batch_queries_per_second']:,.0f}", f"{1e3 * each['single_p50_seconds']:.3f}")
            body["filters"].append((label, *cells, *speed))
        if "updates" in more:
            told = more["updates"]
            recalls = (f"{100 * told[f'ann_recall_tolerant@{k}_{when}']:.1f}" for when in ("before", "after"))
            speeds = (f"{told[f'batch_queries_per_second_{when}']:,.0f}" for when in ("before", "after"))
            seconds = (f"{told[f'{name}_seconds']:.3f}" for name in ("remove", "insert", "searchable"))
            body["updates"].append((label, *recalls, *speeds, *seconds))
        for name, why in more.get("holes", {}).items():
            width = len(_HEADS[name]) - 2
            body[name].append((label, f"not measured: {why}", *[NOTHING] * width))
    return [TextTable(_TITLES[name], _HEADS[name], tuple(lines), _ABOUT[name]) for name, lines in body.items() if lines]


_TITLES = {
    "loads": "Loads: queries a call, threads, clients at once",
    "cold": "Cold start: the saved index in a new process",
    "filters": "Filters: only a share of the items is allowed",
    "updates": "Updates: a tenth of the items removed and inserted again",
}
_HEADS: dict[str, tuple[str, ...]] = {
    "loads": ("setting", "batch", "threads", "clients", "calls", "q/s", "p50 ms", "p95 ms", "p99 ms"),
    "cold": ("setting", "disk MB", "load s", "first query ms", "warm query ms"),
    "filters": ("setting", "allowed %", "recall among them %", "batch q/s", "single p50 ms"),
    "updates": (
        "setting", "tolerant recall before %", "after %", "batch q/s before", "after", "remove s", "insert s",
        "searchable after s",
    ),
}  # fmt: skip
_ABOUT = {
    "loads": "p50 to p99: of whole calls; clients send single queries and wait for each answer",
    "cold": "the files were put out of the system's cache, as far as it obeys",
    "filters": "the items allowed are drawn at random; recall is against exact search among them",
    "updates": "the content stays the same, so recall before and after compare",
}


def family(row: Row) -> str:
    """The label without its search-time knob."""
    return _KNOB.sub("", str(row["label"]))


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Recall against queries a second, and against bytes; the Pareto front of each as a line."""
    rows = record["settings"]
    key = recall_key(rows)
    styles = dict(zip(dict.fromkeys(map(family, rows)), cycle(LOOKS)))
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    panels = (
        ("queries a second in batches (log)", lambda row: row["cost"]["batch_queries_per_second"], seconds_a_query),
        ("index size in MB (log)", lambda row: row["cost"]["index_bytes"] / 1e6, index_bytes),
    )
    for axes, (title, value, cost) in zip(figure.subplots(1, 2), panels):
        for name, (colour, marker) in styles.items():
            mine = [row for row in rows if family(row) == name]
            points = ([row["quality"][key] for row in mine], [value(row) for row in mine])
            axes.plot(*points, color=colour, marker=marker, ms=5, lw=0.8, alpha=0.85, label=name)
        front = [rows[place] for place in pareto(rows, cost)]
        axes.plot(
            [row["quality"][key] for row in front],
            [value(row) for row in front],
            color=FRONT_COLOUR,
            lw=4,
            alpha=0.35,
            zorder=0,
            label="Pareto",
        )
        axes.set_yscale("log")
        axes.set_xlabel(f"{key} (share of the exact top {key.partition('@')[2]})")
        axes.set_ylabel(title)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(fontsize=8, frameon=False, loc="best")
    data = record["data"]
    figure.suptitle(
        f"Search: {record['name']}, {data['items']:,} items × {data['width']}", x=0.01, ha="left", fontsize=12
    )
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=150)

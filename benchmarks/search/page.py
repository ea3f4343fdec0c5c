"""The search benchmark's page: recall against speed and size, to zoom and sort, from the record alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.records.machine import describe
from benchmarks.report.chart import Chart, Mark, Series
from benchmarks.report.page import Page
from benchmarks.report.style import FRONT_COLOUR, LOOKS
from benchmarks.search.advice import sentence
from benchmarks.search.report import (
    Row,
    family,
    index_bytes,
    more_tables,
    pareto,
    recall_key,
    search_table,
    seconds_a_query,
)

_FRONT = "Pareto front"


def search_page(record: Mapping[str, Any]) -> Page:
    """Charts, tables and the advice of one record."""
    rows, found = record["settings"], record["target"]
    key = recall_key(rows)
    charts = (
        _chart(rows, "Recall against speed in batches", "queries a second", lambda row: 1 / seconds_a_query(row)),
        _chart(rows, "Recall against speed one at a time", "queries a second", _single),
        _chart(rows, "Recall against size", "index MB", lambda row: index_bytes(row) / 1e6, cheap=True),
    )
    data, protocol = record["data"], record["protocol"]
    reproduce = [("The same measurements again", "python -m benchmarks index " + record["arguments"])]
    if found["command"]:
        reproduce.insert(0, ("The fastest setting that reaches the recall, alone", found["command"]))
        reproduce.insert(1, ("In your own program", f"index = mt2st.index.create_index({found['setting']!r})"))
    return Page(
        tables=(search_table(record), *more_tables(record)),
        remarks=tuple(f"{hole['spec']}: {hole['why']}" for hole in record["holes"]),
        metrics=(
            f"{key}: share of the exact top {key.partition('@')[2]} that is found, as sets, mean over queries",
            "tolerant: share of results at least as similar as the exact last one, less ε = "
            f"{protocol['tolerance']:g}; ties cost nothing",
            "ann-benchmarks' recall: the same in its distances, with ε = 0.001",
        ),
        provenance={
            "machine": describe(record["hardware"]),
            "data": ", ".join(f"{name}: {value}" for name, value in data.items()),
            "started": str(record["started_utc"]),
        },
        finding=sentence(found),
        title="Search",
        name=record["name"],
        origin=f"{data['items']:,} items × {data['width']} by {data['metric']}, {data['queries']:,} queries",
        charts=charts,
        charts_title="Recall against cost",
        reproduce=tuple(reproduce),
    )


def _single(row: Row) -> float:
    return float(row["cost"]["single_queries_per_second"])


def _chart(rows: list[Row], title: str, x_label: str, value: Callable[[Row], float], cheap: bool = False) -> Chart:
    """Each kind of index as a line, and the Pareto front of all; `cheap`: less is better."""
    key = recall_key(rows)
    series = []
    for place, name in enumerate(dict.fromkeys(map(family, rows))):
        look = LOOKS[place % len(LOOKS)]
        mine = sorted((row for row in rows if family(row) == name), key=value)
        marks = tuple(_mark(row, key, value, x_label) for row in mine)
        series.append(Series(name, look.colour, look.marker, marks, (tuple((mark.x, mark.y) for mark in marks),)))
    front = [rows[place] for place in pareto(rows, value if cheap else lambda row: 1 / value(row))]
    line = tuple(sorted((value(row), 100 * row["quality"][key]) for row in front))
    series.append(Series(_FRONT, FRONT_COLOUR, "o", lines=(line,)))
    return Chart(title, f"{x_label} (log)", f"{key} %", tuple(series), log_x=True)


def _mark(row: Row, key: str, value: Callable[[Row], float], x_label: str) -> Mark:
    recall, x = 100 * row["quality"][key], value(row)
    text = f"{row['label']}: {recall:.1f} % at {x:,.4g} {x_label}"
    return Mark(x, recall, math.nan, math.nan, text)

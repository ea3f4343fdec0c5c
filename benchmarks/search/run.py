"""`python -m benchmarks index`: how well and how fast an embedding set can be searched, exactly and approximately.

    python -m benchmarks index                   the newest retrieval run under results/ (else generated vectors)
    python -m benchmarks index --data my.npy --target-recall 0.95
    python -m benchmarks index --data generated --items 100000 --width 128
    python -m benchmarks index --settings "faiss_cpu:IVF256,Flat?nprobe=1,8,64" exact

Recall and speed alone (`--parts` with nothing behind it) take about a minute for 20,000 × 64 generated vectors on 2
cores, 15 s with --smoke; loads, cold starts, filters and updates take several times as long. Nothing is trained.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.numpy import save

from benchmarks.records.folder import slug
from benchmarks.records.machine import describe, environment
from benchmarks.records.metrics_log import plain
from benchmarks.report.html import write_html
from benchmarks.report.text_table import print_tables, to_markdown
from benchmarks.search.advice import arguments, sentence, target
from benchmarks.search.changes import exact_index
from benchmarks.search.data import GENERATED, SearchData, generate, load, newest_run
from benchmarks.search.field_results import write_field_results
from benchmarks.search.measure import RAW, Protocol, measure
from benchmarks.search.options import Options
from benchmarks.search.page import search_page
from benchmarks.search.plans import Plan, announced, default_plans, parse_plan, with_options
from benchmarks.search.quality import exact_truth
from benchmarks.search.report import draw, more_tables, search_table
from mt2st.errors import Mt2stError
from mt2st.files import content_hash, new_folder, write_bytes, write_sealed_json, write_text
from mt2st.index import SWEEPS
from mt2st.threads import usable_threads


def run(options: Options) -> int:
    """Measure, record, print. Returns 0, or 1 if a setting could not be measured (the others are).

    Raises:
        Mt2stError: the data cannot be searched, or no setting could be measured.
    """
    console = Console()
    options = options.small() if options.smoke else options
    data = _data(options, console)
    if options.k > len(data.gallery):
        raise Mt2stError(
            f"k = {options.k} is more than the {len(data.gallery)} items of {data.name}; give --k {len(data.gallery)} "
            "or less"
        )
    threads = options.threads or usable_threads()
    protocol = Protocol(
        options.k,
        options.repetitions,
        options.single_queries,
        options.tolerance,
        threads,
        options.seconds,
        tuple(part for part in options.parts if part not in SWEEPS),
        options.seed,
    )
    plans = [parse_plan(text) for text in options.settings] or default_plans(
        len(data.gallery),
        data.gallery.shape[1],
        torch.cuda.is_available(),
        lambda name: find_spec(name) is not None,
        ("effort", *(part for part in options.parts if part in SWEEPS)),
    )
    plans = [with_options(plan, options.options) for plan in plans]
    record = _begun(options, data, protocol)
    folder = new_folder(
        options.results / "index" / slug(data.name),
        f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{content_hash(record['config'])[:8]}",
    )
    console.print(
        f"{data.name}: {len(data.gallery):,} × {data.gallery.shape[1]}, {describe(record['hardware'])}",
        highlight=False,
    )
    _measure_all(plans, data, protocol, record, folder, console, options)
    record["status"] = "finished"
    source = data.origin.get("file", GENERATED)
    record["target"] = target(record["settings"], options, source)
    write_sealed_json(folder / "run.json", record)
    tables, said = [search_table(record), *more_tables(record)], sentence(record["target"])
    write_text(folder / "TABLE.md", "\n".join([*map(to_markdown, tables), f"{said}\n"]))
    draw(record, folder / "pareto.png")
    write_html(search_page(record), [], folder / "index.html")
    print_tables(tables, console)
    command = record["target"]["command"]
    console.print(
        f"{said}\n{f'again: {command}' if command else ''}\npage: {folder / 'index.html'}\nrecords: {folder}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return 1 if record["holes"] else 0


def _data(options: Options, console: Console) -> SearchData:
    source = options.data
    if not source:
        try:
            source = str(newest_run(options.results))
            console.print(f"data: {source} (the newest retrieval run)", markup=False, highlight=False)
        except Mt2stError:
            source = GENERATED
            console.print(
                f"data: generated, for no retrieval run is under {options.results}", markup=False, highlight=False
            )
    if source == GENERATED:
        given = (options.distribution, options.items, options.width, options.num_queries, options.seed, options.metric)
        return generate(*given)
    return load(
        source,
        options.queries,
        options.tensor,
        options.direction,
        options.num_queries,
        options.seed,
        options.results,
        metric=options.metric,
        truth=options.truth,
    )


def _begun(options: Options, data: SearchData, protocol: Protocol) -> dict[str, Any]:
    """The record before anything is measured."""
    return {
        **environment(),
        "schema_version": 1,
        "benchmark": "index",
        "name": data.name,
        "status": "interrupted",
        "started_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "config": plain(asdict(options), "options"),
        "arguments": arguments(options, data.origin.get("file", GENERATED)),
        "data": {
            **data.origin,
            "content_hash": data.content_hash(),
            "items": len(data.gallery),
            "width": data.gallery.shape[1],
            "metric": data.metric,
            "queries": len(data.queries),
            "known_pairs": len(data.asking),
        },
        "protocol": {**asdict(protocol), "threads_used": protocol.threads},
        "settings": [],
        "holes": [],
    }


def _measure_all(
    plans: list[Plan],
    data: SearchData,
    protocol: Protocol,
    record: dict[str, Any],
    folder: Path,
    console: Console,
    options: Options,
) -> None:
    """Measure every plan, and write the record and the raw repetitions after each."""
    exact = exact_index(data)
    truth = exact_truth(data, protocol.k, exact)
    raw: dict[str, Any] = {}
    for place, plan in enumerate(plans, start=1):
        try:
            console.print(f"[{place}/{len(plans)}] {announced(plan.spec)}", markup=False, highlight=False)
            for measured in measure(plan, data, truth, protocol, exact, folder):
                number = len(record["settings"])
                row = {name: value for name, value in vars(measured).items() if name not in RAW}
                row |= {"knob": plan.knob, "dimensions": plan.dimensions}
                raw[f"{number}/batch_seconds"] = measured.batch_seconds
                raw[f"{number}/single_seconds"] = measured.single_seconds
                for place, seconds in enumerate(measured.load_seconds):
                    raw[f"{number}/load/{place}"] = seconds
                record["settings"].append(row)
                if options.ann_benchmarks:
                    found = (measured.ids, measured.similarities, measured.batch_seconds)
                    write_field_results(folder / "ann-benchmarks", data, row, *found)
        except Mt2stError as error:
            record["holes"].append({"spec": plan.spec, "why": str(error)})
            console.print(f"    not measured: {error}", markup=False, highlight=False)
        write_bytes(folder / "repetitions.safetensors", save(raw))
        write_sealed_json(folder / "run.json", record)
    if not record["settings"]:
        raise Mt2stError(
            f"none of the {len(plans)} settings could be measured; the reasons are in {folder / 'run.json'}"
        )

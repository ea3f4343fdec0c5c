"""`python -m benchmarks index`: how well and how fast an embedding set can be searched, exactly and approximately.

    python -m benchmarks index              the newest retrieval run under results/, else generated vectors
    python -m benchmarks index --data my.npy --target-recall 0.95
    python -m benchmarks index --data generated --items 100000 --width 128
    python -m benchmarks index --settings "faiss_cpu:IVF256,Flat?nprobe=1,8,64" exact

Takes about a minute for 20,000 × 64 generated vectors on 2 cores, 15 s with --smoke. Nothing is trained.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

COMMAND = "python -m benchmarks index"


@dataclass(frozen=True)
class Options:
    """Search an embedding set with every index there is: recall, the task's hit rate, queries a second, tail latency,
    bytes.
    """

    data: str = ""
    """run folder, .npy or .safetensors file, or "generated".

    "" = the newest retrieval run, generated vectors if there is none
    """
    queries: str = ""
    """file of queries for a single matrix; "" = take rows out of the gallery"""
    tensor: str = ""
    """which tensor of a .safetensors file with several"""
    direction: str = "text_to_image"
    """for image and text embeddings: text_to_image or image_to_text"""
    distribution: str = "clustered"
    """of generated vectors: clustered, gaussian or uniform"""
    items: int = 20_000
    """generated vectors"""
    width: int = 64
    """width of generated vectors"""
    num_queries: int = 1_000
    """queries: generated, or taken out of a single matrix"""
    settings: tuple[str, ...] = ()
    """backend[:factory][?knob=value,value…] to measure; none = a sweep over all that is installed"""
    k: int = 10
    """results a query, 1 up to the number of items"""
    repetitions: int = 5
    """times that everything is timed, at least 1; all are stored"""
    single_queries: int = 100
    """queries sent one at a time in each repetition"""
    tolerance: float = 1e-4
    """ε of the tolerant recall, in cosine similarity; 0 = only as good as the exact k-th counts"""
    target_recall: float = 0.95
    """name the cheapest setting that reaches this recall, 0 to 1"""
    threads: int = 0
    """processor threads for search; 0 = as many as the process may use"""
    seed: int = 0
    """of generated vectors and of the choice of queries"""
    smoke: bool = False
    """a small set, few repetitions: for a first look"""
    results: Path = Path("results")
    """folder for the records"""


def main(argv: list[str]) -> int:
    """Entry point. Returns 0, or 1 if a setting could not be measured (the others are)."""
    from benchmarks.options import parse_dataclass

    return run(parse_dataclass(Options(), argv, prog=COMMAND, description=str(Options.__doc__)))


def run(options: Options) -> int:
    """Measure, record, print."""
    from rich.console import Console

    from benchmarks.records.folder import slug
    from benchmarks.records.machine import describe, environment
    from benchmarks.report.text_table import to_markdown, to_rich
    from benchmarks.search.measure import Protocol, announced, default_plans, exact_truth, measure, parse_plan
    from benchmarks.search.report import draw, search_table
    from mt2st.errors import Mt2stError
    from mt2st.files import content_hash, write_bytes, write_sealed_json, write_text

    console = Console()
    options = _smoke(options) if options.smoke else options
    _check(options)
    data = _data(options, console)
    threads = _use_threads(options.threads)
    plans = [parse_plan(text) for text in options.settings]
    plans = plans or default_plans(len(data.gallery), data.gallery.shape[1], _gpu(), _installed)
    if options.k > len(data.gallery):
        raise Mt2stError(
            f"k = {options.k} is more than the {len(data.gallery)} items of {data.name}; give --k {len(data.gallery)} "
            "or less"
        )
    protocol = Protocol(options.k, options.repetitions, options.single_queries, options.tolerance, threads)
    config = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}
    started = datetime.now(timezone.utc)
    folder = new_folder(
        options.results / "index" / slug(data.name), f"{started:%Y%m%dT%H%M%S}-{content_hash(config)[:8]}"
    )
    surroundings = environment()
    record: dict[str, Any] = {
        **surroundings,
        "schema_version": 1,
        "benchmark": "index",
        "name": data.name,
        "status": "interrupted",
        "started_utc": started.isoformat(timespec="seconds"),
        "config": config,
        "data": {
            **data.origin,
            "content_hash": data.content_hash(),
            "items": len(data.gallery),
            "width": data.gallery.shape[1],
            "queries": len(data.queries),
            "known_pairs": len(data.asking),
        },
        "protocol": {**asdict(protocol), "threads_used": threads},
        "settings": [],
        "holes": [],
    }
    console.print(
        f"{data.name}: {len(data.gallery):,} × {data.gallery.shape[1]}, {describe(surroundings['hardware'])}",
        highlight=False,
    )
    truth = exact_truth(data, options.k)
    raw: dict[str, Any] = {}
    for place, plan in enumerate(plans):
        try:
            console.print(f"[{place + 1}/{len(plans)}] {announced(plan.spec)}", markup=False, highlight=False)
            for measured in measure(plan, data, truth, protocol):
                number = len(record["settings"])
                raw[f"{number}/batch_seconds"], raw[f"{number}/single_seconds"] = (
                    measured.batch_seconds,
                    measured.single_seconds,
                )
                row = {"label": measured.label, "spec": measured.spec, "parameters": measured.parameters}
                record["settings"].append({**row, "quality": measured.quality, "cost": measured.cost})
        except Mt2stError as error:
            record["holes"].append({"spec": plan.spec, "why": str(error)})
            console.print(f"    not measured: {error}", markup=False, highlight=False)
        write_bytes(folder / "repetitions.safetensors", _safetensors(raw))
        write_sealed_json(folder / "run.json", record)
    if not record["settings"]:
        raise Mt2stError(
            f"none of the {len(plans)} settings could be measured; the reasons are in {folder / 'run.json'}"
        )
    record["status"] = "finished"
    record["target"] = _target(record["settings"], options.target_recall)
    write_sealed_json(folder / "run.json", record)
    table = search_table(record)
    write_text(folder / "TABLE.md", to_markdown(table) + f"\n{_sentence(record['target'])}\n")
    draw(record, folder / "pareto.png")
    for part in to_rich(table, console.width):
        console.print(part)
    console.print(
        f"{_sentence(record['target'])}\npicture: {folder / 'pareto.png'}\nrecords: {folder}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return 1 if record["holes"] else 0


def _data(options: Options, console: Any) -> Any:
    from benchmarks.search.data import GENERATED, generate, load, newest_run
    from mt2st.errors import Mt2stError

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
        return generate(options.distribution, options.items, options.width, options.num_queries, options.seed)
    return load(
        source, options.queries, options.tensor, options.direction, options.num_queries, options.seed, options.results
    )


def _smoke(options: Options) -> Options:
    from dataclasses import replace

    return replace(
        options,
        items=min(options.items, 4_000),
        width=min(options.width, 32),
        num_queries=min(options.num_queries, 200),
        repetitions=min(options.repetitions, 3),
        single_queries=min(options.single_queries, 30),
        threads=options.threads
        or 1,  # OpenMP's threads wait for each other actively: on a busy machine that takes far longer
    )


def _check(options: Options) -> None:
    from mt2st.errors import check_range

    for name, high in (("k", 1 << 20), ("repetitions", 10_000), ("single_queries", 1 << 20)):
        check_range(f"--{name.replace('_', '-')}", getattr(options, name), 1, high)
    check_range("--threads", options.threads, 0, 4096, "0 = as many as the process may use")
    check_range("--tolerance", options.tolerance, 0, 2, "cosines differ by 2 at most")
    check_range("--target-recall", options.target_recall, 0, 1, "a share, such as 0.95")


def _use_threads(threads: int) -> int:
    """Threads for everyone: FAISS is told per index, and starts from what OpenMP allows."""
    from mt2st.threads import usable_threads

    return threads or usable_threads()


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def new_folder(parent: Path, name: str) -> Path:
    """A folder that did not exist: two runs never write to one place."""
    parent.mkdir(parents=True, exist_ok=True)
    for number in range(1000):
        folder = parent / (f"{name}-{number}" if number else name)
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"{parent / name} and 999 others exist")


def _safetensors(arrays: dict[str, Any]) -> bytes:
    from safetensors.numpy import save

    return save(arrays)


def _target(rows: list[dict[str, Any]], recall: float) -> dict[str, Any]:
    from benchmarks.search.report import cheapest, index_bytes, seconds_a_query

    fastest, smallest = cheapest(rows, recall, seconds_a_query), cheapest(rows, recall, index_bytes)
    return {
        "recall": recall,
        "fastest": fastest["label"] if fastest else None,
        "fastest_queries_per_second": fastest["cost"]["batch_queries_per_second"] if fastest else None,
        "smallest": smallest["label"] if smallest else None,
        "smallest_bytes": smallest["cost"]["index_bytes"] if smallest else None,
    }


def _sentence(target: dict[str, Any]) -> str:
    if target["fastest"] is None:
        return f"No setting reaches a recall of {target['recall']:.0%}."
    return (
        f"Cheapest with a recall of at least {target['recall']:.0%}: {target['fastest']} in time "
        f"({target['fastest_queries_per_second']:,.0f} queries/s), {target['smallest']} in size "
        f"({target['smallest_bytes'] / 1e6:.1f} MB)."
    )

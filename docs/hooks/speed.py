"""The page on speed, from the records in results/published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median, median_high
from typing import Any


def speed_page(read: Callable[[str], Any]) -> str:
    """Markdown of the page. `read` gives the JSON value of a file of results/published."""
    return "\n".join(
        [
            "# Speed",
            "",
            "Made from the records in results/published. Each heading names the command that repeats the measurement.",
            "",
            *_throughput(read("loop/throughput.json")),
            *_overhead(read("loop/overhead.json")),
            *_data(read("data/data.json")),
            *_trained(read),
            *_peers(read("peers/retrieval.json"), "`python -m benchmarks peers retrieval`"),
            *_peers(read("peers/faiss.json"), "`python -m benchmarks peers retrieval --parts faiss`"),
            *_published_since(read),
        ]
    )


def _published_since(read: Callable[[str], Any]) -> list[str]:
    """Comparisons whose records are all lines with goals; one without a published record is left out."""
    found = []
    for name, title, command in (
        ("peers/training.json", "Training beside open_clip's loop", "peers training --trainers open_clip_train"),
        (
            "peers/training-transformers.json",
            "Training beside transformers' loop",
            "peers training --trainers transformers --parts losses files memory",
        ),
        ("peers/evaluate.json", "Evaluation without training beside CLIP_benchmark", "peers evaluate"),
        ("peers/milvus.json", "Milvus beside its own client", "peers milvus"),
        ("loop/against.json", "The default step beside that of an earlier commit", "step --against CHECKOUT"),
        ("loop/step.json", "Where a step's time goes, and what a switch saves", "step"),
        ("loop/frozen.json", "A frozen tower, run once", "frozen"),
        ("loop/growth.json", "Cost as it grows", "growth"),
        ("gpu/gpu.json", "A GPU beside the CPU", "gpu"),
    ):
        try:
            record = read(name)
        except FileNotFoundError:
            continue
        found += _lines(f"## {title}: `python -m benchmarks {command}`", record)
    return found


def _throughput(record: Any) -> list[str]:
    base = [turn for lever in record["levers"] for turn in lever["base"]]
    peak = max(record["matmul_peak_flops_per_second"].values())
    flops = median(turn["flops_per_second"] for turn in base)
    samples = median(turn["samples_per_second"] for turn in base)
    rows = [
        (lever["lever"], _spread(lever["ratio_to_base"]), f"{median(lever['samples_per_second']):,.0f}")
        for lever in record["levers"]
    ]
    return [
        "## Training throughput: `python -m benchmarks throughput`",
        "",
        f"The default VQA step takes {samples:,.0f} images a second at {flops / 1e9:.1f} GFLOP/s. That is "
        f"{flops / peak:.0%} of the measured matmul peak of {peak / 1e9:.0f} GFLOP/s. Medians, smallest and largest:",
        "",
        *_table(("lever", "ratio to the default step", "images/s"), rows),
        _machine(record),
        "",
    ]


def _overhead(record: Any) -> list[str]:
    return [
        "## Our loop against a bare one: `python -m benchmarks overhead`",
        "",
        f"The training loop takes {record['median_ratio']:.2f} times a hand-written one (median of {record['blocks']} "
        f"blocks). Ledger and schedules take {record['ledger_and_schedule_share']:.2%} of a step.",
        "",
        _machine(record),
        "",
    ]


def _data(record: Any) -> list[str]:
    reading, memory = record["reading"], record["memory"]
    peaks = [
        (f"peak memory, {images:,} images", f"{peak:.0f} MB")
        for images, peak in zip(memory["images"], memory["peak_mb"], strict=True)
    ]
    rows = [
        ("preparing, share of a bare decode loop", f"{record['decoding']['share_of_limit']:.0%}"),
        ("reading, images/s", f"{reading['store_images_per_second']:,.0f}"),
        ("reading, ratio to a DataLoader over image files", f"{reading['ratio_to_data_loader']:.0f}"),
        ("reading, ratio to what training consumes", f"{reading['ratio_to_trainer']:.0f}"),
        *peaks,
    ]
    return [
        "## Preparing and reading data: `python -m benchmarks data`",
        "",
        *_table(("what", "value"), rows),
        _machine(record),
        "",
    ]


def _trained(read: Callable[[str], Any]) -> list[str]:
    try:
        record = read("trained/trained.json")
    except FileNotFoundError:  # not measured yet: a section without numbers says nothing
        return []
    predict, search = record["predict"], record["search"]
    rows = [
        ("`mt2st.load` after `import torch`", f"{median(record['load_seconds']):.2f} s", "< 3 s"),
        ("`answer`, one picture file, one core", f"{1000 * median(record['answer_seconds']):.1f} ms", "< 30 ms"),
        (
            f"`answer_all`, {median(predict['array_answers_per_second']):,.0f} answers/s: share of the suite's own",
            f"{median(predict['share_from_arrays']):.0%}",
            "≥ 80 %",
        ),
        ("the same from picture files", f"{median(predict['share_from_files']):.0%}", "–"),
        (f"a query in {search['pictures']:,} pictures", f"{1000 * median(search['seconds']):.1f} ms", "< 50 ms"),
    ]
    return [
        "## A trained model in use: `python -m benchmarks trained`",
        "",
        *_table(("what", "median", "promised"), rows),
        _machine(record),
        "",
    ]


def _peers(record: Any, command: str) -> list[str]:
    return _lines(f"## Beside its peers: {command}", record)


def _lines(heading: str, record: Any) -> list[str]:
    """A record's lines: what was measured, the goal, whether it was met."""
    rows = []
    for line in record["lines"]:
        met = "–" if line["met"] is None or not line["goal"] else ("yes" if line["met"] else "no")
        rows.append((line["what"], line["value"], line["goal"] or "–", met))
    return [
        heading,
        "",
        *_table(("what", "value", "goal", "met"), rows),
        _machine(record),
        "",
    ]


def _spread(values: Sequence[float]) -> str:
    return f"{median_high(values):.2f} ({min(values):.2f} … {max(values):.2f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows), ""]


def _machine(record: Any) -> str:
    hardware, commit = record["hardware"], record["commit"]
    name = commit["hash"] if isinstance(commit, dict) else commit
    return f"Machine: {hardware['cpu']}, {hardware['threads']} threads. Commit {name[:12]}."

"""`python -m benchmarks peers retrieval`: our evaluation and search beside other people's, in one run on one machine.

1. Evaluation against CLIP_benchmark 1.6.2 on the same embeddings: values, time, peak memory, and the bare product as
   limit.
2. Our FAISS backend against direct FAISS calls: at most 2 % slower.
3. Exact search as a share of the machine's measured float32 product rate, and 1,000,000 × 1,000,000 in fixed memory.

Every measurement runs in a process of its own. About 9 minutes on 2 idle cores, 20 s with --smoke (sizes too small for
the goals). A busy machine shifts all numbers; ratios are taken between neighbours in time, and the load is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from benchmarks.options import parse_dataclass
from benchmarks.speed.lines import Comparison, Line, in_process
from mt2st.errors import Mt2stError, check_range, unknown_name

PARTS = ("evaluation", "faiss", "exact")
work = partial(in_process, "benchmarks.speed.retrieval_worker")
_NAMES = {"image_retrieval_recall": "text_to_image/hit_rate", "text_retrieval_recall": "image_to_text/hit_rate"}


@dataclass(frozen=True)
class Options:
    """Retrieval evaluation and search beside CLIP_benchmark and FAISS."""

    parts: tuple[str, ...] = PARTS
    """what to measure: evaluation, faiss, exact"""
    repetitions: int = 3
    """times that each evaluation is measured, in turn; medians are reported, all are stored"""
    width: int = 512
    """width of the embeddings of evaluation and of exact search"""
    noise: float = 6.0
    """length of a text's noise over its image's vector: 0 = every text is its image, larger = harder"""
    pairs: int = 60
    """times that the same queries go through our FAISS backend, directly, and directly once more (the control)"""
    slice_seconds: float = 20.0
    """seconds of exact search to extrapolate from"""
    seed: int = 0
    """of the vectors"""
    smoke: bool = False
    """small sizes, one repetition: for a first look, goals not judged"""
    results: Path = Path("results")
    """folder for the record"""

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in PARTS:
                raise unknown_name("part", part, PARTS)
        for name, low, high in (
            ("repetitions", 1, 100),
            ("width", 1, 1 << 16),
            ("pairs", 1, 10_000),
            ("slice_seconds", 0, 3600),
            ("noise", 0, 1e6),
        ):
            check_range(f"--{name.replace('_', '-')}", getattr(self, name), low, high)


def main(argv: list[str]) -> int:
    """Entry point. Returns 0, or 1 if a value differs or a goal is missed."""
    return run(parse_dataclass(Options(), argv, prog="python -m benchmarks peers retrieval"))


def run(options: Options) -> int:
    """Measure, record, print."""
    console = Console()
    title = "Retrieval beside its peers" + ("; smoke: too small to judge goals" if options.smoke else "")
    found = Comparison("peers retrieval", title, options, options.results)
    for part, measure in (("evaluation", _evaluation), ("faiss", _faiss), ("exact", _exact)):
        if part in options.parts:
            console.print(f"measuring: {part}", highlight=False)
            found.keep(part, *measure(options))
    return found.show(console)


def _goal(text: str, met: bool, judge: bool) -> dict[str, Any]:
    """A line's goal and whether it was met; nothing where goals are not judged."""
    return {"goal": text, "met": met} if judge else {}


def _evaluation(options: Options) -> tuple[dict[str, Any], list[Line]]:
    if find_spec("clip_benchmark") is None:
        raise Mt2stError("the package clip-benchmark is missing; pip install -e '.[peers]', or --parts faiss exact")
    sizes = [(200, 1_000)] if options.smoke else [(1_000, 5_000), (5_000, 25_000)]
    repetitions = 1 if options.smoke else options.repetitions
    raw: dict[str, Any] = {}
    lines: list[Line] = []
    for images, texts in sizes:
        sizing = {
            "images": images,
            "texts": texts,
            "width": options.width,
            "noise": options.noise,
            "seed": options.seed,
        }
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ("product", "ours", "theirs")}
        for _ in range(repetitions):
            for name, found in runs.items():
                found.append(work(name, sizing))
        raw[f"{images}x{texts}"] = runs
        large = images >= 5_000 and options.width == 512
        lines += _evaluation_lines(f"{images:,} × {texts:,}", runs, large)
    return raw, lines


def _evaluation_lines(size: str, runs: Mapping[str, list[dict[str, Any]]], judge: bool) -> list[Line]:
    ours, theirs = runs["ours"], runs["theirs"]
    values, peer = ours[0]["value"], theirs[0]["value"]
    largest = max(abs(values[_ours_key(name)] - value) for name, value in peer.items())
    seconds = {name: median([run["seconds"] for run in found]) for name, found in runs.items()}
    faster = median([peer_run["seconds"] / run["seconds"] for run, peer_run in zip(ours, theirs)])
    times_product = median([run["best_of_three_seconds"] / bare["seconds"] for run, bare in zip(ours, runs["product"])])
    memory = {name: median([run["peak_bytes"] for run in found]) for name, found in runs.items()}
    smaller = memory["theirs"] / max(1.0, memory["ours"])
    return [
        Line(f"evaluation {size}: largest difference of hit rates", f"{largest:.1e}", "≤ 1e-6", largest <= 1e-6),
        Line(
            f"evaluation {size}: hit rate@1/5/10 text → image",
            "/".join(f"{100 * values[f'text_to_image/hit_rate@{k}']:.1f}" for k in (1, 5, 10)) + " %",
        ),
        Line(
            f"evaluation {size}: seconds ours / CLIP_benchmark / bare product",
            f"{seconds['ours']:.2f} / {seconds['theirs']:.2f} / {seconds['product']:.2f}",
        ),
        Line(
            f"evaluation {size}: times faster",
            f"{faster:.1f}",
            **_goal("≥ 10", faster >= 10, judge),
        ),
        Line(
            f"evaluation {size}: times the bare product, best of three each",
            f"{times_product:.2f}",
            **_goal("≤ 2", times_product <= 2, judge),
        ),
        Line(
            f"evaluation {size}: peak MB above start, ours / CLIP_benchmark",
            f"{memory['ours'] / 1e6:.0f} / {memory['theirs'] / 1e6:.0f}",
        ),
        Line(
            f"evaluation {size}: times less peak memory",
            f"{smaller:.0f}",
            **_goal("≥ 20", smaller >= 20, judge),
        ),
    ]


def _faiss(options: Options) -> tuple[dict[str, Any], list[Line]]:
    items, width, queries = (2_000, 32, 500) if options.smoke else (50_000, 128, 4_000)
    settings: list[tuple[str, dict[str, int]]] = [
        ("Flat", {}),
        ("IVF256,Flat", {"nprobe": 8}),
        ("HNSW32", {"ef_search": 64}),
    ]
    raw, lines = {}, []
    for factory, knobs in settings:
        factory = factory.replace("256", "16") if options.smoke else factory
        sizing = {"items": items, "queries": queries, "width": width, "k": 10, "seed": options.seed}
        found = work(
            "faiss", {"factory": factory, "knobs": knobs, "pairs": 6 if options.smoke else options.pairs, **sizing}
        )
        raw[factory] = found
        ratio, noise = faiss_ratios(**found["seconds"])
        what = f"FAISS {factory}, {items:,} × {width}, {queries:,} queries"
        value = f"{ratio:.4f} (direct / direct: {noise:.4f})"
        lines.append(Line(f"{what}: ours / direct calls", value, **_goal("≤ 1.02", ratio <= 1.02, not options.smoke)))
        if factory != "HNSW32":  # built by several threads, its graph differs from build to build
            lines.append(Line(f"{what}: the same ids", str(found["same_ids"]), "True", bool(found["same_ids"])))
    return raw, lines


def faiss_ratios(ours: list[float], direct: list[float], control: list[float]) -> tuple[float, float]:
    """How long our calls take beside direct ones, and direct calls beside each other: medians over the turns.

    The first is the ratio of ours to the geometric mean of the turn's two direct calls. The second is the ratio of one
    direct call to the other: what noise alone makes of 1.
    """
    ratio = median([mine / (one * other) ** 0.5 for mine, one, other in zip(ours, direct, control)])
    return ratio, median([other / one for one, other in zip(direct, control)])


def _exact(options: Options) -> tuple[dict[str, Any], list[Line]]:
    seconds = 0.2 if options.smoke else options.slice_seconds
    items, million = (20_000, 50_000) if options.smoke else (100_000, 1_000_000)
    before = work("peak", {"size": 1024 if options.smoke else 4096})
    wide = work(
        "exact",
        {
            "items": items,
            "queries": 4096,
            "width": options.width,
            "k": 10,
            "seconds": seconds / 2,
            "seed": options.seed,
        },
    )
    after = work("peak", {"size": 1024 if options.smoke else 4096})
    rate = max(before["flops_per_second"], after["flops_per_second"])  # against the better one: the harder goal
    share = wide["flops_per_second"] / rate
    large = work(
        "exact", {"items": million, "queries": million, "width": 128, "k": 10, "seconds": seconds, "seed": options.seed}
    )
    gigabytes = large["peak_resident_bytes"] / 1e9
    judge = not options.smoke
    lines = [
        Line("float32 product rate of this machine", f"{rate / 1e9:.0f} GFLOP/s"),
        Line(
            f"exact search {items:,} × {options.width}: share of that rate",
            f"{share:.0%} ({wide['flops_per_second'] / 1e9:.0f} GFLOP/s)",
            **_goal("≥ 80 %", share >= 0.8, judge),
        ),
        Line(
            f"exact search {million:,} × {million:,}, width 128: peak resident",
            f"{gigabytes:.2f} GB",
            **_goal("< 6 GB", gigabytes < 6, judge),
        ),
        Line(
            f"exact search {million:,} × {million:,}: whole run, extrapolated from {large['queries_measured']:,} "
            f"queries in {large['seconds']:.0f} s",
            f"{large['whole_run_seconds'] / 60:.0f} min ({large['flops_per_second'] / rate:.0%} of the rate)",
        ),
    ]
    return {"peak_before": before, "wide": wide, "peak_after": after, "large": large}, lines


def _ours_key(theirs: str) -> str:
    name, _, k = theirs.partition("@")
    return f"{_NAMES[name]}@{k}"

"""`python -m benchmarks step`: the default step of a case, profiled, and before a switch against after it.

1. Where the time goes: torch's profiler over multi-task steps, its operators grouped by what they do.
2. What a switch saves: blocks of steps with all tasks and of the primary task alone, in turn; their ratio in seconds
   beside their ratio in FLOPs. Seconds show what FLOPs promise if the two ratios are within 10 % of each other.
3. What parallel streams bring: multi-task steps with them and without, in turn, and how far their losses part.
4. One run on several cores: as threads of one process, and as processes that share each batch (`--processes`).

With `--against CHECKOUT` it measures this code's step beside that of another checkout, and nothing else.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from itertools import product
from statistics import median
from typing import Any

from rich.console import Console
from torch.profiler import ProfilerActivity, profile

from benchmarks.cases import Case, load_card
from benchmarks.speed.lines import Comparison, Line, quartiles
from benchmarks.speed.loop import Loop
from benchmarks.speed.options import StepOptions
from benchmarks.speed.step_against import against, against_lines
from benchmarks.speed.step_processes import cores_lines, on_cores
from mt2st.schedules import Constant, Off, Schedule

# First match wins; an operator's own name without its namespace.
_GROUPS = (
    ("optimiser and clipping", re.compile(r"adamw|linalg_vector_norm|foreach")),
    ("attention", re.compile(r"attention")),
    ("convolution", re.compile(r"conv")),
    ("matrix products", re.compile(r"^(mm|addmm|bmm|baddbmm|linear|matmul)$")),
    ("normalisation", re.compile(r"norm")),
    ("copies, gathers, fills", re.compile(r"copy|cat|index|gather|scatter|fill|zero|embedding|clone|stack")),
    ("views and allocation", re.compile(r"view|empty|transpose|^t$|reshape|resize|expand|slice|select|detach|strided")),
)
OTHER = "elementwise and the rest"
_COMPARED = 20  # steps whose losses are compared


def measure(options: StepOptions) -> int:
    """Profile, time, print and write the record; returns 0 if every goal is met, else 1."""
    console = Console()
    comparison = Comparison("step", "The training step", options, options.results)
    if options.against is not None:
        for name, threads in product(options.cases, options.threads):
            what = f"{name}, {threads} thread{'s' if threads > 1 else ''}"
            console.print(f"measuring: {what}, against {options.against}", highlight=False, markup=False)
            beside = against(name, threads, options.against, options)
            comparison.keep(f"against/{name}/{threads}", beside, against_lines(what, beside))
        return comparison.show(console)
    for name in options.cases:
        card = load_card(name)
        case = card.open(card.knobs("default"), console)
        for threads in options.threads:
            console.print(f"measuring: {name}, {threads} thread(s)", highlight=False)
            what = f"{name}, {threads} thread{'s' if threads > 1 else ''}"
            found = profiled(Loop(case, threads=threads), options.steps)
            comparison.keep(f"profile/{name}/{threads}", found, profile_lines(what, found))
            turns = switched(case, threads, options)
            comparison.keep(f"switch/{name}/{threads}", turns, switch_lines(what, turns))
        if (cores := max(options.threads)) > 1:
            console.print(f"measuring: {name}, parallel streams on {cores} threads", highlight=False)
            both = streams(case, cores, options)
            comparison.keep(f"streams/{name}/{cores}", both, streams_lines(f"{name}, {cores} threads", both))
            console.print(f"measuring: {name}, one run on {cores} cores", highlight=False)
            told = on_cores(name, cores, options)
            comparison.keep(f"cores/{name}/{cores}", told, cores_lines(name, cores, told))
    return comparison.show(console)


def profiled(loop: Loop, steps: int) -> dict[str, Any]:
    """Seconds a step by group, the longest operators, operators a step."""
    loop.block(5)  # warms up, and the ledger has measured the step
    started = time.process_time()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        loop.block(steps)
    whole = (time.process_time() - started) / steps
    operators = {
        event.key.removeprefix("aten::"): (event.self_cpu_time_total / 1e6 / steps, event.count / steps)
        for event in found.key_averages()
        if not event.key.startswith("autograd::") and "#" not in event.key
    }
    longest = sorted(operators, key=lambda name: -operators[name][0])[:12]
    return {
        "processor_seconds_per_step": whole,
        "groups": grouped({name: seconds for name, (seconds, _) in operators.items()}),
        "longest": {name: operators[name][0] for name in longest},
        "operators_per_step": sum(count for _, count in operators.values()),
    }


def grouped(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds of operators added up by what they do, most first."""
    found: dict[str, float] = {}
    for name, spent in seconds.items():
        found[group_of(name)] = found.get(group_of(name), 0.0) + spent
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def group_of(operator: str) -> str:
    """What an operator does.

    >>> group_of("addmm"), group_of("native_layer_norm_backward"), group_of("gelu")
    ('matrix products', 'normalisation', 'elementwise and the rest')
    """
    return next((group for group, pattern in _GROUPS if pattern.search(operator)), OTHER)


def profile_lines(what: str, found: Mapping[str, Any]) -> list[Line]:
    """The table's lines of a profile: shares of the operators' own time."""
    whole = sum(found["groups"].values())
    shares = ", ".join(f"{group} {spent / whole:.0%}" for group, spent in found["groups"].items())
    longest = ", ".join(f"{name} {spent / whole:.0%}" for name, spent in list(found["longest"].items())[:5])
    return [
        Line(f"{what}: time of operators", shares),
        Line(f"{what}: longest operators", longest),
        Line(f"{what}: operators a step", f"{found['operators_per_step']:,.0f}"),
    ]


def streams(case: Case, threads: int, options: StepOptions) -> dict[str, Any]:
    """Blocks of multi-task steps with parallel streams and without, in turn; and both losses of the same steps."""
    loops = {name: Loop(case, threads=threads, parallel_streams=name == "parallel") for name in ("parallel", "serial")}
    losses = {name: loop.losses(_COMPARED) for name, loop in loops.items()}
    return {"turns": _in_turn(loops, options), "losses": losses}


def streams_lines(what: str, both: Mapping[str, Any]) -> list[Line]:
    """The table's lines of parallel streams."""
    turns, losses = both["turns"], both["losses"]
    ratios = [
        serial["seconds"] / parallel["seconds"]
        for serial, parallel in zip(turns["serial"], turns["parallel"], strict=True)
    ]
    parted = max(abs(own - other) / abs(other) for own, other in zip(losses["parallel"], losses["serial"], strict=True))
    return [
        Line(f"{what}: rate with parallel streams / without", quartiles(ratios, 2), "≥ 1.25", median(ratios) >= 1.25),
        Line(
            f"{what}: largest relative difference of the loss in {_COMPARED} steps",
            f"{parted:.1e}",
            "≤ 1e-3",
            parted <= 1e-3,
        ),
    ]


def switched(case: Case, threads: int, options: StepOptions) -> dict[str, Any]:
    """Blocks of steps before and after a switch, in turn: seconds, processor seconds and FLOPs of a step of each."""
    schedules: dict[str, Schedule] = {"before": Constant(), "after": Off()}
    return _in_turn(
        {name: Loop(case, threads=threads, schedule=schedule) for name, schedule in schedules.items()}, options
    )


def _in_turn(loops: Mapping[str, Loop], options: StepOptions) -> dict[str, list[dict[str, float]]]:
    """Blocks of the loops, one after the other, which of them comes first changing from pair to pair."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in loops}
    for pair in range(options.pairs + 1):
        for name in sorted(loops, reverse=bool(pair % 2)):
            timed = _timed(loops[name], options.steps)
            if pair:  # the first one warms up
                found[name].append(timed)
    return found


def _timed(loop: Loop, steps: int) -> dict[str, float]:
    before, flops = (time.perf_counter(), time.process_time()), loop.trainer.ledger.total
    loop.block(steps)
    after = time.perf_counter(), time.process_time()
    seconds, processor = ((end - start) / steps for start, end in zip(before, after, strict=True))
    return {"seconds": seconds, "processor_seconds": processor, "flops": (loop.trainer.ledger.total - flops) / steps}


def switch_lines(what: str, turns: Mapping[str, list[dict[str, float]]]) -> list[Line]:
    """The table's lines of a switch: a step after it / before it, in FLOPs and in seconds."""
    flops = turns["after"][0]["flops"] / turns["before"][0]["flops"]
    seconds, processor = (list(_ratios(turns, name)) for name in ("seconds", "processor_seconds"))
    beside = median(seconds) / flops
    return [
        Line(f"{what}: a step after / before a switch, FLOPs", f"{flops:.3f}"),
        Line(f"{what}: a step after / before a switch, seconds", quartiles(seconds, 3)),
        Line(f"{what}: a step after / before a switch, processor seconds", quartiles(processor, 3)),
        Line(f"{what}: the ratio of seconds / that of FLOPs", f"{beside:.2f}", "0.9 … 1.1", abs(beside - 1) <= 0.1),
    ]


def _ratios(turns: Mapping[str, list[dict[str, float]]], name: str) -> Iterable[float]:
    for before, after in zip(turns["before"], turns["after"], strict=True):
        yield after[name] / before[name]

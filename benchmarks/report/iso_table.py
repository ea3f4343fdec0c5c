"""The table of iso-quality: what full MTL's quality costs under each strategy, and the largest saving at no loss."""

from __future__ import annotations

import math

from benchmarks.report.cells import difference_text
from benchmarks.report.curve import Crossing
from benchmarks.report.spec import ReportSpec
from benchmarks.report.text_table import NOTHING, TextTable
from benchmarks.report.verdict import IsoQuality, Verdict, saving_text
from benchmarks.report.views import MULTI_TASK


def iso_tables(iso: IsoQuality | None, spec: ReportSpec, level: str = "95 %") -> list[TextTable]:
    """One table, under the sentence; none without full MTL. `level` is the confidence of the intervals."""
    if iso is None or not iso.curves:
        return []
    head = ["strategy", "seeds", "budgets", f"FLOPs to full {MULTI_TASK}'s quality ({level})"]
    if spec.margin is not None:
        at = "" if iso.budget is None else f" at {iso.budget:.2g}"
        head += ["saving at no loss", f"and better than shortened {MULTI_TASK}"]
        head += [f"Δ to full {MULTI_TASK}{at}", f"Δ to {MULTI_TASK}{at}", "verdict", "seeds to decide"]
    verdicts = {verdict.strategy: verdict for verdict in iso.verdicts}
    body = []
    for curve in iso.curves:
        cells = [curve.strategy, str(curve.seeds), " ".join(f"{share:.2g}" for share in curve.shares)]
        cells += [crossing_text(curve.to_full)]
        if spec.margin is not None:
            cells += [saving_text(curve.no_loss), saving_text(curve.ahead)]
            cells += _verdict_cells(verdicts.get(curve.strategy), spec)
        body.append(tuple(cells))
    title = f"Iso-quality: {spec.primary.heading}"
    return [TextTable(title, tuple(head), tuple(body), _caption(spec), cut=min(len(head), 6), rest="verdicts")]


def _verdict_cells(verdict: Verdict | None, spec: ReportSpec) -> list[str]:
    if verdict is None:
        return [NOTHING] * 4
    needed = "many" if verdict.seeds_needed is None else str(verdict.seeds_needed)
    if verdict.to_full.seeds < 2:
        needed = NOTHING  # how seeds vary is not known
    differences = [difference_text(found, spec.primary) for found in (verdict.to_full, verdict.to_short)]
    return [*differences, verdict.kind, needed if verdict.kind == "undecided" else NOTHING]


def crossing_text(crossing: Crossing) -> str:
    """ "0.52 [0.44, 0.80]"; "never" beyond the budgets that were run."""

    def text(share: float) -> str:
        return "never" if math.isinf(share) else f"{share:.2f}"

    return f"{text(crossing.estimate)} [{text(crossing.low)}, {text(crossing.high)}]"


def _caption(spec: ReportSpec) -> str:
    parts = [
        f"Budgets and FLOPs are shares of full {MULTI_TASK}'s training FLOPs. Between the budgets that were run the "
        "curve is a monotone fit; never = not within them. A saving at no loss is one whose paired interval to full "
        f"{MULTI_TASK} lies above −δ, at that budget and every larger one"
    ]
    if spec.margin is None:
        parts.append("; no δ is declared for this case.")
    else:
        parts.append(
            f"; δ = {spec.primary.text(spec.margin)} {spec.primary.unit}".rstrip() + f": {spec.margin_reason}."
        )
        parts.append(
            f" A verdict holds where both are shown at the claimed budget: no loss, and better than {MULTI_TASK} "
            "shortened to it (Holm's correction over the strategies)."
        )
    return "".join(parts)

"""What a summary comes to in plain words, for the top of a page and the end of a terminal."""

from __future__ import annotations

from benchmarks.report.cells import difference_text, interval_text
from benchmarks.report.rows import Summary
from benchmarks.report.spec import ReportSpec
from benchmarks.report.verdict import oriented
from benchmarks.report.views import MULTI_TASK, fair_view, view_title

ALPHA = 0.05


def verdict_of(summary: Summary) -> str:
    """ "holds", "fails" or "undecided", as the sentence on the claim begins; "" where there is no verdict."""
    kinds = {verdict.kind for verdict in summary.iso.verdicts} if summary.iso else set()
    return next((kind for kind in ("holds", "undecided", "fails") if kind in kinds), "")


def finding_of(summary: Summary, spec: ReportSpec) -> str:
    """Who is best in the fair view, with the interval, and its distance to MTL; "" without a finished run.

    It stands where nothing is said of the claim.
    """
    view = fair_view(summary.views) or next(iter(summary.views), "")
    rows = [row for row in summary.of_view(view) if row.primary is not None]
    if not rows:
        return ""
    metric = spec.primary
    best = max(rows, key=lambda row: oriented(row.primary, metric).estimate if row.primary else 0.0)
    assert best.primary is not None
    count = f"{len(best.seeds)} seed{'s' if len(best.seeds) > 1 else ''}"
    text = f"{best.strategy} has the best {metric.label} of {len(rows)} strategies: "
    text += f"{interval_text(best.primary, metric)} {metric.unit}".rstrip() + f" ({count}, 95 % interval)"
    if best.to_multi is not None:
        told = best.adjusted_p.get("to_multi", 1.0) <= ALPHA
        text += f"; {difference_text(best.to_multi, metric)} from {MULTI_TASK}, "
        if best.to_multi.seeds == 1:
            text += "on one seed, which says nothing of others"
        else:
            text += "told from 0 with all strategies tested at once (Holm)" if told else "not told from 0"
    return f"{text}. {view_title(view)}."

"""What a number of seeds can tell, from the variances of records: before a run is made."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.power import POWER, detectable
from benchmarks.report.rows import Summary
from benchmarks.report.spec import ReportSpec
from benchmarks.report.text_table import TextTable
from benchmarks.report.views import MULTI_TASK, fair_view


def power_table(summary: Summary, spec: ReportSpec, seeds: Sequence[int]) -> TextTable:
    """Strategy × comparison → the difference that each number of seeds tells from 0 with 80 % power."""
    view, metric = fair_view(summary.views), spec.primary
    body = []
    for row in summary.rows:
        for name, found in ((MULTI_TASK, row.to_multi), (f"full {MULTI_TASK}", row.to_full_multi)):
            if row.view == view and found is not None and found.seeds > 1:
                spread = (found.of_seeds * found.seeds) ** 0.5
                cells = [f"{row.strategy} − {name}", str(found.seeds), metric.text(spread)]
                cells += [metric.text(found.of_items**0.5), *(metric.text(detectable(found, count)) for count in seeds)]
                body.append(tuple(cells))
    head = ("difference", "seeds known", "sd of a seed", "se of the items", *(f"{count} seeds" for count in seeds))
    caption = (
        f"The smallest true difference of {metric.heading} that its 95 % interval tells from 0 with {POWER:.0%} power, "
        "by number of seeds; a margin δ is shown in the same way where the truth is that far above −δ. The variances "
        "are estimates themselves: from three seeds they can be off by a factor of two."
    )
    return TextTable(f"{spec.title}: what seeds can tell at {view}", head, tuple(body), caption)

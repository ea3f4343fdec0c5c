"""The report of a recipe's runs, from records alone: terminal, TABLE.md, report.html, pictures, summary.json.

python -m benchmarks report vqa --recipe default
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.records.folder import slug
from benchmarks.records.metrics_log import plain
from benchmarks.records.read import RunRecord, load_records
from benchmarks.report.cells import metric_lines
from benchmarks.report.charts import charts_of
from benchmarks.report.curve_picture import curve_picture
from benchmarks.report.finding import finding_of, verdict_of
from benchmarks.report.gallery import gallery_of
from benchmarks.report.html import write_html
from benchmarks.report.page import Page, page_to_markdown, print_finding, print_page
from benchmarks.report.plots import cost_picture, view_picture
from benchmarks.report.rows import Summary
from benchmarks.report.spec import ReportSpec
from benchmarks.report.statistics import Method
from benchmarks.report.summary import summarise
from benchmarks.report.summary_tables import summary_tables
from benchmarks.report.views import fair_view, view_title
from mt2st.files import write_text

TABLE_FILE, HTML_FILE, SUMMARY_FILE = "TABLE.md", "report.html", "summary.json"
_PICTURE = re.compile(r"curve|cost|equal-steps|equal-budget|budget-[\de-]+")  # what `_draw` calls its pictures
Reproduce = Callable[[Sequence[RunRecord]], Sequence[tuple[str, str]]]


@dataclass(frozen=True)
class ReportPaths:
    """What a report wrote.

    Attributes:
        folder: the recipe's folder, which holds the files.
        table, html, summary: TABLE.md, report.html, summary.json.
        picture: the default one, of the fair budget; None without finished runs.
        pictures: all pictures.
        holes: number of runs without result.
    """

    folder: Path
    table: Path
    html: Path
    summary: Path
    picture: Path | None
    pictures: tuple[Path, ...]
    holes: int = 0


def report(
    benchmark: str,
    recipe: str,
    root: Path = Path("results"),
    *,
    spec: ReportSpec,
    known: Sequence[str] = (),
    console: Console | None = None,
    suite_hash: str | None = None,
    method: Method = "student",
    reproduce: Reproduce | None = None,
) -> ReportPaths:
    """Derive and write all of a recipe's report, and print its tables.

    Args:
        benchmark, recipe: which folder of `root`.
        spec: what is particular to the case.
        known: the built-in strategies in the order of their table, which rows and looks follow.
        console: where to print; None = the terminal.
        suite_hash: which knobs, by the first digits of their hash, if the folder holds several; None = the latest.
        method: kind of the bootstrap intervals; see `benchmarks.report.statistics`.
        reproduce: the runs → (what it does, command) that make them again; None = the report says how to derive it
            again, no more.

    Raises:
        Mt2stError: there are no runs, or they do not hold what the spec asks for.
    """
    records = load_records(root, benchmark, recipe, suite_hash=suite_hash)
    spec = spec.for_data({str(run.values.get("data", {}).get("name", "")) for run in records.finished})
    summary = summarise(records, spec, benchmark=benchmark, recipe=recipe, known=known, method=method)
    folder = root / benchmark / recipe
    pictures = _draw(summary, records.finished, spec, folder)
    paths = ReportPaths(
        folder=folder,
        table=folder / TABLE_FILE,
        html=folder / HTML_FILE,
        summary=folder / SUMMARY_FILE,
        picture=_fair(summary, pictures),
        pictures=tuple(path for _, path in pictures),
        holes=len(records.holes),
    )
    write_text(paths.summary, json.dumps(plain(summary.as_json(), "summary"), indent=1, ensure_ascii=False) + "\n")
    command = f"python -m benchmarks report {benchmark} --recipe {recipe}"
    derive = (("Derive this page again from the records (with --results where they lie in another folder)", command),)
    page = _page(summary, spec, records.finished, (*(reproduce(records.finished) if reproduce else ()), *derive))
    write_text(paths.table, f"<!-- Generated from the run records by: {command} -->\n\n{page_to_markdown(page)}")
    write_html(page, [*pictures, *_run_pictures(summary, records.finished, spec)], paths.html)
    out = console or Console()
    print_page(page, out)
    for label, path in (
        ("picture", paths.picture),
        ("curve", next((path for path in paths.pictures if path.name == "curve.png"), None)),
        ("table", paths.table),
        ("raw records", paths.folder),
    ):
        if path is not None:
            out.print(f"{label:>11}: {path}", markup=False, highlight=False, soft_wrap=True)
    print_finding(page, paths.html, out)
    return paths


def _draw(summary: Summary, runs: Sequence[RunRecord], spec: ReportSpec, folder: Path) -> list[tuple[str, Path]]:
    drawn = []
    if summary.iso is not None and any(len(curve.shares) > 1 for curve in summary.iso.curves):
        path = folder / "curve.png"
        curve_picture(summary, spec, path)
        drawn.append(("Quality against FLOPs", path))
    for view in summary.views:
        if any(row.primary is not None for row in summary.of_view(view)):
            path = folder / f"{slug(view)}.png"
            view_picture(summary, runs, spec, view, path)
            drawn.append((view_title(view), path))
    if drawn:
        path = folder / "cost.png"
        cost_picture(summary, spec, path)
        drawn.append(("Quality against cost, all views", path))
    _remove_earlier(folder, {path for _, path in drawn})
    return drawn


def _remove_earlier(folder: Path, drawn: Collection[Path]) -> None:
    """Delete pictures of an earlier report whose budgets or views are gone: they would be taken for this one's."""
    for path in folder.glob("*.png"):
        if path not in drawn and _PICTURE.fullmatch(path.stem):
            path.unlink()


def _fair(summary: Summary, pictures: Sequence[tuple[str, Path]]) -> Path | None:
    """The picture of the fair budget, else of the first view."""
    by_name = {path.stem: path for _, path in pictures}
    views = [slug(view) for view in (fair_view(summary.views), *summary.views) if view]
    return next((by_name[name] for name in views if name in by_name), None)


def _run_pictures(summary: Summary, runs: Sequence[RunRecord], spec: ReportSpec) -> list[tuple[str, Path]]:
    """The spec's pictures out of the run folders, of each strategy's first seed in the first view."""
    if not summary.views:
        return []
    view = summary.views[0]
    firsts = {(row.strategy, row.seeds[0]) for row in summary.of_view(view) if row.seeds}
    mine = [run for run in runs if view in run.views and (run.strategy, run.seed) in firsts]
    found = [
        (f"{name}: {run.strategy}, seed {run.seed}, {view}", run.folder / name)
        for name in spec.pictures
        for run in mine
    ]
    return [(caption, path) for caption, path in found if path.is_file()]


def _page(summary: Summary, spec: ReportSpec, runs: Sequence[RunRecord], reproduce: Sequence[tuple[str, str]]) -> Page:
    view = fair_view(summary.views) or next(iter(summary.views), "")
    gallery, unread = gallery_of(runs, view, list(dict.fromkeys(row.strategy for row in summary.rows)))
    return Page(
        title=spec.title,
        name=f"{summary.benchmark}/{summary.recipe}",
        sentence=summary.iso.sentence if summary.iso else "",
        origin=f"Benchmark {summary.benchmark}, recipe {summary.recipe}, suite {summary.suite_hash[:8]}.",
        tables=summary_tables(summary, spec),
        remarks=(*summary.remarks, *unread),
        metrics=tuple(metric_lines((spec.primary, *spec.columns))),
        notes=spec.notes,
        provenance=summary.provenance,
        verdict=verdict_of(summary),
        finding=finding_of(summary, spec),
        charts=charts_of(summary, runs, spec),
        gallery=gallery,
        reproduce=tuple(reproduce),
    )

"""A suite made small enough for a repository: its runs in one pack, and the report derived from that pack.

python -m benchmarks publish vqa
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.records.check import CONFIG_FILE, RECORD_FILE
from benchmarks.records.metrics_log import plain
from benchmarks.records.pack import PACK_FILE, read_pack, write_pack
from benchmarks.records.read import Hole, Records, load_records
from benchmarks.report.spec import ReportSpec
from benchmarks.report.summary import summarise
from benchmarks.report.write import ReportPaths, Reproduce, report
from mt2st.errors import Mt2stError
from mt2st.files import read_sealed_json, write_bytes

if TYPE_CHECKING:
    from rich.console import Console

# Confidences hardly compress: with exact ones a pack takes more than twice the space. No table is computed from them,
# for their calibration error is a metric of run.json; three decimals draw the same reliability diagram.
ROUNDED: Mapping[str, float] = {"confidence": 0.001}


def publish(
    benchmark: str,
    recipe: str,
    results: Path,
    out: Path,
    *,
    spec: ReportSpec,
    known: Sequence[str],
    console: Console,
    suite_hash: str | None = None,
    with_holes: bool = False,
    reproduce: Reproduce | None = None,
) -> ReportPaths:
    """Pack the runs of `results/benchmark/recipe` into `out/benchmark/recipe/runs.zip`, and write the report beside it.

    A pack beside the run folders is taken in: what is published grows by further budgets, strategies or seeds.

    The report is derived from the pack, after a check that runs and pack give the same summary to the last bit.

    Args:
        spec, known, suite_hash, reproduce: see `benchmarks.report.write.report`.
        with_holes: publish a suite with holes too: failed and interrupted runs with their reason. Runs that are
            unfinished or damaged have no record to publish and are left out, which is printed.

    Raises:
        Mt2stError: the suite has holes, `out` holds run folders, or a table would change.
    """
    source, target = results / benchmark / recipe, out / benchmark / recipe
    if target.is_dir() and any(
        (path / name).exists() for path in target.iterdir() for name in (CONFIG_FILE, RECORD_FILE)
    ):
        raise Mt2stError(
            f"{target} holds run folders, which a pack would stand beside; remove them, or choose another --out"
        )
    records = replace(load_records(results, benchmark, recipe, suite_hash=suite_hash), other_suites=None)
    if not records.finished or (records.holes and not with_holes):
        first = records.holes[0]
        raise Mt2stError(
            f"{len(records.holes)} run(s) in {source} have no result, such as {first.folder.name} ({first.kind}: "
            f"{first.why}); finish them, or, if others did finish, publish the holes as well with --with-holes"
        )
    ended = tuple(hole for hole in records.holes if hole.kind in ("failed", "interrupted"))
    for hole in records.holes:
        if hole not in ended:
            console.print(f"! left out: {hole.folder.name}, {hole.kind}: {hole.why}", markup=False, highlight=False)
    content = _checked_pack(replace(records, holes=ended), benchmark, recipe, spec, known)
    write_bytes(target / PACK_FILE, content)
    paths = report(benchmark, recipe, out, spec=spec, known=known, console=console, reproduce=reproduce)
    size = f"{len(content):,} bytes, {len(content) // (len(records.finished) + len(ended)):,} a run"
    console.print(f"{'pack':>11}: {target / PACK_FILE}, {size}", markup=False, highlight=False, soft_wrap=True)
    return paths


def _checked_pack(records: Records, benchmark: str, recipe: str, spec: ReportSpec, known: Sequence[str]) -> bytes:
    """The bytes of a pack that gives the summary of these records."""

    def summary_of(found: Records) -> Any:
        summary = summarise(found, spec, benchmark=benchmark, recipe=recipe, known=known)
        return plain(summary.as_json(), "summary")

    runs: list[tuple[Mapping[str, Any], Mapping[str, np.ndarray]]] = [
        (run.values, run.items) for run in records.finished
    ]
    runs += [(_record_of(hole), {}) for hole in records.holes]
    with TemporaryDirectory() as scratch:
        pack = Path(scratch, benchmark, recipe, PACK_FILE)
        write_pack(pack, runs, ROUNDED)
        if summary_of(load_records(Path(scratch), benchmark, recipe)) != summary_of(records):
            rounded = ", ".join(ROUNDED)
            raise Mt2stError(
                f"{benchmark}: its tables change when {rounded} is rounded; take it off ROUNDED in {__file__}"
            )
        return pack.read_bytes()


def _record_of(hole: Hole) -> Mapping[str, Any]:
    """run.json of a run that ended without a result; it lies in its folder or in the pack beside that."""
    path = hole.folder / RECORD_FILE
    if path.exists():
        return read_sealed_json(path, "repeat the run")
    return read_pack(hole.folder.parent / PACK_FILE).records[hole.folder.name]

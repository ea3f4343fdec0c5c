"""The report against records made up with known differences; escaping, holes, other metrics, unequal seeds."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks.records.read import load_records
from benchmarks.report.all_cases import all_cases_page, leaderboard_page
from benchmarks.report.cells import flops_text, flops_unit, metric_lines
from benchmarks.report.costs import COSTS
from benchmarks.report.finding import finding_of
from benchmarks.report.html import to_html
from benchmarks.report.page import page_to_markdown
from benchmarks.report.rows import Reach, Summary
from benchmarks.report.spec import Group, Metric, ReportSpec, accuracy, hit_rate, mean_reciprocal_rank, median_rank
from benchmarks.report.style import LOOKS, looks
from benchmarks.report.summary import summarise
from benchmarks.report.summary_tables import reach_text
from benchmarks.report.text_table import TextTable, to_markdown, to_rich
from benchmarks.report.write import ReportPaths, report
from mt2st.errors import Mt2stError
from tests.helpers.synthetic_runs import BUDGET_SHARE, COST, LEVEL, MTL_FLOPS, STEPS, write_run, write_suite

SPEC = ReportSpec(
    "Demo",
    accuracy(),
    columns=(Metric("ece", "ECE", decimals=3),),
    groups=(Group("question_type", "question type"),),
    notes=("Captions restate facts of the withheld questions.",),
)


FIXED_DRAW = (
    "labels and validation carve are the same for every seed: the intervals leave out their variance "
    "(--draw per-seed draws both anew)"
)


def quiet(width: int = 200) -> Console:
    return Console(file=StringIO(), width=width)


def made(root: Path, spec: ReportSpec = SPEC, console: Console | None = None) -> ReportPaths:
    return report("demo", "default", root, spec=spec, known=tuple(LEVEL), console=console or quiet())


def summary_of(root: Path, spec: ReportSpec = SPEC) -> Summary:
    records = load_records(root, "demo", "default")
    return summarise(records, spec, benchmark="demo", recipe="default", known=tuple(LEVEL))


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records to read only."""
    return write_suite(tmp_path_factory.mktemp("suite"))


def test_rows_recompute_what_is_in_the_records(suite: Path) -> None:
    summary = summary_of(suite)
    runs = load_records(suite, "demo", "default").finished
    assert [row.strategy for row in summary.rows] == list(LEVEL) * 2
    assert summary.views == ("equal-budget", "equal-steps")
    for row in summary.rows:
        mine = [run for run in runs if run.strategy == row.strategy and row.view in run.views]
        assert row.primary is not None
        assert row.primary.estimate == pytest.approx(np.mean([run.items["score"].mean() for run in mine]))
        assert row.primary.low < row.primary.estimate < row.primary.high
        assert row.columns["ece"].estimate == pytest.approx(0.06)
        assert row.columns["ece"].over == "seeds"
        costs = {name: cost for name, cost in row.costs.items() if cost is not None}
        assert costs.pop("seconds_saved", 0.0) == 0.0, "all take 61 s"
        assert costs == {"train_seconds": 61.0, "peak_memory_bytes": 700_000_002}
        by_type = [interval.estimate for interval in row.groups["question_type"].values()]
        assert list(row.groups["question_type"]) == ["shape", "colour", "yes/no"]
        sizes = np.bincount(np.arange(400) % 3)
        assert np.average(by_type, weights=sizes) == pytest.approx(row.primary.estimate)


def test_differences_costs_and_limit(suite: Path) -> None:
    summary = summary_of(suite)
    rows = {(row.view, row.strategy): row for row in summary.rows}
    mean = {place: row.primary.estimate for place, row in rows.items() if row.primary}
    for (view, strategy), row in rows.items():
        for reference, found in (("STL", row.to_single), ("MTL", row.to_multi)):
            if strategy == reference:
                assert found is None
            else:
                assert found is not None
                assert found.estimate == pytest.approx(mean[view, strategy] - mean[view, reference])
        if view == "equal-steps":
            assert row.flops == pytest.approx(COST[strategy] * MTL_FLOPS)
            assert row.compression_multi == pytest.approx(1 - COST[strategy])
            assert row.compression_single == pytest.approx(1 - COST[strategy] / COST["STL"])
            assert row.to_full_multi is None
        else:
            assert row.flops == pytest.approx(BUDGET_SHARE * MTL_FLOPS)
            assert row.saved_of_full_multi == pytest.approx(1 - BUDGET_SHARE)
            assert row.to_full_multi is not None
            assert row.to_full_multi.estimate == pytest.approx(mean[view, strategy] - mean["equal-steps", "MTL"])
            if strategy not in ("MTL",):
                assert row.compression_multi is None, "compression is defined at equal steps only"
    assert summary.limit == pytest.approx(1 - COST["STL"])
    better = rows["equal-steps", "Switch"].to_single
    assert better is not None
    assert better.low > 0


def test_flops_to_reach_mtls_validation_score(suite: Path) -> None:
    summary = summary_of(suite)
    rows = {row.strategy: row for row in summary.of_view("equal-steps")}
    runs = [run for run in load_records(suite, "demo", "default").finished if run.values["view"] == "equal-steps"]
    target = np.mean([run.metric("accuracy", "validation") for run in runs if run.strategy == "MTL"])
    for strategy, row in rows.items():
        assert row.reach is not None
        assert row.reach.target == pytest.approx(target)
        expected = []
        for run in runs:
            if run.strategy == strategy:
                expected += [entry["flops"] for entry in run.curve if entry["accuracy"] >= target][:1]
        assert row.reach.reached == len(expected)
        assert row.reach.flops == (pytest.approx(np.mean(expected)) if expected else None)
    assert rows["STL"].reach == Reach(rows["STL"].reach.target, 0, 3, None)  # type: ignore[union-attr]


def test_floors_front_and_provenance(suite: Path) -> None:
    summary = summary_of(suite)
    assert summary.floors["language prior"]["accuracy"] == pytest.approx(0.67)
    assert {summary.rows[index].strategy for index in summary.front} == {"Switch"}
    assert summary.provenance["machine"] == "Test CPU, 2 threads, no GPU"
    assert summary.provenance["model"] == "231,000 parameters"
    assert summary.remarks == (FIXED_DRAW,)
    only = summary_of(suite, replace(SPEC, floors=(("chance", "coin toss"),)))
    assert list(only.floors) == ["coin toss"]


def test_files_are_written_and_say_the_same(suite: Path) -> None:
    console = quiet()
    paths = made(suite, console=console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    table, page = paths.table.read_text(), paths.html.read_text()
    values = json.loads(paths.summary.read_text())
    switch = next(row for row in values["rows"] if row["strategy"] == "Switch" and row["view"] == "equal-budget")
    cell = (
        f"{100 * switch['primary']['estimate']:.1f} ± {50 * (switch['primary']['high'] - switch['primary']['low']):.1f}"
    )
    for text in (printed, table, page):
        assert cell in text
        assert "56.0%, the limit of any saving at equal steps" in " ".join(text.split())
        assert "Captions restate facts" in text
        assert "language prior" in text
        assert "67.0" in text
    assert str(paths.picture) in printed.replace("\n", "")
    assert str(paths.folder) in printed.replace("\n", "")
    assert paths.picture is not None
    assert paths.picture.name == "equal-budget.png"
    assert [path.name for path in paths.pictures] == ["curve.png", "equal-budget.png", "equal-steps.png", "cost.png"]
    for path in paths.pictures:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 10_000
    assert page.count("data:image/png;base64,") == 4
    assert not list(paths.folder.glob(".*.partial"))


def test_the_same_records_give_the_same_bytes(suite: Path) -> None:
    paths = made(suite)
    before = [path.read_bytes() for path in (paths.table, paths.html, paths.summary)]
    made(suite)
    assert before == [path.read_bytes() for path in (paths.table, paths.html, paths.summary)]


class Outline(HTMLParser):
    """Tags and attributes of a page, as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>'\"><img src=x onerror=alert(2)> $\\frac{ |x| [red]"
    for seed in range(2):
        write_run(
            tmp_path,
            "STL",
            "equal-steps",
            seed,
            items=30,
            group_names={"question_type": [bad, "b", "c"]},
            data={"name": bad, "revision": bad, "content_hash": bad},
            hardware={"cpu": bad, "gpus": [{"name": bad}]},
            versions={bad: bad},
            commit=bad,
            floors={bad: {"accuracy": 0.5}},
        )
    write_run(tmp_path, "MTL", "equal-steps", 0, items=30, fail=bad)
    spec = replace(SPEC, title=bad, notes=(bad,), primary=replace(SPEC.primary, label=bad), pictures=("gallery.png",))
    folder = load_records(tmp_path, "demo", "default").finished[0].folder
    (folder / "gallery.png").write_text(bad)
    paths = made(tmp_path, spec, quiet(60))
    page = paths.html.read_text()
    outline = Outline()
    outline.feed(page)
    assert outline.tags.count("script") == 1, "our own, whose hash the policy names"
    assert page.count("alert(") == page.count("&lt;script&gt;alert(") + page.count("onerror=alert(")
    assert not [name for name in outline.attributes if name.startswith("on")]
    assert all(source.startswith(("data:image/png;base64,", "data:,")) for source in outline.sources)
    assert outline.tags.count("img") == len(paths.pictures)
    assert "is no PNG" in page
    script = page[page.rindex("<script>") + len("<script>") : page.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'; img-src data:; " in page
    assert f"script-src 'sha256-{digest}'" in page
    assert "<script" not in paths.table.read_text()
    assert "<img" not in paths.table.read_text()


def test_holes_are_shown_with_their_reason(tmp_path: Path) -> None:
    write_suite(tmp_path, seeds=2, items=50, views=("equal-steps",))
    write_run(tmp_path, "MTL", "equal-steps", 2, fail="loss is NaN at step 3 of task vqa")
    torn = write_run(tmp_path, "Switch", "equal-steps", 2, items=50)
    (torn.path / "items.safetensors").write_bytes(b"torn")
    paths = made(tmp_path)
    table = paths.table.read_text()
    assert paths.holes == 2
    assert "2 of 3 (1 failed)" in table
    assert "2 of 3 (1 damaged)" in table
    assert "failed: MTL, seed 2 (equal-steps): loss is NaN at step 3 of task vqa" in table
    assert "does not match the checksum" in table


def test_only_failed_runs_still_make_a_report(tmp_path: Path) -> None:
    write_run(tmp_path, "MTL", "equal-steps", 0, fail="no memory")
    paths = made(tmp_path)
    assert paths.picture is None
    assert "no memory" in paths.html.read_text()
    assert "| MTL | 0 of 1 (1 failed) | – |" in paths.table.read_text()


def test_unequal_seeds_are_paired_over_the_common_ones(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "STL", "equal-steps", seed)
    write_run(tmp_path, "MTL", "equal-steps", 2)
    write_run(tmp_path, "MTL", "equal-steps", 5)
    summary = summary_of(tmp_path)
    multi = next(row for row in summary.rows if row.strategy == "MTL")
    assert multi.seeds == (2, 5)
    assert multi.to_single is not None
    assert multi.to_single.seeds == 1
    assert any("different seeds" in remark for remark in summary.remarks)


def test_one_seed_is_said_to_be_one_seed(tmp_path: Path) -> None:
    write_suite(tmp_path, seeds=1, items=50, views=("equal-steps",))
    assert any("one seed only" in remark for remark in summary_of(tmp_path).remarks)
    assert "With one seed an interval is over items only." in made(tmp_path).table.read_text()
    finding = finding_of(summary_of(tmp_path), SPEC)
    assert "on one seed, which says nothing of others" in finding
    assert "told from" not in finding


@pytest.mark.parametrize("varied", ["strategy", "knobs"])
def test_settings_of_a_strategy_are_never_mixed(tmp_path: Path, varied: str) -> None:
    """Two switch points under one name: the later one counts, the earlier is named."""
    from benchmarks.records.folder import RunFolder

    for day, at in ((1, 0.3), (2, 0.5)):
        for seed in range(2):
            config = {varied: {"at": at}}  # a knob of the strategy's own, or one of the suite's, as in a sweep
            folder = RunFolder.of(
                tmp_path, "demo", "default", strategy="Switch", view="equal-steps", seed=seed, config=config, suite={}
            )
            with folder.lock():
                folder.begin()
                record = {
                    "views": ["equal-steps"],
                    "started_utc": f"2026-01-0{day}",
                    "steps": 1,
                    "flops": {"total": 1.0},
                    "curve": [],
                }
                folder.finish({**record, "metrics": {"test": {"accuracy": at}}}, {})
    summary = summary_of(tmp_path)
    assert len(summary.rows) == 1
    assert summary.rows[0].primary is not None
    assert summary.rows[0].primary.estimate == 0.5
    assert summary.remarks == (FIXED_DRAW, "Switch (equal-steps): 2 run(s) with other settings left out")


def test_mixed_data_and_commits_are_remarked(tmp_path: Path) -> None:
    write_run(tmp_path, "STL", "equal-steps", 0)
    write_run(tmp_path, "MTL", "equal-steps", 0, data={"name": "other"}, commit={"hash": "b" * 40, "dirty": True})
    remarks = " ".join(summary_of(tmp_path).remarks)
    assert "mix data: demo 1 content cccccccccccc; other" in remarks
    assert "bbbbbbbbbbbb with local changes" in remarks


def test_retrieval_ranks_and_losses_use_the_same_code(tmp_path: Path) -> None:
    retrieval = ReportSpec(
        "Retrieval",
        hit_rate("text_to_image", 1),
        columns=(hit_rate("text_to_image", 5), median_rank("text_to_image"), mean_reciprocal_rank("text_to_image")),
    )
    write_suite(tmp_path / "a", items=90, kind="text_to_image_rank", views=("equal-steps",))
    summary = summary_of(tmp_path / "a", replace(retrieval, groups=()))
    runs = load_records(tmp_path / "a", "demo", "default").finished
    for row in summary.rows:
        ranks = [run.items["text_to_image_rank"] for run in runs if run.strategy == row.strategy]
        assert row.primary is not None
        assert row.primary.estimate == pytest.approx(np.mean([(rank <= 1).mean() for rank in ranks]))
        assert row.columns["text_to_image/hit_rate@5"].estimate == pytest.approx(
            np.mean([(rank <= 5).mean() for rank in ranks])
        )
        assert row.columns["text_to_image/median_rank"].estimate == pytest.approx(
            np.mean([np.median(rank) for rank in ranks])
        )
        assert row.columns["text_to_image/mrr"].estimate == pytest.approx(
            np.mean([(1 / rank).mean() for rank in ranks])
        )

    loss = ReportSpec("Diffusion", Metric("loss", "loss", arrays=("loss",), decimals=3), curve_id="loss")
    write_suite(tmp_path / "b", items=90, kind="loss")
    paths = made(tmp_path / "b", loss)
    summary = summary_of(tmp_path / "b", loss)
    best = min(row.primary.estimate for row in summary.rows if row.primary)
    front = [summary.rows[index] for index in summary.front]
    assert any(row.primary is not None and row.primary.estimate == best for row in front)
    assert paths.picture is not None


def test_a_statistic_of_its_own_and_missing_metrics(tmp_path: Path) -> None:
    write_suite(tmp_path, seeds=2, items=40, views=("equal-steps",))
    spread = Metric(
        "spread",
        "spread",
        arrays=("score", "question_type"),
        statistic=lambda score, kind: float(score[kind == 0].mean()),
        higher_is_better=True,
        definition="mean score of the first kind of items",
    )
    absent = Metric("no_such", "absent", higher_is_better=True, definition="a metric that no run has")
    summary = summary_of(tmp_path, replace(SPEC, columns=(spread, absent)))
    assert all("no_such" not in row.columns for row in summary.rows)
    assert all(0 <= row.columns["spread"].estimate <= 1 for row in summary.rows)
    with pytest.raises(Mt2stError, match="has no 'no_such' among its metrics"):
        summary_of(tmp_path, replace(SPEC, primary=absent))


def test_runs_scored_on_different_items_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, "STL", "equal-steps", 0, items=30)
    write_run(tmp_path, "STL", "equal-steps", 1, items=31)
    with pytest.raises(Mt2stError, match="same items"):
        summary_of(tmp_path)


def test_metric_specs_are_checked() -> None:
    with pytest.raises(Mt2stError, match="is a string"):
        Metric("a", "a", arrays="score")  # type: ignore[arg-type]
    with pytest.raises(Mt2stError, match="drop transform"):
        Metric("a", "a", arrays=("s",), transform=abs, statistic=lambda array: 0.0)
    with pytest.raises(Mt2stError, match="must be > 0"):
        Metric("accuracy", "a", scale=0)
    with pytest.raises(Mt2stError, match="not in the metric registry"):
        Metric("a", "a", higher_is_better=True)
    with pytest.raises(Mt2stError, match="not in the metric registry"):
        Metric("a", "a", definition="the first letter of the alphabet")
    with pytest.raises(Mt2stError, match="contradicts the metric registry"):
        Metric("compositional/text_to_image/mrr", "MRR", higher_is_better=False)
    with pytest.raises(Mt2stError, match="whole number"):
        Metric("hit_rate@0", "hit@0")


def test_a_metric_takes_direction_unit_and_scale_from_the_registry() -> None:
    taken = Metric("linear_probe/accuracy", "linear probe")
    assert (taken.higher_is_better, taken.scale, taken.unit) == (True, 100, "%")
    assert "predicted class" in taken.definition
    lower = Metric("t20/denoising_loss", "t = 20")
    assert (lower.higher_is_better, lower.scale, lower.unit) == (False, 1, "")
    assert Metric("loss", "loss").unit == "nats"
    own = Metric("accuracy", "accuracy", scale=1, definition="accuracy of the samples' classes")
    assert (own.scale, own.unit, own.definition) == (1, "", "accuracy of the samples' classes")
    assert replace(taken, label="probe").unit == "%"


def test_every_metric_of_a_spec_is_defined_under_its_tables(suite: Path) -> None:
    own = Metric("spread", "spread | of x", higher_is_better=False, definition="a measure that <only> this suite has")
    spec = replace(SPEC, columns=(*SPEC.columns, hit_rate("text_to_image", 1), hit_rate("text_to_image", 5), own))
    lines = metric_lines((spec.primary, *spec.columns))
    assert lines[0] == (
        "accuracy: share of items whose predicted class is the labelled one; higher is better; unit: share, from 0 "
        "(worst) to 1 (best)."
    )
    assert lines[1].startswith("ece (ECE): expected calibration error")
    assert lines[1].endswith(
        "lower is better; unit: share, from 1 (worst) to 0 (best); source: "
        "Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3."
    )
    head = "hit_rate@k (T→I hit@1 = text_to_image/hit_rate@1, T→I hit@5 = text_to_image/hit_rate@5): share of queries"
    assert lines[2].startswith(head)
    assert lines[3] == "spread (spread | of x): a measure that <only> this suite has; lower is better."
    paths = made(suite, spec)
    table, page = paths.table.read_text(), paths.html.read_text()
    for line in lines:
        assert f"- {line.replace('<', '&lt;')}" in table
        assert f"<li>{html.escape(line)}</li>" in page


@pytest.mark.parametrize(
    ("config", "fixed", "provenance"),
    [({}, True, ""), ({"draw": "fixed"}, True, ""), ({"draw": "per-seed"}, False, "drawn anew for every seed")],
)
def test_the_report_says_how_labels_were_drawn(
    tmp_path: Path, config: dict[str, str], fixed: bool, provenance: str
) -> None:
    for seed in range(2):
        write_run(tmp_path, "STL", "equal-steps", seed, items=20, knobs={"subset": config})
    summary = summary_of(tmp_path)
    assert (FIXED_DRAW in summary.remarks) == fixed
    assert summary.provenance.get("labels and validation carve", "") == provenance
    write_run(tmp_path, "STL", "equal-steps", 5, items=20, knobs={"subset": {"draw": "other"}})
    assert any("mix draws of the labels" in remark for remark in summary_of(tmp_path).remarks)


def test_operations_without_a_formula_are_named(tmp_path: Path) -> None:
    listing = {"my::attention": 12, "aten::odd": 3}
    write_run(tmp_path, "STL", "equal-steps", 0, items=20, flops={"total": 1e9, "unknown_operations": listing})
    write_run(tmp_path, "STL", "equal-steps", 1, items=20, flops={"total": 1e9, "unknown_operations": {}})
    remark = "training FLOPs leave out operations whose formula is not known: aten::odd, my::attention"
    assert remark in summary_of(tmp_path).remarks


def test_each_auxiliarys_schedule_is_shown(tmp_path: Path) -> None:
    schedules = {"contrastive": "off from 0.7", "masked_lm": "off from 0.3"}
    for seed in range(2):
        write_run(tmp_path, "Switch", "equal-steps", seed, items=20, schedules=schedules)
        write_run(tmp_path, "Switch", "equal-budget", seed, items=20, schedules=schedules | {"masked_lm": "<off>"})
        write_run(tmp_path, "STL", "equal-steps", seed, items=20)
    paths = made(tmp_path)
    assert "| Switch | off from 0.7 | &lt;off&gt; \\| off from 0.3 |" in paths.table.read_text()
    assert "Schedules of the auxiliaries" in paths.html.read_text()
    assert json.loads(paths.summary.read_text())["schedules"]["Switch"]["contrastive"] == "off from 0.7"


# -- looks -------------------------------------------------------------------------------------------------------------


def test_a_strategy_has_one_look_whatever_else_is_shown() -> None:
    known = tuple(LEVEL)
    found = looks(["Cosine", "STL"], known)
    assert found["Switch"] == looks(["Switch"], known)["Switch"] == ("#D55E00", "D")
    assert found["Cosine"] == LOOKS[5]
    assert looks(["B", "A"], known) == looks(["A", "B", "A"], known)
    assert [found[name].colour for name in known] == ["#000000", "#0072B2", "#E69F00", "#D55E00", "#009E73"]


def test_looks_are_distinct_beyond_the_table() -> None:
    assert len({look.colour for look in LOOKS}) == len(LOOKS) >= 16
    names = [f"strategy {number}" for number in range(60)]
    assert len(set(looks(names, ()).values())) == 60


def test_rows_of_strange_strategies_follow_the_known_ones(tmp_path: Path) -> None:
    for name in ("Switch", "STL"):
        write_run(tmp_path, name, "equal-steps", 0, items=20)
    records = load_records(tmp_path, "demo", "default")
    summary = summarise(records, SPEC, benchmark="demo", recipe="default", known=("Switch",))
    assert [row.strategy for row in summary.rows] == ["Switch", "STL"]


# -- all cases ---------------------------------------------------------------------------------------------------------


def test_the_table_of_all_cases_repeats_each_report(suite: Path) -> None:
    summary = summary_of(suite)
    cases = [("demo", SPEC, summary), ("other", SPEC, summary)]
    page = all_cases_page(cases, ["third: there are no <records>"])
    (table,) = page.tables
    assert [row[0] for row in table.body] == ["demo", *[""] * 7, "other", *[""] * 7]
    (full,) = (row for row in summary.of_view("equal-steps") if row.strategy == "MTL")
    fair = {row.strategy: row for row in summary.of_view("equal-budget")}
    for cells, row in zip(table.body, [full, *(fair[cells[2]] for cells in table.body[1:6])], strict=False):
        assert row.primary is not None
        assert cells[3].startswith(f"{100 * row.primary.estimate:.1f} ±")
        assert cells[7] == ("–" if row is full else f"{row.saved_of_full_multi:.0%}")
    assert [cells[2] for cells in table.body[:6]] == ["full MTL", *fair]
    assert [table.body[place][2] for place in sorted(table.faint)][:2] == ["floor: chance", "floor: language prior"]
    text = page_to_markdown(page)
    assert "- third: there are no &lt;records>" in text
    assert f"- demo: {FIXED_DRAW}" in text
    assert text.count("accuracy (") + text.count("- accuracy: ") == 1


def test_the_leaderboard_says_what_each_case_comes_to_and_every_row(suite: Path) -> None:
    summary = summary_of(suite)
    page = leaderboard_page([("demo", SPEC, summary)], ["third: no records"], "command")
    (lead,), (table,) = page.lead, page.tables
    assert lead.body[0][0] == "demo"
    assert lead.body[0][2] == finding_of(summary, SPEC)
    assert len(table.body) == len(summary.rows)
    for cells, row in zip(table.body, summary.rows, strict=True):
        assert row.primary is not None
        assert cells[:3] == ("demo", row.strategy, row.view)
        assert cells[4].startswith(f"{100 * row.primary.estimate:.1f} ±")
    assert page.links == (("demo", "demo/default/report.html"),)
    assert page.remarks[-1] == "third: no records"
    assert len(page.charts) == 1


def test_the_last_lines_say_the_finding_and_where_to_look(suite: Path) -> None:
    console = quiet(200)
    paths = made(suite, console=console)
    lines = [line for line in console.file.getvalue().splitlines() if line]  # type: ignore[attr-defined]
    assert lines[-1] == f"Look at {paths.html}"
    said = " ".join(lines[-5:-1])
    assert "Switch has the best accuracy of 5 strategies: " in said
    assert "Not decided: no margin" in said
    assert finding_of(summary_of(suite), SPEC) in paths.html.read_text().replace("&#x27;", "'")


# -- tables ------------------------------------------------------------------------------------------------------------


def test_a_narrow_terminal_gets_quality_and_cost_in_two_tables(suite: Path) -> None:
    narrow, wide = quiet(80), quiet(220)
    made(suite, console=narrow)
    made(suite, console=wide)
    lines = narrow.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "what it cost" in narrow.file.getvalue()  # type: ignore[attr-defined]
    assert "what it cost" not in wide.file.getvalue()  # type: ignore[attr-defined]
    assert max(len(line) for line in lines if not line.startswith((" " * 2, "raw", "!"))) <= 80


def test_flops_are_shown_in_a_unit_that_suits() -> None:
    assert (flops_unit([2e12, None]), flops_unit([5e9]), flops_unit([3e15]), flops_unit([])) == (
        "TFLOPs",
        "GFLOPs",
        "PFLOPs",
        "GFLOPs",
    )
    assert (flops_text(1.234e12, "TFLOPs"), flops_text(1.234e14, "TFLOPs"), flops_text(None, "TFLOPs")) == (
        "1.23",
        "123",
        "–",
    )
    assert reach_text(Reach(0.9, 2, 3, 1.5e12), "TFLOPs") == "1.5 (2 of 3 seeds)"
    assert reach_text(Reach(0.9, 0, 3, None), "TFLOPs") == "never"


def test_markup_in_cells_is_escaped() -> None:
    table = TextTable("a|b", ("x", "<y>"), (("a|b\nc", "*b* [l](u)"),), "_c_ & `d`")
    text = to_markdown(table)
    assert "| a\\|b c | \\*b\\* \\[l\\](u) |" in text
    assert "&lt;y&gt;" in text
    assert "\\_c\\_ &amp; \\`d\\`" in text
    assert ">*b*</span> <span class='whole'>[l](u)</span>" in to_html(table)
    assert "&lt;y&gt;" in to_html(table)
    console = quiet(60)
    console.print(to_rich(TextTable("[red]t", ("[b]h",), (("[link=x]c",),)), 60)[0])
    assert "[link=x]c" in console.file.getvalue()  # type: ignore[attr-defined]


def test_every_number_of_the_table_is_in_the_summary(suite: Path) -> None:
    """TABLE.md holds no number of its own: each cell of a view's table can be recomputed from summary.json."""
    paths = made(suite)
    rows = json.loads(paths.summary.read_text())["rows"]
    text = paths.table.read_text()
    text = text[text.index("### Equal budget") :]
    lines = [line for line in text.splitlines() if re.match(r"\| (STL|MTL|Diminish|Switch|Sampled)", line)]
    for line, row in zip(lines, rows[:5]):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == row["strategy"]
        assert cells[2].startswith(f"{100 * row['primary']['estimate']:.1f} ±")
        assert cells[6] == f"{row['steps']:.0f}"
        assert cells[7] == f"{row['flops'] / 1e12:.3g}"
    assert STEPS == 800


def test_a_run_that_learned_nothing_is_marked(tmp_path: Path) -> None:
    write_run(tmp_path, "STL", "equal-steps", 0, items=20, warnings=["all 20 test predictions are one class; lower it"])
    write_run(tmp_path, "STL", "equal-steps", 1, items=20, warnings=[])
    marked = [remark for remark in summary_of(tmp_path).remarks if "one class" in remark]
    assert marked == ["STL, seed 0 (equal-steps): all 20 test predictions are one class; lower it"]


def test_costs_beside_training_flops_have_columns_of_their_own() -> None:
    def run(seconds: float, **flops: int) -> dict[str, Any]:
        return {"phases_seconds": {"train": seconds}, "flops": {"total": 1, **flops}, "init_from": {"flops": 7}}

    cost = {each.name: each for each in COSTS}
    mine, full = [run(3.0, validation=4, optimiser=6), run(5.0, validation=6, optimiser=6)], [run(10.0)]
    assert cost["seconds_saved"].of(mine, full) == pytest.approx(0.6)
    assert cost["seconds_saved"].of(full, full) is None
    assert cost["seconds_saved"].of(mine, []) is None
    assert cost["seconds_saved"].text(0.6) == "60%"
    assert [cost[f"{name}_flops"].of(mine, full) for name in ("validation", "optimiser", "pretraining")] == [5, 6, 7]
    assert cost["validation_flops"].of(full, full) is None, "records of before"

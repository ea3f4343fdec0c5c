"""Quality against FLOPs: the monotone fit, where curves cross full MTL, the verdict, its sentence, power, families."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats
from sklearn.isotonic import IsotonicRegression

from benchmarks.cases.shared.clusters import clusters_of
from benchmarks.report.curve import Point, draw_points, fit_curve, interpolated, isotonic, log_grid
from benchmarks.report.families import confidence_of_look, holm, looks_until
from benchmarks.report.power import detectable, seeds_to_decide
from benchmarks.report.resampling import resample
from benchmarks.report.spec import Metric, ReportSpec, accuracy
from benchmarks.report.statistics import bootstrap, interval_of
from benchmarks.report.student import Interval, p_value, student_half_width
from benchmarks.report.verdict import Verdict, leading
from benchmarks.report.write import report
from mt2st.errors import Mt2stError
from tests.helpers.synthetic_runs import LEVEL, write_run

SPEC = ReportSpec(
    title="Demo", primary=accuracy(), margin=0.005, margin_reason="less than two runs of one setting differ by"
)


# -- the fit -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8))
def test_the_isotonic_fit_is_scikit_learns(values: list[float]) -> None:
    expected = IsotonicRegression().fit_transform(np.arange(len(values)), values)
    assert isotonic(np.array([values]))[0] == pytest.approx(expected, abs=1e-9)


def test_between_budgets_the_curve_is_a_line_over_log_flops() -> None:
    grid = log_grid(0.25, 1.0)
    assert (grid[0], grid[-1]) == (0.25, pytest.approx(1.0))
    assert (grid[1:] / grid[:-1]).max() < 1.01
    curve = interpolated(np.array([0.25, 0.5, 1.0]), np.array([[0.0, 1.0, 3.0]]), np.array([0.25, 0.25 * 2**0.5, 1.0]))
    assert curve[0] == pytest.approx([0.0, 0.5, 3.0])


def points(levels: dict[float, float], seeds: int = 8, items: int = 400, spread: float = 0.002) -> list[Point]:
    """Made-up points, share → level; all share their items' difficulty and a seed's luck."""
    random = np.random.default_rng(0)
    luck, hard = spread * random.standard_normal(seeds), 0.05 * random.standard_normal(items)
    rows = [[level + one + hard] for level in levels.values() for one in luck]
    found = resample(rows)
    return [Point(share, found.pick(range(place * seeds, (place + 1) * seeds))) for place, share in enumerate(levels)]


def test_the_drawn_points_have_the_interval_of_each_point() -> None:
    (point,) = points({0.44: 0.9}, seeds=20)
    drawn = draw_points([point], draws=20_000)[:, 0]
    interval = interval_of(point.found)
    assert drawn.mean() == pytest.approx(interval.estimate, abs=2e-4)
    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx([interval.low, interval.high], abs=6e-4)


def test_what_all_points_share_does_not_blur_a_difference() -> None:
    """Full MTL reaches 0.90; the strategy does so at 0.5, MTL only at 1; luck and items are the same everywhere."""
    *own, a, b, full = points({0.25: 0.88, 0.5: 0.90, 1.0: 0.91, 0.250001: 0.84, 1.000001: 0.9, 0.9999999: 0.9})
    curve = fit_curve("Fade", own, [a, b], full, 0.005)
    assert curve.to_full.estimate == pytest.approx(0.5, rel=0.01)
    assert (curve.to_full.low, curve.to_full.high) == pytest.approx((0.5, 0.5), rel=0.02)
    # 0.895 lies three quarters of the way from 0.88 to 0.90, over log FLOPs
    assert curve.no_loss == pytest.approx(0.25 * 2**0.75, rel=0.02)
    assert curve.ahead == pytest.approx(curve.no_loss)
    short = fit_curve("MTL", [a, b], [a, b], full, 0.005)
    assert short.no_loss == pytest.approx(0.25 * 4 ** (55 / 60), rel=0.02)
    assert short.ahead is None, "nothing is better than itself"
    assert fit_curve("Fade", own, [a, b], full, None).no_loss is None
    never = fit_curve("STL", own[:1], [a, b], full, 0.005)
    assert math.isinf(never.to_full.estimate)
    assert never.no_loss is None


# -- the verdict -------------------------------------------------------------------------------------------------------


def made(
    root: Path, spec: ReportSpec = SPEC, seeds: int = 4, looks: Sequence[int] = (), **fades: bool
) -> tuple[str, Path]:
    """A report of all strategies at full length and at 0.44: its table, and its folder.

    Args:
        fades: strategy → what its records say of that; those that are not named say nothing, as old ones do.
    """
    for name in LEVEL:
        says: dict[str, Any] = {"fades": fades[name]} if name in fades else {}
        says |= {"looks": list(looks)} if looks else {}
        for seed in range(seeds):
            write_run(root, name, "budget-0.44", seed, items=3000, **says)
            write_run(root, name, "equal-steps", seed, items=3000, **says)
    console = Console(quiet=True)
    paths = report("demo", "default", root, spec=spec, known=tuple(LEVEL), console=console)
    return paths.table.read_text(), paths.folder


def test_the_report_says_the_verdict_first_and_last(tmp_path: Path, capsys) -> None:
    text, folder = made(tmp_path)
    first = next(line for line in text.splitlines() if line.startswith("**"))
    assert any(word in first for word in ("Holds", "Fails", "Undecided"))
    assert "44% of full MTL's training FLOPs" in first
    assert "Largest saving at no loss" in first
    assert "### Iso-quality" in text
    assert SPEC.margin_reason in text
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    report("demo", "default", tmp_path, spec=SPEC, known=tuple(LEVEL))
    printed = capsys.readouterr().out.split("raw records:")[1]
    assert "44% of full MTL's training FLOPs" in " ".join(printed.split())


def test_the_sentence_names_what_saves_most_at_no_loss() -> None:
    def verdict(name: str, kind: str, p: float) -> Verdict:
        to_full, to_short = Interval(-0.01, -0.02, 0.0, 8, "seeds"), Interval(0.01, -0.01, 0.03, 8, "seeds")
        return Verdict(name, to_full, to_short, kind, p, None)

    full = points({1.0: 0.9})[0]
    curve = fit_curve("never", [full], [full], full, 0.005)
    saves, never = replace(curve, strategy="saves", no_loss=0.6), replace(curve, no_loss=None)
    undecided = [verdict("never", "undecided", 0.2), verdict("saves", "undecided", 0.3)]
    assert leading(undecided, [saves, never], SPEC.primary).strategy == "saves"
    assert leading(undecided, [never], SPEC.primary).strategy == "never", "without savings the smaller p"
    assert leading([*undecided, verdict("third", "holds", 0.01)], [saves], SPEC.primary).strategy == "third"


def test_without_a_margin_nothing_is_decided(tmp_path: Path) -> None:
    text, _ = made(tmp_path, replace(SPEC, margin=None, margin_reason=""))
    assert "Not decided: no margin δ is declared" in text
    with pytest.raises(Mt2stError, match="needs a margin_reason"):
        replace(SPEC, margin_reason="")


def test_a_control_bears_no_claim_out(tmp_path: Path) -> None:
    """Switch is the best of all; where its records say that it lets no auxiliary go, others are spoken of."""
    verdicts = {name: verdicts_of(made(tmp_path / str(name), Switch=name)[1]) for name in (True, False)}
    assert set(verdicts[True]) == {"Diminish", "Switch", "Sampled Diminish"}
    assert set(verdicts[False]) == {"Diminish", "Sampled Diminish"}
    assert "Switch is" in summary_of(tmp_path / "True")["iso"]["sentence"]
    assert "Switch is" not in summary_of(tmp_path / "False")["iso"]["sentence"]


def test_stars_and_headings_allow_for_the_looks(tmp_path: Path) -> None:
    """At the first of three looks a quarter of the 5 % may be spent."""
    once, _ = made(tmp_path / "once")
    looked, _ = made(tmp_path / "looked", looks=(4, 8, 16))
    rows = [summary_of(tmp_path / name)["rows"] for name in ("once", "looked")]
    for plain, careful in zip(*rows, strict=True):
        for column, p in plain["adjusted_p"].items():
            corrected = careful["adjusted_p"][column]
            assert corrected == (pytest.approx(min(1.0, 4 * p)) if p is not None else None)
    assert "accuracy, % (95 %)" in once
    assert "accuracy, % (98.75 %)" in looked
    assert "(95 %)" not in looked
    assert looked.count(r"\*") < once.count(r"\*")


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    found = verdicts_of(made(tmp_path / "four")[1])
    assert "fails" in found.values(), "Sampled Diminish lies far below full MTL"
    text, folder = made(tmp_path / "one", seeds=1)
    assert set(verdicts_of(folder).values()) == {"undecided"}
    assert "one seed says nothing of others" in text
    assert "many" not in text


def summary_of(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "demo" / "default" / "summary.json").read_text())
    return found


def verdicts_of(folder: Path) -> dict[str, str]:
    return {each["strategy"]: each["kind"] for each in summary_of(folder.parents[1])["iso"]["verdicts"]}


# -- power, families, clusters -----------------------------------------------------------------------------------------


def test_p_value_and_interval_agree() -> None:
    values = [0.3, 0.1, 0.2, 0.05, 0.4]
    of_seeds = np.var(values, ddof=1) / 5
    half = student_half_width(of_seeds, 0.0, 5, 0, 0.95)
    found = Interval(float(np.mean(values)), 0.0, 0.0, 5, "seeds", 0, of_seeds)
    assert half == pytest.approx(stats.t.ppf(0.975, 4) * math.sqrt(of_seeds))
    assert p_value(found) == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue)
    assert math.isnan(p_value(Interval(0.5, math.nan, math.nan, 1, "nothing")))


def test_the_said_number_of_seeds_decides_in_four_of_five_studies() -> None:
    pilot = Interval(0.01, 0.0, 0.02, 4, "seeds × items", 500, of_seeds=0.012**2 / 4, of_items=0.001**2)
    needed = seeds_to_decide(pilot, 0.0)
    assert needed is not None
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(2000):
        values = 0.01 + 0.012 * random.standard_normal(needed)
        items = 0.001 * random.standard_normal()
        half = student_half_width(values.var(ddof=1) / needed, 0.001**2, needed, 500, 0.95)
        hits += values.mean() + items > half
    assert 0.76 < hits / 2000 < 0.90
    assert detectable(pilot, needed) <= 0.01 < detectable(pilot, needed - 1)
    assert seeds_to_decide(replace(pilot, of_items=0.01**2), 0.0) is None, "the items alone leave more doubt"
    assert seeds_to_decide(replace(pilot, seeds=1), 0.0) is None


def test_holms_correction() -> None:
    assert holm([0.01, 0.04, 0.03, math.nan]) == pytest.approx([0.03, 0.06, 0.06, math.nan], nan_ok=True)
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_looking_several_times_keeps_the_chance_of_a_false_claim() -> None:
    """Means of nothing, looked at after 4, 8 and 16 seeds: one of nine is claimed uncorrected, corrected under 5 %."""
    looks = looks_until(16)
    assert looks == (4, 8, 16)
    random = np.random.default_rng(0)
    studies = random.standard_normal((4000, 16))

    def claimed(confidences: list[float]) -> float:
        any_claim = np.zeros(len(studies), bool)
        for look, confidence in zip(looks, confidences):
            part = studies[:, :look]
            half = stats.t.ppf((1 + confidence) / 2, look - 1) * part.std(axis=1, ddof=1) / math.sqrt(look)
            any_claim |= np.abs(part.mean(axis=1)) > half
        return float(any_claim.mean())

    assert claimed([0.95] * 3) > 0.09
    assert claimed([confidence_of_look(look, looks) for look in looks]) < 0.05
    assert [confidence_of_look(look, looks) for look in (4, 6, 8, 16, 20)] == pytest.approx(
        [0.9875, 0.9875, 0.9875, 0.975, 0.975]
    )


def test_items_of_one_cluster_are_drawn_together() -> None:
    """Each item ten times over says no more than once; taken as independent, the interval is √10 too narrow."""
    once = np.random.default_rng(0).random(80)
    items, clusters = np.repeat(once, 10), np.repeat(np.arange(80), 10)
    honest = bootstrap([[items]], clusters=clusters)
    assert honest.over == "clusters"
    assert honest.half_width == pytest.approx(bootstrap([[once]]).half_width, rel=0.05)
    assert bootstrap([[items]]).half_width == pytest.approx(honest.half_width / math.sqrt(10), rel=0.1)
    median = bootstrap([[items]], "median", clusters=clusters, resamples=300)
    assert median.half_width > 2 * bootstrap([[items]], "median", resamples=300).half_width
    with pytest.raises(Mt2stError, match="one cluster"):
        bootstrap([[items]], clusters=np.zeros(800, int))
    with pytest.raises(Mt2stError, match="one for each item"):
        bootstrap([[items]], clusters=clusters[:-1])


def test_clusters_are_numbered_and_the_nameless_are_alone() -> None:
    found = clusters_of(["b", "", "a", "b", None, ""])
    assert found.tolist() == [0, 1, 2, 0, 3, 4]
    assert found.dtype == np.int32


def test_runs_of_one_suite_need_the_same_clusters(tmp_path: Path) -> None:
    spec = ReportSpec(title="Demo", primary=Metric("accuracy", "accuracy", arrays=("score",), cluster="question_type"))
    write_run(tmp_path, "MTL", "equal-steps", 0, items=60)
    write_run(tmp_path, "MTL", "equal-steps", 1, items=60)
    paths = report("demo", "default", tmp_path, spec=spec, console=Console(quiet=True))
    assert "seeds × clusters" in paths.summary.read_text()

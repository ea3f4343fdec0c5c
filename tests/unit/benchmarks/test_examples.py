"""Examples of runs: written, read, refused when damaged, shown with every strategy's answers; charts and tables."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len
from rich.console import Console

from benchmarks.cases.shared.examples import sample_rows, thumbnail
from benchmarks.records.examples import EXAMPLES_FILE, Example, Examples, read_examples, write_examples
from benchmarks.records.read import load_records
from benchmarks.report.chart import Chart, Mark, Series, chart_html, colour_rules, marker_path, ticks
from benchmarks.report.gallery import Gallery, gallery_of
from benchmarks.report.gallery_html import gallery_html
from benchmarks.report.style import LOOKS
from benchmarks.report.text_table import TextTable, ends, print_tables
from mt2st.errors import Mt2stError
from mt2st.files import write_sealed_json
from tests.helpers.synthetic_runs import write_run

PICTURE = thumbnail(np.full((90, 40, 3), 7, np.uint8))


def example(place: int, given: str, score: float) -> Example:
    return Example(place, f"question {place}", ("red",), given, score, 0.25, "colour", pictures=("7",))


# -- files -------------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path: Path) -> None:
    examples = Examples((example(3, "red", 1.0), example(5, "blue", 0.3)), {"7": PICTURE}, "Question type")
    assert read_examples(tmp_path) is None
    write_examples(tmp_path, examples)
    assert read_examples(tmp_path) == examples
    with Image.open(io.BytesIO(PICTURE)) as image:
        assert image.size == (28, 64), "the longer side has 64 pixels"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"examples_version": 2}, "has version 2, this code reads 1"),
        ({"items": [{"item": 1}]}, "holds no examples (KeyError"),
        ({"items": 5}, "holds no examples (TypeError"),
        ({"pictures": {"a": "no base64!"}}, "holds no examples"),
        ({"pictures": {"a": "aGVsbG8="}}, "picture 'a' is no PNG"),
    ],
)
def test_a_foreign_file_is_refused_in_one_line(tmp_path: Path, change: dict[str, object], text: str) -> None:
    value = {"examples_version": 1, "kinds": "kind", "items": [], "pictures": {}, **change}
    write_sealed_json(tmp_path / EXAMPLES_FILE, value)
    with pytest.raises(Mt2stError) as caught:
        read_examples(tmp_path)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_score_out_of_range_is_refused(tmp_path: Path) -> None:
    write_examples(tmp_path, Examples((example(1, "red", 1.5),), {"7": PICTURE}))
    with pytest.raises(Mt2stError, match=r"score = 1\.5"):
        read_examples(tmp_path)


def test_too_many_examples_and_what_is_no_picture_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(Mt2stError, match="61 examples are more than 60"):
        write_examples(tmp_path, Examples(tuple(example(place, "a", 0.0) for place in range(61))))
    with pytest.raises(Mt2stError, match="is no PNG"):
        write_examples(tmp_path, Examples((), {"7": b"GIF89a"}))


def test_the_sample_depends_on_the_number_of_items_alone() -> None:
    rows = sample_rows(1000)
    assert rows.tolist() == sorted(set(sample_rows(1000).tolist()))
    assert len(rows) == 60
    assert rows.max() < 1000
    assert sample_rows(7).tolist() == list(range(7))


# -- the gallery -------------------------------------------------------------------------------------------------------


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    answers = {
        ("STL", 0): ("blue", "red"),
        ("STL", 1): ("green", "red"),
        ("MTL", 0): ("red", "red"),
        ("MTL", 1): ("red", "blue"),
    }
    for (strategy, seed), given in answers.items():
        folder = write_run(tmp_path, strategy, "equal-steps", seed, items=10).path
        items = tuple(example(place, text, float(text == "red")) for place, text in enumerate(given))
        write_examples(folder, Examples(items, {"7": PICTURE, "unused": PICTURE}, "Question type"))
    (write_run(tmp_path, "Switch", "equal-steps", 0, items=10).path / EXAMPLES_FILE).write_text("torn")
    found, remarks = gallery_of(load_records(tmp_path, "demo", "default").finished, "equal-steps", ["STL", "MTL"])
    assert len(remarks) == 1
    assert EXAMPLES_FILE in remarks[0]
    assert found is not None
    return found


def test_items_where_strategies_differ_most_come_first_with_all_seeds_answers(gallery: Gallery) -> None:
    first, second = gallery.asked
    assert first.example.question == "question 0"
    assert [(given.strategy, given.score, given.seeds) for given in first.given] == [("STL", 0.0, 2), ("MTL", 1.0, 2)]
    assert first.given[0].answer == "blue", "of answers as frequent as each other, the first seed's"
    assert "blue ×1, green ×1" in first.given[0].more
    assert second.given[1].score == 0.5
    assert (first.spread, second.spread) == (0.5, 0.25)
    assert set(gallery.pictures) == {"7"}, "pictures that nothing shows are left out"
    assert gallery.kinds == "Question type"


def test_the_gallery_marks_right_and_wrong(gallery: Gallery) -> None:
    text = gallery_html(gallery)
    assert text.count("✓</span>") == 2
    assert text.count("✗</span>") == 1
    assert text.count("◐</span>") == 1
    assert text.index("question 0") < text.index("question 1")
    assert "data-differ='0' data-worst='0' data-written='0' data-right='0'" in text


def test_runs_without_examples_have_no_gallery(tmp_path: Path) -> None:
    write_run(tmp_path, "STL", "equal-steps", 0, items=10)
    assert gallery_of(load_records(tmp_path, "demo", "default").finished, "equal-steps", ["STL"]) == (None, ())


# -- charts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (97.1, 99.6, 6, [97.5, 98, 98.5, 99, 99.5]),
        (3e-5, 9e-5, 3, [4e-5, 6e-5, 8e-5]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, most: int, expected: list[float]) -> None:
    assert ticks(low, high, most) == pytest.approx(expected)


def test_a_chart_draws_every_mark_where_its_values_are() -> None:
    marks = (Mark(0.1, 50.0, 49.0, 51.0, "a"), Mark(1.0, 70.0, float("nan"), float("nan"), "b <i>"))
    series = Series("S", "#0072B2", "s", marks=marks, lines=(((0.1, 50.0), (1.0, 70.0)),))
    text = chart_html(Chart("t", "x", "y", (series,), levels=(("full", 70.0),), log_x=True))
    assert text.count("class='mark'") == 3, "two marks and the legend's"
    assert text.count("class='bar'") == 1
    assert "data-p='0.1,50'" in text
    assert "b &lt;i&gt;" in text
    assert chart_html(Chart("t", "x", "y", ())) == ""
    assert chart_html(Chart("t", "x", "y", (Series("one", "#000000", "o", marks=marks[:1]),))) != ""


def test_every_look_has_an_outline_of_its_own_and_a_colour_for_dark_pages() -> None:
    outlines = {marker: marker_path(marker) for _, marker in LOOKS}
    assert len(set(outlines.values())) == len(outlines)
    rules = colour_rules(["#000000", "#56B4E9"])
    assert ".c000000 { color: #000000; }" in rules
    assert ".c000000 { color: #9e9e9e; }" in rules


# -- tables on a terminal ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 120])
def test_a_wide_table_goes_on_below_and_no_column_is_squeezed(width: int) -> None:
    head = ("strategy", *(f"kind.number{place}" for place in range(45)))
    body = tuple((name, *["97.9 ± 1.5"] * 45) for name in ("STL", "Sampled Diminish"))
    console = Console(file=io.StringIO(), width=width)
    print_tables([TextTable("by kind", head, body)], console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(cell_len(line.rstrip()) for line in text.splitlines()) <= width
    assert text.count("97.9 ± 1.5") == 90, "no value is broken"
    for name in head:
        assert name in text
    assert "by kind (continued)" in text


def test_many_kinds_stand_below_each_other_the_worst_and_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    tall = TextTable("by kind", ("kind", "STL"), tuple((f"kind {place:02}", f"{place}.0") for place in range(45)))
    table = replace(tall, head=("strategy", *(row[0] for row in tall.body)), body=(("STL", "1.0"),), tall=tall)
    console = Console(file=io.StringIO(), width=80)
    print_tables([table], console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    shown = [line.split()[1] for line in text.splitlines() if line.lstrip().startswith("kind ") and "STL" not in line]
    assert shown == ["00", "01", "02", "03", "41", "42", "43", "44"]
    assert "the 4 worst and the 4 best of 45" in " ".join(text.split())
    assert ends(replace(tall, body=tall.body[:8])) == replace(tall, body=tall.body[:8])

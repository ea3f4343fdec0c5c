"""SVG pictures: drawn alike whatever the file is called, and hostile ones are one bad image each."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import svg
from data_prep.check import check
from data_prep.decode import without_svg
from data_prep.find import find_adapter
from data_prep.prepare import prepare
from data_prep.preview import preview
from data_prep.svg import draw_svg, is_svg
from mt2st.data.images import DEFAULT_MAX_PIXELS, ImageError, load_rgb
from mt2st.data.prepared import PreparedDataset
from mt2st.errors import Mt2stError

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" '
HALF = HEAD + 'width="20" height="10"><rect width="10" height="10" fill="red"/></svg>'
ADAPTER = """
from pathlib import Path
from mt2st.data.card import DatasetCard, Example

CARD = DatasetCard(name="drawings", title="Drawings", task="retrieval", source="drawn", revision="1", licence="CC0-1.0",
                   splits={"train": None}, main_metric="hit_rate@1")


def examples(split):
    for path in sorted((Path(__file__).parent / "pictures").iterdir()):
        yield Example(image=path, image_id=path.stem, captions=(path.stem,))
"""


def pixels(text: str, side: int = 20) -> np.ndarray:
    return np.asarray(load_rgb(draw_svg(text.encode(), side, "x.svg")))


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "half.svg").write_text(HALF)
    (tmp_path / "pictures" / "misnamed.png").write_text(f'<?xml version="1.0"?>\n<!-- by hand -->\n{HALF}')
    Image.new("RGB", (20, 10), (0, 0, 255)).save(tmp_path / "pictures" / "pixels.png")
    (tmp_path / "drawings.py").write_text(ADAPTER)
    return tmp_path / "drawings.py"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HALF, True),
        ("\ufeff  " + HALF, True),
        ('<?xml version="1.0"?><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "x.dtd">' + HALF, True),
        ('<s:svg xmlns:s="http://www.w3.org/2000/svg"/>', True),
        ("<svg/>", True),
        ("<html><body/></html>", False),
        ("<svgs/>", False),
        ("svg", False),
        ("", False),
    ],
)
def test_the_content_decides_what_is_an_svg(text: str, expected: bool) -> None:
    assert is_svg(text.encode()) == expected


def test_the_longer_side_is_as_asked_and_the_ground_is_white() -> None:
    drawn = pixels(HALF, 40)
    assert drawn.shape == (20, 40, 3)
    assert (drawn[:, :19] == (255, 0, 0)).all()
    assert (drawn[:, 21:] == 255).all()
    assert pixels(HEAD + 'viewBox="0 0 3 4"/>', 40).shape == (40, 30, 3)


def test_a_claimed_size_costs_nothing() -> None:
    assert pixels(HEAD + 'width="1000000" height="500000"/>', 20).shape == (10, 20, 3)


def test_the_limit_on_pixels_holds() -> None:
    drawn = without_svg(HALF.encode(), side=64, max_pixels=100, name="x")
    assert load_rgb(drawn, max_pixels=100).size == (10, 5)


def test_other_images_pass_untouched() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (2, 2)).save(stream, "PNG")
    picture = Image.new("RGB", (2, 2))
    for image in (stream.getvalue(), picture, Path("there is none")):
        assert without_svg(image, side=8, max_pixels=DEFAULT_MAX_PIXELS, name="x") is image


@pytest.mark.parametrize("store", ["pixels", "encoded"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_of_drawings_is_prepared(drawings: Path, store: str, workers: int) -> None:
    folder = prepare(drawings, out=drawings.parent / "out", image_size=8, store=store, workers=workers)
    train = PreparedDataset.open(folder).split("train")
    half, misnamed, blue = train.pixels([0, 1, 2])
    assert (half == misnamed).all()
    assert (half[:, :3] == (255, 0, 0)).all()
    assert (half[:, 5:] == 255).all()
    assert (blue == (0, 0, 255)).all()


def test_check_and_preview_draw_too(drawings: Path) -> None:
    report = check(find_adapter(drawings), workers=0)
    assert not report.problems
    assert "1 images repeat another" in report.text()
    page, _ = preview(find_adapter(drawings), drawings.parent / "shown")
    assert page.read_text().count("<img ") == 3


# -- hostile texts -----------------------------------------------------------------------------------------------------

BAD = {
    "negative size": (HEAD + 'width="-10" height="20"/>', "invalid size"),
    "no size at all": (HEAD + 'width="0" height="0"/>', "invalid size"),
    "cut off": (HALF[:90], "cannot be drawn"),
    "not text": (HALF[:60] + "\udcff", "no UTF-8 at byte 60"),
    "a file as an image": (HEAD + 'width="9" height="9"><image href="/etc/passwd"/></svg>', "holds another image"),
    "a file, with a prefix": (HEAD + 'width="9" height="9"><s:image href="x.png"/></svg>', "holds another image"),
    "an address in a filter": (HEAD + '><filter><feImage href="https://a.b/"/></filter></svg>', "another image"),
    "entity": (f'<!DOCTYPE svg [<!ENTITY x "y">]>{HALF}', "defines entities"),
    "letters": (HEAD + 'width="9" height="9"><text y="9">lost</text></svg>', "with letters"),
}
G = '<g opacity=".5">'
USES = "".join(f'<g id="a{n + 1}">' + f'<use href="#a{n}"/>' * 10 + "</g>" for n in range(8))
KILLS = {
    "nested": HEAD + f'width="9" height="9">{G * 500}<rect width="9" height="9"/>{"</g>" * 500}</svg>',
    "tiles of 100 TB": HEAD + 'width="9" height="9"><pattern id="p" width="1e7" height="1e7" '
    'patternUnits="userSpaceOnUse"><rect width="1" height="1"/></pattern>'
    '<rect width="1e7" height="1e7" fill="url(#p)"/></svg>',
    "endless noise": HEAD + 'width="300" height="300"><filter id="f"><feTurbulence numOctaves="10000000" '
    'baseFrequency="0.1"/></filter><rect width="300" height="300" filter="url(#f)"/></svg>',
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_text_that_breaks_a_rule_is_a_bad_image(name: str) -> None:
    text, message = BAD[name]
    with pytest.raises(ImageError, match=rf"^x\.svg is an SVG .*{message}.*; [^\n]+$"):
        draw_svg(text.encode(errors="surrogateescape"), 20, "x.svg")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limits on a process")
@pytest.mark.parametrize("name", list(KILLS))
def test_what_kills_the_drawing_process_is_a_bad_image(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svg, "CPU_SECONDS", 1)
    with pytest.raises(ImageError, match=r"x\.svg is an SVG that cannot be drawn \(it needs more than 1 s or 2 GB"):
        draw_svg(KILLS[name].encode(), 300, "x.svg")
    assert pixels(HALF).shape == (10, 20, 3), "the next picture is drawn by another process"


def test_uses_of_uses_are_bounded() -> None:
    with pytest.raises(ImageError, match="cannot be drawn"):
        pixels(HEAD + f'width="9" height="9"><rect id="a0" width="1" height="1"/>{USES}</svg>')


def test_a_text_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svg, "MAX_TEXT_BYTES", len(HALF) - 1)
    sizes = f"{len(HALF)} bytes, above the limit {len(HALF) - 1}"
    with pytest.raises(ImageError, match=rf"x\.svg is an SVG of {sizes}; simplify it"):
        pixels(HALF)


def test_an_address_is_not_asked_for() -> None:
    """Styles and paints may name addresses, which resvg leaves alone."""
    style = "<style>@import url(http://127.0.0.1:9/x.css); rect {fill: url(http://127.0.0.1:9/x.svg#p)}</style>"
    drawn = pixels(HEAD + f'width="20" height="10">{style}<rect width="10" height="10" style="fill:red"/></svg>')
    assert drawn.shape == (10, 20, 3)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svg, "find_spec", lambda name: None)
    with pytest.raises(ImageError, match=r"needs the package resvg-py; pip install -e '\.\[data\]'$"):
        pixels(HALF)


def test_one_bad_svg_is_left_out_and_counted(drawings: Path) -> None:
    (drawings.parent / "pictures" / "bad.svg").write_text(BAD["negative size"][0])
    with pytest.raises(Mt2stError, match=r"drawings/train image 'bad' \(.*bad\.svg\) is an SVG .*invalid size"):
        prepare(drawings, out=drawings.parent / "out", image_size=8, workers=0)
    folder = prepare(drawings, out=drawings.parent / "out", image_size=8, workers=0, on_error="skip")
    assert PreparedDataset.open(folder).manifest["counts"]["train"]["skipped_images"] == 1


def test_a_forked_child_draws_by_a_process_of_its_own() -> None:
    assert pixels(HALF).shape == (10, 20, 3)
    before = svg._PAINTER._process
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, bytes([svg._PAINTER._running() is not before]))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 1) == b"\1"
    assert svg._PAINTER._running() is before

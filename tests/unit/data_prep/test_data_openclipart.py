"""Open Clip Art: titles, groups, and what is left out, on drawings written here."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.adapters import openclipart
from mt2st.errors import Mt2stError

pytest.importorskip("resvg_py")


def drawing(path: Path, title: str, keywords: tuple[str, ...] = (), colour: str = "red", head: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    items = "".join(f"<rdf:li>{word}</rdf:li>" for word in keywords)
    path.write_text(
        f'{head}<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><metadata>'
        '<rdf:RDF xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f"<dc:title>{title}</dc:title><dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject></rdf:RDF></metadata>"
        f'<rect width="6" height="6" fill="{colour}"/></svg>'
    )


def captions(source: Path) -> dict[str, tuple[str, ...]]:
    found = [example for split in openclipart.CARD.splits for example in openclipart.examples(split, source=source)]
    return {example.image_id: tuple(example.captions) for example in found}


def groups(source: Path) -> dict[str, object]:
    found = [example for split in openclipart.CARD.splits for example in openclipart.examples(split, source=source)]
    return {example.image_id: example.extra["group"] for example in found}


def test_the_title_comes_first_and_empty_keywords_are_dropped(tmp_path: Path) -> None:
    drawing(tmp_path / "a.svg", " Red\n bird ", ("animal", "", "hash", "united_nations"))
    drawing(tmp_path / "b.svg", "Clipart by Ann Example - red fox", (), "blue")
    assert captions(tmp_path) == {
        "a.svg": ("Red bird", "Red bird: animal, united nations", "animal, united nations"),
        "b.svg": ("red fox",),
    }


def test_equal_pictures_are_one_with_all_titles(tmp_path: Path) -> None:
    drawing(tmp_path / "food" / "apple.svg", "apple")
    drawing(tmp_path / "plants" / "fruit.svg", "fruit")
    drawing(tmp_path / "plants" / "pear.svg", "pear", colour="green")
    assert captions(tmp_path) == {"food/apple.svg": ("apple", "fruit"), "plants/pear.svg": ("pear",)}
    assert openclipart.left_out(source=tmp_path) == {
        "files": 3, "without_a_title_of_their_own": 0, "refused_by_the_rules_for_svg": 0, "same_picture_as_another": 1,
    }  # fmt: skip


def test_series_titles_and_pixels_make_groups(tmp_path: Path) -> None:
    drawing(tmp_path / "bird_ann_01.svg", "bird")
    drawing(tmp_path / "bird_ann_02b.svg", "flying bird", colour="blue")  # of the series
    drawing(tmp_path / "vogel.svg", "Bird", colour="green")  # of the title
    drawing(tmp_path / "birds.svg", "two birds", colour="yellow")
    found = groups(tmp_path)
    assert found["bird_ann_01.svg"] == found["bird_ann_02b.svg"] == found["vogel.svg"] != found["birds.svg"]


def test_a_title_that_many_carry_is_a_collections(tmp_path: Path) -> None:
    for number in range(openclipart.MOST_OF_A_TITLE + 1):
        drawing(tmp_path / f"icon{number}.svg", "Icon theme", colour=f"#0000{number + 16:x}")
    drawing(tmp_path / "sun.svg", "sun", colour="yellow")
    assert list(captions(tmp_path)) == ["sun.svg"]
    assert openclipart.left_out(source=tmp_path)["without_a_title_of_their_own"] == openclipart.MOST_OF_A_TITLE + 1


def test_entities_letters_and_broken_files_are_left_out(tmp_path: Path) -> None:
    drawing(tmp_path / "bomb.svg", "&a;", head='<!DOCTYPE svg [<!ENTITY a "aaaa">]>')
    drawing(tmp_path / "sun.svg", "sun")
    (tmp_path / "letters.svg").write_text((tmp_path / "sun.svg").read_text().replace("<rect", "<text>A</text><rect"))
    (tmp_path / "torn.svg").write_text("<svg><metadata>")
    (tmp_path / "link.svg").symlink_to(tmp_path / "sun.svg")
    assert list(captions(tmp_path)) == ["sun.svg"]
    assert openclipart.left_out(source=tmp_path)["refused_by_the_rules_for_svg"] == 1


def test_no_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Mt2stError, match=r"holds no \.svg file"):
        list(openclipart.examples("train", source=tmp_path))

"""A case names its auxiliaries once, beside their builders."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import cases as cases_package
from benchmarks.cases import auxiliary_names, case_names, load_card
from benchmarks.cases.shared.auxiliaries import build_auxiliaries
from mt2st.errors import Mt2stError


@pytest.mark.parametrize("name", case_names())
def test_knobs_know_what_the_case_builds(name: str) -> None:
    module = import_module(f"benchmarks.cases.{name}.case")
    kind: Any = getattr(module, f"{name.title()}Case")
    knobs = load_card(name).module.Knobs
    assert tuple(kind.AUXILIARIES) == knobs.AUXILIARIES
    assert set(knobs().auxiliaries) <= set(knobs.AUXILIARIES)


def test_names_are_read_from_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases_package, "CASES_FOLDER", tmp_path)
    (tmp_path / "two_words").mkdir()
    file = tmp_path / "two_words" / "case.py"
    for text, names in (
        ("AUXILIARIES_OF_OTHERS = {'c': 1}\nclass A:\n    AUXILIARIES = {'a': print, 'b': print}\n", ("a", "b")),
        ("import absent\nclass A:\n    AUXILIARIES: dict = {}\n", ()),
        ("class A:\n    pass\n", ()),
    ):
        file.write_text(text)
        assert auxiliary_names("two-words") == names
    file.write_text("AUXILIARIES = dict(a=print)\n")
    with pytest.raises(Mt2stError, match="line 1: AUXILIARIES must be a dict"):
        auxiliary_names("two-words")


def made(*names: str) -> list[Any]:
    builders = {
        "right": lambda case, encoder: SimpleNamespace(name="right", parts=(case, encoder)),
        "wrong": lambda case, encoder: SimpleNamespace(name="right"),
    }
    return build_auxiliaries(SimpleNamespace(AUXILIARIES=builders, knobs=SimpleNamespace(auxiliaries=names)), "encoder")


def test_no_auxiliary_is_built_as_another_one() -> None:
    (built,) = made("right")
    assert built.parts[1] == "encoder"
    assert built.parts[0].knobs.auxiliaries == ("right",)
    with pytest.raises(Mt2stError, match="auxiliary 'wrong' was built as 'right'"):
        made("right", "wrong")
    with pytest.raises(Mt2stError, match="did you mean 'right'"):
        made("rihgt")

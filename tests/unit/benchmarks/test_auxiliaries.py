"""No auxiliary is trained as another one: every name that a case lists has a factory of its own."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.cases import case_names, load_card
from benchmarks.cases.shared.auxiliaries import build_auxiliaries
from mt2st.errors import Mt2stError

CASES = Path(__file__).parents[3] / "benchmarks" / "cases"


def objective(name: str) -> Any:
    return SimpleNamespace(name=name)


def test_objectives_come_in_the_order_of_their_names() -> None:
    factories = {name: lambda name=name: objective(name) for name in ("a", "b", "c")}
    assert [built.name for built in build_auxiliaries(("c", "a"), factories)] == ["c", "a"]


def test_a_name_without_a_factory_is_an_error() -> None:
    with pytest.raises(Mt2stError, match=r"unknown auxiliary 'matchin'; did you mean 'matching'\?.*no branch"):
        build_auxiliaries(("matchin",), {"matching": lambda: objective("matching")})


def test_an_objective_of_another_name_is_an_error() -> None:
    with pytest.raises(Mt2stError, match="auxiliary 'sigmoid' was built as 'contrastive'; give the objective name="):
        build_auxiliaries(("sigmoid",), {"sigmoid": lambda: objective("contrastive")})


@pytest.mark.parametrize("name", case_names())
def test_every_case_has_a_factory_for_each_name_it_lists(name: str) -> None:
    tree = ast.parse((CASES / name / "case.py").read_text(encoding="utf-8"))
    (factories,) = [
        node.args[1]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "build_auxiliaries"
    ]
    assert isinstance(factories, ast.Dict)
    knobs = load_card(name).knobs("default")
    assert [ast.literal_eval(key) for key in factories.keys if key] == list(knobs.AUXILIARIES)

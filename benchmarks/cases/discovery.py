"""Cases, found by folder in benchmarks/cases/: no registry to edit. Imports a case's module, and nothing else.

A case is one file, importable without torch:

    \"\"\"One line that says what is trained on what (shown by `python -m benchmarks list`).\"\"\"

    @dataclass(frozen=True)
    class Knobs:
        steps: int = 800
        \"\"\"optimiser steps\"\"\"

    SPEC = ReportSpec(…)                                   # what its report shows
    RECIPES = {"default": Knobs(), "vqa-full": Knobs(labels=1.0)}   # optional; without it "default" is Knobs()

    def smoke(knobs: Knobs) -> Knobs:                      # the same in seconds
        return replace(knobs, steps=20)

    def run(knobs: Knobs, results: Path, recipe: str = "default") -> int:   # heavy imports in here; 0, or 1 if a seed
    failed
        …

    def resume(run_dir: Path) -> int:                      # optional: go on with one run
        …
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.report.spec import ReportSpec
from mt2st.errors import Mt2stError, unknown_name

CASES_FOLDER = Path(__file__).parent
_PACKAGE = "benchmarks.cases"


@dataclass(frozen=True)
class Case:
    """A case as its module defines it.

    Attributes:
        name: file stem, with dashes for underscores.
        about: first line of the module's docstring.
        recipes: recipe name → knobs.
    """

    name: str
    about: str
    spec: ReportSpec
    recipes: Mapping[str, Any]
    module: Any

    def knobs(self, recipe: str, *, smoke: bool = False) -> Any:
        """The knobs of `recipe`, in its smoke form on request.

        Raises:
            Mt2stError: unknown recipe (with the nearest names), or the case has no smoke form.
        """
        if recipe not in self.recipes:
            raise unknown_name(f"recipe of {self.name}", recipe, self.recipes)
        knobs = self.recipes[recipe]
        if not smoke:
            return knobs
        if not hasattr(self.module, "smoke"):
            raise Mt2stError(
                f"case {self.name} has no smoke form; define smoke(knobs) in {self.module.__file__}, or leave --smoke "
                "out"
            )
        return self.module.smoke(knobs)

    def run(self, knobs: Any, results: Path, recipe: str) -> int:
        """Run the suite; returns the exit code. The recipe's name is passed on to a `run` that takes it."""
        function: Callable[..., int] = self.module.run
        if "recipe" in inspect.signature(function).parameters:
            return function(knobs, results, recipe=recipe)
        return function(knobs, results)


def case_names() -> list[str]:
    """Names of all cases, sorted, from the files alone."""
    return sorted(path.parent.name.replace("_", "-") for path in CASES_FOLDER.glob("*/knobs.py"))


def about_case(name: str) -> str:
    """First line of the case's docstring, read without importing it; "" where there is none."""
    path = CASES_FOLDER / name.replace("-", "_") / "knobs.py"
    try:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    except SyntaxError as error:
        return f"(line {error.lineno} cannot be read: {error.msg})"
    return (docstring or "").split("\n")[0]


def load_case(name: str) -> Case:
    """Import the case `name`.

    Raises:
        Mt2stError: no such file (with the nearest names), or it lacks what a case needs.
    """
    if name not in case_names():
        raise unknown_name("case", name, case_names())
    module: Any = import_module(f"{_PACKAGE}.{name.replace('-', '_')}.knobs")
    if missing := [attribute for attribute in ("Knobs", "SPEC", "run") if not hasattr(module, attribute)]:
        raise Mt2stError(
            f"{module.__file__} lacks {', '.join(missing)}; see benchmarks/cases/discovery.py for what a case defines"
        )
    if not (hasattr(module.Knobs, "__dataclass_fields__") and isinstance(module.SPEC, ReportSpec)):
        raise Mt2stError(f"{module.__file__}: Knobs must be a dataclass and SPEC a ReportSpec")
    recipes = getattr(module, "RECIPES", None) or {"default": module.Knobs()}
    return Case(name, about_case(name), module.SPEC, dict(recipes), module)

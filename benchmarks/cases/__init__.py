"""Cases: what is asked of a model. One folder each, found by its name; imports nothing heavy.

    cases/<case>/README.md    method card
    cases/<case>/knobs.py     what can be set, recipes, what the report shows; imports no torch, never its case
    cases/<case>/case.py      the class `<Case>Case`: data, model, objectives; its AUXILIARIES names those it can build

A `knobs.py` holds:

    \"\"\"One line that says what is trained on what (shown by `python -m benchmarks list`).\"\"\"

    @dataclass(frozen=True)
    class Knobs(SuiteKnobs):                               # benchmarks.cases.shared.suite_knobs, or one that extends it
        AUXILIARIES: ClassVar[tuple[str, ...]] = auxiliary_names("<case>")
        image_size: int = 32
        \"\"\"height and width of images, in pixels\"\"\"

    SPEC = ReportSpec(…)                                   # what its report shows
    RECIPES = {"default": Knobs(…), "all-labels": …}       # optional; without it "default" is Knobs(). Added: `curve`,
                                                           # and those that strategies name (`controls`)

    def smoke(knobs: Knobs) -> Knobs:                      # the same in seconds
        return replace(knobs, steps=20)
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.records.examples import Examples
from benchmarks.report.spec import ReportSpec
from benchmarks.strategies import default_strategies, strategy_recipes
from mt2st.errors import Mt2stError, unknown_name

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from mt2st.encoders.fine_tuning import RateGroup
    from mt2st.encoders.freezing import Freezes
    from mt2st.objectives import Objective
    from mt2st.training.trainer import Stream

CASES_FOLDER = Path(__file__).parent
PACKAGE = "benchmarks.cases"
CURVE = "curve"  # every case's recipe of quality against FLOPs: the default one at more budgets
CURVE_BUDGETS = (0.2, 0.3, 0.44, 0.6, 0.8, 1.0)
PRIMARY, AUXILIARY = "primary", "auxiliary"  # the streams of an experiment


@dataclass
class TestResult:
    """What a case measures on the test split, once, after training.

    Attributes:
        metrics: metric id → value.
        items: name → per-item array [n_items].
        group_names: item array of codes → names of the codes.
        floors: floor's name → metric id → value; what a model must beat.
        examples: a few test items with the model's answers, for people to look at; None = none are kept.
    """

    __test__ = False  # no test class, whatever pytest thinks of the name

    metrics: dict[str, float]
    items: dict[str, np.ndarray]
    group_names: dict[str, list[str]] = field(default_factory=dict)
    floors: dict[str, dict[str, float]] = field(default_factory=dict)
    examples: Examples | None = None


@dataclass(frozen=True)
class Tuning:
    """How an encoder is tuned; `cases/shared/fine_tuning.py` makes it of knobs.

    Attributes:
        rates: the parameters that are trained at a learning rate of their own.
        freezes: the parts that are frozen for a part of the training; None = there are none.
        run_once: runs each tower that is frozen all the time over all its inputs, unless its outputs are kept already,
            and lets it read them. Call it when the encoder has its final frozen weights and is on its device. It gets a
            function for lines that say what will be done, and returns what each pass was and cost, whoever made it.
    """

    rates: Sequence[RateGroup] = ()
    freezes: Freezes | None = None
    run_once: Callable[[Callable[[str], None]], list[dict[str, Any]]] = lambda announce: []


@dataclass(frozen=True)
class Loadable:
    """How `mt2st.load` makes a trained model again; see `mt2st.trained.description`.

    Attributes:
        kind: a kind of `mt2st.trained`.
        build: the kind's own settings, plain values.
        files: those of the files that `Experiment.save` may write which belong to the model.
        checkpoint: the pretrained towers or model that it is built from, as its knob names them; "" = none. What is
            needed to build them without their weights goes into the run's folder.
    """

    kind: str
    build: Mapping[str, Any]
    files: tuple[str, ...] = ()
    checkpoint: str = ""


@dataclass
class Experiment:
    """A freshly built model with its tasks and data, for one seed.

    Attributes:
        encoder: an `nn.Module` with `features(batch)`.
        primary: the primary objective; draws from stream "primary".
        auxiliaries: the auxiliary objectives; draw from stream "auxiliary", one batch for all of them.
        streams: "primary" and "auxiliary".
        validate: metrics on the validation split.
        validation_streams: makes the same streams over the validation split, for schedules that listen.
        test: metrics on the test split; called once, after training.
        save: writes what belongs to the run besides its record (tokenizer, embeddings, pictures) into the run's folder.
        tuning: what is trained at a learning rate of its own, what is frozen and when.
        data: counts of the labels and validation items drawn for this seed.
        loadable: how the trained model is loaded from the run's folder; None = it cannot be.
    """

    encoder: Any
    primary: Objective
    auxiliaries: Sequence[Objective]
    streams: Mapping[str, Stream]
    validate: Callable[[], Mapping[str, float]]
    test: Callable[[], TestResult]
    validation_streams: Callable[[], Mapping[str, Stream]] = dict
    save: Callable[[Path], None] = lambda folder: None
    tuning: Tuning = field(default_factory=lambda: Tuning())
    data: Mapping[str, Any] = field(default_factory=dict)
    loadable: Loadable | None = None


class Case(Protocol):
    """A case with its data prepared."""

    @property
    def data(self) -> Mapping[str, Any]:
        """Name, revision, content hash and counts of the data; equal for all seeds."""

    def build(self, seed: int) -> Experiment:
        """A new experiment. The same seed gives the same initial weights and data order."""


class DrawnPerSeed:
    """A case whose labelled subset and validation carve are drawn anew for each seed.

    Attributes:
        data: of seed 0; an experiment holds what was counted for its own seed.
    """

    def __init__(self, open_draw: Callable[[int], Case]) -> None:
        self._drawn = lru_cache(maxsize=2)(open_draw)
        self.data: Mapping[str, Any] = self._drawn(0).data

    def build(self, seed: int) -> Experiment:
        case = self._drawn(seed)
        return replace(case.build(seed), data=case.data)


@dataclass(frozen=True)
class CaseCard:
    """What is known of a case before its data are touched.

    Attributes:
        name: folder's name, with dashes for underscores.
        about: first line of the docstring of knobs.py.
        recipes: recipe name → knobs.
        module: its knobs.py.
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
            cure = f"define smoke(knobs) in {self.module.__file__}, or leave --smoke out"
            raise Mt2stError(f"case {self.name} has no smoke form; {cure}")
        return self.module.smoke(knobs)

    def open(self, knobs: Any, console: Console) -> Case:
        """Prepare the data of these knobs; imports torch.

        Raises:
            Mt2stError: the folder has no case.py with a class of the expected name.
        """
        class_name = self.name.replace("-", " ").title().replace(" ", "") + "Case"
        module = import_module(f"{self.module.__name__.rpartition('.')[0]}.case")
        if not hasattr(module, class_name):
            raise Mt2stError(f"{module.__file__} has no class {class_name}; a case's class is named after its folder")
        kind = getattr(module, class_name)
        if knobs.draw == "per-seed":
            return DrawnPerSeed(lambda seed: kind(knobs, console, seed))
        case: Case = kind(knobs, console)
        return case


def case_names() -> list[str]:
    """Names of all cases, sorted, from the folders alone."""
    return sorted(path.parent.name.replace("_", "-") for path in CASES_FOLDER.glob("*/knobs.py"))


def about_case(name: str) -> str:
    """First line of the case's docstring, read without importing it; "" where there is none."""
    path = CASES_FOLDER / name.replace("-", "_") / "knobs.py"
    try:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    except SyntaxError as error:
        return f"(line {error.lineno} cannot be read: {error.msg})"
    return (docstring or "").split("\n")[0]


def auxiliary_names(name: str) -> tuple[str, ...]:
    """The auxiliaries that a case can build: the keys of AUXILIARIES in its case.py, read without importing it.

    Raises:
        Mt2stError: AUXILIARIES is no dict that is written out.
    """
    path = CASES_FOLDER / name.replace("-", "_") / "case.py"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign | ast.AnnAssign) and re.match(r"AUXILIARIES\b", ast.unparse(node)):
            if not isinstance(node.value, ast.Dict):
                raise Mt2stError(
                    f"{path}, line {node.lineno}: AUXILIARIES must be a dict; its keys are read from the text"
                )
            return tuple(ast.literal_eval(key) for key in node.value.keys if key)
    return ()


def load_card(name: str) -> CaseCard:
    """Import the knobs of case `name`.

    Raises:
        Mt2stError: no such folder (with the nearest names), or its knobs.py lacks what a case needs.
    """
    if name not in case_names():
        raise unknown_name("case", name, case_names())
    module: Any = import_module(f"{PACKAGE}.{name.replace('-', '_')}.knobs")
    if missing := [attribute for attribute in ("Knobs", "SPEC") if not hasattr(module, attribute)]:
        raise Mt2stError(f"{module.__file__} lacks {', '.join(missing)}; see benchmarks/cases/__init__.py")
    if not (hasattr(module.Knobs, "__dataclass_fields__") and isinstance(module.SPEC, ReportSpec)):
        raise Mt2stError(f"{module.__file__}: Knobs must be a dataclass and SPEC a ReportSpec")
    recipes = dict(getattr(module, "RECIPES", None) or {"default": module.Knobs()})
    if "default" in recipes:
        recipes.setdefault(CURVE, replace(recipes["default"], budgets=CURVE_BUDGETS))
        for added in strategy_recipes():
            recipes.setdefault(added, replace(recipes["default"], strategies=default_strategies(added)))
    return CaseCard(name, about_case(name), module.SPEC, recipes, module)

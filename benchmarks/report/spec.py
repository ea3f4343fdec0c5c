"""What a case tells the report about its numbers: which metric, from which per-item array, which groups, which notes.

No torch: a case's knobs hold a `ReportSpec`, and `--help` must answer in well under a second.

    SPEC = ReportSpec(
        title="VQA on easy-VQA",
        primary=Metric("vqa_accuracy", "accuracy", arrays=("score",)),
        columns=(Metric("ece", "ECE", decimals=3),),
        groups=(Group("question_type", "question type"),),
        notes=("The captions restate facts of the withheld questions.",),
    )
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Literal

from mt2st.errors import Mt2stError
from mt2st.metrics.registry import MetricDefinition, find_metric

Statistic = Literal["mean", "median"] | Callable[..., float]


@dataclass(frozen=True)
class Metric:
    """A column of the table.

    What the metric registry knows of the id (by its last part: "text_to_image/mrr" is "mrr") is taken from there:
    direction, definition, unit and scale. An id that it does not know needs direction and definition here.

    Attributes:
        id: the metric's id in the records (`metrics.test[id]`, and in the curve for the primary one).
        label: the column's head.
        higher_is_better: direction; where the registry knows the id, its direction.
        arrays: names of the item arrays, each [n_items], that the metric is computed from; () = it has no per-item
            form, and its interval comes from the seeds' values of `metrics.test[id]` alone.
        transform: item arrays → one value per item, before `statistic`; None = the first array as it is.
        statistic: "mean" and "median" of the values are fast; any other function gets the arrays [n_items] (no
            `transform` then) and returns a float, and is called once for each seed and resample.
        scale: factor for display, such as 100 for per cent. Records and summary.json hold the unscaled value.
        unit: unit after scaling, such as "%". Scale and unit go together: give both or neither.
        decimals: digits after the point, after scaling.
        definition: one sentence without a stop, printed under the tables.
        cluster: item array [n_items] of integers, the cluster of each item (its image, base, word): clusters are
            independent, items of one are not. Runs without this array have independent items.

    Raises:
        Mt2stError: an unknown id without direction or definition, or a direction that is not the registry's.
    """

    id: str
    label: str
    higher_is_better: bool = None  # type: ignore[assignment]  # the registry's
    arrays: tuple[str, ...] = ()
    transform: Callable[..., Any] | None = None
    statistic: Statistic = "mean"
    scale: float = None  # type: ignore[assignment]  # the registry's
    unit: str = None  # type: ignore[assignment]  # the registry's
    decimals: int = 1
    definition: str = ""
    cluster: str = "cluster"

    def __post_init__(self) -> None:
        if isinstance(self.arrays, str):
            raise Mt2stError(
                f"Metric({self.id!r}).arrays is a string, {self.arrays!r}; give a tuple, such as ({self.arrays!r},)"
            )
        if callable(self.statistic) and self.transform is not None:
            raise Mt2stError(
                f"Metric({self.id!r}): a statistic of its own takes the arrays as they are; drop transform"
            )
        self._take_from_registry()
        if not self.scale > 0:
            raise Mt2stError(f"Metric({self.id!r}).scale = {self.scale!r} must be > 0; 100 shows per cent")

    def _take_from_registry(self) -> None:
        known = self.registered
        if known is None and (self.higher_is_better is None or not self.definition):
            raise Mt2stError(
                f"Metric({self.id!r}) is not in the metric registry; give it higher_is_better and a definition"
            )
        if known is not None and self.higher_is_better not in (None, known.higher_is_better):
            raise Mt2stError(
                f"Metric({self.id!r}).higher_is_better = {self.higher_is_better} contradicts the metric registry; "
                "leave it out"
            )
        own_display = self.scale is not None or self.unit is not None  # the two go together
        display = (1.0, "") if own_display or known is None else (known.scale, known.symbol)
        found = {
            "higher_is_better": known.higher_is_better if known else self.higher_is_better,
            "scale": display[0] if self.scale is None else self.scale,
            "unit": display[1] if self.unit is None else self.unit,
            "definition": self.definition or (known.definition if known else ""),
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)

    @property
    def registered(self) -> MetricDefinition | None:
        """The registry's definition of the id; None where it has none."""
        return find_metric(self.id)

    @property
    def heading(self) -> str:
        """Label and unit: "hit@5, %"."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    @property
    def directed_heading(self) -> str:
        """Label, unit and an arrow where lower is better: "ECE ↓"."""
        return self.heading + ("" if self.higher_is_better else " ↓")

    def text(self, value: float | None, *, signed: bool = False) -> str:
        """`value` scaled and rounded, without unit; "–" where there is none."""
        if value is None or value != value:
            return "–"
        return f"{value * self.scale:{'+' if signed else ''}.{self.decimals}f}"


@dataclass(frozen=True)
class Group:
    """Items by kind, such as by question type: the primary metric is repeated for each.

    Attributes:
        array: item array [n_items] of integer codes; the record's `group_names[array]` lists the names of the codes.
        label: what the kinds are kinds of.
    """

    array: str
    label: str


@dataclass(frozen=True)
class ReportSpec:
    """All that is particular to a case's report.

    Attributes:
        title: heading.
        primary: the metric that strategies are compared by.
        columns: further metrics, each with its interval.
        groups: breakdowns of the primary metric.
        curve_id: id of the validation metric in the curves; "" = the primary's id.
        floors: floor name in the records → label in the table; empty = every floor under its own name.
        notes: plain text, a paragraph each, shown under the table.
        data_notes: (name of a data set, note): notes that are true of that set only, shown for its records.
        pictures: file names inside a run's folder to show in the HTML report, such as "gallery.png" (PNG only).
        margin: δ, the loss of the primary metric that counts as none, declared before the runs, in the metric's own
            units before scaling: 0.005 = 0.5 points of accuracy. None = not declared, and nothing is decided.
        margin_reason: why this δ, one sentence.

    Raises:
        Mt2stError: a margin without a reason, or one that is not > 0.
    """

    title: str
    primary: Metric
    columns: tuple[Metric, ...] = ()
    groups: tuple[Group, ...] = ()
    curve_id: str = ""
    floors: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    data_notes: tuple[tuple[str, str], ...] = ()
    pictures: tuple[str, ...] = ()
    margin: float | None = None
    margin_reason: str = ""

    def __post_init__(self) -> None:
        if self.margin is not None and not (self.margin > 0 and self.margin_reason):
            raise Mt2stError(
                f"ReportSpec({self.title!r}): margin = {self.margin!r} must be > 0 and needs a margin_reason; 0.005 is "
                "half a point of accuracy"
            )

    @property
    def validation_id(self) -> str:
        """Id of the metric in the curves and in `metrics.validation`, for the FLOPs to MTL's validation score."""
        return self.curve_id or self.primary.id

    def for_data(self, names: Collection[str]) -> ReportSpec:
        """This spec with the notes that are true of these data sets."""
        return replace(
            self, notes=(*self.notes, *(note for name, note in self.data_notes if name in names)), data_notes=()
        )


def accuracy(metric_id: str = "accuracy", label: str = "accuracy", array: str = "score") -> Metric:
    """Mean of a per-item score in [0, 1]."""
    return Metric(metric_id, label, arrays=(array,))


def hit_rate(direction: str, k: int) -> Metric:
    """`<direction>/hit_rate@k` from the array `<direction>_rank`, ranks counted from 1: share of items with rank ≤ k.

    `direction` is "text_to_image" or "image_to_text".
    """
    label = f"{_ARROWS.get(direction, direction)} hit@{k}"
    array = f"{direction}_rank"
    return Metric(f"{direction}/hit_rate@{k}", label, arrays=(array,), transform=lambda rank: rank <= k)


def median_rank(direction: str) -> Metric:
    """`<direction>/median_rank` from the array `<direction>_rank`, ranks counted from 1; lower is better."""
    label = f"{_ARROWS.get(direction, direction)} median rank"
    return Metric(f"{direction}/median_rank", label, arrays=(f"{direction}_rank",), statistic="median")


def mean_rank(direction: str) -> Metric:
    """`<direction>/mean_rank` from the array `<direction>_rank`, ranks counted from 1; lower is better."""
    label = f"{_ARROWS.get(direction, direction)} mean rank"
    return Metric(f"{direction}/mean_rank", label, arrays=(f"{direction}_rank",))


def compositional(metric: Metric) -> Metric:
    """The metric on a case's second test split: ids begin with `compositional/`, arrays with `compositional_`."""
    arrays = tuple(f"compositional_{name}" for name in metric.arrays)
    return replace(
        metric,
        id=f"compositional/{metric.id}",
        label=f"compositional {metric.label}",
        arrays=arrays,
        cluster=f"compositional_{metric.cluster}",
    )


def mean_reciprocal_rank(direction: str) -> Metric:
    """`<direction>/mrr` from the array `<direction>_rank`, ranks counted from 1."""
    label = f"{_ARROWS.get(direction, direction)} MRR"
    return Metric(
        f"{direction}/mrr", label, arrays=(f"{direction}_rank",), transform=lambda rank: 1.0 / rank, decimals=3
    )


_ARROWS = {"text_to_image": "T→I", "image_to_text": "I→T"}

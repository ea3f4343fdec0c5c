"""Metric definitions: an id, a unit, a direction, the range, one sentence, its source. No torch.

The report takes direction, unit and scale from here, and prints the rest.

Ids may carry a cut-off after "@" ("hit_rate@5") and a place in front ("text_to_image/hit_rate@5"). The definition is
that of the part between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mt2st.errors import Mt2stError, unknown_name


@dataclass(frozen=True)
class MetricDefinition:
    """What a number means.

    Attributes:
        id: the name in records, such as "hit_rate@k".
        unit: "share" (0 to 1), "rank" (from 1), "queries/s", "bytes", "s", "nats", "correlation" (−1 to 1) or what its
            name says.
        higher_is_better: the direction.
        worst, best: the ends of the range; an infinity where there is no bound.
        definition: one sentence.
        source: who defined it; "" for what needs no source.
        scale: factor by which tables show it: 100 for what the field quotes in per cent.
        symbol: the unit in a column's head, after scaling; "" where the number needs none.
    """

    id: str
    unit: str
    higher_is_better: bool
    worst: float
    best: float
    definition: str
    source: str = ""
    scale: float = 1.0
    symbol: str = ""

    def is_better(self, value: float, other: float) -> bool:
        """Whether `value` is strictly better than `other`; NaN is better than nothing."""
        if math.isnan(value) or math.isnan(other):
            return math.isnan(other) and not math.isnan(value)
        return value > other if self.higher_is_better else value < other


_TIES = "an item tied with a relevant one counts as ranked before it"
_PER_CENT: dict[str, Any] = {"scale": 100.0, "symbol": "%"}


def _share(metric_id: str, definition: str, source: str = "", **more: Any) -> MetricDefinition:
    """A share, of which more is better."""
    return MetricDefinition(metric_id, "share", True, 0.0, 1.0, definition, source, **more)


def _rank(metric_id: str, kind: str, source: str) -> MetricDefinition:
    definition = f"{kind} rank of the best-ranked relevant item, from 1; {_TIES}"
    return MetricDefinition(metric_id, "rank", False, math.inf, 1.0, definition, source)


_ALL = (
    _share(
        "vqa_accuracy",
        "mean over questions of the mean over annotators left out of min(1, matches among the other annotators / 3); "
        "texts are compared as the protocol named beside it says",
        "Antol et al. 2015, VQA; protocols: the VQA repository before and after commit a013f00",
        **_PER_CENT,
    ),
    _share("accuracy", "share of items whose predicted class is the labelled one", **_PER_CENT),
    _share(
        "accuracy@k",
        f"share of items whose labelled class is among the k with the highest scores; {_TIES}",
        "Krizhevsky, Sutskever and Hinton 2012, ImageNet classification with deep convolutional neural networks",
        **_PER_CENT,
    ),
    _share(
        "mean_class_accuracy",
        "mean over the classes that occur, unweighted, of the share of their items whose predicted class is theirs",
        "scikit-learn's balanced accuracy; the mean per class of Radford et al. 2021, CLIP",
        **_PER_CENT,
    ),
    _share(
        "macro_f1",
        "mean over classes, unweighted, of the harmonic mean of precision and recall",
        "van Rijsbergen 1979, Information Retrieval; averaged as in Opitz and Burst 2019",
    ),
    MetricDefinition(
        "ece",
        "share",
        False,
        1.0,
        0.0,
        "expected calibration error: over 15 equal-width bins of confidence, the mean distance of accuracy from "
        "confidence, weighted by the bins' shares",
        "Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3",
    ),
    _share(
        "hit_rate@k",
        f"share of queries with at least one relevant item in the top k (the R@k of CLIP papers); {_TIES}",
        "Radford et al. 2021, CLIP, where it is called R@k",
        **_PER_CENT,
    ),
    _share(
        "recall@k",
        f"mean over queries of the share of their relevant items that are in the top k; {_TIES}, another relevant one "
        "included only if it scores higher",
        "Manning, Raghavan and Schütze 2008, Introduction to Information Retrieval, chapter 8",
        **_PER_CENT,
    ),
    _share(
        "mrr",
        f"mean over queries of 1 / rank of the best-ranked relevant item; {_TIES}",
        "Voorhees 1999, the TREC-8 question answering track",
    ),
    _rank("mean_rank", "mean", "Bordes et al. 2013, TransE"),
    _rank("median_rank", "median", "Karpathy and Fei-Fei 2015, where it is called Med r"),
    _share(
        "ann_recall@k",
        "mean over queries of |ids found ∩ ids of the exact top k| / k (set recall)",
        "Simhadri et al. 2022, the NeurIPS'21 billion-scale search challenge",
    ),
    _share(
        "ann_recall_tolerant@k",
        "mean over queries of the share of the k returned items whose similarity is at least that of the exact k-th "
        "less ε; ε is stored beside it",
        "Aumüller, Bernhardsson and Faithfull 2020, ANN-Benchmarks",
    ),
    MetricDefinition(
        "queries_per_second",
        "queries/s",
        True,
        0.0,
        math.inf,
        "queries answered per second of wall time",
        symbol="queries/s",
    ),
    MetricDefinition(
        "build_seconds", "s", False, math.inf, 0.0, "wall time to train the index and to add all vectors", symbol="s"
    ),
    MetricDefinition(
        "index_bytes",
        "bytes",
        False,
        math.inf,
        0.0,
        "size of the index, as its own saved form or its arrays take",
        symbol="bytes",
    ),
    MetricDefinition(
        "spearman",
        "correlation",
        True,
        -1.0,
        1.0,
        "Spearman's rank correlation of cosine similarity and human score over a set's known pairs",
        "Spearman 1904; on word pairs as in Finkelstein et al. 2002",
    ),
    _share("coverage", "share of a word-similarity set's pairs whose two words are both known", **_PER_CENT),
    MetricDefinition(
        "denoising_loss",
        "noise variance",
        False,
        math.inf,
        0.0,
        "mean squared error of the predicted noise on held-out images, over a fixed grid of noise levels and fixed "
        "noise",
        "Ho, Jain and Abbeel 2020, Denoising Diffusion Probabilistic Models, equation 14",
    ),
    MetricDefinition(
        "frechet_distance",
        "feature units²",
        False,
        math.inf,
        0.0,
        "Fréchet distance of Gaussians fitted to the embeddings that the suite's own classifier gives samples and "
        "held-out images; comparable within one benchmark only, and no FID",
        "Dowson and Landau 1982; on a network's features as in Heusel et al. 2017",
    ),
    MetricDefinition("loss", "nats", False, math.inf, 0.0, "mean loss of the primary objective", symbol="nats"),
)
METRICS: dict[str, MetricDefinition] = {metric.id: metric for metric in _ALL}


def metric_definition(metric_id: str) -> MetricDefinition:
    """The definition behind an id as it stands in a record.

    >>> metric_definition("text_to_image/hit_rate@5").id
    'hit_rate@k'

    Raises:
        Mt2stError: there is no such metric (with the nearest ids), or its cut-off is not a whole number from 1.
    """
    found = find_metric(metric_id)
    if found is None:
        raise unknown_name("metric", metric_id, METRICS)
    return found


def find_metric(metric_id: str) -> MetricDefinition | None:
    """Like `metric_definition`; None where there is no such metric.

    Raises:
        Mt2stError: the cut-off is not a whole number from 1.
    """
    base, at, cutoff = metric_id.rsplit("/", 1)[-1].partition("@")
    if not at:
        return METRICS.get(base)
    if f"{base}@k" not in METRICS:
        return None
    if cutoff != "k" and not (cutoff.isascii() and cutoff.isdigit() and int(cutoff) > 0):
        raise Mt2stError(
            f"metric {metric_id!r}: the cut-off {cutoff!r} must be a whole number from 1, such as {base}@5"
        )
    return METRICS[f"{base}@k"]

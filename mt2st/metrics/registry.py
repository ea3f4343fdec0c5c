"""Metric definitions: an id, a unit, a direction, the worst value, one sentence.

What tables and reports print. No torch.

Ids may carry a cut-off after "@" ("hit_rate@5") and a place in front ("text_to_image/hit_rate@5"); the definition is
that of the part between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mt2st.errors import Mt2stError, unknown_name


@dataclass(frozen=True)
class MetricDefinition:
    """What a number means.

    Attributes:
        id: the name in records, such as "hit_rate@k".
        unit: "share" (0 to 1), "rank" (from 1), "queries/s", "bytes", "s", "nats", "correlation" (−1 to 1) or what its
            name says.
        higher_is_better: the direction.
        worst: the value of a run that fails utterly; an infinity where there is no bound.
        definition: one sentence.
    """

    id: str
    unit: str
    higher_is_better: bool
    worst: float
    definition: str

    def is_better(self, value: float, other: float) -> bool:
        """Whether `value` is strictly better than `other`; NaN is better than nothing."""
        if math.isnan(value) or math.isnan(other):
            return math.isnan(other) and not math.isnan(value)
        return value > other if self.higher_is_better else value < other


_TIES = "an item tied with a relevant one counts as ranked before it"
_VQA = "mean over questions of the mean over annotators left out of min(1, matches among the other annotators / 3)"

METRICS: dict[str, MetricDefinition] = {
    metric.id: metric
    for metric in (
        MetricDefinition(
            "vqa_accuracy", "share", True, 0.0, f"{_VQA}; texts are compared as the protocol named beside it says"
        ),
        MetricDefinition("accuracy", "share", True, 0.0, "share of items whose predicted class is the labelled one"),
        MetricDefinition(
            "macro_f1",
            "share",
            True,
            0.0,
            "mean over classes, unweighted, of the harmonic mean of precision and recall",
        ),
        MetricDefinition(
            "ece",
            "share",
            False,
            1.0,
            "expected calibration error: over 15 equal-width bins of confidence, the mean distance of accuracy from "
            "confidence, weighted by the bins' shares",
        ),
        MetricDefinition(
            "hit_rate@k",
            "share",
            True,
            0.0,
            f"share of queries with at least one relevant item in the top k (the R@k of CLIP papers); {_TIES}",
        ),
        MetricDefinition(
            "recall@k",
            "share",
            True,
            0.0,
            f"mean over queries of the share of their relevant items that are in the top k; {_TIES}, "
            "another relevant one included only if it scores higher",
        ),
        MetricDefinition(
            "mrr", "share", True, 0.0, f"mean over queries of 1 / rank of the best-ranked relevant item; {_TIES}"
        ),
        MetricDefinition(
            "mean_rank", "rank", False, math.inf, f"mean rank of the best-ranked relevant item, from 1; {_TIES}"
        ),
        MetricDefinition(
            "median_rank", "rank", False, math.inf, f"median rank of the best-ranked relevant item, from 1; {_TIES}"
        ),
        MetricDefinition(
            "ann_recall@k",
            "share",
            True,
            0.0,
            "mean over queries of |ids found ∩ ids of the exact top k| / k (set recall)",
        ),
        MetricDefinition(
            "ann_recall_tolerant@k",
            "share",
            True,
            0.0,
            "mean over queries of the share of the k returned items whose similarity is at least that of the exact "
            "k-th less ε; ε is stored beside it",
        ),
        MetricDefinition("queries_per_second", "queries/s", True, 0.0, "queries answered per second of wall time"),
        MetricDefinition("build_seconds", "s", False, math.inf, "wall time to train the index and to add all vectors"),
        MetricDefinition(
            "index_bytes", "bytes", False, math.inf, "size of the index, as its own saved form or its arrays take"
        ),
        MetricDefinition(
            "spearman",
            "correlation",
            True,
            -1.0,
            "Spearman's rank correlation of cosine similarity and human score over a set's known pairs",
        ),
        MetricDefinition(
            "coverage", "share", True, 0.0, "share of a word-similarity set's pairs whose two words are both known"
        ),
        MetricDefinition(
            "denoising_loss",
            "noise variance",
            False,
            math.inf,
            "mean squared error of the predicted noise on held-out images, over a fixed grid of noise levels and fixed "
            "noise",
        ),
        MetricDefinition(
            "frechet_distance",
            "feature units²",
            False,
            math.inf,
            "Fréchet distance of Gaussians fitted to the embeddings that the suite's own classifier gives samples and "
            "held-out images; comparable within one benchmark only, and no FID",
        ),
        MetricDefinition("loss", "nats", False, math.inf, "mean loss of the primary objective"),
    )
}


def metric_definition(metric_id: str) -> MetricDefinition:
    """The definition behind an id as it stands in a record.

    >>> metric_definition("text_to_image/hit_rate@5").id
    'hit_rate@k'

    Raises:
        Mt2stError: there is no such metric (with the nearest ids), or its cut-off is not a whole number from 1.
    """
    base, at, cutoff = metric_id.rsplit("/", 1)[-1].partition("@")
    if not at:
        if base in METRICS:
            return METRICS[base]
    elif f"{base}@k" in METRICS:
        if cutoff != "k" and not (cutoff.isascii() and cutoff.isdigit() and int(cutoff) > 0):
            raise Mt2stError(
                f"metric {metric_id!r}: the cut-off {cutoff!r} must be a whole number from 1, such as {base}@5"
            )
        return METRICS[f"{base}@k"]
    raise unknown_name("metric", metric_id, METRICS)

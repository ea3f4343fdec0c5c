"""Retrieval: which image a caption belongs to, and which captions an image."""

from __future__ import annotations

from benchmarks.cases.retrieval.captions import MAIN_CAPTION, captions_of
from benchmarks.cases.retrieval.floors import chance
from benchmarks.evaluate.data import EvaluationData
from benchmarks.evaluate.embed import Embedder
from benchmarks.evaluate.measured import Measured
from benchmarks.evaluate.options import Options
from mt2st.errors import Mt2stError
from mt2st.evaluate import rank_metrics, retrieval_ranks


def measure_retrieval(embedder: Embedder, data: EvaluationData, options: Options) -> Measured:
    """All retrieval metrics in both directions; an image without a caption is no part of the gallery.

    Raises:
        Mt2stError: the split has no captions.
    """
    if not data.split.num_captions:
        raise Mt2stError(
            f"split {data.split.name!r} of {data.dataset.card.name!r} has no captions, which retrieval needs; choose "
            "other --tasks, or map a column with --map captions=COLUMN"
        )
    captions = captions_of(data.split, data.dataset.card.protocol == MAIN_CAPTION)
    images, texts = embedder.pictures(captions.split), embedder.texts(captions.texts)
    ranks = retrieval_ranks(images, texts, captions.images)
    return Measured(
        rank_metrics(ranks, captions.images),
        {"chance": chance(captions)},
        {"text_to_image_rank": ranks.text_to_image, "image_to_text_rank": ranks.image_to_text},
        {"image_embeddings": images, "text_embeddings": texts, "text_image_index": captions.images},
    )

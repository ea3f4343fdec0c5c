"""Expected calibration error: does an answer given with confidence p come true with frequency p? No torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mt2st.errors import Mt2stError

BINS = 15
"""Equal-width bins over [0, 1]; the number of "On Calibration of Modern Neural Networks" (Guo et al., 2017)."""


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS) -> float:
    """Σ over bins of (share of answers in the bin) · |mean correctness − mean confidence|.

    Source: Guo et al., 2017, equation 3. Bins are equally wide and closed on the right, ((m − 1)/bins, m/bins];
    confidence 0 falls into the first.

    Args:
        confidence: [Q], the probability of the given answer, in [0, 1].
        correct: [Q], whether it was right: bool, or a score in [0, 1] such as the VQA accuracy.
        bins: number of bins, at least 1 (1 = only the overall gap is measured; more bins see more, with more noise).

    Returns:
        The error in [0, 1]; 0 is perfectly calibrated.

    Raises:
        Mt2stError: no answers, unequal lengths, values outside [0, 1] or NaN, fewer than one bin.
    """
    probability = np.asarray(confidence, dtype=np.float64)
    outcome = np.asarray(correct, dtype=np.float64)
    if bins < 1:
        raise Mt2stError(f"expected_calibration_error: bins = {bins} must be at least 1, such as {BINS}")
    if probability.ndim != 1 or probability.shape != outcome.shape or not len(probability):
        raise Mt2stError(
            f"expected_calibration_error: confidence {probability.shape} and correct {outcome.shape} must be two "
            "arrays of one length, with at least one answer"
        )
    for name, values in (("confidence", probability), ("correct", outcome)):
        if not ((values >= 0) & (values <= 1)).all():
            raise Mt2stError(
                f"expected_calibration_error: {name} has values outside [0, 1] or NaN; give probabilities, not logits"
            )
    bin_of = np.clip(np.ceil(probability * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(
        bin_of, weights=outcome - probability, minlength=bins
    )  # count · (mean correctness − mean confidence)
    return float(np.abs(gap).sum() / len(probability))

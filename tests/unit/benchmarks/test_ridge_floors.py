"""Ridge floors: the closed form against scikit-learn's, the strength chosen on validation, answers out of pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from benchmarks.cases.shared.ridge import STRENGTHS, PixelComponents, in_parts, ridges
from benchmarks.cases.vqa.ridge_answers import RidgeAnswers
from data_prep.prepare import prepare
from mt2st.data.splits import PreparedDataset
from mt2st.data.vocabulary import AnswerVocabulary
from tests.helpers import drawn_dataset


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    place = Path(drawn_dataset.__file__)
    return PreparedDataset.open(prepare(place, out=tmp_path_factory.mktemp("drawn"), image_size=16, workers=0))


def test_ridges_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    inputs, outputs = random.normal(size=(5000, 6)), random.normal(size=(5000, 3))
    scale = np.square(inputs).sum() / inputs.shape[1]
    found = list(ridges((inputs[part], outputs[part]) for part in in_parts(len(inputs))))
    assert len(found) == len(STRENGTHS)
    for weights, strength in zip(found, STRENGTHS):
        model = Ridge(alpha=strength * scale, fit_intercept=False).fit(inputs, outputs)
        np.testing.assert_allclose(weights, model.coef_.T, rtol=1e-8, atol=1e-12)


def test_components_are_standardised_and_the_same_every_time(drawn: PreparedDataset) -> None:
    train, test = drawn.split("train"), drawn.split("test")
    found = PixelComponents(train, 5)
    assert found.of(test).shape == (20, 5)
    np.testing.assert_allclose(found.of(train).std(0), 1.0, rtol=0.05)
    assert np.array_equal(found.of(test), PixelComponents(train, 5).of(test))


def test_answers_that_stand_in_the_pixels_are_found(drawn: PreparedDataset) -> None:
    """Colour and shape of a drawn picture follow from its pixels, which of the two from the question's words."""
    train = drawn.split("train")
    labelled, validation, test = train.subset(np.arange(45)), train.subset(np.arange(45, 60)), drawn.split("test")
    vocabulary = AnswerVocabulary.build(labelled.answer_texts(), 10)
    floor = RidgeAnswers(labelled, validation, vocabulary, "official-2021")
    right = [vocabulary.answers[at] in given for at, given in zip(floor(test), test.answer_texts(), strict=True)]
    assert np.mean(right) > 0.9
    assert np.array_equal(floor(test), RidgeAnswers(labelled, validation, vocabulary, "official-2021")(test))

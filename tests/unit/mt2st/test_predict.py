"""Prediction over a split against one question at a time; modules come back as they were."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from mt2st.predict import embed_split, predict_answers
from tests.helpers.tiny import DrawnSplit, objective, tiny_encoder


@pytest.mark.parametrize("images_per_batch", [1, 3, 256])
def test_answers_are_those_of_each_question_with_its_own_image(images_per_batch: int) -> None:
    """Questions lie in any order, several on an image, and some images have none."""
    split = DrawnSplit(num_images=6)
    owners = np.array([4, 0, 4, 2, 0, 4, 5])
    texts = [
        "is it red?",
        "what colour is it?",
        "which shape is it?",
        "is it red?",
        "is it red?",
        "what colour is it?",
        "is it red?",
    ]
    split.question_images = lambda: owners  # type: ignore[method-assign]
    encoder = tiny_encoder()
    task = objective("vqa", encoder)
    tokens = encoder.towers.tokenize(texts)
    found = predict_answers(encoder, task, split, tokens, images_per_batch=images_per_batch)
    encoder.eval()
    for row, image in enumerate(owners):
        pixels = torch.from_numpy(split.pixels(np.array([image]))).permute(0, 3, 1, 2)
        shares = task.logits(encoder.features({"pixels": pixels, "question_tokens": tokens[row][None]})).softmax(-1)[0]
        assert found.prediction[row] == int(shares.argmax())
        assert found.confidence[row] == pytest.approx(shares.max().item(), rel=1e-4)


def test_embeddings_have_unit_length_and_the_splits_order() -> None:
    split = DrawnSplit(num_images=7)
    encoder = tiny_encoder()
    tokens = encoder.towers.tokenize(split.caption_texts())
    images, texts = embed_split(encoder, split, tokens, batch_size=3)
    assert images.shape == texts.shape == (7, 8)
    assert (images.dtype, texts.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, rtol=1e-5)
    encoder.eval()
    with torch.no_grad():
        last = functional.normalize(encoder.towers.encode_text(tokens[6:]).embedding, dim=-1)
    np.testing.assert_allclose(texts[6:], last.numpy(), rtol=1e-4, atol=1e-5)


def test_nothing_to_predict_gives_empty_arrays() -> None:
    split = DrawnSplit(num_images=0, answers=[()])
    split.answers = []
    encoder = tiny_encoder()
    none = encoder.towers.tokenize([])
    assert len(predict_answers(encoder, objective("vqa", encoder), split, none).prediction) == 0
    assert [len(part) for part in embed_split(encoder, split, none)] == [0, 0]


def test_every_submodule_comes_back_in_its_own_mode() -> None:
    split = DrawnSplit(num_images=2)
    encoder = tiny_encoder().train()
    encoder.fusion.eval()  # a part that someone froze
    task = objective("vqa", encoder)
    task.eval()
    predict_answers(encoder, task, split, encoder.towers.tokenize(split.question_texts()))
    assert encoder.training
    assert encoder.towers.training  # type: ignore[attr-defined]
    assert not encoder.fusion.training
    assert not task.training

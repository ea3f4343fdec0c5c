"""Which patches an answer looked at: known exactly for scores of one region, and found for a model trained on one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import mt2st
from mt2st.encoders.open_clip_towers import SmallConfig, small_towers
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.encoders.vision_language import VisionLanguageEncoder
from mt2st.objectives.vqa import AnswerObjective
from mt2st.trained.occlusion import looked_at, looked_at_for_text, occlusion
from mt2st.trained.vision_language import VisionLanguageModel
from tests.helpers.trained_folder import ANSWERS, QUESTIONS, pictures, write_run

QUESTION = "which colour is up there?"


def red_of_a_region(pixels: Tensor) -> np.ndarray:
    """Mean red of rows 8 to 15 and columns 24 to 31."""
    found: np.ndarray = pixels[:, 0, 8:16, 24:32].float().mean((1, 2)).numpy()
    return found


def test_patches_outside_the_region_drop_nothing() -> None:
    pixels = torch.zeros(3, 32, 32, dtype=torch.uint8)
    pixels[0, 8:16, 24:32] = 255
    whole, drops = occlusion(red_of_a_region, pixels)
    assert whole == 255
    touched = np.zeros((8, 8), bool)
    touched[1:5, 5:8] = True  # patches 2 to 3 and 6 to 7, and those that share a window with them
    assert (drops[touched] > 0).all()
    assert (drops[~touched] == 0).all()
    mean = round(255 * 64 / 32**2)
    # The patch in the corner of the region: its windows hide a quarter, a half, a half and all of it; at the picture's
    # edge there are only two of them.
    assert drops[2, 6] == pytest.approx((255 - mean) * (0.5 + 1 + 0.25 + 0.5) / 4)


def test_the_map_is_that_of_a_slow_obvious_twin() -> None:
    random = np.random.default_rng(1)
    pixels = torch.from_numpy(random.integers(0, 256, (3, 22, 22), np.uint8))  # 22 pixels make unequal patches
    weights = torch.from_numpy(random.normal(size=(3, 22, 22)).astype(np.float32))

    def score(pictures: Tensor) -> np.ndarray:
        found: np.ndarray = (pictures.float() * weights).mean((1, 2, 3)).numpy()
        return found

    whole, drops = occlusion(score, pixels, side=5)
    edges = [0, 4, 9, 13, 18, 22]
    for row in range(5):
        for column in range(5):
            found = []
            for up in (row - 1, row):
                for left in (column - 1, column):
                    if 0 <= up < 4 and 0 <= left < 4:
                        hidden = pixels.clone()
                        mean = pixels.float().mean((1, 2)).round().to(torch.uint8)
                        hidden[:, edges[up] : edges[up + 2], edges[left] : edges[left + 2]] = mean[:, None, None]
                        found.append(whole - float(score(hidden[None])[0]))
            assert drops[row, column] == pytest.approx(np.mean(found), abs=1e-4)


@pytest.fixture(scope="module")
def trained() -> VisionLanguageModel:
    """A model trained to name the colour of a square that lies anywhere; a grey one beside it says nothing."""
    tokenizer = TextTokenizer.train([QUESTION], 280)
    config = SmallConfig(image_size=32, width=16, layers=1, embedding_width=8, stem_width=4)
    torch.manual_seed(0)
    encoder = VisionLanguageEncoder(small_towers(config, tokenizer), fusion_width=16)
    head = AnswerObjective(16, 2)
    random = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=4e-3)
    tokens = encoder.towers.tokenize([QUESTION])
    for _ in range(60):
        colours, places = torch.randint(2, (32,), generator=random), torch.randint(7, (32, 2, 2), generator=random)
        batch = {"pixels": drawn(colours, places), "question_tokens": tokens.expand(32, -1)}
        loss = cross_entropy(head.logits(encoder.features(batch)), colours)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1, "it has learned"
    return VisionLanguageModel(encoder, head, ("red", "blue"), image_size=32, fit="squash", about={})


def drawn(colours: Tensor, places: Tensor) -> Tensor:
    """Pictures [B, 3, 32, 32] uint8, white, each with a grey square of 2 × 2 patches and over it a coloured one.

    Args:
        colours: [B], 0 = red, 1 = blue.
        places: [B, 2, 2], row and column of the grey and of the coloured square, in patches of 4 pixels.
    """
    pictures = torch.full((len(colours), 3, 32, 32), 255, dtype=torch.uint8)
    palette = torch.tensor([[255, 0, 0], [0, 0, 255]], dtype=torch.uint8)
    grey = torch.full((3,), 128, dtype=torch.uint8)
    for picture, colour, both in zip(pictures, colours, places.tolist(), strict=True):
        for (row, column), paint in zip(both, (grey, palette[colour]), strict=True):
            picture[:, 4 * row : 4 * row + 8, 4 * column : 4 * column + 8] = paint[:, None, None]
    return pictures


@pytest.mark.parametrize(("grey", "place"), [((5, 5), (0, 1)), ((1, 1), (4, 6)), ((0, 6), (5, 0))])
def test_a_trained_answer_looked_where_its_colour_is(
    trained: VisionLanguageModel, grey: tuple[int, int], place: tuple[int, int]
) -> None:
    picture = drawn(torch.tensor([1]), torch.tensor([[grey, place]]))[0].permute(1, 2, 0).numpy()
    seen = looked_at(trained, picture, QUESTION)
    assert seen.answer == "blue"
    assert seen.score > 0.9
    row, column = place
    near = np.zeros((8, 8), bool)
    near[max(0, row - 1) : row + 3, max(0, column - 1) : column + 3] = True  # patches that share a window with it
    assert near[seen.strongest]
    assert seen.drops[near].sum() > 3 * np.abs(seen.drops[~near]).sum()
    other = looked_at(trained, picture, QUESTION, "red")
    assert np.allclose(other.drops, -seen.drops, atol=1e-5), "of two answers one gains what the other loses"


def test_an_answer_that_is_given_to_everything_else_owes_nothing_to_a_patch(trained: VisionLanguageModel) -> None:
    picture = drawn(torch.tensor([0]), torch.tensor([[[5, 5], [0, 1]]]))[0].permute(1, 2, 0).numpy()
    seen = looked_at(trained, picture, QUESTION)
    assert seen.answer == "red", "so says this model of what is not blue"
    assert np.abs(seen.drops).max() < 0.01


def test_bad_questions_are_refused(tmp_path: Path) -> None:
    model = mt2st.load(write_run(tmp_path / "run"), device="cpu")
    with pytest.raises(mt2st.Mt2stError, match=r"unknown answer 'redd'.*red"):
        looked_at(model, pictures(1)[0], QUESTIONS[0], "redd")
    with pytest.raises(mt2st.Mt2stError, match="side = 17"):
        looked_at(model, pictures(1)[0], QUESTIONS[0], side=17)
    asked = model.answer_probabilities(pictures(2), QUESTIONS, question_image=[1, 0, 1])
    assert asked.shape == (3, len(ANSWERS))
    assert np.allclose(asked.sum(1), 1, atol=1e-5)
    best = model.answer_all(pictures(2), QUESTIONS, question_image=[1, 0, 1])
    assert [ANSWERS[place] for place in asked.argmax(1)] == [answers[0].text for answers in best]


def test_a_model_without_answers_compares_with_a_text(tmp_path: Path) -> None:
    model = mt2st.load(write_run(tmp_path / "run", ()), device="cpu")
    seen = looked_at_for_text(model, pictures(1)[0], "a red circle", side=4)
    cosine = float((model.embed_images(pictures(1)) @ model.embed_texts(["a red circle"]).T)[0, 0])
    assert seen.score == pytest.approx(cosine, abs=1e-6)
    assert seen.drops.shape == (4, 4)
    with pytest.raises(mt2st.Mt2stError, match="does not answer questions"):
        looked_at(model, pictures(1)[0], "what colour is it?")
    with pytest.raises(mt2st.Mt2stError, match="no text"):
        looked_at_for_text(model, pictures(1)[0], " ")

"""Streams are pure functions of (seed, index); the answer vocabulary; what is not drawn is counted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mt2st.data.streams import CaptionStream, EpochOrder, ItemStream, QuestionStream
from mt2st.data.vocabulary import AnswerVocabulary
from mt2st.errors import Mt2stError
from mt2st.randomness import generator
from tests.helpers.tiny import DrawnSplit, tokenizer


def tokenize(texts: list[str]) -> torch.Tensor:
    return tokenizer().encode(texts, 12)


def questions(
    split: Any = None, *, images: int = 4, per_image: int = 2, seed: int = 0, answers: list[str] | None = None
) -> QuestionStream:
    split = split or DrawnSplit(num_images=10)
    vocabulary = AnswerVocabulary(answers) if answers else AnswerVocabulary.build(split.answer_texts(), 100)
    return QuestionStream(
        split, tokenize, vocabulary, images_per_batch=images, questions_per_image=per_image, seed=seed
    )


def captions(split: Any = None, *, images: int = 4, seed: int = 0, **more: Any) -> CaptionStream:
    return CaptionStream(split or DrawnSplit(num_images=10), tokenize, images_per_batch=images, seed=seed, **more)


def items(seed: int = 0) -> ItemStream:
    split = DrawnSplit(num_images=10)
    return ItemStream({"label": torch.arange(10)}, items_per_batch=4, split=split, seed=seed)


MAKERS = {"questions": questions, "captions": captions, "items": items}


def same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", MAKERS)
def test_a_batch_depends_on_seed_and_index_alone(name: str) -> None:
    stream, other = MAKERS[name](), MAKERS[name]()
    batches = [stream.batch(index) for index in range(8)]
    np.random.default_rng(0).random(3)
    for index in (7, 0, 3, 3, 5):
        assert same(other.batch(index), batches[index])
    assert not same(batches[0], batches[1])
    assert not same(MAKERS[name](seed=1).batch(0), batches[0])


@pytest.mark.parametrize("name", MAKERS)
def test_all_batches_have_one_shape_across_epoch_ends(name: str) -> None:
    shapes = {
        tuple((key, tuple(value.shape)) for key, value in MAKERS[name]().batch(index).items()) for index in range(9)
    }
    assert len(shapes) == 1


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_batch_that_one_process_would_draw(name: str, world: int) -> None:
    stream = MAKERS[name]()
    for index in range(6):
        whole = stream.batch(index)
        parts = [stream.batch(index, rank, world) for rank in range(world)]
        joined = {key: torch.cat([part[key] for part in parts]) for key in whole}
        if name == "questions":  # positions within a process's own images
            joined["question_image"] += torch.arange(world).repeat_interleave(8 // world) * (4 // world)
        assert same(joined, whole)


@pytest.mark.parametrize("name", MAKERS)
def test_a_batch_that_cannot_be_shared_evenly_is_refused(name: str) -> None:
    with pytest.raises(Mt2stError, match=r"a batch of 4 items of stream .* cannot be shared by 3 processes; take"):
        MAKERS[name]().batch(0, 0, 3)


@given(size=st.integers(1, 30), count=st.integers(1, 70), start=st.integers(0, 200), seed=st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_epochs_cover_everything_and_positions_are_fixed(size: int, count: int, start: int, seed: int) -> None:
    order = EpochOrder(size, seed, "s")
    window = order(start, count)
    assert window.tolist() == [int(order(position, 1)[0]) for position in range(start, start + count)]
    epoch = start // size
    assert sorted(order(epoch * size, size).tolist()) == list(range(size))


def test_epochs_differ_and_streams_of_another_name_too() -> None:
    order = EpochOrder(20, 0, "a")
    assert order(0, 20).tolist() != order(20, 20).tolist()
    assert order(0, 20).tolist() != EpochOrder(20, 0, "b")(0, 20).tolist()
    assert generator(0, "a", 1).random() == generator(0, "a", 1).random() != generator(0, "a", 2).random()


class TestQuestions:
    def test_questions_go_with_their_image_and_their_answers(self) -> None:
        split = DrawnSplit(num_images=10)
        vocabulary = AnswerVocabulary.build(split.answer_texts(), 100)
        stream = QuestionStream(split, tokenize, vocabulary, images_per_batch=5, questions_per_image=3)
        tokens = tokenize(split.question_texts())
        batch = stream.batch(2)
        assert batch["question_image"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
        for slot, image in enumerate(batch["question_image"].tolist()):
            (row,) = [
                row
                for row in range(10)
                if torch.equal(torch.from_numpy(split._pixels[row]).permute(2, 0, 1), batch["pixels"][image])
            ]
            mine = [
                at for at in range(30) if at // 3 == row and torch.equal(tokens[at], batch["question_tokens"][slot])
            ]
            assert len(mine) == 1
            texts = split.answers[mine[0]]
            expected = torch.zeros(len(vocabulary))
            for text in texts:
                expected[vocabulary.index(text)] += 1 / len(texts)
            torch.testing.assert_close(batch["answer_targets"][slot], expected)

    @pytest.mark.parametrize("per_image", [1, 2, 3])
    def test_questions_of_an_image_are_distinct_as_long_as_there_are_enough(self, per_image: int) -> None:
        stream = questions(per_image=per_image)
        seen: Counter[tuple[int, ...]] = Counter()
        for index in range(60):
            tokens = stream.batch(index)["question_tokens"].reshape(4, per_image, -1)
            for row in tokens:
                kinds = {tuple(question.tolist()) for question in row}
                assert len(kinds) == per_image
                seen.update(kinds)
        counts = list(seen.values())
        assert len(counts) == 3
        assert max(counts) < 1.4 * min(counts)  # every question has its turn

    def test_more_slots_than_questions_repeat_evenly(self) -> None:
        tokens = questions(per_image=7).batch(0)["question_tokens"].reshape(4, 7, -1)
        for row in tokens:
            counts = Counter(tuple(question.tolist()) for question in row)
            assert sorted(counts.values()) == [2, 2, 3]

    def test_unlabelled_questions_and_answers_outside_are_counted_and_not_drawn(self) -> None:
        answers = [("red", "red"), (), ("nobody says this",), ("blue", "nobody says this")] * 3
        split = DrawnSplit(num_images=4, answers=answers)
        stream = questions(split, images=2, per_image=1, answers=["red", "blue"])
        assert (stream.unlabelled_questions, stream.outside_vocabulary, stream.questions_without_image) == (3, 3, 0)
        targets = torch.cat([stream.batch(index)["answer_targets"] for index in range(20)])
        assert {tuple(row) for row in targets.tolist()} == {
            (1.0, 0.0),
            (0.0, 1.0),
        }  # the share inside the vocabulary is renormalised

    def test_questions_on_text_only_items_are_counted_and_not_drawn(self) -> None:
        split = DrawnSplit(num_images=6)
        split.has_pixels = lambda: np.array([True, True, False, True, False, True])  # type: ignore[method-assign]
        split._pixels[:, 0, 0] = np.arange(6)[:, None]
        stream = questions(split, images=2)
        assert stream.questions_without_image == 6
        drawn = {row for index in range(6) for row in stream.batch(index)["pixels"][:, 0, 0, 0].tolist()}
        assert drawn == {0, 1, 3, 5}
        pictures = captions(split, images=2)
        assert pictures.captions_without_image == 2
        assert {row for index in range(6) for row in pictures.batch(index)["pixels"][:, 0, 0, 0].tolist()} == {
            0,
            1,
            3,
            5,
        }

    def test_a_split_without_a_drawable_question_is_an_error(self) -> None:
        split = DrawnSplit(num_images=2, answers=[()] * 6)
        with pytest.raises(Mt2stError, match="stream 'questions' is empty: no items to draw from; check the split"):
            questions(split, answers=["red"])

    @pytest.mark.parametrize(("images", "per_image"), [(0, 1), (1, 0)])
    def test_batches_of_nothing(self, images: int, per_image: int) -> None:
        with pytest.raises(
            Mt2stError,
            match=f"images_per_batch = {images} and questions_per_image = {per_image} of 'questions' must be ≥ 1",
        ):
            questions(images=images, per_image=per_image)


class TestCaptions:
    def test_captions_go_with_their_image_and_equal_ones_share_a_group(self) -> None:
        split = DrawnSplit(num_images=16)
        stream = captions(split, images=16)
        batch = stream.batch(0)
        texts = tokenize(split.caption_texts())
        for pixels, tokens in zip(batch["pixels"], batch["caption_tokens"], strict=True):
            (row,) = [
                row for row in range(16) if torch.equal(torch.from_numpy(split._pixels[row]).permute(2, 0, 1), pixels)
            ]
            assert torch.equal(texts[row], tokens)
        same_text = (batch["caption_tokens"][:, None] == batch["caption_tokens"][None]).all(-1)
        same_group = batch["caption_group"][:, None] == batch["caption_group"][None]
        assert torch.equal(same_text, same_group)
        assert 1 < len(batch["caption_group"].unique()) < 16

    def test_every_caption_of_an_image_has_its_turn(self) -> None:
        split = DrawnSplit(num_images=2)
        split.caption_texts = lambda: ["one", "two", "three", "other"]  # type: ignore[method-assign]
        split.caption_images = lambda: np.array([0, 0, 0, 1])  # type: ignore[method-assign]
        stream = captions(split, images=2)
        counts = Counter(tuple(text) for index in range(300) for text in stream.batch(index)["caption_tokens"].tolist())
        one, two, three, other = (counts[tuple(text)] for text in tokenize(["one", "two", "three", "other"]).tolist())
        assert other == 300
        assert one + two + three == 300
        assert all(70 < count < 130 for count in (one, two, three))

    def test_captions_that_the_tower_cannot_tell_apart_share_a_group(self) -> None:
        """By case, or by what is cut off."""
        split = DrawnSplit(num_images=4)
        long = "a red square " * 9
        split.caption_texts = lambda: ["A Red square", "a red square", f"{long} blue", f"{long} green"]  # type: ignore[method-assign]
        batch = captions(split, images=4).batch(0)
        same_text = (batch["caption_tokens"][:, None] == batch["caption_tokens"][None]).all(-1)
        assert torch.equal(same_text, batch["caption_group"][:, None] == batch["caption_group"][None])
        assert len(batch["caption_group"].unique()) == 2

    def test_rows_limit_the_captions(self) -> None:
        stream = captions(DrawnSplit(num_images=4), images=2, rows=np.array([2]))
        assert torch.equal(stream.batch(0)["caption_tokens"], tokenize(["a blue square"] * 2))

    def test_no_captions_and_batches_of_nothing(self) -> None:
        with pytest.raises(Mt2stError, match="stream 'captions' is empty"):
            captions(rows=np.array([], dtype=np.int64))
        with pytest.raises(Mt2stError, match="images_per_batch = 0 of stream 'captions' must be ≥ 1"):
            captions(images=0)


class TestItems:
    def test_pixels_and_tensors_stay_together(self) -> None:
        split = DrawnSplit(num_images=10)
        split._pixels[:, 0, 0] = np.arange(10)[:, None]
        batch = ItemStream({"label": torch.arange(10)}, items_per_batch=6, split=split).batch(1)
        assert batch["pixels"][:, 0, 0, 0].tolist() == batch["label"].tolist()

    def test_lengths_must_agree(self) -> None:
        with pytest.raises(Mt2stError, match="needs tensors of one length"):
            ItemStream({"a": torch.zeros(3), "b": torch.zeros(4)}, items_per_batch=1)
        with pytest.raises(Mt2stError, match="items_per_batch = 0"):
            ItemStream({"a": torch.zeros(3)}, items_per_batch=0)

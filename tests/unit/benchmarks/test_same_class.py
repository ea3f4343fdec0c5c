"""Pairs of the question "the same class?": balanced, of disjoint blocks, nested; and its floors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.cases.image.knobs import Knobs
from benchmarks.cases.shared.pair_floors import Asked, pair_floors
from benchmarks.cases.shared.same_class import SameClassQuestion, asked, draw_pairs
from mt2st.data.streams import ItemStream, PairStream
from mt2st.errors import Mt2stError
from mt2st.objectives.same_class import SameClassObjective
from tests.helpers.unimodal import tiny_vit


def classes(count: int = 203, kinds: int = 5) -> np.ndarray:
    """Uneven classes: the first holds 40 %."""
    random = np.random.default_rng(0)
    return random.choice(kinds, count, p=[0.4, *[0.6 / (kinds - 1)] * (kinds - 1)])


class TestPairs:
    def test_half_are_of_one_class_and_a_block_shares_no_item_with_another(self) -> None:
        codes = classes()
        pairs = draw_pairs(codes, 1000, 0, "test")
        first, second = codes[pairs.rows].T
        assert np.array_equal(first == second, pairs.same == 1)
        assert pairs.same.mean() == 0.5
        assert len(pairs) > 0.8 * len(codes)
        assert (np.bincount(pairs.cluster) == 4).all()
        for item in np.unique(pairs.rows):
            where = (pairs.rows == item).any(1)
            assert where.sum() == 2
            assert sorted(pairs.same[where]) == [0, 1]
            assert len(np.unique(pairs.cluster[where])) == 1

    def test_a_smaller_choice_is_part_of_a_larger_and_the_seed_decides(self) -> None:
        few, many, other = (draw_pairs(classes(), count, seed, "x") for count, seed in ((40, 3), (80, 3), (40, 4)))
        assert np.array_equal(few.rows, many.rows[:40])
        assert not np.array_equal(few.rows, other.rows)

    def test_too_few_items_are_named(self) -> None:
        with pytest.raises(Mt2stError, match="the test part has too few items"):
            draw_pairs(np.array([0, 0, 0, 0, 1]), 8, 0, "test")


def test_a_batch_holds_first_then_second_items_and_two_processes_share_it() -> None:
    items = ItemStream({"number": torch.arange(20)}, items_per_batch=1)
    pairs = draw_pairs(np.arange(20) % 2, 16, 0, "x")
    stream = PairStream(items, pairs.rows, pairs.same, pairs_per_batch=8, seed=1)
    whole = stream.batch(3)
    first, second = whole["number"].chunk(2)
    assert torch.equal((first % 2 == second % 2).long(), whole["same"])
    shares = [stream.batch(3, rank, 2) for rank in range(2)]
    assert torch.equal(torch.cat([share["number"].chunk(2)[0] for share in shares]), first)
    assert torch.equal(torch.cat([share["same"] for share in shares]), whole["same"])


def test_asked_is_the_objective_on_each_pair_and_order_within_a_pair_does_not_matter() -> None:
    encoder, objective = tiny_vit().eval(), SameClassObjective(16).eval()
    pixels = torch.randint(0, 256, (30, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pairs = draw_pairs(np.arange(30) % 3, 20, 0, "x")
    found = asked(encoder, objective, ItemStream({"pixels": pixels}, items_per_batch=1), pairs)
    with torch.no_grad():
        embedded = encoder.features({"pixels": pixels}).embedding
        first, second = embedded[torch.from_numpy(pairs.rows)].unbind(1)
        wanted, turned = objective.compare(first, second).sigmoid(), objective.compare(second, first).sigmoid()
    assert found == pytest.approx(wanted.numpy(), abs=1e-5)
    torch.testing.assert_close(wanted, turned)


def test_examples_say_what_the_items_say() -> None:
    random = np.random.default_rng(0)
    codes = [np.arange(count) % 3 for count in (60, 30, 30)]
    question = SameClassQuestion(
        codes,
        labelled=20,
        validation=20,
        test=20,
        draw=0,
        vectors=lambda: [random.normal(size=(len(part), 4)).astype(np.float32) for part in codes],
        about="noise",
        texts=[f"gloss {place}" for place in range(30)],
    )
    pixels = torch.randint(0, 256, (30, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    stream = ItemStream({"pixels": pixels}, items_per_batch=1)
    found = question.grade(tiny_vit().eval(), SameClassObjective(16).eval(), stream)
    assert found.examples is not None
    assert [example.score for example in found.examples.items] == found.items["score"].tolist()
    for example, rows, same in zip(found.examples.items, question.test.rows, question.test.same, strict=True):
        assert example.question == f"gloss {rows[0]} | gloss {rows[1]}"
        assert example.right == (("different", "same")[same],)
        assert (example.given == example.right[0]) == (example.score == 1)
        assert example.confidence is not None
        assert 0.5 <= example.confidence <= 1


def test_floors_find_what_the_vectors_show_and_chance_where_they_show_nothing() -> None:
    random = np.random.default_rng(0)
    codes = [random.integers(0, 3, count) for count in (400, 200, 200)]
    means = 6 * np.eye(3, 8)
    parts = []
    for code, shown in ((codes, True), (codes, False)):
        vectors = [(means[part] * shown + random.normal(size=(len(part), 8))).astype(np.float32) for part in code]
        pairs = [draw_pairs(part, 120, 0, "x") for part in code]
        parts.append([Asked(v, c, p.rows, p.same) for v, c, p in zip(vectors, code, pairs, strict=True)])
    clear, blind = (pair_floors(*asked_of, about="vectors") for asked_of in parts)
    assert clear.pop("majority class") == blind.pop("majority class") == 0.5
    assert min(clear.values()) > 0.9
    assert max(blind.values()) < 0.7
    assert "SVM on vectors" in clear


def test_knobs_that_do_not_fit_the_question() -> None:
    with pytest.raises(Mt2stError, match="leave class out"):
        Knobs(auxiliaries=("class",))
    with pytest.raises(Mt2stError, match="must be even"):
        Knobs(question="same_class", images_per_batch=7)
    with pytest.raises(Mt2stError, match="labelled_pairs = 3"):
        Knobs(question="same_class", labelled_pairs=3)

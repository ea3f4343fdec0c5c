"""The trained subword tokenizer: any text, fixed lengths, and the same file for the same texts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.errors import Mt2stError

TEXTS = ["a red circle", "a blue square", "is there a red shape?", "what colour is it?"] * 3
TOKENIZER = TextTokenizer.train(TEXTS, 300)


def test_texts_are_framed_padded_and_numbers_of_the_vocabulary() -> None:
    ids = TOKENIZER.encode(["a red circle", "a"], 10)
    assert (ids.dtype, ids.shape) == (torch.int64, (2, 10))
    assert ids[:, 0].tolist() == [TOKENIZER.start_id] * 2
    length = TOKENIZER.lengths(["a red circle"])[0]
    assert ids[0, length - 1] == TOKENIZER.end_id
    assert (ids[0, length:] == TOKENIZER.pad_id).all()
    assert int(ids.max()) < TOKENIZER.vocabulary_size <= 300
    assert not (ids == TOKENIZER.mask_id).any()


def test_frequent_words_become_single_tokens() -> None:
    assert TOKENIZER.lengths(["a red"]) == [4]


def test_longer_texts_are_cut_and_keep_their_end() -> None:
    ids = TOKENIZER.encode(["a red circle " * 20], 6)
    assert ids.shape == (1, 6)
    assert ids[0, -1] == TOKENIZER.end_id
    assert TOKENIZER.lengths(["a red circle " * 20])[0] > 6


def test_lengths_are_those_before_any_cut_whatever_was_encoded_before() -> None:
    TOKENIZER.encode(TEXTS, 3)
    before = TOKENIZER.lengths(["what colour is it?"])
    TOKENIZER.encode(TEXTS, 50)
    assert TOKENIZER.lengths(["what colour is it?"]) == before


@given(st.lists(st.text(max_size=30), max_size=5))
@settings(max_examples=80, deadline=None)
def test_any_text_can_be_encoded(texts: list[str]) -> None:
    ids = TOKENIZER.encode(texts, 40)
    assert ids.shape == (len(texts), 40)
    assert ((ids == TOKENIZER.end_id).sum(1) == 1).all()


def test_words_never_seen_differ_from_each_other() -> None:
    ids = TOKENIZER.encode(["zebra", "zebu", "Ωμέγα", "🎈", "🎉"], 20)
    assert len({tuple(row) for row in ids.tolist()}) == 5


def test_case_and_compatibility_forms_are_folded() -> None:
    ids = TOKENIZER.encode(["A Red CIRCLE", "a red circle", "ａ red ｃircle"], 12)
    assert torch.equal(ids[0], ids[1])
    assert torch.equal(ids[0], ids[2])


def test_a_special_token_spelled_out_in_a_text_is_text() -> None:
    """Nobody can write a mask or an end into a question."""
    ids = TOKENIZER.encode(["a [MASK] circle [END] [PAD]"], 40)[0]
    assert not (ids == TOKENIZER.mask_id).any()
    assert int((ids == TOKENIZER.end_id).sum()) == 1


def test_training_depends_on_the_texts_alone() -> None:
    assert TextTokenizer.train(list(TEXTS), 300).to_json() == TOKENIZER.to_json()
    assert TextTokenizer.train(TEXTS[:2], 300).to_json() != TOKENIZER.to_json()


def test_it_comes_back_from_its_file_without_the_state_of_the_last_call(tmp_path: Path) -> None:
    plain = TOKENIZER.to_json()
    TOKENIZER.encode(TEXTS, 5)
    TOKENIZER.save(tmp_path / "tokenizer.json")
    assert (tmp_path / "tokenizer.json").read_text(encoding="utf-8") == plain
    loaded = TextTokenizer.load(tmp_path / "tokenizer.json")
    assert torch.equal(loaded.encode(TEXTS, 9), TOKENIZER.encode(TEXTS, 9))
    assert (loaded.pad_id, loaded.mask_id) == (TOKENIZER.pad_id, TOKENIZER.mask_id)


def test_no_texts() -> None:
    assert TOKENIZER.encode([], 7).shape == (0, 7)
    assert TOKENIZER.lengths([]) == []


def test_bad_sizes_and_bad_files(tmp_path: Path) -> None:
    with pytest.raises(Mt2stError, match="vocabulary_size = 100 must be at least 260: 256 bytes and 4 special"):
        TextTokenizer.train(TEXTS, 100)
    with pytest.raises(Mt2stError, match=r"tokenizer file .*nothing\.json is missing; it is saved with the run"):
        TextTokenizer.load(tmp_path / "nothing.json")
    (tmp_path / "torn.json").write_text(TOKENIZER.to_json()[:-20])
    with pytest.raises(Mt2stError, match=r"torn\.json is not a tokenizer file"):
        TextTokenizer.load(tmp_path / "torn.json")
    (tmp_path / "other.json").write_text(
        '{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}'
    )
    with pytest.raises(Mt2stError, match="lacks special tokens"):
        TextTokenizer.load(tmp_path / "other.json")

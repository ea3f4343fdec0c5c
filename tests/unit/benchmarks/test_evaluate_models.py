"""Evaluation of finished models: every way in, the same numbers as their own libraries, resuming, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from benchmarks.cli import main
from benchmarks.commands.evaluate import main as evaluate
from benchmarks.evaluate.embed import Embedder
from benchmarks.evaluate.model import DualModel
from benchmarks.evaluate.models import fingerprint, load_model
from benchmarks.evaluate.options import Options
from mt2st.errors import Mt2stError
from mt2st.files import read_sealed_json
from mt2st.flops import count_flops
from tests.helpers.checkpoints import bert
from tests.helpers.finished_models import (
    captioned_photos,
    captions_of,
    clip_checkpoint,
    open_clip_checkpoint,
    photo,
    photo_files,
)

DRAWN = Path(__file__).parents[2] / "helpers" / "drawn_dataset.py"
COUNT = 30


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of both libraries and a captioned set."""
    folder = tmp_path_factory.mktemp("evaluate")
    open_clip_checkpoint(folder / "open_clip")
    clip_checkpoint(folder / "clip")
    captioned_photos(folder, COUNT)
    return folder


def arguments(place: Path, results: Path, *more: str) -> list[str]:
    return [*more, "--data-folder", str(place / "data"), "--results", str(results), "--threads", "1"]


def records(results: Path) -> list[dict[str, Any]]:
    return [read_sealed_json(path, "-") for path in sorted(results.glob("evaluate/*/*/run.json"))]


def clip_benchmark_retrieval(model: Path, files: list[Path], captions: list[list[str]]) -> dict[str, float]:
    """CLIP_benchmark's own evaluation, with open_clip's own loading of the model and of its transform."""
    import open_clip
    from clip_benchmark.metrics import zeroshot_retrieval
    from PIL import Image

    network, transform = open_clip.create_model_from_pretrained(f"local-dir:{model}")
    pictures = torch.stack([transform(Image.open(file)) for file in files])
    batches = [(pictures[at : at + 7], captions[at : at + 7]) for at in range(0, len(files), 7)]
    tokenizer = open_clip.get_tokenizer(f"local-dir:{model}")
    found: dict[str, float] = zeroshot_retrieval.evaluate(
        network.eval(), batches, tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10]
    )
    return found


def test_retrieval_equals_clip_benchmark(place: Path, tmp_path: Path) -> None:
    data = str(place / "photos.py")
    spec = f"open_clip:{place / 'open_clip'}"
    assert evaluate(arguments(place, tmp_path, "--model", spec, "--data", data)) == 0
    ours = records(tmp_path)[0]["metrics"]
    captions = [captions_of(number) for number in range(COUNT)]
    theirs = clip_benchmark_retrieval(place / "open_clip", photo_files(tmp_path / "files", COUNT), captions)
    for k in (1, 5, 10):
        assert ours[f"text_to_image/hit_rate@{k}"] == pytest.approx(theirs[f"image_retrieval_recall@{k}"], abs=1e-6)
        assert ours[f"image_to_text/hit_rate@{k}"] == pytest.approx(theirs[f"text_retrieval_recall@{k}"], abs=1e-6)
    assert 0 < ours["text_to_image/hit_rate@10"] < 1


def test_hugging_face_embeddings_equal_the_librarys_own(place: Path) -> None:
    import transformers

    model = load_model(f"hf:{place / 'clip'}")
    processor = transformers.CLIPProcessor.from_pretrained(place / "clip")
    own = transformers.CLIPModel.from_pretrained(place / "clip").eval()
    pictures, texts = [photo(number) for number in range(3)], ["a red dog", "two", "a large old boat near a tree"]
    inputs = processor(text=texts, images=pictures, return_tensors="pt", padding=True)
    with torch.inference_mode():
        found = own(**inputs)
    images = model.encode_images(torch.stack([model.transform(one) for one in pictures]))
    torch.testing.assert_close(images, found.image_embeds, atol=1e-6, rtol=0)
    embedded = Embedder(model, Options()).texts(texts)
    np.testing.assert_allclose(embedded, found.text_embeds.numpy(), atol=1e-6)


def test_a_run_is_measured_as_it_measured_itself(tmp_path: Path) -> None:
    sizes = [
        "--data", str(DRAWN), "--image-size", "16", "--steps", "4", "--validations", "1", "--images-per-batch", "4",
        "--caption-images-per-batch", "4", "--encoder.width", "16", "--encoder.embedding-width", "16",
        "--encoder.fusion-width", "16", "--encoder.stem-width", "4", "--encoder.vocabulary-size", "300",
        "--strategies", "STL", "--seeds", "1", "--jobs", "1",
    ]  # fmt: skip
    assert main(["retrieval", *arguments(tmp_path, tmp_path, *sizes)]) == 0
    run = next(tmp_path.glob("retrieval/*/stl-*"))
    told = read_sealed_json(run / "run.json", "-")["metrics"]["test"]
    more = ("--model", str(run), "--data", str(DRAWN), "--tasks", "retrieval")
    assert evaluate(arguments(tmp_path, tmp_path, *more)) == 0
    found = records(tmp_path)[0]
    assert found["metrics"] == pytest.approx({name: told[name] for name in found["metrics"]}, abs=1e-6)
    assert len(found["metrics"]) == 18


def test_all_pairs_are_measured_once_and_a_failed_one_is_named(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [f"open_clip:{place / 'open_clip'}", f"hf:{tmp_path / 'nothing'}", f"hf:{place / 'clip'}"]
    command = arguments(place, tmp_path, "--model", *models, "--data", str(place / "photos.py"))
    assert evaluate(command) == 1
    first = records(tmp_path)
    assert {record["model"]["spec"] for record in first} == {models[0], models[2]}
    table = (tmp_path / "evaluate" / "TABLE.md").read_text()
    assert f"hf:{tmp_path / 'nothing'}" in table.replace("\\", "")
    assert "is not a folder" in table
    assert table.count("photos/test") == 2
    capsys.readouterr()
    assert evaluate(command) == 1
    assert capsys.readouterr().out.count("finished before, skipped") == 2
    assert records(tmp_path) == first
    assert (tmp_path / "evaluate" / "TABLE.md").read_text() == table


def test_other_weights_in_the_same_folder_are_measured_anew(place: Path, tmp_path: Path) -> None:
    folder = open_clip_checkpoint(tmp_path / "model")
    command = arguments(place, tmp_path, "--model", f"open_clip:{folder}", "--data", str(place / "photos.py"))
    assert evaluate(command) == 0
    (folder / "open_clip_model.safetensors").unlink()
    weights = open_clip_checkpoint(tmp_path / "other", seed=1) / "open_clip_model.safetensors"
    weights.rename(folder / "open_clip_model.safetensors")
    assert evaluate(command) == 0
    assert len(records(tmp_path)) == 2


def test_the_record_tells_costs_and_the_embeddings_can_be_searched(place: Path, tmp_path: Path) -> None:
    spec = f"open_clip:{place / 'open_clip'}"
    command = arguments(place, tmp_path, "--model", spec, "--data", str(place / "photos.py"), "--limit", "12")
    assert evaluate(command) == 0
    record = records(tmp_path)[0]
    model = load_model(spec)
    pixels = model.transform(photo(0))[None]
    assert record["costs"]["images"]["flops_per_item"] == count_flops(lambda: model.encode_images(pixels))
    assert record["costs"]["images"]["items"] == record["data"]["images"] == 12
    assert record["costs"]["texts"]["flops_per_item"] < count_flops(
        lambda: model.encode_texts(torch.ones(1, 77, dtype=torch.int64))
    )
    assert record["peak_memory_bytes"] > 1e7
    folder = next(tmp_path.glob("evaluate/photos/*/run.json")).parent
    ranks = load_file(folder / "items.safetensors")["retrieval/text_to_image_rank"]
    assert np.mean(ranks <= 5) == pytest.approx(record["metrics"]["text_to_image/hit_rate@5"])
    assert main(["index", "--data", str(folder), "--settings", "exact", "--smoke", "--results", str(tmp_path)]) == 0


@pytest.mark.parametrize("workers", [0, 3])
def test_threads_that_decode_ahead_change_nothing(place: Path, tmp_path: Path, workers: int) -> None:
    spec = f"open_clip:{place / 'open_clip'}"
    command = arguments(place, tmp_path, "--model", spec, "--data", str(place / "photos.py"), "--batch-size", "7")
    assert evaluate([*command, "--workers", str(workers)]) == 0
    vectors = load_file(next(tmp_path.glob("evaluate/photos/*/embeddings.safetensors")))
    model = load_model(spec)
    alone = torch.cat([model.encode_images(model.transform(photo(number))[None]) for number in range(COUNT)])
    np.testing.assert_allclose(vectors["image_embeddings"], alone.numpy(), atol=1e-6)
    texts = [text for number in range(COUNT) for text in captions_of(number)]
    one = torch.cat([model.encode_texts(model.towers.tokenize([text])) for text in texts])
    np.testing.assert_allclose(vectors["text_embeddings"], one.numpy(), atol=1e-6)


# -- bad input ---------------------------------------------------------------------------------------------------------


def refused(spec: str) -> str:
    """The one line with which a model is refused."""
    with pytest.raises(Mt2stError) as caught:
        load_model(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("spec", ["hf:nobody/nothing", "open_clip:ViT-B-32:laion2b_s34b_b79k"])
def test_a_hub_name_without_network_says_where_it_looked_and_how_to_bring_the_files(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.evaluate.models.HF_HUB_CACHE", str(tmp_path))
    line = refused(spec)
    assert str(tmp_path) in line
    assert "hf download" in line
    assert f"{spec.partition(':')[0]}:FOLDER" in line


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("small", "write open_clip:NAME:TAG, open_clip:FOLDER"),
        ("open_clip:ViT-B-32", "names no weights"),
        ("open_clip:ViT-B-33:x", "did you mean 'ViT-B-32'"),
        ("hf:a/b+c/d", "is a pair, whose projections nobody has trained"),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_ones(spec: str, why: str) -> None:
    assert why in refused(spec)


def test_a_folder_that_is_no_run_says_what_to_write(place: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    assert f"write hf:{tmp_path / 'bare'}" in refused(str(tmp_path / "bare"))
    assert f"write open_clip:{place / 'open_clip'}" in refused(str(place / "open_clip"))


def test_open_clip_folders_that_cannot_be_used(tmp_path: Path) -> None:
    folder = open_clip_checkpoint(tmp_path / "model")
    weights = folder / "open_clip_model.safetensors"
    weights.rename(tmp_path / "aside")
    assert "holds no safetensors weights" in refused(f"open_clip:{folder}")
    weights.write_bytes((tmp_path / "aside").read_bytes()[:5000])
    assert "open_clip cannot load" in refused(f"open_clip:{folder}")
    (tmp_path / "aside").rename(weights)
    assert isinstance(load_model(f"open_clip:{folder}"), DualModel)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["width"] = 32
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert "must be those of the model in open_clip_config.json" in refused(f"open_clip:{folder}")
    (folder / "open_clip_config.json").write_text("[1]")
    assert "describes no open_clip model" in refused(f"open_clip:{folder}")
    (folder / "open_clip_config.json").unlink()
    assert "open_clip_config.json is missing" in refused(f"open_clip:{folder}")


def hybrid_checkpoint(folder: Path, texts: str) -> Path:
    """A random open_clip model whose text tower is the BERT of the folder `texts`, as open_clip's own Hub has them."""
    import open_clip
    import transformers
    from safetensors.torch import save_file

    text = {"hf_model_name": texts, "hf_tokenizer_name": texts, "hf_pooler_type": "mean_pooler", "context_length": 10}
    text |= {"hf_proj_type": "linear"}
    vision = {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 8}
    torch.manual_seed(0)
    made = open_clip.CustomTextCLIP(embed_dim=24, vision_cfg=vision, text_cfg={**text, "hf_model_pretrained": False})
    folder.mkdir()
    save_file(made.state_dict(), folder / "open_clip_model.safetensors")
    transformers.AutoTokenizer.from_pretrained(texts).save_pretrained(folder)
    config = {"model_cfg": {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def test_a_text_tower_of_transformers_inside_open_clip_equals_open_clips_own(tmp_path: Path) -> None:
    import open_clip

    texts = bert(tmp_path / "bert")
    folder = hybrid_checkpoint(tmp_path / "hybrid", texts)
    own, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    words = ["a red circle", "is it blue ?", "square"]
    pictures = torch.stack([transform(photo(number)) for number in range(3)])
    with torch.inference_mode():
        own.eval()
        images = own.encode_image(pictures, normalize=True)
        embedded = own.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(words), normalize=True)

    def check() -> None:
        model = load_model(f"open_clip:{folder}")
        assert isinstance(model, DualModel)
        mine = torch.stack([model.transform(photo(number)) for number in range(3)])
        torch.testing.assert_close(model.encode_images(mine), images, atol=1e-6, rtol=0)
        np.testing.assert_allclose(Embedder(model, Options()).texts(words), embedded.numpy(), atol=1e-6)

    check()
    # As it comes from the Hub: the text tower's name is the Hub's, and there is no network.
    path = folder / "open_clip_config.json"
    path.write_text(path.read_text().replace(texts, "somebody/bert"))
    why = refused(f"open_clip:{folder}")
    assert "text tower of transformers, somebody/bert, whose configuration is not here" in why
    assert "hf download somebody/bert config.json" in why
    (folder / "config.json").write_bytes((Path(texts) / "config.json").read_bytes())
    check()
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert "tokenizer" in refused(f"open_clip:{folder}").lower()


def test_a_model_without_a_text_tower_or_without_its_image_processor(tmp_path: Path) -> None:
    import transformers

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = transformers.ViTModel(transformers.ViTConfig(**sizes, image_size=16, patch_size=8))
    vision.save_pretrained(tmp_path / "vit")
    assert "is a vit model without a text tower" in refused(f"hf:{tmp_path / 'vit'}")
    folder = clip_checkpoint(tmp_path / "clip")
    (folder / "preprocessor_config.json").unlink()
    assert "AutoImageProcessor cannot load" in refused(f"hf:{folder}")


def test_remote_code_is_refused_and_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    assert "bring their own code" in refused(f"hf:{folder}")
    assert not (tmp_path / "ran").exists()


def test_data_without_captions_and_unknown_splits_are_named(place: Path, tmp_path: Path) -> None:
    model = ("--model", f"open_clip:{place / 'open_clip'}")
    with pytest.raises(Mt2stError, match="has no captions, which retrieval needs"):
        evaluate(arguments(place, tmp_path, *model, "--data", "digits", "--limit", "5", "--tasks", "retrieval"))
    with pytest.raises(Mt2stError, match=r"unknown split of 'photos' 'tset'; did you mean 'test'"):
        evaluate(arguments(place, tmp_path, *model, "--data", str(place / "photos.py"), "--split", "tset"))
    with pytest.raises(Mt2stError, match="says word-similarity, which a model of images and texts is not asked here"):
        evaluate(arguments(place, tmp_path, *model, "--data", "word_similarity"))
    with pytest.raises(Mt2stError, match="--model and --data each name at least one"):
        evaluate(arguments(place, tmp_path, *model))
    with pytest.raises(Mt2stError, match="are for one set, but 2 are given"):
        evaluate(arguments(place, tmp_path, *model, "--data", "a", "b", "--source", "here"))


def test_a_fingerprint_follows_the_files(tmp_path: Path) -> None:
    folder = open_clip_checkpoint(tmp_path / "model")
    before = fingerprint(f"open_clip:{folder}")
    assert set(before) == {"open_clip_config.json", "open_clip_model.safetensors"}
    (folder / "open_clip_config.json").write_text("{}")
    assert fingerprint(f"open_clip:{folder}") != before
    assert fingerprint("open_clip:ViT-B-32:openai") == {"name": "open_clip:ViT-B-32:openai"}

"""Questions to finished models: chosen among candidates, or generated; graded by every protocol; bad input."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.commands.evaluate import main as evaluate
from benchmarks.evaluate.dual import open_clip_folder
from benchmarks.evaluate.generative import generative_model
from benchmarks.evaluate.models import load_model
from benchmarks.evaluate.options import Options
from mt2st.data.images import load_rgb
from mt2st.errors import Mt2stError
from mt2st.files import read_sealed_json
from mt2st.metrics import PROTOCOLS, vqa_accuracy
from tests.helpers.drawn_dataset import examples
from tests.helpers.finished_models import captioned_photos, llava_checkpoint, open_clip_checkpoint, photo

DRAWN = Path(__file__).parents[2] / "helpers" / "drawn_dataset.py"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    weights = open_clip_checkpoint(folder / "open_clip") / "open_clip_model.safetensors"
    tensors = load_file(weights)
    for name, tensor in tensors.items():
        if name.startswith("visual.") and tensor.ndim > 1:
            tensor.mul_(6)  # so that what is chosen depends on the picture
    save_file(tensors, weights)
    llava_checkpoint(folder / "llava")
    return folder


def measured(place: Path, results: Path, model: str, *more: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The record, and question id → answer, of the drawn set."""
    places = ["--data-folder", str(place / "data"), "--results", str(results), "--threads", "1"]
    assert evaluate(["--model", model, "--data", str(DRAWN), *places, *more]) == 0
    folder = next(results.glob("evaluate/drawn/*/run.json")).parent
    answers = read_sealed_json(folder / "answers.json", "-")["answers"]
    return read_sealed_json(folder / "run.json", "-"), {one["question_id"]: one["answer"] for one in answers}


def check_grades(record: dict[str, Any], answers: dict[str, str]) -> None:
    """The metrics are the means of the protocols' own scores."""
    for protocol in PROTOCOLS:
        scores = [vqa_accuracy(answers[one.question_id], one.answers, protocol) for one in examples("test")]
        assert record["metrics"][f"vqa_accuracy/{protocol}"] == pytest.approx(np.mean(scores))


def test_the_candidate_nearest_to_the_picture_is_chosen(place: Path, tmp_path: Path) -> None:
    record, answers = measured(place, tmp_path, f"open_clip:{place / 'open_clip'}", "--candidates", "5")
    counts = Counter(answer.text for one in examples("train") for answer in one.answers)
    candidates = sorted(counts, key=lambda text: (-counts[text], text))[:5]
    assert record["notes"]["vqa"]["candidates"] == candidates
    model = open_clip_folder(place / "open_clip")
    asked = list(examples("test"))
    for one in asked[:10]:
        picture = model.encode_images(model.transform(load_rgb(one.image))[None])  # type: ignore[arg-type]
        texts = model.encode_texts(model.towers.tokenize([f"{one.question} {text}" for text in candidates]))
        scores = texts @ picture[0]
        assert scores[candidates.index(answers[one.question_id])] == pytest.approx(float(scores.max()), abs=1e-6)
    assert len(set(answers.values())) > 1
    check_grades(record, answers)
    assert record["costs"]["texts"]["items"] == 2 * 5
    assert record["costs"]["images"]["items"] == 20
    prior = record["floors"]["vqa"]["language prior"]["vqa_accuracy/always"]
    assert 0 < prior < 1


def test_generated_answers_equal_a_bare_loop(place: Path, tmp_path: Path) -> None:
    import transformers

    more = ("--batch-size", "7", "--new-tokens", "5", "--instruction", "it is")
    record, answers = measured(place, tmp_path, f"hf:{place / 'llava'}", *more)
    model = transformers.AutoModelForImageTextToText.from_pretrained(place / "llava").eval()
    processor = transformers.AutoProcessor.from_pretrained(place / "llava")
    for one in list(examples("test"))[:8]:
        content = [{"type": "image"}, {"type": "text", "text": f"{one.question} it is"}]
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(images=load_rgb(one.image), text=prompt, return_tensors="pt")  # type: ignore[arg-type]
        with torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=5, do_sample=False)
        told = processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
        assert answers[one.question_id] == told
    assert len(set(answers.values())) > 2
    check_grades(record, answers)
    assert record["notes"]["vqa"]["prompt"] == "user : <image> what colour is it? it is answer :"
    assert record["costs"]["answers"]["items"] == 40
    assert record["costs"]["answers"]["flops_per_item"] > 1e5
    table = (tmp_path / "evaluate" / "TABLE.md").read_text()
    assert "VQA official-2021 % | VQA official-2016 % | VQA always % | GFLOPs/answer | answers/s" in table


def test_a_short_prompt_is_padded_on_the_left_and_answered_as_alone(place: Path) -> None:
    model = generative_model(str(place / "llava"))
    questions = ["it", "what colour is it ? red green small large dog house", "which shape is it ?"]
    pictures = [photo(number) for number in range(3)]
    inputs = model.inputs(pictures, questions)
    assert inputs["attention_mask"][:, -1].tolist() == [1, 1, 1]
    assert inputs["attention_mask"][:, 0].tolist() == [0, 1, 0]
    together = model.generate(inputs, 6)
    alone = [model.generate(model.inputs([one], [text]), 6)[0] for one, text in zip(pictures, questions, strict=True)]
    assert together == alone


def test_without_a_chat_template_the_picture_comes_first(tmp_path: Path) -> None:
    model = generative_model(str(llava_checkpoint(tmp_path / "plain", chat_template=False)))
    assert model.prompt("what is it ?") == "<image>\nwhat is it ?\n"
    assert model.facts["chat_template"] is False
    assert len(model.generate(model.inputs([photo(0)], ["what is it ?"]), 3)) == 1


def test_generative_folders_that_cannot_be_used(tmp_path: Path) -> None:
    folder = llava_checkpoint(tmp_path / "model")
    weights = (folder / "model.safetensors").rename(tmp_path / "aside")
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(Mt2stError, match="holds no safetensors weights; other formats can execute code"):
        load_model(f"hf:{folder}")
    weights.rename(folder / "model.safetensors")
    (folder / "processor_config.json").unlink()
    with pytest.raises(Mt2stError, match=r"AutoProcessor cannot load|holds no processor of pictures and texts"):
        load_model(f"hf:{folder}")


def test_a_generative_model_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    folder = llava_checkpoint(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "llava_of_mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(Mt2stError, match="models that bring their own code or pickled weights are refused"):
        load_model(f"hf:{folder}")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("model", "data", "more", "why"),
    [
        ("llava", "photos", ("--tasks", "retrieval"), "generates texts, so it is asked questions alone, not retrieval"),
        ("llava", "photos", ("--tasks", "vqa"), "has no questions, which vqa needs"),
        ("open_clip", "photos", ("--tasks", "vqa"), "has no questions, which vqa needs"),
        ("open_clip", str(DRAWN), ("--train-split", "none"), "name one with --train-split"),
    ],
)
def test_data_that_lack_what_the_task_needs(
    place: Path, tmp_path: Path, model: str, data: str, more: tuple[str, ...], why: str
) -> None:
    data = str(captioned_photos(tmp_path, 4)) if data == "photos" else data
    spec = f"{'hf' if model == 'llava' else 'open_clip'}:{place / model}"
    places = ["--data-folder", str(tmp_path / "data"), "--results", str(tmp_path), "--threads", "1"]
    with pytest.raises(Mt2stError) as caught:
        evaluate(["--model", spec, "--data", data, *places, *more])
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_are_checked() -> None:
    with pytest.raises(Mt2stError, match="unknown task 'vqas'; did you mean 'vqa'"):
        Options(tasks=("vqas",))
    with pytest.raises(Mt2stError, match="--new-tokens = 0 is outside"):
        Options(new_tokens=0)

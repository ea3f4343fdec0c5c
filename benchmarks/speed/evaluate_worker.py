"""One evaluation of a model in a process of its own: ours, or CLIP_benchmark's on the same files.

    python -m benchmarks.speed.evaluate_worker TASK FOLDER WHO THREADS

FOLDER holds what `make_inputs` wrote. Prints one JSON object as its last line. Called by
`python -m benchmarks peers evaluate`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from benchmarks.evaluate.classification import measure_zero_shot
from benchmarks.evaluate.data import open_data
from benchmarks.evaluate.dual import open_clip_folder
from benchmarks.evaluate.embed import Embedder
from benchmarks.evaluate.generation import Answerer, measure_answers
from benchmarks.evaluate.generative import generative_model
from benchmarks.evaluate.options import Options
from benchmarks.evaluate.retrieval import measure_retrieval
from benchmarks.speed.checkpoints import write_checkpoint, write_llava
from mt2st.threads import computing_threads

GENERATION = "generation"
_QUESTIONS = 16  # a batch
TEMPLATES = ("a photo of a {c}.", "a drawing of a {c}.", "one {c} among others")
_COLOURS, _THINGS = ("red", "green"), ("dog", "house", "tree", "boat", "sky")
CLASSES = tuple(f"{colour} {thing}" for colour in _COLOURS for thing in _THINGS)
_WORDS = (*_COLOURS, *_THINGS, "small", "large", "old", "near", "two", "under", "street", "child", "runs", "blue")
_NAMES = {"image_retrieval_recall": "text_to_image/hit_rate", "text_retrieval_recall": "image_to_text/hit_rate"}


def make_inputs(folder: Path, images: int, width: int, layers: int) -> None:
    """Checkpoints, `images` JPEG files of 640×480, five captions, a label, a question and its answer for each."""
    text = {"context_length": 77, "vocab_size": 49408, "width": width, "heads": width // 64, "layers": layers}
    vision = {"image_size": 224, "layers": layers, "width": width, "head_width": 64, "patch_size": 32}
    write_checkpoint(folder / "model", {"embed_dim": width, "vision_cfg": vision, "text_cfg": text})
    write_llava(folder / "llava", ("user", "answer", ":", *_WORDS), width=width, patch=112)
    place = folder / "set" / "test"
    place.mkdir(parents=True)
    rows = []
    for number in range(images):
        random = np.random.default_rng(number)
        smooth = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        name = f"{number:06d}.jpg"
        smooth.resize((640, 480), Image.Resampling.BICUBIC).save(place / name, quality=90)
        captions = [" ".join(random.choice(_WORDS, 5 + int(random.integers(10)))) for _ in range(5)]
        row = {"file_name": name, "captions": captions, "label": sorted(CLASSES)[number % len(CLASSES)]}
        rows.append({**row, "question": captions[0], "question_id": name, "answers": ["dog"]})
    (place / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def ours(task: str, folder: Path) -> dict[str, Any]:
    """Ours, from the files to the metrics. Preparing is timed by itself: it is done once for all models."""
    measure = {"retrieval": measure_retrieval, "zero-shot": measure_zero_shot}[task]
    options = Options(tasks=(task,), templates=TEMPLATES, data_folder=folder / "data", workers=1)
    started = time.perf_counter()
    model = open_clip_folder(folder / "model")
    loaded = time.perf_counter()
    data = open_data(str(folder / "set"), options, Console(file=sys.stderr))
    prepared = time.perf_counter()
    metrics = measure(Embedder(model, options), data, options).metrics
    ended = time.perf_counter()
    return {"metrics": metrics, "seconds": loaded - started + ended - prepared, "prepare_seconds": prepared - loaded}


def ours_generating(folder: Path) -> dict[str, Any]:
    """Our answers to the set's questions; the time is that of answering, with decoding of the pictures."""
    options = Options(tasks=("vqa",), data_folder=folder / "data", batch_size=_QUESTIONS, instruction="")
    answerer = Answerer(generative_model(str(folder / "llava")))
    data = open_data(str(folder / "set"), options, Console(file=sys.stderr))
    found = measure_answers(answerer, data, options)
    return {"answers": [one["answer"] for one in found.answers], "seconds": answerer.costs["answers"].seconds}


def bare_generating(folder: Path) -> dict[str, Any]:
    """The same answers by a loop as somebody writes it: open files, template, processor, generate, decode."""
    import transformers

    model = transformers.AutoModelForImageTextToText.from_pretrained(folder / "llava").eval()
    processor = transformers.AutoProcessor.from_pretrained(folder / "llava")
    place = folder / "set" / "test"
    rows = [json.loads(line) for line in (place / "metadata.jsonl").read_text().splitlines()]

    @torch.inference_mode()
    def answered(some: list[dict[str, Any]]) -> list[str]:
        pictures = [[Image.open(place / row["file_name"]).convert("RGB")] for row in some]
        talks = [
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": row["question"]}]}]
            for row in some
        ]
        prompts = [processor.apply_chat_template(talk, add_generation_prompt=True) for talk in talks]
        inputs = processor(images=pictures, text=prompts, padding=True, padding_side="left", return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=Options.new_tokens, do_sample=False)
        texts = processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in texts]

    answered(rows[:_QUESTIONS])  # warms up, as ours does
    started = time.perf_counter()
    answers = [text for at in range(0, len(rows), _QUESTIONS) for text in answered(rows[at : at + _QUESTIONS])]
    return {"answers": answers, "seconds": time.perf_counter() - started}


def theirs(task: str, folder: Path) -> dict[str, Any]:
    """CLIP_benchmark's, from the same files to its metrics: open_clip's loading, its data loader with one process."""
    import open_clip
    from clip_benchmark.datasets.builder import image_captions_collate_fn
    from clip_benchmark.metrics import zeroshot_retrieval
    from torch.utils.data import DataLoader

    started = time.perf_counter()
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder / 'model'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder / 'model'}")
    model.eval()
    place = folder / "set" / "test"
    rows = [json.loads(line) for line in (place / "metadata.jsonl").read_text().splitlines()]
    classes = sorted(CLASSES)

    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, at: int) -> Any:
            target = rows[at]["captions"] if task == "retrieval" else classes.index(rows[at]["label"])
            return transform(Image.open(place / rows[at]["file_name"])), target

    collate = image_captions_collate_fn if task == "retrieval" else None
    loader = DataLoader(Pictures(), batch_size=64, shuffle=False, num_workers=1, collate_fn=collate)
    if task == "retrieval":
        found = zeroshot_retrieval.evaluate(model, loader, tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10])
        metrics = {}
        for name, value in found.items():
            way, _, k = name.partition("@")
            metrics[f"{_NAMES[way]}@{k}"] = value
    else:
        metrics = _zero_shot(model, tokenizer, classes, loader)
    return {"metrics": metrics, "seconds": time.perf_counter() - started, "prepare_seconds": 0.0}


def _zero_shot(model: Any, tokenizer: Any, classes: list[str], loader: Any) -> dict[str, float]:
    """Its classifier and its logits. Its own `accuracy` fails with the NumPy of today, so its formula stands here."""
    from clip_benchmark.metrics.zeroshot_classification import run_classification, zero_shot_classifier
    from sklearn.metrics import balanced_accuracy_score

    weights = zero_shot_classifier(model, tokenizer, classes, list(TEMPLATES), "cpu", amp=False)
    logits, target = run_classification(model, weights, loader, "cpu", amp=False)
    right = logits.topk(5, 1, True, True)[1].eq(target[:, None])
    return {
        "zero_shot/accuracy@1": float(right[:, :1].sum()) / len(target),
        "zero_shot/accuracy@5": float(right.sum()) / len(target),
        "zero_shot/mean_class_accuracy": float(balanced_accuracy_score(target, logits.argmax(1))),
    }


def work(task: str, place: str, who: str, threads: int) -> dict[str, Any]:
    """One measurement, by `ours` or `theirs`."""
    with computing_threads(threads):
        if task == GENERATION:
            return {"ours": ours_generating, "theirs": bare_generating}[who](Path(place))
        return {"ours": ours, "theirs": theirs}[who](task, Path(place))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(work(sys.argv[1], **json.loads(sys.argv[2]))) + "\n")

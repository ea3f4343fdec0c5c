"""The model card of an exported model, in the Hub's format: a YAML header, and what people should know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mt2st.trained.description import Description

_LIBRARY = {"open_clip": "open_clip", "hf": "transformers", "onnx": "onnx", "safetensors": "mt2st"}
_PIPELINE = {
    "vqa": "visual-question-answering",
    "retrieval": "zero-shot-image-classification",
    "image": "image-classification",
    "text": "text-classification",
    "representation": "feature-extraction",
    "diffusion": "unconditional-image-generation",
}
_USE = {
    "open_clip": """\
import open_clip

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:FOLDER")
tokenize = open_clip.get_tokenizer("local-dir:FOLDER")
""",
    "hf": """\
from transformers import AutoModel, AutoTokenizer

model = AutoModel.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")   # SigLIP wants padding="max_length"
""",
    "onnx": """\
import onnxruntime

images = onnxruntime.InferenceSession("FOLDER/image.onnx")
(embeddings,) = images.run(None, {"pixels": pixels})     # uint8 [batch, 3, size, size]; onnx.json has size and fit
texts = onnxruntime.InferenceSession("FOLDER/text.onnx")
(embeddings,) = texts.run(None, {"tokens": tokens})      # int64 [batch, context_length], padded with pad_id
""",
    "safetensors": """\
import mt2st

model = mt2st.load("FOLDER")
""",
}
_PAIR = """
`image` and `text` are two models. An embedding is the mean of a model's last hidden states (of real tokens), times the
transposed matrix of its side in `projections.safetensors`, brought to unit length.
"""


def model_card(description: Description, form: str) -> str:
    """The text of README.md.

    Args:
        form: "open_clip", "hf", "onnx" or "safetensors".
    """
    about = description.about
    benchmark = str(about.get("benchmark", ""))
    towers_only = form != "safetensors"
    parts = [
        _header(about, form, benchmark),
        f"# {about.get('run_id', 'A model trained with mt2st')}",
        _training(about, description),
        "## Use\n\n```python\n" + _USE[form] + "```",
    ]
    if form == "hf" and "+" in str(description.build.get("towers", "")):
        parts.append(_PAIR.strip())
    parts += ["## Scores\n\n" + _scores(about), "## Limits\n\n" + _limits(benchmark, towers_only)]
    return "\n\n".join(parts) + "\n"


def _header(about: Mapping[str, Any], form: str, benchmark: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    data = about.get("data", {})
    name = str(data.get("name", "data"))
    pipeline = _PIPELINE.get(benchmark) if form == "safetensors" else "zero-shot-image-classification"
    results = [
        EvalResult(
            task_type=pipeline or "other",
            dataset_type=name,
            dataset_name=name,
            dataset_revision=str(data.get("revision", "")) or None,
            dataset_split="test",
            metric_type=metric,
            metric_value=value,
        )
        for metric, value in about.get("test", {}).items()
    ]
    values: dict[str, Any] = {"license": "other", "license_name": "see-the-data", "library_name": _LIBRARY[form]}
    if pipeline:
        values["pipeline_tag"] = pipeline
    if results:
        values |= {"model_name": str(about.get("run_id", "model")), "eval_results": results}
    card = ModelCardData(tags=["mt2st", *filter(None, [benchmark])], **values)
    return f"---\n{card.to_yaml()}\n---"


def _training(about: Mapping[str, Any], description: Description) -> str:
    data = about.get("data", {})
    rows = {
        "trained for": about.get("benchmark"),
        "strategy": about.get("strategy"),
        "schedules of the auxiliaries": "; ".join(
            f"{name}: {text}" for name, text in about.get("schedules", {}).items()
        ),
        "seed": about.get("seed"),
        "steps": about.get("steps"),
        "training FLOPs": f"{about['training_flops']:.4g}" if about.get("training_flops") else None,
        "parameters in training": f"{about['parameters']:,}" if about.get("parameters") else None,
        "towers": description.build.get("towers"),
        "data": " ".join(str(data[key]) for key in ("name", "revision") if data.get(key)),
        "licence of the data": data.get("licence"),
        "content hash of the data": data.get("content_hash"),
    }
    lines = [f"| {name} | {_cell(value)} |" for name, value in rows.items() if value not in (None, "")]
    return "\n".join(
        [
            "Trained by mt2st's benchmark suite, which compares auxiliary tasks that fade (MT2ST, arXiv 2406.18038).",
            "",
            "| | |",
            "|---|---|",
            *lines,
            "",
            "The weights may be used as the licences of the data and of the checkpoint that they started from allow.",
        ]
    )


def _scores(about: Mapping[str, Any]) -> str:
    scores, intervals = about.get("test", {}), about.get("intervals", {})
    if not scores:
        return "None were kept."
    lines = ["| metric on the test split | value | 95 % interval | over |", "|---|---:|---:|---|"]
    for metric, value in scores.items():
        found = intervals.get(metric)
        span = f"{found['low']:.4g} to {found['high']:.4g}" if found else "–"
        over = f"{found['count']:,} {found['over']}" if found else "–"
        lines.append(f"| {_cell(metric)} | {value:.4g} | {span} | {over} |")
    return "\n".join(
        [*lines, "", "Intervals are over test items, or clusters of them, of this one seed; seeds differ too."]
    )


def _limits(benchmark: str, towers_only: bool) -> str:
    lines = [
        "- It was trained and tested on the data above and on no other; nothing is known of its answers elsewhere.",
        "- It is one seed of one strategy. Comparisons of strategies need several (the suite's report has them).",
        "- It was trained to compare ways of training, not to be used where its errors do harm.",
    ]
    if towers_only and benchmark == "vqa":
        lines.append("- These are the towers alone: fusion and answers are not part of this format.")
    return "\n".join(lines)


def _cell(value: object) -> str:
    """Text that stays in its cell and is no markup."""
    text = " ".join(str(value).split())
    for mark in ("\\", "|", "<", ">", "*", "_", "`", "[", "]"):
        text = text.replace(mark, f"\\{mark}")
    return text

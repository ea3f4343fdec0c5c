"""MT2ST: auxiliary tasks that are phased out while a model trains, with the training FLOPs that this saves, measured.

Names are imported when first used, so that `import mt2st.schedules` needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.3.0"

_HOME = {
    "Aligned": "listening",
    "Answer": "data.card",
    "AnswerVocabulary": "data.vocabulary",
    "CaptionStream": "data.streams",
    "Constant": "schedules",
    "DatasetCard": "data.card",
    "Diminish": "schedules",
    "Example": "data.card",
    "Flattening": "listening",
    "FlopCounter": "flops",
    "FlopLedger": "flops",
    "Forked": "listening",
    "Listens": "schedules",
    "MT2ST": "mixture",
    "Mt2stError": "errors",
    "Off": "schedules",
    "PreparedDataset": "data.prepared",
    "PreparedSplit": "data.prepared",
    "QuestionStream": "data.streams",
    "Sampled": "schedules",
    "SamplesWeight": "schedules",
    "Schedule": "schedules",
    "Switch": "schedules",
    "Task": "mixture",
    "TrainConfig": "training.trainer",
    "Trainer": "training.trainer",
    "VisionLanguageEncoder": "encoders.vision_language",
    "carve_validation": "data.splits",
    "count_flops": "flops",
    "describe": "schedules",
    "evaluate_retrieval": "evaluate",
    "leaked_images": "data.splits",
    "load": "trained",
    "vqa_accuracy": "metrics",
    "without_leaked": "data.splits",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mt2st' has no attribute {name!r}")
    return getattr(import_module(f"mt2st.{_HOME[name]}"), name)

"""Classes of pictures: by prompts alone (zero-shot), and by probes that learn from the training split's embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases.shared.labels import (
    class_codes,
    class_names,
    linear_probe,
    macro_f1,
    majority,
    nearest_neighbours,
)
from benchmarks.evaluate.data import EvaluationData
from benchmarks.evaluate.embed import Embedder, Floats
from benchmarks.evaluate.measured import Measured
from benchmarks.evaluate.options import Options
from mt2st.data.splits import without_leaked
from mt2st.errors import Mt2stError, unknown_name

Ints = NDArray[np.int64]
_CUTOFFS = (1, 5)


def measure_zero_shot(embedder: Embedder, data: EvaluationData, options: Options) -> Measured:
    """Top-1 and top-5 accuracy and the mean over classes, by the similarity of a picture and its class's prompts.

    The classes are those of the evaluated and of the training split. Ties count against the model.

    Raises:
        Mt2stError: items without label, fewer than two classes, a template without a place for the name, a name for a
            label that is no class.
    """
    labels = sorted({*class_names(data.split), *(class_names(data.train) if data.train is not None else ())})
    names = named(labels, lines_of(options.class_names))
    templates = lines_of(options.templates)
    truth = class_codes(data.split, labels)
    scores = embedder.pictures(data.split) @ classifier(embedder, names, templates).T
    ranks, prediction = class_ranks(scores, truth), scores.argmax(1)
    cutoffs = [k for k in _CUTOFFS if k <= len(labels)]
    metrics = {f"zero_shot/accuracy@{k}": float((ranks <= k).mean()) for k in cutoffs}
    metrics["zero_shot/mean_class_accuracy"] = mean_class_accuracy(ranks == 1, truth)
    return Measured(
        metrics,
        {"chance": {f"zero_shot/accuracy@{k}": k / len(labels) for k in cutoffs}},
        {"rank": ranks, "prediction": prediction, "label": truth},
        notes={"labels": labels, "class_names": names, "templates": templates},
    )


def classifier(embedder: Embedder, names: list[str], templates: list[str]) -> Floats:
    """A unit vector for each class [C, E]: the mean of the unit embeddings of its prompts, made unit length again.

    This is CLIP's ensemble of prompts (arXiv 2103.00020, section 3.1.4).

    Raises:
        Mt2stError: a template has no place for the name.
    """
    for template in templates:
        if "{}" not in template and "{c}" not in template:
            raise Mt2stError(
                f"template {template!r} has no {{}} for the class name; for example --templates 'a photo of a {{}}.'"
            )
    prompts = [template.replace("{}", name).replace("{c}", name) for name in names for template in templates]
    mean = embedder.texts(prompts).reshape(len(names), len(templates), -1).mean(1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def class_ranks(scores: Floats, truth: Ints) -> Ints:
    """Rank [N] of each item's own class among all by `scores` [N, C], from 1; a tied class counts as ranked before."""
    own = scores[np.arange(len(truth)), truth]
    return (scores >= own[:, None]).sum(1).astype(np.int64)


def mean_class_accuracy(right: NDArray[np.bool_], truth: Ints) -> float:
    """Mean over the classes that occur in `truth` of the share of their items that are `right`."""
    return float(np.mean([right[truth == code].mean() for code in np.unique(truth)]))


def measure_probes(embedder: Embedder, data: EvaluationData, options: Options) -> Measured:
    """Logistic regression and k nearest neighbours on image embeddings, taught on the training split.

    Training images whose content is in the evaluated split are left out.

    Raises:
        Mt2stError: no training split, items without label, a class that the training split lacks.
    """
    train = without_leaked(data.training, data.split)
    labels = class_names(train)
    taught, truth = class_codes(train, labels), class_codes(data.split, labels)
    vectors, asked = embedder.pictures(train), embedder.pictures(data.split)
    found = {
        "linear_probe": linear_probe(vectors, taught, asked),
        "nearest_neighbours": nearest_neighbours(vectors, taught, asked, neighbours=options.neighbours),
    }
    metrics: dict[str, float] = {}
    for name, prediction in found.items():
        metrics[f"{name}/accuracy"] = float((prediction == truth).mean())
        metrics[f"{name}/macro_f1"] = macro_f1(prediction, truth)
    return Measured(
        metrics,
        {"majority": majority(taught, truth)},
        {**found, "label": truth},
        notes={
            "labels": labels,
            "training_images": train.num_images,
            "training_images_dropped_for_being_in_test": data.training.num_images - train.num_images,
        },
    )


def lines_of(values: tuple[str, ...]) -> list[str]:
    """The values themselves, or where the only one is a file, its lines that are not empty."""
    if len(values) != 1 or not Path(values[0]).is_file():
        return list(values)
    try:
        text = Path(values[0]).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Mt2stError(f"{values[0]} is not UTF-8 text; give a text file with one value a line") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def named(labels: list[str], pairs: list[str]) -> list[str]:
    """The name of each label: the one that a pair LABEL=NAME gives, else the label itself.

    Raises:
        Mt2stError: a text that is no pair, or a label that is no class.
    """
    names = {}
    for pair in pairs:
        label, equals, name = pair.partition("=")
        if not equals or not name.strip():
            raise Mt2stError(f"--class-names {pair!r} is not LABEL=NAME; for example --class-names 0=zero 1=one")
        if label.strip() not in labels:
            raise unknown_name("label in --class-names", label.strip(), labels)
        names[label.strip()] = name.strip()
    return [names.get(label, label) for label in labels]

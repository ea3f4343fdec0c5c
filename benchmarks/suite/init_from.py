"""`--init-from RUN`: an experiment starts from another run's final weights, and its record says from which and what.

Taken is what fits by name and shape: the towers, the fusion, and heads that predict parts of the input (masked tokens
or patches). Heads over labels stay new, for another set numbers its labels in another way; so do sizes that differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.cases import Experiment
from benchmarks.cases.shared.suite_knobs import SuiteKnobs
from benchmarks.records.weights import SourceRun, source_run
from mt2st.mixture import MT2ST
from mt2st.training.joint_model import JointModel
from mt2st.training.transfer import take_weights

PER_SEED = "per-seed"
_CARVE = ("train_split", "test_split", "validation_fraction", "draw")  # the knobs that say what is held out


def start_from(knobs: SuiteKnobs, experiment: Experiment, mixture: MT2ST, data: Mapping[str, Any]) -> dict[str, Any]:
    """Take the weights of the run `knobs.init_from`, in place; what the record says of it.

    `flops` and `train_seconds` are what these weights cost: of that run and of those that it started from in turn.

    Args:
        data: what this run's record says of its data.

    Raises:
        Mt2stError: as `source_run`; torn weights, or a model of which no matrix fits.
    """
    source = source_run(knobs.init_from)
    labelled = [key for key, objective in mixture.objectives.items() if getattr(objective, "labelled", False)]
    taken = take_weights(
        JointModel(experiment.encoder, mixture),
        source.checked_weights(),
        leave=[f"mixture.objectives.{key}." for key in labelled],
        must="encoder.",
    )
    values = source.values
    return {
        **{name: values[name] for name in ("run_id", "benchmark", "recipe", "strategy", "seed")},
        **source.identity,
        "chain": source.chain,
        "flops": source.training_flops,
        "train_seconds": source.train_seconds,
        "taken_parameters": taken.parameters,
        "of_parameters": taken.of_parameters,
        "new": list(taken.new),
        "unused": list(taken.unused),
        "trained_on": trained_on(source),
        "doubts": doubts(trained_on(source), knobs, data),
    }


def trained_on(source: SourceRun) -> list[dict[str, Any]]:
    """The data, and the knobs that say which of them are held out, of a run and of those that it started from."""
    knobs, data = source.values["config"].get("knobs", {}), source.values.get("data", {})
    own = {name: knobs[name] for name in _CARVE if name in knobs}
    if own.get("draw") == PER_SEED:
        own["seed"] = source.values["seed"]
    return [*source.values.get("init_from", {}).get("trained_on", []), {"name": data.get("name", ""), **own}]


def doubts(trained: Sequence[Mapping[str, Any]], knobs: SuiteKnobs, data: Mapping[str, Any]) -> list[str]:
    """Whether items that this run is validated or tested on may have been trained on before; a line each.

    Of one set, the parts are the same where the knobs that hold them out are. Of two sets nobody knows.
    """
    own = {name: getattr(knobs, name) for name in _CARVE if hasattr(knobs, name)}
    found = []
    for other in trained:
        differ = [name for name in own if other.get(name) != own[name]]
        if other["name"] == data.get("name") and (differ or knobs.draw == PER_SEED):
            why = f"another {' and '.join(differ)}" if differ else f"draw {PER_SEED}"
            found.append(
                f"the weights were trained on {other['name']} with {why}: items held out here may have been seen there"
            )
        elif other["name"] != data.get("name"):
            found.append(
                f"the weights were trained on {other['name']}: nobody has checked that set for items that are held out "
                "here"
            )
    return found


def in_one_line(start: dict[str, Any]) -> str:
    """What `start_from` returned, for the terminal."""
    parts = [
        f"starts from {start['run_id']} ({start['benchmark']}, {start['flops'] / 1e12:.3g} TFLOPs of training): "
        f"{start['taken_parameters']:,} of {start['of_parameters']:,} parameters taken",
        f"new: {', '.join(start['new']) or 'none'}",
    ]
    parts += [f"left there: {', '.join(start['unused'])}"] if start["unused"] else []
    parts += ["its tokenizer taken over"] if "tokenizer.json" in start else []
    parts += ["its words taken over"] if "words.txt" in start else []
    return "; ".join([*parts, *start["doubts"]])

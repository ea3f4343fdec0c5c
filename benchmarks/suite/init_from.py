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
_HELD_OUT = ("train_split", "test_split", "validation_fraction")  # the knobs that say what is, beside the draw


def start_from(
    knobs: SuiteKnobs, experiment: Experiment, mixture: MT2ST, data: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """Take the weights of the run `knobs.init_from`, in place; what the record says of it.

    `flops` and `train_seconds` are what these weights cost: of that run and of those that it started from in turn.

    Args:
        data: what this run's record says of its data.
        seed: this run's.

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
        "doubts": doubts(trained_on(source), knobs, data, seed),
    }


def trained_on(source: SourceRun) -> list[dict[str, Any]]:
    """The data, and what says which of them are held out, of a run and of those that it started from."""
    knobs, data = source.values["config"].get("knobs", {}), source.values.get("data", {})
    own = {name: knobs[name] for name in _HELD_OUT if name in knobs}
    own["draw"] = source.values["seed"] if knobs.get("draw") == PER_SEED else 0
    return [*source.values.get("init_from", {}).get("trained_on", []), {"name": data.get("name", ""), **own}]


def doubts(trained: Sequence[Mapping[str, Any]], knobs: SuiteKnobs, data: Mapping[str, Any], seed: int) -> list[str]:
    """Whether items that the run of `seed` is validated or tested on may have been trained on before; a line each.

    Of one set the held-out items are the same where what says so is the same. Of two sets nobody knows.
    """
    own: dict[str, Any] = {name: getattr(knobs, name) for name in _HELD_OUT if hasattr(knobs, name)}
    own["draw"] = knobs.draw_seed(seed)
    found = []
    for other in trained:
        if other["name"] != data.get("name"):
            found.append(
                f"the weights were trained on {other['name']}, which nobody has searched for items held out here"
            )
        elif differ := [name for name in own if other.get(name) != own[name]]:
            cure = "; --draw fixed holds out the same ones" if differ == ["draw"] else ""
            found.append(
                f"the weights were trained on {other['name']} with another {' and '.join(differ)}: items held out here "
                f"for validation{' or test' if 'test_split' in differ else ''} may have been seen there{cure}"
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

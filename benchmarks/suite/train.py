"""One planned run: train, test, record. Its folder is locked meanwhile, and survives whatever ends the process."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from datetime import datetime, timezone
from typing import Any, Literal

from benchmarks.cases import Case, TestResult, load_card
from benchmarks.records.examples import write_examples
from benchmarks.records.folder import RunFolder
from benchmarks.records.lock import LockedError
from benchmarks.records.machine import peak_gpu_bytes, peak_resident_bytes, reset_peak_gpu, reset_peak_resident
from benchmarks.records.weights import drop_checkpoints, keep_weights
from benchmarks.strategies import balancer_of, schedules_of
from benchmarks.suite import ranks
from benchmarks.suite.costs import mixture_of
from benchmarks.suite.health import signs_of_failure
from benchmarks.suite.init_from import start_from
from benchmarks.suite.loadable import describe_model
from benchmarks.suite.runs import Planned, train_config
from mt2st.errors import Mt2stError
from mt2st.files import canonical_json
from mt2st.schedules import Schedule, describe, fades
from mt2st.training.checkpoint import newest_checkpoint
from mt2st.training.prefetch import Prefetched
from mt2st.training.trainer import Trainer, TrainingInterrupted


@dataclass(frozen=True)
class Outcome:
    """How a run ended. Attributes: kind; text, a line for the terminal; seconds it took, 0 when skipped."""

    kind: Literal["finished", "skipped", "failed", "held"]
    text: str
    seconds: float = 0.0


def run_one(
    case: Case,
    planned: Planned,
    surroundings: Mapping[str, Any],
    on_step: Callable[[int], None] = lambda step: None,
    wait_seconds: float = 0.0,
    *,
    shared: bool = False,
) -> Outcome:
    """Run or skip; "held" if another process still has the run.

    On several processes all of them call this together: the first one decides, locks and writes.

    Args:
        surroundings: commit, versions and machine, for the record.
        on_step: called with the number of steps done.
        wait_seconds: how long to wait for a run that another process holds.
        shared: another process was at this run while this one was; what failed there is not tried again here.

    Raises:
        KeyboardInterrupt: stopped from outside; the run was checkpointed and recorded as interrupted.
        PeerLostError: another process of this run ended.
    """
    started = time.monotonic()
    with contextlib.ExitStack() as held:
        decided = _claim(planned, wait_seconds, shared, held) if ranks.is_first() else None
        decided = ranks.from_first(vars(decided) if decided else None)
        if decided is not None:
            return Outcome(**decided)
        kind, text = _recorded(case, planned, surroundings, on_step)
        return Outcome(kind, text, time.monotonic() - started)


def _claim(planned: Planned, wait_seconds: float, shared: bool, held: contextlib.ExitStack) -> Outcome | None:
    """Lock the folder in `held` and begin; or how the run ended without being trained here."""
    folder = planned.folder
    try:
        if folder.state() == "finished":
            folder.serve(planned.run.views, planned.run.looks)
            text = "finished by another process meanwhile" if shared else "finished before"
            return Outcome("skipped", f"{text}, skipped")
        held.enter_context(folder.lock(wait_seconds=wait_seconds))
        for damage in folder.repair():
            folder.write_log(f"repaired: {damage}\n")
        if folder.state() == "finished":
            return Outcome("skipped", "finished by another process meanwhile, skipped")
        if shared and folder.status() == "failed":
            return Outcome("skipped", f"failed in another process; see {folder.log}")
        folder.begin()
    except LockedError as other:
        return Outcome("held", str(other))
    except (Mt2stError, OSError) as error:  # the folder itself cannot be used; the other runs can
        return Outcome("failed", f"failed: {reason(error)}")
    return None


def _recorded(
    case: Case, planned: Planned, surroundings: Mapping[str, Any], on_step: Callable[[int], None]
) -> tuple[Literal["finished", "failed"], str]:
    """Train and test a run whose folder is locked, and record how it ended.

    On several processes an error that not all of them met ends all: the others may wait for this one for ever.
    """
    folder = planned.folder
    record: dict[str, Any] = {
        **surroundings,
        "views": list(planned.run.views),
        **({"looks": list(planned.run.looks)} if planned.run.looks else {}),
        "started_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "data": dict(case.data),
        "auxiliary_share_of_mtl_flops": planned.run.auxiliary_share,
    }
    first = ranks.is_first()
    try:
        with ranks.peers():
            return "finished", train_and_test(case, planned, record, on_step)
    except ranks.PeerLostError:
        raise
    except KeyboardInterrupt as stop:
        why = str(stop) if isinstance(stop, TrainingInterrupted) else "interrupted outside training"
        with contextlib.suppress(OSError):  # without a record the run counts as unfinished, which it is
            if first:
                folder.interrupt(record, why)
        raise
    except Exception as error:  # one failed run must not sink the suite; its log keeps the traceback
        trace = traceback.format_exc()
        why = str(error) if isinstance(error, Mt2stError) else f"{reason(error)} (traceback in {folder.log})"
        try:
            folder.write_log(trace)
            if first:
                folder.fail(record, why)
        except OSError as second:
            why += f"; nor could that be recorded: {reason(second)}"
        if not ranks.all_failed():
            raise ranks.RankError(f"process {ranks.rank()}, {folder.name}: {why}") from error
        return "failed", f"failed: {' '.join(why.split())}"


def reason(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename or 'no file named'}; check space, permissions and the path"
    return " ".join((str(error) if isinstance(error, Mt2stError) else f"{type(error).__name__}: {error}").split())


def train_and_test(case: Case, planned: Planned, record: dict[str, Any], on_step: Callable[[int], None]) -> str:
    """Train from the newest checkpoint, test once, and finish the record; returns a line for the terminal.

    A trial of `tune` is not tested, and nothing but its record is kept.
    """
    knobs, run, folder = planned.knobs, planned.run, planned.folder
    reset_peak_resident()
    reset_peak_gpu()
    experiment = case.build(run.seed)
    record["data"] |= experiment.data
    names = [objective.name for objective in experiment.auxiliaries]
    strategy = knobs.strategy(run.strategy)
    mixture = mixture_of(experiment, schedules_of(strategy, names).__getitem__)
    record["schedules"] = {
        name: _text(task.schedule) for name, task in mixture.tasks.items() if task is not mixture.primary
    }
    # Only a strategy that lets auxiliaries go can bear the claim out; a control or a weighting method cannot.
    record["fades"] = any(fades(task.schedule) for task in mixture.tasks.values() if task is not mixture.primary)
    if knobs.init_from:  # a checkpoint of this run, if there is one, is loaded over it
        record["init_from"] = start_from(knobs, experiment, mixture, record["data"], run.seed)

    def log(line: Mapping[str, Any]) -> None:  # called in the first process alone
        if line["event"] == "warning":  # a damaged checkpoint: the resume that follows would cut it off the metrics
            folder.write_log(f"{line['message']}\n")
            return
        if line["event"] == "resume":
            folder.truncate_metrics(int(line["step"]))
        folder.append_metrics(**line)

    if ranks.is_first() and newest_checkpoint(folder.checkpoints) is None:
        folder.truncate_metrics(0)  # of an attempt that ended before its first checkpoint

    workers, config = knobs.data_workers, train_config(knobs, run)
    trainer = Trainer(
        experiment.encoder,
        mixture,
        {name: Prefetched(stream, workers) if workers else stream for name, stream in experiment.streams.items()},
        config,
        balancer=balancer_of(strategy, tuple(mixture.tasks)),
        folder=folder.checkpoints,
        validate=experiment.validate,
        validation_streams=experiment.validation_streams,
        best_by=_best_by(folder, config.keep_best),
        log=log,
        on_step=on_step,
        identity=folder.identity["config"],
        rates=experiment.tuning.rates,
        freezes=experiment.tuning.freezes,
        trackers=knobs.trackers,
    )
    record["frozen_towers"] = experiment.tuning.run_once(lambda line: None)  # on their device, with final weights
    result = trainer.fit()
    if run.tested and trainer.saved_step != result.steps:
        trainer.save()
    started = time.perf_counter()
    test = experiment.test() if run.tested else TestResult({}, {})
    test_seconds = time.perf_counter() - started
    ledger = result.ledger
    validation = _metrics_at(result.curve, result.chosen_step)
    if ranks.is_first() and run.tested:
        experiment.save(folder.path)
    record |= {
        "model": {
            "encoder_parameters": sum(parameter.numel() for parameter in experiment.encoder.parameters()),
            "parameters": sum(parameter.numel() for parameter in trainer.parameters()),
            "trained": trainer.trained,
        },
        "steps": result.steps,
        "chosen_step": result.chosen_step,
        "phases_seconds": {"train": result.train_seconds, "validate": result.evaluate_seconds, "test": test_seconds},
        "flops": {
            "total": ledger.total,
            "by_task": ledger.by_task(),
            "by_kind": ledger.by_kind(),
            "unknown_operations": ledger.unknown_operations(),
            "validation": result.validation_flops,
            "optimiser": result.optimiser_flops,
        },
        "processes": ranks.world(),
        "peak_memory_bytes": peak_resident_bytes(),
        "gpu_peak_memory_bytes": peak_gpu_bytes(),
        "metrics": {"validation": validation, "test": test.metrics},
        "floors": test.floors,
        "group_names": test.group_names,
        "warnings": signs_of_failure(folder.metrics() if ranks.is_first() else [], experiment.primary.name, test.items),
        "curve": result.curve,
        **({"listening": result.listening} if mixture.listening else {}),
    }
    if ranks.is_first():
        if test.examples is not None:
            write_examples(folder.path, test.examples)
        keep = knobs.keep if run.tested else "nothing"  # a trial of tuning leaves its score alone
        if keep == "weights":
            record["weights"] = keep_weights(folder.path, result.steps)
            if experiment.loadable is not None:
                describe_model(folder, experiment.loadable, record, test.items)
        folder.finish(record, test.items)
        if keep != "checkpoints":
            drop_checkpoints(folder.path)
    name, value = _headline(folder, test.metrics, validation)
    return f"{name} {value:.4f}, {ledger.total / 1e12:.3f} TFLOPs, {result.train_seconds:.0f} s"


def _headline(folder: RunFolder, test: Mapping[str, float], validation: Mapping[str, float]) -> tuple[str, float]:
    """The metric that strategies are compared by, on test where it was read; without it the first one."""
    spec = load_card(folder.identity["benchmark"]).spec
    metrics, wanted = (test, spec.primary.id) if test else (validation, spec.validation_id)
    name = wanted if wanted in metrics else next(iter(metrics))
    return name, metrics[name]


def _text(schedule: Schedule) -> str:
    """A schedule with its parameters, the same in every process."""
    return repr(schedule) if is_dataclass(schedule) else canonical_json(describe(schedule))


def _best_by(folder: RunFolder, keep_best: bool) -> tuple[str, bool] | None:
    """The validation metric that chooses among a run's weights, and whether higher is better."""
    spec = load_card(folder.identity["benchmark"]).spec if keep_best else None
    return (spec.validation_id, spec.primary.higher_is_better) if spec else None


def _metrics_at(curve: Sequence[Mapping[str, Any]], step: int) -> dict[str, float]:
    """The validation after `step` steps; {} without one."""
    rows = [row for row in curve if row["step"] == step]
    return {name: value for name, value in rows[-1].items() if name not in ("step", "flops", "seconds")} if rows else {}

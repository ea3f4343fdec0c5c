"""The training loop: one primary task, fading auxiliaries, measured FLOPs, resumable to the same bits.

Everything random in step t (dropout, masks, hard negatives) is drawn from a generator seeded by (seed, t, micro-batch,
rank), and batch t is a pure function of t. So a resumed run needs no generator or sampler state: it continues at t with
the bits it would have had. It serves anything with `features(batch)`: word embeddings, a transformer, a diffusion
model.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn

from mt2st.balancing import Balancer
from mt2st.batch import Batch
from mt2st.encoders.fine_tuning import RateGroup
from mt2st.encoders.freezing import Freezes
from mt2st.errors import Mt2stError
from mt2st.flops import FlopCounter, FlopLedger
from mt2st.mixture import MT2ST
from mt2st.torch_internals import forget_precision
from mt2st.training.augment import augment
from mt2st.training.average import AverageWeights
from mt2st.training.balanced import Balancing, check_balancer
from mt2st.training.best import BestWeights
from mt2st.training.checkpoint import load_checkpoint, load_further, newest_checkpoint, save_checkpoint
from mt2st.training.config import TrainConfig, decay_groups, trained_parameters
from mt2st.training.economy import economise
from mt2st.training.fingerprint import fingerprint
from mt2st.training.guards import check_losses, check_trackers, check_weights, deterministic, stop_signals
from mt2st.training.interface import ALL_FROZEN, Encoder, Progress, Stream, TrainingInterrupted, TrainResult
from mt2st.training.joint_model import JointModel
from mt2st.training.joint_norm import join_norms
from mt2st.training.listening import LISTENING, Listening
from mt2st.training.parallel_streams import ParallelStreams
from mt2st.training.peers import Peers
from mt2st.training.remembered import FROZEN, Remembered
from mt2st.training.sharding import adamw, gather_states, recompute_activations
from mt2st.training.stateful import Stateful, load_states, states_of
from mt2st.training.steps import Steps

__all__ = ["ALL_FROZEN", "Encoder", "Stream", "TrainConfig", "TrainResult", "Trainer", "TrainingInterrupted"]


class Trainer:
    """Trains `encoder` on `mixture` with batches from `streams`.

    Args:
        encoder: an `nn.Module` with `features(batch)`.
        mixture: the tasks; its stream names must be keys of `streams`.
        streams: stream name → source of batches.
        config: how to train.
        balancer: makes one gradient of the losses while two or more tasks are active; None = their weighted sum.
        folder: where checkpoints are kept and looked for; None = no checkpoints.
        validate: called in evaluation mode, returns metrics for the curve; None = no validation.
        best_by: id of the metric of `validate` by which `config.keep_best` chooses, and whether higher is better.
        validation_streams: makes the streams of the validation split, by the same names; asked for where a schedule
            listens.
        log: called with one flat mapping a log line.
        on_step: called with the number of steps done after each step (progress bars).
        identity: further JSON values that make this run what it is; a checkpoint of another identity is refused.
        rates: parameters with a peak learning rate of their own (see `mt2st.encoders.fine_tuning`).
        freezes: parts that are frozen for a part of the training (see `mt2st.encoders.freezing`).
        trackers: what accelerate shall also log to: "tensorboard", "wandb", or a `GeneralTracker` object.

    On several processes every one calls the same methods, and only the first one logs and saves. Each counts the FLOPs
    of its own share; what is logged, saved and returned is their sum.

    Attributes:
        trained: what is trained with what, a row a group: name, number of parameters, peak learning rate.

    Raises:
        Mt2stError: a task's stream is missing, all parameters are frozen, a tracker is unknown or not installed,
            `keep_best` has no validation to choose by, or the balancer cannot work under this configuration.
    """

    def __init__(
        self,
        encoder: Any,
        mixture: MT2ST,
        streams: Mapping[str, Stream],
        config: TrainConfig,
        *,
        balancer: Balancer | None = None,
        folder: Path | None = None,
        validate: Callable[[], Mapping[str, float]] | None = None,
        best_by: tuple[str, bool] | None = None,
        validation_streams: Callable[[], Mapping[str, Stream]] | None = None,
        log: Callable[[Mapping[str, Any]], None] = lambda line: None,
        on_step: Callable[[int], None] = lambda step: None,
        identity: Mapping[str, Any] | None = None,
        rates: Sequence[RateGroup] = (),
        freezes: Freezes | None = None,
        trackers: Sequence[Any] = (),
    ) -> None:
        missing = {task.stream for task in mixture.tasks.values()} - set(streams)
        if missing:
            raise Mt2stError(
                f"no stream named {', '.join(sorted(missing))}; the streams are {', '.join(sorted(streams))}"
            )
        check_trackers(trackers, folder)
        self.config, self.folder = config, folder
        self.streams = streams = economise(augment(streams, config), mixture, config, encoder)
        self.validate, self.log, self.on_step = validate, log, on_step
        self.mixture = mixture
        # The active set changes while training, so parameters of finished tasks get no gradient.
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS gives the same bits twice only with this
        # accelerate keeps the first precision of a process, and runs of another one may follow each other here.
        forget_precision(config.precision)
        self.accelerator = Accelerator(
            # unasked, accelerate lets processes on CPUs train each for itself
            cpu=not torch.accelerator.is_available(),
            mixed_precision=config.precision,
            kwargs_handlers=[unused],
            log_with=list(trackers) or None,
            project_dir=str(folder) if folder else None,
        )
        self._peers = Peers(self.accelerator)
        joint = JointModel(encoder, mixture).to(self.accelerator.device)
        if not self._peers.alone:
            join_norms(joint)
        self._bare = joint
        groups = decay_groups(joint, config.weight_decay, rates)
        if not groups:
            raise Mt2stError(ALL_FROZEN)
        self.trained = trained_parameters(joint, config.learning_rate, rates)
        if config.shard:
            recompute_activations(joint)
        sharded = config.shard and not self._peers.alone
        optimizer = adamw(groups, config.learning_rate, self.accelerator.device, sharded=sharded)
        if config.compile:
            joint.compile()
        self._model = self.accelerator.prepare(joint)
        self._optimizer = self.accelerator.prepare_optimizer(optimizer, device_placement=False)  # it has no state yet
        self.ledger = FlopLedger()
        self._progress = Progress()
        self._balancing: Balancing | None = None
        if balancer is not None:
            check_balancer(balancer, config, listening=bool(mixture.listening))
            self._balancing = Balancing(
                balancer, list(joint.parameters()), backward=self.accelerator.backward, mean=self._peers.mean
            )
        alone = self._peers.alone and self.accelerator.device.type == "cpu"
        plain = config.parallel_streams and config.precision == "no" and not config.compile
        # Reduced images change the tower for a moment, which the other stream would see.
        plain = plain and not (config.patch_dropout or config.low_resolution_until)
        remembered = Remembered(freezes) if freezes is not None and freezes.remembered and self._peers.alone else None
        self._average = AverageWeights(joint, config.average_decay) if config.average_decay else None
        self.steps = Steps(
            *(self._model, joint, self._optimizer, streams, config, self.ledger, self.accelerator, self._peers),
            balancing=self._balancing,
            freezes=freezes,
            average=self._average,
            parallel_streams=ParallelStreams(joint) if alone and plain else None,
            remembered=remembered,
        )
        heard = validation_streams() if validation_streams and mixture.listening else {}
        self.listening = Listening(
            joint, heard, self.ledger, self._peers, self.accelerator, config.seed, self.steps.fork
        )
        if sharded and any(schedule.length for schedule in self.listening.schedules.values()):
            raise Mt2stError(
                "a fork cannot set a sharded optimiser aside; leave shard out, or use no schedule that forks"
            )
        # what else a checkpoint must keep, by name
        self._parts: dict[str, Stateful] = {LISTENING: self.listening} if mixture.listening else {}
        if balancer is not None:
            self._parts["balancer"] = balancer
        if remembered is not None:
            self._parts[FROZEN] = remembered
        if config.keep_best and (validate is None or best_by is None):
            raise Mt2stError("keep_best chooses by validation; give the trainer validate and best_by")
        self._best = BestWeights(joint, *best_by) if config.keep_best and best_by else None
        kept: dict[str, Any] = {"best": self._best, "average": self._average}
        self._kept = {name: weights for name, weights in kept.items() if weights is not None}
        self._fingerprint = fingerprint(
            config,
            mixture,
            processes=self.accelerator.num_processes,
            identity=identity or {},
            trained=self.trained if rates else (),
            freezes=freezes,
            balancer=balancer,
        )
        self.saved_step: int | None = None
        if trackers:
            self.accelerator.init_trackers("mt2st", config=asdict(config))

    def parameters(self) -> Iterator[nn.Parameter]:
        """All parameters: the encoder's and the objectives'."""
        return self._bare.parameters()

    def kind(self, batches: Mapping[str, Batch], weights: Mapping[str, float]) -> str:
        """What determines a step's FLOPs: the active set and the shapes of its batches."""
        return self.steps.kind(batches, weights)

    def train_step(self, step: int) -> dict[str, Tensor]:
        """One optimiser step, `step` counted from 0; returns the unweighted losses of its last micro-batch."""
        return self.steps.train(step)

    # -- the loop ----------------------------------------------------------------------------------------------------

    def fit(self) -> TrainResult:
        """Train to the end, from the newest whole checkpoint if there is one.

        Raises:
            Mt2stError: a loss is NaN or infinite (names step, task and last good checkpoint), or the checkpoint belongs
                to another configuration.
            TrainingInterrupted: Ctrl-C or SIGTERM.
        """
        config, progress = self.config, self._progress
        self.resume()
        last_save = time.monotonic()
        with stop_signals() as stop, deterministic():
            self._model.train()
            ended = self.steps.ended(progress.step)
            while not ended:
                started = time.perf_counter()
                losses = self.train_step(progress.step)
                progress.step += 1
                self._listen()
                ended = self.steps.ended(progress.step)
                if progress.step % config.log_every_steps == 0 or ended:
                    self._log_losses(losses)
                progress.train_seconds += time.perf_counter() - started
                self._maybe_validate(ended)
                self.on_step(progress.step)
                timed = 0 < config.checkpoint_every_seconds <= time.monotonic() - last_save
                stopping, timed = self._agreed(stop.is_set(), timed)
                due = config.checkpoint_every_steps and progress.step % config.checkpoint_every_steps == 0
                if stopping or timed or due:
                    self.save()
                    last_save = time.monotonic()
                if stopping:
                    where = f"checkpoint in {self.folder}" if self.folder else "no checkpoint, for no folder was given"
                    of = config.total_steps or f"a budget of {config.total_flops} FLOPs"
                    raise TrainingInterrupted(f"interrupted after step {progress.step} of {of}; {where}")
        check_weights(self._bare, self._progress.step, self.folder)
        chosen = self._chosen()
        for tracker in self.accelerator.trackers:
            tracker.finish()
        ledger = FlopLedger()
        for state in self._peers.states(self.ledger.state_dict()):
            ledger.merge(state)
        seconds = progress.train_seconds, progress.evaluate_seconds
        return TrainResult(
            *(progress.step, *seconds, progress.curve, ledger, self.listening.rows, chosen),
            optimiser_flops=self.steps.optimiser_flops,
            validation_flops=self._peers.total(progress.validation_flops),
        )

    def _chosen(self) -> int:
        """Give the model the weights it is to have in the end; the step that they are of."""
        step = self._progress.step
        if self._best is None or self._best.step == step:
            if self._average is not None:
                self._average.adopt()
                self.saved_step = None
            return step
        self._best.restore()
        self.saved_step = None  # a checkpoint of the last step has other weights
        return self._best.step

    def _listen(self) -> None:
        """Let the schedules that listen hear what is due after this step."""
        step = self._progress.step
        if self.listening.schedules and (progress := self.steps.progress(step)) < 1:
            for row in self.listening.attend(step, progress, self.config.total_flops or math.inf):
                self._emit({"event": LISTENING, f"{row['signal']}/{row['task']}": row["value"], **row})

    def _agreed(self, *wishes: bool) -> list[bool]:
        """Each wish, if any process has it: all must save and stop at one step.

        Asked at log lines only where there are several, for asking waits.
        """
        if not self._peers.alone and self._progress.step % self.config.log_every_steps:
            return [False] * len(wishes)
        return self._peers.any_of(*wishes)

    def _check_losses(self) -> None:
        """Look at all losses since the last look at once: on a GPU a look each step would make it wait."""
        unchecked, self.steps.unchecked = self.steps.unchecked, []
        check_losses(unchecked, self._progress.step, self.folder, self._peers)

    def _maybe_validate(self, ended: bool) -> None:
        every = self.config.evaluate_every_steps
        if self.validate is not None and (ended or (every and self._progress.step % every == 0)):
            self._check_losses()
            with self._average.shown() if self._average else nullcontext():
                self._validate(self.validate)

    def _validate(self, validate: Callable[[], Mapping[str, float]]) -> None:
        """Validate the model as it is now."""
        progress = self._progress
        started = time.perf_counter()
        self._model.eval()
        # Each validation runs the same batches through the same model: the first one tells what all cost.
        counter = None if progress.flops_a_validation else FlopCounter(fastpath=True)
        with torch.inference_mode(), counter or nullcontext():
            metrics = {name: float(value) for name, value in validate().items()}
        if counter:
            progress.flops_a_validation = counter.total
        progress.validation_flops += progress.flops_a_validation
        self._model.train()
        progress.evaluate_seconds += time.perf_counter() - started
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise Mt2stError(
                    f"validation after step {progress.step}: {name} = {value}; leave a metric that has no value out"
                )
        flops = self._peers.total(self.ledger.total)
        row = {"step": progress.step, "flops": flops, "seconds": progress.train_seconds, **metrics}
        progress.curve.append(row)
        self._emit({"event": "validation", **row})
        if self._best is not None and self._peers.any_of(self._best.is_better(metrics))[0]:
            self._best.keep(progress.step, metrics)

    def _log_losses(self, losses: Mapping[str, Tensor]) -> None:
        self._check_losses()
        step = self._progress.step
        line: dict[str, Any] = {
            "event": "train",
            "step": step,
            "flops": self._peers.total(self.ledger.total),
            "learning_rate": self.steps.learning_rate,
        }
        line |= {f"loss/{name}": loss for name, loss in self._peers.means(losses).items()}
        if self._balancing and len(losses) > 1:
            line |= {f"balance/{name}": float(value) for name, value in self._balancing.shown.items()}
        self._emit(line)

    def _emit(self, line: Mapping[str, Any]) -> None:
        if not self.accelerator.is_main_process:
            return
        self.log(line)
        if self.accelerator.trackers:
            numbers = {key: value for key, value in line.items() if isinstance(value, int | float)}
            self.accelerator.log(numbers, step=self._progress.step)

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def save(self) -> Path | None:
        """Write a checkpoint of the steps done so far; None without a folder."""
        progress = self._progress
        self._check_losses()
        check_weights(self._bare, progress.step, self.folder)
        if self.folder is None:
            return None
        ledgers = self._peers.states(self.ledger.state_dict())
        progress.optimiser_flops = self.steps.optimiser_flops
        gather_states(self._optimizer.optimizer)
        self.saved_step = progress.step
        if not self.accelerator.is_main_process:
            return None
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None
        state = {"fingerprint": self._fingerprint, "ledgers": ledgers, "progress": asdict(progress), "scaler": scaler}
        if self._parts:
            state["parts"] = states_of(self._parts)
        state |= {name: kept.state_dict() for name, kept in self._kept.items()}
        return save_checkpoint(
            *(self.folder, progress.step, self._bare, self._optimizer.optimizer, state),
            further={name: kept.tensors for name, kept in self._kept.items()},
            keep=self.config.keep_checkpoints,
        )

    def resume(self) -> int:
        """Load the newest whole checkpoint, if any; returns the step to continue at.

        Raises:
            Mt2stError: the checkpoint was written under another configuration.
        """

        def passed_over(message: str) -> None:
            self._emit({"event": "warning", "message": message})

        found = newest_checkpoint(self.folder, passed_over) if self.folder else None
        steps = {seen["step"] for seen in self._peers.states({"step": found[1]["step"] if found else -1})}
        if len(steps) > 1:
            raise Mt2stError(f"processes see different checkpoints in {self.folder}: {sorted(steps)}; try again")
        if found is None:
            return self._progress.step
        path, state = found
        if state.get("fingerprint") != self._fingerprint:
            raise Mt2stError(
                f"{path} was written under another configuration, on other data or by another version; use a new run "
                "folder, or delete this one"
            )
        load_checkpoint(path, self._bare, self._optimizer.optimizer)
        self.ledger.load_state_dict(state["ledgers"][self.accelerator.process_index])
        self._progress.__dict__.update(state["progress"])
        self.steps.optimiser_flops = self._progress.optimiser_flops
        load_states(self._parts, state.get("parts", {}))
        for name, kept in self._kept.items():
            kept.load(state[name], load_further(path, name))
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.saved_step = self._progress.step
        self._emit({"event": "resume", "step": self._progress.step})
        return self._progress.step

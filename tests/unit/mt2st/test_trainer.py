"""The training loop: what it promises of randomness, failures, switched-off tasks, compilation, trackers, and other
models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mt2st.batch import Batch
from mt2st.errors import Mt2stError
from mt2st.mixture import MT2ST, Task
from mt2st.randomness import step_seed
from mt2st.schedules import Constant, Diminish, Off, Sampled, Schedule, Switch
from mt2st.training.config import TrainConfig, decay_groups, learning_rate_at
from mt2st.training.guards import deterministic
from mt2st.training.trainer import Trainer
from tests.helpers.tiny import mixture, streams, tiny_encoder
from tests.helpers.toy_models import LinearEncoder, Regression, Rows, regression


def trainer(
    config: TrainConfig,
    *,
    dropout: float = 0.0,
    seed: int = 0,
    rows: Any = None,
    folder: Path | None = None,
    **more: Any,
) -> Trainer:
    options = {key: more.pop(key) for key in ("validate", "log", "on_step", "identity", "trackers") if key in more}
    encoder, tasks = regression(dropout=dropout, seed=seed, **more)
    return Trainer(encoder, tasks, {"primary": rows or Rows()}, config, folder=folder, **options)


def weights(run: Trainer) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in run.parameters()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


class TestLoop:
    def test_it_learns_and_reports(self) -> None:
        lines: list[Mapping[str, Any]] = []
        steps: list[int] = []
        rows = Rows()
        run = trainer(
            TrainConfig(60, learning_rate=3e-2, evaluate_every_steps=25, log_every_steps=10),
            rows=rows,
            validate=lambda: {"metric": 0.5},
            log=lines.append,
            on_step=steps.append,
        )
        result = run.fit()
        losses = [line["loss/main"] for line in lines if line["event"] == "train"]
        assert losses[-1] < 0.2 * losses[0]
        assert steps == list(range(1, 61))
        assert rows.asked == list(range(60))
        assert [row["step"] for row in result.curve] == [25, 50, 60]
        assert [row["flops"] for row in result.curve] == [step * result.ledger.total // 60 for step in (25, 50, 60)]
        assert [line["step"] for line in lines if line["event"] == "validation"] == [25, 50, 60]
        assert result.steps == 60
        assert result.train_seconds > 0

    def test_the_same_seed_gives_the_same_bits_and_another_one_others(self) -> None:
        found = []
        for seed in (0, 0, 1):
            run = trainer(TrainConfig(8, seed=seed), dropout=0.5, aux=Sampled(Diminish(rate=2.0)))
            torch.rand(seed + 3)  # whatever was drawn before
            run.fit()
            found.append(weights(run))
        assert equal(found[0], found[1])
        assert not equal(found[0], found[2])

    def test_a_bare_loop_gives_the_same_weights(self) -> None:
        """Everything the trainer does, written out by hand."""
        config = TrainConfig(12, learning_rate=1e-2, weight_decay=0.1, clip_norm=0.5, warmup_fraction=0.25)
        run = trainer(config, dropout=0.2, aux=Switch(0.5, initial=0.3))
        run.fit()
        encoder, tasks = regression(dropout=0.2, aux=Switch(0.5, initial=0.3))
        joint = nn.ModuleList([encoder, tasks])
        optimizer = torch.optim.AdamW(decay_groups(joint, 0.1), lr=1e-2, fused=True)
        rows = Rows()
        for step in range(12):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, config)
            torch.manual_seed(step_seed(0, step, 0, 0))
            features = encoder.features(rows.batch(step))
            loss = tasks.tasks["main"].objective(features)
            if step < 6:
                loss = loss + 0.3 * tasks.tasks["aux"].objective(features)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(joint.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
        for mine, theirs in zip(weights(run), joint.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs.detach(), rtol=1e-6, atol=1e-7)

    def test_accumulation_equals_one_larger_batch(self) -> None:
        small = trainer(TrainConfig(5, accumulation=2), rows=Rows(count=4))
        large = trainer(TrainConfig(5), rows=Rows(count=8))
        for run in (small, large):
            run.fit()
        for one, other in zip(weights(small), weights(large), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        assert small.ledger.total == large.ledger.total

    @pytest.mark.parametrize("accumulation", [1, 2])
    def test_without_accelerates_wrappers_the_bits_are_those_with_them(self, accumulation: int) -> None:
        """They are called where a loss is scaled, which needs a GPU; without a scale they change nothing."""
        runs = []
        for plain in (True, False):
            run = trainer(TrainConfig(8, accumulation=accumulation), aux=Diminish(rate=1.0))
            run.steps._plain = plain
            runs.append(run)
            run.fit()
        assert equal(*map(weights, runs))

    def test_a_task_on_a_stream_that_is_missing(self) -> None:
        encoder, tasks = regression(aux=Constant(), stream="captions")
        with pytest.raises(Mt2stError, match="no stream named captions; the streams are primary"):
            Trainer(encoder, tasks, {"primary": Rows()}, TrainConfig(1))

    def test_determinism_settings_are_restored(self) -> None:
        def settings() -> tuple[bool, bool]:
            module: Any = torch.utils.deterministic
            return torch.are_deterministic_algorithms_enabled(), module.fill_uninitialized_memory

        def fail() -> None:
            with deterministic():
                assert settings() == (True, False)
                raise RuntimeError("inside")

        before = settings()
        with pytest.raises(RuntimeError, match="inside"):
            fail()
        assert settings() == before

    def test_runs_of_another_precision_follow_each_other_in_one_process(self) -> None:
        for precision in ("no", "bf16", "no"):
            run = trainer(TrainConfig(3, precision=precision), aux=Constant())  # type: ignore[arg-type]
            run.fit()
            assert run.accelerator.mixed_precision == precision
            assert all(parameter.dtype == torch.float32 for parameter in run.parameters())


class TestSwitchedOffTasks:
    def test_they_add_nothing_from_the_next_step_on(self) -> None:
        """Proved by call counts, by the ledger, and by their stream, which is no longer read."""
        encoder, tasks = regression(aux=Switch(0.4), stream="other")
        other = Rows(seed=1)
        seen: list[tuple[int, int, int]] = []
        run: Trainer

        def look(step: int) -> None:
            phases = run.ledger.by_task()["aux"]
            seen.append((tasks.tasks["aux"].objective.calls, encoder.calls, phases["forward"] + phases["backward"]))  # type: ignore[attr-defined]

        run = Trainer(encoder, tasks, {"primary": Rows(), "other": other}, TrainConfig(10), on_step=look)
        run.fit()
        calls, encodings, flops = zip(*seen, strict=True)
        assert calls == (1, 2, 3, 4, *[4] * 6)
        assert encodings == (2, 4, 6, 8, 9, 10, 11, 12, 13, 14)
        assert flops[:4] == tuple(flops[0] * step for step in (1, 2, 3, 4))
        assert flops[4:] == (flops[3],) * 6
        assert other.asked == [0, 1, 2, 3]

    def test_off_is_single_task_training_to_the_bit(self) -> None:
        runs = [trainer(TrainConfig(6), dropout=0.3, aux=schedule) for schedule in (Off(), Switch(0.0))]
        for run in runs:
            run.fit()
            assert set(run.ledger.by_task()) <= {"main", ""}
        assert equal(weights(runs[0]), weights(runs[1]))

    def test_sampled_tasks_run_in_as_many_steps_as_their_weight_says(self) -> None:
        run = trainer(
            TrainConfig(400), aux=Sampled(Constant(1.0)), half=Sampled(Diminish(rate=math.log(4), cutoff=0.0))
        )
        run.fit()
        steps = {row["kind"].split("|")[0]: row["steps"] for row in run.ledger.by_kind()}
        # The mean of 4^−t over [0, 1] is (1 − 1/4) / ln 4 = 0.541.
        assert steps["main+aux+half"] + steps["main+aux"] == 400
        assert steps["main+aux+half"] == pytest.approx(0.541 * 400, abs=3.5 * math.sqrt(400) / 2)

    def test_the_real_encoder_runs_no_tower_for_a_finished_task(self) -> None:
        encoder = tiny_encoder()
        calls = {"image": 0, "text": 0}
        for name, module in (
            ("image", encoder.towers.model.visual),
            ("text", encoder.towers.model.text.token_embedding),
        ):  # type: ignore[attr-defined]
            module.register_forward_hook(lambda m, a, o, name=name: calls.update({name: calls[name] + 1}))
        seen = []
        run = Trainer(
            encoder,
            mixture(encoder, contrastive=Switch(0.5), masked_lm=Switch(0.25)),
            streams(encoder),
            TrainConfig(4),
            on_step=lambda step: seen.append((calls["image"], calls["text"])),
        )
        run.fit()
        assert seen == [(2, 3), (4, 5), (5, 6), (6, 7)]
        tasks = run.ledger.by_task()
        kinds = {row["kind"].split("|")[0]: row["steps"] for row in run.ledger.by_kind()}
        assert kinds == {"vqa": 2, "vqa+contrastive": 1, "vqa+contrastive+masked_lm": 1}
        assert sum(sum(phases.values()) for phases in tasks.values()) == run.ledger.total


class Poisoned(Rows):
    """NaN in the batch of one index."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def batch(self, index: int, rank: int = 0, world: int = 1) -> Batch:
        batch = dict(super().batch(index, rank, world))
        if index == self.index:
            batch["y"] = torch.full_like(batch["y"], float("nan"))
        return batch


class RootOfZero(nn.Module):
    """A loss of 0 whose gradient is infinite."""

    name = "root"

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 1)

    def forward(self, features: Any) -> Tensor:
        return (self.head(features["hidden"]) * 0).abs().sum().sqrt()


class TestFailures:
    def test_a_nan_loss_names_step_task_and_last_good_checkpoint(self, tmp_path: Path) -> None:
        run = trainer(
            TrainConfig(20, log_every_steps=4, checkpoint_every_steps=3),
            rows=Poisoned(7),
            folder=tmp_path,
            aux=Constant(0.5),
        )
        with pytest.raises(
            Mt2stError,
            match=r"the loss of task 'main' is nan at step 7 \(from 0\); last good checkpoint: .*step-00000006",
        ):
            run.fit()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000006"]

    def test_a_nan_loss_without_checkpoints(self) -> None:
        with pytest.raises(Mt2stError, match="last good checkpoint: none; lower the learning rate"):
            trainer(TrainConfig(20, log_every_steps=4), rows=Poisoned(0)).fit()

    @pytest.mark.parametrize("every", [0, 2])
    def test_weights_that_diverge_under_a_finite_loss_are_never_saved(self, tmp_path: Path, every: int) -> None:
        encoder, _ = regression()
        tasks = MT2ST(Task(RootOfZero(), Constant()))
        config = TrainConfig(1 if not every else 20, checkpoint_every_steps=1, log_every_steps=50)
        with pytest.raises(Mt2stError, match=r"weight .* is not finite after step 1; last good checkpoint: none"):
            Trainer(encoder, tasks, {"primary": Rows()}, config, folder=tmp_path).fit()
        assert list(tmp_path.iterdir()) == []

    def test_a_validation_metric_without_a_value(self) -> None:
        with pytest.raises(
            Mt2stError, match="validation after step 2: accuracy = nan; leave a metric that has no value out"
        ):
            trainer(TrainConfig(2), validate=lambda: {"accuracy": float("nan")}).fit()

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("total_steps", 0, "total_steps = 0 must be ≥ 1"),
            ("accumulation", 0, "accumulation = 0 must be ≥ 1"),
            ("learning_rate", float("nan"), "learning_rate = nan must be finite"),
            ("clip_norm", -1.0, "clip_norm = -1.0 must be finite and ≥ 0"),
            ("warmup_fraction", 1.5, r"warmup_fraction = 1.5 is outside \[0, 1\]"),
            ("checkpoint_every_seconds", -3.0, "checkpoint_every_seconds = -3.0 must be"),
            ("precision", "bf61", "unknown precision 'bf61'; did you mean 'bf16'"),
        ],
    )
    def test_knobs_out_of_range(self, field: str, value: Any, message: str) -> None:
        with pytest.raises(Mt2stError, match=message):
            TrainConfig(**{"total_steps": 5, field: value})


class TestCompile:
    @pytest.mark.parametrize("model", ["toy", "encoder"])
    def test_the_compiled_loop_counts_and_learns_the_same(self, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
        """With the backend that traces but generates no code: seconds instead of a minute, and the same bits."""
        compiled: list[Any] = []
        original = torch.compile

        def traced(model: Any, *args: Any, **kwargs: Any) -> Any:
            compiled.append(model)
            return original(model, *args, backend="eager", **kwargs)

        monkeypatch.setattr(torch, "compile", traced)
        torch._dynamo.reset()
        runs = []
        for flag in (False, True):
            if model == "toy":
                run = trainer(TrainConfig(6, compile=flag), aux=Switch(0.5))
            else:
                encoder = tiny_encoder()
                tasks = mixture(encoder, contrastive=Switch(0.5), masked_lm=Constant())
                run = Trainer(encoder, tasks, streams(encoder), TrainConfig(6, compile=flag))
            run.fit()
            runs.append(run)
        assert compiled
        assert runs[0].ledger.by_kind() == runs[1].ledger.by_kind()
        for one, other in zip(weights(runs[0]), weights(runs[1]), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
        torch._dynamo.reset()


class TestPureFunctions:
    def test_the_learning_rate_rises_linearly_and_falls_as_one_cosine(self) -> None:
        config = TrainConfig(100, learning_rate=1.0, warmup_fraction=0.1)
        rates = [learning_rate_at(step, config) for step in range(100)]
        assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
        assert rates[10] == 1.0
        assert rates[55] == pytest.approx(0.5)
        assert rates[10:] == sorted(rates[10:], reverse=True)
        assert 0 < rates[-1] < 1e-3
        assert learning_rate_at(0, TrainConfig(1)) == 2e-3

    def test_matrices_decay_and_vectors_do_not(self) -> None:
        module = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Embedding(4, 2))
        module[0].bias.requires_grad_(False)
        groups = decay_groups(module, 0.3)
        assert [[tuple(p.shape) for p in group["params"]] for group in groups] == [[(2, 3), (4, 2)], [(2,), (2,)]]
        assert [group["weight_decay"] for group in groups] == [0.3, 0.0]

    def test_step_seeds_differ_in_every_argument(self) -> None:
        seeds = [
            step_seed(*values) for values in ((0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
        ]
        assert len(set(seeds)) == 5
        assert all(0 <= seed < 2**63 for seed in seeds)
        assert seeds[0] == step_seed(0, 0, 0, 0)


def test_a_mixture_refuses_two_tasks_of_one_name_and_a_primary_that_fades() -> None:
    with pytest.raises(Mt2stError, match="two tasks are named 'a'"):
        MT2ST(Task(Regression("a")), [Task(Regression("a"))])
    schedule: Schedule = Switch(0.5)
    with pytest.raises(Mt2stError, match="the primary task 'a' has schedule"):
        MT2ST(Task(Regression("a"), schedule))


def test_the_encoder_protocol_asks_for_features_alone() -> None:
    assert LinearEncoder().features(Rows().batch(0))["hidden"].shape == (4, 8)

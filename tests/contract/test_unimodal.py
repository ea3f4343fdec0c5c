"""Every unimodal objective and case keeps its promises: purity, counted work, resume to the same bits, records that
hold what the report shows.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from benchmarks.cases import load_card
from benchmarks.cases.shared.suite_knobs import SuiteKnobs
from benchmarks.commands._case import run_suite
from benchmarks.records.read import load_records
from benchmarks.suite.costs import StepCosts, mixture_of
from mt2st.errors import Mt2stError
from mt2st.flops import FlopCounter
from mt2st.listening import Aligned
from mt2st.metrics import metric_definition
from mt2st.objectives import Objective
from mt2st.schedules import Switch
from mt2st.training.trainer import TrainConfig, Trainer
from tests.helpers.unimodal import CASES, TRIALS

STEPS = 6


@pytest.mark.parametrize("name", TRIALS)
class TestObjectives:
    def test_a_counted_scalar_that_the_random_state_alone_decides(self, name: str) -> None:
        encoder, objective, batch = TRIALS[name]()
        assert isinstance(objective, Objective)
        encoder.eval()
        losses = []
        for _ in range(2):
            torch.manual_seed(5)
            with FlopCounter() as counter:
                with counter.task(name):
                    loss = objective(encoder.features(batch))
                loss.backward()
            assert loss.shape == ()
            losses.append(loss.item())
            assert counter.counts.keys() == {name}
            assert counter.counts[name]["backward"] >= counter.counts[name]["forward"] > 0
        assert losses[0] == losses[1]
        assert torch.isfinite(loss)

    def test_it_trains_the_encoder(self, name: str) -> None:
        encoder, objective, batch = TRIALS[name]()
        optimizer = torch.optim.AdamW([*encoder.parameters(), *objective.parameters()], lr=5e-3)
        losses, reached = [], False
        for step in range(25):
            torch.manual_seed(step % 5)
            loss = objective(encoder.features(batch))
            optimizer.zero_grad()
            loss.backward()
            # In some step: skip-gram's context vectors start at zero, and a margin that is kept teaches nothing more.
            reached |= any(
                parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
                for parameter in encoder.parameters()
            )
            optimizer.step()
            losses.append(loss.item())
        assert reached
        assert sum(losses[-5:]) < sum(losses[:5])

    def test_a_batch_that_lacks_what_it_needs_is_named(self, name: str) -> None:
        encoder, objective, _ = TRIALS[name]()
        with pytest.raises(Mt2stError, match=r"batch has no '\w+'.*stream that provides it"):
            objective(encoder.features({"other": torch.zeros(2)}))


@pytest.fixture(scope="module", params=CASES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, SuiteKnobs, Any]:
    """Name, knobs and the prepared case."""
    name = request.param.partition("/")[0]  # of the case; the rest tells variants apart
    folder = tmp_path_factory.mktemp(name)
    knobs = replace(CASES[request.param](folder), steps=STEPS, seeds=1, validations=1, data_folder=folder / "data")
    return name, knobs, load_card(name).open(knobs, Console(file=io.StringIO()))


def _train(experiment: Any, folder: Path | None = None, stop_after: int | None = None) -> dict[str, torch.Tensor]:
    """Final weights of a run with a switch in the middle; `stop_after`: killed once so many steps are done."""

    def on_step(step: int) -> None:
        if step == stop_after:
            raise RuntimeError("killed")

    config = TrainConfig(total_steps=STEPS, seed=3, checkpoint_every_steps=1 if folder else 0)
    trainer = Trainer(
        experiment.encoder,
        mixture_of(experiment, lambda name: Switch(0.5)),
        experiment.streams,
        config,
        folder=folder,
        on_step=on_step,
    )
    trainer.fit()
    state = {
        **experiment.encoder.state_dict(),
        **{f"head.{key}": value for key, value in experiment.primary.state_dict().items()},
    }
    return {name: tensor.clone() for name, tensor in state.items()}


class TestCases:
    def test_a_seed_decides_weights_and_batches(self, tiny: Any) -> None:
        _, _, case = tiny
        one, same, other = case.build(1), case.build(1), case.build(2)
        for stream in one.streams:
            for name, tensor in one.streams[stream].batch(7).items():
                assert torch.equal(tensor, same.streams[stream].batch(7)[name])
        weights = [torch.cat([p.detach().flatten() for p in e.encoder.parameters()]) for e in (one, same, other)]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])

    def test_every_auxiliary_costs_and_a_finished_one_does_not(self, tiny: Any) -> None:
        costs = StepCosts(lambda: tiny[2].build(0))
        assert 0 < costs.primary_only < costs.everything
        alone = {name: costs((costs.primary, name)) - costs.primary_only for name in costs.auxiliaries}
        assert all(cost > 0 for cost in alone.values()), alone
        assert costs.everything - costs.primary_only <= sum(alone.values())

    def test_a_schedule_can_listen_to_the_validation_split(self, tiny: Any) -> None:
        """Its streams have the names, keys and kinds of the training's, and other items."""
        experiment = tiny[2].build(0)
        heard = experiment.validation_streams()
        assert heard.keys() == experiment.streams.keys()
        for name, stream in experiment.streams.items():
            training, validation = stream.batch(0), heard[name].batch(0)
            assert {key: value.dtype for key, value in training.items()} == {
                key: value.dtype for key, value in validation.items()
            }
            assert any(not torch.equal(value, validation[key]) for key, value in training.items())
        mixture = mixture_of(experiment, lambda name: Aligned(every=0.4, batches=1, threshold=-1.0))
        config = TrainConfig(total_steps=3)
        streams = experiment.validation_streams
        result = Trainer(experiment.encoder, mixture, experiment.streams, config, validation_streams=streams).fit()
        assert {row["task"] for row in result.listening} == {task.name for task in experiment.auxiliaries}

    @pytest.mark.parametrize("stop_after", [2, 3, 5])
    def test_a_killed_run_goes_on_to_the_same_bits(self, tiny: Any, tmp_path: Path, stop_after: int) -> None:
        """`stop_after` 3 is the step of the switch."""
        _, _, case = tiny
        whole = _train(case.build(0))
        with pytest.raises(RuntimeError, match="killed"):
            _train(case.build(0), tmp_path, stop_after)
        resumed = _train(case.build(0), tmp_path)
        assert whole.keys() == resumed.keys()
        assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []

    def test_the_records_hold_what_the_report_shows(self, tiny: Any, tmp_path: Path) -> None:
        name, knobs, case = tiny
        spec = load_card(name).spec
        knobs = replace(knobs, strategies=("MTL", "STL"), views=("equal-steps",), steps=2)
        console = Console(file=io.StringIO())
        assert run_suite(case, knobs, spec, benchmark=name, recipe="default", results=tmp_path, console=console) == 0
        runs = load_records(tmp_path, name, "default").finished
        assert len(runs) == 2
        for run in runs:
            for metric in (spec.primary, *spec.columns):
                if metric.id not in run.values["metrics"]["test"]:
                    continue  # word similarity without a folder
                assert metric_definition(metric.id).higher_is_better == metric.higher_is_better
            assert spec.primary.id in run.values["metrics"]["test"]
            assert spec.validation_id in run.values["metrics"]["validation"]
            assert run.values["floors"]
            assert run.values["flops"]["total"] > 0
        assert (tmp_path / name / "default" / "report.html").is_file()

"""Operators from outside torch: counted by a registered formula, or listed and warned of, never a silent zero."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry, register_flop_formula

from mt2st.flops import FlopCounter, FlopLedger, count_flops
from mt2st.mixture import MT2ST, Task
from mt2st.training.config import TrainConfig
from mt2st.training.trainer import Trainer
from tests.helpers.toy_models import Rows

ROWS, INNER, COLUMNS = 3, 4, 5
PRODUCT = 2 * ROWS * INNER * COLUMNS
_made = 0


def blend() -> Any:
    """A new custom operator with a backward, whose product happens outside torch; new, because warnings come once."""
    global _made
    _made += 1

    @torch.library.custom_op(f"mt2st_test::blend{_made}", mutates_args=())
    def operator(left: Tensor, right: Tensor) -> Tensor:
        return torch.from_numpy(left.detach().numpy() @ right.detach().numpy())

    operator.register_fake(lambda left, right: left.new_empty(left.shape[0], right.shape[1]))

    def save(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        left, right = ctx.saved_tensors
        return grad @ right.T, left.T @ grad

    operator.register_autograd(backward, setup_context=save)
    return operator


@pytest.fixture
def operator() -> Any:
    return blend()


def name_of(operator: Any) -> str:
    return f"{operator._qualname.replace('::', '.')}.default"


def matrices(**options: Any) -> tuple[Tensor, Tensor]:
    return torch.rand(ROWS, INNER, **options), torch.rand(INNER, COLUMNS, **options)


def test_a_custom_operator_is_listed_and_warned_of(operator: Any) -> None:
    message = rf"no formula for the operation {name_of(operator)} .*register_flop_formula"
    with FlopCounter() as counter:
        with counter.task("one"), pytest.warns(UserWarning, match=message):
            loss = operator(*matrices(requires_grad=True)).sum()
        loss.backward()
    assert counter.unknown_operations == {name_of(operator): 1}
    assert counter.counts == {"one": {"forward": 0, "backward": 2 * PRODUCT}}  # the backward is written in torch


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_frozen_custom_operator_is_listed_too(operator: Any, mode: Callable[[], Any]) -> None:
    with pytest.warns(UserWarning, match="counts it as 0 FLOPs"), FlopCounter() as counter, mode():
        operator(*matrices())
    assert counter.unknown_operations == {name_of(operator): 1}


def test_it_is_warned_of_once(operator: Any) -> None:
    with pytest.warns(UserWarning, match="counts it as 0 FLOPs"):
        count_flops(lambda: operator(*matrices()))
    with warnings.catch_warnings(), FlopCounter() as counter:
        warnings.simplefilter("error")
        operator(*matrices())
        operator(*matrices())
    assert counter.unknown_operations == {name_of(operator): 2}


@pytest.fixture
def formula(operator: Any) -> Iterator[None]:
    packet = getattr(torch.ops.mt2st_test, operator._qualname.split("::")[1])
    register_flop_formula(packet)(lambda left, right, *_, **__: 2 * left[0] * left[1] * right[1])
    yield
    del flop_registry[packet]


def test_a_registered_formula_counts_it(operator: Any, formula: None) -> None:
    with warnings.catch_warnings(), FlopCounter() as counter:
        warnings.simplefilter("error")
        operator(*matrices(requires_grad=True)).sum().backward()
    assert counter.counts == {"": {"forward": PRODUCT, "backward": 2 * PRODUCT}}
    assert not counter.unknown_operations


def test_an_operator_without_floating_point_tensors_is_not_listed() -> None:
    library = torch.library.Library("mt2st_test", "FRAGMENT")
    library.define("shuffle_rows(Tensor rows) -> Tensor")
    library.impl("shuffle_rows", lambda rows: rows.flip(0), "CPU")
    with warnings.catch_warnings(), FlopCounter() as counter:
        warnings.simplefilter("error")
        torch.ops.mt2st_test.shuffle_rows(torch.arange(3))
    assert not counter.unknown_operations


def test_floating_point_tensors_in_a_list_or_in_the_result_are_seen() -> None:
    library = torch.library.Library("mt2st_test", "FRAGMENT")
    library.define("pile(Tensor[] parts) -> Tensor")
    library.impl("pile", lambda parts: torch.stack(parts), "CPU")
    library.define("table(Tensor rows) -> Tensor")
    library.impl("table", lambda rows: rows.float(), "CPU")
    with FlopCounter() as counter:
        with pytest.warns(UserWarning, match=r"operation mt2st_test\.pile\.default ") as of_pile:
            torch.ops.mt2st_test.pile([torch.rand(2), torch.rand(2)])
        with pytest.warns(UserWarning, match=r"operation mt2st_test\.table\.default ") as of_table:
            torch.ops.mt2st_test.table(torch.arange(3))
    assert set(counter.unknown_operations) == {"mt2st_test.pile.default", "mt2st_test.table.default"}
    assert len(of_pile) == len(of_table) == 1


class Product(torch.autograd.Function):
    """A product with a backward of its own, both in torch."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(left, right)
        return left @ right

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        left, right = ctx.saved_tensors
        return grad @ right.T, left.T @ grad


def test_a_custom_function_in_torch_is_counted() -> None:
    with FlopCounter() as counter:
        with counter.task("one"):
            loss = Product.apply(*matrices(requires_grad=True)).sum()  # type: ignore[no-untyped-call]
        loss.backward()
    assert counter.counts == {"one": {"forward": PRODUCT, "backward": 2 * PRODUCT}}
    assert not counter.unknown_operations


def test_an_operator_inside_a_custom_function_is_listed_forward_and_backward(operator: Any) -> None:
    class Blend(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:  # type: ignore[override]
            ctx.save_for_backward(left, right)
            return operator(left, right)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            left, right = ctx.saved_tensors
            return operator(grad, right.T.contiguous()), operator(left.T.contiguous(), grad)

    with pytest.warns(UserWarning, match="counts it as 0 FLOPs"), FlopCounter() as counter:
        Blend.apply(*matrices(requires_grad=True)).sum().backward()  # type: ignore[no-untyped-call]
    assert counter.unknown_operations == {name_of(operator): 3}


def test_what_torch_itself_runs_in_training_is_not_listed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 16), nn.Dropout(0.3))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    with warnings.catch_warnings(), FlopCounter() as counter:
        warnings.simplefilter("error")
        model(torch.rand(4, 3, 8, 8)).softmax(-1).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert not counter.unknown_operations


class TestLedger:
    def test_calls_add_up_step_by_step_and_survive_a_checkpoint(self) -> None:
        ledger = FlopLedger()
        ledger.learn("joint", {"a": {"forward": 1, "backward": 2}}, {"lib.one.default": 2, "lib.two.default": 1})
        ledger.learn("alone", {"a": {"forward": 1, "backward": 2}}, {"lib.one.default": 1})
        ledger.learn("plain", {"a": {"forward": 1, "backward": 2}})
        for kind in ("joint", "joint", "alone", "plain"):
            ledger.add(kind)
        assert ledger.unknown_operations() == {"lib.one.default": 5, "lib.two.default": 2}
        other = FlopLedger()
        other.load_state_dict(json.loads(json.dumps(ledger.state_dict())))
        other.add("joint")
        assert other.unknown_operations() == {"lib.one.default": 7, "lib.two.default": 3}
        assert other.state_dict() != ledger.state_dict()

    def test_a_state_of_version_0_1_is_read(self) -> None:
        ledger = FlopLedger()
        ledger.load_state_dict({"measured": {"joint": {"a": {"forward": 1, "backward": 2}}}, "steps": {"joint": 3}})
        ledger.add("joint")
        assert (ledger.total, ledger.unknown_operations()) == (12, {})

    def test_a_training_run_lists_what_its_objective_calls(self, operator: Any) -> None:
        class Blended(nn.Module):
            name = "blended"

            def __init__(self) -> None:
                super().__init__()
                self.mix = nn.Parameter(torch.rand(1, 2))

            def forward(self, features: Any) -> Tensor:
                return operator(features["x"][:, :1], self.mix).pow(2).mean()

        tasks = MT2ST(Task(Blended()))
        with pytest.warns(UserWarning, match="counts it as 0 FLOPs"):
            result = Trainer(_Raw(), tasks, {"primary": Rows()}, TrainConfig(4)).fit()
        assert result.ledger.unknown_operations() == {name_of(operator): 4}


class _Raw(nn.Module):
    """Features are the batch itself."""

    def features(self, batch: Any) -> Any:
        return batch

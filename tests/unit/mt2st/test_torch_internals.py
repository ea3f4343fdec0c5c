"""What is not public in torch and accelerate: it is there, it lies in one file, and its absence is one line."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

import mt2st
from mt2st import torch_internals
from mt2st.errors import Mt2stError
from mt2st.torch_internals import autograd_sequence_number, forget_precision, running_node_number, times_written

ROOT = Path(mt2st.__file__).parents[1]
PACKAGES = ("mt2st", "data_prep", "benchmarks")
FILES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
CURE = "which mt2st needs; install {} .*, with which it was tested"


def test_sequence_numbers_count_autograd_nodes() -> None:
    before = autograd_sequence_number()
    loss = nn.Linear(2, 2)(torch.rand(3, 2)).sum()
    after = autograd_sequence_number()
    seen = []
    loss.grad_fn.register_prehook(lambda grads: seen.append(running_node_number()))  # type: ignore[union-attr]
    assert running_node_number() is None
    loss.backward()
    assert len(seen) == 1
    assert before <= seen[0] < after


def test_a_precision_is_forgotten_for_another_one() -> None:
    for precision in ("no", "bf16", "bf16", "no"):
        forget_precision(precision)
        assert Accelerator(cpu=True, mixed_precision=precision).mixed_precision == precision


@pytest.mark.parametrize(
    ("use", "name"),
    [
        (autograd_sequence_number, "_C._autograd._get_sequence_nr"),
        (running_node_number, "_C._current_autograd_node"),
    ],
)
def test_what_torch_lacks_is_named(use: object, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(f"torch.{name}")
    with pytest.raises(Mt2stError, match=rf"^torch \S+ has no torch\.{name}, {CURE.format('torch')}$"):
        use()  # type: ignore[operator]


def test_writing_to_a_tensor_is_noticed() -> None:
    tensor = torch.zeros(2)
    before = times_written(tensor)
    tensor.add_(1)
    assert times_written(tensor) > before


def test_what_accelerate_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_precision("no")
    Accelerator(cpu=True, mixed_precision="no")
    monkeypatch.delattr(AcceleratorState, "_reset_state")
    forget_precision("no")  # nothing to forget
    cure = CURE.format("accelerate")
    with pytest.raises(Mt2stError, match=rf"^accelerate \S+ has no accelerate\.state\..*, {cure}$"):
        forget_precision("bf16")


def test_no_other_file_uses_what_is_not_public() -> None:
    """No `torch.…._name`, no private module, no private method of an object that is not one's own."""
    own = {name for path in FILES for name in _defined(path)} | {
        "_exit",
        "_asdict",
    }  # os._exit and a named tuple's are public
    found = []
    for path in FILES:
        if path.name == Path(torch_internals.__file__).name:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                module = (node.module or "").split(".")
                names = [] if module[0] in PACKAGES else [*module, *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Attribute):
                names = [node.attr]
            else:
                continue
            private = [name for name in names if name.startswith("_") and not name.startswith("__")]
            found += [f"{path.relative_to(ROOT)}:{node.lineno} {name}" for name in private if name not in own]
    assert found == []


def _defined(path: Path) -> set[str]:
    """Private names that a file of the package defines: functions, classes, and attributes of self and cls."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
            names.add(node.attr)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names

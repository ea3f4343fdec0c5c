"""The FLOP ledger: what training costs, per task and phase, measured on the operations that really run.

Definition: model FLOPs of every matrix multiplication, convolution and attention, 1 multiply-add = 2 FLOPs. Elementwise
operations, normalisations, reductions and embedding lookups count 0. Counts come from operator shapes through the
formulas of `torch.utils.flop_counter`, so they are the same number on CPU and GPU. Four things are ours:

* Attention counts the same whichever kernel runs it: two products forward, four backward (dV, dP, dQ, dK). The
  recomputation that fused kernels do in backward is theirs, not the model's; and the CPU's fused kernel, for which
  torch 2.14 has no formula and counts 0, has one here.
* `nn.MultiheadAttention`'s evaluation fast path, one operator for several products, is switched off while counting,
  unless `fastpath` leaves it on: then the results of an evaluation have the bits that they have uncounted.
* No operation counts a silent zero. A matrix operation of torch without a formula is an error. An operator from
  outside torch (`torch.library`, a Triton kernel behind one, C++) that takes or gives floating-point tensors and has no
  formula counts 0, is listed in `unknown_operations` and warned of.
* Each operation belongs to the task that asked for it: forward by scope, backward by the autograd node's place in that
  scope. What two tasks share is counted once, for the one that asks first (the primary, if it is among them).

What cannot be seen is work that torch's dispatcher does not: a Triton kernel that is launched directly, also inside a
`torch.autograd.Function`, an extension that is called without an operator of its own, and products in NumPy. What the
operators of a foreign namespace call inside is not looked at either. Register such a kernel with
`torch.library.custom_op`, and its formula with `torch.utils.flop_counter.register_flop_formula`.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from mt2st.errors import Mt2stError
from mt2st.torch_internals import TorchDispatchMode, autograd_sequence_number, running_node_number

FORWARD, BACKWARD = "forward", "backward"
Counts = dict[str, dict[str, int]]  # task → phase → FLOPs

# Word by word, so that `upsample_bilinear2d` is no matrix operation and `_int_mm` is one.
_MATRIX_WORD = re.compile(
    r"mm|bmm|addmm|baddbmm|addbmm|mv|addmv|addr|ger|dot|vdot|matmul|linear|bilinear|trilinear|einsum|tensordot|"
    r"conv|conv[123]d|convolution|convolution_overrideable|deconv|attention|attn|sdpa|mha|transformer|lstm|gru|rnn|cdist|"
    r"gemm|fft|solve|cholesky|svd|qr|eigh?|lu|inv|inverse|det"
)
# torch's own namespaces whose matrix operations have formulas or are told by their names; the rest of them move data.
_OWN_NAMESPACES = frozenset(
    {"aten", "prim", "prims", "rngprims", "debugprims", "profiler", "c10d", "_c10d_functional"}
    | {"_c10d_functional_autograd", "_dtensor", "symm_mem"}
)
_OPERATOR = type(torch.ops.aten.mm.default)
_warned: set[str] = set()  # operations that this process was warned of
_uncounted_now = ContextVar("_uncounted_now", default=False)

_NO_MATRIX = re.compile(r"upsample|grid_sampler|detach|embedding|_to_|interpolate")


def _attention_forward(query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Q·Kᵀ and P·V: 2 products of 2 FLOPs a multiply-add. Shapes [B, heads, S, D]."""
    return _attention_products(query, key, value, backward=False)


def _attention_backward(
    grad: Any, query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    """dV = Pᵀ·dO, dP = dO·Vᵀ, dQ = dS·K, dK = dSᵀ·Q: twice the forward products."""
    return _attention_products(query, key, value, backward=True)


def _attention_products(query: Any, key: Any, value: Any, *, backward: bool) -> int:
    *batch, queries, width = query
    keys, value_width = value[-2], value[-1]
    rows = 1
    for size in batch:
        rows *= size
    return (2 if backward else 1) * 2 * rows * queries * keys * (width + value_width)


def _native_attention(query: Any, key: Any, value: Any, width: int, *args: Any, **kwargs: Any) -> int:
    """`nn.MultiheadAttention`'s evaluation fast path: Q, K, V, the two products, the output. query [B, T, D]."""
    lengths = [len(text) for text in query.unbind()]  # a nested tensor's differ
    return sum(2 * length * width * 4 * width + 4 * length * length * width for length in lengths)


def _native_layer(source: Any, width: int, *args: Any, **kwargs: Any) -> int:
    """`nn.TransformerEncoderLayer`'s evaluation fast path: the attention and the two matrices of its MLP."""
    hidden = args[12].shape[0]  # of the first matrix, [F, D]
    tokens = sum(len(text) for text in source.unbind())
    return _native_attention(source, source, source, width) + 2 * tokens * 2 * width * hidden


def _shapes(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.shape
    return value


def _on_shapes(formula: Callable[..., int]) -> Callable[..., int]:
    """Wrap a formula on shapes so that it takes tensors, as torch's registry entries do."""

    def wrapped(*args: Any, out_val: Any = None, **kwargs: Any) -> int:
        return formula(*(_shapes(value) for value in args), out_shape=_shapes(out_val), **kwargs)

    return wrapped


def _own_formulas() -> dict[Any, Callable[..., int]]:
    aten = torch.ops.aten
    formulas: dict[Any, Callable[..., int]] = {}
    for kernel in (
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_fused_attention_overrideable",
    ):
        for name, formula in ((kernel, _attention_forward), (f"{kernel}_backward", _attention_backward)):
            if hasattr(aten, name):  # which kernels exist depends on the torch version
                formulas[getattr(aten, name)] = _on_shapes(formula)
    native: dict[str, Callable[..., int]] = {
        "_native_multi_head_attention": _native_attention,
        "_transformer_encoder_layer_fwd": _native_layer,
    }
    formulas |= {getattr(aten, kernel): formula for kernel, formula in native.items()}
    formulas[aten.mv] = _on_shapes(lambda matrix, vector, **_: 2 * matrix[0] * matrix[1])
    formulas[aten.addmv] = _on_shapes(lambda bias, matrix, vector, **_: 2 * matrix[0] * matrix[1])
    formulas[aten.dot] = _on_shapes(lambda left, right, **_: 2 * left[0])
    formulas[aten.addr] = _on_shapes(lambda bias, left, right, **_: 2 * left[0] * right[0])
    return formulas


def is_matrix_operation(name: str) -> bool:
    """Whether an operator's name says that it multiplies, convolves or attends.

    >>> is_matrix_operation("aten::addmm.out"), is_matrix_operation("aten.add.Tensor")
    (True, False)
    """
    namespace, _, rest = name.partition("::" if "::" in name else ".")
    base = (rest or namespace).split(".")[0]
    if _NO_MATRIX.search(base):
        return False
    if base.endswith("attention") or "attention" in base or "transformer_encoder" in base:
        return True
    return any(_MATRIX_WORD.fullmatch(word) for word in base.strip("_").split("_"))


class FlopCounter(TorchDispatchMode):
    """Counts FLOPs of everything that runs inside, by task and phase. Observes only: results are bit for bit the same.

        with FlopCounter() as counter:
            with counter.task("vqa"):
                loss = objective(features)
            loss.backward()
        counter.counts  # {"vqa": {"forward": …, "backward": …}}

    Operations outside any task are counted under "" (clipping, say).

    Args:
        fastpath: leave attention's evaluation fast path on.
        alone: what runs inside is not counted by a counter around this one.

    Attributes:
        counts: task → phase → FLOPs.
        by_operation: operator → FLOPs.
        unknown_operations: foreign operator without a formula → calls. It counts 0, so the total is too low.

    Raises:
        Mt2stError: a matrix operation without a formula ran. Register one with
            `torch.utils.flop_counter.register_flop_formula`.
    """

    def __init__(self, *, fastpath: bool = False, alone: bool = False) -> None:
        super().__init__()
        self._keep_fastpath, self._alone = fastpath, alone
        self.counts: Counts = {}
        self.by_operation: Counter[str] = Counter()
        self.unknown_operations: Counter[str] = Counter()
        self._task = ""
        self._scopes: list[tuple[int, int, str]] = []  # [start, end) of autograd sequence numbers → task
        self._formulas: dict[Any, Callable[..., int]] = {}
        self._depth = 0  # decomposing an operation enters the mode again

    def __enter__(self) -> FlopCounter:
        if self._depth == 0:
            self._formulas = {**flop_registry, **_own_formulas()}
            self._fastpath = torch.backends.mha.get_fastpath_enabled()
            torch.backends.mha.set_fastpath_enabled(self._fastpath and self._keep_fastpath)
        self._depth += 1
        super().__enter__()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        super().__exit__(*exc_info)
        self._depth -= 1
        if self._depth == 0:
            torch.backends.mha.set_fastpath_enabled(self._fastpath)

    @contextmanager
    def task(self, name: str) -> Iterator[None]:
        """Forward operations inside belong to task `name`, and so do the backward operations of what they built."""
        before, self._task = self._task, name
        start = autograd_sequence_number()
        try:
            yield
        finally:
            self._scopes.append((start, autograd_sequence_number(), name))
            self._task = before

    @property
    def total(self) -> int:
        """All FLOPs counted."""
        return sum(flops for phases in self.counts.values() for flops in phases.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _uncounted_now.get():
            return func(*args, **kwargs)
        packet = getattr(func, "overloadpacket", func)
        formula = self._formulas.get(packet)
        if formula is None:
            return self._uncounted(func, args, kwargs)
        with uncounted() if self._alone else nullcontext():
            out = func(*args, **kwargs)
        flops = int(formula(*args, **kwargs, out_val=out))
        task, phase = self._place()
        phases = self.counts.setdefault(task, {FORWARD: 0, BACKWARD: 0})
        phases[phase] += flops
        self.by_operation[str(packet)] += flops
        return out

    def _uncounted(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation without a formula: in its parts, refused, listed, or as one that costs nothing."""
        if isinstance(func, _OPERATOR) and func is not torch.ops.prim.device.default:
            with self:
                decomposed = func.decompose(*args, **kwargs)
            if decomposed is not NotImplemented:
                return decomposed
        if is_matrix_operation(str(func)):
            raise Mt2stError(
                f"the FLOP ledger has no formula for the matrix operation {func}; "
                "give it one with torch.utils.flop_counter.register_flop_formula"
            )
        out = func(*args, **kwargs)
        # Gradients are none of its business: a frozen model costs FLOPs as well, and below autograd nobody knows.
        if getattr(func, "namespace", "") not in _OWN_NAMESPACES and _has_floats((args, kwargs, out)):
            self.unknown_operations[str(func)] += 1
            if str(func) not in _warned:
                _warned.add(str(func))
                warnings.warn(
                    f"the FLOP ledger knows no formula for the operation {func} and counts it as 0 FLOPs; give it one "
                    "with torch.utils.flop_counter.register_flop_formula (lambda *args, **kwargs: 0 if it costs none)",
                    stacklevel=3,
                )
        return out

    def _place(self) -> tuple[str, str]:
        number = running_node_number()
        if number is None:
            return self._task, FORWARD
        for start, end, name in self._scopes:
            if start <= number < end:
                return name, BACKWARD
        return self._task, BACKWARD


def _has_floats(values: Any) -> bool:
    """Whether a floating-point or complex tensor is among `values`, at any depth."""
    if isinstance(values, torch.Tensor):
        return values.is_floating_point() or values.is_complex()
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, list | tuple):
        return False
    return any(_has_floats(value) for value in values)


@contextmanager
def uncounted() -> Iterator[None]:
    """Operations inside count nothing: small problems whose cost follows from values and not from shapes."""
    before = _uncounted_now.set(True)
    try:
        yield
    finally:
        _uncounted_now.reset(before)


def count_flops(function: Callable[[], Any]) -> int:
    """FLOPs of one call of `function`, forward and backward alike."""
    with FlopCounter() as counter:
        function()
    return counter.total


class FlopLedger:
    """Adds up training FLOPs: measured once for each kind of step (active set, batch shapes), added at every step.

    The state is plain JSON, so that a resumed run goes on with the same numbers.
    """

    def __init__(self) -> None:
        self._measured: dict[str, Counts] = {}
        self._unknown: dict[str, dict[str, int]] = {}  # kind → operation without a formula → calls a step
        self._steps: Counter[str] = Counter()

    def knows(self, kind: str) -> bool:
        """Whether this kind of step was measured already."""
        return kind in self._measured

    def learn(
        self, kind: str, counts: Mapping[str, Mapping[str, int]], unknown_operations: Mapping[str, int] | None = None
    ) -> None:
        """Store the measured cost of one step of this kind: a counter's `counts` and `unknown_operations`."""
        self._measured[kind] = {task: dict(phases) for task, phases in counts.items()}
        self._unknown[kind] = dict(unknown_operations or {})

    def add(self, kind: str) -> None:
        """Count one step of this kind.

        Raises:
            Mt2stError: the kind was never measured.
        """
        if kind not in self._measured:
            raise Mt2stError(f"the FLOP ledger has not measured steps of kind {kind!r}; call learn() first")
        self._steps[kind] += 1

    def cost(self, kind: str) -> int:
        """FLOPs of one step of this kind."""
        return sum(flops for phases in self._measured[kind].values() for flops in phases.values())

    @property
    def total(self) -> int:
        """Training FLOPs so far."""
        return sum(steps * self.cost(kind) for kind, steps in self._steps.items())

    def by_task(self) -> Counts:
        """Training FLOPs so far, task → phase → FLOPs."""
        sums: Counts = {}
        for kind, steps in self._steps.items():
            for task, phases in self._measured[kind].items():
                into = sums.setdefault(task, {FORWARD: 0, BACKWARD: 0})
                for phase, flops in phases.items():
                    into[phase] += steps * flops
        return sums

    def unknown_operations(self) -> dict[str, int]:
        """Calls so far of foreign operators that have no formula and count 0; empty = the total is complete."""
        calls: Counter[str] = Counter()
        for kind, steps in self._steps.items():
            calls.update({name: steps * count for name, count in self._unknown[kind].items()})
        return dict(sorted(calls.items()))

    def by_kind(self) -> list[dict[str, Any]]:
        """One row a kind of step: kind, steps, FLOPs a step by task and phase."""
        return [
            {"kind": kind, "steps": self._steps[kind], "flops_per_step": self.cost(kind), "tasks": self._measured[kind]}
            for kind in sorted(self._measured)
        ]

    def state_dict(self) -> dict[str, Any]:
        return {"measured": self._measured, "steps": dict(self._steps), "unknown_operations": self._unknown}

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add the steps of another ledger's `state_dict`, such as another process's; each of them counts as one."""
        other = FlopLedger()
        other.load_state_dict(state)
        self._measured |= other._measured
        self._unknown |= other._unknown
        self._steps += other._steps

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._measured = {
            kind: {task: dict(phases) for task, phases in counts.items()} for kind, counts in state["measured"].items()
        }
        unknown = state.get("unknown_operations", {})  # states of version 0.1 have none
        self._unknown = {
            kind: {name: int(calls) for name, calls in unknown.get(kind, {}).items()} for kind in self._measured
        }
        self._steps = Counter({kind: int(steps) for kind, steps in state["steps"].items()})

"""The FLOP ledger against counts derived by hand, across attention kernels, tasks and modes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from mt2st.errors import Mt2stError
from mt2st.flops import FlopCounter, FlopLedger, count_flops, is_matrix_operation
from mt2st.schedules import Constant, Switch
from tests.helpers.tiny import mixture, streams, tiny_encoder

BATCH, SIDE, PATCH, WIDTH, HEADS, HIDDEN, LAYERS, CLASSES = 3, 16, 4, 24, 3, 40, 2, 5
TOKENS = (SIDE // PATCH) ** 2


class Block(nn.Module):
    """A plain pre-norm transformer block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        heads = self.qkv(self.norm(tokens)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        tokens = tokens + self.out(mixed)
        return tokens + self.mlp(tokens)


class PlainTransformer(nn.Module):
    """Patches by a convolution, learned positions, pre-norm blocks, mean, head."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)
        self.positions = nn.Parameter(torch.zeros(TOKENS, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.blocks(tokens).mean(1))


def by_hand() -> dict[str, int]:
    """FLOPs of `PlainTransformer` for a batch: every product of [m, k] by [k, n] is m·n·k multiply-adds = 2·m·n·k
    FLOPs.
    """
    rows = BATCH * TOKENS
    patches = 2 * rows * WIDTH * 3 * PATCH**2
    projections = 2 * rows * WIDTH * (3 * WIDTH + WIDTH)
    attention = 2 * 2 * BATCH * TOKENS * TOKENS * WIDTH  # Q·Kᵀ and P·V over all heads
    mlp = 2 * 2 * rows * WIDTH * HIDDEN
    head = 2 * BATCH * WIDTH * CLASSES
    inner = LAYERS * (projections + attention + mlp) + head
    # Backward makes two products of each: for the input's gradient and the weight's. Pixels want no gradient.
    return {"forward": patches + inner, "backward": patches + 2 * inner}


def forward_and_backward(model: Callable[[Tensor], Tensor], *inputs: Tensor) -> dict[str, dict[str, int]]:
    with FlopCounter() as counter:
        with counter.task("one"):
            loss = model(*inputs).float().pow(2).sum()
        loss.backward()
    return counter.counts


def test_a_plain_transformer_equals_the_count_by_hand() -> None:
    assert forward_and_backward(PlainTransformer(), torch.rand(BATCH, 3, SIDE, SIDE)) == {"one": by_hand()}


def test_mixed_precision_counts_the_same() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert forward_and_backward(PlainTransformer(), torch.rand(BATCH, 3, SIDE, SIDE)) == {"one": by_hand()}


@pytest.mark.parametrize(
    ("masked", "causal"), [(False, False), (True, False), (False, True)], ids=["plain", "masked", "causal"]
)
def test_every_attention_kernel_counts_the_same(masked: bool, causal: bool) -> None:
    mask = torch.rand(2, 1, 7, 9) > 0.2 if masked else None
    found = {}
    for backend, kernel in ((SDPBackend.MATH, "bmm"), (SDPBackend.FLASH_ATTENTION, "flash_attention_for_cpu")):
        query, key, value = (torch.rand(2, 3, length, 8, requires_grad=True) for length in (7, 9, 9))
        with sdpa_kernel(backend), FlopCounter() as counter:
            functional.scaled_dot_product_attention(query, key, value, mask, is_causal=causal).sum().backward()
        assert any(kernel in name for name in counter.by_operation), counter.by_operation
        found[backend] = counter.counts[""]
    forward = 2 * 2 * (2 * 3) * 7 * 9 * 8
    assert list(found.values()) == [{"forward": forward, "backward": 2 * forward}] * 2


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["MATH", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION"])
def test_every_attention_kernel_of_a_gpu_counts_the_same(backend: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    query, key, value = (
        torch.rand(2, 3, n, 64, requires_grad=True, device="cuda", dtype=torch.bfloat16) for n in (64, 128, 128)
    )
    with sdpa_kernel(getattr(SDPBackend, backend)), FlopCounter() as counter:
        functional.scaled_dot_product_attention(query, key, value).sum().backward()
    forward = 2 * 2 * (2 * 3) * 64 * 128 * 64
    assert counter.counts[""] == {"forward": forward, "backward": 2 * forward}, counter.by_operation


@pytest.mark.gpu
def test_a_gpu_counts_what_a_cpu_counts() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model = PlainTransformer().cuda()
    assert forward_and_backward(model, torch.rand(BATCH, 3, SIDE, SIDE, device="cuda")) == {"one": by_hand()}


def test_the_evaluation_fast_path_of_multihead_attention_hides_nothing() -> None:
    attention = nn.MultiheadAttention(16, 2, batch_first=True)
    tokens = torch.rand(2, 5, 16)

    def run() -> None:
        with torch.inference_mode():
            attention(tokens, tokens, tokens, need_weights=False)

    counts = []
    for training in (True, False):
        attention.train(training)
        counts.append(count_flops(run))
    assert counts == [2 * 10 * 16 * 4 * 16 + 4 * 2 * 5 * 5 * 16] * 2
    assert torch.backends.mha.get_fastpath_enabled()  # switched on again


@pytest.mark.parametrize("padded", [False, True])
def test_the_evaluation_fast_path_of_the_transformer_encoder_hides_nothing(padded: bool) -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=True)
    tokens, padding = torch.rand(2, 5, 16), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])

    def run() -> None:
        with torch.no_grad():
            encoder(tokens, src_key_padding_mask=padding if padded else None)

    encoder.eval()
    fast = count_flops(run)
    encoder.train()
    assert fast == count_flops(run) == 2 * (2 * 10 * 16 * (4 * 16 + 2 * 32) + 4 * 2 * 5 * 5 * 16)


def test_a_matrix_operation_without_a_formula_is_an_error() -> None:
    library = torch.library.Library("mt2st_test", "FRAGMENT")
    library.define("fancy_matmul(Tensor a, Tensor b) -> Tensor")
    library.impl("fancy_matmul", lambda a, b: a @ b, "CPU")
    with pytest.raises(
        Mt2stError, match=r"no formula for the matrix operation mt2st_test\.fancy_matmul.*register_flop_formula"
    ):
        count_flops(lambda: torch.ops.mt2st_test.fancy_matmul(torch.rand(2, 2), torch.rand(2, 2)))
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    "operation",
    [
        lambda: nn.LSTM(4, 4)(torch.rand(3, 2, 4)),
        lambda: torch.cdist(torch.rand(3, 4), torch.rand(5, 4)),
        lambda: nn.Bilinear(3, 3, 2)(torch.rand(4, 3), torch.rand(4, 3)),
        lambda: torch.linalg.solve(torch.eye(3), torch.rand(3)),
        lambda: torch.fft.rfft(torch.rand(8)),
    ],
    ids=["lstm", "cdist", "bilinear", "solve", "fft"],
)
def test_torchs_own_uncounted_operations_are_errors_too(operation: Callable[[], Any]) -> None:
    with pytest.raises(Mt2stError, match="no formula for the matrix operation"):
        count_flops(operation)


@pytest.mark.parametrize(
    ("name", "matrix"),
    [
        ("aten::_int_mm", True),
        ("aten.mkldnn_rnn_layer.default", True),
        ("aten.add.Tensor", False),
        ("matmul", True),
        ("aten::bmm.dtype", True),
        ("mkldnn::_linear_pointwise", True),
        ("flash_attn::_flash_attn_forward", True),
        ("aten::_transformer_encoder_layer_fwd", True),
        ("aten::mkldnn_rnn_layer", True),
        ("aten::upsample_bilinear2d", False),
        ("aten::_upsample_bilinear2d_aa", False),
        ("aten::embedding_dense_backward", False),
        ("aten::native_layer_norm", False),
        ("aten::_softmax", False),
        ("aten::_fused_adamw_", False),
        ("aten::linalg_vector_norm", False),
        ("aten::grid_sampler_2d", False),
        ("aten::glu", False),
        ("aten::addcmul", False),
        ("aten::multinomial", False),
    ],
)
def test_matrix_operations_are_told_by_name(name: str, matrix: bool) -> None:
    assert is_matrix_operation(name) is matrix


def test_lookups_interpolation_norms_and_optimisers_count_nothing() -> None:
    embedding, norm = nn.Embedding(10, 4), nn.BatchNorm2d(3)
    optimizer = torch.optim.AdamW([*embedding.parameters(), *norm.parameters()], fused=True)

    def run() -> None:
        pictures = functional.interpolate(norm(torch.rand(2, 3, 4, 4)), scale_factor=2, mode="bilinear", antialias=True)
        (embedding(torch.tensor([[1, 2]])).sum() + pictures.softmax(-1).sum()).backward()
        optimizer.step()

    assert count_flops(run) == 0


@pytest.mark.parametrize(
    ("operation", "flops"),
    [
        (lambda: torch.rand(3, 4) @ torch.rand(4), 2 * 3 * 4),
        (lambda: torch.rand(4) @ torch.rand(4), 2 * 4),
        (lambda: torch.addmv(torch.rand(3), torch.rand(3, 4), torch.rand(4)), 2 * 3 * 4),
        (lambda: torch.einsum("bij,bjk->bik", torch.rand(2, 3, 4), torch.rand(2, 4, 5)), 2 * 2 * 3 * 4 * 5),
        (lambda: nn.Conv2d(4, 6, 3, groups=2)(torch.rand(1, 4, 5, 5)), 2 * 9 * 6 * 2 * 9),
        (lambda: nn.Conv1d(4, 6, 3)(torch.rand(2, 4, 5)), 2 * 2 * 3 * 6 * 4 * 3),
    ],
    ids=["matrix-vector", "dot", "addmv", "einsum", "grouped-conv", "conv1d"],
)
def test_other_products(operation: Callable[[], Any], flops: int) -> None:
    assert count_flops(operation) == flops


def test_inference_mode_counts_the_forward_pass() -> None:
    model = PlainTransformer().eval()

    def run() -> None:
        with torch.inference_mode():
            model(torch.rand(BATCH, 3, SIDE, SIDE))

    assert count_flops(run) == by_hand()["forward"]


def test_counting_changes_no_bit_of_results_gradients_or_random_state() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 16), nn.Dropout(0.3))
    attention = nn.MultiheadAttention(16, 2, dropout=0.1, batch_first=True)
    images = torch.rand(4, 3, 8, 8)

    def step() -> list[Tensor]:
        torch.manual_seed(1)
        model.zero_grad()
        attention.zero_grad()
        tokens = model(images)[None]
        output = attention(tokens, tokens, tokens)[0]
        output.sum().backward()
        gradients = [parameter.grad.clone() for parameter in (*model.parameters(), *attention.parameters())]
        return [output.detach(), *gradients, torch.get_rng_state()]

    before = step()
    with FlopCounter():
        counted = step()
    for one, other in zip(before, counted, strict=True):
        assert torch.equal(one, other)


def encoder_counts(*names: str) -> tuple[dict[str, dict[str, int]], int]:
    """Counts of one step of VQA and these auxiliaries, with the caption batch of the tiny streams."""
    encoder = tiny_encoder()
    tasks = mixture(encoder, **{name: Constant() for name in names if name != "vqa"})
    batches = {name: stream.batch(0) for name, stream in streams(encoder).items()}
    torch.manual_seed(0)
    with FlopCounter() as counter:
        losses = tasks(encoder.features, batches, dict.fromkeys(names, 1.0), counter.task)
        sum(losses.values(), start=torch.zeros(())).backward()
    return counter.counts, counter.total


def test_tasks_and_phases_sum_to_the_total() -> None:
    counts, total = encoder_counts("vqa", "contrastive", "masked_lm", "matching")
    assert set(counts) == {"vqa", "contrastive", "masked_lm", "matching"}
    assert all(phases["forward"] > 0 and phases["backward"] > 0 for phases in counts.values())
    assert sum(flops for phases in counts.values() for flops in phases.values()) == total


def test_multi_task_training_costs_the_sum_of_its_parts_minus_what_is_shared() -> None:
    _, both = encoder_counts("contrastive", "masked_lm")
    _, contrastive = encoder_counts("contrastive")
    _, masked = encoder_counts("masked_lm")
    encoder = tiny_encoder()
    pixels = streams(encoder)["captions"].batch(0)["pixels"]
    # Both tasks need the image tokens, forward and backward; both encode texts of their own (one of them masked).
    shared = count_flops(lambda: encoder.towers.encode_image(pixels).tokens.sum().backward())
    assert 0 < shared < masked
    assert both == contrastive + masked - shared
    _, with_primary = encoder_counts("vqa", "contrastive", "masked_lm")
    _, primary = encoder_counts("vqa")
    assert with_primary == primary + both  # the primary has a batch of its own: nothing is shared with it


def test_what_is_shared_is_charged_to_the_task_that_asks_first() -> None:
    together, _ = encoder_counts("contrastive", "masked_lm")
    alone, _ = encoder_counts("contrastive")
    other, _ = encoder_counts("masked_lm")
    assert together["contrastive"] == alone["contrastive"]
    assert together["masked_lm"]["forward"] < other["masked_lm"]["forward"]
    assert together["masked_lm"]["backward"] < other["masked_lm"]["backward"]


def test_backward_is_charged_to_the_task_of_its_forward_in_any_order() -> None:
    first, second = nn.Linear(4, 8), nn.Linear(4, 2)
    rows = torch.rand(3, 4)
    with FlopCounter() as counter:
        with counter.task("first"):
            one = first(rows).sum()
        with counter.task("second"):
            two = second(rows).sum()
        two.backward()
        one.backward()
    assert counter.counts == {
        "first": {"forward": 2 * 3 * 4 * 8, "backward": 2 * 3 * 4 * 8},
        "second": {"forward": 2 * 3 * 4 * 2, "backward": 2 * 3 * 4 * 2},
    }


def test_nested_scopes_charge_the_inner_task() -> None:
    layer, rows = nn.Linear(4, 4), torch.rand(3, 4, requires_grad=True)
    with FlopCounter() as counter:
        with counter.task("outer"):
            inside = layer(rows)
            with counter.task("inner"):
                inside = layer(inside)
        inside.sum().backward()
    product = 2 * 3 * 4 * 4
    assert counter.counts == {task: {"forward": product, "backward": 2 * product} for task in ("outer", "inner")}


def test_gradient_checkpointing_counts_its_second_forward_pass_as_backward() -> None:
    layer, rows = nn.Linear(4, 4), torch.rand(3, 4, requires_grad=True)
    layers = nn.Sequential(layer, nn.Tanh(), nn.Linear(4, 4))
    counts = forward_and_backward(lambda given: checkpoint(layers, given, use_reentrant=False), rows)
    product = 2 * 3 * 4 * 4  # the second pass stops at what the last layer needs, its input
    assert counts == {"one": {"forward": 2 * product, "backward": (4 + 1) * product}}


class TestLedger:
    def test_a_kind_is_measured_once_and_added_every_step(self) -> None:
        ledger = FlopLedger()
        ledger.learn("joint", {"vqa": {"forward": 10, "backward": 20}, "aux": {"forward": 1, "backward": 2}})
        ledger.learn("alone", {"vqa": {"forward": 10, "backward": 20}})
        for kind in ("joint", "joint", "alone"):
            ledger.add(kind)
        assert ledger.total == 33 * 2 + 30
        assert ledger.by_task() == {"vqa": {"forward": 30, "backward": 60}, "aux": {"forward": 2, "backward": 4}}
        assert [(row["kind"], row["steps"], row["flops_per_step"]) for row in ledger.by_kind()] == [
            ("alone", 1, 30),
            ("joint", 2, 33),
        ]

    def test_an_unmeasured_kind_is_an_error(self) -> None:
        with pytest.raises(Mt2stError, match="has not measured steps of kind 'joint'"):
            FlopLedger().add("joint")

    def test_its_state_survives_json(self) -> None:
        ledger = FlopLedger()
        ledger.learn("joint", {"vqa": {"forward": 10**15, "backward": 20}})
        ledger.add("joint")
        other = FlopLedger()
        other.load_state_dict(json.loads(json.dumps(ledger.state_dict())))
        other.add("joint")
        assert other.total == 2 * (10**15 + 20)
        assert ledger.total == 10**15 + 20  # nothing is shared between the two

    def test_a_schedules_saving_follows_from_it(self) -> None:
        """Switch at 0.25 of 8 steps: two joint steps, then the auxiliary adds exactly nothing."""
        encoder = tiny_encoder()
        tasks = mixture(encoder, contrastive=Switch(0.25))
        ledger = FlopLedger()
        totals = []
        for step in range(8):
            weights = tasks.weights(step, 8, seed=0)
            kind = "+".join(weights)
            if not ledger.knows(kind):
                ledger.learn(kind, encoder_counts(*weights)[0])
            ledger.add(kind)
            totals.append(ledger.by_task()["contrastive"]["forward"])
        assert totals[1] == 2 * totals[0]
        assert totals[1:] == [totals[1]] * 7

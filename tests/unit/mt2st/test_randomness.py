"""Randomness from a hash: the bits are recorded, because another bit would change every run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import mt2st.schedules
from mt2st.randomness import coin, generator, hashed_order, step_seed


def test_coins_keep_their_bits() -> None:
    tosses = [coin(0, 0, "masked_lm"), coin(0, 1, "masked_lm"), coin(1, 0, "a"), coin(2**40, 77, "é\0x")]
    assert [toss.hex() for toss in tosses] == [
        "0x1.56e92039aa8aap-2",
        "0x1.944b4ab251501p-1",
        "0x1.bd77bc0c3de27p-1",
        "0x1.8a127219251ddp-1",
    ]
    assert mt2st.schedules.coin is coin


def test_step_seeds_keep_their_bits() -> None:
    seeds = [step_seed(0, 0, 0, 0), step_seed(1, 2, 3, 4), step_seed(2**40, 10**6, 1, 7)]
    assert seeds == [7247933950497106085, 7962112947988012074, 6333427759772337857]


def test_generators_keep_their_bits() -> None:
    one, other = generator(0, "questions", 0), generator(7, "captions/captions", 123)
    assert one.integers(0, 2**63, 3).tolist() == [6064857464143996158, 1913837283966090583, 4973698846495046978]
    assert one.random().hex() == "0x1.3a3a022712000p-6"
    assert one.permutation(8).tolist() == [1, 4, 0, 7, 5, 6, 3, 2]
    assert other.integers(0, 2**63, 3).tolist() == [1886399006915352835, 9027946368556489773, 7986122013364440578]
    assert other.random().hex() == "0x1.9efb90c1c5daap-2"
    assert other.permutation(8).tolist() == [0, 5, 7, 4, 2, 1, 6, 3]


def test_orders_keep_their_bits() -> None:
    rows = [str(row) for row in range(12)]
    assert hashed_order(rows, "validation", 0) == [8, 4, 5, 1, 7, 0, 10, 6, 2, 3, 11, 9]
    assert hashed_order(rows, "labelled", 3) == [8, 4, 1, 7, 2, 3, 5, 9, 0, 10, 6, 11]
    assert hashed_order(["b", "a", "ü"], "x", 1) == [2, 0, 1]
    shards = [f"shard-{number:03d}.tar" for number in range(8)]
    assert hashed_order(shards, 5, 2) == [2, 1, 7, 4, 6, 5, 0, 3]
    assert hashed_order([], "x", 1) == []


@given(st.lists(st.text(max_size=4), max_size=20, unique=True), st.integers())
def test_the_order_of_a_part_is_the_part_of_the_order(names: list[str], seed: int) -> None:
    order = [names[at] for at in hashed_order(names, "x", seed)]
    assert sorted(order) == sorted(names)
    part = names[::2]
    assert [part[at] for at in hashed_order(part, "x", seed)] == [name for name in order if name in part]


def test_equal_names_keep_their_order() -> None:
    assert hashed_order(["a", "a", "a"], 0) == [0, 1, 2]


def test_importing_it_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, mt2st.randomness; print([name for name in ('torch', 'numpy') if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"

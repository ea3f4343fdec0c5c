"""Randomness from a hash: numbers that depend on their arguments alone.

No function here keeps a state, so a resumed run, every rank and every machine draw the same. The bits are fixed:
another hash would change every run, so tests hold recorded values. Neither torch nor NumPy is imported before it is
needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def coin(seed: int, step: int, task: str) -> float:
    """A number uniform on [0, 1), from 53 bits: the coin that a sampled schedule tosses at a step."""
    return (_bits(seed, step, task, count=64) >> 11) / float(1 << 53)


def step_seed(seed: int, step: int, micro: int, rank: int) -> int:
    """A 63-bit seed for everything random in one micro-batch of one process."""
    return _bits(seed, step, micro, rank, count=64) >> 1


def generator(seed: int, name: str, index: int) -> np.random.Generator:
    """A NumPy generator (Philox), such as the one that draws batch `index` of the stream `name`."""
    import numpy as np

    return np.random.Generator(np.random.Philox(key=_bits(seed, name, index, count=128)))


def hashed_order(names: Sequence[str], *key: object) -> list[int]:
    """A permutation of the positions of `names`: ascending by the SHA-256 of `key` and name, joined by ":".

    The place of a name relative to another one does not depend on the rest, so the order of a part is the part of the
    order. Equal names keep their order.
    """
    prefix = "".join(f"{part}:" for part in key)
    digests = [hashlib.sha256(f"{prefix}{name}".encode()).digest() for name in names]
    return sorted(range(len(digests)), key=digests.__getitem__)


def _bits(*key: object, count: int) -> int:
    """`count` bits, a multiple of 8, as an integer ≥ 0: BLAKE2b of `key`, joined by zero bytes."""
    text = "\0".join(str(part) for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=count // 8).digest(), "big")

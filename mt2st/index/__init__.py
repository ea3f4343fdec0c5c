"""Search indexes behind one protocol; one backend a file, found by its file's name.

    index = create_index("faiss_cpu:IVF64,Flat?nprobe=8")
    index.add(embeddings)                      # [N, E], normalised as a copy
    scores, ids = index.search(queries, k=10)  # [Q, 10] float32 cosines, best first, and [Q, 10] int64
    index.search(queries, k=10, allowed=flags)  # among the items that flags [N] marks
    index.remove([3, 8])                       # ids of the others stay

`metric=dot` (inner product) or `metric=euclidean` (L2) searches by those; a score is then the inner product, or the
distance with its sign turned. Where fewer than k items can be returned (k > N, a filter, or an approximate index that
finds no more), the rest is id −1, score −∞.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mt2st.errors import Mt2stError, unknown_name
from mt2st.index._base import METRICS, SWEEPS, SearchIndex, VectorIndex
from mt2st.index._shards import search_shards
from mt2st.index._store import load_index, save_index

__all__ = [
    "METRICS",
    "SWEEPS",
    "SearchIndex",
    "VectorIndex",
    "backend_class",
    "backend_names",
    "create_index",
    "empty_like",
    "load_index",
    "parse_spec",
    "save_index",
    "search_shards",
]

_KNOB_TYPES = (int, float)


def backend_names() -> tuple[str, ...]:
    """Names of the backends: the files of this folder, without those that begin with an underscore."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_")))


def parse_spec(spec: str) -> tuple[str, dict[str, Any]]:
    """Backend name and parameters of a text `backend[:factory][?knob=value[&knob=value …]]`.

    >>> parse_spec("faiss_cpu:IVF64,Flat?nprobe=8")
    ('faiss_cpu', {'factory': 'IVF64,Flat', 'nprobe': 8})
    """
    head, _, tail = spec.partition("?")
    name, _, factory = head.partition(":")
    parameters: dict[str, Any] = {"factory": factory} if factory else {}
    for knob in filter(None, tail.split("&")):
        key, equals, value = knob.partition("=")
        if not equals or not key.isidentifier() or not value:
            raise Mt2stError(
                f"index {spec!r}: {knob!r} is no knob; write backend[:factory][?knob=value&…], such as exact?device=cpu"
            )
        parameters[key] = _value(value)
    return name, parameters


def _value(text: str) -> Any:
    for kind in _KNOB_TYPES:
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def create_index(spec: str, **parameters: Any) -> VectorIndex:
    """An empty index.

    Args:
        spec: a backend's name or a full text for `parse_spec`; a dotted name is a module of yours with a class `Index`.
        parameters: the backend's own, on top of those in `spec`.

    Raises:
        Mt2stError: unknown backend or parameter, a package or a GPU that is not there, values out of range.
    """
    name, in_spec = parse_spec(spec)
    return backend_class(name).create(**{**in_spec, **parameters})


def backend_class(name: str) -> type[VectorIndex]:
    """The class `Index` of a backend, by its name or a dotted module.

    Raises:
        Mt2stError: there is no such backend.
    """
    if "." in name:
        if not all(part.isidentifier() for part in name.split(".")) or not _module_exists(name):
            raise Mt2stError(
                f"index backend {name!r}: there is no such module; give a backend of {', '.join(backend_names())}"
            )
        return import_module(name).Index
    if name in backend_names():
        return import_module(f"mt2st.index.{name}").Index
    raise unknown_name("index backend", name, backend_names())


def empty_like(index: SearchIndex) -> VectorIndex:
    """A new, empty index of the same backend with the same parameters."""
    return create_index(index.backend, **index.parameters)


def _module_exists(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False

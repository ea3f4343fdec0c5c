"""Auxiliary objectives by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mt2st.errors import Mt2stError, unknown_name


def build_auxiliaries(names: Sequence[str], factories: Mapping[str, Callable[[], Any]]) -> list[Any]:
    """The objectives of these names, in this order.

    Args:
        factories: auxiliary's name → function that makes it with fresh weights. A name without a factory is an error:
            no auxiliary is ever trained as another one.

    Raises:
        Mt2stError: no factory makes an auxiliary of that name, or a factory makes one of another name.
    """
    built = []
    for name in names:
        if name not in factories:
            raise unknown_name("auxiliary", name, factories, "The case has no branch that builds it.")
        objective = factories[name]()
        if objective.name != name:
            raise Mt2stError(f"auxiliary {name!r} was built as {objective.name!r}; give the objective name={name!r}")
        built.append(objective)
    return built

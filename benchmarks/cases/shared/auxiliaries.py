"""Auxiliary objectives by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mt2st.errors import Mt2stError, unknown_name

Builder = Callable[[Any, Any], Any]  # a case and its encoder → an objective


def build_auxiliaries(case: Any, encoder: Any) -> list[Any]:
    """The objectives that `case.knobs.auxiliaries` names, in this order.

    Args:
        case: its `AUXILIARIES` maps an auxiliary's name to a function (case, encoder) → the objective with fresh
            weights. A name without a function is an error: no auxiliary is ever trained as another one.

    Raises:
        Mt2stError: no factory makes an auxiliary of that name, or a factory makes one of another name.
    """
    built = []
    for name in case.knobs.auxiliaries:
        if name not in case.AUXILIARIES:
            raise unknown_name("auxiliary", name, case.AUXILIARIES)
        objective = case.AUXILIARIES[name](case, encoder)
        if objective.name != name:
            raise Mt2stError(f"auxiliary {name!r} was built as {objective.name!r}; give the objective name={name!r}")
        built.append(objective)
    return built

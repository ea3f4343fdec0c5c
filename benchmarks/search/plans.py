"""Which indexes are built and which of their search-time settings are tried."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mt2st.errors import Mt2stError
from mt2st.index import backend_class, backend_names, create_index, parse_spec


@dataclass(frozen=True)
class Plan:
    """One index to build, and the search-time settings to try on it.

    Attributes:
        spec: a text for `create_index`.
        knob: the search-time parameter that is swept, "" for none.
        values: its values.
        dimensions: how many leading components of each vector are indexed; 0 = all.
    """

    spec: str
    knob: str = ""
    values: tuple[int, ...] = ()
    dimensions: int = 0

    def settings(self) -> list[dict[str, int]]:
        """The search-time settings, one empty where nothing is swept."""
        return [{self.knob: value} for value in self.values] if self.knob else [{}]


def parse_plan(text: str) -> Plan:
    """A plan from a spec whose search-time knob may list values: `faiss_cpu:IVF64,Flat?nprobe=1,4,16`.

    `dimensions=32` is the harness's own: only the first 32 components are indexed and asked for.
    """
    head, _, tail = text.partition("?")
    fixed: list[str] = []
    swept: list[str] = []
    dimensions = 0
    for knob in filter(None, tail.split("&")):
        if knob.startswith("dimensions="):
            number = knob.partition("=")[2]
            if not number.isdecimal() or not int(number):
                raise Mt2stError(f"setting {text!r}: dimensions must be a whole number from 1, such as dimensions=32")
            dimensions = int(number)
        else:
            (swept if "," in knob else fixed).append(knob)
    if len(swept) > 1:
        raise Mt2stError(f"setting {text!r} sweeps {len(swept)} knobs; list values for one, such as nprobe=1,4,16")
    spec = head + ("?" + "&".join(fixed) if fixed else "")
    parse_spec(spec)
    if not swept:
        return Plan(spec, dimensions=dimensions)
    name, _, values = swept[0].partition("=")
    try:
        return Plan(spec, name, tuple(int(value) for value in values.split(",")), dimensions)
    except ValueError:
        raise Mt2stError(
            f"setting {text!r}: the values of {name} must be whole numbers, such as {name}=1,4,16"
        ) from None


def with_options(plan: Plan, options: Sequence[str]) -> Plan:
    """The plan with those of `KEY=VALUE` that its backend knows and its spec does not say already."""
    name, given = parse_spec(plan.spec)
    if not options:
        return plan
    known = inspect.signature(backend_class(name)).parameters
    extra = [option for option in options if (key := option.partition("=")[0]) in known and key not in given]
    spec = plan.spec + "".join(f"{'&' if '?' in plan.spec or place else '?'}{each}" for place, each in enumerate(extra))
    return replace(plan, spec=spec)


def announced(spec: str) -> str:
    """The spec as it is printed: where it leaves the device to the index, with the one that it takes.

    Raises:
        Mt2stError: there is no such index.
    """
    if parse_spec(spec)[1].get("device") != "auto":
        return spec
    return f"{spec} (takes {create_index(spec).parameters['device']})"


def default_plans(
    num_items: int, width: int, gpu: bool, installed: Callable[[str], bool], along: Sequence[str] = ("effort",)
) -> list[Plan]:
    """The sweep for a gallery of this size: what each backend declares, of those that are installed.

    Args:
        num_items: N.
        width: E.
        gpu: whether there is one.
        installed: whether a module is.
        along: of `mt2st.index.SWEEPS`.
    """
    plans: list[Plan] = []
    for name in backend_names():
        backend = backend_class(name)
        if (not backend.requires or installed(backend.requires)) and (gpu or not backend.on_gpu):
            declared = [setting for each in along for setting in backend.sweep(num_items, width, each)]
            plans += [parse_plan(name + setting) for setting in declared]
    return list(dict.fromkeys(plans))

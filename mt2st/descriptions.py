"""What an object is, as plain values: equal descriptions mean equal type and equal parameters.

A description survives the process: it holds names and values, never an address. It is JSON, so it can be hashed,
stored in a record and compared.

* A plain value is itself; a float that JSON has no form for is its name. Containers hold descriptions.
* An enumeration's member, a class, a module, or a function of a C extension is its qualified name.
* An array or a tensor is its type, shape and the SHA-256 of its values.
* A Python function is its qualified name and the SHA-256 of its code, with defaults, closure values and the plain
  globals that it reads. The code is bytecode, so another Python version gives another description.
* An object with a method `describe()` is its type and what the method returns.
* Any other object is its type and its state: the fields of a dataclass, `vars()` and slots, private ones included. A
  `functools.cached_property` is left out, because it follows from the rest.

What cannot be seen: a change in the source of a class or of a function that is called, and state outside the object.
"""

from __future__ import annotations

import dis
import functools
import math
import sys
import types
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from mt2st.files import content_hash

_PLAIN = (bool, int, str, type(None))


class DescriptionError(TypeError):
    """A value without a description. `place` leads from the described object to it, such as "inner.lock"."""

    def __init__(self, value: object, place: str) -> None:
        super().__init__(f"{place or 'the object itself'} is a {qualified_name(type(value))}")
        self.place, self.kind = place, qualified_name(type(value))


def qualified_name(named: Any) -> str:
    """Module and qualified name of a class or function."""
    return f"{named.__module__}.{getattr(named, '__qualname__', named.__name__)}"


def describe_value(value: Any) -> Any:
    """The description of `value`, a JSON value.

    Raises:
        DescriptionError: something in it has neither plain values nor a name, such as a lock or a generator.
    """
    return _describe(value, "", ())


def _describe(value: Any, place: str, inside: tuple[int, ...]) -> Any:
    if type(value) in _PLAIN:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if id(value) in inside:
        return {"again": inside.index(id(value))}  # an object that holds itself
    inside = (*inside, id(value))

    def part(name: object, child: Any) -> Any:
        return _describe(child, f"{place}.{name}".lstrip("."), inside)

    if type(value) in (list, tuple):
        return [part(index, item) for index, item in enumerate(value)]
    if type(value) in (set, frozenset):
        return {"set": sorted((part("item", item) for item in value), key=content_hash)}
    if type(value) is dict:
        return {"mapping": [[part("key", key), part(key, item)] for key, item in value.items()]}
    if type(value) in (bytes, complex):
        return {type(value).__name__: repr(value)}
    if isinstance(value, Enum):
        return {"member": f"{qualified_name(type(value))}.{value.name}"}
    if isinstance(value, type):
        return {"class": qualified_name(value)}
    if isinstance(value, types.ModuleType):
        return {"module": value.__name__}
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        values = part("values", value.tolist())
        return {"array": str(value.dtype), "shape": list(value.shape), "sha256": content_hash(values)}
    if isinstance(value, types.FunctionType):
        return _function(value, part)
    if isinstance(value, types.MethodType):
        return {"method": value.__func__.__qualname__, "of": part("self", value.__self__)}
    if _is_importable(value):
        return {"function": qualified_name(value)}
    if isinstance(value, functools.partial):
        return {"partial": part("func", value.func), "parameters": [part("args", value.args), part("", value.keywords)]}
    kind = qualified_name(type(value))
    if callable(own := getattr(value, "describe", None)):
        return {"type": kind, "parameters": part("describe()", own())}
    return {"type": kind, **_state(value, place, part)}


def _state(value: Any, place: str, part: Callable[[object, Any], Any]) -> dict[str, Any]:
    """What a copy of the object would need, by the protocol that `copy.copy` uses."""
    try:
        reduced = value.__reduce_ex__(4)
    except TypeError:  # an object whose state lies outside Python: a lock, a generator, an open file
        raise DescriptionError(value, place) from None
    if isinstance(reduced, str):  # it is only known by a name, and not under this one in its module
        raise DescriptionError(value, place)
    _, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    attributes = _attributes(value, state)
    found: dict[str, Any] = {"parameters": {name: part(name, item) for name, item in attributes.items()}}
    more = arguments[1:] if arguments and arguments[0] is type(value) else arguments
    if more:
        found["arguments"] = part("arguments", tuple(more))
    if items is not None:
        found["items"] = part("items", list(items))
    if pairs is not None:
        found["pairs"] = part("pairs", [list(pair) for pair in pairs])
    return found


def _attributes(value: Any, state: Any) -> dict[str, Any]:
    """Names and values: a dataclass's fields, then the instance's dictionary and slots, or another state as it is."""
    found = {}
    if is_dataclass(value):
        found = {field.name: getattr(value, field.name) for field in fields(value) if hasattr(value, field.name)}
    with_slots = isinstance(state, tuple) and len(state) == 2 and all(isinstance(one, dict | None) for one in state)
    for held in state if with_slots else (state,):
        if isinstance(held, dict):
            found |= {name: item for name, item in held.items() if not _is_cached(type(value), name)}
        elif held is not None and not found:
            found["state"] = held
    return found


def _is_cached(kind: type, name: str) -> bool:
    return any(isinstance(vars(base).get(name), functools.cached_property) for base in kind.__mro__)


def _function(function: types.FunctionType, part: Callable[[object, Any], Any]) -> dict[str, Any]:
    code = function.__code__
    closure = zip(code.co_freevars, function.__closure__ or (), strict=True)
    read = {name: function.__globals__[name] for name in sorted(_globals_of(code)) if name in function.__globals__}
    return {
        "function": qualified_name(function),
        "code": content_hash(_code(code)),
        "defaults": part("__defaults__", [function.__defaults__, function.__kwdefaults__]),
        "closure": {name: part(name, _content(cell)) for name, cell in closure},
        "globals": {name: item for name, item in read.items() if type(item) in (*_PLAIN, float)},
    }


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is not bound yet
        return {"unbound": True}


def _code(code: types.CodeType) -> list[Any]:
    """What a code object does, without where it stands in its file."""
    constants = [_code(item) if isinstance(item, types.CodeType) else _constant(item) for item in code.co_consts]
    arguments = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags]
    return [code.co_code.hex(), constants, list(code.co_names), list(code.co_varnames), arguments]


def _constant(constant: Any) -> Any:
    if isinstance(constant, frozenset):
        return sorted(repr(item) for item in constant)  # its own order differs from process to process
    return repr(constant)


def _globals_of(code: types.CodeType) -> set[str]:
    """Global names that the code, and the code inside it, reads."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(_globals_of(item) for item in code.co_consts if isinstance(item, types.CodeType)))


def _is_importable(value: Any) -> bool:
    """Whether a callable of C, such as `math.cos`, is what its module knows by its name."""
    if not callable(value) or not isinstance(getattr(value, "__name__", None), str):
        return False
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    return module is not None and getattr(module, value.__name__, None) is value

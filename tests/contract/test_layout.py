"""The imports of `benchmarks` as a graph: no circle, and few floors. The linter's contracts say who may import whom."""

from __future__ import annotations

import graphlib

import grimp
import pytest

MOST_FLOORS = 8


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Module → the modules of `benchmarks` that it imports, at its top or inside a function."""
    graph = grimp.build_graph("benchmarks", cache_dir=None)
    return {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}


def test_no_module_imports_itself_in_a_circle(imports: dict[str, set[str]]) -> None:
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle


def test_chains_of_imports_are_short(imports: dict[str, set[str]]) -> None:
    floors: dict[str, int] = {}
    for module in graphlib.TopologicalSorter(imports).static_order():
        floors[module] = 1 + max((floors[other] for other in imports[module]), default=0)
    highest = {module: floor for module, floor in floors.items() if floor > MOST_FLOORS}
    assert not highest, "shorten the chain: hand on what is made above, in place of importing its maker"

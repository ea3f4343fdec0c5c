"""What the packages import is what pyproject.toml lists, and without an extra the error is one line with the cure.

`mt2st/` needs the dependencies; `data_prep/` the extra `data` on top; `benchmarks/` the extra `benchmarks`. A package
that only a function imports may belong to another extra.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
OURS = ("mt2st", "data_prep", "benchmarks")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRA_OF = {"data_prep": "data", "benchmarks": "benchmarks"}
# Extras of packages that functions import, beside the extra of their own package.
OPTIONAL = {
    "mt2st": ("cpu", "gpu", "index", "diffusion", "lora", "milvus", "onnx", "peers", "ray"),
    "data_prep": (),
    "benchmarks": ("cpu", "demo", "gpu", "field", "peers", "ray", "slurm"),
}
# Functions whose first argument names a module or a distribution that is used without an import statement.
_ASKS = {"find_spec", "import_module", "version"}
DISTRIBUTIONS = packages_distributions()


def canonical(name: str) -> str:
    """The name of a distribution as requirements compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def listed(*extras: str, dependencies: bool = True) -> set[str]:
    """Names of the distributions in the dependencies and in `extras`."""
    lines = [*PROJECT["dependencies"]] if dependencies else []
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return {canonical(Requirement(line).name) for line in lines}


def used(folder: Path) -> tuple[set[str], set[str]]:
    """Distributions that the modules of `folder` use: those needed to import the modules, and all."""
    at_once: set[str] = set()
    everything: set[str] = set()
    for path in folder.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        later = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _for_types_only(node)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            names = {canonical(name) for module in _modules(node) for name in DISTRIBUTIONS.get(module, (module,))}
            everything |= names
            if node not in later:
                at_once |= names
    return at_once, everything


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _modules(node: ast.AST) -> list[str]:
    """Top-level modules of others that `node` names."""
    named: list[str] = []
    if isinstance(node, ast.Import):
        named = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        named = [node.module]
    elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in _ASKS:
        named = [value.value for value in node.args[:1] if isinstance(value, ast.Constant)]
    tops = (name.split(".")[0] for name in named)
    return [top for top in tops if top not in OURS and top not in sys.stdlib_module_names]


def own(package: str) -> set[str]:
    """What is listed for `package`."""
    return listed(EXTRA_OF[package]) if package in EXTRA_OF else listed()


@pytest.mark.parametrize("package", OURS)
def test_what_is_imported_is_listed(package: str) -> None:
    at_once, everything = used(ROOT / package)
    assert at_once <= own(package)
    assert everything <= own(package) | listed(*OPTIONAL[package])


@pytest.mark.parametrize("package", OURS)
def test_what_is_listed_is_imported(package: str) -> None:
    names = listed(EXTRA_OF[package], dependencies=False) if package in EXTRA_OF else listed()
    if sys.version_info >= (3, 11):
        names -= {"tomli"}
    assert names <= used(ROOT / package)[1]


def test_the_scan_sees_what_is_new(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text(
        "from typing import TYPE_CHECKING\nimport brand_new.part\n"
        "if TYPE_CHECKING:\n    from for_types import Kind\n"
        "def later():\n    import sklearn\n    return version('some-package')\n"
    )
    assert used(tmp_path) == ({"brand-new"}, {"brand-new", "for-types", "scikit-learn", "some-package"})


def test_the_tested_environment_holds_every_index() -> None:
    extras = re.search(r"^extras = (.*)$", (ROOT / "tox.ini").read_text(encoding="utf-8"), re.MULTILINE)
    assert extras
    assert {"benchmarks", "cpu", "data", "diffusion", "index", "peers", "test"} <= set(extras[1].split(", "))


# -- without the extras ------------------------------------------------------------------------------------------------

# Hides every installed package but those named, as if it were not installed.
HIDE = """
import importlib.machinery, json, sys
allowed, hidden = json.loads(sys.argv.pop(1))

class Without(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in hidden else super().find_spec(name, path, target)

    @classmethod
    def find_distributions(cls, *arguments, **named):
        for found in super().find_distributions(*arguments, **named):
            if found.name.lower().replace("_", "-") in allowed:
                yield found

sys.meta_path = [Without if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
"""


def closure(names: set[str]) -> set[str]:
    """Distributions that come along when `names` are installed, `names` among them."""
    found: set[str] = set()
    todo = [(name, frozenset[str]()) for name in names]
    seen = set(todo)
    while todo:
        name, extras = todo.pop()
        try:
            lines = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        found.add(canonical(name))
        for requirement in map(Requirement, lines):
            wanted = requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)
            )
            step = (canonical(requirement.name), frozenset(requirement.extras))
            if wanted and step not in seen:
                seen.add(step)
                todo.append(step)
    return found


def run_with(names: set[str], code: str) -> str:
    """Standard output of `code` where only `names`, and what they bring along, is installed."""
    allowed = closure(names)
    hidden = [
        module
        for module, owners in DISTRIBUTIONS.items()
        if module not in OURS and not {canonical(owner) for owner in owners} & allowed
    ]
    done = subprocess.run(
        [sys.executable, "-c", HIDE + textwrap.dedent(code), json.dumps([sorted(allowed), hidden])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


IMPORT_ALL = """
import importlib, pathlib
for path in sorted(pathlib.Path({package!r}).rglob("*.py")):
    parts = path.with_suffix("").parts
    if parts[-1] != "__main__":
        importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
print("imported")
"""


@pytest.mark.parametrize("package", OURS)
def test_every_module_imports_with_what_is_listed_for_its_package(package: str) -> None:
    assert run_with(own(package), IMPORT_ALL.format(package=package)) == "imported\n"


@pytest.mark.parametrize(
    ("call", "cure"),
    [
        ("from mt2st.index import create_index; create_index('hnswlib')", "pip install 'mt2st[index]'"),
        ("from mt2st.index import create_index; create_index('usearch')", "pip install 'mt2st[index]'"),
        ("from mt2st.index import create_index; create_index('faiss_cpu:Flat')", "pip install 'mt2st[cpu]'"),
        ("from mt2st.index import create_index; create_index('faiss_gpu:Flat')", "pip install 'mt2st[gpu]'"),
        (
            "from mt2st.encoders.denoiser import Denoiser, DenoiserConfig; Denoiser(DenoiserConfig(classes=2))",
            "pip install 'mt2st[diffusion]'",
        ),
        (
            "from torch import nn; from mt2st.encoders.fine_tuning import Part, fine_tune; "
            "fine_tune({'text': Part(nn.Sequential(nn.Sequential(nn.Linear(2, 2))), True)}, lora_rank=1)",
            "pip install 'mt2st[lora]'",
        ),
        ("from mt2st.balancing import UPGrad; UPGrad(('main', 'one'))", "pip install 'mt2st[peers]'"),
        ("from mt2st.balancing import PCD; PCD(('main', 'one'))", "pip install 'mt2st[peers]'"),
        ("from mt2st.training.guards import check_trackers; check_trackers(['wandb'], None)", "'mt2st[trackers]'"),
    ],
)
def test_without_an_extra_the_library_names_it(call: str, cure: str) -> None:
    assert cure in _error(listed(), call)


@pytest.mark.parametrize("name", ["easy_vqa", "openmoji", "digits", "hf:owner/name"])
def test_without_the_extra_a_dataset_names_it(name: str) -> None:
    prepare = f"from data_prep.prepare import prepare; prepare({name!r}, out='nowhere')"
    assert "pip install -e '.[data]'" in _error(listed() | {"filelock"}, prepare)
    assert not (ROOT / "nowhere").exists()


@pytest.mark.parametrize("argv", [["vqa", "--smoke"], ["report", "vqa"], ["index"]])
def test_without_the_extra_the_suite_names_it(argv: list[str]) -> None:
    code, text = _exit("benchmarks.cli", argv)
    cure = "install what the suite needs: pip install -e '.[cpu,data,benchmarks]'"
    assert code == 2
    assert re.fullmatch(rf"error: the package (rich|tyro|matplotlib) is not installed; {re.escape(cure)}\n", text)


def test_without_the_extra_data_prep_names_it() -> None:
    code, text = _exit("data_prep.__main__", ["prepare", "digits"])
    assert (code, text.count("\n")) == (1, 1)
    assert text.startswith("error: ")
    assert text.endswith("pip install -e '.[data]'\n")


def _error(names: set[str], call: str) -> str:
    """The one line of an `Mt2stError` that `call` raises."""
    code = f"""
    from mt2st.errors import Mt2stError
    try:
        {call}
    except Mt2stError as error:
        print(error)
    """
    line = run_with(names, code)
    assert line.count("\n") == 1, line
    return line


def _exit(module: str, argv: list[str]) -> tuple[int, str]:
    """Exit code and standard error of a command line without the extras; filelock comes along with torch."""
    code = f"""
    import contextlib, io
    from {module} import main
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream):
        code = main({argv!r})
    print(json.dumps([code, stream.getvalue()]))
    """
    found: Any = json.loads(run_with(listed(), code))
    return found[0], found[1]

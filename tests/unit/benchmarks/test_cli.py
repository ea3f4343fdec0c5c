"""The command line, driven with a made-up case: dispatch, help, short errors, exit codes, speed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cases as cases_package
from benchmarks.cases import case_names, load_card
from benchmarks.cli import main
from benchmarks.commands import command_names
from benchmarks.commands._case import parse_knobs
from mt2st.errors import Mt2stError
from tests.helpers.synthetic_runs import write_run, write_suite
from tests.unit.benchmarks.test_strategies import COSINE

ROOT = Path(__file__).parents[3]
CASE = '''"""A made-up case: nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.cases.shared.suite_knobs import SuiteKnobs
from benchmarks.report.spec import Metric, ReportSpec
from mt2st.errors import check_range

SPEC = ReportSpec("Demo", Metric("accuracy", "accuracy", arrays=("score",), scale=100, unit="%"))


@dataclass(frozen=True)
class Knobs(SuiteKnobs):
    """Knobs of the made-up case."""

    steps: int = 800
    """optimiser steps"""
    rate: float = 0.5
    """share of tokens masked; 0 = none, 1 = all"""
    act: str = "print"
    """what run() does"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("rate", self.rate, 0, 1, "it is a share")


RECIPES = {"default": Knobs(), "wide": Knobs(steps=99)}


def smoke(knobs: Knobs) -> Knobs:
    return replace(knobs, steps=3)
'''


def run_case(card: Any, knobs: Any, recipe: str, results: Path) -> int:
    """In place of the real one, which trains."""
    print(f"ran {recipe} {knobs.steps} {knobs.rate} {results} threads {knobs.threads}")
    if knobs.act == "bad":
        raise Mt2stError("the data are torn;\nmend them")
    if knobs.act == "stop":
        raise KeyboardInterrupt("interrupted after step 3 of 9")
    if knobs.act == "full":
        raise OSError(28, "No space left on device", "results/x")
    return 1 if knobs.act == "hole" else 0


def write_case(package: Path, name: str, text: str) -> None:
    """A case's folder with its knobs.py."""
    (package / name).mkdir(exist_ok=True)
    (package / name / "knobs.py").write_text(text)


@pytest.fixture
def cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of made-up cases in place of benchmarks/cases."""
    name = f"made_up_recipes_{os.getpid()}"
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").write_text("")
    write_case(package, "demo", CASE)
    write_case(package, "two_words", CASE.replace("A made-up case", "A second case"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cases_package, "CASES_FOLDER", package)
    monkeypatch.setattr(cases_package, "PACKAGE", name)
    # The made-up case has the name of a command; here it is the case that is meant.
    commands = [command for command in command_names() if command != "demo"]
    monkeypatch.setattr("benchmarks.cli.command_names", lambda: commands)
    monkeypatch.setattr("benchmarks.commands._case.run_case", run_case)
    monkeypatch.setattr("benchmarks.suite.runner.resume_run", lambda run_dir: print(f"resumed {run_dir.name}") or 0)
    yield package
    for module in [module for module in sys.modules if module.startswith(name)]:
        del sys.modules[module]


def test_a_case_runs_with_its_knobs_and_recipe(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    assert main(["demo", "--recipe", "wide", "--rate", "0.25", "--results", "elsewhere"]) == 0
    assert main(["demo", "--recipe", "wide", "--smoke"]) == 0
    assert main(["demo", "--smoke", "--steps", "7"]) == 0
    assert main(["two-words", "--steps", "1"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ran default 800 0.5 results threads 1",
        "ran wide 99 0.25 elsewhere threads 1",
        "ran wide-smoke 3 0.5 results threads 1",
        "ran default-smoke 7 0.5 results threads 1",
        "ran default 1 0.5 results threads 1",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["demo", "--act", "bad"], 2, "error: the data are torn; mend them"),
        (["demo", "--act", "full"], 2, "error: No space left on device: results/x"),
        (["demo", "--act", "hole"], 1, ""),
        (["demo", "--act", "stop"], 130, "interrupted after step 3 of 9; the same command goes on"),
        (["dmeo"], 2, "did you mean 'demo'"),
        (["reprot"], 2, "did you mean 'report'"),
        (["demo", "--recipe", "wid"], 2, "did you mean 'wide'"),
        (["demo", "--recipe"], 2, "expected one argument"),
        (["demo", "--rate", "2"], 2, "rate = 2.0 is outside [0, 1]; it is a share"),
        (["demo", "--rtae", "0.5"], 2, "--rate FLOAT"),
        (["demo", "--steps", "many"], 2, "many"),
        (["report", "dmeo"], 2, "did you mean 'demo'"),
        (["report"], 2, "required: case; see python -m benchmarks report --help"),
        (["report", "demo", "--results", "nowhere"], 2, "nowhere does not exist"),
        (["resume", "nowhere"], 2, "nowhere is no folder"),
        (["all", "--cases", "dmeo"], 2, "did you mean 'demo'"),
        (["peers", "nobody"], 2, "unknown peer comparison 'nobody'"),
    ],
)
def test_short_errors_and_exit_codes(
    cases: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == bool(message), "one line"
    assert "Traceback" not in error


def test_help_lists_every_knob_with_meaning_and_default(
    cases: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    for arguments, steps in ((["--help"], "800"), (["--recipe", "wide", "-h"], "99"), (["--smoke", "-h"], "3")):
        with pytest.raises(SystemExit) as stop:
            main(["demo", *arguments])
        assert stop.value.code == 0
        text = " ".join(capsys.readouterr().out.split())
        assert f"optimiser steps (default: {steps})" in text
        for part in ("A made-up case", "0 = none, 1 = all", "--results PATH", "130", "--smoke"):
            assert part in text


def test_overview_and_list_name_cases_commands_and_exit_codes(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for part in (
        "demo             A made-up case: nothing is trained.",
        "two-words        A second case",
        "exit codes: 0",
    ):
        assert part in out
    assert main(["list"]) == 0
    assert "recipes: default, wide" in capsys.readouterr().out
    write_case(cases, "broken", "def (")
    assert main(["--help"]) == 0
    assert "cannot be read" in capsys.readouterr().out


def test_a_case_that_lacks_something_is_told_what(cases: Path) -> None:
    write_case(cases, "empty", '"""Nothing."""\n')
    with pytest.raises(Mt2stError, match="lacks Knobs, SPEC"):
        load_card("empty")
    write_case(cases, "odd", "Knobs, SPEC = int, 3\n")
    with pytest.raises(Mt2stError, match="must be a dataclass"):
        load_card("odd")
    write_case(cases, "no_smoke", CASE.replace("def smoke", "def unsmoke"))
    with pytest.raises(Mt2stError, match="no smoke form"):
        load_card("no-smoke").knobs("default", smoke=True)


def test_strategies_are_options(cases: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    fade = tmp_path / "my_fade.py"
    fade.write_text(COSINE)
    card = load_card("demo")
    knobs = card.knobs("default")

    def parsed(*words: str) -> Any:
        return parse_knobs(knobs, list(words), prog="demo", description="")

    assert parsed() == knobs
    assert parsed("--switch.at", "0.6").strategy("Switch").at == 0.6
    words = ("--auxiliaries", "a", "b", "--switch.at", "a=0.7", "b=0.3", "--mtl.weight", "0.5")
    assert parsed(*words).strategy("Switch").at == {"a": 0.7, "b": 0.3}
    assert parsed(*words).strategy("MTL").weight == 0.5
    words = ("--mtl.learning-rate", "0.005", "--thinned.share", "0.3", "--late.learning-rate", "2e-3")
    assert parsed(*words).strategy("Switch").learning_rate == 0.005, "nobody tuned it, so it follows MTL"
    assert parsed(*words).strategy("Thinned").learning_rate == 0.005, "another setting of its own changes nothing there"
    assert parsed(*words).strategy("Late").learning_rate == 2e-3, "named, though it is the default that help shows"
    outside = parsed("--strategies", "STL", f"{fade}:Cosine", "--cosine.weight", "0.25")
    assert [kind.name for kind in outside.kinds()] == ["STL", "Cosine"]
    assert outside.strategy(str(fade)).weight == 0.25
    assert parsed("--weight-decay", "0.1", "--precision", "bf16").train.precision == "bf16"
    with pytest.raises(Mt2stError, match="neither one number nor AUXILIARY=NUMBER"):
        parsed("--switch.at", "a=0.7", "0.3")
    with pytest.raises(Mt2stError, match="names no value for auxiliary 'b'"):
        parsed("--auxiliaries", "a", "b", "--switch.at", "a=0.7")
    with pytest.raises(SystemExit):
        main(["demo", "--strategies", "STL", str(fade), "--help"])
    assert "--cosine.weight" in capsys.readouterr().out


def test_report_prints_the_table_and_says_holes_by_its_exit_code(cases: Path, tmp_path: Path, capsys) -> None:
    root = write_suite(tmp_path / "results", seeds=2, items=60, views=("equal-steps",))
    assert main(["report", "demo", "--results", str(root)]) == 0
    assert "Sampled" in capsys.readouterr().out
    write_run(root, "MTL", "equal-steps", 2, fail="the disk is full")
    assert main(["report", "demo", "--results", str(root), "--method", "percentile"]) == 1
    assert "the disk is full" in capsys.readouterr().out


def test_power_says_what_seeds_can_tell(cases: Path, tmp_path: Path, capsys) -> None:
    root = write_suite(tmp_path / "results", seeds=4, items=400)
    assert main(["power", "demo", "--results", str(root), "--seeds", "4", "64"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "Switch − MTL" in line)
    few, many = (float(cell) for cell in line.split()[-2:])
    assert 0 < many < few
    assert main(["power", "demo", "--results", str(root), "--seeds", "1"]) == 2
    assert "seeds = 1 must be ≥ 2" in capsys.readouterr().err


def test_resume_goes_on_with_one_run_and_skips_a_finished_one(cases: Path, tmp_path: Path, capsys) -> None:
    done = write_run(tmp_path, "STL", "equal-steps", 0)
    failed = write_run(tmp_path, "MTL", "equal-steps", 0, fail="no memory")
    assert main(["resume", str(done.path)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["resume", str(failed.path)]) == 0
    assert f"resumed {failed.name}" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["demo"], ["demo", "--recipe", "curve"], ["all", "--cases", "demo"]])
def test_every_command_that_trains_hands_its_threads_on(cases: Path, tmp_path: Path, capsys, argv: list[str]) -> None:
    main([*argv, "--threads", "3", "--results", str(tmp_path)])
    assert "threads 3" in capsys.readouterr().out


def test_all_runs_every_case_and_writes_one_table(cases: Path, tmp_path: Path, capsys) -> None:
    root = write_suite(tmp_path / "results", seeds=2, items=60)
    assert main(["all", "--results", str(root)]) == 1  # "two-words" ran but left no records, which the table says
    captured = capsys.readouterr()
    assert captured.out.count("ran default") == 2
    table = (root / "TABLE.md").read_text()
    assert "| demo | accuracy, % | full MTL |" in table  # case and metric once
    assert "|  |  | Switch |" in table
    assert "|  |  | floor: chance |" in table
    assert "two-words" in table
    assert main(["all", "--results", str(root), "--cases", "demo", "--only-table"]) == 0
    assert "ran" not in capsys.readouterr().out
    write_case(cases, "two_words", CASE.replace('act: str = "print"', 'act: str = "bad"'))
    del sys.modules[f"{cases.name}.two_words.knobs"]
    assert main(["all", "--smoke", "--results", str(root)]) == 1
    captured = capsys.readouterr()
    assert "error: two-words: the data are torn" in captured.err
    assert captured.out.count("ran default-smoke 3") == 2


def test_sigterm_ends_in_order_with_130(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from benchmarks import cli\n"
        "def wait(argv):\n"
        "    print('up', flush=True)\n"
        "    time.sleep(100)\n"
        "cli._dispatch = wait\n"
        "sys.exit(cli.main([]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "stopped by SIGTERM" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("arguments", [["--help"], ["list"], *[[name, "--help"] for name in case_names()]])
def test_help_of_the_real_cases_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from benchmarks.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = ('torch', 'numpy', 'scipy', 'matplotlib', 'transformers', 'open_clip', 'datasets')\n"
        "print('heavy:', [name for name in heavy if name in sys.modules])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.endswith("heavy: []\n")


@pytest.mark.parametrize("module", ["benchmarks.suite.worker", "benchmarks.cases.text.case", "mt2st.training.trainer"])
def test_what_builds_no_towers_does_not_wait_for_open_clip(module: str) -> None:
    """open_clip and torch's sharding take seconds to import, in every process that starts a run."""
    code = (
        f"import sys, {module}\n"
        "print([name for name in ('open_clip', 'torch.distributed.fsdp', 'sklearn') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""`python -m benchmarks CASE`: a case's knobs and its strategies' settings as options, and its suite."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import field, fields, make_dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from benchmarks.cases import Case, CaseCard, load_card
from benchmarks.cases.shared.job_knobs import JobKnobs
from benchmarks.cases.shared.suite_knobs import SuiteKnobs
from benchmarks.options import EXIT_CODES, parse_dataclass
from benchmarks.report.families import looks_until
from benchmarks.report.spec import ReportSpec
from benchmarks.report.views import MULTI_TASK
from benchmarks.strategies import Each, StrategyKind, built_in, find_strategies, find_strategy, strategy_names
from mt2st.errors import Mt2stError
from mt2st.training.config import TrainSettings

if TYPE_CHECKING:
    from rich.console import Console

    from benchmarks.report.write import Reproduce

AUTO_SEEDS = 16  # the most that `--seeds auto` makes


def run(name: str, argv: list[str]) -> int:
    """Parse a case's knobs and run its suite."""
    card = load_card(name)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--results", type=Path, default=Path("results"))
    try:
        shared, rest = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise Mt2stError(f"{error}; see python -m benchmarks {name} --help") from None
    description = (
        f"{card.about}\n\n"
        f"--recipe NAME   which recipe's defaults to start from: {', '.join(card.recipes)} (default: default)\n"
        "--smoke         the same in small, for a first look; kept under the recipe's name with -smoke\n"
        "--results PATH  folder for the runs' records (default: results)\n\n"
        f"Defaults below: recipe {shared.recipe!r}{' with --smoke' if shared.smoke else ''}.\n\n{EXIT_CODES}"
    )
    knobs = parse_knobs(
        card.knobs(shared.recipe, smoke=shared.smoke),
        rest,
        prog=f"python -m benchmarks {name}",
        description=description,
    )
    recipe = f"{shared.recipe}-smoke" if shared.smoke else shared.recipe
    from benchmarks.suite import ranks
    from benchmarks.suite.launch import launch

    knobs = replace(knobs, processes=ranks.check_processes(knobs.processes))
    if knobs.processes > ranks.world():
        return launch(knobs.processes, knobs.threads, [name, *argv])
    return run_case(card, knobs, recipe, shared.results)


def run_case(card: CaseCard, knobs: SuiteKnobs, recipe: str, results: Path, console: Console | None = None) -> int:
    """Open a case and run its suite; returns as `run_suite`."""
    from rich.console import Console

    from benchmarks.commands._reproduce import reproduce
    from benchmarks.suite import ranks
    from benchmarks.suite.runs import open_case
    from mt2st.threads import computing_threads

    console = console or Console(quiet=not ranks.is_first())
    ranks.join()
    with computing_threads(knobs.threads):
        case = open_case(card, knobs, console)
        return run_suite(
            *(case, knobs, card.spec),
            benchmark=card.name,
            recipe=recipe,
            results=results,
            console=console,
            reproduce=partial(reproduce, card, recipe),
        )


def run_suite(
    case: Case,
    knobs: SuiteKnobs,
    spec: ReportSpec,
    *,
    benchmark: str,
    recipe: str,
    results: Path,
    console: Console,
    reproduce: Reproduce | None = None,
) -> int:
    """Make the runs that are not finished yet, then write the report.

    Args:
        reproduce: what the report says of making the runs again; see `benchmarks.report.write.report`.

    Returns:
        0, or 1 if a run failed or the report has a hole (the others went on; the table shows the hole and why).

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; the runs in work were checkpointed and recorded as interrupted.
    """
    from benchmarks.report.write import report
    from benchmarks.suite import ranks
    from benchmarks.suite.runner import make_suite

    looks = looks_until(knobs.seeds) if knobs.until_decided else ()
    if looks and spec.margin is None:
        raise Mt2stError(f"{benchmark} declares no margin δ, so nothing decides; name a number of --seeds")
    for seeds in looks or (knobs.seeds,):
        made = make_suite(
            *(case, replace(knobs, seeds=seeds)),
            benchmark=benchmark,
            recipe=recipe,
            results=results,
            console=console,
            looks=looks,
        )
        decided = ranks.is_first() and bool(looks) and _decided(made.suite_hash, spec, benchmark, recipe, results)
        if ranks.from_first(decided):
            break
    holes = False
    if ranks.is_first():
        paths = report(
            *(benchmark, recipe, results),
            spec=spec,
            known=strategy_names(),
            console=console,
            suite_hash=made.suite_hash,
            reproduce=reproduce,
        )
        holes = bool(paths.holes)
    code = int(ranks.from_first(made.failed > 0 or holes))
    ranks.leave()
    return code


def _decided(suite_hash: str, spec: ReportSpec, benchmark: str, recipe: str, results: Path) -> bool:
    """Whether the claim is decided by the seeds so far; see `benchmarks.report.verdict`."""
    from benchmarks.records.read import load_records
    from benchmarks.report.summary import summarise

    records = load_records(results, benchmark, recipe, suite_hash=suite_hash)
    summary = summarise(records, spec, benchmark=benchmark, recipe=recipe, known=strategy_names())
    return summary.iso is not None and summary.iso.decided


def _seeds_in_words(argv: list[str]) -> list[str]:
    """`argv` with `--seeds auto` as the two knobs that it stands for."""
    meant = ["--seeds", str(AUTO_SEEDS), "--until-decided"]
    for place, word in enumerate(argv):
        if word == "--seeds=auto":
            return [*argv[:place], *meant, *argv[place + 1 :]]
        if argv[place : place + 2] == ["--seeds", "auto"]:
            return [*argv[:place], *meant, *argv[place + 2 :]]
    return argv


def parse_knobs(default: Any, argv: list[str], *, prog: str, description: str) -> Any:
    """`default` with what `argv` changes; `--help` lists every knob and every strategy's settings, and exits with 0.

    Args:
        default: knobs, of a subclass of `SuiteKnobs`.

    Raises:
        Mt2stError: an unknown option (with the nearest names) or a value out of range, in one line.
    """
    argv = _seeds_in_words(argv)
    kinds = _named_kinds(default, argv)
    kind = type(default)
    settings = {each.key: default.strategy(each.name if not each.place else each.place) for each in kinds}
    line = _command_line_type(kind, kinds, settings)
    values = {each.name: getattr(default, each.name) for each in fields(default)}
    start = line(**values, **settings)
    parsed = parse_dataclass(start, argv, prog=prog, description=description, registry=_registry())
    chosen = {each.name: getattr(parsed, each.name) for each in fields(default)}
    own = _own_settings(kinds, default, parsed, settings, argv)
    return kind(**{**chosen, "settings": own})


def _own_settings(
    kinds: tuple[StrategyKind, ...], default: SuiteKnobs, parsed: Any, shown: Mapping[str, Any], argv: list[str]
) -> tuple[Any, ...]:
    """The settings that the knobs must hold: those that were tuned, and those that the command line changes.

    A strategy that nobody has tuned takes learning rate and weight from MTL, as the command line has it. A value that
    the command line names for the strategy itself counts also where it is the one that is shown as its default.
    """
    tuned = {type(own) for own in default.settings}
    named = {word.partition("=")[0].replace("_", "-") for word in argv if word.startswith("--")}

    def changes(each: StrategyKind) -> dict[str, Any]:
        found = getattr(parsed, each.key)
        return {
            name.name: value
            for name in fields(found)
            if (value := getattr(found, name.name)) != getattr(shown[each.key], name.name)
            or f"--{each.key}.{name.name}".replace("_", "-") in named
        }

    changed = {each.key: changes(each) for each in kinds}
    multi = find_strategy(MULTI_TASK)
    reference = getattr(parsed, multi.key) if multi.kind in tuned or changed[multi.key] else None
    own = []
    for each in kinds:
        if each.kind in tuned or each == multi:
            own += [getattr(parsed, each.key)] if each.kind in tuned or changed[each.key] else []
        elif changed[each.key]:
            start: Any = each.started_from(reference)
            own.append(replace(start, **changed[each.key]))
    return tuple(own)


def _named_kinds(default: SuiteKnobs, argv: list[str]) -> tuple[StrategyKind, ...]:
    """The built-in strategies, and those of other files that `--strategies` names whole."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--strategies", nargs="*", default=list(default.strategies))
    try:
        named = find_strategies(parser.parse_known_args(argv)[0].strategies)
    except argparse.ArgumentError as error:
        raise Mt2stError(str(error)) from None
    return (*built_in(), *(kind for kind in named if kind.place and not kind.only))


def _command_line_type(kind: type[Any], kinds: tuple[StrategyKind, ...], settings: Mapping[str, Any]) -> Any:
    """The knobs as a command line shows them: a field for each strategy, training settings without a prefix."""
    import tyro

    own: list[Any] = [(each.key, each.kind, field(default=settings[each.key])) for each in kinds]
    own.append(("settings", tyro.conf.Suppress[tuple[Any, ...]], ()))
    for name, nested in (("train", TrainSettings), ("where", JobKnobs)):
        if name in {each.name for each in fields(kind)}:
            own.append((name, Annotated[nested, tyro.conf.arg(name="")], field(default_factory=nested)))
    return make_dataclass(kind.__name__, own, bases=(kind,), frozen=True)


def _registry() -> Any:
    """What tyro must know to read options of type `Each`."""
    import tyro

    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def each_auxiliary(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
        if info.type != Each:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs="*",
            metavar="VALUE|AUXILIARY=VALUE …",
            instance_from_str=each_from_words,
            is_instance=lambda value: isinstance(value, int | float | Mapping),
            str_from_instance=_words_of_each,
        )

    return registry


def each_from_words(words: list[str]) -> Each:
    """ "0.6" → 0.6 for every auxiliary; "contrastive=0.7 masked_lm=0.3" → a value for each.

    Raises:
        ValueError: neither form; tyro shows the text beside the option's name.
    """
    if len(words) == 1 and "=" not in words[0]:
        return float(words[0])
    found: dict[str, float] = {}
    for word in words:
        name, equals, number = word.partition("=")
        if not (name and equals) or name in found:
            raise ValueError(f"{' '.join(words)!r} is neither one number nor AUXILIARY=NUMBER for each, each once")
        found[name] = float(number)
    if not found:
        raise ValueError("give one number, or AUXILIARY=NUMBER for each auxiliary")
    return found


def _words_of_each(value: Each) -> list[str]:
    return [f"{name}={number:g}" for name, number in value.items()] if isinstance(value, Mapping) else [f"{value:g}"]

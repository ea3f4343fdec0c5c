"""Prepare, check and look at datasets.

    python -m data_prep list
    python -m data_prep prepare easy_vqa --image-size 32
    python -m data_prep check my/dir/pets.py
    python -m data_prep preview hf:owner/name --map image=img,caption=text

Exit codes: 0 well, 1 something is wrong (one line says what, where and how to mend it), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

# Nothing heavy is imported before a command needs it: help must come at once.

_NAME_HELP = (
    "a name from `list`; a path to an adapter (my/dir/pets.py; loading it runs it) or a module path; "
    "hf:owner/name[:configuration][@revision]; "
    "a .parquet/.jsonl/.csv/.tsv/.tar/.toml file; or a folder (ImageFolder, parquet or tar shards; write ./folder)"
)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{list,prepare,check,preview}")
    commands.add_parser("list", help="what exists: task, size, licence, what must be at hand")

    prepare = commands.add_parser("prepare", help="decode a dataset once, into a memory-mapped folder")
    _add_common(prepare)
    prepare.add_argument("--out", metavar="DIR", help="where prepared folders lie (default: data/ in the clone)")
    prepare.add_argument(
        "--image-size", type=int, default=64, metavar="PIXELS", help="side of the stored square images (default 64)"
    )
    prepare.add_argument(
        "--fit", default="squash", choices=("squash", "crop", "pad"), help="how images become square (default squash)"
    )
    prepare.add_argument(
        "--store",
        default="auto",
        choices=("auto", "pixels", "encoded"),
        help="decoded squares, or the original bytes; auto: pixels up to 64 GiB by the card's counts (default auto)",
    )
    prepare.add_argument(
        "--on-error", default="fail", choices=("fail", "skip"), help="what to do at a bad image (default fail)"
    )
    prepare.add_argument(
        "--workers", type=int, metavar="N", help="decoding processes (default: all cores once it pays; 0: none)"
    )

    check = commands.add_parser("check", help="decode and read everything, report what is wrong (exit code 1 then)")
    _add_common(check)
    check.add_argument(
        "--workers", type=int, metavar="N", help="decoding processes (default: all cores once it pays; 0: none)"
    )
    preview = commands.add_parser("preview", help="random examples as an HTML page and a PNG contact sheet")
    _add_common(preview)
    preview.add_argument("--out", metavar="DIR", default="preview", help="folder of the two files (default preview/)")
    preview.add_argument("--count", type=int, default=24, metavar="N", help="examples of each split (default 24)")
    preview.add_argument("--seed", type=int, default=0, help="which random examples (default 0)")
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help=_NAME_HELP)
    parser.add_argument("--source", metavar="DIR", help="the folder with the set's files, for adapters that need one")
    parser.add_argument(
        "--map",
        default="",
        metavar="FIELD=COLUMN,…",
        help="our fields → the set's columns: image=img,question=q,answers=a",
    )
    parser.add_argument(
        "--split", action="append", metavar="SPLIT", help="only this split (may be given again; default all)"
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="a further option of the adapter"
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="refuse images of more pixels (default 89,478,485, highest 1,000,000,000)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    arguments = build_parser().parse_args(argv)
    from mt2st.errors import Mt2stError

    commands = {"list": _list, "prepare": _prepare, "check": _check, "preview": _preview}
    try:
        return commands[arguments.command](arguments)
    except Mt2stError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"error: the package {error.name} is not installed; pip install -e '.[data]'", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; `prepare` continues from here when run again", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `… list | head`
        sys.stderr.close()
        return 1
    except OSError as error:
        place = error.filename or "no file named"
        print(f"error: {error.strerror or error}: {place}; check space, permissions and the path", file=sys.stderr)
        return 1


def _list(arguments: argparse.Namespace) -> int:
    from data_prep.find import adapter_names, find_adapter
    from mt2st.errors import Mt2stError

    broken = 0
    print(f"{'name':<20} {'task':<20} {'examples':<42} {'licence':<18} needs")
    for name in adapter_names():
        try:
            card = find_adapter(name).CARD
        except Mt2stError as error:  # an installed package is broken; the others are listed all the same
            print(f"error: {error}", file=sys.stderr)
            broken = 1
            continue
        sizes = ", ".join(f"{split} {count:,}" if count is not None else split for split, count in card.splits.items())
        print(f"{name:<20} {card.task:<20} {sizes:<42} {card.licence:<18} {card.requires or 'nothing'}")
    return broken


def _prepare(arguments: argparse.Namespace) -> int:
    from data_prep.prepare import DEFAULT_OUT, Progress, prepare

    shown = ProgressLine() if sys.stderr.isatty() else None

    def progress(state: Progress) -> None:
        if shown:
            shown.show(state)

    limit = {"max_pixels": arguments.max_pixels} if arguments.max_pixels is not None else {}
    folder = prepare(
        arguments.name,
        out=arguments.out or DEFAULT_OUT,
        image_size=arguments.image_size,
        source=arguments.source,
        mapping=_mapping(arguments),
        splits=arguments.split,
        options=_options(arguments),
        store=arguments.store,
        fit=arguments.fit,
        on_error=arguments.on_error,
        workers=arguments.workers,
        progress=progress,
        **limit,
    )
    if shown:
        shown.clear()
    from mt2st.data.splits import PreparedDataset

    for split, counts in PreparedDataset.open(folder).manifest["counts"].items():
        skipped = f", {counts['skipped_images']:,} bad images skipped" if counts["skipped_images"] else ""
        totals = f"{counts['images']:,} images, {counts['captions']:,} captions, {counts['questions']:,} questions"
        print(f"{split}: {totals}{skipped}", file=sys.stderr)
    print(folder)
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from data_prep.check import check, check_prepared_text
    from data_prep.find import find_adapter

    if (Path(arguments.name) / "manifest.json").is_file():
        print(check_prepared_text(Path(arguments.name)))
        return 0
    limit = {"max_pixels": arguments.max_pixels} if arguments.max_pixels is not None else {}
    adapter = find_adapter(arguments.name, _mapping(arguments))
    source = Path(arguments.source) if arguments.source else None
    splits = _splits(arguments, adapter.CARD.splits)
    report = check(
        adapter, source=source, options=_options(arguments), splits=splits, workers=arguments.workers, **limit
    )
    print(report.text())
    return 1 if report.problems else 0


def _preview(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from data_prep.find import find_adapter
    from data_prep.preview import preview

    adapter = find_adapter(arguments.name, _mapping(arguments))
    source = Path(arguments.source) if arguments.source else None
    limit = {"max_pixels": arguments.max_pixels} if arguments.max_pixels is not None else {}
    written = preview(
        adapter,
        Path(arguments.out),
        source=source,
        options=_options(arguments),
        splits=_splits(arguments, adapter.CARD.splits),
        count=arguments.count,
        seed=arguments.seed,
        **limit,
    )
    for path in written:
        print(path)
    return 0


def _mapping(arguments: argparse.Namespace) -> dict[str, str]:
    from data_prep.readers.rows import parse_mapping

    return parse_mapping(arguments.map)


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    from mt2st.errors import Mt2stError

    options = {}
    for text in arguments.option:
        name, equals, value = text.partition("=")
        if not equals:
            raise Mt2stError(f"--option {text!r} is not NAME=VALUE; for example languages=all")
        options[name.strip().replace("-", "_")] = value
    return options


def _splits(arguments: argparse.Namespace, known: Any) -> tuple[str, ...] | None:
    from mt2st.errors import unknown_name

    for split in arguments.split or ():
        if split not in known:
            raise unknown_name("split", split, known)
    return tuple(arguments.split) if arguments.split else None


class ProgressLine:
    """One line on the terminal: examples done, rate, and the time left where the card declares a count."""

    def show(self, state: Any) -> None:
        """Draw the line anew; `state` is a `data_prep.prepare.Progress`."""
        rate = state.examples / state.seconds if state.seconds else 0.0
        left = (
            f", {(state.declared - state.examples) / rate:.0f} s left"
            if state.declared and rate and state.declared > state.examples
            else ""
        )
        of = f" of {state.declared:,}" if state.declared else ""
        print(
            f"\r\x1b[K{state.split}: {state.examples:,}{of} examples, {rate:,.0f}/s{left}",
            end="",
            file=sys.stderr,
            flush=True,
        )

    def clear(self) -> None:
        """Remove the line."""
        print("\r\x1b[K", end="", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

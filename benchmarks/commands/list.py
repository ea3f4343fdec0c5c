"""list: the cases with their recipes and auxiliaries, and the strategies."""

from __future__ import annotations

import inspect
import sys

from benchmarks.cases import case_names, load_card
from benchmarks.options import parser_of
from benchmarks.strategies import built_in


def main(argv: list[str]) -> int:
    """Entry point; returns 0."""
    parser_of("list", "The cases with their recipes and auxiliaries, and the strategies.").parse_args(argv)
    for name in case_names():
        card = load_card(name)
        sys.stdout.write(f"{name:16} {card.about}\n{'':16} recipes: {', '.join(card.recipes)}\n")
        if auxiliaries := card.module.Knobs.AUXILIARIES:
            sys.stdout.write(f"{'':16} auxiliaries: {', '.join(auxiliaries)}\n")
    sys.stdout.write("\nstrategies (--strategies takes these names, and classes in files such as my_fade.py:Cosine)\n")
    for kind in built_in():
        about = (inspect.getdoc(kind.kind) or "").split("\n")[0]
        sys.stdout.write(f"{kind.name:16} {about}\n{'':16} options: --{kind.key}.…\n")
    return 0

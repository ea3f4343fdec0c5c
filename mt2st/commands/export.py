"""Write a trained model for other programs: open_clip, transformers, ONNX, or mt2st.load without auxiliaries' heads.

open_clip and hf hold the towers, for runs whose towers are theirs; onnx holds the towers of any run of vqa or
retrieval. Their embeddings are those of the run. Small towers are this project's own: safetensors is their format for
more than embeddings. A model card, README.md, is written beside the weights.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a finished run")
    parser.add_argument("--format", required=True, metavar="FORMAT", help="open_clip, hf, onnx or safetensors")
    parser.add_argument("--out", required=True, metavar="DIR", type=Path, help="a new folder, or an empty one")
    parser.add_argument(
        "--push", default="", metavar="OWNER/NAME", help="upload it to this Hub repository, made private if it is new"
    )


def run(arguments: argparse.Namespace) -> int:
    """Export, and say what was written."""
    from mt2st.trained.export import export  # heavy, and needed only here
    from mt2st.trained.push import check_name, push

    if arguments.push:
        check_name(arguments.push)
    names = export(arguments.run, arguments.format, arguments.out)
    sys.stdout.write(f"{arguments.out}: {', '.join(names)}\n")
    if arguments.push:
        sys.stdout.write(f"pushed: {push(arguments.out, arguments.push)}\n")
    return 0

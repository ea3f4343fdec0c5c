"""Search a folder of pictures with a trained run: by a text, by a picture, or a list of texts by a picture.

    python -m mt2st search RUN --gallery pictures/ "a red bird" "two cats"
    python -m mt2st search RUN --gallery pictures/ --image one.png
    python -m mt2st search RUN --texts captions.txt --image one.png

The gallery is embedded once; its embeddings are kept, and what was interrupted goes on. Any backend of the index
searches them. --html writes a page with the pictures.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mt2st.commands._progress import Progress
from mt2st.data.images import picture_files
from mt2st.errors import Mt2stError
from mt2st.files import write_text

_THUMBNAIL = 160  # pixels of the longer side on the page


@dataclass(frozen=True)
class Found:
    """What one query found.

    Attributes:
        query: the text, or the picture's path.
        results: (name, cosine), best first; a name is a picture's path or a text.
    """

    query: str
    results: list[tuple[str, float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a finished run of vqa or retrieval")
    parser.add_argument("queries", metavar="TEXT", nargs="*", help="what to look for")
    parser.add_argument("--image", metavar="FILE", type=Path, action="append", default=[], help="a picture to look for")
    searched = parser.add_mutually_exclusive_group(required=True)
    searched.add_argument("--gallery", metavar="FOLDER", type=Path, help="the pictures to search, subfolders too")
    searched.add_argument("--texts", metavar="FILE", type=Path, help="the texts to search, one a line")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="results of each query (default 10)")
    parser.add_argument(
        "--index",
        default="exact",
        metavar="SPEC",
        help="what searches: exact (default), or faiss_cpu:IVF64,Flat?nprobe=8, hnswlib, usearch, …",
    )
    parser.add_argument(
        "--cache", metavar="FOLDER", type=Path, help="where embeddings are kept (default: user's cache)"
    )
    parser.add_argument("--html", metavar="FILE", type=Path, help="also write a page with the pictures")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.add_argument("--batch-size", type=int, default=256, metavar="N", help="pictures at a time (default 256)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, …; auto = a GPU where there is one (default)")


def run(arguments: argparse.Namespace) -> int:
    """Embed what is searched, then answer each query; returns 0, or 1 if pictures were left out."""
    for name in ("top", "batch_size"):
        if getattr(arguments, name) < 1:
            raise Mt2stError(f"--{name.replace('_', '-')} {getattr(arguments, name)} must be ≥ 1")
    if not arguments.queries and not arguments.image:
        raise Mt2stError('nothing to look for; give a text, such as "a red bird", or --image FILE')
    import mt2st
    from mt2st.index import create_index

    index = create_index(arguments.index)  # refused before the work, not after it
    model = mt2st.load(arguments.run, device=arguments.device)
    names, embeddings, unreadable = _searched(model, arguments)
    index.add(embeddings)
    found = []
    for kind, queries in (("text", arguments.queries), ("picture", arguments.image)):
        for query in queries:
            started = time.perf_counter()
            embedded = model.embed_texts([query]) if kind == "text" else model.embed_images([query])
            scores, ids = index.search(embedded, arguments.top)
            milliseconds = (time.perf_counter() - started) * 1000
            results = [
                (names[position], float(score))
                for position, score in zip(ids[0], scores[0], strict=True)
                if position >= 0
            ]
            found.append(Found(str(query), results))
            sys.stderr.write(f"{query}: {len(names):,} searched in {milliseconds:.1f} ms\n")
    _print(found, as_json=arguments.json)
    if arguments.html:
        write_text(arguments.html, page(found, pictures=arguments.gallery is not None))
        sys.stderr.write(f"page: {arguments.html}\n")
    for name, why in unreadable.items():
        sys.stderr.write(f"left out: {name}: {why}\n")
    return int(bool(unreadable))


def cache_folder(given: Path | None) -> Path:
    """Where embeddings are kept: as given, else in the user's cache folder ($XDG_CACHE_HOME, or ~/.cache)."""
    if given is not None:
        return given
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mt2st" / "galleries"


def _searched(model: Any, arguments: argparse.Namespace) -> tuple[list[str], Any, dict[str, str]]:
    """Names, embeddings [N, D], and what could not be read."""
    if arguments.texts is not None:
        try:
            lines = arguments.texts.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise Mt2stError(f"{arguments.texts} is not UTF-8 text ({error.reason} at byte {error.start})") from None
        texts = [line.strip() for line in lines if line.strip()]
        if not texts:
            raise Mt2stError(f"{arguments.texts} holds no texts; write one a line")
        return texts, model.embed_texts(texts, batch_size=arguments.batch_size), {}
    from mt2st.trained.gallery import embed_gallery

    total = len(picture_files(arguments.gallery))
    with Progress(total, "pictures") as progress:
        gallery = embed_gallery(
            model,
            arguments.gallery,
            cache_folder(arguments.cache),
            batch_size=arguments.batch_size,
            on_pictures=progress.add,
        )
    sys.stderr.write(f"{gallery.embedded:,} embedded now, {total - gallery.embedded:,} kept from before\n")
    names = [str(arguments.gallery / name) for name in gallery.names]
    return names, gallery.embeddings, dict(gallery.unreadable)


def _print(found: Sequence[Found], *, as_json: bool) -> None:
    for query in found:
        if as_json:
            results = [{"name": name, "score": round(score, 6)} for name, score in query.results]
            sys.stdout.write(json.dumps({"query": query.query, "results": results}, ensure_ascii=False) + "\n")
            continue
        sys.stdout.write(f"{query.query}\n")
        for rank, (name, score) in enumerate(query.results, start=1):
            sys.stdout.write(f"{rank:4}  {score:+.4f}  {name}\n")


def page(found: Sequence[Found], *, pictures: bool) -> str:
    """One self-contained page: each query with its results; pictures are small copies inside it."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<title>mt2st search</title><style>"
        ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:80rem;"
        "padding:0 1rem}ol{display:flex;flex-wrap:wrap;gap:1rem;padding:0;list-style:none}"
        "li{width:10rem;overflow-wrap:anywhere;font-size:.8rem}img{max-width:100%;background:#fff}</style>"
    ]
    for query in found:
        parts.append(f"<h2>{html.escape(query.query)}</h2><ol>")
        for name, score in query.results:
            shown = f"<img src='{_thumbnail(Path(name))}' alt='{html.escape(name, quote=True)}'>" if pictures else ""
            parts.append(f"<li>{shown}<div>{html.escape(Path(name).name if pictures else name)}</div>{score:+.4f}</li>")
        parts.append("</ol>")
    return "\n".join(parts) + "\n"


def _thumbnail(path: Path) -> str:
    from mt2st.data.images import load_rgb

    picture = load_rgb(path)
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"

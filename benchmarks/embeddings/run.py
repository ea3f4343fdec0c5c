"""`python -m benchmarks embed RUN --out FOLDER`: a whole set through a trained encoder, in several processes.

    python -m benchmarks embed results/retrieval/default/RUN_ID --out vectors/openmoji --evaluate
    python -m benchmarks embed RUN --data hf:someone/pets --map image=img,caption=text --out vectors/pets --jobs 8

The bits are the same for any number of jobs. What was interrupted goes on by the same command.
"""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.cases.shared.data import prepared
from benchmarks.embeddings.evaluation import evaluate
from benchmarks.embeddings.folder import (
    LOCK,
    MANIFEST,
    UNFINISHED,
    Embeddings,
    Unfinished,
    is_embeddings,
    open_embeddings,
    tidy,
)
from benchmarks.embeddings.options import Options
from benchmarks.embeddings.progress import ShardProgress
from benchmarks.embeddings.shards import (
    ALL,
    MAIN,
    SHARD_ROWS,
    Contents,
    Shard,
    Source,
    embed_shard,
    longest_text,
    opened,
    shards_of,
)
from benchmarks.embeddings.trained import TrainedRun, trained_run
from benchmarks.records.lock import RunLock
from benchmarks.records.machine import environment
from benchmarks.suite.engines import needs_of, slots_here
from benchmarks.suite.machine import gpu_count, usable_cores
from mt2st.data.prepared import PreparedDataset
from mt2st.errors import Mt2stError, unknown_name
from mt2st.files import read_sealed_json, write_sealed_json
from mt2st.processes import side_by_side
from mt2st.threads import computing_threads

_PLAN = "plan.json"
_PLAN_CURE = "delete the folder and embed the set again"
_MOST_JOBS_PER_CORE = 4
_WORTH_SECONDS = 30.0  # of work for one process: below that, others would end later than this one
_IDS_AT_ONCE = 65536
_CAPTIONS = ("auto", MAIN, ALL)
_MAIN_CAPTION = "main-caption"  # a card's protocol: each image's first caption is its name


def run(options: Options) -> int:
    """Embed, publish, and measure if asked to; returns 0.

    Raises:
        Mt2stError: run, data or folder cannot be used; nothing was computed then.
    """
    console = Console()
    most = _MOST_JOBS_PER_CORE * max(usable_cores(), gpu_count())
    if not 0 <= options.jobs <= most:
        raise Mt2stError(
            f"--jobs {options.jobs} is outside 0 … {most} for {usable_cores()} cores and {gpu_count()} GPUs; "
            "0 = as many as this machine carries"
        )
    if options.captions not in _CAPTIONS:
        raise unknown_name("--captions", options.captions, _CAPTIONS)
    _refuse_foreign(options.out)
    trained = trained_run(options.run_dir)
    dataset = _data(options, trained, console)
    source = _source(options, trained, dataset)
    identity = _identity(trained, dataset, source)
    with RunLock(options.out / LOCK):
        if (options.out / MANIFEST).is_file():
            whole = open_embeddings(options.out)
            _refuse_other(options.out, whole.manifest, identity)
            tidy(options.out)
            console.print(f"{options.out} holds these embeddings already; nothing to compute", highlight=False)
        else:
            whole = _embed(options, source, identity, console)
        if options.evaluate:
            evaluate(whole, options.jobs or 1, console)
    return 0


def _data(options: Options, trained: TrainedRun, console: Console) -> PreparedDataset:
    """The set, prepared at the run's image size."""
    knobs = trained.knobs
    if options.data:
        knobs = replace(knobs, data=options.data, source=options.source, map=options.map, options=options.options)
    elif options.source or options.map or options.options:
        raise Mt2stError("--source, --map and --options belong to --data; give --data as well, or leave them out")
    knobs = replace(knobs, data_folder=options.data_folder or knobs.data_folder)
    # The retrieval case prepares OpenMoji with its own knob for languages.
    languages = {"languages": knobs.languages} if knobs.data == "openmoji" and hasattr(knobs, "languages") else None
    return prepared(knobs, knobs.image_size, options=languages, console=console)


def _source(options: Options, trained: TrainedRun, dataset: PreparedDataset) -> Source:
    dataset.split(options.split)  # an unknown one is refused before anything is computed
    captions = options.captions
    if captions == "auto":
        captions = MAIN if dataset.card.protocol == _MAIN_CAPTION else ALL
    return Source(
        run_dir=trained.path.resolve(),
        data=dataset.folder.resolve(),
        content_hash=dataset.content_hash,
        split=options.split,
        captions=captions,
        threads=trained.knobs.threads,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )


def _identity(trained: TrainedRun, dataset: PreparedDataset, source: Source) -> dict[str, dict[str, Any]]:
    """What decides the bits."""
    return {
        "run": trained.facts,
        "checkpoint": {"step": trained.step, "sha256": trained.weights_hash},
        "data": {
            "name": dataset.card.name,
            "revision": dataset.card.revision,
            "content_hash": dataset.content_hash,
            "split": source.split,
            "captions": source.captions,
        },
        "computed": {
            "device": source.device,
            "threads": source.threads,
            "shard_rows": SHARD_ROWS,
            "torch": torch.__version__,
        },
    }


def _refuse_foreign(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise Mt2stError(f"{out} is a file; give a new folder with --out")
    if out.is_dir() and not is_embeddings(out) and any(path.name not in _OWN for path in out.iterdir()):
        raise Mt2stError(f"{out} is not empty and holds no embeddings of ours; give a new folder with --out")


_OWN = (LOCK, LOCK + ".owner")


def _refuse_other(out: Path, found: dict[str, Any], identity: dict[str, dict[str, Any]]) -> None:
    """Raise if `found`, a manifest or plan, is of another run, other data, or was computed in another way."""
    for part, wanted in identity.items():
        for name, value in wanted.items():
            if (other := found.get(part, {}).get(name)) != value:
                raise Mt2stError(
                    f"{out} holds other embeddings ({part} {name} = {str(other)[:80]!r}, not {str(value)[:80]!r}); "
                    "give a new folder with --out, or delete this one"
                )


def _embed(options: Options, source: Source, identity: dict[str, dict[str, Any]], console: Console) -> Embeddings:
    """Make what is not made yet, and publish all."""
    began = time.monotonic()
    contents = Contents(source)
    if not len(contents.captions):
        raise Mt2stError(
            f"split {source.split!r} of {source.data} has no captions of pictures; give a --split or --map with some"
        )
    plan = _plan(options.out, source, identity, contents)
    rows = {"images": contents.split.num_images, "texts": len(contents.captions)}
    out = Unfinished(options.out.resolve(), rows, plan["width"])
    out.begin()
    shards = shards_of(source, plan["tokens"], out)
    todo = [shard for shard in shards if not out.holds(shard.kind, shard.start, shard.stop)]
    there = len(shards) - len(todo)
    console.print(
        f"{rows['images']:,} images and {rows['texts']:,} texts of {source.split!r} with {identity['run']['run_id']}"
        + (f"; {there} of {len(shards)} shards are there already" if there else ""),
        markup=False,
        highlight=False,
    )
    _make(todo, options.jobs, source.threads, console)
    _write_owners(out.work, contents)
    whole = out.finish(
        {
            **identity,
            "items_without_picture": contents.left_out,
            "tokens": plan["tokens"],
            "environment": environment(),
        }
    )
    size = sum(facts["bytes"] for facts in whole.manifest["files"].values()) / 1e6
    console.print(f"{options.out}: {size:,.1f} MB in {time.monotonic() - began:.1f} s", markup=False, highlight=False)
    return whole


def _plan(out: Path, source: Source, identity: dict[str, dict[str, Any]], contents: Contents) -> dict[str, Any]:
    """Width of the embeddings and tokens of a text: from the plan that began this folder, or found now and kept."""
    path = out / UNFINISHED / _PLAN
    if path.is_file():
        found = read_sealed_json(path, _PLAN_CURE)
        _refuse_other(out, found, identity)
        return found
    with computing_threads(source.threads):
        encoder, _ = opened(source)
        plan = {**identity, "width": encoder.towers.embedding_width, "tokens": longest_text(encoder, contents)}
    opened.cache_clear()
    write_sealed_json(path, plan)
    return plan


def _make(todo: list[Shard], jobs: int, threads: int, console: Console) -> None:
    """Make shards, so many at a time.

    With `jobs` 0 this process makes the first one, and others join only if that tells of work worth their start.
    """
    with ShardProgress(todo, max(1, min(jobs, len(todo))), console) as progress:
        try:
            if not jobs and todo:
                progress.done(todo[0], embed_shard(todo[0]))
                todo = todo[1:]
                worth = progress.seconds_left() > _WORTH_SECONDS
                jobs = slots_here(needs_of(threads, 1), 1, max(1, len(todo))) if worth else 1
                progress.jobs = jobs
            if jobs > 1:
                opened.cache_clear()
            with closing(side_by_side(embed_shard, todo, max(1, jobs), threads)) as made:
                for shard, seconds in made:
                    progress.done(shard, seconds)
        finally:
            opened.cache_clear()


def _write_owners(folder: Path, contents: Contents) -> None:
    """The image of each text, and the id of each image."""
    np.save(folder / "text_image.npy", contents.text_image)
    with (folder / "image_ids.jsonl").open("w", encoding="utf-8") as stream:
        for start in range(0, contents.split.num_images, _IDS_AT_ONCE):
            some = np.arange(start, min(start + _IDS_AT_ONCE, contents.split.num_images))
            stream.writelines(json.dumps(each, ensure_ascii=False) + "\n" for each in contents.split.image_ids(some))

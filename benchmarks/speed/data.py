"""`python -m benchmarks data`: preparing and reading data against the machine's limits, all in one run.

Three promises are measured:
  prepare   ≥ 80 % of the machine's decode limit with 2 processes. The limit is a bare loop in 2 processes that reads,
            decodes and resizes the same files and keeps nothing; both are timed in turn, process start included.
  reading   batches from the store at ≥ 10 × what the default recipe's trainer consumes, and ≥ 5 × a
            `torch.utils.data.DataLoader` (2 workers, warmed up) over the same image files.
  memory    the peak of preparing 100 times as many images is that of a hundredth, up to fixed caches (≤ 64 MB more).
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mt2st.errors import Mt2stError, check_range

_CHUNK = 32
_MEMORY_LIMIT_MB = 64


@dataclass(frozen=True)
class Options:
    """Measure preparing and reading of data."""

    images: int = 1500
    """drawn photos (640×480 JPEG) for the decoding rounds"""
    image_size: int = 224
    """side of the prepared images, in pixels"""
    rounds: int = 3
    """pairs of rounds, bare loop and prepare in turn"""
    workers: int = 2
    """decoding processes of both"""
    batch_size: int = 64
    """images a batch when reading"""
    memory_images: int = 100_000
    """images of the larger memory measurement; the smaller has a hundredth"""
    results: Path = Path("results")
    """where the record is written"""


def main(argv: list[str]) -> int:
    """Entry point; returns 0 if all promises hold, else 1."""
    from benchmarks.options import parse_dataclass

    return measure(parse_dataclass(Options(), argv, prog="python -m benchmarks data", description=str(Options.__doc__)))


def measure(options: Options) -> int:
    """Measure, print and write the record."""
    from rich.console import Console

    from benchmarks.records.machine import environment
    from mt2st.files import write_sealed_json

    check_range("images", options.images, 100, 10**7, "a shorter run measures the start of processes")
    check_range("memory_images", options.memory_images, 1000, 10**8)
    console = Console()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with console.status("drawing photos"):
            draw_photos(folder / "photos", options.images)
        with console.status("decoding"):
            decoding = measure_decoding(folder, options)
        with console.status("reading"):
            reading = measure_reading(folder, options, console)
        with console.status("memory"):
            memory = measure_memory(folder, options.memory_images)
    share, trainer, loader = decoding["share_of_limit"], reading["ratio_to_trainer"], reading["ratio_to_data_loader"]
    grown = memory["peak_mb"][1] - memory["peak_mb"][0]
    lines = [
        f"prepare: {decoding['prepare_images_per_second']:.0f} images/s = {share:.0%} of the bare decode loop's "
        f"{decoding['bare_images_per_second']:.0f} ({options.workers} processes, median of {options.rounds} pairs); "
        "promised ≥ "
        f"80 %",
        f"reading: {reading['store_images_per_second']:,.0f} images/s = {trainer:.0f} × the trainer's "
        f"{reading['trainer_images_per_second']:,.0f}"
        f" (promised ≥ 10) and {loader:.0f} × a DataLoader's {reading['data_loader_images_per_second']:,.0f} (promised "
        "≥ 5)",
        f"memory: peak {memory['peak_mb'][0]:.0f} MB for {memory['images'][0]:,} images, {memory['peak_mb'][1]:.0f} MB "
        "for "
        f"{memory['images'][1]:,}; promised ≤ {_MEMORY_LIMIT_MB} MB more",
    ]
    path = options.results / "data" / "data.json"
    knobs = {name: value for name, value in vars(options).items() if name != "results"}
    write_sealed_json(
        path, {**environment(), "options": knobs, "decoding": decoding, "reading": reading, "memory": memory}
    )
    console.print("\n".join([*lines, f"record: {path}"]), highlight=False)
    return 0 if share >= 0.8 and trainer >= 10 and loader >= 5 and grown <= _MEMORY_LIMIT_MB else 1


# -- prepare against a bare decode loop --------------------------------------------------------------------------------


def draw_photos(folder: Path, count: int) -> None:
    """`count` JPEG files of 640×480 that compress like photos: smooth noise with edges. A few pictures, shifted."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    smooth = Image.fromarray(random.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize(
        (640, 480), Image.Resampling.BICUBIC
    )
    fine = random.integers(-12, 13, (480, 640, 3))
    pixels = np.clip(np.asarray(smooth, dtype=np.int64) + fine, 0, 255).astype(np.uint8)
    for number in range(count):
        Image.fromarray(np.roll(pixels, 7 * number, axis=1)).save(folder / f"{number:06d}.jpg", quality=90)


def bare_chunk(paths: Sequence[Path], size: int) -> int:
    """What no way around is: read, decode, resize. Returns the number of images, keeps nothing."""
    import numpy as np
    from PIL import Image

    for path in paths:
        with Image.open(path) as image:
            np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))
    return len(paths)


class Photos:
    """Adapter of a folder of drawn photos."""

    def __init__(self, folder: Path) -> None:
        from mt2st.data.card import DatasetCard

        self.folder = folder
        self.CARD = DatasetCard(
            "photos", "Drawn photos", "retrieval", "drawn here", "1", "CC0-1.0", {"train": None}, "hit_rate@1"
        )

    def examples(self, split: str) -> Iterator[Any]:
        """All photos, in order."""
        from mt2st.data.card import Example

        for path in sorted(self.folder.iterdir()):
            yield Example(image=path, image_id=path.name, captions=(f"photo {path.stem}",))


def measure_decoding(folder: Path, options: Options) -> dict[str, Any]:
    """Images a second of a bare loop and of `prepare`, in turn; the share is the median of the pairs."""
    from data_prep.prepare import prepare

    paths = sorted((folder / "photos").iterdir())
    chunks = [paths[at : at + _CHUNK] for at in range(0, len(paths), _CHUNK)]
    bare, ours = [], []
    for turn in range(options.rounds):
        started = time.perf_counter()
        with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
            done = sum(pool.starmap(bare_chunk, [(chunk, options.image_size) for chunk in chunks], chunksize=1))
        bare.append(done / (time.perf_counter() - started))
        started = time.perf_counter()
        prepare(
            Photos(folder / "photos"), out=folder / f"out{turn}", image_size=options.image_size, workers=options.workers
        )
        ours.append(len(paths) / (time.perf_counter() - started))
    shares = sorted(mine / limit for mine, limit in zip(ours, bare, strict=True))
    middle = options.rounds // 2
    return {
        "bare_images_per_second": sorted(bare)[middle],
        "prepare_images_per_second": sorted(ours)[middle],
        "share_of_limit": shares[middle],
        "shares": shares,
        "all_bare": bare,
        "all_prepare": ours,
    }


# -- reading against the trainer and a DataLoader ----------------------------------------------------------------------


class FileImages:
    """Map-style data set over image files, as one writes it without a store: decode, resize, to tensor."""

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self.paths, self.size = list(paths), size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, at: int) -> Any:
        import numpy as np
        import torch
        from PIL import Image

        with Image.open(self.paths[at]) as image:
            pixels = np.asarray(image.convert("RGB").resize((self.size, self.size), Image.Resampling.BICUBIC))
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def measure_reading(folder: Path, options: Options, console: Any) -> dict[str, Any]:
    """Images a second of the default recipe's data: from the store, by a DataLoader over its PNG files, and as training
    " "consumes them.
    """
    import numpy as np
    import torch
    from torch.utils.data import DataLoader

    from benchmarks.cases.vqa.case import VqaCase
    from benchmarks.cases.vqa.knobs import RECIPES
    from benchmarks.speed.throughput import Loop
    from data_prep.adapters import easy_vqa
    from mt2st.data.splits import PreparedDataset
    from mt2st.data.streams import pixels_tensor

    case = VqaCase(RECIPES["default"], console)
    split = PreparedDataset.open(case.train.dataset.folder).split("train")
    batch, size = options.batch_size, split.image_size
    order = np.random.default_rng(0).permutation(split.num_images)
    batches = [order[at : at + batch] for at in range(0, len(order) - batch + 1, batch)]
    for rows in batches:  # touches every page once, as the first epoch does
        pixels_tensor(split, rows)
    passes, started = 5, time.perf_counter()
    for _ in range(passes):
        for rows in batches:
            pixels_tensor(split, rows)
    store = passes * len(batches) * batch / (time.perf_counter() - started)
    files = sorted((easy_vqa.default_source() / "train" / "images").glob("*.png"))
    data: Any = FileImages(files, size)
    loader = DataLoader(
        data, batch_size=batch, shuffle=True, drop_last=True, num_workers=options.workers, persistent_workers=True
    )
    for _ in loader:  # starts the workers
        pass
    started = time.perf_counter()
    seen = sum(len(images) for images in loader)
    loaded = seen / (time.perf_counter() - started)
    loop = Loop(case)
    loop.block(5)
    blocks = sorted(loop.block(10).samples_per_second for _ in range(5))
    return {
        "image_size": size,
        "batch_size": batch,
        "store_images_per_second": store,
        "data_loader_images_per_second": loaded,
        "data_loader_workers": options.workers,
        "trainer_images_per_second": blocks[len(blocks) // 2],
        "trainer_threads": torch.get_num_threads(),
        "ratio_to_trainer": store / blocks[len(blocks) // 2],
        "ratio_to_data_loader": store / loaded,
    }


# -- memory ------------------------------------------------------------------------------------------------------------


class Many:
    """Adapter of `count` small PNG images made in memory, each with a caption and a question."""

    def __init__(self, count: int) -> None:
        from mt2st.data.card import DatasetCard

        self.count = count
        self.CARD = DatasetCard("many", "Many", "vqa", "made here", "1", "CC0-1.0", {"train": None}, "vqa_accuracy")

    def examples(self, split: str) -> Iterator[Any]:
        """The images, 64 pictures in turn."""
        import io

        from PIL import Image

        from mt2st.data.card import Answer, Example

        pictures = []
        for value in range(64):
            stream = io.BytesIO()
            Image.new("RGB", (32, 32), (4 * value, 2, 3)).save(stream, "PNG")
            pictures.append(stream.getvalue())
        for number in range(self.count):
            name = str(number)
            facts = {"question": "what is it?", "question_id": name, "answers": (Answer("x"),)}
            yield Example(image=pictures[number % 64], image_id=name, captions=(f"a caption of image {name}",), **facts)  # type: ignore[arg-type]


def measure_memory(folder: Path, images: int) -> dict[str, Any]:
    """Peak resident MB of a fresh process that prepares so many images, and a hundredth of them."""
    counts = [images // 100, images]
    peaks, seconds = [], []
    for count in counts:
        command = [
            sys.executable,
            "-m",
            "benchmarks.speed.data",
            "--memory-child",
            str(count),
            str(folder / f"memory{count}"),
        ]
        found = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=Path(__file__).resolve().parents[2]
        )
        if found.returncode:
            raise Mt2stError(
                f"the memory measurement of {count} images failed: {found.stderr.strip().splitlines()[-1:]}"
            )
        values = json.loads(found.stdout)
        peaks.append(values["peak_mb"])
        seconds.append(values["seconds"])
    return {"images": counts, "peak_mb": peaks, "seconds": seconds}


def _memory_child(count: int, out: Path) -> None:
    from benchmarks.records.machine import peak_resident_bytes
    from data_prep.prepare import prepare

    started = time.perf_counter()
    prepare(Many(count), out=out, image_size=32, workers=0)
    print(json.dumps({"peak_mb": peak_resident_bytes() / 2**20, "seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory-child"]:
        _memory_child(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.exit(main(sys.argv[1:]))

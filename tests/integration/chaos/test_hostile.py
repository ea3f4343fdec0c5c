"""A folder of hostile files, each refused or made harmless with a message that says so.

Pages are opened in a real browser.
"""

from __future__ import annotations

import io
import pickle
import shutil
import struct
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from benchmarks.records.folder import RunFolder
from benchmarks.records.read import load_records
from benchmarks.report.spec import Group, ReportSpec, accuracy
from benchmarks.report.write import report
from data_prep.preview import preview
from data_prep.readers.shards import read_shard
from data_prep.readers.tables import read_table
from data_prep.svg import draw_svg
from mt2st.data.card import Answer, DatasetCard, Example
from mt2st.data.images import decode_image
from mt2st.errors import Mt2stError
from mt2st.files import file_hash, read_sealed_json, write_sealed_json
from mt2st.training.checkpoint import load_checkpoint, save_checkpoint
from mt2st.vectors import read_vectors
from tests.helpers.synthetic_runs import write_run

SECRET = "the-secret-of-this-test"


class Bomb:
    """Unpickling this writes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.write_text, (self.mark, "executed")


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """Exists only if something executed."""
    return tmp_path / "executed"


def tar_of(path: Path, name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"x", target: str = "") -> Path:
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, target, len(content) if kind == tarfile.REGTYPE else 0
        archive.addfile(info, io.BytesIO(content))
    return path


def huge_png(path: Path, side: int = 60_000) -> Path:
    """A PNG of a few hundred bytes that claims side × side pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    return path


def torch_pickle(path: Path, mark: Path) -> Path:
    torch.save({"weights": Bomb(mark)}, path)
    return path


def raw_pickle(path: Path, mark: Path) -> Path:
    path.write_bytes(pickle.dumps(Bomb(mark)))
    return path


def object_array(path: Path, mark: Path) -> Path:
    np.save(path, np.array([Bomb(mark)], dtype=object), allow_pickle=True)
    return path


def zip_bomb(path: Path) -> Path:
    """300 MB of zeros in a few hundred kilobytes of archive."""
    with tarfile.open(path, "w:gz", compresslevel=9) as archive:
        info = tarfile.TarInfo("a.jpg")
        info.size = 300 << 20
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    return path


def shard(path: Path) -> list[Example]:
    return list(read_shard(path))


def picture(path: Path) -> np.ndarray:
    return decode_image(path, 8)


def table(path: Path) -> list[dict]:
    return list(read_table(path))


NO_SAFETENSORS = "is torn or no safetensors file|no readable"
SVG = "<svg xmlns='http://www.w3.org/2000/svg'/>"
HOSTILE: dict[str, tuple[Callable[[Path, Path], Path], Callable[[Path], object], str]] = {
    "pickle as safetensors": (lambda f, m: raw_pickle(f / "x.safetensors", m), read_vectors, NO_SAFETENSORS),
    "torch pickle as safetensors": (lambda f, m: torch_pickle(f / "x.safetensors", m), read_vectors, NO_SAFETENSORS),
    "pickle by its own name": (
        lambda f, m: raw_pickle(f / "x.pkl", m),
        read_vectors,
        "pickles such as .pt or .pkl never are",
    ),
    "array of objects": (lambda f, m: object_array(f / "x.npy", m), read_vectors, "is not a plain .npy array"),
    "tar with ../": (lambda f, m: tar_of(f / "x.tar", "../executed"), shard, "leaves the archive; refused"),
    "tar with /": (lambda f, m: tar_of(f / "x.tar", str(m)), shard, "leaves the archive; refused"),
    "tar with a link": (
        lambda f, m: tar_of(f / "x.tar", "a.jpg", tarfile.SYMTYPE, target="/etc/passwd"),
        shard,
        "is a link; shards may",
    ),
    "tar with a hard link": (
        lambda f, m: tar_of(f / "x.tar", "a.jpg", tarfile.LNKTYPE, target="/etc/passwd"),
        shard,
        "is a link; shards",
    ),
    "tar with a device": (
        lambda f, m: tar_of(f / "x.tar", "a.jpg", tarfile.CHRTYPE),
        shard,
        "is a device or other special file",
    ),
    "compression bomb": (lambda f, m: zip_bomb(f / "x.tar.gz"), shard, "above the limit of"),
    "decompression-bomb PNG": (lambda f, m: huge_png(f / "x.png"), picture, "above the limit max_pixels"),
    "script as an image": (lambda f, m: _text(f / "x.png", "<script>1</script>"), picture, "cannot be decoded"),
    "SVG as an image": (lambda f, m: _text(f / "x.png", SVG), picture, "cannot be decoded"),
    "code as a table": (lambda f, m: _text(f / "x.jsonl", "__import__('os').system('id')\n"), table, "JSON"),
}


def _text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_files_are_refused_and_nothing_executes(tmp_path: Path, mark: Path, name: str) -> None:
    make, read, message = HOSTILE[name]
    folder = tmp_path / "folder"
    folder.mkdir()
    path = make(folder, mark)
    with pytest.raises(Mt2stError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert not mark.exists()
    assert [entry.name for entry in folder.iterdir()] == [path.name]
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_a_pickle_in_a_checkpoint_that_vouches_for_it_is_not_opened(tmp_path: Path, mark: Path, name: str) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    place = save_checkpoint(tmp_path / "checkpoints", 1, model, optimizer, {})
    torch_pickle(place / name, mark)
    state = read_sealed_json(place / "state.json", "")
    write_sealed_json(place / "state.json", state | {"files": state["files"] | {name: file_hash(place / name)}})
    with pytest.raises(Mt2stError, match=name.replace(".", r"\.")):
        load_checkpoint(place, model, optimizer)
    assert not mark.exists()


def test_a_pickle_in_place_of_a_records_items_is_a_hole(tmp_path: Path, mark: Path) -> None:
    folder = RunFolder.of(tmp_path, "vqa", "default", strategy="STL", view="equal-steps", seed=0, config={})
    record = {
        "views": ["equal-steps"],
        "started_utc": "x",
        "steps": 1,
        "flops": {"total": 1},
        "metrics": {},
        "curve": [],
    }
    with folder.lock():
        folder.begin()
        folder.finish(record, {"score": np.arange(4, dtype=np.float32)})
    raw_pickle(folder.path / "items.safetensors", mark)
    (hole,) = load_records(tmp_path, "vqa", "default").holes
    assert "does not match the checksum" in hole.why
    assert not mark.exists()


SVGS = {
    "external entity": '<!DOCTYPE svg [<!ENTITY s SYSTEM "file://{secret}">]><svg xmlns="http://www.w3.org/2000/svg" '
    'width="72" height="72"><text y="40">&s;</text></svg>',
    "file as an image": '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'width="72" height="72"><image width="72" height="72" href="{picture}" xlink:href="file://{picture}"/></svg>',
    "script": '<svg xmlns="http://www.w3.org/2000/svg" width="72" height="72"><script>fetch("file://{secret}")</script></svg>',
    "billion laughs": '<!DOCTYPE svg [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;">'
    '<!ENTITY e "&d;&d;&d;&d;&d;&d;&d;&d;"><!ENTITY f "&e;&e;&e;&e;&e;&e;&e;&e;">'
    '<!ENTITY g "&f;&f;&f;&f;&f;&f;&f;&f;"><!ENTITY h "&g;&g;&g;&g;&g;&g;&g;&g;">]>'
    '<svg xmlns="http://www.w3.org/2000/svg" width="72" height="72"><text y="9">&h;&h;&h;&h;</text></svg>',
}


@pytest.mark.parametrize("name", list(SVGS))
def test_a_hostile_svg_is_refused_or_drawn_without_what_it_asks_for(tmp_path: Path, name: str) -> None:
    secret, picture = tmp_path / "secret.txt", tmp_path / "secret.png"
    secret.write_text(SECRET)
    Image.new("RGB", (72, 72), (255, 0, 0)).save(picture)
    path = tmp_path / "x.svg"
    path.write_text(SVGS[name].replace("{secret}", str(secret)).replace("{picture}", str(picture)))
    try:
        drawn = decode_image(draw_svg(path.read_bytes(), 72, str(path)), 72)
    except Mt2stError as error:
        assert "holds another image or defines entities" in str(error)  # noqa: PT017
        assert SECRET not in str(error)  # noqa: PT017
    else:
        assert (drawn == 255).all(), "nothing but the white ground may be drawn"


# -- pages in a browser ------------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NEEDS_BROWSER = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (package chromium)")
RUN = "document.documentElement.setAttribute('data-run','yes')"
TEXTS = (
    f"<script>{RUN}</script>",
    f'"><img src=x onerror="{RUN}">',
    f'\'><svg onload="{RUN}">',
    f"</title></style></p><script>{RUN}</script>",
    f"<a href=\"javascript:{RUN}\">x</a><iframe srcdoc='<script>parent.{RUN}</script>'></iframe>",
    f"<!--><script>{RUN}</script-->",
    f"]]><script>{RUN}</script>",
)


def loaded(page: Path, profile: Path) -> str:
    """The page as the browser holds it after running whatever it runs."""
    assert CHROMIUM
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={profile}", "--virtual-time-budget=2000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def report_page(folder: Path) -> Path:
    bad = " ".join(TEXTS)
    for seed in range(2):
        write_run(
            folder, "STL", "equal-steps", seed, items=10, group_names={"question_type": [*TEXTS[:3]]}, commit=bad,
            data={"name": bad, "revision": bad, "content_hash": bad}, hardware={"cpu": bad}, versions={bad: bad},
            floors={bad: {"accuracy": 0.5}},
        )  # fmt: skip
    write_run(folder, "MTL", "equal-steps", 0, items=10, fail=bad)
    spec = ReportSpec(bad, replace(accuracy(), label=bad), groups=(Group("question_type", bad),), notes=TEXTS)
    return report("demo", "default", folder, spec=spec, console=Console(file=io.StringIO())).html


def preview_page(folder: Path) -> Path:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")

    class Adapter:
        CARD = DatasetCard(
            name="bad", title=TEXTS[0], task="vqa", source=TEXTS[1], revision=TEXTS[2], licence=TEXTS[3],
            splits={"train": 1}, main_metric="vqa_accuracy", notes=TEXTS[4],
        )  # fmt: skip

        @staticmethod
        def examples(split: str):
            yield Example(
                image=stream.getvalue(), image_id=TEXTS[1], captions=TEXTS, question=TEXTS[0], question_id=TEXTS[2],
                answers=(Answer(TEXTS[3]),), question_type=TEXTS[4], label=TEXTS[5],
            )  # fmt: skip

    return preview(Adapter, folder, count=1)[0]  # type: ignore[arg-type]


@NEEDS_BROWSER
@pytest.mark.parametrize("make", [report_page, preview_page])
def test_no_script_of_the_data_runs_in_a_browser(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    page = make(tmp_path / "made")
    text = page.read_text()
    assert "data-run" in text, "the hostile texts must be on the page"
    bare = tmp_path / "bare.html"  # without the policy in the page's head escaping alone must hold
    bare.write_text(
        "".join(
            part.partition(">")[2] if number else part for number, part in enumerate(text.split("<meta http-equiv="))
        )
    )
    assert "Content-Security-Policy" not in bare.read_text()
    control = tmp_path / "control.html"
    control.write_text(f"<!doctype html><html><body>{TEXTS[0]}</body></html>")
    assert 'data-run="yes"' in loaded(control, tmp_path / "profile").partition("<body>")[0], (
        "the browser must run scripts at all"
    )
    for shown in (page, bare):
        head = loaded(shown, tmp_path / "profile").partition("<head>")[0]
        assert "<html" in head
        assert "data-run" not in head

"""`prepare`: idempotent, resumable, atomic, one at a time; and what it says to bad input."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import store
from data_prep.find import adapter_names, find_adapter
from data_prep.prepare import Progress, prepare
from data_prep.store import partial_folder
from mt2st.data.images import DEFAULT_MAX_PIXELS, HIGHEST_MAX_PIXELS, ImageError, decode_image
from mt2st.data.splits import PreparedDataset
from mt2st.errors import Mt2stError

REPOSITORY = Path(__file__).resolve().parents[3]

ADAPTER = """
from pathlib import Path
from mt2st.data.card import Answer, DatasetCard, Example

CARD = DatasetCard("pets", "Pets", "vqa", "made here", "1", "CC0-1.0", {"train": None, "test": None}, "vqa_accuracy")

def examples(split, *, source):
    for path in sorted((source / split).iterdir()):
        yield Example(image=path, image_id=path.stem, captions=(f"pet {path.stem}",), question=f"is it {path.stem}?",
                      question_id=path.stem, answers=(Answer("yes"),))
"""


def save(path: Path, value: int, side: int = 6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), value % 256, dtype=np.uint8)).save(path, "PNG")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A folder with an adapter file and a source folder of 100 training and 5 test images."""
    (tmp_path / "pets.py").write_text(ADAPTER)
    for n in range(100):
        save(tmp_path / "source" / "train" / f"p{n:03}.png", n)
    for n in range(5):
        save(tmp_path / "source" / "test" / f"t{n:03}.png", 200 + n)
    return tmp_path


def run(pets: Path, **options: object) -> Path:
    given = {"source": pets / "source", "out": pets / "out", "image_size": 4, "workers": 0, **options}
    return prepare(pets / "pets.py", **given)  # type: ignore[arg-type]


def published(pets: Path) -> list[str]:
    return (
        [path.name for path in (pets / "out").iterdir() if not path.name.startswith(".")]
        if (pets / "out").exists()
        else []
    )


def test_the_same_call_returns_the_same_folder_untouched(pets: Path) -> None:
    first = run(pets)
    before = (first / "manifest.json").stat().st_mtime_ns
    assert run(pets) == first
    assert (first / "manifest.json").stat().st_mtime_ns == before
    assert [path.name for path in (pets / "out").iterdir() if path.is_dir()] == [first.name], (
        "no partial folder is left"
    )


@pytest.mark.parametrize("change", ["size", "fit", "adapter", "source", "splits", "skip"])
def test_whatever_the_result_depends_on_changes_its_folder(pets: Path, change: str) -> None:
    first = run(pets)
    options: dict[str, object] = {}
    if change == "size":
        options["image_size"] = 5
    elif change == "fit":
        options["fit"] = "pad"
    elif change == "splits":
        options["splits"] = ["test"]
    elif change == "skip":
        options["on_error"] = "skip"
    elif change == "adapter":
        (pets / "pets.py").write_text(ADAPTER.replace("is it", "is this"))
    else:
        save(pets / "source" / "train" / "new.png", 3)
    other = run(pets, **options)
    assert other != first
    assert first.exists()
    PreparedDataset.open(first, verify="full")


def test_workers_give_the_same_bytes_as_one_process(pets: Path) -> None:
    serial, parallel = PreparedDataset.open(run(pets)), PreparedDataset.open(run(pets, out=pets / "other", workers=2))
    assert serial.manifest["files"]["images.bin"] == parallel.manifest["files"]["images.bin"]
    assert serial.content_hash == parallel.content_hash


def test_progress_and_declared_counts(pets: Path) -> None:
    seen: list[Progress] = []
    run(pets, progress=seen.append)
    assert (seen[-1].split, seen[-1].examples, seen[-1].declared) == ("test", 5, None)


def test_a_damaged_result_is_rebuilt(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(pets)
    (folder / "images.bin").write_bytes(b"short")
    assert run(pets) == folder
    PreparedDataset.open(folder, verify="full")
    assert "images.bin" in capsys.readouterr().err


# -- interruptions -----------------------------------------------------------------------------------------------------


class Stopped(BaseException):
    """Stands for a kill: nothing may catch it."""


@pytest.mark.parametrize("after", [0, 1, 32, 33, 64, 99, 103])
def test_an_interrupted_preparation_continues(pets: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    whole = PreparedDataset.open(run(pets, out=pets / "whole"))
    add_image = store.StoreWriter.add_image
    count = iter(range(10_000))

    def stopping(*arguments: object) -> int:
        if next(count) == after:
            raise Stopped
        return add_image(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(store.StoreWriter, "add_image", stopping)
    with pytest.raises(Stopped):
        run(pets)
    assert published(pets) == []
    monkeypatch.setattr(store.StoreWriter, "add_image", add_image)
    resumed = PreparedDataset.open(run(pets), verify="full")
    assert resumed.content_hash == whole.content_hash
    assert resumed.manifest["files"]["images.bin"] == whole.manifest["files"]["images.bin"]
    assert resumed.manifest["reused_images"] == after


def test_damage_in_the_partial_folder_is_decoded_again(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = PreparedDataset.open(run(pets, out=pets / "whole"))
    publish = store.StoreWriter.publish
    monkeypatch.setattr(store.StoreWriter, "publish", lambda *_: (_ for _ in ()).throw(Stopped()))
    with pytest.raises(Stopped):
        run(pets)
    monkeypatch.setattr(store.StoreWriter, "publish", publish)
    partial = next((pets / "out").glob(".*.partial"))
    content = bytearray((partial / "images.bin").read_bytes())
    content[50 * 48 + 5] ^= 1  # one bit of image 50
    (partial / "images.bin").write_bytes(content)
    resumed = PreparedDataset.open(run(pets), verify="full")
    assert resumed.content_hash == whole.content_hash
    assert resumed.manifest["reused_images"] == 50


def test_skipped_images_are_remembered_across_a_resume(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (pets / "source" / "train" / "p010.png").write_bytes(b"bad")
    whole = PreparedDataset.open(run(pets, out=pets / "whole", on_error="skip"))
    publish = store.StoreWriter.publish
    monkeypatch.setattr(store.StoreWriter, "publish", lambda *_: (_ for _ in ()).throw(Stopped()))
    with pytest.raises(Stopped):
        run(pets, on_error="skip")
    monkeypatch.setattr(store.StoreWriter, "publish", publish)
    resumed = PreparedDataset.open(run(pets, on_error="skip"), verify="full")
    assert resumed.content_hash == whole.content_hash
    assert resumed.manifest["reused_images"] == 104
    assert resumed.manifest["counts"]["train"]["skipped_images"] == 1


def test_sigkill_and_resume(pets: Path) -> None:
    program = f"""
        import sys; sys.path.insert(0, {str(REPOSITORY)!r})
        from pathlib import Path
        from data_prep import store
        from data_prep.prepare import prepare
        inner = store.StoreWriter.add_image
        def slow(*arguments):
            import time; time.sleep(0.01); print("x", flush=True); return inner(*arguments)
        store.StoreWriter.add_image = slow
        pets = Path({str(pets)!r})
        prepare(pets / "pets.py", source=pets / "source", out=pets / "out", image_size=4, workers=0)
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE)
    assert child.stdout
    for _ in range(40):
        child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert published(pets) == []
    resumed = PreparedDataset.open(run(pets), verify="full")
    assert resumed.manifest["reused_images"] >= 39


def test_a_script_without_a_main_guard_may_use_workers(pets: Path) -> None:
    """Spawned workers import their parent's main script.

    Ours must not, or they would wait for their own parent's lock.
    """
    done = subprocess.run(script(pets, workers=2), capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    PreparedDataset.open(Path(done.stdout.strip()), verify="full")


def test_a_full_disk_leaves_nothing_loadable_and_can_be_continued(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = store._write
    count = iter(range(1000))

    def full(*arguments: object) -> None:
        if next(count) == 60:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "_write", full)
    with pytest.raises(Mt2stError, match=r"No space left.*run the same command again"):
        run(pets)
    assert published(pets) == []
    monkeypatch.setattr(store, "_write", write)
    assert PreparedDataset.open(run(pets), verify="full").manifest["reused_images"] == 30


def test_a_full_disk_under_the_index_is_one_line_too(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(store.StoreWriter, "add_texts", full)
    with pytest.raises(Mt2stError, match="database or disk is full; free space"):
        run(pets)
    assert published(pets) == []


def test_an_output_folder_that_cannot_be_made_is_named(pets: Path) -> None:
    (pets / "file").write_text("x")
    with pytest.raises(Mt2stError, match=r"failed at .*file.*(Not a directory|File exists)"):
        run(pets, out=pets / "file" / "out")


def test_partial_folders_of_older_states_are_removed(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = store.StoreWriter.publish
    monkeypatch.setattr(store.StoreWriter, "publish", lambda *_: (_ for _ in ()).throw(Stopped()))
    with pytest.raises(Stopped):
        run(pets)
    monkeypatch.setattr(store.StoreWriter, "publish", publish)
    save(pets / "source" / "train" / "new.png", 3)
    folder = run(pets)
    assert [path.name for path in (pets / "out").iterdir() if path.is_dir()] == [folder.name]


def script(pets: Path, workers: int) -> list[str]:
    """A command that prepares the set in another process, from a script without a main guard, and prints the folder."""
    path = pets / "script.py"
    path.write_text(
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from pathlib import Path\nfrom data_prep.prepare import prepare\n"
        f"pets = Path({str(pets)!r})\n"
        f"print(prepare(pets / 'pets.py', source=pets / 'source', out=pets / 'out', image_size=4, workers={workers}))\n"
    )
    return [sys.executable, str(path)]


def test_two_processes_preparing_one_set_both_succeed(pets: Path) -> None:
    command = script(pets, workers=0)
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = {child.communicate(timeout=400)[0].strip() for child in children}
    assert [child.returncode for child in children] == [0, 0, 0]
    assert len(found) == 1
    PreparedDataset.open(Path(found.pop()), verify="full")


def test_the_lock_of_a_killed_owner_blocks_nobody(pets: Path) -> None:
    folder = run(pets)
    lock = folder.with_name(f".{folder.name}.lock")
    assert lock.exists(), "the file stays; the lock itself went with its owner"
    (folder / "images.arrow").unlink()
    assert run(pets) == folder


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_a_bad_image_stops_or_is_counted(pets: Path) -> None:
    (pets / "source" / "train" / "p003.png").write_bytes(b"no image")
    with pytest.raises(Mt2stError, match=r"pets/train image 'p003'.*p003\.png\) cannot be decoded.*--on-error skip"):
        run(pets)
    assert published(pets) == []
    data = PreparedDataset.open(run(pets, on_error="skip"))
    assert data.manifest["counts"]["train"] == {
        "captions": 99, "examples": 100, "images": 99, "questions": 99, "skipped_examples": 1, "skipped_images": 1,
    }  # fmt: skip
    assert "p003" not in data.split("train").image_ids()
    assert data.split("train").pixels([3])[0, 0, 0, 0] == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_all_missing_images_are_counted(pets: Path, workers: int) -> None:
    listing = (
        (pets / "pets.py")
        .read_text()
        .replace("sorted((source / split).iterdir())", "[source / f'{split}{n}.png' for n in range(70)]")
    )
    (pets / "pets.py").write_text(listing)
    with pytest.raises(Mt2stError, match=r"70 images are missing from disk \(first: .*train0\.png, .*train4\.png\)"):
        run(pets, workers=workers)
    with pytest.raises(Mt2stError, match="all 70 examples were skipped"):
        run(pets, workers=workers, on_error="skip")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_limit_on_pixels_can_be_raised(pets: Path) -> None:
    """A picture of 90 million pixels: above the default, within what the user allows."""
    before = Image.MAX_IMAGE_PIXELS
    Image.new("1", (10_000, 9_000), 1).save(pets / "source" / "train" / "large.png", compress_level=1)
    with pytest.raises(
        Mt2stError,
        match=r"large\.png\) holds 10000×9000 pixels above the limit max_pixels = 89478485; .*raise --max-pixels",
    ):
        run(pets, splits=["train"])
    with pytest.raises(Mt2stError, match="above the limit max_pixels = 89999999"):
        run(pets, splits=["train"], max_pixels=89_999_999)
    split = PreparedDataset.open(run(pets, splits=["train"], max_pixels=90_000_000)).split("train")
    assert split.pixels([split.image_ids().index("large")]).min() == 255
    assert before == Image.MAX_IMAGE_PIXELS


def test_pillows_own_limit_gives_way_to_a_raised_one_alone(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow raises above twice as many; the pictures have 36
    path = pets / "source" / "train" / "p007.png"
    with pytest.raises(ImageError, match="above the limit max_pixels = 10;"):
        decode_image(path, 4, max_pixels=DEFAULT_MAX_PIXELS)
    assert decode_image(path, 4, max_pixels=DEFAULT_MAX_PIXELS + 1)[0, 0, 0] == 7
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [40_000, 2_000_000])
def test_above_the_highest_limit_no_knob_is_offered(pets: Path, side: int) -> None:
    path = pets / "source" / "train" / "p000.png"
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(
        ">II", side, side
    )  # width and height in the PNG's header, bytes 12 to 29, then its checksum
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(Mt2stError, match=r"p000.* above the limit max_pixels = 1000000000; shrink it$"):
        run(pets, max_pixels=HIGHEST_MAX_PIXELS)


def test_a_file_that_vanishes_has_its_own_cure(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def vanished(*_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "gone.png")

    monkeypatch.setattr(store, "_write", vanished)
    with pytest.raises(
        Mt2stError, match=r"failed at gone\.png: No such file or directory; restore it, or check --source"
    ) as caught:
        run(pets)
    assert "free space" not in str(caught.value)


def yielding(pets: Path, body: str) -> None:
    (pets / "pets.py").write_text(
        ADAPTER[: ADAPTER.index("def examples")]
        + f"def examples(split):\n{textwrap.indent(textwrap.dedent(body), '    ')}"
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return iter(())", "split 'train' of 'pets' is empty"),
        ("yield 'text'", "item 0 is str, not Example"),
        (
            "yield Example(captions=('c',))\nyield {}['img']",
            r"adapter 'pets', split 'train', example 1: KeyError: 'img' \(pets\.py, line \d+\)",
        ),
        ("return None", "adapter 'pets', split 'train', example 0: TypeError: 'NoneType' object is not iterable"),
        ("yield Example(captions=('c',))\nyield Example(captions='text')", "example 1: Example.captions is a string"),
        (
            "open(split)\nyield",
            "example 0: FileNotFoundError: .*'train'.*; complete the source folder, or check --source",
        ),
        (
            "for n in (1, 2): yield Example(captions=('c',), question='q', question_id='same')",
            "question_id 'same' occurs twice",
        ),
        ("yield Example(captions=('\\ud800',))", "item-0.*cannot be stored"),
        ("yield Example(captions=('c',), extra={'x': float('nan')})", "item-0.*cannot be stored"),
        ("yield Example(captions=('c',), extra={'x': object()})", "item-0.*cannot be stored"),
        ("yield Example(image=b'x', captions=('c',))", "image_id is empty"),
        ("yield Example(captions='text')", "captions is a string"),
        ("yield Example(question='q')", "question_id is empty"),
    ],
)
def test_bad_examples_are_named(pets: Path, body: str, message: str) -> None:
    yielding(pets, body)
    with pytest.raises(Mt2stError, match=message) as caught:
        run(pets, source=None)
    assert "\n" not in str(caught.value)
    assert published(pets) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"store": "pixel"}, "did you mean 'pixels'"),
        ({"fit": "stretch"}, "unknown fit"),
        ({"on_error": "ignore"}, "unknown on_error"),
        ({"splits": ["trian"]}, "did you mean 'train'"),
        ({"splits": []}, "no split"),
        ({"image_size": 0}, "image_size = 0"),
        ({"max_pixels": 0}, "max_pixels = 0"),
        ({"max_pixels": HIGHEST_MAX_PIXELS + 1}, r"max_pixels = 1000000001 is outside .*must be shrunk before"),
        ({"max_pixels": DEFAULT_MAX_PIXELS + 1, "store": "encoded"}, "max_pixels = 89478486 .*give --store pixels"),
        ({"workers": -1}, "workers = -1"),
        ({"options": {"language": "en"}}, "unknown option"),
        ({"options": {"language": ["en"]}}, "options are texts, numbers"),
        ({"source": "nowhere"}, "does not exist"),
        ({"source": None}, "needs --source"),
        ({"mapping": {"image": "img"}}, "--map is for tables"),
    ],
)
def test_bad_arguments_are_named(pets: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(Mt2stError, match=message):
        run(pets, **options)


def test_auto_takes_pixels_unless_the_declared_count_is_too_large(pets: Path) -> None:
    (pets / "pets.py").write_text(ADAPTER.replace('"train": None', '"train": 10_000_000_000'))
    assert PreparedDataset.open(run(pets)).manifest["store"] == "encoded"
    (pets / "pets.py").write_text(ADAPTER)
    assert PreparedDataset.open(run(pets)).manifest["store"] == "pixels"


def test_pil_images_and_bytes_are_stored_like_files(pets: Path) -> None:
    body = """
        import io
        from PIL import Image
        image = Image.new("RGB", (9, 9), (1, 2, 3))
        stream = io.BytesIO()
        image.save(stream, "PNG")
        yield Example(image=image, image_id="pil", captions=("c",))
        yield Example(image=stream.getvalue(), image_id="bytes", captions=("c",))
    """
    yielding(pets, body)
    for kind in ("pixels", "encoded"):
        split = PreparedDataset.open(run(pets, source=None, store=kind, workers=2)).split("train")
        assert split.pixels([0, 1])[:, 0, 0].tolist() == [[1, 2, 3], [1, 2, 3]]
        assert len(set(split.image_hashes())) == 1


# -- finding adapters --------------------------------------------------------------------------------------------------


def test_adapters_are_found_by_stem_path_and_module(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"easy_vqa", "openmoji"} <= set(adapter_names())
    assert find_adapter("easy_vqa").CARD.title == "easy-VQA"
    assert find_adapter(pets / "pets.py").CARD.title == "Pets"
    monkeypatch.syspath_prepend(pets)
    (pets / "animals").mkdir()
    (pets / "animals" / "__init__.py").write_text("")
    (pets / "animals" / "wild.py").write_text(ADAPTER)
    assert find_adapter("animals.wild").CARD.title == "Pets"


def test_adapters_are_found_by_entry_point(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (pets / "pets_package.py").write_text(ADAPTER)
    info = pets / "pets_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pets-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mt2st.datasets]\nmy_pets = pets_package\n")
    monkeypatch.syspath_prepend(pets)
    assert "my_pets" in adapter_names()
    assert find_adapter("my_pets").CARD.title == "Pets"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("easy-vqa", "did you mean 'easy_vqa'"),
        ("no_such_package.pets", "cannot be imported"),
        ("nowhere.py", "does not exist"),
        ("broken.py", r"broken\.py cannot be imported: SyntaxError: .*line 2"),
        (
            "needy.py",
            r"ModuleNotFoundError: No module named 'no_such_package' \(needy\.py, line 2\); install the missing "
            r"package",
        ),
        (
            "failing.py",
            r"failing\.py cannot be imported: ZeroDivisionError: division by zero \(failing\.py, line 3\); mend the "
            r"adapter",
        ),
        ("failing_module.pets", r"'failing_module.pets' .*cannot be imported: NameError: name 'undefined'"),
        ("empty.py", "has no CARD"),
        ("mute.py", "has no function examples"),
    ],
)
def test_adapters_that_are_none_are_named(pets: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.chdir(pets)
    (pets / "broken.py").write_text("x = 1\ndef examples(:\n")
    (pets / "needy.py").write_text("x = 1\nimport no_such_package\n")
    (pets / "failing.py").write_text("x = 1\n\nx = 1 / 0\n")
    monkeypatch.syspath_prepend(pets)
    (pets / "failing_module").mkdir()
    (pets / "failing_module" / "pets.py").write_text("undefined\n")
    (pets / "empty.py").write_text("x = 1\n")
    (pets / "mute.py").write_text(ADAPTER[: ADAPTER.index("def examples")])
    with pytest.raises(Mt2stError, match=message):
        find_adapter(name)


def test_partial_folders_are_hidden_beside_the_result(tmp_path: Path) -> None:
    assert partial_folder(tmp_path / "pets-4px-0") == tmp_path / ".pets-4px-0.partial"


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """Peak memory of preparing 400 and 4,000 images of 300 kB each (as arrays) differs by less than 40 MB."""
    program = f"""
        import sys; sys.path.insert(0, {str(REPOSITORY)!r})
        import numpy as np
        from pathlib import Path
        from PIL import Image
        from data_prep.prepare import prepare
        from mt2st.data.card import DatasetCard, Example
        import io
        stream = io.BytesIO(); Image.new("RGB", (320, 320), (1, 2, 3)).save(stream, "PNG"); content = stream.getvalue()
        class Many:
            CARD = DatasetCard("many", "Many", "retrieval", "here", "1", "CC0-1.0", {{"train": None}}, "hit_rate@1")
            def examples(self, split):
                for n in range(int(sys.argv[1])):
                    yield Example(image=content, image_id=str(n), captions=("c" * 50,))
        prepare(Many(), out=Path(sys.argv[2]), image_size=320, workers=0)
        # Not ru_maxrss: that is inherited from the parent across exec.
        print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
    """
    peaks = []
    for count in (100, 1000):
        command = [sys.executable, "-c", textwrap.dedent(program), str(count), str(tmp_path / str(count))]
        peaks.append(int(subprocess.run(command, capture_output=True, check=True, text=True).stdout) / 1024)
    assert peaks[1] - peaks[0] < 40, peaks  # the additional pixels are 276 MB

"""The command line of `data_prep`, `check` and `preview`."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.__main__ import main
from data_prep.call import call_examples
from data_prep.check import check, difference_hash
from data_prep.find import find_adapter
from data_prep.preview import preview, sample
from mt2st.data.card import Example
from mt2st.errors import Mt2stError

REPOSITORY = Path(__file__).resolve().parents[3]

ADAPTER = """
from mt2st.data.card import Answer, DatasetCard, Example
from PIL import Image

CARD = DatasetCard("pets", "Pets <b>&", "vqa", "made here", "1", "CC0-1.0", {"train": 6, "test": 2}, "vqa_accuracy",
                   notes="<script>alert(1)</script>")

def picture(value):
    image = Image.new("RGB", (40, 40), (value, value, 30))
    image.paste((255, 0, 0), (value % 20, 5, value % 20 + 9, 25))
    return image

def examples(split):
    for n in range(6 if split == "train" else 2):
        value = n * 11 + (0 if split == "train" else 5)
        yield Example(image=picture(value), image_id=f"{split}{n}", captions=(f"<i>pet {n}</i>",), label="cat",
                      question="is it?", question_id=str(n), answers=(Answer(f"answer {n % 2}"),),
                      choices=("answer 0", "answer 1"))
"""


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    path = tmp_path / "pets.py"
    path.write_text(ADAPTER)
    return path


def test_help_comes_at_once_and_imports_nothing_heavy() -> None:
    program = (
        "import sys; from data_prep.__main__ import build_parser; build_parser().format_help(); "
        "print([name for name in ('numpy', 'torch', 'PIL', 'pyarrow', 'datasets') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = subprocess.run(
        [sys.executable, "-m", "data_prep", "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # CPU time, which a busy machine does not stretch; measured 0.05 s.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
    assert "{list,prepare,check,preview}" in shown.stdout


def test_list_names_every_adapter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert "easy_vqa" in shown
    assert "CC-BY-SA-4.0" in shown


def test_prepare_prints_the_folder(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(pets), "--out", str(pets.parent / "out"), "--image-size", "8", "--split", "test"]) == 0
    output = capsys.readouterr()
    folder = Path(output.out.strip())
    assert folder.parent == pets.parent / "out"
    assert "test: 2 images, 2 captions, 2 questions" in output.err
    assert main(["check", str(folder)]) == 0
    assert "is whole: Pets" in capsys.readouterr().out
    (folder / "images.bin").write_bytes(bytes(8 * 8 * 3 * 2))
    assert main(["check", str(folder)]) == 1
    assert "SHA-256" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "easy-vqa"], "error: unknown dataset 'easy-vqa'; did you mean 'easy_vqa'"),
        (["prepare", "easy_vqa", "--option", "x"], "is not NAME=VALUE"),
        (["prepare", "easy_vqa", "--option", "x=1"], "unknown option of dataset 'easy_vqa'"),
        (["check", "easy_vqa", "--split", "trian"], "did you mean 'train'"),
        (["preview", "easy_vqa", "--count", "0"], "count = 0"),
        (
            ["preview", "easy_vqa", "--split", "trian"],
            "unknown split 'trian'; did you mean 'train'? Known: test, train",
        ),
        (["prepare", "easy_vqa", "--max-pixels", "1000000001"], "max_pixels = 1000000001 is outside"),
        (["check", "easy_vqa", "--map", "image"], "is not FIELD=COLUMN"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.splitlines()) == 1


@pytest.mark.parametrize("command", ["prepare", "check", "preview"])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            None,
            "example 0: FileNotFoundError: .*train.txt.*pets.py, line 10.*complete the source folder, or check "
            "--source",
        ),
        ("ok\n", "example 1: IndexError: .*pets.py, line 11.*mend the adapter"),
    ],
)
def test_what_a_users_adapter_raises_is_one_line(
    pets: Path, capsys: pytest.CaptureFixture[str], command: str, line: str | None, message: str
) -> None:
    reading = """
def examples(split, *, source):
    lines = (source / f"{split}.txt").read_text().splitlines()
    yield from (Example(captions=(lines[n],)) for n in range(2))
"""
    pets.write_text(ADAPTER[: ADAPTER.index("def picture")] + reading)
    source = pets.parent / "source"
    source.mkdir()
    if line is not None:
        (source / "train.txt").write_text(line)
    out = [] if command == "check" else ["--out", str(pets.parent / "out")]
    assert main([command, str(pets), "--source", str(source), *out]) == 1
    shown = capsys.readouterr().err
    assert re.match(f"error: adapter 'pets', split 'train', {message}", shown), shown
    assert len(shown.splitlines()) == 1
    assert "free space" not in shown


def test_the_adapters_own_error_is_the_cause(pets: Path) -> None:
    pets.write_text(ADAPTER.replace("image=picture(value)", "image={}['img']"))
    with pytest.raises(Mt2stError, match="adapter 'pets', split 'test', example 0: KeyError: 'img'") as caught:
        list(call_examples(find_adapter(pets), "test", None, {}, 8))
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_error_says_where_by_its_kind_not_by_its_words(pets: Path) -> None:
    """What `Example` refuses gets a place; an adapter's own error stays as it is, whatever it begins with."""
    pets.write_text(ADAPTER.replace("captions=", "captions='one' or "))
    with pytest.raises(Mt2stError, match=r"^adapter 'pets', split 'test', example 0: Example\.captions is a string"):
        list(call_examples(find_adapter(pets), "test", None, {}, 8))
    own = "raise __import__('mt2st.errors').errors.Mt2stError('Examples are all in Latin; give a dictionary')"
    pets.write_text(ADAPTER[: ADAPTER.index("def picture")] + f"def examples(split):\n    {own}\n    yield\n")
    with pytest.raises(Mt2stError, match=r"^Examples are all in Latin"):
        list(call_examples(find_adapter(pets), "test", None, {}, 8))


def test_other_errors_are_one_line_too(
    pets: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["preview", str(pets), "--out", str(pets / "below a file")]) == 1
    assert re.match(
        r"error: Not a directory: .*pets\.py.*; check space, permissions and the path\n$", capsys.readouterr().err
    )
    pets.write_text("import no_such_package\n")
    assert main(["check", str(pets)]) == 1
    assert re.match(
        r"error: .*No module named 'no_such_package' .*install the missing package.*\n$", capsys.readouterr().err
    )
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert main(["check", "hf:owner/name"]) == 1
    assert re.match(
        r"error: Hub dataset 'owner/name' needs the package datasets .*pip install -e '\.\[data\]'\n$",
        capsys.readouterr().err,
    )


def test_a_broken_package_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    info = tmp_path / "bad_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mt2st.datasets]\na_bad_one = no_such_package.pets\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["list"]) == 1
    shown = capsys.readouterr()
    assert "easy_vqa" in shown.out
    assert "wordnet" in shown.out
    assert re.match(
        r"error: adapter 'a_bad_one' of an installed package \(no_such_package\.pets\) cannot be imported: .*\n$",
        shown.err,
    )


def test_check_of_a_good_set(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(pets)]) == 0
    shown = capsys.readouterr().out
    assert "train: 6 examples: 6 images, 6 captions, 6 questions" in shown
    assert "answers of test covered by the vocabulary of train: top 2: 100.0%" in shown
    assert shown.endswith("No problems found.\n")


def faulty(pets: Path, before: str, after: str) -> list[str]:
    assert before in ADAPTER
    pets.write_text(ADAPTER.replace(before, after))
    return check(find_adapter(pets)).problems


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ('"train": 6', '"train": 7', "train has 6 examples, the card declares 7"),
        ("+ (0 if", "* 0 + (0 if", None),
        ('split == "train" else 5)', 'split == "train" else 0)', "2 images of test are also in train (same pixels)"),
        ('f"<i>pet {n}</i>"', '"  "', "train: empty caption, 6 times (first: train image 'train0'; "),
        ('"is it?"', '" "', "empty question, 6 times"),
        ("question_id=str(n)", "question_id='1'", "duplicate question id, 5 times"),
        ("image=picture(value)", "image=b'no image'", "undecodable image, 6 times"),
        ("image=picture(value)", "image=__import__('pathlib').Path('nowhere.png')", "missing image, 6 times"),
    ],
)
def test_check_finds_what_is_wrong(pets: Path, before: str, after: str, problem: str | None) -> None:
    found = faulty(pets, before, after)
    if problem is None:
        assert found == []
    else:
        assert any(problem in text for text in found), found
        assert main(["check", str(pets)]) == 1


@pytest.mark.parametrize(
    ("before", "after", "note"),
    [
        ("(40, 40)", "(7, 40)", "image smaller than 8 pixels, 6 times"),
        ('(f"<i>pet {n}</i>",)', '("x", "x")', "caption given twice for one image, 6 times"),
        ('image_id=f"{split}{n}"', 'image_id=f"{split}"', "question asked twice on one image, 5 times"),
        ('("answer 0", "answer 1")', '("answer 7",)', "answer outside the choices, 6 times"),
        ("answers=(Answer(", "answers=() if n else (Answer(", "unlabelled 5"),
        ('f"<i>pet {n}</i>"', 'f"{split}"', "2 examples have a word that no split above has"),
    ],
)
def test_check_notes_what_is_odd(pets: Path, before: str, after: str, note: str) -> None:
    assert before in ADAPTER
    pets.write_text(ADAPTER.replace(before, after))
    assert note in check(find_adapter(pets)).text()


def test_near_duplicates_are_noted(tmp_path: Path, pets: Path) -> None:
    """A re-encoded, slightly brighter copy has other pixels but nearly the same perceptual hash."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)).resize((90, 90), Image.Resampling.BICUBIC)
    other = Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)).resize((90, 90), Image.Resampling.BICUBIC)
    copy = noise.point(lambda value: min(255, value + 3))
    distance = [bin(difference_hash(noise) ^ difference_hash(image)).count("1") for image in (copy, other)]
    assert distance[0] <= 2 < 10 < distance[1]
    for name, image in (("one", noise), ("two", copy)):
        image.save(tmp_path / f"{name}.png")
    body = f"""
def examples(split):
    from pathlib import Path
    name = "one.png" if split == "train" else "two.png"
    yield Example(image=Path({str(tmp_path)!r}) / name, image_id=split, captions=("c",))
"""
    card = ADAPTER[: ADAPTER.index("def picture")].replace('"train": 6, "test": 2', '"train": 1, "test": 1')
    pets.write_text(card + body)
    assert "1 further images of test look much like one of train" in check(find_adapter(pets)).text()


def test_preview_shows_and_escapes(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = pets.parent / "shown"
    assert main(["preview", str(pets), "--out", str(out), "--count", "3"]) == 0
    page, sheet = (Path(line) for line in capsys.readouterr().out.split())
    text = page.read_text()
    assert text.count("<img ") == 3 + 2
    assert "&lt;i&gt;pet" in text
    assert "<i>" not in text
    assert "<script" not in text
    assert "Pets &lt;b&gt;&amp;" in text
    with Image.open(sheet) as picture:
        assert picture.size[0] > 900
    pets.write_text(ADAPTER.replace("image=picture(value)", "image=b'bad'"))
    page, _ = preview(find_adapter(pets), out)
    assert "cannot be decoded" in page.read_text()


def test_preview_keeps_to_the_split_and_the_limit(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["preview", str(pets), "--out", str(pets.parent / "shown"), "--split", "test", "--max-pixels"]
    assert main([*command, "1600"]) == 0
    text = Path(capsys.readouterr().out.split()[0]).read_text()
    assert text.count("<img ") == text.count("<figure>") == 2
    assert "<h2>test</h2>" in text
    assert "<h2>train</h2>" not in text
    assert main([*command, "1599"]) == 0  # the pictures have 40 × 40 pixels
    text = Path(capsys.readouterr().out.split()[0]).read_text()
    assert text.count("40×40 pixels above the limit max_pixels = 1599") == text.count("<figure>") == 2
    assert "<img " not in text


def test_the_sample_is_random_deterministic_and_ordered() -> None:
    examples = [Example(captions=(str(n),)) for n in range(200)]
    drawn = [int(example.captions[0]) for example in sample(iter(examples), 10, seed=1)]
    assert drawn == sorted(drawn)
    assert len(set(drawn)) == 10
    assert drawn == [int(example.captions[0]) for example in sample(iter(examples), 10, seed=1)]
    assert drawn != [int(example.captions[0]) for example in sample(iter(examples), 10, seed=2)]
    counts = np.zeros(200)
    for seed in range(400):
        counts[[int(example.captions[0]) for example in sample(iter(examples), 10, seed)]] += 1
    assert 8 < counts[:50].mean() < 32, "early and late examples are drawn alike (20 expected)"
    assert abs(counts[:100].mean() - counts[100:].mean()) < 4


def test_interruption_exits_with_130(
    pets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pets.write_text(ADAPTER.replace("def examples(split):", "def examples(split):\n    raise KeyboardInterrupt"))
    assert main(["prepare", str(pets), "--out", str(pets.parent / "out")]) == 130
    assert "continues from here" in capsys.readouterr().err

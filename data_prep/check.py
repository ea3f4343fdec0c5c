"""`check`: decode and read everything an adapter yields, and say what is wrong with it.

Findings are *problems* (exit code 1: training or evaluation on this would go wrong) or *notes* (worth knowing, not
wrong as such).
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.call import adapter_source, call_examples
from data_prep.decode import ImageJob, ImagePool, ImageTask, without_svg
from mt2st.data.card import Adapter, Example
from mt2st.data.images import DEFAULT_MAX_PIXELS, ImageError, load_rgb

TINY_SIDE = 8  # pixels; below this an image holds next to nothing
SVG_SIDE = 128  # pixels of an SVG's longer side; other images are looked at in their own size
NEAR_BITS = 2  # two images whose 64-bit perceptual hashes differ in at most so many bits are near-duplicates
VOCABULARY_SIZES = (10, 100, 1000, 3129)
_MAX_COMPARISONS = 2_000_000_000
_FEW = 3
_CHUNK_IMAGES = 32


@dataclass
class SplitFindings:
    """What a pass over one split found. Texts are kept as hashes, so memory stays at some 100 bytes an item."""

    examples: int = 0
    images: dict[bytes, str] = field(default_factory=dict)  # hash of the image id → what to call it
    content: list[bytes] = field(default_factory=list)
    perceptual: list[int] = field(default_factory=list)
    captions: int = 0
    questions: int = 0
    unlabelled: int = 0
    annotators: Counter[int] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    words: set[str] = field(default_factory=set)
    new_words: int = 0  # captions and questions with a word that no earlier split has
    faults: dict[str, list[str]] = field(default_factory=dict)  # kind of fault → the first few places
    fault_counts: Counter[str] = field(default_factory=Counter)

    def fault(self, kind: str, place: str) -> None:
        """Count a fault and remember the first few places."""
        self.fault_counts[kind] += 1
        if len(places := self.faults.setdefault(kind, [])) < _FEW:
            places.append(place)


@dataclass
class Report:
    """The result of `check`."""

    lines: list[str]
    problems: list[str]

    def text(self) -> str:
        """The readable report."""
        verdict = [f"PROBLEM: {problem}" for problem in self.problems] or ["No problems found."]
        return "\n".join([*self.lines, *verdict])


# Kinds of fault that are problems; all others are notes.
_PROBLEMS = ("undecodable image", "missing image", "empty caption", "empty question", "duplicate question id")


def check(
    adapter: Adapter,
    *,
    source: Path | None = None,
    options: dict[str, Any] | None = None,
    splits: tuple[str, ...] | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    workers: int | None = None,
) -> Report:
    """Read every example of every split, decode every image, and report.

    Args:
        adapter: what to check.
        source: the folder it reads, for adapters that need one.
        options: further options of its `examples`.
        splits: which splits; None = all.
        max_pixels: images of more pixels count as undecodable.
        workers: decoding processes; None = all cores, once decoding has taken 2 seconds in this process; 0 = here only.

    Raises:
        Mt2stError: the adapter itself fails, say on an annotation file that is no JSON.
    """
    card = adapter.CARD
    folder = adapter_source(adapter, source)
    found: dict[str, SplitFindings] = {}
    known_words: set[str] = set()
    for split in splits or tuple(card.splits):
        examples = call_examples(adapter, split, folder, options or {}, 64)
        with ImagePool(partial(inspect_chunk, max_pixels=max_pixels), workers) as pool:
            found[split] = _read_split(examples, split, pool, known_words)
        known_words |= found[split].words
    lines = [f"{card.title} ({card.name}), revision {card.revision}, licence {card.licence}"]
    problems: list[str] = []
    for split, findings in found.items():
        _describe(split, findings, card.splits.get(split), lines, problems)
    _answers_coverage(found, lines)
    for one, other in combinations(found, 2):
        _compare(one, found[one], other, found[other], lines, problems)
    return Report(lines, problems)


def difference_hash(rgb: Any) -> int:
    """A 64-bit perceptual hash: is each cell of a 9 × 8 grey thumbnail darker than its right neighbour? (Krawetz'
    dHash)
    """
    grey = np.asarray(rgb.convert("L").resize((9, 8)), dtype=np.int16)
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")


@dataclass(frozen=True)
class ImageFacts:
    """What is found out about one image; `error` is set, and the rest empty, for one that cannot be decoded."""

    content: bytes = b""
    perceptual: int = 0
    tiny: bool = False
    error: str = ""
    missing: bool = False


def inspect_chunk(jobs: Sequence[ImageJob], *, max_pixels: int) -> dict[bytes, ImageFacts]:
    """Decode images at their own size and describe them."""
    found = {}
    for job in jobs:
        try:
            name = str(job.image) if isinstance(job.image, Path) else "the image"
            image = without_svg(job.image, side=SVG_SIDE, max_pixels=max_pixels, name=name)
            rgb = load_rgb(image, max_pixels=max_pixels, name=name)
        except ImageError as error:
            found[job.key] = ImageFacts(error=str(error), missing=error.missing)
            continue
        content = hashlib.sha256(repr(rgb.size).encode() + rgb.tobytes()).digest()
        found[job.key] = ImageFacts(content, difference_hash(rgb), min(rgb.size) < TINY_SIDE)
    return found


def _read_split(
    examples: Iterator[Example], split: str, pool: ImagePool[ImageFacts], known_words: set[str]
) -> SplitFindings:
    found = SplitFindings()
    seen = _Seen()
    waiting: deque[ImageTask[ImageFacts]] = deque()
    jobs: list[ImageJob] = []

    def submit(depth: int) -> None:
        if jobs:
            waiting.append(pool.submit(jobs))
            jobs.clear()
        while len(waiting) > depth:
            for facts in waiting.popleft().result().items():
                _add_image(*facts, found)

    for number, example in enumerate(examples):
        found.examples += 1
        place = f"{split} image {example.image_id!r}" if example.image_id else f"{split} example {number}"
        key = _digest(example.image_id or f"#{number}")
        if example.image is not None and key not in found.images:
            found.images[key] = place
            jobs.append(ImageJob(key, example.image, place))
            if len(jobs) == _CHUNK_IMAGES:
                submit(pool.depth)
        _read_texts(example, place, known_words, seen, found)
    submit(0)
    return found


@dataclass
class _Seen:
    captions: set[bytes] = field(default_factory=set)
    questions: set[bytes] = field(default_factory=set)
    question_ids: set[bytes] = field(default_factory=set)


def _read_texts(example: Example, place: str, known_words: set[str], seen: _Seen, found: SplitFindings) -> None:
    texts = [*example.captions, *([example.question] if example.question is not None else [])]
    words = {word for text in texts for word in text.lower().split()}
    found.new_words += bool(known_words) and bool(texts) and not words <= known_words
    found.words |= words
    for caption in example.captions:
        found.captions += 1
        if not caption.strip():
            found.fault("empty caption", place)
        if (mark := _digest(f"{example.image_id}\0{caption}")) in seen.captions and example.image is not None:
            found.fault("caption given twice for one image", place)
        seen.captions.add(mark)
    if example.label is not None:
        found.labels[example.label] += 1
    if example.question is not None:
        _read_question(example, place, seen, found)


def _add_image(key: bytes, facts: ImageFacts, found: SplitFindings) -> None:
    place = found.images[key]
    if facts.error:
        found.fault("missing image" if facts.missing else "undecodable image", f"{place}: {facts.error}")
        return
    if facts.tiny:
        found.fault(f"image smaller than {TINY_SIDE} pixels", place)
    found.content.append(facts.content)
    found.perceptual.append(facts.perceptual)


def _read_question(example: Example, place: str, seen: _Seen, found: SplitFindings) -> None:
    found.questions += 1
    question = example.question or ""
    if not question.strip():
        found.fault("empty question", place)
    identity = _digest(example.question_id)
    if identity in seen.question_ids:
        found.fault("duplicate question id", f"{place}, question {example.question_id!r}")
    seen.question_ids.add(identity)
    mark = _digest(f"{example.image_id}\0{question}")
    if mark in seen.questions:
        found.fault("question asked twice on one image", place)
    seen.questions.add(mark)
    found.unlabelled += not example.answers
    found.annotators[len(example.answers)] += 1
    found.answers.update(answer.text for answer in example.answers)
    if example.choices and example.answers and not {answer.text for answer in example.answers} & set(example.choices):
        found.fault("answer outside the choices", place)


def _describe(split: str, found: SplitFindings, declared: int | None, lines: list[str], problems: list[str]) -> None:
    parts = f"{len(found.images):,} images, {found.captions:,} captions, {found.questions:,} questions"
    lines.append(f"{split}: {found.examples:,} examples: {parts}")
    if found.questions:
        annotators = ", ".join(f"{count:,} with {number}" for number, count in sorted(found.annotators.items()))
        lines.append(f"  answers a question: {annotators}; unlabelled {found.unlabelled:,}")
    if found.labels:
        rarest = min(found.labels.items(), key=lambda item: item[1])
        lines.append(f"  {len(found.labels)} classes, the rarest {rarest[0]!r} with {rarest[1]}")
    if found.new_words:
        lines.append(f"  {found.new_words:,} examples have a word that no split above has")
    if not found.examples:
        problems.append(f"{split} is empty")
    if declared is not None and declared != found.examples:
        problems.append(f"{split} has {found.examples:,} examples, the card declares {declared:,}")
    copies = len(found.content) - len(set(found.content))
    if copies:
        lines.append(f"  note: {copies:,} images repeat another of this split (same pixels)")
    for kind, places in found.faults.items():
        text = f"{split}: {kind}, {found.fault_counts[kind]:,} times (first: {'; '.join(places)})"
        if kind in _PROBLEMS:
            problems.append(text)
        else:
            lines.append(f"  note: {text}")


def _answers_coverage(found: Mapping[str, SplitFindings], lines: list[str]) -> None:
    """How many answers of each split the k most frequent answers of the first split cover."""
    first = next(iter(found.values()))
    if not first.answers:
        return
    ranked = [answer for answer, _ in first.answers.most_common()]
    for split, findings in found.items():
        total = findings.answers.total()
        if not total:
            continue
        shares = []
        for size in VOCABULARY_SIZES:
            covered = sum(findings.answers[answer] for answer in ranked[:size])
            shares.append(f"top {min(size, len(ranked)):,}: {covered / total:.1%}")
            if size >= len(ranked):
                break
        lines.append(f"answers of {split} covered by the vocabulary of {next(iter(found))}: {', '.join(shares)}")


def _compare(
    one: str, left: SplitFindings, other: str, right: SplitFindings, lines: list[str], problems: list[str]
) -> None:
    if not left.content or not right.content:
        return
    contents = set(left.content)
    shared = sum(content in contents for content in right.content)
    if shared:
        problems.append(f"{shared:,} images of {other} are also in {one} (same pixels)")
    near = _near(left.perceptual, right.perceptual)
    if near is None:
        lines.append(f"{one} / {other}: too many images to compare perceptual hashes")
    elif near > shared:
        lines.append(
            f"{one} / {other}: note: {near - shared:,} further images of {other} look much like one of {one} "
            "(perceptual hash)"
        )


def _near(left: list[int], right: list[int]) -> int | None:
    """How many of `right` lie within `NEAR_BITS` of any of `left`; None where that is too much to compute."""
    ours = np.unique(np.array(left, dtype=np.uint64))
    theirs, counts = np.unique(np.array(right, dtype=np.uint64), return_counts=True)
    if len(ours) * len(theirs) > _MAX_COMPARISONS:
        return None
    bits = np.array([bin(value).count("1") for value in range(65536)], dtype=np.uint8)
    total = 0
    for value, count in zip(theirs, counts, strict=True):
        words = (ours ^ value).view(np.uint16).reshape(-1, 4)
        total += int(count) * bool((bits[words].sum(1) <= NEAR_BITS).any())
    return total


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=12).digest()


def check_prepared_text(folder: Path) -> str:
    """One line on a prepared folder, every file's hash checked."""
    from mt2st.data.splits import PreparedDataset

    data = PreparedDataset.open(folder, verify="full")
    counts = ", ".join(f"{name}: {data.split(name).num_images:,} images" for name in data.splits)
    return f"{folder} is whole: {data.card.title}, {data.image_size} pixels, {counts}, content {data.content_hash[:12]}"

"""WordNet 3.0: dictionary glosses, classified by lexicographer file ("supersense", 45 classes). Text only.

Reads the published database files (wndb(5WN)): data.noun, data.verb, data.adj, data.adv. A line is
    synset_offset lex_filenum ss_type w_cnt word lex_id [word lex_id …] p_cnt [pointer …] [frame …] | gloss
One example is one synset: the caption is the gloss's definition (its quoted example sentences are dropped: they nearly
always contain the word itself), the label the lexicographer file ("noun.animal"), `extra["lemmas"]` the words, joined
by blanks, with "_" inside compounds, `extra["hypernyms"]` the ids of the synsets above it, and `extra["pos"]` n, v, a
or r. WordNet has no splits of its own: a tenth of the synsets, by a hash of their id, is test. Synsets with the same
definition stay together.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from data_prep.adapters._published import find_file
from mt2st.data.card import DatasetCard, Example
from mt2st.errors import Mt2stError

CARD = DatasetCard(
    name="wordnet",
    title="WordNet 3.0 glosses",
    task="text-classification",
    source="wordnet.princeton.edu; Debian package wordnet-base",
    revision="3.0",
    licence="WordNet-3.0",
    splits={"train": 105988, "test": 11671},
    main_metric="accuracy",
    paper="Fellbaum, WordNet, MIT Press 1998; supersenses: Ciaramita and Johnson, EMNLP 2003",
    requires="folder with data.noun, data.verb, data.adj, data.adv; "
    "without --source /usr/share/wordnet (Debian's wordnet-base)",
    notes="117,659 synsets. Checked here against the full set.",
)

# lexnames(5WN), in order of their number.
CLASSES = [
    "adj.all",
    "adj.pert",
    "adv.all",
    "noun.Tops",
    "noun.act",
    "noun.animal",
    "noun.artifact",
    "noun.attribute",
    "noun.body",
    "noun.cognition",
    "noun.communication",
    "noun.event",
    "noun.feeling",
    "noun.food",
    "noun.group",
    "noun.location",
    "noun.motive",
    "noun.object",
    "noun.person",
    "noun.phenomenon",
    "noun.plant",
    "noun.possession",
    "noun.process",
    "noun.quantity",
    "noun.relation",
    "noun.shape",
    "noun.state",
    "noun.substance",
    "noun.time",
    "verb.body",
    "verb.change",
    "verb.cognition",
    "verb.communication",
    "verb.competition",
    "verb.consumption",
    "verb.contact",
    "verb.creation",
    "verb.emotion",
    "verb.motion",
    "verb.perception",
    "verb.possession",
    "verb.social",
    "verb.stative",
    "verb.weather",
    "adj.ppl",
]
TEST_SHARE = 0.1
_FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
_TYPES = {"n": "n", "v": "v", "a": "a", "s": "a", "r": "r"}
_EXAMPLE = re.compile(r';\s*"')


def default_source() -> Path:
    """Where Debian's package wordnet-base puts the files."""
    folder = Path("/usr/share/wordnet")
    if not folder.is_dir():
        raise Mt2stError(
            "dataset 'wordnet' needs --source, the folder with WordNet 3.0's data.noun …; or install Debian's "
            "wordnet-base"
        )
    return folder


def examples(split: str, *, source: Path) -> Iterator[Example]:
    """The synsets of `split`, nouns first, in file order."""
    for name in _FILES:
        path = find_file(source, name)
        try:
            with path.open(encoding="utf-8") as stream:
                for number, line in enumerate(stream, start=1):
                    if line.startswith("  ") or not line.strip():
                        continue  # the licence at the top
                    example = _synset(line, f"{path}, line {number}")
                    if _is_test(example.captions[0]) == (split == "test"):
                        yield example
        except UnicodeDecodeError as error:
            raise Mt2stError(
                f"{path} is not text ({error.reason} at byte {error.start}); is it WordNet's database?"
            ) from None


def _synset(line: str, place: str) -> Example:
    data, bar, gloss = line.partition(" | ")
    fields = data.split()
    try:
        offset, lex_file, kind, word_count = fields[0], int(fields[1]), fields[2], int(fields[3], 16)
        words = fields[4 : 4 + 2 * word_count : 2]
        at = 4 + 2 * word_count
        # As many pointers as are declared, but never more than the line has room for.
        declared = min(int(fields[at]), len(fields))
        pointers = [fields[at + 1 + 4 * n : at + 5 + 4 * n] for n in range(declared)]
        hypernyms = [f"{pointer[2]}{pointer[1]}" for pointer in pointers if pointer[0] in ("@", "@i")]
    except (ValueError, IndexError):
        raise Mt2stError(f"{place} is not in the published format (wndb): {line[:60].strip()!r}") from None
    if not bar or not offset.isdecimal() or kind not in _TYPES or not word_count or len(words) != word_count:
        raise Mt2stError(f"{place} is not in the published format (wndb): {line[:60].strip()!r}")
    if not 0 <= lex_file < len(CLASSES):
        raise Mt2stError(f"{place}: lexicographer file {lex_file} is outside the {len(CLASSES)} that lexnames declares")
    definition = _EXAMPLE.split(gloss.strip())[0].strip(" ;")
    identity = f"{_TYPES[kind]}{offset}"
    # "(a)", "(p)" and "(ip)" mark where an adjective may stand; they are no part of the word.
    lemmas = " ".join(re.sub(r"\((a|p|ip)\)$", "", word) for word in words)
    return Example(
        image_id=identity,
        captions=(definition or gloss.strip(),),
        label=CLASSES[lex_file],
        extra={"lemmas": lemmas, "hypernyms": " ".join(hypernyms), "pos": _TYPES[kind]},
    )


def _is_test(definition: str) -> bool:
    return int.from_bytes(hashlib.sha256(f"wordnet:{definition}".encode()).digest()[:8], "big") / 2**64 < TEST_SHARE

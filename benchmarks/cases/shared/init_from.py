"""What a case takes over, before it builds anything, from the run whose weights it starts from.

Weights and token ids belong together, as in every published checkpoint. So the tokenizer comes with the weights, and
none is trained on the new texts. It works on bytes, so it can write any text. The other way, to match token embeddings
by the token's text, would put embeddings that were learned under one segmentation into sequences of another.
"""

from __future__ import annotations

from benchmarks.records.weights import source_run
from mt2st.encoders.text_tokenizer import TextTokenizer
from mt2st.encoders.words import WordVocabulary


def inherited_tokenizer(init_from: str) -> TextTokenizer | None:
    """The tokenizer of the run in folder `init_from`; None without a run, and of a run that has none.

    Raises:
        Mt2stError: as `source_run`, or the file is no tokenizer.
    """
    path = source_run(init_from).text_file("tokenizer.json") if init_from else None
    return TextTokenizer.load(path) if path else None


def inherited_words(init_from: str, texts: list[str]) -> WordVocabulary | None:
    """The words of the run in folder `init_from`, counted in `texts`; None as `inherited_tokenizer`.

    Raises:
        Mt2stError: as `source_run`, or none of the words occurs in the texts.
    """
    path = source_run(init_from).text_file("words.txt") if init_from else None
    return WordVocabulary.counted(path.read_text(encoding="utf-8").split("\n")[:-1], texts) if path else None

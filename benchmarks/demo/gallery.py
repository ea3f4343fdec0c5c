"""The pictures that are searched: a folder, or those of a run's examples; small copies of them are shown."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.demo.runs import ShownRun
from mt2st.commands.search import cache_folder
from mt2st.data.images import load_rgb
from mt2st.errors import Mt2stError
from mt2st.index import create_index
from mt2st.trained.gallery import embed_gallery

_THUMBNAIL = 160  # pixels of the longer side


@dataclass(frozen=True)
class Hit:
    """A picture that was found.

    Attributes:
        name: its name.
        score: cosine of its embedding and the query's.
        picture: PNG, small.
    """

    name: str
    score: float
    picture: bytes


class Searched:
    """Pictures embedded by one run's model.

    Attributes:
        names: N names.
    """

    def __init__(self, names: list[str], pictures: list[Path | bytes], embeddings: np.ndarray) -> None:
        self.names, self._pictures = names, pictures
        self._index: Any = create_index("exact")
        self._index.add(embeddings)

    def __len__(self) -> int:
        return len(self.names)

    def nearest(self, embedding: np.ndarray, top: int) -> list[Hit]:
        """The pictures nearest to an embedding [D], best first."""
        scores, ids = self._index.search(embedding[None], top)
        return [
            Hit(self.names[place], float(score), _small(self._pictures[place]))
            for score, place in zip(scores[0], ids[0], strict=True)
            if place >= 0
        ]


def searched(run: ShownRun, folder: Path | None, first: ShownRun) -> Searched | None:
    """What `run` searches; None = there is nothing.

    Args:
        run: whose model embeds.
        folder: of pictures; None = the pictures of the examples of `first`.
        first: the first run that is shown, so that two runs search the same pictures.

    Raises:
        Mt2stError: no pictures in the folder.
    """
    if folder is not None:
        found = embed_gallery(run.model, folder, cache_folder(None))
        paths: list[Path | bytes] = [found.path(place) for place in range(len(found.names))]
        return Searched(found.names, paths, found.embeddings)
    if first.examples is None or not first.examples.pictures:
        return None
    keys = list(first.examples.pictures)
    captions = {key: item.question for item in first.examples.items for key in item.right_pictures}
    pictures: list[Path | bytes] = [first.examples.pictures[key] for key in keys]
    names = [captions.get(key, f"test picture {key}") for key in keys]
    return Searched(names, pictures, run.model.embed_images(pictures))


def _small(picture: Path | bytes) -> bytes:
    """A PNG of at most `_THUMBNAIL` pixels a side; a picture that went away since is an empty one."""
    try:
        image = load_rgb(picture)
    except Mt2stError:
        image = Image.new("RGB", (1, 1), "white")
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()

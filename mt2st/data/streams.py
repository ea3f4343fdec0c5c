"""Streams: batch `index` of a prepared split, as a pure function of (seed, index).

Being pure, a stream needs no position in a checkpoint and any process can make any batch. Texts are tokenised once;
pixels are read from the memory map when a batch asks for them.

On several processes a batch is still one batch: every process draws the whole of it and takes its own share, so that N
processes train on what one process would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from mt2st.batch import Batch
from mt2st.data.splits import PreparedSplit
from mt2st.data.vocabulary import AnswerVocabulary
from mt2st.errors import Mt2stError, unknown_name
from mt2st.randomness import generator

Tokenize = Callable[[list[str]], Tensor]


class EpochOrder:
    """The infinite sequence of shuffled epochs over `size` items; position p always holds the same item.

    A batch may cross from one epoch into the next, so that all batches have one shape and no item is ever dropped.
    """

    def __init__(self, size: int, seed: int, name: str) -> None:
        if size < 1:
            raise Mt2stError(
                f"stream {name!r} is empty: no items to draw from; check the split and the share of labels"
            )
        self.size, self.seed, self.name = size, seed, name
        self._epoch = lru_cache(maxsize=2)(self._shuffle)

    def _shuffle(self, epoch: int) -> np.ndarray:
        return generator(self.seed, self.name, epoch).permutation(self.size)

    def __call__(self, start: int, count: int) -> np.ndarray:
        """Items at positions start … start + count − 1, int64 [count]."""
        parts = []
        while count > 0:
            epoch, offset = divmod(start, self.size)
            part = self._epoch(epoch)[offset : offset + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts)


def own_share(count: int, rank: int, world: int, name: str) -> slice:
    """The items of a batch of `count` that process `rank` of `world` takes; all shares are of one size.

    Raises:
        Mt2stError: `count` is no multiple of `world`.
    """
    if count % world:
        raise Mt2stError(
            f"a batch of {count} items of stream {name!r} cannot be shared by {world} processes; take a multiple of "
            f"{world}, or another number of processes"
        )
    each = count // world
    return slice(rank * each, (rank + 1) * each)


def pixels_tensor(split: PreparedSplit, rows: np.ndarray) -> Tensor:
    """Pixels [n, 3, H, W] uint8 of image rows (a view of the [n, H, W, 3] copy read from the store)."""
    return torch.from_numpy(split.pixels(rows)).permute(0, 3, 1, 2)


class QuestionStream:
    """Questions with their images: `images_per_batch` images a batch, `questions_per_image` questions on each.

    Asking several questions of one image encodes the image once for all of them. Questions of an image are drawn
    without replacement as long as there are enough. Images without a question are never drawn.

    Attributes:
        unlabelled_questions: questions nobody answered; not drawn.
        outside_vocabulary: answered questions none of whose answers is in the vocabulary; not drawn.
        questions_without_image: questions on text-only items; not drawn.
    """

    def __init__(
        self,
        split: PreparedSplit,
        tokenize: Tokenize,
        vocabulary: AnswerVocabulary,
        *,
        images_per_batch: int,
        questions_per_image: int = 1,
        seed: int = 0,
        name: str = "questions",
    ) -> None:
        if images_per_batch < 1 or questions_per_image < 1:
            raise Mt2stError(
                f"images_per_batch = {images_per_batch} and questions_per_image = {questions_per_image} of {name!r} "
                "must be ≥ 1"
            )
        answers = split.answer_texts()
        self.targets = vocabulary.targets(answers)
        self.unlabelled_questions = sum(not texts for texts in answers)
        self.outside_vocabulary = int((~self.targets.answered).sum()) - self.unlabelled_questions
        shown = split.has_pixels()[split.question_images()]
        self.questions_without_image = int((~shown).sum())
        labelled = self.targets.answered & shown
        question_images = split.question_images()[labelled]
        self._questions = np.flatnonzero(labelled)[np.argsort(question_images, kind="stable")]
        images, self._starts, self._counts = np.unique(np.sort(question_images), return_index=True, return_counts=True)
        self._images = images
        self.split = split
        self.tokens = tokenize(split.question_texts())
        self.images_per_batch, self.questions_per_image = images_per_batch, questions_per_image
        self.seed, self.name = seed, name
        self._order = EpochOrder(len(images), seed, name)

    def batch(self, index: int, rank: int = 0, world: int = 1) -> Batch:
        count, per_image = self.images_per_batch, self.questions_per_image
        own = own_share(count, rank, world, self.name)
        chosen = self._order(index * count, count)
        # A random rank for each question slot of each image: questions differ within an image as long as it has enough.
        random = generator(self.seed, f"{self.name}/questions", index)
        first = (random.random(count) * self._counts[chosen]).astype(np.int64)
        slots = (first[:, None] + self._strides(random, chosen) * np.arange(per_image)) % self._counts[chosen][:, None]
        rows = self._questions[(self._starts[chosen][:, None] + slots)[own].ravel()]
        return {
            "pixels": pixels_tensor(self.split, self._images[chosen[own]]),
            "question_tokens": self.tokens[torch.from_numpy(rows)],
            "answer_targets": self.targets.dense(rows),
            "question_image": torch.arange(count // world).repeat_interleave(per_image),
        }

    def _strides(self, random: np.random.Generator, chosen: np.ndarray) -> np.ndarray:
        """[images, 1] strides coprime to the number of questions, so that slots repeat only after all were used."""
        counts = self._counts[chosen]
        strides = np.ones_like(counts)
        wanted = 1 + (random.random(len(counts)) * counts).astype(np.int64)
        coprime = np.gcd(wanted, counts) == 1
        strides[coprime] = wanted[coprime]
        return strides[:, None]


class CaptionStream:
    """Images with one of their captions each; `caption_group` tells identical captions apart from different ones.

    Args:
        rows: limits the captions to some (int64 caption rows), such as the first of each image; None takes all.
            Captions of text-only items are not drawn; `captions_without_image` counts them.
        texts: "captions", or "questions" for sets without captions: the questions' words, without their answers.
    """

    def __init__(
        self,
        split: PreparedSplit,
        tokenize: Tokenize,
        *,
        images_per_batch: int,
        seed: int = 0,
        name: str = "captions",
        rows: np.ndarray | None = None,
        texts: str = "captions",
    ) -> None:
        if images_per_batch < 1:
            raise Mt2stError(f"images_per_batch = {images_per_batch} of stream {name!r} must be ≥ 1")
        if texts not in ("captions", "questions"):
            raise unknown_name("texts of a CaptionStream", texts, ("captions", "questions"))
        asked = texts == "questions"
        captions = split.question_texts() if asked else split.caption_texts()
        caption_images = split.question_images() if asked else split.caption_images()
        rows = np.arange(len(captions)) if rows is None else rows
        shown = split.has_pixels()[caption_images[rows]]
        self.captions_without_image = int((~shown).sum())
        rows = rows[shown]
        captions, caption_images = [captions[row] for row in rows], caption_images[rows]
        self._captions = np.argsort(caption_images, kind="stable")
        self._images, self._starts, self._counts = np.unique(
            np.sort(caption_images), return_index=True, return_counts=True
        )
        self.tokens = tokenize(captions)
        # Captions are identical if the text tower cannot tell them apart: after case folding and cutting.
        _, groups = np.unique(self.tokens.numpy(), axis=0, return_inverse=True)
        self.groups = torch.from_numpy(groups.reshape(-1).astype(np.int64))
        self.split, self.images_per_batch, self.seed, self.name = split, images_per_batch, seed, name
        self._order = EpochOrder(len(self._images), seed, name)

    def batch(self, index: int, rank: int = 0, world: int = 1) -> Batch:
        count = self.images_per_batch
        own = own_share(count, rank, world, self.name)
        chosen = self._order(index * count, count)
        random = generator(self.seed, f"{self.name}/captions", index)
        slots = (random.random(count) * self._counts[chosen]).astype(np.int64)
        chosen, slots = chosen[own], slots[own]
        captions = torch.from_numpy(self._captions[self._starts[chosen] + slots])
        return {
            "pixels": pixels_tensor(self.split, self._images[chosen]),
            "caption_tokens": self.tokens[captions],
            "caption_group": self.groups[captions],
        }


class ItemStream:
    """Rows of tensors, such as tokens and class numbers, in shuffled epochs; with their pixels where a split is given.

    Args:
        tensors: name in the batch → values [N, …], on the CPU.
        items_per_batch: B.
        split: its N images are the items; their pixels come as "pixels".
        seed: decides the order.
        name: decides the order, too: two streams of one seed need not agree.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        *,
        items_per_batch: int,
        split: PreparedSplit | None = None,
        seed: int = 0,
        name: str = "items",
    ) -> None:
        if items_per_batch < 1:
            raise Mt2stError(f"items_per_batch = {items_per_batch} of stream {name!r} must be ≥ 1")
        sizes = {key: len(values) for key, values in tensors.items()} | (
            {"pixels": split.num_images} if split is not None else {}
        )
        if len(set(sizes.values())) != 1:
            raise Mt2stError(f"stream {name!r} needs tensors of one length, at least one; it has {sizes or 'none'}")
        self.tensors, self.split, self.items_per_batch = dict(tensors), split, items_per_batch
        self.name = name
        self._order = EpochOrder(next(iter(sizes.values())), seed, name)

    def __len__(self) -> int:
        return self._order.size

    def batch(self, index: int, rank: int = 0, world: int = 1) -> Batch:
        count = self.items_per_batch
        return self.rows(self._order(index * count, count)[own_share(count, rank, world, self.name)])

    def rows(self, rows: np.ndarray) -> Batch:
        """The batch of these items, int64 [n]."""
        chosen = torch.from_numpy(rows)
        batch = {name: values[chosen] for name, values in self.tensors.items()}
        return batch if self.split is None else {**batch, "pixels": pixels_tensor(self.split, rows)}

    def in_order(self, batch_size: int = 512) -> Iterator[Batch]:
        """Every item once, in order; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            yield self.rows(np.arange(start, min(start + batch_size, len(self))))


class PairStream:
    """Pairs of an item stream's items, in shuffled epochs.

    A batch holds the first items of its B pairs, then the second ones, 2B rows in all, and `same` [B].

    Args:
        items: where the items come from.
        pairs: [P, 2] int64, rows of `items`.
        same: [P] int64, 1 where both are of one class, else 0.
        pairs_per_batch: B.
        seed: decides the order.
        name: decides the order, too.
    """

    def __init__(
        self,
        items: ItemStream,
        pairs: np.ndarray,
        same: np.ndarray,
        *,
        pairs_per_batch: int,
        seed: int = 0,
        name: str = "pairs",
    ) -> None:
        if pairs_per_batch < 1:
            raise Mt2stError(f"pairs_per_batch = {pairs_per_batch} of stream {name!r} must be ≥ 1")
        self.items, self.pairs, self.same = items, pairs, torch.from_numpy(same)
        self.pairs_per_batch, self.name = pairs_per_batch, name
        self._order = EpochOrder(len(pairs), seed, name)

    def batch(self, index: int, rank: int = 0, world: int = 1) -> Batch:
        count = self.pairs_per_batch
        chosen = self._order(index * count, count)[own_share(count, rank, world, self.name)]
        return {**self.items.rows(self.pairs[chosen].T.ravel()), "same": self.same[torch.from_numpy(chosen)]}

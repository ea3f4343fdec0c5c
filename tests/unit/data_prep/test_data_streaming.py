"""Streaming without preparation: every example once an epoch over all readers, and positions that continue exactly."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from data_prep.find import find_adapter
from data_prep.streaming import ExampleStream
from mt2st.data.card import Adapter
from mt2st.errors import Mt2stError
from tests.helpers.published_layouts import LAYOUTS


@pytest.fixture(params=["shards", "rows"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Adapter, dict[str, Path]]:
    """An adapter with shards (2 shards of 2 samples) and one without (4 examples)."""
    name = {"shards": "conceptual_captions/shards", "rows": "flickr30k"}[request.param]
    write = LAYOUTS[name]
    assert write
    options = write(tmp_path / "source")
    return find_adapter(name.partition("/")[0]), {
        "source": tmp_path / "source",
        **({"options": options} if options else {}),
    }  # type: ignore[dict-item]


def ids(stream: ExampleStream, count: int) -> list[str]:
    return [example.image_id for _, example in islice(iter(stream), count)]


def test_readers_share_an_epoch_without_overlap(source: tuple[Adapter, dict[str, Path]]) -> None:
    adapter, given = source
    whole = sorted(ids(ExampleStream(adapter, "train", image_size=8, **given), 4))  # type: ignore[arg-type]
    parts = [
        ids(ExampleStream(adapter, "train", image_size=8, rank=rank, world=2, **given), 2)  # type: ignore[arg-type]
        for rank in range(2)
    ]
    by_worker = [
        ids(ExampleStream(adapter, "train", image_size=8, worker=worker, workers=2, **given), 2)  # type: ignore[arg-type]
        for worker in range(2)
    ]
    assert sorted(parts[0] + parts[1]) == whole == sorted(by_worker[0] + by_worker[1])
    assert len(set(whole)) == 4


def test_every_position_continues_exactly(source: tuple[Adapter, dict[str, Path]]) -> None:
    adapter, given = source
    straight = ExampleStream(adapter, "train", image_size=8, seed=5, **given)  # type: ignore[arg-type]
    expected, positions = [], [straight.position()]
    for pixels, example in islice(iter(straight), 14):
        assert pixels is not None
        expected.append((example.image_id, pixels.tobytes()))
        positions.append(json.loads(json.dumps(straight.position())))
    for at, position in enumerate(positions):
        stream = ExampleStream(adapter, "train", image_size=8, seed=5, **given)  # type: ignore[arg-type]
        stream.seek(position)
        rest = [
            (example.image_id, pixels.tobytes())
            for pixels, example in islice(iter(stream), 14 - at)
            if pixels is not None
        ]
        assert rest == expected[at:]
    epochs = [sorted(name for name, _ in expected[start : start + 4]) for start in (0, 4, 8)]
    assert epochs[0] == epochs[1] == epochs[2], "each epoch holds every example once"


def test_shards_come_in_another_order_each_epoch(tmp_path: Path) -> None:
    write = LAYOUTS["conceptual_captions/shards"]
    assert write
    write(tmp_path)
    adapter = find_adapter("conceptual_captions")
    found = ids(ExampleStream(adapter, "train", image_size=8, source=tmp_path, seed=1), 40)
    orders = {tuple(found[start : start + 4]) for start in range(0, 40, 4)}
    assert len(orders) == 2
    with pytest.raises(Mt2stError, match="has 2 shards for 3 readers"):
        ExampleStream(adapter, "train", image_size=8, source=tmp_path, world=3)


def test_bad_images_stop_or_are_counted(tmp_path: Path) -> None:
    write = LAYOUTS["flickr30k"]
    assert write
    options = write(tmp_path)
    path = next((tmp_path / "flickr30k-images").iterdir())
    path.write_bytes(b"bad")
    adapter = find_adapter("flickr30k")
    split = next(
        name
        for name in adapter.CARD.splits
        if any(example.image == path for example in adapter.examples(name, source=tmp_path, **options))  # type: ignore[call-arg]
    )
    with pytest.raises(Mt2stError, match="cannot be decoded"):
        ids(ExampleStream(adapter, split, image_size=8, source=tmp_path, options=options), 4)
    skipping = ExampleStream(adapter, split, image_size=8, source=tmp_path, options=options, on_error="skip")
    assert len(set(ids(skipping, 6))) == 3
    assert skipping.skipped == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "trian"}, "did you mean 'train'"),
        ({"rank": 2, "world": 2}, "rank = 2"),
        ({"worker": -1}, "worker = -1"),
        ({"on_error": "ignore"}, "unknown on_error"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(Mt2stError, match=message):
        ExampleStream(find_adapter("digits"), **{"split": "train", "image_size": 8, **arguments})  # type: ignore[arg-type]


def test_positions_of_something_else_and_empty_sets_are_refused(tmp_path: Path) -> None:
    stream = ExampleStream(find_adapter("digits"), "test", image_size=8)
    with pytest.raises(Mt2stError, match="is no position of a stream"):
        stream.seek({"step": 3})
    (tmp_path / "empty.py").write_text(
        "from mt2st.data.card import DatasetCard\n"
        "CARD = DatasetCard('empty', 'Empty', 'vqa', 'here', '1', 'CC0-1.0', {'train': None}, 'vqa_accuracy')\n"
        "def examples(split):\n    return iter(())\n"
    )
    with pytest.raises(Mt2stError, match="no example in a whole epoch"):
        next(iter(ExampleStream(find_adapter(tmp_path / "empty.py"), "train", image_size=8)))


def test_what_an_adapter_raises_in_a_shard_names_it(tmp_path: Path) -> None:
    (tmp_path / "torn.py").write_text(
        "from pathlib import Path\n"
        "from mt2st.data.card import DatasetCard, Example\n"
        "CARD = DatasetCard('torn', 'Torn', 'retrieval', 'here', '1', 'CC0-1.0', {'train': None}, 'hit_rate@1')\n"
        "def shards(split):\n    return [Path('a.tar')]\n"
        "def shard_examples(shard):\n    yield Example(captions=('c',))\n    yield {}['caption']\n"
        "def examples(split):\n    return shard_examples(None)\n"
    )
    stream = iter(ExampleStream(find_adapter(tmp_path / "torn.py"), "train", image_size=8))
    assert next(stream)[1].captions == ("c",)
    with pytest.raises(
        Mt2stError, match=r"adapter 'torn', split 'train/a\.tar', example 1: KeyError: 'caption' \(torn\.py, line 8\)"
    ):
        next(stream)


def test_text_only_examples_have_no_pixels(tmp_path: Path) -> None:
    write = LAYOUTS["wordnet"]
    assert write
    write(tmp_path)
    pixels, example = next(iter(ExampleStream(find_adapter("wordnet"), "train", image_size=8, source=tmp_path)))
    assert pixels is None
    assert example.captions

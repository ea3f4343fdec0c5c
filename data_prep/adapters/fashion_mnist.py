"""Fashion-MNIST: 28×28 grey pictures of clothes in ten classes.

Reads the published IDX files, packed or not: train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz,
t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz. (On the Hub, with plain columns: `--data
hf:zalando-datasets/fashion_mnist --map image=image,label=label`.)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.adapters._published import find_file
from data_prep.readers.idx import read_idx_images, read_idx_labels
from mt2st.data.card import DatasetCard, Example
from mt2st.errors import Mt2stError

CARD = DatasetCard(
    name="fashion_mnist",
    title="Fashion-MNIST",
    task="classification",
    source="github.com/zalandoresearch/fashion-mnist; Debian package dataset-fashion-mnist",
    revision="55506a9",
    licence="MIT",
    splits={"train": 60000, "test": 10000},
    main_metric="accuracy",
    paper="Xiao et al., Fashion-MNIST, 2017",
    requires="folder with the four IDX files; "
    "without --source /usr/share/datasets/fashion-mnist (Debian's dataset-fashion-mnist)",
    notes="Checked here against the full set.",
)

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_PREFIX = {"train": "train", "test": "t10k"}


def default_source() -> Path:
    """Where Debian's package dataset-fashion-mnist puts the files."""
    folder = Path("/usr/share/datasets/fashion-mnist")
    if not folder.is_dir():
        raise Mt2stError(
            "dataset 'fashion_mnist' needs its four IDX files: apt install dataset-fashion-mnist (Debian, Ubuntu), or "
            "--source FOLDER; or fetch the set from the Hub, --data hf:zalando-datasets/fashion_mnist --map "
            "image=image,label=label"
        )
    return folder


def examples(split: str, *, source: Path) -> Iterator[Example]:
    """The pictures of `split` in file order."""
    from PIL import Image

    prefix = _PREFIX[split]
    image_path = find_file(source, f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-images-idx3-ubyte")
    label_path = find_file(source, f"{prefix}-labels-idx1-ubyte.gz", f"{prefix}-labels-idx1-ubyte")
    images, labels = read_idx_images(image_path), read_idx_labels(label_path)
    if len(images) != len(labels):
        raise Mt2stError(
            f"{image_path} holds {len(images)} images, {label_path} {len(labels)} labels; the files do not belong "
            "together"
        )
    for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        if label >= len(CLASSES):
            raise Mt2stError(f"{label_path}, label {number} is {label}, outside the {len(CLASSES)} classes")
        yield Example(image=Image.fromarray(pixels), image_id=f"{split}-{number}", label=CLASSES[label])

"""Checkpoints inside installed packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from mt2st.encoders.factory import make_towers, text_side
from mt2st.encoders.installed import resolved
from mt2st.errors import Mt2stError
from tests.helpers.checkpoints import bert
from tests.helpers.tiny import tiny_config


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a checkpoint, whose code must not run."""
    folder = tmp_path / "tiny_bert_of_ours"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('the package was imported')")
    bert(folder / "model")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_a_package_is_the_folder_inside_it(package: Path) -> None:
    assert resolved("pip:tiny-bert-of-ours") == f"hf:{package / 'model'}"
    assert resolved("small") == "small"
    assert text_side("small+pip:tiny-bert-of-ours") == f"hf:{package / 'model'}"
    towers = make_towers("small+pip:tiny-bert-of-ours", small=tiny_config())
    assert towers.text.pretrained


def test_what_is_not_there_is_one_line(package: Path) -> None:
    for name in ("gt-no-such-model", "../x", ""):
        with pytest.raises(Mt2stError, match=r"is not installed; pip install .*hf:FOLDER") as caught:
            resolved(f"pip:{name}")
        assert "\n" not in str(caught.value)
    (package / "second").mkdir()
    for name in ("config.json", "model.safetensors"):
        (package / "second" / name).write_bytes((package / "model" / name).read_bytes())
    with pytest.raises(Mt2stError, match=r"holds 2 folders"):
        resolved("pip:tiny-bert-of-ours")
    for path in package.rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(Mt2stError, match=r"holds no folders with config.json"):
        resolved("pip:tiny-bert-of-ours")

"""Starting from another model's weights: what is taken, what stays new, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from mt2st.errors import Mt2stError
from mt2st.training.transfer import common_beginnings, take_weights


class Model(nn.Module):
    """A tower with a batch norm, tied tokens, and a head of `classes`."""

    def __init__(self, classes: int, tokens: int = 7, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.tower = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
        self.table = nn.Embedding(tokens, 5)
        self.words = nn.Linear(5, tokens, bias=False)
        self.words.weight = self.table.weight
        self.head = nn.Linear(5, classes)


def saved(model: nn.Module, folder: Path) -> Path:
    path = folder / "weights.safetensors"
    save_model(model, str(path))
    return path


def test_what_fits_is_taken_and_the_rest_stays_as_it_was(tmp_path: Path) -> None:
    source = Model(3, seed=1)
    source.tower(torch.randn(8, 4))  # moves the running statistics
    model = Model(2)
    before = model.head.weight.clone()
    taken = take_weights(model, saved(source, tmp_path))
    for name in ("tower.0.weight", "tower.0.bias", "tower.1.running_mean", "table.weight", "words.weight"):
        assert torch.equal(model.state_dict()[name], source.state_dict()[name]), name
    assert torch.equal(model.head.weight, before)
    assert model.words.weight is model.table.weight, "still tied"
    assert taken.new == (
        "head.weight [3, 5] there, [2, 5] here",
        "head.bias [3] there, [2] here",
    )
    assert taken.unused == ()
    numbers = sum(parameter.numel() for parameter in model.parameters())
    assert (taken.of_parameters, taken.parameters) == (numbers, numbers - 12)


def test_what_shall_stay_new_stays_new_though_it_fits(tmp_path: Path) -> None:
    model, source = Model(3), Model(3, seed=1)
    before = model.head.weight.clone()
    taken = take_weights(model, saved(source, tmp_path), leave=("head.",))
    assert torch.equal(model.head.weight, before)
    assert taken.new == taken.unused == ("head",)


def test_a_vocabulary_of_another_size_stays_new_and_what_has_no_place_is_named(tmp_path: Path) -> None:
    source = nn.ModuleDict({"tower": Model(2, tokens=9).tower, "table": nn.Embedding(9, 5), "other": nn.Linear(2, 2)})
    taken = take_weights(Model(2), saved(source, tmp_path))
    assert taken.new == ("table.weight [9, 5] there, [7, 5] here", "words.weight", "head")
    assert taken.unused == ("other",)


def test_nothing_that_fits_is_one_line_with_a_cure(tmp_path: Path) -> None:
    model = Model(2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = tmp_path / "other.safetensors"
    save_file({"tower.0.weight": torch.ones(9, 9), "scale": torch.ones(())}, path)
    with pytest.raises(
        Mt2stError, match=r"nothing in .* fits .*tower\.0\.weight is \[9, 9\] there .*give weights"
    ) as error:
        take_weights(model, path, must="tower.")
    assert "\n" not in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    path.write_bytes(b"no tensors")
    with pytest.raises(Mt2stError, match="cannot be read as safetensors"):
        take_weights(model, path)


def test_names_are_shortened_to_modules_of_which_all_is_meant() -> None:
    among = ["a.b.c", "a.b.d", "a.e", "f"]
    assert common_beginnings(["a.b.c", "a.b.d"], among) == ("a.b",)
    assert common_beginnings(["a.b.c", "a.e"], among) == ("a.b.c", "a.e")
    assert common_beginnings(["a.b.c", "a.b.d"], among, apart=["a.b.c"]) == ("a.b.c", "a.b.d")
    assert common_beginnings([], among) == ()

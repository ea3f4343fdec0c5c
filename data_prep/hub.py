"""Datasets of the Hugging Face Hub with plain columns, through the package datasets (extra `data`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from data_prep.cards import card_of
from data_prep.readers.rows import example_from_row, guess_mapping, unmapped, yes
from mt2st.data.card import DatasetCard, Example
from mt2st.errors import Mt2stError, unknown_name

# What the package datasets raises for sets that it cannot find, reach or make sense of (its own errors are of
# these kinds).
_HUB_ERRORS = (OSError, ValueError)
_LISTED_CONFIGURATIONS = 30  # some sets have hundreds


@dataclass(frozen=True)
class HubDataset:
    """A dataset of the Hugging Face Hub with plain columns. Runs no code of the dataset's repository."""

    CARD: DatasetCard
    name: str
    revision: str | None
    mapping: Mapping[str, str] = field(default_factory=dict)
    hub_splits: Mapping[str, str] = field(default_factory=dict)
    configuration: str | None = None

    def examples(self, split: str, *, streaming: str | bool = False) -> Iterator[Example]:
        """The rows of `split`; `streaming` ("yes" or "no") reads them over the network without keeping files."""
        datasets = _package(self.name)
        name = self.hub_splits.get(split, split)
        place = f"{self.name}:{self.configuration}" if self.configuration else self.name
        try:
            rows = datasets.load_dataset(
                self.name, self.configuration, split=name, revision=self.revision, streaming=yes(streaming)
            )
        except _HUB_ERRORS as error:
            raise _hub_error(self.name, self.configuration, self.revision, error, f", split {name!r}") from None
        features = rows.features or {}
        mapping = self.mapping or guess_mapping(list(features))
        if not mapping:
            raise unmapped(f"Hub dataset {place!r}", list(features))
        labels: tuple[str, ...] = ()
        for ours, column in mapping.items():
            if ours == "image" and isinstance(features.get(column), datasets.Image):
                # prepare decodes, in parallel and with its limits
                rows = rows.cast_column(column, datasets.Image(decode=False))
            if ours == "label" and isinstance(features.get(column), datasets.ClassLabel):
                labels = tuple(features[column].names)
        for number, row in enumerate(rows):
            yield example_from_row(row, mapping, f"{place}/{name}, record {number}", number, None, labels)


def open_hub(name: str, mapping: Mapping[str, str], facts: dict[str, Any]) -> HubDataset:
    """The dataset that `hf:owner/name[:configuration][@revision]` names.

    Args:
        name: as above; a local folder in the Hub's format stands for owner/name as well.
        mapping: field → column; empty uses columns that carry our field names.
        facts: fields of the card that the user wrote down; `splits` may name the Hub's splits: ours → theirs.

    Raises:
        Mt2stError: the package datasets is missing, or the Hub has no such set, configuration or revision.
    """
    named, _, revision = name.removeprefix("hf:").partition("@")
    place, _, configuration = named.partition(":")
    datasets = _package(place)
    hub_splits: dict[str, str] = dict(facts.pop("splits", {}))
    if not hub_splits:
        try:
            found = datasets.get_dataset_split_names(place, configuration or None, revision=revision or None)
            hub_splits = {split.lower(): split for split in found}
        except _HUB_ERRORS as error:
            raise _hub_error(place, configuration or None, revision or None, error) from None
    facts.setdefault("source", f"Hugging Face Hub, {named}")
    facts.setdefault("revision", revision or "unpinned")
    title = place.rstrip("/").split("/")[-1] + (f"-{configuration}" if configuration else "")
    card = card_of(title, mapping, dict.fromkeys(hub_splits), facts)
    return HubDataset(card, place, revision or None, mapping, hub_splits, configuration or None)


def _package(place: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise Mt2stError(
            f"Hub dataset {place!r} needs the package datasets ({error}); pip install -e '.[data]'"
        ) from None
    return datasets


def _hub_error(
    place: str, configuration: str | None, revision: str | None, error: Exception, split: str = ""
) -> Mt2stError:
    """Why a Hub dataset cannot be loaded.

    Where it is for want of a configuration that exists, those that do are listed.
    """
    datasets = _package(place)
    try:
        known = datasets.get_dataset_config_names(place, revision=revision)
        default = datasets.get_dataset_default_config_name(place, revision=revision)
    except _HUB_ERRORS:  # the set itself cannot be reached, as `error` says
        known, default = [], None
    if configuration is not None and known and configuration not in known:
        return unknown_name(f"configuration of Hub dataset {place!r}", configuration, known)
    if configuration is None and len(known) > 1 and default is None:
        listing = ", ".join(known[:_LISTED_CONFIGURATIONS]) + (" …" if len(known) > _LISTED_CONFIGURATIONS else "")
        example = f"hf:{place}:{known[0]}" + (f"@{revision}" if revision else "")
        return Mt2stError(
            f"Hub dataset {place!r} has {len(known)} configurations: {listing}; name one, such as {example}"
        )
    reason = " ".join(str(error).split())[:300]
    return Mt2stError(f"Hub dataset {place!r}{split} cannot be loaded ({reason}); check name, split and network")

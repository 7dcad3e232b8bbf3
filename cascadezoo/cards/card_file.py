"""README.md of a model folder: read with care, renewed, held against metrics.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cascadezoo.cards.card import render_card
from cascadezoo.cards.claims import claim_faults
from cascadezoo.cards.merge import (
    Renewed,
    address_card,
    address_of,
    card_faults,
    renew_card,
)
from cascadezoo.errors import CascadezooError, ModelError
from cascadezoo.model_folder.layout import CARD
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec import CascadeSpec
from cascadezoo.spec.configs import DataInfo

__all__ = ["CardState", "data_info", "look_at_card", "new_card", "read_card"]

LARGEST_CARD = 4 << 20


@dataclass(frozen=True, slots=True)
class CardState:
    """A card, and what it should be.

    Args:
        before: the text that is there; None where there is no card.
        renewed: the card as it should be.
        faults: metadata that are not valid, and figures that metrics.json does not hold.
    """

    before: str | None
    renewed: Renewed
    faults: tuple[str, ...] = ()

    @property
    def current(self) -> bool:
        """Whether the card is as it would be written."""
        return self.before == self.renewed.text


def look_at_card(
    folder: Path, spec: CascadeSpec, metrics: Mapping[str, Any], *, force: bool = False
) -> CardState:
    """The card of a model folder and its renewal.

    Args:
        folder: the model folder.
        spec: the model's spec.
        metrics: the content of metrics.json.
        force: take nothing over from the card that is there.

    Raises:
        ModelError: the card is not UTF-8 text, or far too large.
    """
    before = read_card(folder)
    faults: list[str] = []
    if before is not None:
        faults = [*card_faults(before), *claim_faults(before, metrics)]
    return CardState(before, new_card(before, spec, metrics, force=force), tuple(faults))


def new_card(
    before: str | None,
    spec: CascadeSpec,
    metrics: Mapping[str, Any],
    info: DataInfo | None = None,
    *,
    force: bool = False,
) -> Renewed:
    """The card of a model, with what a person wrote into the one before.

    Args:
        before: the text of that one; None where there is none.
        spec: the model's spec.
        metrics: the content of metrics.json.
        info: what the dataset tells of itself; None asks the dataset.
        force: take nothing over but the address in the commands.
    """
    ours = render_card(spec, metrics, data_info(spec) if info is None else info)
    address = None if before is None else address_of(before)
    if address is not None:
        ours = address_card(ours, spec.name, address)
    return Renewed(ours) if before is None or force else renew_card(ours, before)


def read_card(folder: Path) -> str | None:
    """The text of README.md; None where there is none.

    Raises:
        ModelError: it is not UTF-8 text, or far too large.
    """
    path = folder / CARD
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_CARD + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror}", code="model-card-unreadable", path=path
        ) from error
    if len(content) > LARGEST_CARD:
        raise ModelError(
            f"{path} is larger than {LARGEST_CARD >> 20} MiB",
            hint="shorten it",
            code="model-card-too-large",
            path=path,
        )
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ModelError(
            f"{path} is not UTF-8 text (byte {error.start})",
            hint="save it as UTF-8",
            code="model-card-not-text",
            path=path,
        ) from None


def data_info(spec: CascadeSpec) -> DataInfo:
    """What a spec's dataset tells of itself; nothing where its plugin or its files are not here."""
    found = get_registry().datasets.rows.get(spec.data.source)
    if found is None:
        return DataInfo()
    try:
        info: DataInfo = found.entry.load_config()(**spec.data.config).info()
    except (CascadezooError, ValidationError):
        return DataInfo()
    return info

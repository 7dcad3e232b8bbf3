"""README.md of a model folder: read with care, and renewed without losing what people wrote in it.

A generated body consists of blocks between comments::

    <!-- cascadezoo:begin figures 0f3a... -->
    ## Figures
    ...
    <!-- cascadezoo:end figures -->

A block whose text still has the digest in its first comment was not touched and is replaced by the
new one. Everything else of the body is a person's: text outside, edited blocks, blocks taken out.
The front matter is generated; keys and tags that a person added to it are kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cascadezoo.cards.check_card import FRONT, card_faults, claim_faults, read_front
from cascadezoo.cards.render_card import block, block_digest, render_card
from cascadezoo.errors import CascadezooError, ModelError
from cascadezoo.model_folder.layout import CARD
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec import CascadeSpec
from cascadezoo.spec.configs import DataInfo
from cascadezoo.util.limits import LARGEST_CARD

__all__ = [
    "CardState",
    "Renewed",
    "address_card",
    "address_of",
    "data_info",
    "look_at_card",
    "merge_cards",
    "new_card",
    "read_card",
    "renew_card",
]

_BLOCK = re.compile(
    r"<!-- cascadezoo:begin (?P<name>[a-z-]{1,40}) (?P<digest>[0-9a-f]{16}) -->\r?\n"
    r"(?P<text>.*?)\r?\n<!-- cascadezoo:end (?P=name) -->",
    re.DOTALL,
)
_ADDRESSED = ("use", "figures", "attribution")
_ADDRESS = re.compile(r'from_pretrained\("([A-Za-z0-9][A-Za-z0-9._/@:-]{0,200})"\)')


@dataclass(frozen=True, slots=True)
class Renewed:
    """A card whose generated parts are new.

    Args:
        text: the card.
        kept: the blocks that a person had changed and that were left as they were.
        added: the blocks that it did not have before.
        own: it holds nothing generated, so it was left as it was.
    """

    text: str
    kept: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    own: bool = False


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


# --- edited cards


def merge_cards(ours: str, theirs: str) -> str:
    """The card of a new version where the one on the Hub was edited.

    Merging the result once more with ``ours`` changes nothing.

    Args:
        ours: the generated card of the new version.
        theirs: the card that is on the Hub.
    """
    blocks = {m["name"]: m[0] for m in _BLOCK.finditer(ours)}

    def renew(match: re.Match[str]) -> str:
        touched = block_digest(match["text"]) != match["digest"]
        return match[0] if touched else blocks.get(match["name"], match[0])

    front = FRONT.match(theirs)
    body = theirs[front.end() :] if front is not None else theirs
    return f"{_merge_fronts(ours, theirs)}{_BLOCK.sub(renew, body)}"


def renew_card(ours: str, theirs: str) -> Renewed:
    """The card of a model folder with its generated blocks renewed.

    Besides what :func:`merge_cards` does, blocks that are missing come in after the one that they
    follow in ``ours``: a card made before its model was taken apart has no table of stages. A card
    without any generated block is somebody's own and stays as it is.

    Args:
        ours: the generated card.
        theirs: the card that is there.
    """
    before = {match["name"]: match for match in _BLOCK.finditer(theirs)}
    if not before:
        return Renewed(theirs, own=True)
    blocks = {match["name"]: match[0] for match in _BLOCK.finditer(ours)}
    kept = [n for n, m in before.items() if n in blocks and block_digest(m["text"]) != m["digest"]]
    text = merge_cards(ours, theirs)
    added = [name for name in blocks if name not in before]
    order = list(blocks)
    for name in added:
        places = {match["name"]: match.span() for match in _BLOCK.finditer(text)}
        earlier = [other for other in order[: order.index(name)] if other in places]
        if earlier:
            end = places[earlier[-1]][1]
            text = f"{text[:end]}\n\n{blocks[name]}{text[end:]}"
        else:
            start = min(span[0] for span in places.values())
            text = f"{text[:start]}{blocks[name]}\n\n{text[start:]}"
    return Renewed(text, tuple(kept), tuple(added))


def _merge_fronts(ours: str, theirs: str) -> str:
    """The front matter with its lines of dashes, and a blank line if the body has none."""
    match = FRONT.match(ours)
    front, mine = match[0] if match is not None else "", read_front(ours)
    found = read_front(theirs)
    if isinstance(mine, str) or isinstance(found, str):
        return front
    merged = {**mine, **{key: value for key, value in found.items() if key not in mine}}
    tags, more = mine.get("tags"), found.get("tags")
    if isinstance(tags, list) and isinstance(more, list):
        merged["tags"] = [*tags, *(tag for tag in more if tag not in tags)]
    if merged == mine:
        return front
    text = yaml.safe_dump(merged, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---\n"


def address_card(card: str, name: str, repo_id: str) -> str:
    """A generated card whose commands load the model from the Hub and not from a folder.

    Args:
        card: as it lies in the model folder.
        name: the model's name.
        repo_id: where it is published.
    """

    def rename(match: re.Match[str]) -> str:
        text = match["text"].replace(f"path/to/{name}", repo_id)
        sound = block_digest(match["text"]) == match["digest"]
        return block(match["name"], text) if sound and match["name"] in _ADDRESSED else match[0]

    return _BLOCK.sub(rename, card)


def address_of(card: str) -> str | None:
    """What the commands of a card load the model by: a path, a zoo name or a repo of the Hub."""
    used = [match["text"] for match in _BLOCK.finditer(card) if match["name"] == "use"]
    found = next(filter(None, map(_ADDRESS.search, (*used, card))), None)
    return None if found is None else found[1]

"""README.md of a model folder: read it, and renew it without losing manual edits.

A generated body consists of blocks between comments::

    <!-- cascadezoo:begin figures 0f3a... -->
    ## Figures
    ...
    <!-- cascadezoo:end figures -->

A block whose text has the digest in its first comment is unedited and is replaced by the new one.
Everything else in the body is manual: text outside blocks, edited blocks, removed blocks. The front
matter is generated; added keys and tags are kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cascadezoo.cards.check_card import FRONT, card_faults, claim_faults, read_front
from cascadezoo.cards.render_card import block, block_digest, render_card
from cascadezoo.errors import CascadezooError, ModelError
from cascadezoo.model_folder.data_trust import names_no_path
from cascadezoo.model_folder.files import read_file
from cascadezoo.model_folder.layout import CARD
from cascadezoo.plugins.faults import Owner
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec import CascadeSpec
from cascadezoo.spec.configs import DataInfo

__all__ = [
    "CardState",
    "Renewed",
    "address_card",
    "address_of",
    "data_info",
    "inspect_card",
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
"""The blocks whose commands name the model."""

_EVERY = re.compile(r"(Measured during training) \(every (\d+) of (\d+)\):")

_CLASSES = re.compile(r"pictures of (?P<count>\d+) classes(?P<names> \([^\n]*?\))? that resemble")
"""The classes in the generated text about the data."""

_ADDRESS = re.compile(r'from_pretrained\("([A-Za-z0-9][A-Za-z0-9._/@:-]{0,200})"\)')


@dataclass(frozen=True, slots=True)
class Renewed:
    """A card with renewed generated parts.

    Args:
        text: the card.
        kept: the edited blocks, which are unchanged.
        added: the blocks that were missing.
        own: whether nothing in the card is generated, so that it is unchanged.
    """

    text: str
    kept: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    own: bool = False


@dataclass(frozen=True, slots=True)
class CardState:
    """A card and its renewal.

    Args:
        before: the present text; None if the card does not exist.
        renewed: the card as this version writes it.
        faults: invalid metadata, and figures that differ from metrics.json.
    """

    before: str | None
    renewed: Renewed
    faults: tuple[str, ...] = ()

    @property
    def unchanged(self) -> bool:
        """Whether writing the card would change nothing."""
        return self.before == self.renewed.text

    @property
    def current(self) -> bool:
        """Whether the card is up to date; the wording of an earlier version does not matter."""
        if self.before is None or self.unchanged:
            return self.unchanged
        return _present_wording(self.before) == self.renewed.text


def inspect_card(
    folder: Path, spec: CascadeSpec, metrics: Mapping[str, Any], *, force: bool = False
) -> CardState:
    """Read the card of a model folder and renew it, without writing.

    Args:
        folder: the model folder.
        spec: the model's spec.
        metrics: the content of metrics.json.
        force: discard manual edits.

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
    """Render the card of a model, with the manual edits of its former card.

    Args:
        before: the former card; None if it does not exist.
        spec: the model's spec.
        metrics: the content of metrics.json.
        info: the dataset's own information; None gets it from the dataset.
        force: discard manual edits; the address in the commands is kept.
    """
    ours = render_card(spec, metrics, data_info(spec) if info is None else info)
    if info is None and before is not None:
        ours = _with_class_names(ours, before)
    address = None if before is None else address_of(before)
    if address is not None:
        ours = address_card(ours, spec.name, address)
    return Renewed(ours) if before is None or force else renew_card(ours, before)


def read_card(folder: Path) -> str | None:
    """Return the text of README.md; None if it does not exist.

    Raises:
        ModelError: it cannot be read, is not UTF-8 text, or is far too large.
    """
    path = folder / CARD
    try:
        content = read_file(folder, CARD)
    except FileNotFoundError:
        return None
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
    """The dataset's own information; empty if its plugin is missing or it may read a file."""
    row = get_registry().datasets.rows.get(spec.data.source)
    if row is None or not names_no_path(spec.data.source, spec.data.config):
        return DataInfo()
    try:
        config = row.entry.load_config()(**spec.data.config)
        with Owner.of(row).guard("in info() of its config", config.info):
            info: DataInfo = config.info()
    except (CascadezooError, ValidationError):
        return DataInfo()
    return info


def _with_class_names(ours: str, before: str) -> str:
    """A generated card with the names of the classes on the former card, if it lacks them.

    Only the build knows the names of classes that are stored with the images.
    """
    known = {m["name"]: m["text"] for m in _BLOCK.finditer(before) if _is_unedited(m)}

    def complete(match: re.Match[str]) -> str:
        named = _CLASSES.search(known.get(match["name"], ""))
        plain = _CLASSES.search(match["text"])
        if named is None or plain is None or plain["names"] or named["count"] != plain["count"]:
            return match[0]
        return block(match["name"], match["text"].replace(plain[0], named[0]))

    return _BLOCK.sub(complete, ours)


def _is_unedited(match: re.Match[str]) -> bool:
    return block_digest(match["text"]) == match["digest"]


# --- edited cards


def merge_cards(ours: str, theirs: str) -> str:
    """Merge the card of a new version with the possibly edited card on the Hub.

    Merging the result with ``ours`` again changes nothing.

    Args:
        ours: the generated card of the new version.
        theirs: the card on the Hub.
    """
    blocks = {m["name"]: m[0] for m in _BLOCK.finditer(ours)}

    def renew(match: re.Match[str]) -> str:
        touched = block_digest(match["text"]) != match["digest"]
        return match[0] if touched else blocks.get(match["name"], match[0])

    front = FRONT.match(theirs)
    body = theirs[front.end() :] if front is not None else theirs
    return f"{_merge_fronts(ours, theirs)}{_BLOCK.sub(renew, body)}"


def renew_card(ours: str, theirs: str) -> Renewed:
    """Renew the generated blocks of a model folder's card.

    Like :func:`merge_cards`, but inserts missing blocks after the one that they follow in
    ``ours``: a card from before ``evaluate --stages`` has no table of stages. A card without any
    generated block is entirely manual and stays unchanged.

    Args:
        ours: the generated card.
        theirs: the present card.
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
    """The merged front matter with its lines of dashes."""
    match = FRONT.match(ours)
    front, mine = match[0] if match is not None else "", read_front(ours)
    edited = read_front(theirs)
    if isinstance(mine, str) or isinstance(edited, str):
        return front
    merged = {**mine, **{key: value for key, value in edited.items() if key not in mine}}
    tags, more = mine.get("tags"), edited.get("tags")
    if isinstance(tags, list) and isinstance(more, list):
        merged["tags"] = [*tags, *(tag for tag in more if tag not in tags)]
    if merged == mine:
        return front
    text = yaml.safe_dump(merged, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---\n"


def address_card(card: str, name: str, repo_id: str) -> str:
    """Let the commands of a generated card load the model from the Hub, not from a folder.

    Args:
        card: the card of the model folder.
        name: the model's name.
        repo_id: the repo that the model is published to.
    """

    def rename(match: re.Match[str]) -> str:
        text = match["text"].replace(f"path/to/{name}", repo_id)
        unedited = block_digest(match["text"]) == match["digest"]
        return block(match["name"], text) if unedited and match["name"] in _ADDRESSED else match[0]

    return _BLOCK.sub(rename, card)


def address_of(card: str) -> str | None:
    """The model's address in the commands of a card: a path, a zoo name or a repo of the Hub."""
    used = [match["text"] for match in _BLOCK.finditer(card) if match["name"] == "use"]
    match = next(filter(None, map(_ADDRESS.search, (*used, card))), None)
    return None if match is None else match[1]


@cache
def _earlier_wording() -> list[tuple[str, str]]:
    """The texts of generated cards of version 0.1 and the present ones."""
    path = resources.files("cascadezoo").joinpath("cards", "earlier_wording.json")
    return [(old, new) for old, new in json.loads(path.read_text(encoding="utf-8"))]


def _present_wording(card: str) -> str:
    """A card of an earlier version with the present wording in its unedited blocks."""

    def reword(match: re.Match[str]) -> str:
        text = match["text"]
        if block_digest(text) != match["digest"]:
            return match[0]
        for old, new in _earlier_wording():
            text = text.replace(old, new)
        text = _EVERY.sub(r"\1 (1 of every \2 rows, \3 in total):", text)
        return match[0] if text == match["text"] else block(match["name"], text)

    return _BLOCK.sub(reword, card)

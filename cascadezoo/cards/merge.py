"""Cards that people edit on the Hub: what they wrote stays, what was generated is renewed.

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

import math
import re
from dataclasses import dataclass
from typing import Any

import yaml

from cascadezoo.cards.card import block, block_digest

__all__ = [
    "Renewed",
    "address_card",
    "address_of",
    "card_faults",
    "merge_cards",
    "read_front",
    "renew_card",
]

LARGEST_FRONT = 64 << 10
"""Characters of front matter; a card's is far shorter."""
DEEPEST_FRONT = 20

_OPENING = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
_FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(.*?\n)??---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_BLOCK = re.compile(
    r"<!-- cascadezoo:begin (?P<name>[a-z-]{1,40}) (?P<digest>[0-9a-f]{16}) -->\r?\n"
    r"(?P<text>.*?)\r?\n<!-- cascadezoo:end (?P=name) -->",
    re.DOTALL,
)


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

    front = _FRONT.match(theirs)
    body = theirs[front.end() :] if front is not None else theirs
    return f"{_merge_fronts(ours, theirs)}{_BLOCK.sub(renew, body)}"


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
    match = _FRONT.match(ours)
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


def read_front(card: str) -> dict[str, Any] | str:
    """The front matter of a card, or what is wrong with it."""
    match = _FRONT.match(card)
    if match is None:
        return "it has no front matter between two lines of ---"
    text = match[1] or ""
    if len(text) > LARGEST_FRONT:
        return f"its front matter has more than {LARGEST_FRONT} characters"
    try:
        if (fault := _bomb(text)) is not None:
            return fault
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 2}" if mark is not None else ""
        return f"its front matter is not YAML{place}"
    except ValueError:
        return "its front matter holds a value that is none, such as a date that does not exist"
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        return "its front matter is not a list of keys with values"
    return data


def _bomb(text: str) -> str | None:
    """What would make a short text costly to read."""
    depth = 0
    for token in yaml.scan(text):
        if isinstance(token, yaml.AliasToken):
            return "its front matter has aliases (*name), which cards do not need"
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        if depth > DEEPEST_FRONT:
            return "its front matter is nested too deeply"
    return None


def card_faults(card: str) -> list[str]:
    """What is wrong with a card's metadata, as far as it can be told without the Hub."""
    data = read_front(card)
    if isinstance(data, str):
        return [data]
    faults = []
    if data.get("library_name") != "cascadezoo":
        faults.append("library_name is not cascadezoo, by which the Hub knows how it is loaded")
    for key in ("license", "license_name", "license_link", "pipeline_tag", "model_name"):
        if key in data and not _is_text(data[key]):
            faults.append(f"{key} is not a text")
    for key in ("tags", "datasets", "metrics"):
        value = data.get(key, [])
        if not isinstance(value, list) or not all(_is_text(item) for item in value):
            faults.append(f"{key} is not a list of texts")
    index = data.get("model-index", [])
    if not isinstance(index, list):
        return [*faults, "model-index is not a list"]
    for number, model in enumerate(index):
        faults += _index_faults(model, f"model-index.{number}")
    return faults


def _index_faults(model: Any, where: str) -> list[str]:
    if not isinstance(model, dict) or not _is_text(model.get("name")):
        return [f"{where}.name is missing"]
    results = model.get("results")
    if not isinstance(results, list):
        return [f"{where}.results is not a list"]
    faults = []
    for number, result in enumerate(results):
        here = f"{where}.results.{number}"
        if not isinstance(result, dict):
            faults.append(f"{here} is not a list of keys with values")
            continue
        for part, key in (("task", "type"), ("dataset", "type"), ("dataset", "name")):
            inner = result.get(part)
            if not isinstance(inner, dict) or not _is_text(inner.get(key)):
                faults.append(f"{here}.{part}.{key} is missing")
        metrics = result.get("metrics")
        if not isinstance(metrics, list) or not metrics:
            faults.append(f"{here}.metrics is empty")
            continue
        for place, metric in enumerate(metrics):
            value = metric.get("value") if isinstance(metric, dict) else None
            if value is None or not _is_text(metric.get("type")):
                faults.append(f"{here}.metrics.{place} lacks a type or a value")
            elif isinstance(value, float) and not math.isfinite(value):
                faults.append(f"{here}.metrics.{place}.value is {value}, which is no figure")
    return faults


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


_ADDRESSED = ("use", "figures", "attribution")
_ADDRESS = re.compile(r'from_pretrained\("([A-Za-z0-9][A-Za-z0-9._/@:-]{0,200})"\)')


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

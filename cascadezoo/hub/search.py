"""Models on the Hub that carry cascadezoo's tag, whoever published them."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from cascadezoo.util.limits import REPO, is_commit
from cascadezoo.util.text import clean_remote
from cascadezoo.zoo.list import Zoos, get_zoos

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

__all__ = ["Found", "search"]

LIBRARY = "cascadezoo"
"""The tag that the card of a published model gives its repo."""

_REPO = re.compile(REPO)


@dataclass(frozen=True, slots=True)
class Found:
    """A model repo on the Hub that carries cascadezoo's tag. Nobody vouches for it.

    Args:
        repo: ``org/name``.
        commit: the newest commit, where the Hub tells it.
        downloads: in the last 30 days.
        likes: how many people liked it.
        updated: the day of the last commit, ``2026-11-21``.
        gated: whether access must be asked for.
        private: whether only its owners see it.
        tags: of the repo, without control characters.
        zoo: the names under which zoos list it.
    """

    repo: str
    commit: str | None
    downloads: int
    likes: int
    updated: str | None
    gated: bool
    private: bool
    tags: list[str]
    zoo: list[str]

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return asdict(self)


def search(text: str, *, limit: int = 20) -> list[Found]:
    """Models on the Hub with cascadezoo's tag, the most downloaded first.

    Args:
        text: what the repo's name must hold; empty for all.
        limit: how many at most.

    Raises:
        HubError: the Hub cannot be asked.
    """
    from cascadezoo.hub.client import hub_api, translated

    zoos = get_zoos()
    with translated("the search for models on the Hub"):
        answer = hub_api().list_models(
            filter=LIBRARY, search=text or None, sort="downloads", limit=limit, full=True
        )
        infos = list(islice(answer, limit))
    return [_found(info, zoos) for info in infos if _REPO.fullmatch(str(info.id))]


def _found(info: ModelInfo, zoos: Zoos) -> Found:
    """What the Hub told of a repo; none of it is taken to be of the type that it should be."""
    commit = str(info.sha)
    tags = info.tags if isinstance(info.tags, list) else []
    return Found(
        repo=info.id,
        commit=commit if is_commit(commit) else None,
        downloads=_count(info.downloads),
        likes=_count(info.likes),
        updated=None if info.last_modified is None else f"{info.last_modified:%Y-%m-%d}",
        gated=bool(info.gated),
        private=bool(info.private),
        tags=[clean_remote(str(tag), 80) for tag in tags[:50]],
        zoo=zoos.of_repo(info.id),
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0

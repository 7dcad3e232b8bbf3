"""Searches the Hub for models and plugins with cascadezoo's tags, by any publisher."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from cascadezoo.util.limits import REPO, is_commit
from cascadezoo.zoo.list import Zoos, get_zoos

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

__all__ = ["PLUGIN_TAG", "SearchResult", "search", "search_plugins"]

LIBRARY = "cascadezoo"
"""The tag of a repo, set by the card of a published model."""

PLUGIN_TAG = "cascadezoo-plugin"
"""The tag of a repo that holds a plugin; its author sets it in the front matter of README.md."""

_REPO = re.compile(REPO)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A repo on the Hub with cascadezoo's tag. Its content is not reviewed.

    Args:
        repo: ``org/name``.
        commit: the newest commit; None if the Hub does not return it.
        downloads: number of downloads in the last 30 days.
        likes: number of likes.
        updated: date of the last commit, such as ``2026-11-21``.
        gated: whether access must be requested.
        private: whether only its owners see it.
        tags: the repo's tags, without control characters.
        zoo: the names of the repo's zoo entries.
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


def search(text: str, *, limit: int = 20) -> list[SearchResult]:
    """Search the Hub for models with cascadezoo's tag, the most downloaded first.

    Args:
        text: part of the repo's name; empty for all.
        limit: maximum number of results.

    Raises:
        HubError: the search failed.
    """
    zoos = get_zoos()
    infos = _tagged(LIBRARY, text, limit, "the search for models on the Hub")
    return [_result(info, zoos) for info in infos]


def search_plugins(text: str, *, limit: int = 20) -> list[SearchResult]:
    """Search the Hub for repos with the tag of plugins, the most downloaded first.

    Args:
        text: part of the repo's name; empty for all.
        limit: maximum number of results.

    Raises:
        HubError: the search failed.
    """
    infos = _tagged(PLUGIN_TAG, text, limit, "the search for plugins on the Hub")
    return [_result(info, None) for info in infos]


def _tagged(tag: str, text: str, limit: int, what: str) -> list[ModelInfo]:
    from cascadezoo.hub.client import hub_api, translated

    with translated(what):
        response = hub_api().list_models(
            filter=tag, search=text or None, sort="downloads", limit=limit, full=True
        )
        infos = list(islice(response, limit))
    return [info for info in infos if isinstance(info.id, str) and _REPO.fullmatch(info.id)]


def _result(info: ModelInfo, zoos: Zoos | None) -> SearchResult:
    """Convert the Hub's description of a repo; every value is checked, none is trusted."""
    from cascadezoo.hub.client import remote_text

    updated, tags = info.last_modified, info.tags if isinstance(info.tags, list) else []
    return SearchResult(
        repo=remote_text(info.id),
        commit=info.sha if is_commit(info.sha) else None,
        downloads=_count(info.downloads),
        likes=_count(info.likes),
        updated=f"{updated:%Y-%m-%d}" if isinstance(updated, datetime) else None,
        gated=bool(info.gated),
        private=bool(info.private),
        tags=[remote_text(tag, 80) for tag in tags[:50]],
        zoo=[] if zoos is None else zoos.of_repo(info.id),
    )


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value < 1 << 63 else 0

"""The parts that all routes of the local Hub share: the call, the reply, the table of routes.

Replies have the Hub's status, JSON fields and error codes as far as the client reads them. One
thing differs: an anonymous request for a missing or private repo returns 401 as on the Hub, but
with X-Error-Code RepoNotFound, because the client otherwise recognises this case only in https
addresses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from hub_state import HubRefusal, HubState, Repo, Request, User


@dataclass
class Reply:
    """A response; ``file`` marks the content of a file, which ``flip`` may damage."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    file: bool = False


@dataclass
class Call:
    """A request, and access to its parts."""

    state: HubState
    request: Request
    user: User | None
    body: bytes

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.request.path).query, keep_blank_values=True)

    def flag(self, name: str) -> bool:
        return self.query.get(name, ["false"])[-1].lower() in ("true", "1")

    def json(self) -> dict[str, Any]:
        try:
            data = json.loads(self.body)
        except ValueError as error:
            raise HubRefusal(400, "The request body is not JSON") from error
        if not isinstance(data, dict):
            raise HubRefusal(400, "The request body is not an object")
        return data

    def repo(self, repo_id: str, *, write: bool = False, files: bool = False) -> Repo:
        """The repo, if the caller may see it (write to it, read its files)."""
        repo = self.state.repos.get(unquote(repo_id))
        if repo is None or not self.state.may_read(repo, self.user):
            if self.user is None:
                raise HubRefusal(401, "Invalid username or password.", "RepoNotFound")
            raise HubRefusal(404, "Repository not found", "RepoNotFound")
        if repo.disabled:
            raise HubRefusal(403, "Access to this resource is disabled.")
        if write:
            self.writer(repo.namespace)
        if files and repo.gated:
            text = f"Access to model {repo.id} is restricted"
            if self.user is None:
                raise HubRefusal(
                    401, f"{text}. You must be authenticated to access it.", "GatedRepo"
                )
            if self.user.name not in repo.allowed and not self.state.owns(
                self.user, repo.namespace
            ):
                text += " and you are not in the authorized list. Visit the page to ask for access."
                raise HubRefusal(403, text, "GatedRepo")
        return repo

    def writer(self, namespace: str) -> User:
        if self.user is None:
            raise HubRefusal(401, "Invalid username or password.")
        if not self.user.write:
            raise HubRefusal(
                403, "Forbidden: you must use a write token to upload to a repository."
            )
        if not self.state.owns(self.user, namespace):
            raise HubRefusal(
                403, f'You don\'t have the rights to create a model under "{namespace}"'
            )
        return self.user

    def paged(self, entries: Sequence[object], limit: int | None = None) -> Reply:
        """One page, with a Link header to the next."""
        size = min(limit or self.state.page_size, self.state.page_size)
        start = int(self.query.get("cursor", ["0"])[0])
        reply = as_json(entries[start : start + size])
        if start + size < len(entries):
            query = {**self.query, "cursor": [str(start + size)]}
            path = urlsplit(self.request.path).path
            reply.headers["Link"] = (
                f'<{self.state.url}{path}?{urlencode(query, doseq=True)}>; rel="next"'
            )
        return reply


Route = Callable[..., Reply]
ROUTES: list[tuple[str, re.Pattern[str], Route]] = []
_ID = r"([^/]+/[^/]+)"


def route(method: str, pattern: str) -> Callable[[Route], Route]:
    """Register a route; ``{id}`` matches a repo, ``{x}`` one quoted segment."""
    text = pattern.replace("{id}", _ID).replace("{x}", "([^/]+)").replace("{rest}", "(.*)")

    def register(function: Route) -> Route:
        ROUTES.append((method, re.compile(text), function))
        return function

    return register


def as_json(value: object, status: int = 200) -> Reply:
    body = json.dumps(value).encode()
    return Reply(body, status, {"Content-Type": "application/json; charset=utf-8"})

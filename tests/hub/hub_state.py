"""The state of the local Hub: repos as trees of files, refs, users, faults, requests.

A commit is a complete tree. Oids are computed as in git and git-lfs: a regular file has the sha1
of its git blob; an LFS file has the sha256 of its content and the sha1 of its pointer.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Literal

LFS_PATTERNS = (
    *("*.7z", "*.arrow", "*.bin", "*.bz2", "*.ckpt", "*.ftz", "*.gz", "*.h5", "*.joblib"),
    *("*.mlmodel", "*.model", "*.msgpack", "*.npy", "*.npz", "*.onnx", "*.ot", "*.parquet"),
    *("*.pb", "*.pickle", "*.pkl", "*.pt", "*.pth", "*.rar", "*.safetensors", "*.tar", "*.tar.*"),
    *("*.tflite", "*.tgz", "*.wasm", "*.xz", "*.zip", "*.zst", "*tfevents*"),
)
GITATTRIBUTES = "".join(f"{p} filter=lfs diff=lfs merge=lfs -text\n" for p in LFS_PATTERNS).encode()
LFS_ABOVE = 10 * 2**20
_NAME = re.compile(r"(?![.-])[A-Za-z0-9_.-]{1,96}(?<![.-])")
_HEX = re.compile(r"[0-9a-f]{40}")


class HubRefusal(Exception):
    """An error response: status, message, X-Error-Code, further JSON fields."""

    def __init__(
        self, status: int, message: str, code: str | None = None, **fields: object
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.fields = status, message, code, fields
        self.headers: dict[str, str] = {}


def blob_oid(content: bytes) -> str:
    """The sha1 of a git blob."""
    head = b"blob %d\0" % len(content)
    return hashlib.sha1(head + content).hexdigest()


def pointer(content: bytes) -> bytes:
    """The git-lfs pointer file of an object."""
    oid = hashlib.sha256(content).hexdigest()
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n"
    ).encode()


@dataclass(frozen=True)
class Commit:
    """A commit: ``files`` is the complete tree, ``lfs`` the paths of its LFS files."""

    oid: str
    files: Mapping[str, bytes]
    message: str
    description: str = ""
    parent: str | None = None
    lfs: frozenset[str] = frozenset()
    author: str = "tester"
    date: datetime = field(default_factory=lambda: datetime.now(UTC))

    def entry(self, path: str) -> dict[str, object]:
        """The file in the form of the tree API."""
        content = self.files[path]
        if path not in self.lfs:
            oid = blob_oid(content)
            return {"type": "file", "oid": oid, "size": len(content), "path": path}
        text = pointer(content)
        sha256 = hashlib.sha256(content).hexdigest()
        lfs = {"oid": sha256, "size": len(content), "pointerSize": len(text)}
        size = len(content)
        return {"type": "file", "oid": blob_oid(text), "size": size, "path": path, "lfs": lfs}

    def etag(self, path: str) -> str:
        """The ETag of a download: sha256 of an LFS file, otherwise the git oid."""
        content = self.files[path]
        return hashlib.sha256(content).hexdigest() if path in self.lfs else blob_oid(content)

    def folders(self) -> dict[str, str]:
        """Every folder of the tree, with an oid that depends on its content."""
        members: dict[str, list[str]] = {}
        for path in sorted(self.files):
            parts = path.split("/")
            for depth in range(1, len(parts)):
                members.setdefault("/".join(parts[:depth]), []).append(path + self.etag(path))
        return {f: hashlib.sha1("\0".join(of).encode()).hexdigest() for f, of in members.items()}


class Repo:
    """A model repo. Tests may read and set everything.

    Attributes:
        commits: every commit of every branch and pull request, newest last.
        branches, tags: names to commit oids; ``main`` always exists.
        pulls: numbers of pull requests to the oids of their heads (``refs/pr/N``).
        objects: the uploaded LFS objects by sha256, committed or not.
        private: only its namespace may read it.
        gated: False, "auto" or "manual": only ``allowed`` and the namespace may read files.
        disabled: the Hub has disabled it.
        downloads: number of requests (HEAD and GET) for the root config.json, as the Hub counts.
    """

    def __init__(
        self,
        repo_id: str,
        *,
        private: bool = False,
        gated: Literal[False, "auto", "manual"] = False,
    ) -> None:
        self.id, self.private, self.gated = repo_id, private, gated
        self.disabled = False
        self.allowed: set[str] = set()
        self.downloads = 0
        self.likes = 0
        self.created = datetime.now(UTC)
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.commits: list[Commit] = []
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.pulls: dict[int, str] = {}
        self._serial = 0
        self.commit({".gitattributes": GITATTRIBUTES}, message="initial commit")

    @property
    def namespace(self) -> str:
        return self.id.partition("/")[0]

    def head(self, revision: str = "main") -> Commit:
        """The commit of a branch, a tag, ``refs/pr/N`` or an oid.

        Raises:
            HubRefusal: 404 RevisionNotFound.
        """
        name = revision.removeprefix("refs/heads/")
        oid = self.branches.get(name) or self.tags.get(name.removeprefix("refs/tags/"))
        if oid is None and (number := revision.removeprefix("refs/pr/")).isdigit():
            oid = self.pulls.get(int(number))
        for commit in self.commits:
            if commit.oid == (oid or revision):
                return commit
        raise HubRefusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def is_lfs(self, path: str, size: int, sample: bytes = b"", revision: str = "main") -> bool:
        """Whether a file must be LFS: by .gitattributes, above 10 MiB, or not text."""
        if size > LFS_ABOVE or b"\0" in sample:
            return True
        attributes = b""
        if revision in self.branches or _HEX.fullmatch(revision):
            attributes = self.head(revision).files.get(".gitattributes", b"")
        name = path.rpartition("/")[2]
        for line in attributes.decode().splitlines():
            pattern, _, rest = line.partition(" ")
            if "filter=lfs" in rest and fnmatchcase(path if "/" in pattern else name, pattern):
                return True
        return False

    def commit(
        self,
        files: Mapping[str, bytes],
        *,
        deleted: Iterable[str] = (),
        message: str = "commit",
        description: str = "",
        revision: str = "main",
        lfs: Iterable[str] | None = None,
        author: str = "tester",
        parent: str | None = None,
        pull: bool = False,
    ) -> Commit:
        """Add a commit without a request, like an edit in the browser.

        Args:
            files: contents by path, added or replaced.
            deleted: paths to delete first.
            revision: the branch or ``refs/pr/N`` to move; a missing branch starts at main.
            lfs: the paths of ``files`` that are LFS; None decides as the Hub does.
            parent: the parent commit, instead of the head of ``revision``.
            pull: open a pull request instead of moving a branch.
        """
        start = self.branches.get(revision) or self.branches.get("main")
        number = revision.removeprefix("refs/pr/")
        if number.isdigit() and int(number) in self.pulls:
            start = self.pulls[int(number)]
        before = self.head(parent or start) if start else None
        tree = dict(before.files) if before else {}
        large = set(before.lfs) if before else set()
        for path in deleted:
            del tree[path]
            large.discard(path)
        for path, content in files.items():
            if lfs is not None:
                is_lfs = path in lfs
            else:
                at = before.oid if before else ""
                is_lfs = self.is_lfs(path, len(content), content[:512], at)
            tree[path] = bytes(content)
            (large.add if is_lfs else large.discard)(path)
            if is_lfs:
                self.objects[hashlib.sha256(content).hexdigest()] = tree[path]
        self._serial += 1
        seal = hashlib.sha1(f"{self.id}\0{self._serial}\0{message}\0{start}".encode())
        for path in sorted(tree):
            seal.update(f"{path}\0{blob_oid(tree[path])}\0".encode())
        made = Commit(
            oid=seal.hexdigest(),
            files=MappingProxyType(tree),
            message=message,
            description=description,
            parent=before.oid if before else None,
            lfs=frozenset(large),
            author=author,
        )
        self.commits.append(made)
        if pull:
            self.pulls[max(self.pulls, default=0) + 1] = made.oid
        elif number.isdigit() and int(number) in self.pulls:
            self.pulls[int(number)] = made.oid
        else:
            self.branches[revision] = made.oid
        return made

    def history(self, revision: str) -> list[Commit]:
        """A commit and its ancestors, newest first."""
        commits = [self.head(revision)]
        while (parent := commits[-1].parent) is not None:
            commits.append(self.head(parent))
        return commits


@dataclass(frozen=True)
class User:
    """The owner of a token; ``write`` is False for a read-only token."""

    name: str
    write: bool = True


@dataclass(frozen=True)
class Fault:
    """A fault that occurs ``times`` times.

    Args:
        kind: ``status`` returns ``status`` with ``headers`` and does nothing else. ``cut`` closes
            the connection: of a GET after ``after_bytes`` of the response body, of a PUT or POST
            after ``after_bytes`` of the request body (which is discarded), of a HEAD at once.
            ``flip`` inverts a bit of byte ``after_bytes`` of a downloaded file (of its last byte
            if the file is shorter). ``refuse-lfs`` refuses objects: for ``.../objects/batch`` each
            object of the batch has an error with code ``status``; a PUT or a verification returns
            ``status``. ``lost-response`` processes the request and closes the connection without a
            response. ``slow`` sends ``after_bytes`` of the response body (nothing if 0), waits
            ``seconds``, and continues. ``headers`` adds or replaces ``headers`` of the response.
            ``endless`` returns ``status`` and ``headers``, then ``body`` again and again until the
            client disconnects; ``request.sent`` counts the bytes. ``drip`` sends the response byte
            by byte, each after ``seconds``, without an end: its headers, or its body if
            ``after_bytes`` is not 0.
        match: a regular expression for ``METHOD /path?query`` (path quoted as sent).
        body: the body of a ``status`` response; None is the Hub's JSON.
    """

    kind: Literal[
        "status", "cut", "flip", "refuse-lfs", "lost-response", "slow", "headers", "endless", "drip"
    ]
    match: str
    times: int = 1
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    after_bytes: int = 0
    seconds: float = 1.0
    body: bytes | None = None


@dataclass
class Request:
    """A received request; ``status`` is the status of the response, None if the connection was cut.

    ``headers`` has lower-case names; ``path`` is quoted and includes the query, as sent; ``body``
    is empty for uploaded objects; ``size`` is the number of received bytes.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""
    size: int = 0
    sent: int = 0
    status: int | None = None
    user: str | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def json(self) -> object:
        return json.loads(self.body)


@dataclass
class HubState:
    """The state that the routes share. Hold ``lock`` while reading or changing it.

    Attributes:
        users: the users by token.
        foreign: namespaces in which no user of this hub may write; ``tester`` owns all others.
        orgs: the organisations of ``tester`` that whoami lists (not all).
        page_size: maximum number of entries per page of a tree or a list.
        multipart_above: size in bytes above which an upload has parts of ``part_size``.
    """

    url: str = ""
    cdn: str = ""
    signature: str = field(default_factory=lambda: secrets.token_hex(8))
    repos: dict[str, Repo] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=lambda: {"foreign"})
    orgs: tuple[str, ...] = ("org",)
    page_size: int = 1000
    multipart_above: int = 20 * 2**20
    part_size: int = 8 * 2**20
    lock: threading.RLock = field(default_factory=threading.RLock)
    requests: list[Request] = field(default_factory=list)
    faults: list[tuple[Fault, int]] = field(default_factory=list)
    fired: list[tuple[Fault, Request]] = field(default_factory=list)
    hooks: list[tuple[str, Callable[[], object]]] = field(default_factory=list)

    def take(self, request: Request, *kinds: str) -> Fault | None:
        """The first pending fault of these kinds that matches the request; its count decreases."""
        with self.lock:
            for at, (fault, left) in enumerate(self.faults):
                if fault.kind in kinds and re.search(fault.match, str(request)):
                    self.faults[at : at + 1] = [(fault, left - 1)] if left > 1 else []
                    self.fired.append((fault, request))
                    return fault
        return None

    def may_read(self, repo: Repo, user: User | None) -> bool:
        return not repo.private or (user is not None and self.owns(user, repo.namespace))

    def owns(self, user: User, namespace: str) -> bool:
        return namespace == user.name or (user.name == "tester" and namespace not in self.foreign)

    def make(self, repo_id: str, *, private: bool = False) -> Repo:
        """A new repo.

        Raises:
            HubRefusal: 400 for an invalid name, 409 for an existing repo.
        """
        parts = repo_id.split("/")
        if len(parts) != 2 or not all(_NAME.fullmatch(p) for p in parts) or "--" in repo_id:
            raise HubRefusal(400, f"Invalid repo name: {repo_id} - does not match the rules")
        if repo_id in self.repos:
            raise HubRefusal(
                409, "You already created this model repo", url=f"{self.url}/{repo_id}"
            )
        self.repos[repo_id] = Repo(repo_id, private=private)
        return self.repos[repo_id]

"""The result of a publish to the Hub."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Published"]


@dataclass(frozen=True, slots=True)
class Published:
    """The result of a publish to the Hub.

    Args:
        name: the model's name.
        repo: ``org/name``.
        url: the page of the repo, or of the branch.
        commit: the commit that holds the model; None if a dry run would create it.
        pr_url: the page of the pull request.
        tag: the tag of the commit.
        files: size in bytes of every file of the model, by its path.
        deleted: the deleted files of an older version.
        uploaded_bytes: size of the new and changed files, including any that had arrived earlier.
        changed: False if the repo held the same model already and no commit was made.
        created: the repo was created.
        card_kept: the card was edited on the Hub, and the edits were kept.
        dry_run: the result describes a publish that was not made.
    """

    name: str
    repo: str
    url: str
    commit: str | None
    files: dict[str, int]
    deleted: list[str] = field(default_factory=list)
    uploaded_bytes: int = 0
    changed: bool = True
    created: bool = False
    card_kept: bool = False
    pr_url: str | None = None
    tag: str | None = None
    dry_run: bool = False

    @property
    def size(self) -> int:
        """Size in bytes of all files."""
        return sum(self.files.values())

    def __str__(self) -> str:
        return self.pr_url or self.url

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "name": self.name,
            "repo": self.repo,
            "url": self.url,
            "commit": self.commit,
            "pr_url": self.pr_url,
            "tag": self.tag,
            "bytes": self.size,
            "files": self.files,
            "deleted": self.deleted,
            "uploaded_bytes": self.uploaded_bytes,
            "changed": self.changed,
            "created": self.created,
            "card_kept": self.card_kept,
            "dry_run": self.dry_run,
        }

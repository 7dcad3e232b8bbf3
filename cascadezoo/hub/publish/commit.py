"""Publishes to the Hub as one commit, or not at all.

The order of the steps guarantees this:

1. All local checks precede the first request.
2. The branch is read: its commit and its files. Files that it has already are not sent.
3. Weights are uploaded as LFS objects, which no commit refers to yet. An object that has arrived
   is not sent again, even if the publish is interrupted and repeated.
4. One commit on top of the commit that was read (``parent_commit``) adds, replaces and deletes
   files. If its response is lost, the branch is read again; if the branch holds the model, the
   commit succeeded. The same check makes it safe to repeat the commit.
5. The tag is set last.

Weights are sent by git LFS over HTTP. With Xet, the client cannot send to a server without Xet,
and ``upload_folder`` may split a folder into several commits. ``create_commit`` makes one commit
and never sends an open file by Xet, whether or not ``HF_HUB_DISABLE_XET`` is set.
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from cascadezoo._version import __version__
from cascadezoo.errors import (
    HubConflictError,
    HubError,
    HubNotFoundError,
    HubUnavailableError,
    InputError,
)
from cascadezoo.hub.client import hub_api, malformed, remote_text, translated
from cascadezoo.hub.locate import locate
from cascadezoo.hub.publish.contents import Prepared, check_message, prepare, require_card
from cascadezoo.hub.publish.preconditions import (
    check_options,
    repo_of,
    require_private,
    require_token,
    require_writer,
    validate_card,
)
from cascadezoo.hub.publish.remote import Remote, RepoChanges, plan_changes, read_remote
from cascadezoo.hub.publish.result import Published
from cascadezoo.model_folder.layout import CARD
from cascadezoo.util.limits import is_commit
from cascadezoo.util.retry import WAITS, hub_patience, retry, wait

__all__ = ["publish_hub"]

_MAX_MOVES = 3
"""How often other commits may move the branch during a publish before it fails."""


def publish_hub(
    model: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    tag: str | None = None,
    message: str | None = None,
    dry_run: bool = False,
) -> Published:
    """Publish a model to a repo on the Hub as one commit; see the docstring of this module.

    Args:
        model: a model folder, or the run folder of a finished build.
        repo_id: ``org/name``; the repo is created if it does not exist.
        private: create a private repo. An existing public repo is an error.
        revision: the branch; None is ``main``. A missing branch is created from ``main``.
        create_pr: open a pull request and do not change the branch.
        tag: a tag for the commit.
        message: the commit's first line.
        dry_run: check everything, read the repo, and change nothing.

    Raises:
        ModelReferenceError: ``model`` does not exist, or ``repo_id`` is not a repo id.
        ModelError: the model is incomplete, has a file other than safetensors, or contains a
            secret, or its card is not valid.
        InputError: the options contradict each other, or the tag exists already.
        HubDeniedError: the token is missing or has insufficient rights.
        HubConflictError: other commits keep moving the branch.
        HubRefusedError: the Hub rejects the card, a file or the commit.
        HubUnavailableError: the Hub cannot be reached, or keeps failing for a minute; the repo is
            unchanged.
    """
    repo_id = repo_of(repo_id)
    check_options(revision, create_pr=create_pr, tag=tag)
    token = require_token(repo_id)
    prepared = prepare(locate(model), repo_id, token=token)
    text = check_message(message or f"Publish {prepared.name} with cascadezoo {__version__}")
    push = _Push(prepared, repo_id, token, private, revision, create_pr, tag, text, dry_run)
    with hub_patience():
        return push.run()


@dataclass
class _Push:
    prepared: Prepared
    repo_id: str
    token: str = field(repr=False)
    private: bool
    revision: str | None
    create_pr: bool
    tag: str | None
    message: str
    dry_run: bool
    created: bool = False
    new_branch: bool = False
    """Whether the branch must be created."""
    tags: dict[str, str] = field(default_factory=dict)
    pulls: frozenset[str] = frozenset()
    """The pull requests before the commit."""

    def __post_init__(self) -> None:
        self.api = hub_api(self.token)

    def run(self) -> Published:
        require_writer(self.api)
        remote = self.find_branch()
        if remote is not None:
            require_private(remote, self.private)
        plan = self.plan(remote or Remote(self.repo_id))
        self.check_card(plan)
        if remote is not None and self.tag is not None:
            self.tags = self.refs()[0]
        if self.tag in self.tags and (plan or self.tags[self.tag] != (remote and remote.commit)):
            raise InputError(
                f"the tag {self.tag!r} of {self.repo_id} exists and points to another commit",
                hint="nothing was sent. Choose another tag, or delete the existing one on the Hub",
                code="input-tag-taken",
                name=self.tag,
            )
        if self.dry_run:
            return self.result(plan, remote.commit if remote is not None and not plan else None)
        if remote is None or self.new_branch:
            remote = self.create_branch(remote)
            plan = self.plan(remote)
        return self.commit(plan, remote)

    # --- before

    def find_branch(self) -> Remote | None:
        """The branch, or ``main`` if the branch does not exist; None without a repo."""
        for revision in dict.fromkeys((self.revision, None)):
            try:
                remote = retry(partial(read_remote, self.api, self.repo_id, revision))
            except HubNotFoundError:
                continue
            self.new_branch = revision != self.revision
            return remote
        return None

    def plan(self, remote: Remote) -> RepoChanges:
        return retry(lambda: plan_changes(self.api, self.prepared, remote))

    def check_card(self, plan: RepoChanges) -> None:
        """Let the Hub validate the card's metadata before anything is created or sent."""
        cards = [model_file for model_file in plan.added if model_file.name == CARD]
        for card in cards:
            with card.open() as file:
                text = file.read().decode()
            if plan.card_kept:
                require_card(text, f"the card of {self.repo_id} after the merge")
            retry(partial(validate_card, self.api, text))

    def refs(self) -> tuple[dict[str, str], dict[str, str]]:
        """The tags and the pull requests, each with its commit."""
        what = f"the branches and tags of {self.repo_id}"

        def request() -> tuple[dict[str, str], dict[str, str]]:
            with translated(what):
                refs = self.api.list_repo_refs(self.repo_id, include_pull_requests=self.create_pr)
            rows = [*refs.tags, *(refs.pull_requests or [])]
            for row in rows:
                named = isinstance(row.name, str) and isinstance(row.ref, str)
                if not named or not is_commit(row.target_commit):
                    raise malformed(what, "no names and commits")
            tags = {t.name: t.target_commit for t in refs.tags}
            return tags, {p.ref: p.target_commit for p in refs.pull_requests or []}

        return retry(request)

    def create_branch(self, remote: Remote | None) -> Remote:
        """Create the repo if it does not exist, and the branch."""

        def create_repo() -> None:
            with translated(f"creating {self.repo_id}"):
                self.api.create_repo(self.repo_id, private=self.private, exist_ok=True)

        if remote is None:
            retry(create_repo)
            self.created = True

        def create_branch() -> None:
            with translated(f"creating the branch {self.revision} of {self.repo_id}"):
                self.api.create_branch(self.repo_id, branch=self.revision or "", exist_ok=True)

        if self.revision is not None and not self.create_pr:
            retry(create_branch)
        branch = retry(lambda: read_remote(self.api, self.repo_id, self.revision))
        # Another user may have created a public repo between the two requests.
        require_private(branch, self.private)
        return branch

    # --- the commit

    def commit(self, plan: RepoChanges, remote: Remote) -> Published:
        if self.create_pr:
            self.pulls = frozenset(self.refs()[1])
        last = plan
        commit, pr_url = remote.commit, None
        moves, waits = 0, iter(WAITS)
        while plan:
            try:
                commit, pr_url = self.send(plan, remote)
                self.verify(commit, plan)
                break
            except (HubUnavailableError, HubConflictError) as error:
                current = self.recover(error, plan, remote)
                if isinstance(current, tuple):
                    commit, pr_url = current
                    break
                if current.commit != remote.commit:
                    moves += 1
                    if moves >= _MAX_MOVES:
                        raise self.moved(error) from None
                    remote, commit = current, current.commit
                    plan = self.plan(remote)
                    last = plan or last
                    self.check_card(plan)
                else:
                    wait(error, waits)
        if self.tag is not None and self.tags.get(self.tag) != commit:
            self.set_tag(commit)
        return self.result(last, commit, pr_url)

    def send(self, plan: RepoChanges, remote: Remote) -> tuple[str, str | None]:
        """Upload the missing files, then commit.

        Returns:
            The commit and the page of the pull request.
        """
        with ExitStack() as stack:
            added = []
            for model_file in plan.added:
                file = stack.enter_context(model_file.open())
                model_file.check(file)
                added.append(CommitOperationAdd(model_file.name, file))
            size = sum(model_file.size for model_file in plan.added)
            with translated(f"sending files to {self.repo_id}", upload=size):
                self.api.preupload_lfs_files(
                    self.repo_id,
                    added,
                    revision=self.revision,
                    create_pr=self.create_pr,
                    free_memory=False,
                    # A .gitignore in the repo must not exclude model files.
                    gitignore_content="# none\n",
                )
            deleted = [CommitOperationDelete(name, is_folder=False) for name in plan.deleted]
            what = f"the commit to {self.repo_id}"
            with translated(what, upload=size), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the card, which has been validated
                made = self.api.create_commit(
                    self.repo_id,
                    [*added, *deleted],
                    commit_message=self.message,
                    revision=self.revision,
                    create_pr=self.create_pr,
                    parent_commit=remote.commit,
                )
        if not is_commit(made.oid):
            raise malformed(what, "no commit")
        # The client requires the page of a pull request.
        return made.oid, None if made.pr_url is None else remote_text(made.pr_url, 1000)

    def recover(
        self, error: HubError, plan: RepoChanges, remote: Remote
    ) -> Remote | tuple[str, str | None]:
        """Read the branch after a commit failed or its response was lost.

        Returns:
            The commit and the pull request if the commit succeeded; otherwise the current state
            of the branch.
        """
        try:
            if self.create_pr:
                return self.find_pull() or self.without_pull(error, remote)
            current = retry(lambda: read_remote(self.api, self.repo_id, self.revision))
        except HubError as other:
            if other is error:
                raise
            raise type(error)(
                f"{error.what}. Whether the commit succeeded is unknown",
                hint="run the same command again: it checks, and sends only the missing files",
                code=error.code,
                commit=None,
            ) from None
        if current.commit != remote.commit and not self.plan(current):
            return current.commit, None
        return current

    def find_pull(self) -> tuple[str, str] | None:
        """A new pull request that holds the model."""
        for ref, commit in self.refs()[1].items():
            if ref not in self.pulls and not self.plan(self.at(commit)):
                return commit, f"{self.url}/discussions/{ref.rpartition('/')[2]}"
        return None

    def without_pull(self, error: HubError, remote: Remote) -> Remote:
        """The branch, if it is safe to send the pull request again."""
        if isinstance(error, HubUnavailableError) and error.retry_after is None:
            # A repeated request could open a second pull request.
            error.hint = (
                f"check {self.url}/discussions for the pull request; if it is missing, run the "
                "command again"
            )
            raise error
        return remote

    def at(self, commit: str) -> Remote:
        return retry(lambda: read_remote(self.api, self.repo_id, commit))

    def moved(self, error: HubError) -> HubConflictError:
        return HubConflictError(
            f"other commits keep changing {self.repo_id} during the publish ({error.what})",
            hint="the model was not published; run the same command again later",
            code="hub-conflict-publish-race",
        )

    # --- after

    def verify(self, commit: str, plan: RepoChanges) -> None:
        """Check that the commit holds the model; a server's rules may exclude files."""
        with suppress(HubUnavailableError):
            files = self.at(commit).files
            missing = [n for n, p in plan.wanted.items() if n not in files or not files[n].holds(p)]
            if missing:
                raise HubError(
                    f"the commit {commit} of {self.repo_id} lacks {', '.join(missing[:5])}",
                    hint="check the repo's .gitignore and .gitattributes, then run the command "
                    "again",
                    code="hub-commit-incomplete",
                    names=tuple(missing),
                )

    def set_tag(self, commit: str) -> None:
        def create_tag() -> None:
            with translated(f"the tag {self.tag} of {self.repo_id}"):
                self.api.create_tag(self.repo_id, tag=self.tag or "", revision=commit)

        try:
            try:
                retry(create_tag)
            except HubConflictError:
                # The tag exists. After a lost response it points to this commit.
                if self.refs()[0].get(self.tag or "") != commit:
                    raise
        except HubError as error:
            raise type(error)(
                f"the model was published as commit {commit}, but not tagged: {error.what}",
                hint="run the same command again, or with another --tag; only the tag is missing",
                code=error.code,
                commit=commit,
            ) from None

    @property
    def url(self) -> str:
        return f"{self.api.endpoint}/{self.repo_id}"

    def result(self, plan: RepoChanges, commit: str | None, pr_url: str | None = None) -> Published:
        tree = f"/tree/{self.revision}" if self.revision is not None and not self.create_pr else ""
        return Published(
            name=self.prepared.name,
            repo=self.repo_id,
            url=f"{self.url}{tree}",
            commit=commit,
            files={name: model_file.size for name, model_file in plan.wanted.items()},
            deleted=[remote_text(name, 1000) for name in plan.deleted],
            uploaded_bytes=sum(model_file.size for model_file in plan.added),
            changed=bool(plan),
            created=self.created,
            card_kept=plan.card_kept,
            pr_url=pr_url,
            tag=self.tag,
            dry_run=self.dry_run,
        )

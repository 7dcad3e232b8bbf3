"""Publishing to the Hub: one commit, or none.

What is sent, and in which order, follows from that:

1. Everything that can be looked at here is looked at before the first request.
2. The branch is read: its commit and what its files are. What is there already is not sent.
3. Weights are uploaded as LFS objects, which no commit names yet. An object that arrived once is
   not sent again, however often the publish is interrupted.
4. One commit, on top of the very commit that was read (``parent_commit``), adds, replaces and
   deletes. Its answer may be lost: the branch is then read again, and if it holds the model, the
   commit was made. The same check makes it safe to send the commit a second time.
5. The tag is set last.

Weights always go by git LFS over HTTP: by Xet the client cannot send to a server without Xet, and
``upload_folder`` may make several commits of one folder. ``create_commit`` makes one, and what it
is handed as an open file it never sends by Xet, whether or not ``HF_HUB_DISABLE_XET`` is set.
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
from cascadezoo.hub.client import hub_api, translated
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
from cascadezoo.hub.publish.remote import Remote, RepoChanges, look, plan_changes
from cascadezoo.hub.publish.result import Published
from cascadezoo.model_folder.layout import CARD
from cascadezoo.util.retry import WAITS, retry, wait

__all__ = ["publish_hub"]

_MOVES = 3
"""How often somebody else may change the branch in the meantime."""


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
    """Publish a model to a repo on the Hub as one commit; see the head of this module.

    Args:
        model: a model folder, or the run folder of a finished build.
        repo_id: ``org/name``; the repo is made where there is none.
        private: make the repo a private one. One that is public stays so and is an error.
        revision: the branch; None is ``main``. One that is missing is made, from ``main``.
        create_pr: open a pull request and leave the branch alone.
        tag: what to tag the commit with.
        message: the commit's first line.
        dry_run: check everything, ask the Hub what is there, and change nothing.

    Raises:
        ModelReferenceError: ``model`` leads nowhere, or ``repo_id`` is not the id of a repo.
        ModelError: the model is not whole, not all safetensors, holds a secret, or its card is
            not valid.
        InputError: options that do not go together, or a tag that is taken.
        HubDeniedError: no token, or none that may do this.
        HubConflictError: others keep changing the branch.
        HubRefusedError: the Hub does not take the card, a file, or the commit.
        HubUnavailableError: the Hub cannot be reached; the repo is as it was.
    """
    repo_id = repo_of(repo_id)
    check_options(revision, create_pr=create_pr, tag=tag)
    token = require_token(repo_id)
    prepared = prepare(locate(model), repo_id, token=token)
    text = check_message(message or f"Publish {prepared.name} with cascadezoo {__version__}")
    push = _Push(prepared, repo_id, token, private, revision, create_pr, tag, text, dry_run)
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
    begins: bool = False
    """Whether the branch has to be made."""
    tags: dict[str, str] = field(default_factory=dict)
    pulls: frozenset[str] = frozenset()
    """The pull requests that were there before."""

    def __post_init__(self) -> None:
        self.api = hub_api(self.token)

    def run(self) -> Published:
        require_writer(self.api)
        remote = self.find()
        if remote is not None:
            require_private(remote, self.private)
        plan = self.plan(remote or Remote(self.repo_id))
        self.check_card(plan)
        if remote is not None and self.tag is not None:
            self.tags = self.refs()[0]
        if self.tag in self.tags and (plan or self.tags[self.tag] != (remote and remote.commit)):
            raise InputError(
                f"{self.repo_id} has a tag {self.tag!r} already, which leads to another commit",
                hint="nothing was sent. Choose another tag, or delete that one on the Hub",
                code="input-tag-taken",
                name=self.tag,
            )
        if self.dry_run:
            return self.result(plan, remote.commit if remote is not None and not plan else None)
        if remote is None or self.begins:
            remote = self.make(remote)
            plan = self.plan(remote)
        return self.commit(plan, remote)

    # --- before

    def find(self) -> Remote | None:
        """The branch; where it is missing, main, from which it will begin; None without a repo."""
        for revision in dict.fromkeys((self.revision, None)):
            try:
                found = retry(partial(look, self.api, self.repo_id, revision))
            except HubNotFoundError:
                continue
            self.begins = revision != self.revision
            return found
        return None

    def plan(self, remote: Remote) -> RepoChanges:
        return retry(lambda: plan_changes(self.api, self.prepared, remote))

    def check_card(self, plan: RepoChanges) -> None:
        """Have the Hub validate the card's metadata before anything is made or sent there."""
        cards = [piece for piece in plan.added if piece.name == CARD]
        for card in cards:
            with card.open() as file:
                text = file.read().decode()
            if plan.card_kept:
                require_card(text, f"the card that is on the Hub in {self.repo_id}, once renewed,")
            retry(partial(validate_card, self.api, text))

    def refs(self) -> tuple[dict[str, str], dict[str, str]]:
        """The tags and the pull requests, with the commits that they lead to."""

        def ask() -> tuple[dict[str, str], dict[str, str]]:
            with translated(f"the branches and tags of {self.repo_id}"):
                found = self.api.list_repo_refs(self.repo_id, include_pull_requests=self.create_pr)
            tags = {t.name: t.target_commit for t in found.tags}
            return tags, {p.ref: p.target_commit for p in found.pull_requests or []}

        return retry(ask)

    def make(self, remote: Remote | None) -> Remote:
        def ask() -> None:
            with translated(f"making {self.repo_id}"):
                self.api.create_repo(self.repo_id, private=self.private, exist_ok=True)

        if remote is None:
            retry(ask)
            self.created = True

        def branch() -> None:
            with translated(f"making the branch {self.revision} of {self.repo_id}"):
                self.api.create_branch(self.repo_id, branch=self.revision or "", exist_ok=True)

        if self.revision is not None and not self.create_pr:
            retry(branch)
        found = retry(lambda: look(self.api, self.repo_id, self.revision))
        # Somebody may have made a public one between the two requests.
        require_private(found, self.private)
        return found

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
                found = self.recover(error, plan, remote)
                if isinstance(found, tuple):
                    commit, pr_url = found
                    break
                if found.commit != remote.commit:
                    moves += 1
                    if moves >= _MOVES:
                        raise self.moved(error) from None
                    remote, commit = found, found.commit
                    plan = self.plan(remote)
                    last = plan or last
                    self.check_card(plan)
                else:
                    wait(error, waits)
        if self.tag is not None and self.tags.get(self.tag) != commit:
            self.set_tag(commit)
        return self.result(last, commit, pr_url)

    def send(self, plan: RepoChanges, remote: Remote) -> tuple[str, str | None]:
        """Upload what is missing, then commit; the commit and the pull request."""
        with ExitStack() as stack:
            added = []
            for piece in plan.added:
                file = stack.enter_context(piece.open())
                piece.check(file)
                added.append(CommitOperationAdd(piece.name, file))
            with translated(f"sending files to {self.repo_id}"):
                self.api.preupload_lfs_files(
                    self.repo_id,
                    added,
                    revision=self.revision,
                    create_pr=self.create_pr,
                    free_memory=False,
                    # A .gitignore in the repo must not take files out of the model.
                    gitignore_content="# none\n",
                )
            deleted = [CommitOperationDelete(name, is_folder=False) for name in plan.deleted]
            with translated(f"the commit to {self.repo_id}"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the card, which was validated before
                made = self.api.create_commit(
                    self.repo_id,
                    [*added, *deleted],
                    commit_message=self.message,
                    revision=self.revision,
                    create_pr=self.create_pr,
                    parent_commit=remote.commit,
                )
        return made.oid, made.pr_url

    def recover(
        self, error: HubError, plan: RepoChanges, remote: Remote
    ) -> Remote | tuple[str, str | None]:
        """What became of a commit that failed, or whose answer was lost.

        Returns:
            The commit, and the pull request, where it was made after all; else the branch as it
            is now.
        """
        try:
            if self.create_pr:
                return self.find_pull() or self.no_pull(error, remote)
            found = retry(lambda: look(self.api, self.repo_id, self.revision))
        except HubError as other:
            if other is error:
                raise
            raise type(error)(
                f"{error.what}. Whether the commit was made could not be asked",
                hint="run the same command again: it looks, and sends only what is missing",
                code=error.code,
            ) from None
        if found.commit != remote.commit and not self.plan(found):
            return found.commit, None
        return found

    def find_pull(self) -> tuple[str, str] | None:
        """A pull request that was not there before and holds the model."""
        for ref, commit in self.refs()[1].items():
            if ref not in self.pulls and not self.plan(self.at(commit)):
                return commit, f"{self.url}/discussions/{ref.rpartition('/')[2]}"
        return None

    def no_pull(self, error: HubError, remote: Remote) -> Remote:
        if isinstance(error, HubUnavailableError) and error.retry_after is None:
            # Sent again, it could become a second pull request.
            error.hint = f"look at {self.url}/discussions whether it is there, then run it again"
            raise error
        return remote

    def at(self, commit: str) -> Remote:
        return retry(lambda: look(self.api, self.repo_id, commit))

    def moved(self, error: HubError) -> HubConflictError:
        return HubConflictError(
            f"others keep changing {self.repo_id} while this model is published ({error.what})",
            hint="the model was not published; run the same command again when they are done",
            code="hub-conflict-publish-race",
        )

    # --- after

    def verify(self, commit: str, plan: RepoChanges) -> None:
        """Look whether the commit is the model, since a server may leave out files by its rules."""
        with suppress(HubUnavailableError):
            found = self.at(commit).files
            missing = [n for n, p in plan.wanted.items() if n not in found or not found[n].holds(p)]
            if missing:
                raise HubError(
                    f"the commit {commit} of {self.repo_id} lacks {', '.join(missing[:5])}",
                    hint="look at .gitignore and .gitattributes of the repo, then run it again",
                    code="hub-commit-incomplete",
                    names=tuple(missing),
                )

    def set_tag(self, commit: str) -> None:
        def ask() -> None:
            with translated(f"the tag {self.tag} of {self.repo_id}"):
                self.api.create_tag(self.repo_id, tag=self.tag or "", revision=commit)

        try:
            try:
                retry(ask)
            except HubConflictError:
                # It is there: after a lost answer it is ours.
                if self.refs()[0].get(self.tag or "") != commit:
                    raise
        except HubError as error:
            raise type(error)(
                f"the model was published as commit {commit}, but not tagged: {error.what}",
                hint="run the same command again, or with another --tag: only the tag is missing",
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
            files={name: piece.size for name, piece in plan.wanted.items()},
            deleted=list(plan.deleted),
            uploaded_bytes=sum(piece.size for piece in plan.added),
            changed=bool(plan),
            created=self.created,
            card_kept=plan.card_kept,
            pr_url=pr_url,
            tag=self.tag,
            dry_run=self.dry_run,
        )

"""``publish``: sends a model to a folder or to a repo on the Hub."""

from __future__ import annotations

import shlex
from pathlib import Path

from cascadezoo.errors import (
    CascadezooError,
    HubUnavailableError,
    InputError,
    ModelReferenceError,
    PublishError,
)
from cascadezoo.hub.folder_copy import Copied, check_destination, possible_folder, publish_local
from cascadezoo.hub.publish.result import Published
from cascadezoo.hub.refs import HubRef, as_argument, is_hub_id, parse_reference
from cascadezoo.spec.models import PublishSpec

__all__ = ["check_publish", "publish", "publish_built", "read_destination"]


def read_destination(dest: str | Path) -> Path | HubRef:
    """Parse a destination without the network.

    A :class:`~pathlib.Path`, ``./x``, ``/x``, ``~/x``, an existing folder, and a name without
    ``/`` are folders; ``org/name`` and ``hf://org/name`` are repos on the Hub.

    Raises:
        ModelReferenceError: the destination is ambiguous, or contains a revision.
        RunFolderError: no folder can have this path.
    """
    path = possible_folder(dest)
    if isinstance(dest, Path):
        return path
    if not is_hub_id(dest):
        return path
    if not dest.startswith("hf://"):
        if path.is_dir():
            return path
        if path.parent.is_dir():
            # With a local folder "models", "models/digits" may be a new folder in it.
            raise ModelReferenceError(
                f"{dest!r} is ambiguous: a new folder in {str(path.parent)!r} or a repo on the Hub",
                hint=f"write ./{dest} for the folder, hf://{dest} for the Hub",
                code="reference-ambiguous",
                name=dest,
            )
    ref = parse_reference(dest if dest.startswith("hf://") else f"hf://{dest}")
    if not isinstance(ref, HubRef) or ref.revision is not None:
        raise ModelReferenceError(
            f"{dest!r} contains a revision, which is not part of a destination",
            hint=f"write {dest.partition('@')[0]} --revision {dest.partition('@')[2]}",
            code="reference-revision-in-dest",
            name=dest,
        )
    return ref


def publish(
    model: str | Path,
    dest: str | Path,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    tag: str | None = None,
    message: str | None = None,
    dry_run: bool = False,
) -> Published | Copied:
    """Publish a model to a folder or to the Hub, completely or not at all.

    A folder accepts ``dry_run`` only. For the other options see
    :func:`~cascadezoo.hub.publish.commit.publish_hub`.

    Args:
        model: a model folder, or the run folder of a finished build.
        dest: see :func:`read_destination`.
        private: create a private repo.
        revision: the branch.
        create_pr: open a pull request.
        tag: a tag for the commit.
        message: the commit's first line.
        dry_run: check everything and change nothing.

    Raises:
        InputError: the model, the destination or an option is not valid.
        HubError: the Hub rejects the model or cannot be reached.
    """
    target = read_destination(dest)
    if isinstance(target, HubRef):
        from cascadezoo.hub.publish.commit import publish_hub

        return publish_hub(
            model,
            target.repo_id,
            private=private,
            revision=revision,
            create_pr=create_pr,
            tag=tag,
            message=message,
            dry_run=dry_run,
        )
    if private or create_pr or any(v is not None for v in (revision, tag, message)):
        raise _hub_options_only(dest)
    return publish_local(model, as_argument(target), dry_run=dry_run)


def check_publish(requested: PublishSpec | None, name: str, *, network: bool = True) -> str | None:
    """Check before training that a model of that name can be published.

    Args:
        requested: ``publish`` of the spec; None checks nothing.
        name: the model's name.
        network: False sends no request, so it checks no repo and no token.

    Returns:
        A warning if the Hub could not be reached, since it may be available when the training
        ends; otherwise None.

    Raises:
        InputError: the destination is not valid, or holds something else.
        HubDeniedError: the token is missing or has insufficient rights.
    """
    if requested is None:
        return None
    target = read_destination(requested.to)
    if isinstance(target, Path):
        if requested.private:
            raise _hub_options_only(requested.to)
        check_destination(as_argument(target), name)
        return None
    if not network:
        return None
    from cascadezoo.hub.publish.preconditions import check_hub

    try:
        check_hub(target.repo_id, private=requested.private)
    except HubUnavailableError as error:
        return f"could not check whether the model can be published: {error.what}"
    return None


def publish_built(model: Path, requested: PublishSpec | None) -> Published | Copied | None:
    """Publish the model of a build.

    Args:
        model: the model folder of the run.
        requested: ``publish`` of the spec; None publishes nothing.

    Raises:
        PublishError: the publish failed; the model is kept.
    """
    if requested is None:
        return None
    try:
        return publish(model, requested.to, private=requested.private)
    except (CascadezooError, OSError) as error:
        what, hint = str(error), None
        if isinstance(error, CascadezooError):
            what, hint = error.what, error.hint
        words = ["cascadezoo", "publish", as_argument(model), requested.to]
        command = shlex.join([*words, *(["--private"] * requested.private)])
        raise PublishError(
            f"the model is built and kept in {model}, but it was not published: {what}",
            hint=f"{hint}; then run {command}" if hint else f"run {command}",
            path=model,
        ) from error


def _hub_options_only(dest: str | Path) -> InputError:
    return InputError(
        f"{str(dest)!r} is a folder; private, revision, create-pr, tag and message apply only to "
        "the Hub",
        hint="leave them out, or write hf://org/name for the Hub",
        code="input-folder-options",
        path=dest,
    )

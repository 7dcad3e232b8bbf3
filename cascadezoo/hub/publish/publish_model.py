"""Publishing a model to wherever it shall be: a folder, or a repo on the Hub."""

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
from cascadezoo.hub.folder_copy import Copied, check_destination, publish_local
from cascadezoo.hub.publish.result import Published
from cascadezoo.hub.refs import HubRef, as_argument, is_hub_id, parse_reference
from cascadezoo.spec.models import PublishSpec

__all__ = ["check_publish", "publish", "publish_built", "read_destination"]


def read_destination(dest: str | Path) -> Path | HubRef:
    """What a destination means; asks nothing of the network.

    A :class:`~pathlib.Path`, ``./x``, ``/x``, ``~/x``, a folder that is there, and a name without
    ``/`` are folders; ``org/name`` and ``hf://org/name`` are repos on the Hub.

    Raises:
        ModelReferenceError: it could be both, or a repo's revision is part of it.
    """
    if isinstance(dest, Path):
        return dest.expanduser()
    path = Path(dest).expanduser()
    if not is_hub_id(dest):
        return path
    if not dest.startswith("hf://"):
        if path.is_dir():
            return path
        if path.parent.is_dir():
            # "models/digits" where there is a folder "models": it could be meant to lie there.
            raise ModelReferenceError(
                f"{dest!r} could be a new folder in {str(path.parent)!r}, or a repo on the Hub",
                hint=f"write ./{dest} for the folder, hf://{dest} for the Hub",
                code="reference-ambiguous",
                name=dest,
            )
    found = parse_reference(dest if dest.startswith("hf://") else f"hf://{dest}")
    if not isinstance(found, HubRef) or found.revision is not None:
        raise ModelReferenceError(
            f"{dest!r} names a revision, which is not part of where a model goes",
            hint=f"{dest.partition('@')[0]} --revision {dest.partition('@')[2]}",
            code="reference-revision-in-dest",
            name=dest,
        )
    return found


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
    """Publish a model to a folder or to the Hub; whole, or not at all.

    Args:
        model: a model folder, or the run folder of a finished build.
        dest: see :func:`read_destination`.
        private: see :func:`~cascadezoo.hub.publish.commit.publish_hub`, as for all that follows;
            folders take ``dry_run`` only.
        revision: the branch.
        create_pr: open a pull request.
        tag: for the commit.
        message: of the commit.
        dry_run: check everything and change nothing.

    Raises:
        InputError: what cannot be published, a place that cannot be, options that do not fit.
        HubError: the Hub does not take it, or cannot be asked.
    """
    place = read_destination(dest)
    if isinstance(place, HubRef):
        from cascadezoo.hub.publish.commit import publish_hub

        return publish_hub(
            model,
            place.repo_id,
            private=private,
            revision=revision,
            create_pr=create_pr,
            tag=tag,
            message=message,
            dry_run=dry_run,
        )
    if private or create_pr or any(v is not None for v in (revision, tag, message)):
        raise _for_the_hub(dest)
    return publish_local(model, as_argument(place), dry_run=dry_run)


def check_publish(asked: PublishSpec | None, name: str) -> str | None:
    """Whether a model of that name could be published; asked before it is trained.

    Args:
        asked: what the spec says of publishing; None where it shall not be.
        name: the model's name.

    Returns:
        Why that could not be found out; None where it could, and it may be published. A Hub that
        cannot be reached now may be there when the training ends.

    Raises:
        InputError: the place cannot be, or holds something else.
        HubDeniedError: no token of the Hub, or none that may do this.
    """
    if asked is None:
        return None
    place = read_destination(asked.to)
    if isinstance(place, Path):
        if asked.private:
            raise _for_the_hub(asked.to)
        check_destination(as_argument(place), name)
        return None
    from cascadezoo.hub.publish.preconditions import check_hub

    try:
        check_hub(place.repo_id, private=asked.private)
    except HubUnavailableError as error:
        return f"whether the model may be published was not found out: {error.what}"
    return None


def publish_built(model: Path, asked: PublishSpec | None) -> Published | Copied | None:
    """Publish what a build made.

    Args:
        model: the model folder of the run.
        asked: what the spec says of publishing; None where it shall not be.

    Raises:
        PublishError: it could not be published; the model is kept.
    """
    if asked is None:
        return None
    try:
        return publish(model, asked.to, private=asked.private)
    except (CascadezooError, OSError) as error:
        what, hint = str(error), None
        if isinstance(error, CascadezooError):
            what, hint = error.what, error.hint
        words = ["cascadezoo", "publish", as_argument(model), asked.to]
        again = shlex.join([*words, *(["--private"] * asked.private)])
        raise PublishError(
            f"the model is built and kept in {model}, but it was not published: {what}",
            hint=f"{hint}; then: {again}" if hint else again,
            path=model,
        ) from error


def _for_the_hub(dest: str | Path) -> InputError:
    return InputError(
        f"{str(dest)!r} is a folder; private, revision, create-pr, tag and message are for the Hub",
        hint="leave them out, or write hf://org/name for the Hub",
        code="input-folder-options",
        path=dest,
    )

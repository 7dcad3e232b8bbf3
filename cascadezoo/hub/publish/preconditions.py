"""What a publish asks before it sends: options, token, account, card."""

from __future__ import annotations

from typing import Any

from huggingface_hub import HfApi, get_session
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    hf_raise_for_status,
)

from cascadezoo.errors import (
    HubDeniedError,
    HubNotFoundError,
    HubRefusedError,
    InputError,
    ModelReferenceError,
)
from cascadezoo.hub.cache import is_offline
from cascadezoo.hub.client import LOG_IN, hub_api, hub_token, translated
from cascadezoo.hub.publish.remote import Remote, look
from cascadezoo.hub.refs import HubRef, parse_reference
from cascadezoo.model_folder.layout import CARD
from cascadezoo.util.limits import REVISION, is_commit
from cascadezoo.util.retry import retry
from cascadezoo.util.text import clean_remote

__all__ = [
    "check_hub",
    "check_options",
    "repo_of",
    "require_private",
    "require_token",
    "require_writer",
    "validate_card",
]


def check_hub(repo_id: str, *, private: bool = False) -> None:
    """Whether a model could be published there; asked before it is trained.

    Raises:
        ModelReferenceError: not the id of a repo.
        InputError: a public repo where a private one is wanted.
        HubDeniedError: no token, or none that may do this.
        HubUnavailableError: the Hub cannot be asked now.
    """
    repo_id = repo_of(repo_id)
    token = require_token(repo_id)
    api = hub_api(token)
    require_writer(api)
    try:
        there = retry(lambda: look(api, repo_id, None))
    except HubNotFoundError:
        return
    require_private(there, private)


def repo_of(text: str) -> str:
    """The ``org/name`` in a text such as ``hf://org/name``.

    Raises:
        ModelReferenceError: it is not the id of a repo, or names a revision.
    """
    found = parse_reference(text if text.startswith("hf://") else f"hf://{text}")
    if not isinstance(found, HubRef) or found.revision is not None:
        raise ModelReferenceError(
            f"{text!r} is not the id of a repo to publish to",
            hint="give org/name, and a branch by --revision",
            code="reference-not-a-repo",
            name=text,
        )
    return found.repo_id


def check_options(revision: str | None, *, create_pr: bool, tag: str | None) -> None:
    """Whether the options of a publish go together.

    Raises:
        InputError: they do not, or are not what git takes.
    """
    for what, name in (("revision", revision), ("tag", tag)):
        if name is not None and (not REVISION.fullmatch(name) or ".." in name or "//" in name):
            raise InputError(
                f"{name!r} is not a {what}: it may hold letters, digits, . _ - and /",
                code="input-ref-name",
                name=name,
            )
    if revision is not None and is_commit(revision):
        raise InputError(
            "a commit cannot be published to",
            hint="give --revision a branch, or leave it out",
            code="input-commit-as-branch",
        )
    if create_pr and tag is not None:
        raise InputError(
            "a pull request cannot be tagged before it is merged",
            hint="leave --tag out",
            code="input-tag-on-pr",
        )


def require_token(repo_id: str) -> str:
    """The token to publish with.

    Raises:
        HubDeniedError: there is none.
        InputError: ``HF_HUB_OFFLINE`` is set.
    """
    if is_offline():
        raise InputError(
            f"{repo_id}: no request is sent while HF_HUB_OFFLINE is set",
            hint="unset HF_HUB_OFFLINE to publish",
            code="input-offline",
            name=repo_id,
        )
    token = hub_token()
    if token is None:
        raise HubDeniedError(
            f"to publish to {repo_id}, the Hub has to know who you are",
            hint=LOG_IN,
            code="hub-denied-no-token",
            name=repo_id,
        )
    return token


def require_writer(api: HfApi) -> None:
    """Ask the Hub whose token it is.

    Raises:
        HubDeniedError: nobody's, or one that may only read.
        HubUnavailableError: the Hub cannot be asked.
    """

    def ask() -> dict[str, Any]:
        with translated("your account on the Hub"):
            return dict(api.whoami(token=api.token))

    found = retry(ask)
    access = (found.get("auth") or {}).get("accessToken") or {}
    if access.get("role") == "read":
        user = clean_remote(found.get("name"), 80)
        raise HubDeniedError(
            f"the token of {user} may read but not write",
            hint=LOG_IN,
            code="hub-denied-token-read-only",
            name=user,
        )


def require_private(remote: Remote, private: bool) -> None:
    """Whether a repo is private if it has to be.

    Raises:
        InputError: it is not.
    """
    if private and not remote.private:
        raise InputError(
            f"{remote.repo_id} is public, and --private is only for a repo that is made",
            hint="nothing was sent. Make it private on its settings page first, or leave it out",
            code="input-repo-public",
            name=remote.repo_id,
        )


def validate_card(api: HfApi, card: str) -> None:
    """Have the Hub look at a card's metadata.

    Raises:
        HubRefusedError: they are not valid.
    """
    with translated("the check of the card's metadata by the Hub"):
        answer = get_session().post(
            f"{api.endpoint}/api/validate-yaml",
            json={"content": card, "repoType": "model"},
            headers=build_hf_headers(token=api.token, library_name="cascadezoo"),
        )
        if answer.status_code != 400:
            hf_raise_for_status(answer)
            return
        data = answer.json()
        found = data.get("errors") if isinstance(data, dict) else None
        rows = found if isinstance(found, list) else []
        texts = [row.get("message") if isinstance(row, dict) else row for row in rows[:5]]
        said = "; ".join(clean_remote(text, 200) for text in texts) or "it does not say why"
    raise HubRefusedError(
        f"the Hub does not take the metadata of {CARD}: {said}",
        hint="nothing was sent. Change license, tags or datasets in the spec, or the lines between "
        "the two --- of the card",
        code="hub-refused-card-metadata",
    )

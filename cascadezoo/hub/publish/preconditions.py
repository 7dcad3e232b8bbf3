"""Checks before a publish sends anything: options, token, account, card."""

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
from cascadezoo.hub.client import (
    LOG_IN,
    hub_api,
    hub_token,
    malformed,
    remote_text,
    translated,
)
from cascadezoo.hub.publish.remote import Remote, read_remote
from cascadezoo.hub.refs import HubRef, parse_reference
from cascadezoo.model_folder.layout import CARD
from cascadezoo.util.limits import REVISION, is_commit
from cascadezoo.util.retry import hub_patience, retry

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
    """Check before training that a model can be published to a repo.

    Raises:
        ModelReferenceError: ``repo_id`` is not a repo id.
        InputError: the repo is public, but must be private.
        HubDeniedError: the token is missing or has insufficient rights.
        HubUnavailableError: the Hub cannot be reached now.
    """
    repo_id = repo_of(repo_id)
    token = require_token(repo_id)
    api = hub_api(token)
    with hub_patience():
        require_writer(api)
        try:
            remote = retry(lambda: read_remote(api, repo_id, None))
        except HubNotFoundError:
            return
    require_private(remote, private)


def repo_of(text: str) -> str:
    """The ``org/name`` in a text such as ``hf://org/name``.

    Raises:
        ModelReferenceError: it is not a repo id, or names a revision.
    """
    ref = parse_reference(text if text.startswith("hf://") else f"hf://{text}")
    if not isinstance(ref, HubRef) or ref.revision is not None:
        raise ModelReferenceError(
            f"{text!r} is not a repo id to publish to",
            hint="write org/name, and name a branch with --revision",
            code="reference-not-a-repo",
            name=text,
        )
    return ref.repo_id


def check_options(revision: str | None, *, create_pr: bool, tag: str | None) -> None:
    """Check the options of a publish.

    Raises:
        InputError: the options contradict each other, or are not valid names in git.
    """
    for what, name in (("revision", revision), ("tag", tag)):
        if name is not None and (not REVISION.fullmatch(name) or ".." in name or "//" in name):
            raise InputError(
                f"{name!r} is not a {what}: write letters, digits, . _ - and /",
                code="input-ref-name",
                name=name,
            )
    if revision is not None and is_commit(revision):
        raise InputError(
            "--revision is a commit, but a model is published to a branch",
            hint="name a branch with --revision, or leave it out",
            code="input-commit-as-branch",
        )
    if create_pr and tag is not None:
        raise InputError(
            "a pull request cannot be tagged before it is merged",
            hint="leave --tag out",
            code="input-tag-on-pr",
        )


def require_token(repo_id: str) -> str:
    """The token for a publish.

    Raises:
        HubDeniedError: no token is set.
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
            f"publishing to {repo_id} requires a Hub token",
            hint=LOG_IN,
            code="hub-denied-no-token",
            name=repo_id,
        )
    return token


def require_writer(api: HfApi) -> None:
    """Check that the token may write.

    Raises:
        HubDeniedError: the token is invalid or read-only.
        HubUnavailableError: the Hub cannot be reached, or its answer is malformed.
    """
    what = "your account on the Hub"

    def whoami() -> dict[str, Any]:
        with translated(what):
            answer: object = api.whoami(token=api.token)
        if not isinstance(answer, dict):
            raise malformed(what, "not an object")
        return answer

    account = retry(whoami)
    access: object = account
    for key in ("auth", "accessToken"):
        access = access.get(key) or {} if isinstance(access, dict) else None
    if not isinstance(access, dict):
        raise malformed(what, "no rights of the token")
    if access.get("role") == "read":
        user = remote_text(account.get("name"), 80)
        raise HubDeniedError(
            f"the token of {user} is read-only",
            hint=LOG_IN,
            code="hub-denied-token-read-only",
            name=user,
        )


def require_private(remote: Remote, private: bool) -> None:
    """Check that a repo is private if ``private`` is set.

    Raises:
        InputError: the repo is public.
    """
    if private and not remote.private:
        raise InputError(
            f"{remote.repo_id} is public, and --private applies only to a new repo",
            hint="nothing was sent. Make the repo private on its settings page, or leave out "
            "--private",
            code="input-repo-public",
            name=remote.repo_id,
        )


def validate_card(api: HfApi, card: str) -> None:
    """Let the Hub validate a card's metadata.

    Raises:
        HubRefusedError: the metadata are not valid.
    """
    with translated("the Hub's check of the card's metadata"):
        response = get_session().post(
            f"{api.endpoint}/api/validate-yaml",
            json={"content": card, "repoType": "model"},
            headers=build_hf_headers(token=api.token, library_name="cascadezoo"),
        )
        if response.status_code != 400:
            hf_raise_for_status(response)
            return
        data = response.json()
        errors = data.get("errors") if isinstance(data, dict) else None
        rows = errors if isinstance(errors, list) else []
        texts = [row.get("message") if isinstance(row, dict) else row for row in rows[:5]]
        reasons = "; ".join(remote_text(text, 200) for text in texts) or "no reason given"
    raise HubRefusedError(
        f"the Hub rejects the metadata of {CARD}: {reasons}",
        hint="nothing was sent. Change license, tags or datasets in the spec, or the lines between "
        "the two --- of the card",
        code="hub-refused-card-metadata",
    )

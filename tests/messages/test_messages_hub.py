"""The wording of errors of the Hub and the zoo."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cascadezoo.errors import CascadezooError
from cascadezoo.hub.client import LOG_IN, _by_status, malformed
from cascadezoo.hub.fetch import pull_hub
from cascadezoo.hub.folder_copy import check_copy_target, publish_local
from cascadezoo.hub.locate import locate
from cascadezoo.hub.publish.contents import check_message
from cascadezoo.hub.publish.preconditions import check_options, require_private
from cascadezoo.hub.publish.publish_model import publish, publish_built, read_destination
from cascadezoo.hub.publish.remote import Remote
from cascadezoo.hub.publish.secrets import check_safetensors
from cascadezoo.hub.refs import HubRef, parse_reference
from cascadezoo.hub.transport import Download, _Call
from cascadezoo.hub.zoo_models import verify, zoo_entry
from cascadezoo.spec.models import PublishSpec
from cascadezoo.zoo.entry import FolderSource, compare, describe
from cascadezoo.zoo.list import bundled_folder, entries_to_verify, find
from cascadezoo.zoo.manifest import parse_manifest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def check_weights(path: Path) -> None:
    with path.open("rb") as file:
        check_safetensors(file, "model.safetensors")


def raise_status(status: int, **headers: str) -> None:
    raise _by_status("config.json of org/name", status, headers, "")


def raise_malformed() -> None:
    raise malformed("org/name", "no commit")


def a_call(*, seconds: float = 0.0, failing: float = 0.0, file: Download | None = None) -> _Call:
    """A call that has run, and failed, for that long."""
    call = _Call("org/name", file, 0)
    call.began -= seconds
    if failing:
        call.failure = "status 503"
        call.patience.failed(time.monotonic() - failing)
    return call


def publish_to_public_repo() -> None:
    require_private(Remote("org/name", COMMIT), private=True)


# Each case runs in a folder with an empty folder, a folder with a note, and a file.
MESSAGES: dict[str, tuple[Callable[[], object], str]] = {
    "an unknown token": (
        lambda: raise_status(401),
        f"config.json of org/name: the Hub rejects the token\nHint: {LOG_IN}",
    ),
    "insufficient rights": (
        lambda: raise_status(403),
        "config.json of org/name: the token has insufficient rights\n"
        "Hint: `hf auth whoami` shows the token's owner; `hf auth login` sets another token",
    ),
    "a conflict": (
        lambda: raise_status(409),
        "config.json of org/name: changed in the meantime\nHint: run the command again",
    ),
    "too many requests": (
        lambda: raise_status(429, **{"Retry-After": "7"}),
        "config.json of org/name: the Hub received too many requests\n"
        "Hint: try again in 7 s; nothing is lost",
    ),
    "a server error": (
        lambda: raise_status(503),
        "config.json of org/name: the Hub returned status 503\n"
        "Hint: try again later; nothing is lost",
    ),
    "a call that takes too long": (
        lambda: a_call(seconds=121).check(),
        "org/name: not complete after 120 s\n"
        "Hint: try again later, or raise CASCADEZOO_HUB_SECONDS (seconds) for a slow network, or "
        "lower CASCADEZOO_HUB_SPEED (bytes per second)",
    ),
    "a Hub that keeps failing": (
        lambda: a_call(failing=61).check(),
        "org/name: gave up after 60 s of failures (status 503)\n"
        "Hint: try again later; nothing is lost. CASCADEZOO_HUB_PATIENCE sets the seconds",
    ),
    "an answer that is too large": (
        lambda: a_call().too_large(8388608),
        "org/name: the server sends more than 8388608 bytes\n"
        "Hint: check HF_ENDPOINT, or raise CASCADEZOO_HUB_ANSWER (bytes)",
    ),
    "a file that is too large": (
        lambda: a_call(file=Download("config.json", 10)).too_large(10),
        "org/name: the server sends more than 10 bytes\nHint: use another revision or endpoint",
    ),
    "an ETag that is a path": (
        lambda: a_call().no_hub("it sends an invalid ETag"),
        "org/name: the server is not a Hub (it sends an invalid ETag)\n"
        "Hint: check HF_ENDPOINT, the proxies and the network's login page",
    ),
    "a malformed answer": (
        raise_malformed,
        "org/name: the Hub's answer is malformed (no commit)\n"
        "Hint: check HF_ENDPOINT and the proxies: the server may not be a Hub",
    ),
    "a refused request": (
        lambda: raise_status(422),
        "config.json of org/name: the Hub returned status 422\n"
        "Hint: correct the request, then try again",
    ),
    "a model that is not cached": (
        lambda: pull_hub(HubRef("org/name"), offline=True),
        "org/name is not cached, and offline mode sends no request\n"
        "Hint: run cascadezoo pull org/name without --offline and HF_HUB_OFFLINE",
    ),
    "a folder and a zoo model of one name": (
        lambda: Path("shapes-tiny").mkdir() or parse_reference("shapes-tiny"),
        "'shapes-tiny' is ambiguous: a local folder or a model of the zoo\n"
        "Hint: write ./shapes-tiny for the folder, zoo:shapes-tiny for the model of the zoo",
    ),
    "a revision of a zoo model": (
        lambda: parse_reference("shapes-tiny", "v1"),
        "'shapes-tiny' takes no revision: a zoo model is pinned\n"
        "Hint: leave the revision out, or give hf://org/name",
    ),
    "an unfinished run": (
        lambda: Path("empty/run.json").write_text("{}") and locate("./empty"),
        "./empty is a run without a finished model\n"
        "Hint: cascadezoo build empty/spec.json -o ./empty",
    ),
    "a copy over other files": (
        lambda: check_copy_target(Path("full")),
        "full is not empty and contains no model\nHint: choose another folder, or empty this one",
    ),
    "a copy into a repo": (
        lambda: publish_local("shapes-tiny", "org/name"),
        "'org/name' has the form of a repo on the Hub, not of a folder\n"
        "Hint: for a folder, write ./org/name",
    ),
    "Hub options for a folder": (
        lambda: publish("shapes-tiny", "./shelf", tag="v1"),
        "'./shelf' is a folder; private, revision, create-pr, tag and message apply only to the "
        "Hub\nHint: leave them out, or write hf://org/name for the Hub",
    ),
    "an ambiguous destination": (
        lambda: read_destination("empty/digits"),
        "'empty/digits' is ambiguous: a new folder in 'empty' or a repo on the Hub\n"
        "Hint: write ./empty/digits for the folder, hf://empty/digits for the Hub",
    ),
    "a failed publish of a build": (
        lambda: publish_built(Path("full"), PublishSpec(to="./shelf")),
        "the model is built and kept in full, but it was not published: full contains no model: it "
        "has no config.json\n"
        "Hint: give the run folder of a finished build, or its model/ folder; then run "
        "cascadezoo publish ./full ./shelf",
    ),
    "a public repo": (
        publish_to_public_repo,
        "org/name is public, and --private applies only to a new repo\n"
        "Hint: nothing was sent. Make the repo private on its settings page, or leave out "
        "--private",
    ),
    "a tag on a pull request": (
        lambda: check_options(None, create_pr=True, tag="v1"),
        "a pull request cannot be tagged before it is merged\nHint: leave --tag out",
    ),
    "a secret in the commit message": (
        lambda: check_message("AKIA" + "ABCD" * 4),
        "the commit message contains an AWS access key (line 1)",
    ),
    "weights of another format": (
        lambda: check_weights(Path("file")),
        "model.safetensors is not a safetensors file: it does not begin with the length of a "
        "header\n"
        "Hint: only safetensors can be published; cascade.save_pretrained(folder) writes them",
    ),
    "a folder for the zoo": (
        lambda: zoo_entry("./empty"),
        "'./empty' is not a repo on the Hub, and a zoo lists only such repos\n"
        "Hint: run cascadezoo publish MODEL org/name, then cascadezoo zoo add org/name",
    ),
    "an entry without a config": (
        lambda: describe(FolderSource(Path("empty"))),
        "empty has no config.json, so it is not a model\n"
        "Hint: publish the run of a finished build: cascadezoo publish RUN org/name",
    ),
    "an entry that is not cached": (
        lambda: verify(uncached_entry(), offline=True),
        f"digits is not in the local cache of the Hub (org/digits@{COMMIT})\n"
        "Hint: run cascadezoo pull digits without --offline and HF_HUB_OFFLINE",
    ),
    "a bundled entry with a repo": (
        lambda: parse_manifest({"version": 1, "models": [{**entry(), "bundled": True}]}, "z.json"),
        "z.json is not a zoo manifest:\n"
        "  models.0: is bundled, so repo and commit are not allowed\n"
        "Hint: write entries with cascadezoo zoo add REF; docs/hub.md describes them",
    ),
    "a missing manifest": (
        lambda: entries_to_verify(None, Path("none.json")),
        "file none.json not found\nHint: create it with cascadezoo zoo add REF",
    ),
    "an unlisted model": (
        lambda: find("shapes-tinny"),
        "no zoo lists a model 'shapes-tinny'\n"
        "Hint: did you mean 'shapes-tiny'? cascadezoo zoo list shows all; cascadezoo zoo search "
        "TEXT searches the Hub",
    ),
}


def entry() -> dict[str, object]:
    return {
        "name": "digits",
        "repo": "org/digits",
        "commit": COMMIT,
        "spec_digest": "ab" * 32,
        "files": {"config.json": {"sha256": "cd" * 32, "size": 100}},
        "size": 32,
        "parameters": 250,
        "data": "mnist",
        "license": "mit",
    }


def uncached_entry() -> object:
    (model,) = parse_manifest({"version": 1, "models": [entry()]}, "zoo.json").models
    return model


@pytest.fixture
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("empty", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "notes.txt").write_text("notes")
    (tmp_path / "file").write_text("hello")


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize("case", MESSAGES)
def test_message(case: str) -> None:
    act, message = MESSAGES[case]
    with pytest.raises(CascadezooError) as caught:
        act()
    assert str(caught.value) == message


def test_faults_of_an_entry() -> None:
    model = find("shapes-tiny")
    folder = bundled_folder(model)
    assert folder is not None
    source = FolderSource(folder)
    files = {n: r for n, r in model.files.items() if n != "samples.png"}
    record = files["README.md"]
    files["README.md"] = record.model_copy(update={"size": 1})
    files["stages/x/model.safetensors"] = record
    wrong = model.model_copy(update={"files": files})
    assert compare(wrong, source) == [
        "stages/x/model.safetensors is missing",
        "samples.png is not in the entry",
        f"README.md has {record.size} bytes, not 1",
    ]
    wrong = model.model_copy(update={"license": "mit"})
    assert compare(wrong, source) == ["license of the entry differs from the model"]

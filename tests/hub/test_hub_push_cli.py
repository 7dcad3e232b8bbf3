"""``cascadezoo publish`` to the Hub, and ``publish`` in a spec."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from errors_help import raises
from hub_server import Fault, LocalHub
from push_cases import CHANGES, REPO, WEIGHTS, holds, old, write

from cascadezoo.build.build import BuildResult, build_cascade
from cascadezoo.cli.main import main
from cascadezoo.errors import (
    HubDeniedError,
    InputError,
    ModelReferenceError,
    PublishError,
)
from cascadezoo.hub.folder_copy import Copied
from cascadezoo.hub.publish.publish_model import publish, read_destination
from cascadezoo.hub.refs import HubRef

TINY = "diffusion-pixelshuffle-vit-tiny"
Invoke = Callable[..., Result]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write(old(), tmp_path / "old")


@pytest.fixture
def invoke() -> Invoke:
    def run(*args: object) -> Result:
        return CliRunner().invoke(main, [str(a) for a in args], prog_name="cascadezoo")

    return run


def test_the_command(hub: LocalHub, model: Path, newer: Path, invoke: Invoke) -> None:
    result = invoke("publish", "old", REPO, "--dry-run")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"would publish lone as one commit to {REPO}\n  README.md  ")
    assert hub.repos == {}
    result = invoke("publish", "old", REPO, "--private", "--tag", "v1", "--message", "First")
    assert result.exit_code == 0, result.output
    commit = hub.repos[REPO].head()
    assert result.stdout.splitlines()[1:] == [
        f"url: {hub.url}/{REPO}",
        f"commit: {commit.oid}, tag v1",
    ]
    assert (commit.message, hub.repos[REPO].private) == ("First", True)
    result = invoke("publish", "old", f"hf://{REPO}")
    assert result.stdout.startswith(f"{REPO} already contains lone with identical files\n")
    assert f"commit: {commit.oid}" in result.stdout
    hub.repos[REPO].commit({"stages/old/model.safetensors": b"x", "README.md": b"# Mine\n"})
    result = invoke("publish", "new", REPO)
    assert "  stages/old/model.safetensors  deleted\n" in result.stdout
    data = json.loads(invoke("publish", "new", REPO, "--create-pr", "--json").stdout)
    assert (data["changed"], data["commit"]) == (False, hub.repos[REPO].head().oid)
    data = json.loads(invoke("publish", "old", REPO, "--create-pr", "--json").stdout)
    assert data["pr_url"] == f"{hub.url}/{REPO}/discussions/1"
    data = json.loads(invoke("publish", "old", REPO, "--revision", "dev", "--json").stdout)
    assert data["url"] == f"{hub.url}/{REPO}/tree/dev"


def test_errors_of_the_command(
    hub: LocalHub, model: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    result = invoke("publish", "old", "foreign/lone")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "foreign/lone" in result.stderr
    assert "`hf auth whoami`" in result.stderr.partition("\nHint: ")[2]
    hub.fail(Fault("status", "/commit/", times=99))
    result = invoke("publish", "old", REPO, "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    error = json.loads(result.stderr.splitlines()[-1])["error"]
    assert error["code"] == "hub-unavailable-busy"
    assert error["hint"]
    monkeypatch.delenv("HF_TOKEN")
    result = invoke("publish", "old", REPO)
    assert result.exit_code == 2
    assert "`hf auth login`" in result.stderr


def test_destinations(model: Path, tmp_path: Path) -> None:
    (tmp_path / "shelf" / "lone").mkdir(parents=True)
    for text, meant in {
        "org/name": HubRef("org/name"),
        "hf://org/name": HubRef("org/name"),
        "hf://shelf/lone": HubRef("shelf/lone"),
        "./org/name": Path("org/name"),
        "/srv/x": Path("/srv/x"),
        "shelf/lone": Path("shelf/lone"),
        "name": Path("name"),
        "a/b/c": Path("a/b/c"),
    }.items():
        assert read_destination(text) == meant, text
    assert read_destination(Path("org/name")) == Path("org/name")
    with raises(ModelReferenceError, "reference-ambiguous") as raised:
        read_destination("shelf/other")
    assert "./shelf/other" in str(raised.value.hint)
    assert "hf://shelf/other" in str(raised.value.hint)
    with raises(ModelReferenceError, "reference-revision-in-dest") as raised:
        read_destination("org/name@dev")
    assert "org/name --revision dev" in str(raised.value.hint)


def test_folder_accepts_no_hub_options(model: Path, tmp_path: Path) -> None:
    assert isinstance(publish("old", "./shelf"), Copied)
    assert (tmp_path / "shelf" / WEIGHTS).read_bytes() == old()[WEIGHTS]
    with raises(InputError, "input-folder-options"):
        publish("old", "./shelf", tag="v1")
    with raises(InputError, "input-folder-options"):
        publish("old", "./shelf", private=True)


def test_failing_commands_never_print_the_token(hub: LocalHub, model: Path, tmp_path: Path) -> None:
    """Even if the server repeats the token in its responses, and tracebacks are shown."""
    body = json.dumps({"error": f"no: {hub.token}\x1b[2J"}).encode()
    headers = {"X-Error-Message": hub.token, "X-Request-Id": hub.token, "Retry-After": "0"}
    outputs = []
    for match in ("whoami", "models/org", "validate", "create", "preupload", "batch", "commit"):
        hub.fail(Fault("status", match, 1, 403, headers=headers, body=body))
        result = subprocess.run(
            [sys.executable, "-m", "cascadezoo", "publish", str(model), REPO],
            env={**os.environ, **hub.env, "CASCADEZOO_DEBUG": "1", "HF_DEBUG": "0"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 2, (match, result.stderr)
        assert "Traceback" in result.stderr
        assert "\x1b" not in result.stderr
        outputs.append(result.stdout + result.stderr)
        hub.heal()
    assert len(outputs) == 7
    assert not any(hub.token in text for text in outputs)


# --- publish in a spec


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("built") / "run"
    build_cascade(TINY, run, device="cpu", settings=["evaluation.metrics=[]"])
    return run


@pytest.fixture
def run(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "run"))


def build(run: Path, **options: object) -> BuildResult:
    settings = ["evaluation.metrics=[]", f"publish={json.dumps(options)}"]
    return build_cascade(TINY, run, device="cpu", settings=settings)


def test_build_publishes_its_model(hub: LocalHub, run: Path) -> None:
    done = build(run, to=REPO, private=True)
    head = hub.repos[REPO].head()
    assert (done.published, done.commit) == (f"{hub.url}/{REPO}", head.oid)
    assert done.to_dict()["commit"] == head.oid
    assert hub.repos[REPO].private
    weights = [n for n in head.files if n.endswith(".safetensors")]
    assert len(weights) == 3
    assert all(head.files[n] == (run / "model" / n).read_bytes() for n in weights)
    assert f'from_pretrained("{REPO}")' in head.files["README.md"].decode()
    again = build(run, to=REPO, private=True)
    assert again.already_done
    assert again.commit == head.oid
    assert len(hub.repos[REPO].commits) == 2


def test_failed_publish_keeps_the_model_and_shows_the_command(
    hub: LocalHub, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.fail(Fault("status", "PUT /lfs", times=999))
    with raises(PublishError, "publish", path=run / "model") as raised:
        build(run, to=REPO, private=True)
    assert raised.value.exit_code == 1
    hint = str(raised.value.hint)
    again = hint[hint.index("cascadezoo publish") :].split()
    assert again == ["cascadezoo", "publish", f"{run}/model", REPO, "--private"]
    assert (run / "model" / "config.json").is_file()
    assert hub.token not in (run / "events.jsonl").read_text()
    hub.heal()
    result = CliRunner().invoke(main, again[1:], prog_name="cascadezoo")
    assert result.exit_code == 0, result.output
    assert "config.json" in hub.repos[REPO].head().files


def test_invalid_publish_fails_before_training(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "fresh"
    hub.make_repo("org/public")
    for options, kind in (
        ({"to": "org/name@dev"}, ModelReferenceError),
        ({"to": "org/public", "private": True}, InputError),
        ({"to": str(tmp_path / "shelf"), "private": True}, InputError),
    ):
        with pytest.raises(kind):
            build(run, **options)  # type: ignore[arg-type]
    monkeypatch.setenv("HF_TOKEN", hub.read_token)
    with raises(HubDeniedError, "hub-denied-token-read-only"):
        build(run, to=REPO)
    monkeypatch.delenv("HF_TOKEN")
    with raises(HubDeniedError, "hub-denied-no-token"):
        build(run, to=REPO)
    assert not list(run.rglob("*.safetensors"))
    assert hub.seen(CHANGES) == []


def test_unavailable_hub_does_not_prevent_training(
    hub: LocalHub, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.fail(Fault("status", "whoami", times=4))
    done = build(run, to=REPO)
    assert done.commit == hub.repos[REPO].head().oid


def test_publish_of_a_folder_holds_the_model(hub: LocalHub, model: Path) -> None:
    publish("old", REPO)
    assert holds(hub.repos[REPO], old())

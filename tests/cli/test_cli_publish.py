from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from errors_help import check_error, check_failed, raises
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cascadezoo import Cascade
from cascadezoo.errors import ModelError, ModelReferenceError, RunFolderError
from cascadezoo.hub.folder_copy import publish_local
from cascadezoo.hub.pull import pull
from cascadezoo.model_folder.integrity import check_files
from cascadezoo.model_folder.layout import read_config

WEIGHTS = "stages/coarse/model.safetensors"


@pytest.fixture
def source(model, tmp_path):
    """A model folder with a card that a test may change."""
    folder = shutil.copytree(model, tmp_path / "source")
    (folder / "README.md").write_text("# lone\n")
    return folder


@pytest.fixture
def newer(lone, tmp_path):
    """Another version of the same model."""
    lone["seed"] = 1
    return Cascade.from_spec(lone).save_pretrained(tmp_path / "newer")


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_publish_and_pull_keep_the_files(source, tmp_path):
    done = publish_local(source, tmp_path / "shelf" / "lone")
    assert (done.changed, done.replaced, str(done)) == (True, False, str(tmp_path / "shelf/lone"))
    pulled = pull(tmp_path / "shelf" / "lone", tmp_path / "mine")
    assert contents(tmp_path / "mine") == contents(source)
    assert pulled.size == sum(len(data) for data in contents(source).values())
    check_files(tmp_path / "mine", read_config(tmp_path / "mine"))
    Cascade.from_pretrained(tmp_path / "mine")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "shelf", "source"]
    assert [p.name for p in (tmp_path / "shelf").iterdir()] == ["lone"]


def test_only_the_model_of_a_run_folder_is_published(source, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    source.rename(run / "model")
    (run / "events.jsonl").write_text("{}")
    publish_local(run, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(run / "model")


def test_publishing_again_writes_nothing(source, tmp_path):
    publish_local(source, tmp_path / "out")
    before = (tmp_path / "out").stat().st_ino
    done = publish_local(source, tmp_path / "out")
    assert (done.changed, done.replaced) == (False, False)
    assert (tmp_path / "out").stat().st_ino == before


def test_an_older_version_is_replaced_completely(source, newer, tmp_path):
    publish_local(source, tmp_path / "out")
    done = publish_local(newer, tmp_path / "out")
    assert (done.changed, done.replaced) == (True, True)
    assert contents(tmp_path / "out") == contents(newer)  # without the README.md of the older one
    assert sorted(p.name for p in tmp_path.iterdir()) == ["newer", "out", "source"]


def test_a_new_card_alone_is_a_change(source, tmp_path):
    publish_local(source, tmp_path / "out")
    (source / "README.md").write_text("# lone, better said\n")
    assert publish_local(source, tmp_path / "out").changed
    assert (tmp_path / "out" / "README.md").read_text() == "# lone, better said\n"


def test_dry_run_checks_and_writes_nothing(source, newer, tmp_path):
    done = publish_local(source, tmp_path / "out", dry_run=True)
    assert (done.changed, done.dry_run) == (True, True)
    assert not (tmp_path / "out").exists()
    publish_local(source, tmp_path / "out")
    before = contents(tmp_path / "out")
    assert publish_local(newer, tmp_path / "out", dry_run=True).replaced
    assert contents(tmp_path / "out") == before
    (source / WEIGHTS).write_bytes(b"x")
    with raises(ModelError, "model-damaged", faults={WEIGHTS: "size"}):
        publish_local(source, tmp_path / "elsewhere", dry_run=True)


def test_empty_folder_is_filled(source, tmp_path):
    (tmp_path / "out").mkdir()
    publish_local(source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(source)


def strange(out):
    (out / "thesis.tex").write_text("years of work")


def model_and_more(out):
    shutil.copytree(out.parent / "source", out, dirs_exist_ok=True)
    (out / "notes.txt").write_text("mine")


def other_model(out):
    shutil.copytree(out.parent / "source", out, dirs_exist_ok=True)
    config = json.loads((out / "config.json").read_text())
    config["spec"]["name"] = "other"
    (out / "config.json").write_text(json.dumps(config))


def other_library(out):
    (out / "config.json").write_text('{"model_type": "bert"}')


def link_inside(out):
    shutil.copytree(out.parent / "source", out, dirs_exist_ok=True)
    (out / "samples.png").symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("fill", "code", "shown"),
    [
        (strange, "not-a-model", "out"),
        (model_and_more, "not-replaced", "notes.txt"),
        (other_model, "not-replaced", "'other'"),
        (other_library, "not-replaced", "config.json"),
        (link_inside, "not-replaced", "samples.png"),
    ],
)
def test_other_content_is_not_replaced(fill, code, shown, source, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    fill(out)
    before = contents(out)
    with raises(RunFolderError, f"run-folder-{code}", path="out") as raised:
        publish_local(source, out)
    assert shown in raised.value.what
    assert raised.value.hint is not None
    assert contents(out) == before


def test_invalid_destinations(source, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for dest, code in {
        tmp_path / "file": "not-a-folder",
        tmp_path / "link": "not-a-folder",
        tmp_path / "file" / "below": "not-writable",
        source: "nested",
        source / "inside": "nested",
        tmp_path: "nested",
    }.items():
        with raises(RunFolderError, f"run-folder-{code}"):
            publish_local(source, dest)


@pytest.mark.parametrize(
    ("damage", "code", "fields"),
    [
        (lambda m: (m / WEIGHTS).unlink(), "model-damaged", {"faults": {WEIGHTS: "missing"}}),
        (
            lambda m: (m / WEIGHTS).write_bytes((m / WEIGHTS).read_bytes()[:-1]),
            "model-damaged",
            {"faults": {WEIGHTS: "size"}},
        ),
        (lambda m: _flip(m / WEIGHTS), "model-damaged", {"faults": {WEIGHTS: "content"}}),
        (lambda m: (m / "config.json").unlink(), "reference-no-model", {"path": "source"}),
        (lambda m: (m / "config.json").write_text("{"), "model-config-not-json", {}),
        (
            lambda m: (m / "secret.pem").write_text("x"),
            "model-file-strange",
            {"name": "secret.pem"},
        ),
        (
            lambda m: (m / "metrics.json").write_text("{}"),
            "model-file-unlisted",
            {"name": "metrics.json"},
        ),
        (
            lambda m: (m / "samples.png").symlink_to("/etc/hostname"),
            "model-symlink",
            {"name": "samples.png"},
        ),
        (lambda m: _list(m, "../../evil"), "model-config-lists-strange", {"name": "../../evil"}),
        (lambda m: _list(m, "/etc/passwd"), "model-config-lists-strange", {"name": "/etc/passwd"}),
    ],
)
def test_a_damaged_model_is_not_published(damage, code, fields, source, tmp_path):
    damage(source)
    with pytest.raises((ModelError, ModelReferenceError)) as raised:
        publish_local(source, tmp_path / "out")
    check_error(raised.value, type(raised.value), code, **fields)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


def _flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _list(folder, name):
    config = json.loads((folder / "config.json").read_text())
    config["files"][name] = {"sha256": "0" * 64, "size": 1}
    (folder / "config.json").write_text(json.dumps(config))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 2**31), st.integers(0, 255))
def test_no_changed_byte_is_published(source, tmp_path, place, value):
    path = source / WEIGHTS
    original = path.read_bytes()
    data = bytearray(original)
    data[place % len(data)] = value
    path.write_bytes(data)
    try:
        if bytes(data) == original:
            return
        with raises(ModelError, "model-damaged"):
            publish_local(source, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    finally:
        path.write_bytes(original)


@pytest.mark.parametrize("dest", ["org/name", "hf://org/name", "org/name@main"])
def test_hub_ids_are_not_folders(dest, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with raises(ModelReferenceError, "reference-is-repo") as raised:
        publish_local(source, dest)
    assert "./org/name" in str(raised.value.hint)
    publish_local(source, "./org/name")
    assert (tmp_path / "org" / "name" / "config.json").is_file()


def test_a_killed_copy_leaves_a_complete_version(source, newer, tmp_path):
    """After SIGKILL at several moments readers see the older or the newer version, no mix."""
    out = tmp_path / "out"
    code = (
        "import sys\n"
        "from cascadezoo.hub.folder_copy import publish_local\n"
        "print('ready', flush=True)\n"
        "publish_local(sys.argv[1], sys.argv[2])\n"
    )
    for delay in (0.0, 0.001, 0.002, 0.004, 0.008):
        shutil.rmtree(out, ignore_errors=True)
        publish_local(source, out)
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(newer), str(out)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.kill()
        process.wait()
        process.stdout.close()
        config = read_config(out)
        assert config in (read_config(source), read_config(newer))
        check_files(out, config)
        publish_local(newer, out)
        assert contents(out) == contents(newer)
        assert not list(tmp_path.glob(".out.*"))


def test_commands(invoke, source, newer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("publish", "source", "./out", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("would publish lone: 3 files, ")
    assert WEIGHTS in result.stdout
    assert invoke("publish", "source", "./out").stdout.startswith("published lone: 3 files, ")
    assert "already" in invoke("publish", "source", "./out").stdout
    assert "replaced" in invoke("publish", "newer", "./out").stdout
    data = json.loads(invoke("publish", "newer", "./out", "--json").stdout)
    assert (data["changed"], data["dest"], data["bytes"]) == (
        False,
        "out",
        sum(data["files"].values()),
    )
    result = invoke("pull", "./out", "--to", "mine")
    assert result.stdout.startswith("pulled lone: 2 files, ")
    assert "cascadezoo sample ./mine" in result.stderr
    assert json.loads(invoke("pull", "./out", "--to", "mine", "--json").stdout)["changed"] is False
    for args in (["publish", "nowhere", "./x"], ["pull", "nowhere", "--to", "x"]):
        result = invoke(*args)
        assert (result.exit_code, result.stdout) == (2, "")
        check_failed(result, "reference-not-found", name="nowhere")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_folder_without_permission(source, tmp_path):
    (tmp_path / "shut").mkdir(mode=0o500)
    with raises(RunFolderError, "run-folder-not-writable"):
        publish_local(source, tmp_path / "shut" / "out")

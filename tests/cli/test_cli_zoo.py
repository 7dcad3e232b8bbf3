"""``cascadezoo zoo``: its output and errors, also for untrusted entries."""

from __future__ import annotations

import json
import shutil

import pytest
from errors_help import check_failed

from cascadezoo.zoo.list import bundled_folder, find

ENTRY = {
    "name": "digits",
    "description": "Digits.\x1b[2J\u202egnp",
    "repo": "someone/digits",
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "spec_digest": "ab" * 32,
    "files": {"config.json": {"sha256": "cd" * 32, "size": 2048}},
    "size": 28,
    "parameters": 1234,
    "data": "mnist",
    "license": "mit",
    "requires": ["cascadezoo-that-is-not-there>=2"],
    "metrics": {
        "kid.inception.n10000": {"value": 0.01, "std": 0.002},
        "psnr.n64": {"value": 30.5, "unit": "dB"},
    },
}

PLUGIN = """
import json
from cascadezoo import hookimpl
from cascadezoo.plugins.registry import ZooEntry

@hookimpl
def register_zoos():
    return [ZooEntry(name="mine", summary="mine", impl="zoo_mine:load")]

def load():
    return json.loads({text!r})
"""


@pytest.fixture
def with_zoo(cascadezoo, plugin):
    """Runs commands with a plugin that provides a zoo of these entries."""

    def install(*entries):
        text = json.dumps({"version": 1, "models": list(entries)})
        env = plugin("zoo-mine", PLUGIN.format(text=text))
        return lambda *args: cascadezoo("zoo", *args, env=env)

    return install


def test_list_shows_the_bundled_model(invoke):
    result = invoke("zoo", "list")
    assert result.exit_code == 0
    assert result.stderr == ""
    head, row, *rest = result.stdout.splitlines()
    assert head.split()[:3] == ["MODEL", "DATA", "PARAMETERS"]
    assert row.startswith("shapes-tiny  shapes 32x32")
    assert "kid.small.n1000 14.89 +- 1.96 x 10^-3" in row
    assert rest == []


def test_list_json_is_the_manifest(invoke):
    (row,) = json.loads(invoke("zoo", "list", "shapes-*", "--json").stdout)
    model = find("shapes-tiny")
    assert row["name"] == model.name
    assert (row["bundled"], row["repo"], row["commit"]) == (True, None, None)
    assert row["files"]["config.json"]["sha256"] == model.files["config.json"].sha256
    assert row["spec_digest"] == model.spec_digest
    assert row["metrics"]["kid.small.n1000"]["value"] == model.metrics["kid.small.n1000"].value
    assert (row["zoo"], row["distribution"]) == ("cascadezoo", "cascadezoo")
    assert row["bytes"] == model.bytes


def test_a_glob_that_matches_nothing(invoke):
    result = invoke("zoo", "list", "x*")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "'x*'" in result.stderr
    assert json.loads(invoke("zoo", "list", "x*", "--json").stdout) == []


def test_show_prints_the_entry(invoke):
    result = invoke("zoo", "show", "shapes-tiny")
    assert result.exit_code == 0
    model = find("shapes-tiny")
    for text in (f"{model.parameters:,}", "apache-2.0", "ships with cascadezoo", model.spec_digest):
        assert text in result.stdout
    for name, record in model.files.items():
        assert any(
            line.split()[::3] == [name, record.sha256] for line in result.stdout.splitlines()
        )
    assert result.stderr == "\nNext: cascadezoo sample shapes-tiny\n"
    row = json.loads(invoke("zoo", "show", "shapes-tiny", "--json").stdout)
    assert row == {**json.loads(invoke("zoo", "list", "--json").stdout)[0], "missing": []}


def test_show_of_an_unknown_name_suggests_a_similar_one(invoke):
    result = invoke("zoo", "show", "shapes-tinny", "--json")
    assert result.exit_code == 2
    check_failed(result, "lookup-zoo-model", name="shapes-tinny")
    assert "'shapes-tiny'" in json.loads(result.stderr)["error"]["hint"]


def test_a_zoo_of_a_plugin_is_shown_and_cannot_control_the_terminal(with_zoo):
    zoo = with_zoo(ENTRY)
    listed = zoo("list")
    assert listed.returncode == 0, listed.stderr
    shown = zoo("show", "digits")
    assert shown.returncode == 0, shown.stderr
    for result in (listed, shown, zoo("list", "--json")):
        assert not {"\x1b", "\u202e"} & set(result.stdout + result.stderr)
    assert "someone/digits@0123456789abcdef" in shown.stdout
    assert "the zoo 'mine' of zoo-mine 1.0" in shown.stdout
    assert "10.00 +- 2.00 x 10^-3" in shown.stdout
    assert "30.50 dB" in shown.stdout
    assert "pip install 'cascadezoo-that-is-not-there>=2'" in shown.stderr


def test_two_zoos_that_claim_one_name(with_zoo):
    zoo = with_zoo({**ENTRY, "name": "shapes-tiny"})
    listed = zoo("list")
    assert listed.returncode == 0
    assert "shapes-tiny" not in listed.stdout
    for result in (listed.stderr, zoo("show", "shapes-tiny").stderr):
        assert "the zoo 'cascadezoo' of cascadezoo" in result
        assert "the zoo 'mine' of zoo-mine 1.0" in result
    shown = zoo("show", "shapes-tiny", "--json")
    assert shown.returncode == 1
    assert json.loads(shown.stderr)["error"]["code"] == "plugin-zoo-contested"
    verified = zoo("verify", "--json")
    assert verified.returncode == 1
    (problem,) = json.loads(verified.stdout)["problems"]
    assert "'shapes-tiny'" in problem


def test_verify_of_the_bundled_model(invoke):
    result = invoke("zoo", "verify", "shapes-tiny")
    assert result.exit_code == 0
    assert result.stdout.startswith("ok     shapes-tiny: ships with cascadezoo, 7 files")
    assert json.loads(invoke("zoo", "verify", "--json").stdout) == {
        "models": [{"name": "shapes-tiny", "ok": True, "faults": []}],
        "problems": [],
    }


def test_verify_reports_a_wrong_entry_and_fails(invoke, tmp_path):
    row = json.loads(invoke("zoo", "list", "--json").stdout)[0]
    for key in ("zoo", "distribution", "version", "bytes"):
        del row[key]
    row["files"]["samples.png"]["sha256"] = "0" * 64
    path = tmp_path / "zoo.json"
    path.write_text(json.dumps({"version": 1, "models": [row]}))
    result = invoke("zoo", "verify", "--manifest", path)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0].startswith("WRONG  shapes-tiny")
    assert "samples.png" in result.stdout
    as_json = invoke("zoo", "verify", "shapes-tiny", "--manifest", path, "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["models"][0]["ok"] is False


def test_verify_offline_reads_the_cache(invoke, tmp_path, monkeypatch):
    """A model in the Hub's cache is verified without a request; damage is reported."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    row = json.loads(invoke("zoo", "list", "--json").stdout)[0]
    for key in ("zoo", "distribution", "version", "bytes"):
        del row[key]
    row |= {"bundled": False, "repo": ENTRY["repo"], "commit": ENTRY["commit"]}
    path = tmp_path / "zoo.json"
    path.write_text(json.dumps({"version": 1, "models": [row]}))

    absent = invoke("zoo", "verify", "shapes-tiny", "--manifest", path, "--offline")
    assert absent.exit_code == 2
    check_failed(
        absent, "model-not-cached", name="shapes-tiny", shown="cascadezoo pull shapes-tiny"
    )

    folder = tmp_path / "hub" / "models--someone--digits" / "snapshots" / ENTRY["commit"]
    shutil.copytree(bundled_folder(find("shapes-tiny")), folder)
    result = invoke("zoo", "verify", "--manifest", path, "--offline")
    assert result.exit_code == 0, result.output
    assert "someone/digits@0123456789abcdef" in result.stdout

    with (folder / "stages" / "coarse" / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    damaged = invoke("zoo", "verify", "--manifest", path, "--offline")
    assert damaged.exit_code == 1
    assert "stages/coarse/model.safetensors" in damaged.stdout


@pytest.mark.parametrize("reference", ["shapes-tiny", "./folder", "hf://x", "a/b@refs/pr/3"])
def test_add_accepts_only_published_models(invoke, tmp_path, monkeypatch, reference):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    result = invoke("zoo", "add", reference)
    assert result.exit_code == 2
    assert result.error.code.startswith("reference-")
    assert result.error.hint
    assert not (tmp_path / "zoo_manifest.json").exists()


def test_verify_of_a_missing_manifest(invoke, tmp_path):
    result = invoke("zoo", "verify", "--manifest", tmp_path / "none.json")
    assert result.exit_code == 2
    check_failed(result, "input-no-file", path="none.json", shown="cascadezoo zoo add REF")


@pytest.mark.parametrize("limit", ["0", "1001", "many"])
def test_search_limit_is_bounded(invoke, limit):
    assert invoke("zoo", "search", "x", "--limit", limit).exit_code == 2

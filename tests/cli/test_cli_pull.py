from __future__ import annotations

import json
import shutil

import pytest
from errors_help import check_failed


def test_help_shows_the_forms_of_a_reference(invoke):
    result = invoke("pull", "--help").stdout
    for word in ("REF", "--to", "--revision", "--offline", "--json", "org/name@revision"):
        assert word in result


def test_a_folder_is_checked_in_place(invoke, model):
    result = invoke("pull", model)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"pulled lone: 2 files, {result.stdout.partition('files, ')[2]}"
    data = json.loads(invoke("pull", model, "--json").stdout)
    assert (data["folder"], data["repo"], data["changed"]) == (str(model), None, None)
    assert data["bytes"] == sum(data["files"].values())


def test_from_a_folder_to_a_folder(invoke, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model, "models/lone")
    result = invoke("pull", "./models/lone", "--to", "mine/lone")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == "Next: cascadezoo sample ./mine/lone\n"
    assert (tmp_path / "mine/lone/config.json").is_file()
    again = invoke("pull", "./models/lone", "--to", "mine/lone", "--json").stdout
    assert json.loads(again)["changed"] is False


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["models/lone"], {"code": "reference-ambiguous", "name": "models/lone"}),
        (
            ["./models/lone", "--revision", "main"],
            {"code": "reference-no-revision", "name": "./models/lone"},
        ),
        (["./models/none"], {"code": "reference-no-folder", "path": "models/none"}),
        (["hf://x"], {"code": "reference-not-a-repo", "name": "x"}),
        (["org/name@a..b"], {"code": "reference-not-a-revision", "name": "a..b"}),
        (["org/name", "--offline"], {"code": "reference-offline", "name": "org/name"}),
        (["./models/lone", "--to", "full"], {"code": "run-folder-not-a-model", "path": "full"}),
        (["no\x1bthing"], {"code": "reference-not-found", "shown": "no\\x1bthing"}),
    ],
)
def test_invalid_references(args, error, invoke, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    shutil.copytree(model, "models/lone")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years")
    result = invoke("pull", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    check_failed(result, **error)
    assert "\x1b" not in result.stderr
    assert "\nHint: " in result.stderr
    error = json.loads(invoke("pull", *args, "--json").stderr)["error"]
    assert error["hint"]


def test_an_ambiguous_name_shows_both_spellings(invoke, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model, "models/lone")
    shutil.copytree(model, "shapes-tiny")
    for args, spellings in {
        ("pull", "models/lone"): ("./models/lone", "hf://models/lone"),
        ("sample", "shapes-tiny"): ("./shapes-tiny", "zoo:shapes-tiny"),
    }.items():
        result = invoke(*args)
        check_failed(result, "reference-ambiguous", name=args[1])
        assert all(f" {text} " in result.error.hint for text in spellings)

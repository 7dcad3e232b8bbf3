"""``plugins search`` against the local Hub over HTTP: repos with the tag of plugins."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from errors_help import raises
from hub_server import Fault

from cascadezoo.cli.main import main
from cascadezoo.errors import HubUnavailableError
from cascadezoo.hub.search import PLUGIN_TAG, search, search_plugins

WAIT = {"Retry-After": "120"}  # too long to wait, so the request fails at once


def card(*tags: str) -> dict[str, bytes]:
    rows = "".join(f"- {tag}\n" for tag in tags)
    return {"README.md": f"---\ntags:\n{rows}---\n# Plugin\n".encode()}


@pytest.fixture
def repos(hub):
    hub.make_repo("a/cascadezoo-wave", card(PLUGIN_TAG, "audio"))
    hub.make_repo("b/other", card(PLUGIN_TAG))
    hub.make_repo("c/wave-model", card("cascadezoo"))
    return hub


def invoke(*args: str) -> Result:
    return CliRunner().invoke(main, ["plugins", "search", *args], prog_name="cascadezoo")


def test_only_repos_with_the_tag_of_plugins_are_found(repos) -> None:
    assert PLUGIN_TAG == "cascadezoo-plugin"
    assert sorted(row.repo for row in search_plugins("")) == ["a/cascadezoo-wave", "b/other"]
    (wave,) = search_plugins("wave")
    assert wave.repo == "a/cascadezoo-wave"
    assert "audio" in wave.tags
    assert wave.zoo == []
    assert len(search_plugins("", limit=1)) == 1
    assert [row.repo for row in search("")] == ["c/wave-model"]  # models only


def test_the_command_shows_the_index_and_the_hub(repos) -> None:
    result = invoke("--hub")
    assert result.exit_code == 0, result.output
    index, _, hub = result.stdout.partition("On the Hub, not reviewed:")
    assert "cascadezoo-hello" in index
    assert "a/cascadezoo-wave" in hub
    assert "c/wave-model" not in hub
    data = json.loads(invoke("gan", "--hub", "--json").stdout)
    assert [row["name"] for row in data["index"]] == ["cascadezoo-gan"]
    assert (data["hub"], data["problems"]) == ([], [])
    assert repos.requests


def test_without_the_flag_nothing_is_sent(repos) -> None:
    repos.clear()
    assert json.loads(invoke("wave", "--json").stdout) == {"index": [], "hub": None, "problems": []}
    assert repos.requests == []


def test_offline_the_index_is_shown(repos, tmp_path: Path) -> None:
    repos.clear()
    # The client reads the variable when it is imported.
    done = subprocess.run(
        [sys.executable, "-m", "cascadezoo", "plugins", "search", "--hub", "--json"],
        env={**repos.env, "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    data = json.loads(done.stdout)
    assert "cascadezoo-hello" in {row["name"] for row in data["index"]}
    assert data["hub"] is None
    assert "HF_HUB_OFFLINE" in data["problems"][0]
    assert "The Hub was not searched" in done.stderr
    assert repos.requests == []


def test_an_unavailable_hub(hub) -> None:
    hub.fail(Fault("status", r"GET /api/models(\?.*)?$", times=100, status=429, headers=WAIT))
    with raises(HubUnavailableError, "hub-unavailable-wait"):
        search_plugins("wave")
    result = invoke("--hub")
    assert result.exit_code == 1
    assert "cascadezoo-hello" in result.stdout


def test_names_on_the_hub_have_no_control_characters(hub) -> None:
    hub.make_repo("a/evil", card(PLUGIN_TAG, '"x\\e[2J\\u202e"'))
    (row,) = search_plugins("evil")
    assert not {"\x1b", "\u202e"} & set("".join(row.tags))

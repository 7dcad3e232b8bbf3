"""Specs of plugins: use by name, listing with their distribution, and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from errors_help import raises
from plugin_sites import cascadezoo, install, wave

from cascadezoo.errors import PluginError, UnknownNameError
from cascadezoo.plugins.manager import get_host
from cascadezoo.plugins.registry import SpecEntry
from cascadezoo.spec import read_spec, shipped_specs
from cascadezoo.testing import check_entry

HOOK = """
from cascadezoo import SpecEntry, hookimpl

@hookimpl
def register_specs():
    for name, file in {rows!r}.items():
        yield SpecEntry(name=name, summary="a summary", impl=f"{package}:{{file}}")
"""


def spec(name: str, **more: object) -> dict[str, object]:
    return {**read_spec("diffusion-pixelshuffle-vit-tiny")[0], "name": name, **more}


def files(package: str, rows: dict[str, str], **texts: str) -> dict[str, str]:
    return {"__init__.py": HOOK.format(rows=rows, package=package), **texts}


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Installs a distribution in this process."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))

    def make(name: str, content: dict[str, str]) -> Path:
        install(site, name, "1.2", content)
        get_host.cache_clear()
        return site

    yield make
    get_host.cache_clear()


def test_a_spec_of_a_plugin_is_used_by_name(hosted) -> None:
    texts = {"specs/wavy.json": json.dumps(spec("wavy", description="waves"))}
    site = hosted("specs-wavy", files("specs_wavy", {"wavy": "specs/wavy.json"}, **texts))
    assert "wavy" in shipped_specs()
    assert read_spec("wavy")[0]["description"] == "waves"
    assert check_entry(get_host().registry.specs.get("wavy").entry).ok
    valid = cascadezoo("validate", "wavy", site=site)
    assert valid.returncode == 0, valid.stderr
    rows = json.loads(cascadezoo("specs", "list", "--json", site=site).stdout)
    (row,) = (row for row in rows if row["name"] == "wavy")
    assert row == {
        "name": "wavy",
        "description": "waves",
        "distribution": "specs-wavy",
        "version": "1.2",
        "problem": None,
    }
    assert {r["distribution"] for r in rows if r["name"] != "wavy"} == {"cascadezoo"}
    text = cascadezoo("specs", "list", site=site).stdout
    assert any(line.split()[:3] == ["wavy", "specs-wavy", "waves"] for line in text.splitlines())
    assert cascadezoo("specs", "show", "wavy", site=site).returncode == 0
    listed = cascadezoo("plugins", "list", site=site).stdout
    assert "spec: wavy" in listed


def test_unreadable_specs_do_not_affect_others(hosted) -> None:
    rows = {"gone": "gone.json", "torn": "torn.json", "whole": "whole.json"}
    texts = {"torn.json": "{", "whole.json": json.dumps(spec("whole"))}
    site = hosted("specs-bad", files("specs_bad", rows, **texts))
    with raises(PluginError, "plugin-spec-unreadable", name="gone"):
        read_spec("gone")
    done = cascadezoo("specs", "list", "--json", site=site)
    assert done.returncode == 0
    problems = {row["name"]: row["problem"] for row in json.loads(done.stdout) if row["problem"]}
    assert set(problems) == {"gone", "torn"}
    assert all(name in problem for name, problem in problems.items())
    assert all(problem.splitlines()[0] in done.stderr for problem in problems.values())
    assert "whole" in shipped_specs()


def test_a_spec_that_two_plugins_claim_is_not_used(hosted) -> None:
    texts = {"a.json": json.dumps(spec("wavy"))}
    for name in ("specs-one", "specs-two"):
        hosted(name, files(name.replace("-", "_"), {"wavy": "a.json"}, **texts))
    with raises(PluginError, "plugin-contested", kind="spec", name="wavy"):
        read_spec("wavy")
    with raises(UnknownNameError, "lookup-spec", name="shapes-tinny"):
        read_spec("shapes-tinny")


def test_a_plugin_does_not_replace_a_built_in_spec(hosted) -> None:
    before = read_spec("shapes-tiny")
    texts = {"a.json": json.dumps(spec("shapes-tiny", description="evil"))}
    hosted("specs-evil", files("specs_evil", {"shapes-tiny": "a.json"}, **texts))
    assert read_spec("shapes-tiny") == before
    (problem,) = get_host().problems
    assert problem.code == "name-reserved"


@pytest.mark.parametrize(
    "impl", ["a:b", "a:../b.json", "a:/b.json", "a.json", "a:b.json\n", "a:b..json", "a/b:c.json"]
)
def test_an_entry_names_a_file_of_a_package(impl: str) -> None:
    with pytest.raises(ValueError, match="'package:file.json'"):
        SpecEntry(name="mine", summary="", impl=impl)


def test_the_check_of_a_spec(hosted) -> None:
    bad = spec("other", stages=[])
    texts = {"a.json": json.dumps(spec("other")), "b.json": json.dumps(bad)}
    hosted("specs-odd", files("specs_odd", {"mine": "a.json", "other": "b.json"}, **texts))
    table = get_host().registry.specs
    named = check_entry(table.get("mine").entry)
    assert not named.ok
    assert "'other'" in str(named)
    assert "'mine'" in str(named)
    assert not check_entry(table.get("other").entry).ok


def test_an_installed_plugin_keeps_the_shipped_specs(hosted) -> None:
    hosted("cascadezoo-wave", wave())
    assert "shapes-demo" in shipped_specs()

"""Plugins for another cascadezoo, slow and loud ones, and those that change cascadezoo."""

from __future__ import annotations

import json
import logging
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from errors_help import raises
from plugin_sites import HOOK, cascadezoo, install, wave

from cascadezoo.errors import PluginError, UnknownNameError
from cascadezoo.plugins.manager import PluginHost, get_host

BUILTIN = [p for p in entry_points(group="cascadezoo") if p.value == "cascadezoo.plugins.builtin"]

# A module of a plugin for a later version: importing it here would fail.
LATER = "from cascadezoo import NameOfTheFuture\n"


@pytest.mark.parametrize(
    ("requires", "hint"),
    [
        (("cascadezoo>=2.0",), "pip install --upgrade cascadezoo"),
        (("cascadezoo (>=1,<2)",), "pip install --upgrade cascadezoo"),
        (
            ("torch", "cascadezoo[ray]>=3 ; python_version >= '3'"),
            "pip install --upgrade cascadezoo",
        ),
        (("cascadezoo<0.1",), "pip install --upgrade dist-other"),
        (("cascadezoo==0.0.1",), "pip install --upgrade dist-other"),
    ],
)
def test_a_plugin_for_another_version_is_not_imported(plugin, requires, hint) -> None:
    point = plugin("dist-other", "1", "raise RuntimeError('imported')", requires=requires)
    host = PluginHost([*BUILTIN, point])
    (problem,) = host.problems
    assert problem.code == "requires-other-version"
    assert problem.message.endswith(hint)
    assert "this is 0.1.0" in problem.message
    assert str(problem.where).endswith("entry_points.txt:2")
    assert host.plugins[-1].state == "incompatible"
    assert "dist_other" not in sys.modules
    with raises(UnknownNameError, "lookup", name="theirs.v1") as caught:
        host.registry.stages.get("theirs.v1")
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    "requires",
    [
        (),
        ("cascadezoo",),
        ("cascadezoo>=0.1",),
        ("cascadezoo-hello>=9",),
        ("cascadezoo>=9 ; extra == 'next'",),
        ("cascadezoo>=9 ; python_version < '3'",),
        ("cascadezoo >>> what",),
    ],
)
def test_a_plugin_for_this_version_is_imported(plugin, requires) -> None:
    host = PluginHost([*BUILTIN, plugin("dist-fit", "1", "x = 1\n", requires=requires)])
    assert not host.problems
    assert "dist_fit" in sys.modules


@pytest.mark.parametrize("line", ["CASCADEZOO_API = 2", "CASCADEZOO_API: int = 2  # later"])
def test_the_level_is_read_before_the_import(plugin, line: str) -> None:
    host = PluginHost([*BUILTIN, plugin("dist-later", "1", f"{LATER}\n{line}\n")])
    (problem,) = host.problems
    assert (problem.code, host.plugins[-1].state) == ("api-level", "incompatible")
    assert problem.message.endswith("pip install --upgrade cascadezoo")
    assert str(problem.where).endswith("dist_later.py:3")
    assert "dist_later" not in sys.modules


def test_the_level_of_a_submodule_is_read_without_its_package(tmp_path: Path) -> None:
    files = {"__init__.py": "raise RuntimeError", "hooks.py": "CASCADEZOO_API = 2\n"}
    point = "cascadezoo_deep.hooks"
    site = install(tmp_path / "site", "cascadezoo-deep", "1", files, point)
    listed = json.loads(cascadezoo("plugins", "list", "--json", site=site).stdout)
    (row,) = (row for row in listed if row["distribution"] == "cascadezoo-deep")
    assert (row["state"], row["problems"][0]["code"]) == ("incompatible", "api-level")
    assert row["problems"][0]["where"].endswith("hooks.py:1")


@pytest.mark.parametrize("source", [LATER, "import cascadezoo.future\n"])
def test_a_missing_name_of_cascadezoo_gives_advice(plugin, source: str) -> None:
    host = PluginHost([*BUILTIN, plugin("dist-later", "1", source)])
    (problem,) = host.problems
    assert problem.code == "import-failed"
    assert problem.message.endswith("newer cascadezoo: pip install --upgrade cascadezoo")


def test_slow_plugins_are_named_with_their_seconds(plugin, caplog) -> None:
    slow = "import time\ntime.sleep(0.6)\n" + HOOK.format(kind="slow.v1", package="dist_slow")
    plugin("dist-slow", "1", slow)
    plugin("dist-quick", "1", HOOK.format(kind="quick.v1", package="dist_quick"))
    get_host.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "cascadezoo"):
            host = get_host()
            get_host()
    finally:
        get_host.cache_clear()
    (problem,) = (p for p in host.problems if p.code == "import-slow")
    assert problem.origin.distribution == "dist-slow"
    seconds = next(p.seconds for p in host.plugins if p.origin == problem.origin)
    assert f"takes {seconds:.1f} s to load" in problem.message
    assert seconds >= 0.6
    assert sum("dist-slow" in record.getMessage() for record in caplog.records) == 1
    assert "slow.v1" in host.registry.stages.names()


def test_what_a_plugin_prints_goes_to_stderr(tmp_path: Path) -> None:
    files = wave()
    files["__init__.py"] = "print('hello from the module')\n" + files["__init__.py"].replace(
        "    return", "    print('hello from the hook')\n    return"
    )
    files["config.py"] = "print('hello from the config')\n" + files["config.py"]
    site = install(tmp_path / "site", "cascadezoo-wave", "1", files)
    done = cascadezoo("stages", "show", "wave.v1", "--json", site=site)
    assert json.loads(done.stdout)
    for place in ("module", "hook", "config"):
        assert f"hello from the {place}" in done.stderr


def test_a_slow_plugin_is_named_once_by_every_command(tmp_path: Path) -> None:
    files = wave()
    files["__init__.py"] = "import time\ntime.sleep(0.7)\n" + files["__init__.py"]
    site = install(tmp_path / "site", "cascadezoo-wave", "1", files)
    done = cascadezoo("stages", "list", "--json", site=site)
    assert json.loads(done.stdout)
    assert done.stderr.count("to load, which slows every command") == 1
    assert "cascadezoo-wave" in done.stderr
    listed = json.loads(cascadezoo("plugins", "list", "--json", site=site).stdout)
    (row,) = (row for row in listed if row["distribution"] == "cascadezoo-wave")
    assert row["seconds"] >= 0.7
    assert [p["code"] for p in row["problems"]] == ["import-slow"]


PATCH = """
import cascadezoo.spec.configs as configs
from cascadezoo.plugins import registry

def describe(self):
    return "mine"

original, kept = configs.ImageShape.__str__, registry.deprecated
configs.ImageShape.__str__ = describe
registry.deprecated = lambda *args, **options: None

def restore():
    configs.ImageShape.__str__ = original
    registry.deprecated = kept
"""


def test_a_plugin_that_changes_cascadezoo_is_reported(plugin) -> None:
    host = PluginHost([*BUILTIN, plugin("dist-patch", "1", PATCH)])
    try:
        (problem,) = host.problems
        assert problem.code == "patches-cascadezoo"
        assert problem.origin.distribution == "dist-patch"
        assert "cascadezoo.plugins.registry.deprecated and 1 more" in problem.message
        assert str(problem.where).endswith("dist_patch.py")
        assert host.plugins[-1].state == "faulty"
    finally:
        sys.modules["dist_patch"].restore()
    clean = plugin("dist-clean", "1", HOOK.format(kind="clean.v1", package="dist_clean"))
    assert not PluginHost([*BUILTIN, clean]).problems


def test_an_import_error_of_an_implementation_names_its_line(plugin) -> None:
    source = HOOK.format(kind="late.v1", package="dist_late")
    point = plugin("dist-late", "1", source.replace("dist_late.stage:S", "dist_stage:S"))
    host = PluginHost([*BUILTIN, point])
    row = host.registry.stages.get("late")
    folder = Path(str(sys.modules["dist_late"].__file__)).parent
    (folder / "dist_stage.py").write_text("x = 1\n\nraise RuntimeError('not today')\n")
    with raises(PluginError, "plugin-import-failed", name="late.v1") as caught:
        row.entry.load()
    assert "dist_stage.py:3" in caught.value.what

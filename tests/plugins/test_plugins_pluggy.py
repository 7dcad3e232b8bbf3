"""Features of pluggy: call order, wrappers, spec names, objects and blocking by name."""

from __future__ import annotations

from importlib.metadata import entry_points

import pluggy
import pytest
from errors_help import raises

from cascadezoo.errors import UnknownNameError
from cascadezoo.plugins.manager import PluginHost, get_host

BUILTIN = [p for p in entry_points(group="cascadezoo") if p.value == "cascadezoo.plugins.builtin"]

HEAD = """
import dataclasses
from cascadezoo import StageEntry, hookimpl

def entry(name, **more):
    return StageEntry(name=name, role="refiner", summary="s", impl="m:X", config="m:C", **more)
"""

ONE = HEAD + "\n@hookimpl\ndef register_stages():\n    return [entry('{kind}')]\n"

CALLS = (
    HEAD
    + """
import calls

@hookimpl({options})
def register_stages():
    calls.append("{kind}")
    return [entry("{kind}")]
"""
)

WRAP = (
    HEAD
    + """
@hookimpl(wrapper=True)
def register_stages():
    {before}
    results = yield
    {after}
"""
)


def rows(host: PluginHost) -> list[tuple[str, str]]:
    """Kind and distribution of the entries that are not built in."""
    table = host.registry.stages
    return [
        (row.entry.name, row.origin.distribution)
        for row in table
        if row.origin.distribution != "cascadezoo"
    ]


def problems(host: PluginHost) -> list[tuple[str, str, str]]:
    """Plugin, code, and line of each problem."""
    return [
        (p.origin.plugin, p.code, str(p.where).replace("\\", "/").rpartition("/")[2])
        for p in host.problems
    ]


def test_plugins_are_registered_under_their_names(plugin) -> None:
    host = PluginHost([*BUILTIN, plugin("dist-a", "1", ONE.format(kind="a.v1"))])
    assert isinstance(host.manager, pluggy.PluginManager)
    assert [name for name, _ in host.manager.list_name_plugin()] == [
        "dist-a:main",
        "cascadezoo:builtin",
    ]
    assert host.manager.get_plugin("dist-a:main").__name__ == "dist_a"
    assert host.manager.hook.register_stages.has_spec()
    host.manager.check_pending()


def test_tryfirst_and_trylast_order_the_calls(plugin, monkeypatch, tmp_path) -> None:
    points = [
        plugin("dist-a", "1", CALLS.format(kind="a.v1", options="trylast=True")),
        plugin("dist-b", "1", CALLS.format(kind="b.v1", options="")),
        plugin("dist-c", "1", CALLS.format(kind="c.v1", options="")),
        plugin("dist-d", "1", CALLS.format(kind="d.v1", options="tryfirst=True")),
    ]
    (tmp_path / "site" / "calls.py").write_text(
        "import sys\nmade = []\nsys.modules[__name__] = made\n"
    )
    import sys

    monkeypatch.delitem(sys.modules, "calls", raising=False)
    host = PluginHost([*BUILTIN, *points])
    assert not host.problems
    assert sys.modules["calls"] == ["d.v1", "b.v1", "c.v1", "a.v1"]
    assert [p.origin.distribution for p in host.plugins[1:]] == [
        f"dist-{letter}" for letter in "abcd"
    ]


def test_a_wrapper_drops_and_changes_the_entries_of_others(plugin) -> None:
    change = (
        "return [[dataclasses.replace(e, deprecated='use b.v2') for e in entries"
        " if e.name != 'a.v1'] for entries in results]"
    )
    points = [
        plugin("dist-a", "1", ONE.format(kind="a.v1")),
        plugin("dist-b", "1", ONE.format(kind="b.v1")),
        plugin("dist-wrap", "1", WRAP.format(before="", after=change)),
    ]
    host = PluginHost([*BUILTIN, *points])
    assert not host.problems
    assert rows(host) == [("b.v1", "dist-b")]
    assert host.registry.stages.rows["b.v1"].entry.deprecated == "use b.v2"
    assert host.registry.stages.rows["flow.v1"].origin.distribution == "cascadezoo"
    assert host.plugins[-1].hooks == ["register_stages"]
    assert host.plugins[-1].names == {}


def test_wrappers_nest_as_in_pluggy(plugin) -> None:
    source = HEAD + (
        "@hookimpl(wrapper=True{more})\ndef register_stages():\n    results = yield\n"
        "    return [[dataclasses.replace(e, summary=e.summary + '{letter}') for e in entries]"
        " for entries in results]\n"
    )
    points = [
        plugin("dist-a", "1", source.format(letter="a", more="")),
        plugin("dist-b", "1", source.format(letter="b", more="")),
        plugin("dist-c", "1", source.format(letter="c", more=", trylast=True")),
        plugin("dist-x", "1", ONE.format(kind="x.v1")),
    ]
    host = PluginHost([*BUILTIN, *points])
    assert not host.problems
    # The innermost wrapper, which is called last, changes the entries first.
    assert host.registry.stages.rows["x.v1"].entry.summary == "scba"


def test_an_old_hookwrapper_works(plugin) -> None:
    source = HEAD + (
        "@hookimpl(hookwrapper=True)\ndef register_stages():\n    outcome = yield\n"
        "    outcome.force_result([[e for e in r if e.name != 'a.v1']"
        " for r in outcome.get_result()])\n"
    )
    points = [plugin("dist-a", "1", ONE.format(kind="a.v1")), plugin("dist-wrap", "1", source)]
    host = PluginHost([*BUILTIN, *points])
    assert not host.problems
    assert rows(host) == []


@pytest.mark.parametrize(
    ("before", "after", "shown", "line"),
    [
        ("1 / 0", "return results", "ZeroDivisionError", 10),
        ("pass", "1 / 0", "ZeroDivisionError", 12),
        ("pass", "yield", "yielded twice", 8),
        ("return", "return results", "did not yield", 8),
        ("pass", "return None", "TypeError", 8),
        (
            "pass",
            "return [[*entries, entry('extra.v1')] for entries in results]",
            "'extra.v1'",
            8,
        ),
        (
            "pass",
            "return [[dataclasses.replace(e, impl='evil:X') for e in entries]"
            " for entries in results]",
            "'good.v1'",
            8,
        ),
    ],
)
def test_a_broken_wrapper_is_a_problem_of_its_plugin(plugin, before, after, shown, line) -> None:
    points = [
        plugin("dist-good", "1", ONE.format(kind="good.v1")),
        plugin("dist-wrap", "1", WRAP.format(before=before, after=after)),
    ]
    host = PluginHost([*BUILTIN, *points])
    code = "wrapper-replaces" if shown.startswith("'") else "hook-failed"
    assert set(problems(host)) == {("dist-wrap:main", code, f"dist_wrap.py:{line}")}
    assert any(shown in problem.message for problem in host.problems)
    states = {p.origin.distribution: p.state for p in host.plugins}
    assert states == {"cascadezoo": "loaded", "dist-good": "loaded", "dist-wrap": "faulty"}
    if shown != "'good.v1'":
        assert rows(host) == [("good.v1", "dist-good")]
        assert "flow.v1" in host.registry.stages.rows
    else:
        assert "good.v1" not in host.registry.stages.rows


def test_the_exception_of_a_wrapped_plugin_is_a_problem_of_that_plugin(plugin) -> None:
    bad = HEAD + "@hookimpl\ndef register_stages():\n    return 1 / 0\n"
    points = [
        plugin("dist-bad", "1", bad),
        plugin("dist-good", "1", ONE.format(kind="good.v1")),
        plugin("dist-wrap", "1", WRAP.format(before="", after="return results")),
    ]
    host = PluginHost([*BUILTIN, *points])
    (problem,) = host.problems
    assert (problem.origin.plugin, problem.code) == ("dist-bad:main", "hook-failed")
    assert "ZeroDivisionError" in problem.message
    assert rows(host) == [("good.v1", "dist-good")]


def test_a_function_of_any_name_implements_a_hook_by_specname(plugin) -> None:
    source = HEAD + (
        "@hookimpl(specname='register_stages')\ndef more():\n    return [entry('more.v1')]\n"
        "\n@hookimpl(specname='register_stages')\ndef broken():\n    return 1 / 0\n"
        "\n@hookimpl\ndef register_stages():\n    return [entry('plain.v1')]\n"
    )
    host = PluginHost([*BUILTIN, plugin("dist-a", "1", source)])
    assert problems(host) == [("dist-a:main", "hook-failed", "dist_a.py:13")]
    assert rows(host) == [("more.v1", "dist-a"), ("plain.v1", "dist-a")]
    assert host.plugins[-1].hooks == ["register_stages"]
    row = host.registry.stages.rows["more.v1"]
    assert str(host.registered_at(host.plugins[-1], row.entry)).endswith("dist_a.py:7")


def test_a_specname_that_is_not_a_hook(plugin) -> None:
    source = HEAD + "@hookimpl(specname='register_stage')\ndef more():\n    return []\n"
    source += "\n@hookimpl(optionalhook=True)\ndef register_later():\n    return 1 / 0\n"
    source += "\n@hookimpl\ndef register_stages():\n    return [entry('a.v1')]\n"
    host = PluginHost([*BUILTIN, plugin("dist-a", "1", source)])
    assert problems(host) == [("dist-a:main", "hook-unknown", "dist_a.py:7")]
    assert "'register_stage'" in host.problems[0].message
    assert rows(host) == [("a.v1", "dist-a")]


def test_valid_hooks_of_a_plugin_work_beside_invalid_ones(plugin) -> None:
    source = HEAD + "@hookimpl\ndef register_losses(registry):\n    return []\n"
    source += "\n@hookimpl(wrapper=True)\ndef register_metrics():\n    return []\n"
    source += "\n@hookimpl\ndef register_stages():\n    return [entry('a.v1')]\n"
    host = PluginHost([*BUILTIN, plugin("dist-a", "1", source)])
    assert problems(host) == [
        ("dist-a:main", "hook-invalid", "dist_a.py:7"),
        ("dist-a:main", "hook-invalid", "dist_a.py:11"),
    ]
    losses, metrics = host.problems
    assert "Argument(s) {'registry'}" in losses.message
    assert "function is not a generator function" in metrics.message
    assert rows(host) == [("a.v1", "dist-a")]


OBJECT = (
    HEAD
    + """
class Brand:
    CASCADEZOO_API = {level}

    def __init__(self, name):
        self.name = name

    @hookimpl
    def register_stages(self):
        return [entry(f"{{self.name}}.v1")] if self.name else 1 / 0

one, two, none = Brand("one"), Brand("two"), Brand("")
nothing = None

class Everything(Brand):
    def __eq__(self, other):
        return True

every = Everything("every")

class Static:
    @staticmethod
    @hookimpl
    def register_stages():
        return [entry("static.v1")]
"""
)


def test_an_object_is_a_plugin(plugin) -> None:
    points = [
        plugin("dist-one", "1", OBJECT.format(level=1), target="dist_one:one"),
        plugin("dist-two", "1", "from dist_one import *\n", target="dist_two:two"),
        plugin("dist-static", "1", "from dist_one import *\n", target="dist_static:Static"),
    ]
    host = PluginHost([*BUILTIN, *points])
    assert not host.problems
    assert rows(host) == [
        ("one.v1", "dist-one"),
        ("static.v1", "dist-static"),
        ("two.v1", "dist-two"),
    ]
    assert host.manager.get_plugin("dist-one:main").name == "one"


def test_objects_that_are_not_valid_plugins(plugin) -> None:
    points = [
        plugin("dist-a", "1", OBJECT.format(level=1), target="dist_a:none"),
        plugin("dist-b", "1", "from dist_a import *\n", target="dist_b:nothing"),
        plugin("dist-c", "1", "from dist_a import *\n", target="dist_c:one"),
        plugin("dist-d", "1", "from dist_a import *\n", target="dist_d:one"),
        plugin("dist-e", "1", OBJECT.format(level=2), target="dist_e:two"),
        plugin("dist-f", "1", "from dist_a import *\n", target="dist_f:every"),
    ]
    host = PluginHost([*BUILTIN, *points])
    assert sorted(problems(host)) == [
        ("dist-a:main", "hook-failed", "dist_a.py:16"),
        ("dist-b:main", "target-none", "entry_points.txt:2"),
        ("dist-d:main", "target-registered", "entry_points.txt:2"),
        ("dist-e:main", "api-level", "dist_e.py:9"),
        ("dist-f:main", "target-registered", "entry_points.txt:2"),
    ]
    (message,) = (p.message for p in host.problems if p.origin.plugin == "dist-d:main")
    assert "dist-c:main" in message
    assert rows(host) == [("one.v1", "dist-c")]
    assert host.plugins[0].state == "loaded"
    assert "flow.v1" in host.registry.stages.rows


@pytest.mark.parametrize("name", ["dist-a", "Dist_A:main", "dist-a:main"])
def test_a_plugin_is_blocked_by_its_name(plugin, name, monkeypatch) -> None:
    point = plugin("dist-a", "1", "raise RuntimeError('never imported')\n")
    other = plugin("dist-b", "1", ONE.format(kind="b.v1"))
    monkeypatch.setenv("CASCADEZOO_BLOCK_PLUGINS", f" {name} ,dist-c:main,cascadezoo")
    get_host.cache_clear()
    try:
        host = get_host()
    finally:
        get_host.cache_clear()
    assert not host.problems
    plugins = {p.origin.plugin: p for p in host.plugins}
    assert plugins["dist-a:main"].state == "disabled"
    assert plugins["dist-a:main"].disabled_by == "CASCADEZOO_BLOCK_PLUGINS"
    assert host.manager.is_blocked("dist-a:main")
    assert host.manager.register(object(), "dist-a:main") is None
    assert {"b.v1", "flow.v1"} <= set(host.registry.stages.names())
    with raises(UnknownNameError, "lookup", name="wave.v1") as caught:
        host.registry.stages.get("wave.v1")
    assert f"dist-a {host.registry.unusable['dist-a']}" in str(caught.value.hint)
    assert "CASCADEZOO_BLOCK_PLUGINS" in str(caught.value.hint)
    assert (point.name, other.name) == ("main", "main")


def test_the_limit_accepts_the_name_of_a_plugin(plugin) -> None:
    points = [plugin(f"dist-{x}", "1", ONE.format(kind=f"{x}.v1")) for x in "ab"]
    host = PluginHost([*BUILTIN, *points], limit=frozenset({"dist-a:main", "dist-b:other"}))
    assert rows(host) == [("a.v1", "dist-a")]
    assert host.plugins[-1].disabled_by == "CASCADEZOO_LOAD_PLUGINS"

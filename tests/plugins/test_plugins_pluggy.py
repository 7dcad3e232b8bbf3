"""What pluggy gives to plugins: order, wrappers, spec names, objects and blocking by name."""

from __future__ import annotations

from importlib.metadata import entry_points

import pluggy
import pytest

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
    """Kind and distribution of what is not cascadezoo's."""
    table = host.registry.stages
    return [
        (row.entry.name, row.origin.distribution)
        for row in table
        if row.origin.distribution != "cascadezoo"
    ]


def result(host: PluginHost) -> list[tuple[str, str, str | None]]:
    return [(p.origin.plugin, p.message, p.where) for p in host.problems]


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


def test_wrappers_lie_in_each_other_as_pluggy_has_it(plugin) -> None:
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
    # The innermost changes first: the one that is called last.
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
    ("before", "after", "message", "line"),
    [
        ("1 / 0", "return results", "register_stages() raised ZeroDivisionError", 10),
        ("pass", "1 / 0", "register_stages() raised ZeroDivisionError", 12),
        ("pass", "yield", "register_stages() raised RuntimeError: the wrapper yielded twice", 8),
        ("return", "return results", "the wrapper did not yield", 8),
        ("pass", "return None", "register_stages() raised TypeError", 8),
        (
            "pass",
            "return [[*entries, entry('extra.v1')] for entries in results]",
            "adds or replaces 'extra.v1'",
            8,
        ),
        (
            "pass",
            "return [[dataclasses.replace(e, impl='evil:X') for e in entries]"
            " for entries in results]",
            "adds or replaces 'good.v1'",
            8,
        ),
    ],
)
def test_a_broken_wrapper_is_the_fault_of_its_plugin(plugin, before, after, message, line) -> None:
    points = [
        plugin("dist-good", "1", ONE.format(kind="good.v1")),
        plugin("dist-wrap", "1", WRAP.format(before=before, after=after)),
    ]
    host = PluginHost([*BUILTIN, *points])
    assert {name for name, _, _ in result(host)} == {"dist-wrap:main"}
    assert any(message in text for _, text, _ in result(host))
    assert all(str(where).endswith(f"dist_wrap.py:{line}") for _, _, where in result(host))
    states = {p.origin.distribution: p.state for p in host.plugins}
    assert states == {"cascadezoo": "loaded", "dist-good": "loaded", "dist-wrap": "faulty"}
    if "replaces" not in message or "extra" in message:
        assert rows(host) == [("good.v1", "dist-good")]
        assert "flow.v1" in host.registry.stages.rows
    else:
        assert "good.v1" not in host.registry.stages.rows


def test_the_exception_of_a_wrapped_plugin_is_its_own(plugin) -> None:
    bad = HEAD + "@hookimpl\ndef register_stages():\n    return 1 / 0\n"
    points = [
        plugin("dist-bad", "1", bad),
        plugin("dist-good", "1", ONE.format(kind="good.v1")),
        plugin("dist-wrap", "1", WRAP.format(before="", after="return results")),
    ]
    host = PluginHost([*BUILTIN, *points])
    ((name, message, _),) = result(host)
    assert (name, "ZeroDivisionError" in message) == ("dist-bad:main", True)
    assert rows(host) == [("good.v1", "dist-good")]


def test_a_function_of_any_name_implements_a_hook_by_specname(plugin) -> None:
    source = HEAD + (
        "@hookimpl(specname='register_stages')\ndef more():\n    return [entry('more.v1')]\n"
        "\n@hookimpl(specname='register_stages')\ndef broken():\n    return 1 / 0\n"
        "\n@hookimpl\ndef register_stages():\n    return [entry('plain.v1')]\n"
    )
    host = PluginHost([*BUILTIN, plugin("dist-a", "1", source)])
    ((_, message, where),) = result(host)
    assert message == "register_stages() raised ZeroDivisionError: division by zero"
    assert str(where).endswith("dist_a.py:13")
    assert rows(host) == [("more.v1", "dist-a"), ("plain.v1", "dist-a")]
    assert host.plugins[-1].hooks == ["register_stages"]
    row = host.registry.stages.rows["more.v1"]
    assert str(host.registered_at(host.plugins[-1], row.entry)).endswith("dist_a.py:7")


def test_a_specname_that_is_no_hook(plugin) -> None:
    source = HEAD + "@hookimpl(specname='register_stage')\ndef more():\n    return []\n"
    source += "\n@hookimpl(optionalhook=True)\ndef register_later():\n    return 1 / 0\n"
    source += "\n@hookimpl\ndef register_stages():\n    return [entry('a.v1')]\n"
    host = PluginHost([*BUILTIN, plugin("dist-a", "1", source)])
    ((_, message, where),) = result(host)
    assert message.startswith("'register_stage' is no hook of cascadezoo; hooks are register_")
    assert str(where).endswith("dist_a.py:7")
    assert rows(host) == [("a.v1", "dist-a")]


def test_the_valid_hooks_of_a_plugin_work_beside_those_that_pluggy_refuses(plugin) -> None:
    source = HEAD + "@hookimpl\ndef register_losses(registry):\n    return []\n"
    source += "\n@hookimpl(wrapper=True)\ndef register_metrics():\n    return []\n"
    source += "\n@hookimpl\ndef register_stages():\n    return [entry('a.v1')]\n"
    host = PluginHost([*BUILTIN, plugin("dist-a", "1", source)])
    (losses, metrics) = result(host)
    assert "Argument(s) {'registry'}" in losses[1]
    assert "function is not a generator function" in metrics[1]
    assert [str(row[2]).rpartition(":")[2] for row in (losses, metrics)] == ["7", "11"]
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


def test_objects_that_are_no_good_plugins(plugin) -> None:
    points = [
        plugin("dist-a", "1", OBJECT.format(level=1), target="dist_a:none"),
        plugin("dist-b", "1", "from dist_a import *\n", target="dist_b:nothing"),
        plugin("dist-c", "1", "from dist_a import *\n", target="dist_c:one"),
        plugin("dist-d", "1", "from dist_a import *\n", target="dist_d:one"),
        plugin("dist-e", "1", OBJECT.format(level=2), target="dist_e:two"),
        plugin("dist-f", "1", "from dist_a import *\n", target="dist_f:every"),
    ]
    host = PluginHost([*BUILTIN, *points])
    problems = {name.partition(":")[0]: (text, str(where)) for name, text, where in result(host)}
    assert set(problems) == {"dist-a", "dist-b", "dist-d", "dist-e", "dist-f"}
    assert problems["dist-a"][0].startswith("register_stages() raised ZeroDivisionError")
    assert problems["dist-a"][1].endswith("dist_a.py:16")
    assert "names None" in problems["dist-b"][0]
    assert problems["dist-b"][1].endswith("entry_points.txt:2")
    assert problems["dist-d"][0] == "its entry point names what dist-c:main registers already"
    assert "API level 2" in problems["dist-e"][0]
    assert problems["dist-e"][1].endswith("dist_e.py:9")
    assert "registers already" in problems["dist-f"][0]
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
    ours = {p.origin.plugin: p for p in host.plugins}
    assert ours["dist-a:main"].state == "disabled"
    assert ours["dist-a:main"].disabled_by == "CASCADEZOO_BLOCK_PLUGINS"
    assert host.manager.is_blocked("dist-a:main")
    assert host.manager.register(object(), "dist-a:main") is None
    assert {"b.v1", "flow.v1"} <= set(host.registry.stages.names())
    with pytest.raises(UnknownNameError) as caught:
        host.registry.stages.get("wave.v1")
    assert "dist-a is left out by CASCADEZOO_BLOCK_PLUGINS" in str(caught.value.hint)
    assert (point.name, other.name) == ("main", "main")


def test_the_limit_takes_the_name_of_a_plugin(plugin) -> None:
    points = [plugin(f"dist-{x}", "1", ONE.format(kind=f"{x}.v1")) for x in "ab"]
    host = PluginHost([*BUILTIN, *points], limit=frozenset({"dist-a:main", "dist-b:other"}))
    assert rows(host) == [("a.v1", "dist-a")]
    assert host.plugins[-1].disabled_by == "CASCADEZOO_LOAD_PLUGINS"

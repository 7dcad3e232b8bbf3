"""Plugins of strangers: found, refused, reported, and never in each other's way."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

from cascadezoo.errors import LookupFailed, PluginError
from cascadezoo.plugins import PluginHost, get_host
from cascadezoo.registry import StageEntry

GOOD = """
from cascadezoo import hookimpl, StageEntry

@hookimpl
def register_stages():
    return [StageEntry(name="{kind}", role="refiner", summary="s", impl="m:X", config="m:C")]
"""

BUILTIN = [p for p in entry_points(group="cascadezoo") if p.value == "cascadezoo.builtin"]


def messages(host: PluginHost) -> list[str]:
    return [str(problem) for problem in host.problems]


def test_builtins_come_through_the_entry_point_group() -> None:
    host = get_host()
    assert host.plugins[0].origin.distribution == "cascadezoo"
    assert host.plugins[0].state == "loaded"
    assert {"flow.v1", "diffusion.v1", "pixelshuffle.v1", "vit.v1"} <= set(
        host.registry.stages.names()
    )
    assert not host.problems


def test_every_builtin_entry_imports() -> None:
    registry = get_host().registry
    tables = vars(registry).values()
    entries = [row.entry for table in tables for row in table]
    assert len(entries) >= 15
    for entry in entries:
        assert entry.load_config() is not None
        assert callable(entry.load())


def test_a_strangers_kind_is_found_with_its_origin(plugin) -> None:
    point = plugin("cascadezoo-mine", "1.2", GOOD.format(kind="mine.v1"))
    host = PluginHost([*BUILTIN, point])
    row = host.registry.stages.get("mine")
    assert row.entry.name == "mine.v1"
    assert str(row.origin) == "cascadezoo-mine 1.2"
    assert row.origin.plugin == "cascadezoo-mine:main"


def test_collision_is_refused_and_names_both(plugin) -> None:
    one = plugin("dist-one", "1.0", GOOD.format(kind="same.v1"))
    two = plugin("dist-two", "2.0", GOOD.format(kind="same.v1"))
    host = PluginHost([*BUILTIN, two, one])
    with pytest.raises(PluginError, match=r"dist-one 1\.0 and dist-two 2\.0; neither is used"):
        host.registry.stages.get("same.v1")
    assert any("dist-one 1.0 and dist-two 2.0" in m for m in messages(host))
    assert "flow.v1" in host.registry.stages.names()


def test_a_stranger_cannot_take_a_builtin_kind(plugin) -> None:
    host = PluginHost([*BUILTIN, plugin("dist-evil", "1.0", GOOD.format(kind="flow.v1"))])
    with pytest.raises(PluginError, match=r"cascadezoo .* and dist-evil 1\.0"):
        host.registry.stages.get("flow")


@pytest.mark.parametrize(
    ("source", "message", "line"),
    [
        ("import torch_is_not_called_that", "ModuleNotFoundError", 1),
        ("x = 1\ndef broken(:\n", "SyntaxError", 2),
        ("raise SystemExit(3)", "SystemExit", 1),
        (
            "from cascadezoo import hookimpl\n\n@hookimpl\ndef register_stage():\n    return []\n",
            "'register_stage' is no hook of cascadezoo; hooks are register_stages",
            3,
        ),
        ("def register_stages():\n    return []\n", "is not marked with @cascadezoo.hookimpl", 1),
        (
            "from cascadezoo import hookimpl\n@hookimpl\ndef register_stages():\n    return 1 / 0\n",
            r"register_stages() raised ZeroDivisionError",
            4,
        ),
        (
            "from cascadezoo import hookimpl\n@hookimpl\ndef register_stages():\n    return ['x']\n",
            "gave a str, not a StageEntry",
            2,
        ),
        (
            "from cascadezoo import hookimpl\n@hookimpl\ndef register_stages():\n    return None\n",
            "raised TypeError",
            None,
        ),
        (
            "from cascadezoo import hookimpl, StageEntry\n@hookimpl\ndef register_stages():\n"
            "    return [StageEntry(name='a.v1', role='refiner', summary='', impl='m:X', api=9)]\n",
            "written for API level 9; this cascadezoo speaks level 1",
            2,
        ),
    ],
)
def test_a_broken_plugin_is_reported_and_takes_none_down(plugin, source, message, line) -> None:
    bad = plugin("dist-bad", "0.1", source)
    good = plugin("dist-good", "0.1", GOOD.format(kind="good.v1"))
    host = PluginHost([*BUILTIN, bad, good])
    (problem,) = host.problems
    assert message in str(problem)
    assert "dist-bad:main" in str(problem)
    if line is not None:
        assert problem.where is not None
        assert problem.where.endswith(f"dist_bad.py:{line}")
    states = {p.origin.distribution: p.state for p in host.plugins}
    assert states["dist-good"] == "loaded"
    assert states["dist-bad"] in ("broken", "faulty")
    assert "good.v1" in host.registry.stages.names()
    assert "flow.v1" in host.registry.stages.names()


def test_an_entry_point_to_nowhere(plugin) -> None:
    point = plugin("dist-bad", "0.1", "", target="dist_bad:nothing.here")
    host = PluginHost([*BUILTIN, point])
    assert "AttributeError" in messages(host)[0]


def test_load_limit(plugin, monkeypatch) -> None:
    points = [
        plugin("dist-a", "1", GOOD.format(kind="a.v1")),
        plugin("dist-b", "1", GOOD.format(kind="b.v1")),
    ]
    host = PluginHost([*BUILTIN, *points], limit=frozenset({"dist-a"}))
    assert {"a.v1", "flow.v1"} <= set(host.registry.stages.names())
    assert "b.v1" not in host.registry.stages.names()
    assert {p.origin.distribution: p.state for p in host.plugins}["dist-b"] == "disabled"
    # By the variable, over what is really installed on sys.path.
    get_host.cache_clear()
    try:
        monkeypatch.setenv("CASCADEZOO_LOAD_PLUGINS", "Dist_B")
        assert "b.v1" in get_host().registry.stages.names()
        assert "a.v1" not in get_host().registry.stages.names()
        get_host.cache_clear()
        monkeypatch.setenv("CASCADEZOO_LOAD_PLUGINS", "")
        assert "b.v1" not in get_host().registry.stages.names()
        assert "flow.v1" in get_host().registry.stages.names()
    finally:
        get_host.cache_clear()


def test_look_up_tells_the_nearest_name() -> None:
    table = get_host().registry.stages
    with pytest.raises(LookupFailed) as caught:
        table.get("pixelshufle.v1")
    assert "did you mean 'pixelshuffle.v1'" in str(caught.value)
    assert "pip install" in str(caught.value)
    with pytest.raises(LookupFailed, match=r"did you mean 'flow\.v1'"):
        table.get("flow.v9")


def test_newest_version_is_taken_by_number() -> None:
    host = PluginHost(BUILTIN)
    for version in (2, 10):
        host.registry.stages.add(
            StageEntry(name=f"flow.v{version}", role="generator", summary="", impl="a:b"),
            host.plugins[0].origin,
        )
    assert host.registry.stages.resolve("flow") == "flow.v10"
    assert host.registry.stages.resolve("flow.v1") == "flow.v1"


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Flow.v1"},
        {"name": "flow"},
        {"name": "flow.v0"},
        {"name": "flow.v1\n"},
        {"impl": "os.system"},
        {"impl": "a b:c"},
        {"config": ":x"},
        {"role": "painter"},
    ],
)
def test_entries_check_themselves(wrong) -> None:
    fields = {"name": "flow.v1", "role": "generator", "summary": "", "impl": "a:b", **wrong}
    with pytest.raises(ValueError, match="not"):
        StageEntry(**fields)

"""Plugins of strangers: found, refused, reported, and never in each other's way."""

from __future__ import annotations

import inspect
import json
from importlib.metadata import entry_points

import pytest
from errors_help import raises

from cascadezoo import Callback
from cascadezoo.errors import PluginError, UnknownNameError
from cascadezoo.plugins import hookspecs, registry
from cascadezoo.plugins.manager import PluginHost, get_host
from cascadezoo.plugins.registry import (
    API_LEVEL,
    CascadezooDeprecationWarning,
    MetricEntry,
    SpecEntry,
    StageEntry,
    ZooEntry,
)

EmptyTarget = "cascadezoo.spec.configs:EmptyConfig"

GOOD = """
from cascadezoo import hookimpl, StageEntry

@hookimpl
def register_stages():
    return [StageEntry(name="{kind}", role="refiner", summary="s", impl="m:X", config="m:C")]
"""

BUILTIN = [p for p in entry_points(group="cascadezoo") if p.value == "cascadezoo.plugins.builtin"]


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
    entries = [row.entry for table in registry.tables() for row in table]
    assert len(entries) >= 15
    for entry in entries:
        assert entry.load_config() is not None
        loaded = entry.load()
        assert json.loads(loaded) if isinstance(entry, SpecEntry) else callable(loaded)


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
    with raises(PluginError, "plugin-contested", kind="stage kind", name="same.v1") as caught:
        host.registry.stages.get("same.v1")
    assert "dist-one 1.0 and dist-two 2.0" in caught.value.what
    assert any("dist-one 1.0 and dist-two 2.0" in m for m in messages(host))
    assert "flow.v1" in host.registry.stages.names()


def test_a_stranger_cannot_take_a_builtin_kind(plugin) -> None:
    host = PluginHost([*BUILTIN, plugin("dist-evil", "1.0", GOOD.format(kind="flow.v1"))])
    with raises(PluginError, "plugin-contested", name="flow.v1") as caught:
        host.registry.stages.get("flow")
    assert "dist-evil 1.0" in caught.value.what


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
            "'a.v1' is written for API level 9; this cascadezoo speaks level 1; "
            "pip install --upgrade cascadezoo",
            2,
        ),
        (
            "from cascadezoo import hookimpl\n\nCASCADEZOO_API = 2\n\n@hookimpl\n"
            "def register_stages():\n    return 1 / 0\n",
            "it is written for API level 2; this cascadezoo speaks level 1; "
            "pip install --upgrade cascadezoo",
            3,
        ),
        (
            "CASCADEZOO_API = 0\n",
            "speaks level 1; pip install --upgrade dist-bad",
            1,
        ),
        (
            "from cascadezoo import hookimpl\n@hookimpl\ndef register_stages(registry):\n"
            "    return []\n",
            "register_stages() is no valid hook implementation: Argument(s) {'registry'}",
            2,
        ),
        (
            "from cascadezoo import StageEntry, hookimpl\n@hookimpl\ndef register_stages():\n"
            "    return [StageEntry(name='Wave', role='refiner', summary='', impl='m:X')]\n",
            "stage name 'Wave' is not of the form 'name.v1'",
            4,
        ),
        (
            "from cascadezoo import StageEntry, hookimpl\n@hookimpl\ndef register_stages():\n"
            "    return [StageEntry(name='a.v1', role='refiner', summary='', impl='m:X', new=1)]\n",
            "unexpected keyword argument 'new'",
            4,
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
    assert states["dist-bad"] in ("broken", "faulty", "incompatible")
    assert "good.v1" in host.registry.stages.names()
    assert "flow.v1" in host.registry.stages.names()


def test_an_entry_point_to_nowhere(plugin) -> None:
    point = plugin("dist-bad", "0.1", "", target="dist_bad:nothing.here")
    host = PluginHost([*BUILTIN, point])
    assert "AttributeError" in messages(host)[0]
    assert host.problems[0].where is not None
    assert host.problems[0].where.endswith("dist_bad-0.1.dist-info/entry_points.txt:2")


@pytest.mark.parametrize(
    "target", ["no_such_module", "no such:thing", "dist_bad:", ":x", "dist_bad.x"]
)
def test_entry_points_of_every_wrong_form(plugin, target) -> None:
    point = plugin("dist-bad", "0.1", "x = 1\n", target=target)
    host = PluginHost([*BUILTIN, point])
    (problem,) = host.problems
    assert host.plugins[-1].state == "broken"
    assert str(problem.where).endswith("entry_points.txt:2")
    assert "flow.v1" in host.registry.stages.names()


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
    with pytest.raises(UnknownNameError) as caught:
        table.get("pixelshufle.v1")
    assert "'pixelshuffle.v1'" in str(caught.value.hint)
    assert "pip install" in str(caught.value)
    with raises(UnknownNameError, "lookup", name="flow.v9") as caught:
        table.get("flow.v9")
    assert "'flow.v1'" in str(caught.value.hint)


def test_a_kind_that_moved_to_a_plugin_names_it() -> None:
    for name in ("autoencoder-kl.v1", "autoencoder-kl"):
        with pytest.raises(UnknownNameError) as caught:
            get_host().registry.stages.get(name)
        assert "pip install cascadezoo-diffusers" in str(caught.value.hint)


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


def test_an_entry_of_another_level_is_told_where_it_is_asked_for(plugin) -> None:
    source = GOOD.format(kind="new.v1").replace("summary=", "api=2, summary=")
    host = PluginHost([*BUILTIN, plugin("dist-new", "3.0", source)])
    for name in ("new.v1", "new"):
        with raises(PluginError, "plugin-unusable") as caught:
            host.registry.stages.get(name)
        assert caught.value.hint == "pip install --upgrade cascadezoo"
    assert "dist-new 3.0" in str(caught.value)


def test_a_name_that_a_broken_plugin_may_have_brought(plugin) -> None:
    broken = plugin("dist-broken", "1", "import no_such_module")
    newer = plugin("dist-newer", "1", "CASCADEZOO_API = 7")
    left = plugin("dist-left", "1", GOOD.format(kind="left.v1"))
    host = PluginHost(
        [*BUILTIN, broken, newer, left], limit=frozenset({"dist-broken", "dist-newer"})
    )
    with pytest.raises(UnknownNameError) as caught:
        host.registry.stages.get("wave.v1")
    hint = str(caught.value.hint)
    assert "dist-broken cannot be loaded (cascadezoo plugins list)" in hint
    assert "dist-newer is for plugin API level 7: pip install --upgrade cascadezoo" in hint
    assert "dist-left is left out by CASCADEZOO_LOAD_PLUGINS" in hint
    # What is only misspelt is not blamed on them.
    with pytest.raises(UnknownNameError) as caught:
        host.registry.stages.get("flow.v9")
    assert "dist-broken" not in str(caught.value.hint)


def test_using_what_is_deprecated_warns_with_the_way_out(plugin) -> None:
    source = GOOD.format(kind="old.v1").replace("summary=", "deprecated='use old.v2', summary=")
    host = PluginHost([*BUILTIN, plugin("dist-old", "1", source)])
    assert not host.problems
    with pytest.warns(CascadezooDeprecationWarning) as caught:
        assert host.registry.stages.get("old").entry.name == "old.v1"
    assert str(caught[0].message) == "stage kind 'old.v1' is deprecated: use old.v2"
    assert caught[0].filename == __file__
    with pytest.raises(ValueError, match="what to use instead"):
        StageEntry(name="a.v1", role="refiner", summary="", impl="a:b", deprecated=" ")


def test_the_level_of_the_api_and_what_belongs_to_it() -> None:
    """A change here is a change of the contract: see API_LEVEL."""
    assert API_LEVEL == 1
    hooks = [name for name in vars(hookspecs) if name.startswith("register_")]
    assert {n: str(inspect.signature(getattr(hookspecs, n))).replace("'", "") for n in hooks} == {
        "register_stages": "() -> Iterable[StageEntry]",
        "register_datasets": "() -> Iterable[DataEntry]",
        "register_losses": "() -> Iterable[LossEntry]",
        "register_metrics": "() -> Iterable[MetricEntry]",
        "register_features": "() -> Iterable[FeatureEntry]",
        "register_zoos": "() -> Iterable[ZooEntry]",
        "register_specs": "() -> Iterable[SpecEntry]",
        "register_commands": "() -> Iterable[CommandEntry]",
        "register_callbacks": "() -> Iterable[CallbackEntry]",
    }
    fields = "name: str, summary: str, impl: str, config: str = ..., api: int = 1, deprecated: str | None = None"
    more = {
        StageEntry: ", role: Role",
        MetricEntry: ', takes: "Literal[features, cascade]" = features'
        ', real: "Literal[as-many, all]" = as-many, needs_data: bool = True, title: str = '
        ', better: "Literal[lower, higher] | None" = None, scale: float = 1.0',
        ZooEntry: ", folder: str = ",
    }
    for name in hooks:
        entry = inspect.signature(hookspecs.__dict__[name]).return_annotation
        entry = getattr(registry, entry.removeprefix("Iterable[").removesuffix("]"))
        result = str(inspect.signature(entry)).replace("'", "").replace(EmptyTarget, "...")
        assert result == f"(*, {fields}{more.get(entry, '')}) -> None"
    methods = {
        n: str(inspect.signature(f)).replace("'", "")
        for n, f in vars(Callback).items()
        if inspect.isfunction(f)
    }
    assert methods == {
        "__init__": "(self, config: Any, run: TrainingRun) -> None",
        "on_phase": "(self, event: PhaseEvent) -> None",
        "on_step": "(self, event: StepEvent) -> None",
        "on_epoch": "(self, event: EpochEvent) -> None",
        "on_figure": "(self, event: FigureEvent) -> None",
        "close": "(self) -> None",
    }

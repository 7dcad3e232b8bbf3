"""Third-party plugins: loading, errors, and isolation from each other."""

from __future__ import annotations

import inspect
import json
import re
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
    DataEntry,
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


def test_a_kind_of_a_plugin_is_registered_with_its_origin(plugin) -> None:
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
    # Both sides are faulty, each with the line of its own hook.
    assert [p.code for p in host.problems] == ["name-claimed"] * 2
    assert {p.origin.distribution for p in host.problems} == {"dist-one", "dist-two"}
    for problem in host.problems:
        assert "dist-one 1.0 and dist-two 2.0" in problem.message
        module = problem.origin.distribution.replace("-", "_")
        assert str(problem.where).endswith(f"{module}.py:4")
    states = {p.origin.distribution: p.state for p in host.plugins}
    assert states == {"cascadezoo": "loaded", "dist-one": "faulty", "dist-two": "faulty"}
    assert "flow.v1" in host.registry.stages.names()


def test_a_third_claim_is_reported_once_more(plugin) -> None:
    points = [plugin(f"dist-{n}", "1", GOOD.format(kind="same.v1")) for n in ("a", "b", "c")]
    host = PluginHost([*BUILTIN, *points])
    assert sorted(p.origin.distribution for p in host.problems) == ["dist-a", "dist-b", "dist-c"]
    assert "same.v1" not in host.registry.stages.names()


@pytest.mark.parametrize(
    ("source", "code", "shown", "line"),
    [
        ("import torch_is_not_called_that", "import-failed", "ModuleNotFoundError", 1),
        ("x = 1\ndef broken(:\n", "import-failed", "SyntaxError", 2),
        ("raise SystemExit(3)", "import-failed", "SystemExit", 1),
        (
            "from cascadezoo import hookimpl\n\n@hookimpl\ndef register_stage():\n    return []\n",
            "hook-unknown",
            "register_stages, register_datasets",
            3,
        ),
        ("def register_stages():\n    return []\n", "hook-unmarked", "@cascadezoo.hookimpl", 1),
        (
            "from cascadezoo import hookimpl\n@hookimpl\ndef register_stages():\n    return 1 / 0\n",
            "hook-failed",
            "register_stages() raised ZeroDivisionError",
            4,
        ),
        (
            "from cascadezoo import hookimpl\n@hookimpl\ndef register_stages():\n    return ['x']\n",
            "entry-type",
            "StageEntry",
            2,
        ),
        (
            "from cascadezoo import hookimpl\n@hookimpl\ndef register_stages():\n    return None\n",
            "hook-failed",
            "TypeError",
            None,
        ),
        (
            "from cascadezoo import hookimpl, StageEntry\n@hookimpl\ndef register_stages():\n"
            "    return [StageEntry(name='a.v1', role='refiner', summary='', impl='m:X', api=9)]\n",
            "api-level",
            "'a.v1' needs API level 9",
            2,
        ),
        (
            "from cascadezoo import hookimpl\n\nCASCADEZOO_API = 2\n\n@hookimpl\n"
            "def register_stages():\n    return 1 / 0\n",
            "api-level",
            "pip install --upgrade cascadezoo",
            3,
        ),
        (
            "CASCADEZOO_API = 0\n",
            "api-level",
            "pip install --upgrade dist-bad",
            1,
        ),
        (
            "from cascadezoo import hookimpl\n@hookimpl\ndef register_stages(registry):\n"
            "    return []\n",
            "hook-invalid",
            "Argument(s) {'registry'}",
            2,
        ),
        (
            "from cascadezoo import StageEntry, hookimpl\n@hookimpl\ndef register_stages():\n"
            "    return [StageEntry(name='Wave', role='refiner', summary='', impl='m:X')]\n",
            "hook-failed",
            "'Wave'",
            4,
        ),
        (
            "from cascadezoo import StageEntry, hookimpl\n@hookimpl\ndef register_stages():\n"
            "    return [StageEntry(name='a.v1', role='refiner', summary='', impl='m:X', new=1)]\n",
            "entry-field-unknown",
            "'new'; the plugin may be for a newer cascadezoo: pip install --upgrade cascadezoo",
            4,
        ),
    ],
)
def test_a_broken_plugin_is_reported_and_does_not_affect_others(
    plugin, source, code, shown, line
) -> None:
    bad = plugin("dist-bad", "0.1", source)
    good = plugin("dist-good", "0.1", GOOD.format(kind="good.v1"))
    host = PluginHost([*BUILTIN, bad, good])
    (problem,) = host.problems
    assert problem.code == code
    assert shown in problem.message
    assert problem.origin.plugin == "dist-bad:main"
    assert str(problem).startswith("dist-bad:main (dist-bad 0.1): ")
    if line is not None:
        assert problem.where is not None
        assert problem.where.endswith(f"dist_bad.py:{line}")
    states = {p.origin.distribution: p.state for p in host.plugins}
    assert states["dist-good"] == "loaded"
    assert states["dist-bad"] in ("broken", "faulty", "incompatible")
    assert "good.v1" in host.registry.stages.names()
    assert "flow.v1" in host.registry.stages.names()


def test_an_entry_point_to_an_unknown_attribute(plugin) -> None:
    point = plugin("dist-bad", "0.1", "", target="dist_bad:nothing.here")
    host = PluginHost([*BUILTIN, point])
    (problem,) = host.problems
    assert problem.code == "import-failed"
    assert "AttributeError" in problem.message
    assert str(problem.where).endswith("dist_bad-0.1.dist-info/entry_points.txt:2")


@pytest.mark.parametrize(
    "target", ["no_such_module", "no such:thing", "dist_bad:", ":x", "dist_bad.x"]
)
def test_malformed_entry_points(plugin, target) -> None:
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
    # By the environment variable, for the plugins on sys.path.
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


def test_lookup_suggests_similar_names() -> None:
    table = get_host().registry.stages
    with raises(UnknownNameError, "lookup", kind="stage kind", name="pixelshufle.v1") as caught:
        table.get("pixelshufle.v1")
    assert "'pixelshuffle.v1'" in str(caught.value.hint)
    with raises(UnknownNameError, "lookup", name="flow.v9") as caught:
        table.get("flow.v9")
    assert "'flow.v1'" in str(caught.value.hint)


def test_a_kind_that_moved_to_a_plugin_names_it() -> None:
    for name in ("autoencoder-kl.v1", "autoencoder-kl"):
        with raises(UnknownNameError, "lookup", name=name) as caught:
            get_host().registry.stages.get(name)
        assert "pip install cascadezoo-diffusers" in str(caught.value.hint)


def test_the_newest_version_has_the_highest_number() -> None:
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
def test_malformed_entries(wrong) -> None:
    fields = {"name": "flow.v1", "role": "generator", "summary": "", "impl": "a:b", **wrong}
    (value,) = wrong.values()
    with pytest.raises(ValueError, match=re.escape(repr(value))):
        StageEntry(**fields)


def test_an_entry_of_another_level_is_reported_when_it_is_used(plugin) -> None:
    source = GOOD.format(kind="new.v1").replace("summary=", "api=2, summary=")
    host = PluginHost([*BUILTIN, plugin("dist-new", "3.0", source)])
    for name in ("new.v1", "new"):
        with raises(PluginError, "plugin-unusable") as caught:
            host.registry.stages.get(name)
        assert caught.value.hint == "pip install --upgrade cascadezoo"
    assert "dist-new 3.0" in str(caught.value)


def test_a_name_that_an_unusable_plugin_may_provide(plugin) -> None:
    broken = plugin("dist-broken", "1", "import no_such_module")
    newer = plugin("dist-newer", "1", "CASCADEZOO_API = 7")
    left = plugin("dist-left", "1", GOOD.format(kind="left.v1"))
    host = PluginHost(
        [*BUILTIN, broken, newer, left], limit=frozenset({"dist-broken", "dist-newer"})
    )
    with raises(UnknownNameError, "lookup", name="wave.v1") as caught:
        host.registry.stages.get("wave.v1")
    hint = str(caught.value.hint)
    assert set(host.registry.unusable) == {"dist-broken", "dist-newer", "dist-left"}
    assert all(f"{name} {why}" in hint for name, why in host.registry.unusable.items())
    assert "pip install --upgrade cascadezoo" in host.registry.unusable["dist-newer"]
    assert "CASCADEZOO_LOAD_PLUGINS" in host.registry.unusable["dist-left"]
    # They are not mentioned if another version of the kind is registered.
    with raises(UnknownNameError, "lookup", name="flow.v9") as caught:
        host.registry.stages.get("flow.v9")
    assert "dist-broken" not in str(caught.value.hint)


def test_using_a_deprecated_entry_warns_and_states_the_replacement(plugin) -> None:
    source = GOOD.format(kind="old.v1").replace("summary=", "deprecated='use old.v2', summary=")
    host = PluginHost([*BUILTIN, plugin("dist-old", "1", source)])
    assert not host.problems
    with pytest.warns(CascadezooDeprecationWarning) as caught:
        assert host.registry.stages.get("old").entry.name == "old.v1"
    assert "'old.v1'" in str(caught[0].message)
    assert "use old.v2" in str(caught[0].message)
    assert caught[0].filename == __file__
    with pytest.raises(ValueError, match="deprecated"):
        StageEntry(name="a.v1", role="refiner", summary="", impl="a:b", deprecated=" ")


def test_the_contract_of_the_api_level() -> None:
    """A change here changes the contract: see API_LEVEL."""
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
        ', real: "Literal[as-many, all]" = as-many, needs_data: bool = True, extractor: bool = True, title: str = '
        ', better: "Literal[lower, higher] | None" = None, scale: float = 1.0',
        ZooEntry: ", folder: str = ",
        DataEntry: ", source: str | None = None",
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
        "__init__": "(self, config: Any = None, run: TrainingRun | None = None) -> None",
        "begin": "(self, run: TrainingRun) -> None",
        "on_phase": "(self, event: PhaseEvent) -> None",
        "on_step": "(self, event: StepEvent) -> None",
        "on_samples": "(self, event: SamplesEvent) -> None",
        "on_model": "(self, event: ModelEvent) -> None",
        "on_epoch": "(self, event: EpochEvent) -> None",
        "on_figure": "(self, event: FigureEvent) -> None",
        "close": "(self) -> None",
    }

"""Names: built-ins win, versions stay in their distribution, namespaces, taken names."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path

import jsonschema
import pytest
from errors_help import raises
from plugin_sites import cascadezoo, install, wave

from cascadezoo.errors import InputError, UnknownNameError
from cascadezoo.plugins.manager import PluginHost, get_host
from cascadezoo.plugins.registry import CallbackEntry, DataEntry, LossEntry, MetricEntry, StageEntry
from cascadezoo.spec.schema import spec_schema
from cascadezoo.testing.template import write_project

BUILTIN = [p for p in entry_points(group="cascadezoo") if p.value == "cascadezoo.plugins.builtin"]

HOOK = """
from cascadezoo import hookimpl, {entry}

@hookimpl{options}
def {hook}():
    return [{entry}(name=name, summary="s", impl="m:X", config="{config}"{more}) for name in {names!r}]
"""


def stages(*names: str, options: str = "", config: str = "m:C") -> str:
    return HOOK.format(
        entry="StageEntry",
        hook="register_stages",
        options=options,
        more=', role="refiner"',
        names=names,
        config=config,
    )


@pytest.mark.parametrize("options", ["", "(tryfirst=True)"])
@pytest.mark.parametrize(
    ("hook", "entry", "table", "name"),
    [
        ("register_stages", "StageEntry", "stages", "flow.v1"),
        ("register_metrics", "MetricEntry", "metrics", "kid"),
        ("register_datasets", "DataEntry", "datasets", "cifar10"),
        ("register_losses", "LossEntry", "losses", "lpips"),
        ("register_features", "FeatureEntry", "features", "inception"),
    ],
)
def test_builtins_win_over_any_plugin(plugin, hook, entry, table, name, options) -> None:
    more = ', role="refiner"' if entry == "StageEntry" else ""
    source = HOOK.format(
        hook=hook, entry=entry, options=options, more=more, names=(name,), config="m:C"
    )
    points = [plugin(f"dist-{n}", "1.0", source) for n in ("evil", "worse")]
    host = PluginHost([*BUILTIN, *points])
    row = getattr(host.registry, table).get(name)
    assert row.origin.distribution == "cascadezoo"
    assert [p.code for p in host.problems] == ["name-reserved"] * 2
    assert {p.origin.distribution for p in host.problems} == {"dist-evil", "dist-worse"}
    assert all(f"{name!r} is built in" in p.message for p in host.problems)
    assert {p.origin.distribution: p.state for p in host.plugins} == {
        "cascadezoo": "loaded",
        "dist-evil": "faulty",
        "dist-worse": "faulty",
    }


def test_a_bundled_model_loads_beside_a_plugin_with_its_kind(tmp_path: Path) -> None:
    site = install(tmp_path / "site", "cascadezoo-evil", "1.0", wave("flow.v1", "cascadezoo-evil"))
    done = cascadezoo("validate", "shapes-demo", "--json", site=site)
    assert done.returncode == 0, done.stderr
    listed = json.loads(cascadezoo("plugins", "list", "--json", site=site).stdout)
    (row,) = (row for row in listed if row["distribution"] == "cascadezoo-evil")
    assert (row["state"], row["problems"][0]["code"]) == ("faulty", "name-reserved")


def test_an_unversioned_kind_stays_in_its_distribution(plugin) -> None:
    mine = plugin("dist-mine", "1", stages("tide.v1", "tide.v2"))
    theirs = plugin("dist-theirs", "1", stages("flow.v99", "tide.v99", "flow-sr.v99"))
    table = PluginHost([*BUILTIN, theirs, mine]).registry.stages
    assert table.resolve("flow") == "flow.v1"
    assert table.resolve("flow-sr") == "flow-sr.v2"
    assert table.resolve("tide") == "tide.v2"
    # With its version the stranger's kind is usable.
    assert table.get("flow.v99").origin.distribution == "dist-theirs"
    assert table.get("tide.v99").origin.distribution == "dist-theirs"


def test_an_older_version_of_a_stranger_does_not_take_over_a_builtin_name() -> None:
    host = PluginHost(BUILTIN)
    table = host.registry.stages
    table.rows["later.v2"] = table.rows["flow.v1"]
    stranger = StageEntry(name="later.v1", role="refiner", summary="", impl="m:X")
    table.add(stranger, host.plugins[0].origin._replace(distribution="dist-theirs"))
    assert table.resolve("later") == "later.v2"


def test_namespaced_kinds(plugin) -> None:
    config = "cascadezoo.spec.configs:RefinerConfig"
    point = plugin("dist-acme", "1", stages("acme/flow.v1", "acme/flow.v2", config=config))
    host = PluginHost([*BUILTIN, point])
    assert not host.problems
    assert host.registry.stages.resolve("acme/flow") == "acme/flow.v2"
    assert host.registry.stages.resolve("flow") == "flow.v1"
    with raises(UnknownNameError, "lookup", name="acme/flwo.v1") as caught:
        host.registry.stages.get("acme/flwo.v1")
    assert "'acme/flow.v1'" in str(caught.value.hint)
    # The references of the schema are JSON pointers, in which a slash is escaped.
    schema = spec_schema(host.registry)
    stage = {"name": "a", "kind": "acme/flow.v1"}
    spec = {"name": "n", "data": {"source": "shapes"}, "stages": [stage]}
    jsonschema.Draft202012Validator(schema).validate(spec)
    stage["config"] = {"no-such-field": 1}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(spec)


@pytest.mark.parametrize("name", ["acme/x/flow", "/flow", "acme/", "Acme/flow", "acme//flow"])
def test_malformed_namespaces(name: str) -> None:
    with pytest.raises(ValueError, match="namespace"):
        StageEntry(name=f"{name}.v1", role="refiner", summary="", impl="m:X")


def test_which_entries_may_have_a_namespace() -> None:
    for entry in (DataEntry, LossEntry, CallbackEntry):
        assert entry(name="acme/thing", summary="", impl="m:X").name == "acme/thing"
    # The name of a metric is part of the names of files and figures.
    with pytest.raises(ValueError, match="acme/thing"):
        MetricEntry(name="acme/thing", summary="", impl="m:X")


@pytest.mark.parametrize(
    ("name", "kind", "holder"),
    [
        ("flow", "generator", "cascadezoo"),
        ("identity", "upsampler", "cascadezoo"),
        ("kid", "metric", "cascadezoo"),
        ("cifar10", "dataset", "cascadezoo"),
        ("autoencoder-kl", "decoder", "cascadezoo-diffusers"),
    ],
)
def test_plugins_new_refuses_taken_names(name: str, kind: str, holder: str, tmp_path: Path) -> None:
    with raises(InputError, "input-plugin-name-taken", name=name) as caught:
        write_project(name, kind, tmp_path / "new")
    assert holder in caught.value.what
    assert not (tmp_path / "new").exists()


def test_plugins_new_refuses_installed_distributions(plugin, tmp_path: Path) -> None:
    plugin("cascadezoo-tidal", "2", stages("other.v1"))
    get_host.cache_clear()
    try:
        with raises(InputError, "input-plugin-name-taken", name="tidal") as caught:
            write_project("tidal", "generator", tmp_path / "new")
        assert "cascadezoo-tidal 2" in caught.value.what
        # A metric may have the name of a stage.
        assert write_project("flow", "metric", tmp_path / "metric").is_dir()
    finally:
        get_host.cache_clear()

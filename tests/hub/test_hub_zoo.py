"""The zoo: the content of manifests, the zoos of plugins, and entries compared with models."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from errors_help import raises
from hypothesis import given
from hypothesis import strategies as st

from cascadezoo.errors import InputError, ModelError, PluginError, UnknownNameError
from cascadezoo.model_folder.layout import FileRecord
from cascadezoo.plugins.manager import PluginHost
from cascadezoo.zoo.entry import FolderSource, add_entry, compare, describe
from cascadezoo.zoo.list import Zoos, bundled_folder, entries_to_verify, find, get_zoos
from cascadezoo.zoo.manifest import (
    Manifest,
    ZooModel,
    load,
    model_dict,
    parse_manifest,
    read_manifest,
    read_manifest_file,
    write_manifest,
)

BUILTIN = [p for p in entry_points(group="cascadezoo") if p.value == "cascadezoo.plugins.builtin"]
ENTRY = {
    "name": "digits",
    "repo": "someone/digits",
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "spec_digest": "ab" * 32,
    "files": {
        "config.json": {"sha256": "cd" * 32, "size": 100},
        "stages/coarse/model.safetensors": {"sha256": "ef" * 32, "size": 1000},
    },
    "size": 32,
    "parameters": 250,
    "data": "mnist",
    "license": "mit",
    "requires": ["cascadezoo>=0.1.0", "cascadezoo-extra[fast]>=1.2, <2"],
    "metrics": {"kid.inception.n10000": {"value": 0.01, "std": 0.002}},
}

PLUGIN = """
from cascadezoo import hookimpl
from cascadezoo.plugins.registry import ZooEntry

@hookimpl
def register_zoos():
    return [ZooEntry(name="{zoo}", summary="mine", impl="{module}:load")]

def load():
    {body}
"""


def manifest(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"version": 1, "models": list(entries)}


def changed(**fields: Any) -> dict[str, Any]:
    data = json.loads(json.dumps(ENTRY))
    data.update(fields)
    return data


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the bundled model that tests may damage."""
    folder = bundled_folder(find("shapes-tiny"))
    assert folder is not None
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture
def zoo_plugin(plugin):
    """Make a plugin with a zoo."""
    get_zoos()  # cache the installed zoos first

    def make(name: str, body: str | dict[str, Any], zoo: str | None = None):
        text = body if isinstance(body, str) else f"return {body!r}"
        module = name.replace("-", "_")
        return plugin(name, "1.0", PLUGIN.format(zoo=zoo or name, module=module, body=text))

    return make


def zoos_of(*points) -> Zoos:
    host = PluginHost([*BUILTIN, *points])
    assert not host.problems
    return Zoos.load(host.registry.zoos)


# --- the manifest


def test_packaged_manifest_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "zoo_manifest.json"
    write_manifest(path, read_manifest())
    assert json.loads(path.read_text()) == load()
    assert read_manifest_file(path) == read_manifest()
    assert path.read_text() == (Path(__file__).parents[2] / "zoo_manifest.json").read_text()


def test_entry_round_trips_through_json() -> None:
    (model,) = parse_manifest(manifest(ENTRY), "m").models
    assert parse_manifest(manifest(model_dict(model)), "m").models == [model]
    assert model.bytes == 1100
    assert not model.bundled


@pytest.mark.parametrize(
    ("fields", "path", "code"),
    [
        ({"commit": "main"}, "models.0.commit", "string-pattern-mismatch"),
        ({"commit": "0123456"}, "models.0.commit", "string-pattern-mismatch"),
        ({"commit": ENTRY["commit"].upper()}, "models.0.commit", "string-pattern-mismatch"),
        ({"commit": None}, "models.0", "value-error"),
        ({"repo": None}, "models.0", "value-error"),
        ({"bundled": True}, "models.0", "value-error"),
        ({"repo": "https://elsewhere/x"}, "models.0.repo", "string-pattern-mismatch"),
        ({"repo": "../x"}, "models.0.repo", "string-pattern-mismatch"),
        ({"repo": "a/b/c"}, "models.0.repo", "string-pattern-mismatch"),
        ({"repo": "a/b\n"}, "models.0.repo", "string-pattern-mismatch"),
        ({"name": "a/b"}, "models.0.name", "string-pattern-mismatch"),
        ({"name": "Digits"}, "models.0.name", "string-pattern-mismatch"),
        ({"name": "a\x1b[31m"}, "models.0.name", "string-pattern-mismatch"),
        ({"spec_digest": "ab"}, "models.0.spec_digest", "string-pattern-mismatch"),
        ({"files": {}}, "models.0.files", "too-short"),
        ({"files": {"config.json": {"sha256": "x", "size": 1}}}, "models.0.files.config.json.sha256", "string-pattern-mismatch"),
        ({"files": {"metrics.json": {"sha256": "ab" * 32, "size": 1}}}, "models.0.files", "value-error"),
        ({"parameters": -1}, "models.0.parameters", "greater-than-equal"),
        ({"requires": ["x @ https://elsewhere/x.whl"]}, "models.0.requires.0", "string-pattern-mismatch"),
        ({"requires": ["x'; rm -rf ~; '"]}, "models.0.requires.0", "string-pattern-mismatch"),
        ({"metrics": {"kid": {"value": float("nan")}}}, "models.0.metrics.kid.value", "finite-number"),
        ({"metrics": {"\x1b[2J": {"value": 1.0}}}, "models.0.metrics.\x1b[2J.[key]", "string-pattern-mismatch"),
        ({"more": 1}, "models.0.more", "extra-forbidden"),
    ],
)  # fmt: skip
def test_invalid_entries(fields: dict[str, Any], path: str, code: str) -> None:
    with raises(InputError, "input-manifest-invalid", problems={path: code}) as caught:
        parse_manifest(manifest(changed(**fields)), "some.json")
    assert f"{path}: " in caught.value.what
    assert "some.json" in caught.value.what


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "stages/../model.safetensors", "pickle.bin", "stages/a/model.pt", ""],
)
def test_foreign_files_are_refused(name: str) -> None:
    files = {**ENTRY["files"], name: {"sha256": "ab" * 32, "size": 1}}
    with raises(InputError, "input-manifest-invalid", problems={"models.0.files": "value-error"}):
        parse_manifest(manifest(changed(files=files)), "m")


def test_names_are_unique() -> None:
    with raises(InputError, "input-manifest-invalid"):
        parse_manifest(manifest(ENTRY, changed(repo="other/digits")), "m")


@pytest.mark.parametrize("data", [[], None, 3, {"models": []}, {"version": 2, "models": []}])
def test_invalid_manifests(data: object) -> None:
    with raises(InputError, "input-manifest-invalid"):
        parse_manifest(data, "m")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda part: (
        st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=8), part, max_size=3)
    ),
    max_leaves=8,
)


@given(st.sampled_from(sorted(ENTRY)), JSON)
def test_any_value_is_accepted_or_refused_with_its_path(field: str, value: Any) -> None:
    try:
        (model,) = parse_manifest(manifest(changed(**{field: value})), "m").models
    except InputError as error:
        assert "models.0" in error.what
    else:
        assert model_dict(model)[field] == value or field == "metrics"


def test_invalid_manifest_files(tmp_path: Path) -> None:
    path = tmp_path / "zoo.json"
    assert read_manifest_file(path) is None
    path.write_text('{"version": 1, "version": 1}')
    with raises(InputError, "input-manifest-not-json"):
        read_manifest_file(path)
    with raises(InputError, "input-manifest-unreadable"):
        read_manifest_file(tmp_path)
    with raises(InputError, "input-manifest-not-writable"):
        write_manifest(tmp_path / "no" / "zoo.json", Manifest(version=1, models=[]))


def test_entries_are_added_replaced_and_sorted(tmp_path: Path) -> None:
    path = tmp_path / "zoo.json"
    (digits,) = parse_manifest(manifest(ENTRY), "m").models
    (animals,) = parse_manifest(manifest(changed(name="animals", repo="a/animals")), "m").models
    assert add_entry(digits, path) is None
    assert add_entry(animals, path) is None
    assert [m["name"] for m in json.loads(path.read_text())["models"]] == ["animals", "digits"]
    moved = digits.model_copy(update={"commit": "f" * 40})
    assert add_entry(moved, path) == digits
    assert add_entry(moved, path) == moved
    assert entries_to_verify(None, path) == ([animals, moved], [])
    assert entries_to_verify("digits", path) == ([moved], [])
    before = path.read_bytes()
    other = moved.model_copy(update={"repo": "b/digits"})
    with raises(InputError, "input-zoo-name-taken", name="digits") as caught:
        add_entry(other, path)
    assert "--name" in str(caught.value.hint)
    assert path.read_bytes() == before
    with raises(UnknownNameError, "lookup-zoo-model", name="x"):
        entries_to_verify("x", path)
    with raises(InputError, "input-no-file"):
        entries_to_verify(None, tmp_path / "none.json")


# --- zoos of plugins


def test_zoo_of_a_plugin_is_listed(zoo_plugin) -> None:
    zoos = zoos_of(zoo_plugin("cascadezoo-mine", manifest(ENTRY)))
    assert zoos.faults == []
    assert [row.model.name for row in zoos.matching()] == ["digits", "shapes-tiny"]
    row = zoos.get("digits")
    assert str(row) == "the zoo 'cascadezoo-mine' of cascadezoo-mine 1.0"
    assert row.model.repo == "someone/digits"
    assert zoos.of_repo("someone/digits") == ["digits"]
    assert [r.model.name for r in zoos.matching("shapes*")] == ["shapes-tiny"]


@pytest.mark.parametrize("name", ["digits", "shapes-tiny"])
def test_contested_name_shows_both_zoos(zoo_plugin, name: str) -> None:
    one = zoo_plugin("zoo-one", manifest(changed(name=name)))
    two = zoo_plugin("zoo-two", manifest(changed(name=name, repo="b/b")))
    zoos = zoos_of(one, two)
    with raises(PluginError, "plugin-zoo-contested", name=name) as caught:
        zoos.get(name)
    assert "the zoo 'zoo-one' of zoo-one 1.0" in caught.value.what
    assert "the zoo 'zoo-two' of zoo-two 1.0" in caught.value.what
    assert ("the zoo 'cascadezoo' of cascadezoo" in caught.value.what) == (name == "shapes-tiny")
    assert "CASCADEZOO_LOAD_PLUGINS" in str(caught.value.hint)
    assert zoos.faults == [caught.value.what]
    assert name not in [row.model.name for row in zoos.matching()]


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("return [1]", "Manifest"),
        ("return {'version': 1, 'models': [{'name': 'x'}]}", "models.0.spec_digest"),
        (f"return {manifest(changed(bundled=True, repo=None, commit=None))!r}", "'digits'"),
    ],
)
def test_broken_zoo_is_reported_and_others_load(zoo_plugin, body: str, shown: str) -> None:
    zoos = zoos_of(zoo_plugin("zoo-broken", body))
    (fault,) = zoos.faults
    assert "zoo 'zoo-broken' of zoo-broken 1.0" in fault
    assert shown in fault
    assert zoos.get("shapes-tiny").model == find("shapes-tiny")
    with raises(UnknownNameError, "lookup-zoo-model"):
        zoos.get("digits")


def test_unlisted_name() -> None:
    with raises(UnknownNameError, "lookup-zoo-model", name="shapes-tinny") as caught:
        find("shapes-tinny")
    assert "'shapes-tiny'" in str(caught.value.hint)


def test_missing_bundled_model() -> None:
    gone = find("shapes-tiny").model_copy(update={"name": "shapes-gone"})
    with raises(ModelError, "model-bundled-missing", name="shapes-gone") as caught:
        bundled_folder(gone)
    assert "--force-reinstall" in str(caught.value.hint)
    (other,) = parse_manifest(manifest(ENTRY), "m").models
    assert bundled_folder(other) is None


# --- entries and models


def check(model: ZooModel, folder: Path) -> list[str]:
    return compare(model, FolderSource(folder))


def test_unchanged_copy_has_no_faults(copy: Path) -> None:
    model = find("shapes-tiny")
    assert check(model, copy) == []
    assert describe(FolderSource(copy)) == model
    assert describe(FolderSource(copy), name="other").name == "other"


def test_changed_missing_and_added_files_are_faults(copy: Path) -> None:
    model = find("shapes-tiny")
    weights = copy / "stages" / "up" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    (copy / "samples.png").unlink()
    (copy / "README.md").write_text("short")
    (copy / "stages" / "more").mkdir()
    (copy / "stages" / "more" / "model.safetensors").write_bytes(b"")
    (copy / "notes.txt").write_text("not a model file, so not checked")
    missing, added, resized, altered = check(model, copy)
    assert missing.startswith("samples.png ")
    assert added.startswith("stages/more/model.safetensors ")
    assert resized.startswith("README.md ")
    assert f" {model.files['README.md'].size}" in resized
    assert altered.startswith("stages/up/model.safetensors ")
    assert model.files["stages/up/model.safetensors"].sha256 in altered


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("parameters", 7),
        ("license", "mit"),
        ("data", "mnist"),
        ("size", 64),
        ("spec_digest", "0" * 64),
        ("requires", []),
        ("metrics", {}),
        ("description", "Something else."),
    ],
)
def test_metadata_of_an_entry_are_compared_with_the_model(
    field: str, value: Any, copy: Path
) -> None:
    wrong = find("shapes-tiny").model_copy(update={field: value})
    (fault,) = check(wrong, copy)
    assert field in fault


def test_folders_without_a_valid_entry(copy: Path) -> None:
    metrics = json.loads((copy / "metrics.json").read_text())
    config = json.loads((copy / "config.json").read_text())

    def spoil(name: str, text: str) -> None:
        (copy / name).write_text(text)
        config["files"].pop(name, None)
        if name != "config.json":
            record = FolderSource(copy).record(name)
            config["files"][name] = FileRecord.model_dump(record)
            (copy / "config.json").write_text(json.dumps(config))

    def check_refused(code: str, *values: str, **fields: object) -> None:
        with raises(ModelError, code, **fields) as caught:
            describe(FolderSource(copy, "the-copy"))
        assert caught.value.hint
        for value in ("the-copy", *values):
            assert value in caught.value.what

    (copy / "metrics.json").write_text(json.dumps({**metrics, "name": "other"}))
    check_refused("model-entry-files", "metrics.json")
    spoil("metrics.json", json.dumps({**metrics, "stages": [{"parameters": "many"}]}))
    check_refused("model-entry-form", "metrics.json", "stages.0.parameters:")
    figure = {"name": "kid.n4.\x1b[2J", "metric": "kid", "n": 4, "value": 1.0}
    spoil("metrics.json", json.dumps({**metrics, "figures": [figure]}))
    check_refused("model-entry-invalid")
    spoil("metrics.json", "{")
    check_refused("model-entry-form", "metrics.json")
    spoil("metrics.json", json.dumps(metrics))
    describe(FolderSource(copy))
    spoil("config.json", json.dumps({**config, "spec": {**config["spec"], "stages": []}}))
    check_refused("model-entry-invalid", "config.json", problems={"stages": "too-short"})
    (copy / "metrics.json").unlink()
    check_refused("model-no-figures", name="metrics.json")
    (copy / "config.json").unlink()
    check_refused("model-no-figures", name="config.json")

"""The zoo: what a manifest may say, who may list what, and entries held against models."""

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
    """A copy of the model that ships with cascadezoo, to be spoilt."""
    folder = bundled_folder(find("shapes-tiny"))
    assert folder is not None
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture
def zoo_plugin(plugin):
    """Makes a plugin with a zoo."""
    get_zoos()  # what is installed, before anything else seems to be

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


def test_the_shipped_manifest_is_read_and_written_alike(tmp_path: Path) -> None:
    path = tmp_path / "zoo_manifest.json"
    write_manifest(path, read_manifest())
    assert json.loads(path.read_text()) == load()
    assert read_manifest_file(path) == read_manifest()
    assert path.read_text() == (Path(__file__).parents[2] / "zoo_manifest.json").read_text()


def test_an_entry_goes_through_json_unchanged() -> None:
    (model,) = parse_manifest(manifest(ENTRY), "m").models
    assert parse_manifest(manifest(model_dict(model)), "m").models == [model]
    assert model.bytes == 1100
    assert not model.bundled


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"commit": "main"}, "models.0.commit"),
        ({"commit": "0123456"}, "models.0.commit"),
        ({"commit": "0123456789ABCDEF0123456789ABCDEF01234567"}, "models.0.commit"),
        ({"commit": None}, "needs a repo and the commit in it"),
        ({"repo": None}, "needs a repo and the commit in it"),
        ({"bundled": True}, "has neither repo nor commit"),
        ({"repo": "https://elsewhere/x"}, "models.0.repo"),
        ({"repo": "../x"}, "models.0.repo"),
        ({"repo": "a/b/c"}, "models.0.repo"),
        ({"repo": "a/b\n"}, "models.0.repo"),
        ({"name": "a/b"}, "models.0.name"),
        ({"name": "Digits"}, "models.0.name"),
        ({"name": "a\x1b[31m"}, "models.0.name"),
        ({"spec_digest": "ab"}, "models.0.spec_digest"),
        ({"files": {}}, "models.0.files"),
        ({"files": {"config.json": {"sha256": "x", "size": 1}}}, "files.config.json.sha256"),
        ({"files": {"metrics.json": {"sha256": "ab" * 32, "size": 1}}}, "has no config.json"),
        ({"parameters": -1}, "models.0.parameters"),
        ({"requires": ["x @ https://elsewhere/x.whl"]}, "models.0.requires.0"),
        ({"requires": ["x'; rm -rf ~; '"]}, "models.0.requires.0"),
        ({"metrics": {"kid": {"value": float("nan")}}}, "models.0.metrics.kid.value"),
        ({"metrics": {"\x1b[2J": {"value": 1.0}}}, "models.0.metrics"),
        ({"more": 1}, "models.0.more: "),
    ],
)
def test_what_an_entry_may_not_say(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_manifest(manifest(changed(**fields)), "some.json")
    assert said in caught.value.what
    assert caught.value.what.startswith("some.json is not a zoo manifest:")


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "stages/../model.safetensors", "pickle.bin", "stages/a/model.pt", ""],
)
def test_files_are_files_of_a_model(name: str) -> None:
    files = {**ENTRY["files"], name: {"sha256": "ab" * 32, "size": 1}}
    with raises(InputError, "input-manifest-invalid", problems={"models.0.files": "value-error"}):
        parse_manifest(manifest(changed(files=files)), "m")


def test_a_name_is_there_once() -> None:
    with raises(InputError, "input-manifest-invalid"):
        parse_manifest(manifest(ENTRY, changed(repo="other/digits")), "m")


@pytest.mark.parametrize("data", [[], None, 3, {"models": []}, {"version": 2, "models": []}])
def test_what_is_no_manifest_is_told(data: object) -> None:
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
def test_any_value_is_taken_or_refused_with_its_path(field: str, value: Any) -> None:
    try:
        (model,) = parse_manifest(manifest(changed(**{field: value})), "m").models
    except InputError as error:
        assert "models.0" in error.what
    else:
        assert model_dict(model)[field] == value or field == "metrics"


def test_files_that_are_no_manifest(tmp_path: Path) -> None:
    path = tmp_path / "zoo.json"
    assert read_manifest_file(path) is None
    path.write_text('{"version": 1, "version": 1}')
    with raises(InputError, "input-manifest-not-json"):
        read_manifest_file(path)
    with raises(InputError, "input-manifest-unreadable"):
        read_manifest_file(tmp_path)
    with raises(InputError, "input-manifest-not-writable"):
        write_manifest(tmp_path / "no" / "zoo.json", Manifest(version=1, models=[]))


def test_entries_are_added_replaced_and_kept_in_order(tmp_path: Path) -> None:
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


def test_a_plugins_zoo_is_listed_beside_ours(zoo_plugin) -> None:
    zoos = zoos_of(zoo_plugin("cascadezoo-mine", manifest(ENTRY)))
    assert zoos.faults == []
    assert [row.model.name for row in zoos.matching()] == ["digits", "shapes-tiny"]
    row = zoos.get("digits")
    assert str(row) == "the zoo 'cascadezoo-mine' of cascadezoo-mine 1.0"
    assert row.model.repo == "someone/digits"
    assert zoos.of_repo("someone/digits") == ["digits"]
    assert [r.model.name for r in zoos.matching("shapes*")] == ["shapes-tiny"]


@pytest.mark.parametrize("name", ["digits", "shapes-tiny"])
def test_two_zoos_that_claim_one_name_are_both_named(zoo_plugin, name: str) -> None:
    one = zoo_plugin("zoo-one", manifest(changed(name=name)))
    two = zoo_plugin("zoo-two", manifest(changed(name=name, repo="b/b")))
    zoos = zoos_of(one, two)
    with pytest.raises(PluginError) as caught:
        zoos.get(name)
    assert "the zoo 'zoo-one' of zoo-one 1.0" in caught.value.what
    assert "the zoo 'zoo-two' of zoo-two 1.0" in caught.value.what
    assert ("the zoo 'cascadezoo' of cascadezoo" in caught.value.what) == (name == "shapes-tiny")
    assert "CASCADEZOO_LOAD_PLUGINS" in str(caught.value.hint)
    assert zoos.faults == [caught.value.what]
    assert name not in [row.model.name for row in zoos.matching()]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise RuntimeError('no luck')", "cannot be read: RuntimeError: no luck"),
        ("return [1]", "is not a zoo manifest"),
        ("return {'version': 1, 'models': [{'name': 'x'}]}", "models.0.spec_digest: is missing"),
        (f"return {manifest(changed(bundled=True, repo=None, commit=None))!r}", "as bundled"),
    ],
)
def test_a_broken_zoo_is_told_and_takes_no_other_down(zoo_plugin, body: str, said: str) -> None:
    zoos = zoos_of(zoo_plugin("zoo-broken", body))
    (fault,) = zoos.faults
    assert "the zoo 'zoo-broken' of zoo-broken 1.0" in fault
    assert said in fault
    assert zoos.get("shapes-tiny").model == find("shapes-tiny")
    with raises(UnknownNameError, "lookup-zoo-model"):
        zoos.get("digits")


def test_a_name_that_no_zoo_lists() -> None:
    with raises(UnknownNameError, "lookup-zoo-model", name="shapes-tinny") as caught:
        find("shapes-tinny")
    assert "did you mean 'shapes-tiny'?" in str(caught.value.hint)


def test_a_bundled_model_that_is_not_there_is_told() -> None:
    gone = find("shapes-tiny").model_copy(update={"name": "shapes-gone"})
    with raises(ModelError, "model-bundled-missing", name="shapes-gone") as caught:
        bundled_folder(gone)
    assert "--force-reinstall" in str(caught.value.hint)
    (other,) = parse_manifest(manifest(ENTRY), "m").models
    assert bundled_folder(other) is None


# --- entries and models


def check(model: ZooModel, folder: Path) -> list[str]:
    return compare(model, FolderSource(folder))


def test_a_whole_copy_is_found_whole(copy: Path) -> None:
    model = find("shapes-tiny")
    assert check(model, copy) == []
    assert describe(FolderSource(copy)) == model
    assert describe(FolderSource(copy), name="other").name == "other"


def test_every_changed_missing_or_added_file_is_told(copy: Path) -> None:
    model = find("shapes-tiny")
    weights = copy / "stages" / "up" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    (copy / "samples.png").unlink()
    (copy / "README.md").write_text("short")
    (copy / "stages" / "more").mkdir()
    (copy / "stages" / "more" / "model.safetensors").write_bytes(b"")
    (copy / "notes.txt").write_text("not of the layout, so not looked at")
    faults = check(model, copy)
    assert len(faults) == 4
    assert faults[:3] == [
        "samples.png is missing",
        "stages/more/model.safetensors is not in the entry",
        f"README.md has 5 bytes, not {model.files['README.md'].size}",
    ]
    assert faults[3].startswith("stages/up/model.safetensors has sha256 ")


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
def test_what_an_entry_tells_is_held_against_the_model(field: str, value: Any, copy: Path) -> None:
    wrong = find("shapes-tiny").model_copy(update={field: value})
    assert check(wrong, copy) == [f"the entry's {field} is not the model's"]


def test_a_folder_that_cannot_be_an_entry(copy: Path) -> None:
    metrics = json.loads((copy / "metrics.json").read_text())
    config = json.loads((copy / "config.json").read_text())

    def spoil(name: str, text: str) -> None:
        (copy / name).write_text(text)
        config["files"].pop(name, None)
        if name != "config.json":
            found = FolderSource(copy).record(name)
            config["files"][name] = FileRecord.model_dump(found)
            (copy / "config.json").write_text(json.dumps(config))

    def result() -> str:
        with pytest.raises(ModelError) as caught:
            describe(FolderSource(copy, "here"))
        assert caught.value.hint
        return caught.value.what

    (copy / "metrics.json").write_text(json.dumps({**metrics, "name": "other"}))
    assert result() == "here: metrics.json is not what config.json says"
    spoil("metrics.json", json.dumps({**metrics, "stages": [{"parameters": "many"}]}))
    said = result()
    assert said.startswith("metrics.json of here does not validate")
    assert "stages.0.parameters:" in said
    figure = {"name": "kid.n4.\x1b[2J", "metric": "kid", "n": 4, "value": 1.0}
    spoil("metrics.json", json.dumps({**metrics, "figures": [figure]}))
    assert "cannot be an entry of a zoo" in result()
    spoil("metrics.json", "{")
    assert "is not valid JSON" in result()
    spoil("metrics.json", json.dumps(metrics))
    describe(FolderSource(copy))
    spoil("config.json", json.dumps({**config, "spec": {**config["spec"], "stages": []}}))
    assert "has a spec that does not validate in its config.json" in result()
    (copy / "metrics.json").unlink()
    assert result() == "here has no metrics.json, so nothing is known of it"
    (copy / "config.json").unlink()
    assert result() == "here has no config.json, so it is not a model"

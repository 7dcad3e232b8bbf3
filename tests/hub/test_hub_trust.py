"""A model repo is a stranger's data: whatever it says, nothing of this machine is at its mercy."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pull_cases import REPO, WEIGHTS, changed, contents, lines, make_files, record, resealed

from cascadezoo import Cascade
from cascadezoo.errors import CascadezooError, ModelError, ResourceError, SpecError
from cascadezoo.hub.layout import check_files, is_cache_link, parse_config, read_config
from cascadezoo.hub.pull import pull
from cascadezoo.hub.refs import locate
from cascadezoo.spec import load_spec, resolve
from cascadezoo.weights import bounded_build


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("lone") / "model")


@pytest.fixture(scope="module")
def config(files):
    return json.loads(files["config.json"])


@pytest.fixture(autouse=True)
def away(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def written(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def tells(error):
    """An error that a terminal can be shown, and that says what to do."""
    text = str(error)
    assert all(c.isprintable() or c == "\n" for c in text), repr(text)
    assert len(text) < 20_000
    return text


# --- the list of files


@pytest.mark.parametrize(
    "name",
    [
        "../../../evil",
        "/etc/passwd",
        "stages/../../../x/model.safetensors",
        "stages/coarse/../model.safetensors",
        "stages/coarse/model.safetensors\n",
        "stages/coarse/model.safetensors/x",
        "stages//model.safetensors",
        "stages/COARSE/model.safetensors",
        "stages/" + "a" * 41 + "/model.safetensors",
        "stages\\coarse\\model.safetensors",
        "C:\\model.safetensors",
        "config.json",
        "pytorch_model.bin",
        "modeling.py",
        ".git/config",
        "README.md\x1b[2J",
        "\u202egnp.selpmas",
        "",
    ],
)
def test_lists_that_name_other_files_are_refused(hub, files, config, name, tmp_path):
    rows = {**config["files"], name: record(b"x")}
    hub.make_repo(REPO, {**changed(files, files=rows)})
    hub.clear()
    with pytest.raises(ModelError) as raised:
        pull(REPO, "out")
    tells(raised.value)
    assert all(line.endswith("config.json") for line in lines(hub))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf_home", "work"]
    assert not any((tmp_path / "work").iterdir())


def test_names_of_stages_never_lead_out_of_the_folder(files, config):
    for name in ("../x", "/x", "a/b", ".", "..", "a\0b", "x" * 41):
        spec = copy.deepcopy(config["spec"])
        spec["stages"][0]["name"] = name
        with pytest.raises(SpecError):
            resolve(spec, for_training=False)


# --- links


def test_links_in_a_local_folder_are_refused(files, tmp_path):
    folder = written(tmp_path / "model", files)
    for name in (WEIGHTS, "config.json"):
        (folder / name).rename(tmp_path / "moved")
        (folder / name).symlink_to(tmp_path / "moved")
        with pytest.raises(ModelError, match=f"{name} is a symbolic link"):
            Cascade.from_pretrained(folder)
        (folder / name).unlink()
        (tmp_path / "moved").rename(folder / name)
    (folder / "stages/coarse").rename(tmp_path / "coarse")
    (folder / "stages/coarse").symlink_to(tmp_path / "coarse")
    with pytest.raises(ModelError, match="stages/coarse is a symbolic link"):
        Cascade.from_pretrained(folder)


def test_only_links_into_the_blobs_of_the_same_repo_are_followed(files, tmp_path):
    repo = tmp_path / "models--org--lone"
    folder = written(repo / "snapshots" / ("0" * 40), files)
    Cascade.from_pretrained(folder)
    (repo / "blobs").mkdir()
    weights = folder / WEIGHTS
    weights.rename(repo / "blobs" / "abc")
    weights.symlink_to("../../../../blobs/abc")
    assert is_cache_link(folder, weights)
    Cascade.from_pretrained(folder)
    (tmp_path / "other").write_bytes(files[WEIGHTS])
    (repo / "secret").write_bytes(files[WEIGHTS])
    for target in ("../../../../secret", str(tmp_path / "other"), "../../../../blobs/../secret"):
        weights.unlink()
        weights.symlink_to(target)
        assert not is_cache_link(folder, weights)
        with pytest.raises(ModelError, match="symbolic link"):
            Cascade.from_pretrained(folder)
    # A chain of links counts by where it ends, and blobs itself is no link.
    (repo / "blobs" / "chain").symlink_to(tmp_path / "other")
    weights.unlink()
    weights.symlink_to("../../../../blobs/chain")
    with pytest.raises(ModelError, match="symbolic link"):
        Cascade.from_pretrained(folder)
    (repo / "blobs").rename(repo / "elsewhere")
    (repo / "blobs").symlink_to("elsewhere")
    weights.unlink()
    weights.symlink_to("../../../../blobs/abc")
    with pytest.raises(ModelError, match="symbolic link"):
        Cascade.from_pretrained(folder)
    plain = written(tmp_path / "plain", files)
    (tmp_path / "blobs").mkdir()
    (plain / WEIGHTS).rename(tmp_path / "blobs" / "abc")
    (plain / WEIGHTS).symlink_to("../../../blobs/abc")
    with pytest.raises(ModelError, match="symbolic link"):
        Cascade.from_pretrained(plain)


def test_what_is_no_file_is_not_read(files, tmp_path):
    """A pipe would never end."""
    folder = written(tmp_path / "model", files)
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with pytest.raises(ModelError, match=r"config\.json is not a file"):
        read_config(folder)
    (folder / "config.json").unlink()
    (folder / "config.json").write_bytes(files["config.json"])
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)
    with pytest.raises(ModelError, match="is missing"):
        check_files(folder, read_config(folder))


# --- config.json


def bomb(config, **spec):
    return {**config, "spec": {**config["spec"], **spec}}


def stage(config, name="coarse", **settings):
    row = copy.deepcopy(config["spec"]["stages"][0])
    return {**row, "name": name, "config": {**row["config"], **settings}}


HOSTILE = {
    "nested": lambda c: (
        b'{"library_name": "cascadezoo", "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    ),
    "nested a little": lambda c: {**c, "spec": _nest(60)},
    "nested in a stage": lambda c: bomb(c, stages=[stage(c, x=_nest(30))]),
    "not utf-8": lambda c: b"\xff\xfe{}",
    "twice": lambda c: b'{"library_name": "cascadezoo", "files": {}, "files": {}}',
    "NaN": lambda c: b'{"library_name": "cascadezoo", "x": NaN}',
    "a long number": lambda c: b'{"library_name": "cascadezoo", "x": ' + b"9" * 10_000 + b"}",
    "a list": lambda c: b"[]",
    "nothing": lambda c: b"",
    "65 files": lambda c: {
        **c,
        "files": {f"stages/s{i}/model.safetensors": record(b"") for i in range(65)},
    },
    "keys with escapes": lambda c: {**c, "\x1b[31mred\x07": 1},
    "deep keys with escapes": lambda c: bomb(c, stages=[stage(c, **{"\x9b2J": 1})]),
    "long keys": lambda c: bomb(c, **{"k" * 100_000: 1}),
    "ten thousand keys": lambda c: {**c, **{f"k{i}": 1 for i in range(10_000)}},
    "17 stages": lambda c: bomb(c, stages=[stage(c, f"s{i}") for i in range(17)]),
    "no stage": lambda c: bomb(c, stages=[]),
    "two of a name": lambda c: bomb(c, stages=[stage(c), stage(c)]),
    "escapes in values": lambda c: bomb(c, name="\x1b]0;owned\x07"),
    "an import path": lambda c: bomb(c, stages=[{**stage(c), "kind": "os:system"}]),
    "escapes in kinds": lambda c: bomb(c, stages=[{**stage(c), "kind": "\x1b[31mflow.v1"}]),
    "a file as kind": lambda c: bomb(c, stages=[{**stage(c), "kind": "../../x.v1"}]),
    "wide": lambda c: bomb(c, stages=[stage(c, channels=2**31 - 1)]),
    "wide and multiplied": lambda c: bomb(
        c, stages=[stage(c, channels=2**31 - 1, multipliers=[64, 64])]
    ),
    "wide but possible": lambda c: bomb(c, stages=[stage(c, channels=2**16)]),
    "infinite": lambda c: b'{"library_name": "cascadezoo", "spec": {"seed": 1e999}}',
    "labels": lambda c: bomb(c, data={**c["spec"]["data"], "num_classes": 1_000_000}),
    "large images": lambda c: bomb(c, data={**c["spec"]["data"], "size": 65536}),
    "other weights": lambda c: bomb(c, stages=[stage(c, channels=16)]),
    "the wrong type": lambda c: {**c, "spec": [1]},
    "a digest": lambda c: {**c, "spec_digest": "x"},
    "no files": lambda c: {**c, "files": {}},
    "a negative size": lambda c: {**c, "files": {WEIGHTS: {"sha256": "0" * 64, "size": -1}}},
    "a later format": lambda c: {**c, "format": 2},
}


def _nest(depth):
    node = {}
    for _ in range(depth):
        node = {"a": [node]}
    return node


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_configs(name, files, config, tmp_path):
    hostile = HOSTILE[name](copy.deepcopy(config))
    data = hostile if isinstance(hostile, bytes) else json.dumps(hostile).encode()
    folder = written(tmp_path / "model", {**files, "config.json": data})
    tracemalloc.start()
    try:
        with pytest.raises((ModelError, SpecError, ResourceError)) as raised:
            Cascade.from_pretrained(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
    tells(raised.value)
    assert raised.value.exit_code == 2


MEASURE = """
import json, re, sys
from pathlib import Path
from cascadezoo import Cascade
from cascadezoo.errors import CascadezooError
def highest():  # not ru_maxrss, which begins with that of the parent
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
sound, *hostile = map(Path, sys.argv[1:])
Cascade.from_pretrained(sound)
before = highest()
told = []
for folder in hostile:
    try:
        Cascade.from_pretrained(folder)
        told.append(None)
    except CascadezooError as error:
        told.append(type(error).__name__)
print(json.dumps({"told": told, "kib": highest() - before}))
"""


def measure(*folders):
    """The errors that loading folders ends in, and by how much memory grew, in KiB."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, folders)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return json.loads(done.stdout)


@pytest.mark.slow
def test_no_memory_is_made_for_what_a_config_claims(files, config, tmp_path):
    sound = written(tmp_path / "sound", files)
    names = [n for n in HOSTILE if not isinstance(HOSTILE[n](config), bytes)]
    folders = [
        written(
            tmp_path / str(i),
            {**files, "config.json": json.dumps(HOSTILE[n](copy.deepcopy(config))).encode()},
        )
        for i, n in enumerate(names)
    ]
    found = measure(sound, *folders)
    assert None not in found["told"]
    assert found["kib"] < 64 << 10, found


def test_a_config_of_too_many_layers_is_refused_while_it_is_built(config):
    """256 blocks a level are allowed; in sixteen stages they are more than any model has."""
    wide = {"channels": 8, "multipliers": [1] * 7, "blocks": 256, "attention": [], "size": 64}
    spec = {**config["spec"], "stages": [stage(config, **wide)]}
    resolved = load_spec({**spec, "data": {"source": "shapes", "config": {"size": 64}}})

    def build(spec, most):
        with bounded_build("lone", most):
            Cascade.from_spec(spec, device="meta")

    small = load_spec(config["spec"])
    build(small, 100_000)
    with pytest.raises(ModelError, match="more than 2000 layers") as raised:
        build(resolved, 2000)
    tells(raised.value)
    # The limit ends with the block.
    assert sum(1 for _ in Cascade.from_spec(small, device="meta").modules()) > 10


# A config in which anything may be anything.
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["flow.v1", "vit.v1", "pixelshuffle", "../x", "\x1b[31m", "a" * 5000])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def _places(node, way=()):
    yield way
    rows = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, child in rows:
        yield from _places(child, (*way, key))


def _put(node, way, value):
    for key in way[:-1]:
        node = node[key]
    node[way[-1]] = value


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    changes=st.lists(
        st.tuples(st.booleans(), st.integers(0, 10_000), VALUES), min_size=1, max_size=3
    ),
    more=st.none() | st.tuples(st.text(max_size=20), VALUES),
)
def test_any_change_of_a_config_loads_or_is_told(changes, more, files, config, tmp_path):
    hostile = copy.deepcopy(config)
    if more:
        hostile["spec"][more[0]] = more[1]
    for in_stage, place, value in changes:
        ways = [way for way in _places(hostile) if way]
        inner = [way for way in ways if way[:2] == ("spec", "stages") and len(way) > 3]
        rows = inner if in_stage and inner else ways
        _put(hostile, rows[place % len(rows)], value)
    try:
        text = json.dumps(hostile).encode()
    except UnicodeEncodeError:
        return
    folder = written(tmp_path / "model", {**files, "config.json": text})
    tracemalloc.start()
    try:
        Cascade.from_pretrained(folder)
    except CascadezooError as error:
        tells(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 64 << 20


@settings(max_examples=200, deadline=None)
@given(text=st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
def test_any_bytes_for_a_config(text):
    try:
        parse_config(text, "config.json")
    except ModelError as error:
        tells(error)


# --- kinds and requirements


def pulled_spec(hub, files, config, kind, requires):
    spec = {**config["spec"], "stages": [{**stage(config), "kind": kind}], "requires": requires}
    hub.make_repo(REPO, changed(files, spec=spec, requires=requires))
    with pytest.raises(SpecError) as raised:
        Cascade.from_pretrained(REPO)
    return tells(raised.value)


AUDIT = """
import json, os, sys
from cascadezoo import Cascade
from cascadezoo.errors import CascadezooError
import cascadezoo.cascade, huggingface_hub, safetensors.torch
events = []
def watch(event, args):
    if event in ("open", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "import"):
        events.append([event, str(args[0])])
sys.addaudithook(watch)
told = None
try:
    Cascade.from_pretrained(sys.argv[1])
except CascadezooError as error:
    told = str(error)
print(json.dumps({"told": told, "events": events}))
"""


def audit(hub, reference):
    """What loading a model does to this machine: files opened, programs started, imports."""
    done = subprocess.run(
        [sys.executable, "-c", AUDIT, reference],
        env={**os.environ, **hub.env},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout)


def test_a_missing_kind_gives_the_pip_line_and_installs_nothing(hub, files, config):
    requires = ["cascadezoo-blurry>=1.2,<2", "cascadezoo"]
    text = pulled_spec(hub, files, config, "blurry.v3", requires)
    assert "there is no stage kind 'blurry.v3'" in text
    assert "it may come from: pip install 'cascadezoo-blurry>=1.2,<2'" in text
    found = audit(hub, REPO)
    assert found["told"] == text
    assert {event for event, _ in found["events"]} <= {"open", "import"}
    assert not [name for event, name in found["events"] if event == "import" and "blurry" in name]


@pytest.mark.parametrize(
    "requirement",
    [
        "evil @ https://example.org/evil.whl",
        "evil @ file:///tmp/evil.whl",
        "git+https://example.org/evil.git",
        "--index-url=https://example.org",
        "-r requirements.txt",
        "evil; os_name == '$(touch owned)'",
        "evil==='$(touch owned)'",
        "evil===`id`",
        "evil===\x1b[31m",
        "evil' ; touch owned ; '",
        "evil\npip install other",
        "../evil",
        "e" * 300,
    ],
)
def test_requirements_that_are_more_than_a_name_and_versions(hub, files, config, requirement):
    """None becomes part of a line that someone pastes into a shell."""
    spec = {**config["spec"], "stages": [{**stage(config), "kind": "evil.v1"}]}
    spec["requires"] = [requirement]
    hub.make_repo(REPO, changed(files, spec=spec, requires=[requirement]))
    with pytest.raises((SpecError, ModelError)) as raised:
        Cascade.from_pretrained(REPO)
    text = tells(raised.value)
    assert not [line for line in text.splitlines() if "pip install '" in line]


def test_kinds_resolve_to_plugins_alone(files, config, tmp_path):
    """A module that lies in the repo, or anywhere, is not imported by its name in a spec."""
    Path("owned.py").write_text("raise SystemExit('imported')")
    for kind in ("owned", "owned.v1", "owned:Stage", "cascadezoo.stages.flow.stage:FlowStage"):
        spec = {**config["spec"], "stages": [{**stage(config), "kind": kind}]}
        folder = written(tmp_path / "model", changed(files, spec=spec))
        with pytest.raises(SpecError):
            Cascade.from_pretrained(folder)


# --- files beside


def test_nothing_else_of_a_repo_is_opened(hub, files):
    """Code, pickles, archives and pictures in a repo stay there; no program is started."""
    more = {"modeling.py": b"import os", "pytorch_model.bin": b"\x80\x04", "x.zip": b"PK"}
    hub.make_repo(REPO, {**files, **more})
    found = audit(hub, REPO)
    assert found["told"] is None
    asked = {r.path.rpartition("/")[2] for r in hub.requests}
    assert asked & set(more) == set()
    assert {event for event, _ in found["events"]} <= {"open", "import"}
    snapshot = str(locate(REPO, offline=True))
    opened = {n.removeprefix(snapshot + "/") for _, n in found["events"] if n.startswith(snapshot)}
    assert opened <= set(files)  # the card too, to be hashed
    assert WEIGHTS in opened


def test_a_whole_hostile_repo_leaves_no_trace(hub, files, config, tmp_path):
    rows = resealed(files, stages__coarse__model_safetensors=b"")
    assert "stages/coarse/model_safetensors" in rows  # no such file is part of a model
    hub.make_repo(REPO, rows)
    with pytest.raises(ModelError, match="not part of a model"):
        pull(REPO, "out")
    assert not Path("out").exists()
    assert contents(tmp_path / "work") == {}
    with pytest.raises(CascadezooError):
        locate(REPO, offline=True)

"""A model repo is untrusted data: it cannot harm this machine."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from errors_help import raises
from pull_cases import (
    REPO,
    WEIGHTS,
    changed,
    check_readable,
    contents,
    lines,
    record,
    resealed,
    stage,
    write_files,
)

from cascadezoo import Cascade
from cascadezoo.errors import CascadezooError, ModelError, SpecError
from cascadezoo.hub.locate import locate
from cascadezoo.hub.pull import pull
from cascadezoo.model_folder.integrity import check_files
from cascadezoo.model_folder.layout import read_config
from cascadezoo.model_folder.snapshots import is_cache_link
from cascadezoo.spec import resolve

pytestmark = pytest.mark.usefixtures("workdir")


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
def test_file_lists_with_foreign_files_are_refused(hub, files, config, name, tmp_path):
    rows = {**config["files"], name: record(b"x")}
    hub.make_repo(REPO, {**changed(files, files=rows)})
    hub.clear()
    with pytest.raises(ModelError) as raised:
        pull(REPO, "out")
    check_readable(raised.value)
    assert all(line.endswith("config.json") for line in lines(hub))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf_home", "work"]
    assert not any((tmp_path / "work").iterdir())


def test_stage_names_stay_inside_the_folder(files, config):
    for name in ("../x", "/x", "a/b", ".", "..", "a\0b", "x" * 41):
        spec = copy.deepcopy(config["spec"])
        spec["stages"][0]["name"] = name
        with pytest.raises(SpecError):
            resolve(spec, for_training=False)


# --- links


def test_links_in_a_local_folder_are_refused(files, tmp_path):
    folder = write_files(tmp_path / "model", files)
    for name in (WEIGHTS, "config.json"):
        (folder / name).rename(tmp_path / "moved")
        (folder / name).symlink_to(tmp_path / "moved")
        code = "model-damaged" if name == WEIGHTS else "model-symlink"
        with raises(ModelError, code) as raised:
            Cascade.from_pretrained(folder)
        assert name in raised.value.what
        (folder / name).unlink()
        (tmp_path / "moved").rename(folder / name)
    (folder / "stages/coarse").rename(tmp_path / "coarse")
    (folder / "stages/coarse").symlink_to(tmp_path / "coarse")
    with raises(ModelError, "model-damaged", faults={WEIGHTS: "link"}):
        Cascade.from_pretrained(folder)


def test_only_links_into_the_blobs_of_the_same_repo_are_followed(files, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--org--lone"
    folder = write_files(repo / "snapshots" / ("0" * 40), files)
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
        with raises(ModelError, "model-damaged", faults={WEIGHTS: "link"}):
            Cascade.from_pretrained(folder)
    # The end of a chain of links counts, and blobs itself must not be a link.
    (repo / "blobs" / "chain").symlink_to(tmp_path / "other")
    weights.unlink()
    weights.symlink_to("../../../../blobs/chain")
    with raises(ModelError, "model-damaged", faults={WEIGHTS: "link"}):
        Cascade.from_pretrained(folder)
    (repo / "blobs").rename(repo / "elsewhere")
    (repo / "blobs").symlink_to("elsewhere")
    weights.unlink()
    weights.symlink_to("../../../../blobs/abc")
    with raises(ModelError, "model-damaged", faults={WEIGHTS: "link"}):
        Cascade.from_pretrained(folder)
    plain = write_files(tmp_path / "plain", files)
    (tmp_path / "blobs").mkdir()
    (plain / WEIGHTS).rename(tmp_path / "blobs" / "abc")
    (plain / WEIGHTS).symlink_to("../../../blobs/abc")
    with raises(ModelError, "model-damaged", faults={WEIGHTS: "link"}):
        Cascade.from_pretrained(plain)


def test_special_files_are_not_read(files, tmp_path):
    """Reading a pipe would never end."""
    folder = write_files(tmp_path / "model", files)
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with raises(ModelError, "model-file-special"):
        read_config(folder)
    (folder / "config.json").unlink()
    (folder / "config.json").write_bytes(files["config.json"])
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)
    with raises(ModelError, "model-damaged", faults={WEIGHTS: "special"}):
        check_files(folder, read_config(folder))


# --- kinds and requirements


def pulled_spec(hub, files, config, kind, requires):
    spec = {**config["spec"], "stages": [{**stage(config), "kind": kind}], "requires": requires}
    hub.make_repo(REPO, changed(files, spec=spec, requires=requires))
    with pytest.raises(SpecError) as raised:
        Cascade.from_pretrained(REPO)
    return check_readable(raised.value)


AUDIT = """
import json, os, sys
from cascadezoo import Cascade
from cascadezoo.errors import CascadezooError
import cascadezoo.cascade.cascade, huggingface_hub, safetensors.torch
events = []
def watch(event, args):
    if event in ("open", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "import"):
        events.append([event, str(args[0])])
sys.addaudithook(watch)
message = None
try:
    Cascade.from_pretrained(sys.argv[1])
except CascadezooError as error:
    message = str(error)
print(json.dumps({"error": message, "events": events}))
"""


def audit(hub, reference):
    """The effects of loading a model: opened files, started programs, imports."""
    done = subprocess.run(
        [sys.executable, "-c", AUDIT, reference],
        env={**os.environ, **hub.env},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout)


def test_missing_kind_shows_the_pip_command_and_installs_nothing(hub, files, config):
    requires = ["cascadezoo-blurry>=1.2,<2", "cascadezoo"]
    text = pulled_spec(hub, files, config, "blurry.v3", requires)
    assert "'blurry.v3'" in text
    assert "pip install 'cascadezoo-blurry>=1.2,<2'" in text
    result = audit(hub, REPO)
    assert result["error"] == text
    assert {event for event, _ in result["events"]} <= {"open", "import"}
    assert not [name for event, name in result["events"] if event == "import" and "blurry" in name]


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
def test_requirements_with_more_than_a_name_and_versions(hub, files, config, requirement):
    """None becomes part of a command that a user may paste into a shell."""
    spec = {**config["spec"], "stages": [{**stage(config), "kind": "evil.v1"}]}
    spec["requires"] = [requirement]
    hub.make_repo(REPO, changed(files, spec=spec, requires=[requirement]))
    with pytest.raises((SpecError, ModelError)) as raised:
        Cascade.from_pretrained(REPO)
    text = check_readable(raised.value)
    assert not [line for line in text.splitlines() if "pip install '" in line]


def test_kinds_resolve_only_to_plugins(files, config, tmp_path):
    """A module in the repo or elsewhere is not imported by its name in a spec."""
    Path("owned.py").write_text("raise SystemExit('imported')")
    for kind in ("owned", "owned.v1", "owned:Stage", "cascadezoo.stages.flow.stage:FlowStage"):
        spec = {**config["spec"], "stages": [{**stage(config), "kind": kind}]}
        folder = write_files(tmp_path / "model", changed(files, spec=spec))
        with pytest.raises(SpecError):
            Cascade.from_pretrained(folder)


# --- other files


@pytest.mark.slow
def test_other_files_of_a_repo_are_not_opened(hub, files):
    """Code, pickles, archives and images of a repo are not downloaded; no program is started."""
    more = {"modeling.py": b"import os", "pytorch_model.bin": b"\x80\x04", "x.zip": b"PK"}
    hub.make_repo(REPO, {**files, **more})
    result = audit(hub, REPO)
    assert result["error"] is None
    requested = {r.path.rpartition("/")[2] for r in hub.requests}
    assert requested & set(more) == set()
    assert {event for event, _ in result["events"]} <= {"open", "import"}
    snapshot = locate(REPO, offline=True)
    paths = [n for _, n in result["events"] if n.startswith(str(snapshot.parent.parent / "snap"))]
    assert {os.path.relpath(path, snapshot) for path in paths} <= set(files)
    blobs = {os.path.realpath(snapshot / name): name for name in files}
    opened = {blobs[name] for _, name in result["events"] if name in blobs}
    assert WEIGHTS in opened


def test_hostile_repo_leaves_no_files(hub, files, config, tmp_path):
    rows = resealed(files, stages__coarse__model_safetensors=b"")
    assert "stages/coarse/model_safetensors" in rows  # not a model file
    hub.make_repo(REPO, rows)
    with raises(ModelError, "model-config-lists-strange"):
        pull(REPO, "out")
    assert not Path("out").exists()
    assert contents(tmp_path / "work") == {}
    with pytest.raises(CascadezooError):
        locate(REPO, offline=True)

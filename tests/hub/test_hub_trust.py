"""A model repo is a stranger's data: whatever it says, nothing of this machine is at its mercy."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from errors_help import raises
from pull_cases import REPO, WEIGHTS, changed, contents, lines, record, resealed
from trust_cases import stage, tells, written

from cascadezoo import Cascade
from cascadezoo.errors import CascadezooError, ModelError, SpecError
from cascadezoo.hub.locate import locate
from cascadezoo.hub.pull import pull
from cascadezoo.model_folder.integrity import check_files
from cascadezoo.model_folder.layout import is_cache_link, read_config
from cascadezoo.spec import resolve

pytestmark = pytest.mark.usefixtures("away")


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
        code = "model-damaged" if name == WEIGHTS else "model-config-damaged"
        with raises(ModelError, code) as raised:
            Cascade.from_pretrained(folder)
        assert name in raised.value.what
        (folder / name).unlink()
        (tmp_path / "moved").rename(folder / name)
    (folder / "stages/coarse").rename(tmp_path / "coarse")
    (folder / "stages/coarse").symlink_to(tmp_path / "coarse")
    with raises(ModelError, "model-damaged", faults={WEIGHTS: "link"}):
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
        with raises(ModelError, "model-damaged", faults={WEIGHTS: "link"}):
            Cascade.from_pretrained(folder)
    # A chain of links counts by where it ends, and blobs itself is no link.
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
    plain = written(tmp_path / "plain", files)
    (tmp_path / "blobs").mkdir()
    (plain / WEIGHTS).rename(tmp_path / "blobs" / "abc")
    (plain / WEIGHTS).symlink_to("../../../blobs/abc")
    with raises(ModelError, "model-damaged", faults={WEIGHTS: "link"}):
        Cascade.from_pretrained(plain)


def test_what_is_no_file_is_not_read(files, tmp_path):
    """A pipe would never end."""
    folder = written(tmp_path / "model", files)
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with raises(ModelError, "model-config-damaged"):
        read_config(folder)
    (folder / "config.json").unlink()
    (folder / "config.json").write_bytes(files["config.json"])
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)
    with raises(ModelError, "model-damaged"):
        check_files(folder, read_config(folder))


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
import cascadezoo.cascade.cascade, huggingface_hub, safetensors.torch
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
    assert "pip install 'cascadezoo-blurry>=1.2,<2'" in text
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
    with raises(ModelError, "model-config-lists-strange"):
        pull(REPO, "out")
    assert not Path("out").exists()
    assert contents(tmp_path / "work") == {}
    with pytest.raises(CascadezooError):
        locate(REPO, offline=True)

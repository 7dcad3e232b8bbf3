from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys

import pytest
from errors_help import check_failed

from cascadezoo import Cascade

TINY = "diffusion-pixelshuffle-vit-tiny"


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_build_prints_the_model_and_the_next_command(invoke, lone, spec_file):
    result = invoke("build", spec_file(lone))
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("built runs/lone in ")
    assert lines[1] == "model: runs/lone/model"
    assert lines[-1] == "next: cascadezoo sample runs/lone"
    assert all(line.startswith("  ") for line in lines[2:-1])
    assert "phase 1/1 coarse: 4 steps" in result.stderr

    again = invoke("build", spec_file(lone))
    assert again.exit_code == 0
    assert "--fresh" in again.stdout
    assert json.loads(invoke("build", spec_file(lone), "--json").stdout)["already_done"] is True
    assert invoke("sample", "runs/lone", "-q", "-n", 1).exit_code == 0

    fresh = invoke("build", spec_file(lone), "--fresh", "--quiet")
    assert fresh.stdout.startswith("built runs/lone in ")
    assert fresh.stderr == ""


def test_options_reach_the_build(invoke, lone, spec_file, tmp_path):
    result = invoke(
        "build",
        spec_file(lone),
        "-o",
        "a folder",
        "--seed",
        "5",
        "--precision",
        "fp32",
        "--device",
        "cpu",
        "--set",
        "training.batch_size=8",
        "--json",
    )
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert (data["run"], data["model"]) == ("a folder", "a folder/model")
    assert data["already_done"] is False
    spec = json.loads((tmp_path / "a folder" / "spec.json").read_text())
    assert spec["seed"] == 5
    assert spec["training"]["precision"] == "fp32"
    assert spec["training"]["batch_size"] == 8
    assert Cascade.from_pretrained("a folder").spec.seed == 5
    quoted = invoke("build", spec_file(lone), "-o", "a folder", "--fresh", "-q").stdout
    assert quoted.splitlines()[-1] == "next: cascadezoo sample 'a folder'"


def test_spec_on_standard_input(invoke, lone):
    result = invoke("build", "-", "-q", "-o", "out", stdin=json.dumps(lone))
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("built out in ")


@pytest.mark.slow
def test_shipped_tiny_spec_from_build_to_samples(invoke, tmp_path):
    result = invoke("build", TINY, "--json")
    assert result.exit_code == 0, result.stderr
    (kid, speed) = json.loads(result.stdout)["figures"]
    assert kid["name"].startswith("kid.small")
    assert speed["unit"] == "images/s"
    assert invoke("sample", f"runs/{TINY}", "--stages", "-n", 2, "-q").exit_code == 0
    assert invoke("publish", f"runs/{TINY}", "./shelf").exit_code == 0
    assert invoke("pull", "./shelf", "--to", "mine").exit_code == 0
    assert invoke("sample", "mine", "-q", "-o", "x.npz").exit_code == 0


def test_a_folder_with_another_spec_is_refused(invoke, lone, spec_file):
    assert invoke("build", spec_file(lone), "-q").exit_code == 0
    result = invoke("build", spec_file(lone), "-q", "--set", "training.batch_size=8")
    assert result.exit_code == 2
    check_failed(result, "run-folder-other-spec", name="lone", shown="--fresh")


REFUSED = {
    "resume of nothing": (
        ["--resume"],
        {"code": "run-folder-nothing-to-resume", "path": "runs/lone"},
        "--resume",
    ),
    "an output inside a file": (
        ["-o", "file/run"],
        {"code": "run-folder-not-writable", "path": "file/run"},
        "-o DIR",
    ),
    "an output without permission": (
        ["-o", "/proc/nobody/run"],
        {"code": "run-folder-not-writable", "path": "/proc/nobody/run"},
        "-o DIR",
    ),
    "an output that contains something else": (
        ["-o", "thesis"],
        {"code": "run-folder-not-a-run", "path": "thesis"},
        "-o DIR",
    ),
    "an unknown device": (
        ["--device", "cuda:63"],
        {"code": "input-device-missing", "name": "cuda:63"},
        "cpu",
    ),
    "a precision that the device lacks": (
        ["--precision", "fp16", "--device", "cpu"],
        {"code": "input-fp16-needs-cuda", "name": "cpu"},
        "bf16",
    ),
    "a missing data file": (
        [
            "--set",
            'data={"source": "npz", "config": {"path": "no.npz"}, "size": 8, '
            '"channels": 3, "num_classes": 8}',
        ],
        {"code": "data-no-file", "path": "no.npz"},
        "",
    ),
    "a setting of an unknown stage": (
        ["--set", "stages.up.config.x=1"],
        {"code": "input-setting-no-item", "setting": "stages.up.config.x=1"},
        "'coarse'",
    ),
    "a revision to publish to": (
        ["--set", "publish.to=org/name@v1"],
        {"code": "reference-revision-in-dest", "name": "org/name@v1"},
        "org/name",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_errors_are_reported_before_training(case, invoke, lone, spec_file, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years")
    args, error, hint = REFUSED[case]
    result = invoke("build", spec_file(lone), "-q", *args)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    check_failed(result, **error)
    assert hint in result.stderr.partition("Hint: ")[2]
    assert not list(tmp_path.rglob("*.safetensors"))
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


@pytest.mark.slow
def test_full_disk_is_an_error_with_a_hint(lone, spec_file, tmp_path):
    """A file size limit replaces the full disk: writing also fails with an OSError."""
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import torch\n"
        "from cascadezoo.cli.main import main\n"
        "import cascadezoo.build.build\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "main(sys.argv[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "build", str(spec_file(lone)), "-q", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert error["code"] == "checkpoint-not-writable"
    assert error["hint"]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_interrupt_exits_with_130_and_the_command_to_resume(
    invoke, lone, spec_file, tmp_path, warm_python
):
    lone["training"]["phases"][0]["steps"] = 600
    process = subprocess.Popen(
        [warm_python, "-m", "cascadezoo", "build", str(spec_file(lone)), "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "phase 1/1" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    error = json.loads(err.splitlines()[-1])["error"]
    assert error["code"].startswith("interrupted")
    assert error["fields"]["reason"] == "SIGINT"
    _, _, command = error["hint"].partition("cascadezoo ")
    result = invoke(*shlex.split(command), "-q", "--resume")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("built runs/lone in ")

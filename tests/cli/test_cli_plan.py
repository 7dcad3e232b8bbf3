from __future__ import annotations

import json

import pytest
from errors_help import check_failed

HUGE = "stages.coarse.config.channels=1000000000"


def test_shows_stages_phases_and_memory(invoke):
    result = invoke("plan", "shapes-demo")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("shapes-demo: ")
    assert [line.split()[0] for line in lines[3:6]] == ["coarse", "up", "refine"]
    assert "noise -> 3x16x16" in lines[3]
    assert "3x16x16 -> 3x32x32" in lines[4]
    assert "\nPHASE" in result.stdout
    assert "\nmemory: about " in result.stdout


def test_json_agrees_with_the_cascade(invoke):
    from cascadezoo import Cascade

    result = json.loads(invoke("plan", "shapes-demo", "--json").stdout)
    cascade = Cascade.from_spec("shapes-demo", device="meta")
    assert result["parameters"] == sum(p.numel() for p in cascade.parameters())
    assert [row["name"] for row in result["stages"]] == cascade.names
    assert sum(row["parameters"] for row in result["stages"]) == result["parameters"]
    assert result["available_bytes"] > 2**20


def test_warns_about_a_schedule_that_does_not_end_in_noise(invoke):
    result = invoke("plan", "paper-baseline")
    assert "warning: coarse (diffusion.v1): " in result.stdout
    assert "78 %" in result.stdout
    assert "78 %" not in invoke("plan", "paper-baseline-fixed").stdout


@pytest.mark.parametrize("command", [("plan",), ("build", "--dry-run"), ("build",)])
def test_a_thousand_million_channels_are_refused(command, invoke, lone, spec_file, tmp_path):
    path = spec_file(lone)
    out = ["-o", tmp_path / "run"] if command[0] == "build" else []
    result = invoke(*command, path, "--set", HUGE, *out)
    assert result.exit_code == 2
    check_failed(result, "resources-tensor-too-large", shown="'coarse' (flow.v1)")
    assert not (tmp_path / "run").exists()


def test_too_large_a_cascade_is_shown_and_refused(invoke, lone, spec_file):
    result = invoke("plan", spec_file(lone), "--set", "stages.coarse.config.channels=100000")
    assert result.exit_code == 2
    assert result.stdout.startswith("lone: 2.")
    assert " T parameters\n" in result.stdout
    check_failed(result, "resources-training", shown="GiB")
    as_json = invoke(
        "plan", spec_file(lone), "--set", "stages.coarse.config.channels=100000", "--json"
    )
    assert json.loads(as_json.stdout)["parameters"] > 2e12
    assert json.loads(as_json.stderr)["error"]["code"] == "resources-training"


@pytest.mark.parametrize(
    ("device", "code"),
    [("cuda:63", "missing"), ("tpu", "unknown"), ("meta", "unsupported"), ("\x1b[1m", "unknown")],
)
def test_unknown_devices(device, code, invoke, lone, spec_file):
    result = invoke("plan", spec_file(lone), "--device", device)
    assert result.exit_code == 2
    check_failed(result, f"input-device-{code}")
    assert "\nHint: " in result.stderr
    assert "\x1b" not in result.stderr


def test_dry_run_prints_the_plan_and_writes_nothing(invoke, lone, spec_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = spec_file(lone)
    plan = invoke("plan", path, "--set", "seed=3").stdout
    result = invoke("build", path, "--dry-run", "--seed", "3", "--precision", "bf16")
    assert (result.exit_code, result.stdout) == (0, plan)
    assert [p.name for p in tmp_path.iterdir()] == ["spec.json"]

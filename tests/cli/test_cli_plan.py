from __future__ import annotations

import json

import pytest
from errors_help import check_failed

from cascadezoo.util.numbers import human_count

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


def test_steps_for_a_number_of_flops(invoke, lone, spec_file):
    path = spec_file(lone)
    result = json.loads(invoke("plan", path, "--match-flops", "1e10", "--json").stdout)
    assert result["training_flops"] == pytest.approx(1e10, rel=0.02)
    settings = [word for row in result["settings"] for word in ("--set", row)]
    shown = invoke("plan", path, *settings).stdout
    assert f"\ntraining: {human_count(result['training_flops'])} FLOPs\n" in shown
    check_failed(invoke("plan", path, "--match-flops", "nan"), "usage", shown="nan")
    check_failed(invoke("plan", path, "--match-flops", "1"), "input-match-flops-unreachable")


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


def test_names_the_settings_that_fit_on_several_devices(invoke, lone, spec_file):
    path = spec_file(lone)
    wide = ("--set", "training.batch_size=512", "--set", "stages.coarse.config.channels=32")
    free = json.loads(
        invoke("plan", path, *wide, "--devices", "2", "--memory", "8", "--json").stdout
    )
    assert free["devices"]["settings"] == []
    assert free["devices"]["images"] == 256
    per_image = free["devices"]["activation_bytes"] // 256
    # Room for the weights and a tenth of the activations.
    room = (free["devices"]["state_bytes"] + 26 * per_image) / 0.9 / 2**30
    small = ("--devices", "2", "--memory", f"{room:.9f}")
    result = invoke("plan", path, *wide, *small)
    assert result.exit_code == 0, result.stderr
    assert "settings: --set training.accumulate=16\n" in result.stdout
    assert "available" not in result.stdout
    planned = json.loads(invoke("plan", path, *wide, *small, "--json").stdout)["devices"]
    assert planned["images"] == 16
    assert planned["bytes"] <= 0.9 * planned["memory_bytes"]
    # With its own advice the spec fits as it is.
    again = invoke("plan", path, *wide, "--set", planned["settings"][0], *small)
    assert "settings: none needed" in again.stdout


def test_too_little_memory_on_all_devices_is_refused(invoke, lone, spec_file):
    path = spec_file(lone)
    result = invoke("plan", path, "--devices", "2", "--memory", "0.0001")
    assert result.exit_code == 2
    check_failed(result, "resources-devices", shown="on 2 devices of 0.0 GiB")
    uneven = invoke("plan", path, "--devices", "7")
    assert uneven.exit_code == 2
    check_failed(uneven, "data-batch-uneven", shown="7 devices")


@pytest.mark.parametrize("memory", ["nan", "0", "inf", "much"])
def test_a_memory_that_is_no_number_of_gib_is_refused(invoke, memory):
    result = invoke("plan", "shapes-demo", "--memory", memory)
    assert result.exit_code == 2
    check_failed(result, "usage", shown="--memory")


def test_imagenet_fits_on_eight_devices_of_80_gib(invoke):
    result = invoke("plan", "imagenet256-cdm", "--devices", "8", "--memory", "80", "--json")
    assert result.exit_code == 0, result.stderr
    devices = json.loads(result.stdout)["devices"]
    assert devices["bytes"] < 80 * 2**30
    assert devices["settings"] == ["training.accumulate=16"]

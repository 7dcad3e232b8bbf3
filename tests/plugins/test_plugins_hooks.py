"""Each hook works as documented: commands with a plugin that implements all hooks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from all_hooks import build, recorded, spec
from plugin_sites import cascadezoo, install

from cascadezoo.train.engine import pick_precision


def test_a_build_uses_every_type_of_entry(tmp_path: Path, here: Path) -> None:
    done = build(tmp_path, spec())
    assert done.exit_code == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "model" / "metrics.json").read_text())
    figures = {row["name"]: row for row in metrics["figures"]}
    figure = figures["all-metric.all-features.n16"]
    assert (figure["std"], figure["unit"], figure["metric"]) == (0.5, "dB", "all-metric")
    assert -1 <= figure["value"] <= 1
    assert "subsets" not in figure
    assert figures["kid.all-features.n16"]["subset_size"] == 8
    assert "all-metric" in (tmp_path / "run" / "model" / "README.md").read_text()
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert "cascadezoo-all>=1.0" in config["spec"]["requires"]
    events = [json.loads(r) for r in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert any("refine.all-loss" in row.get("losses", {}) for row in events)
    assert recorded(tmp_path) == [
        f"run all cpu {pick_precision('auto', torch.device('cpu'))} 0",
        "phase one 0 start 0 5",
        "step 2 2 ['coarse.velocity'] ['coarse']",
        "step 4 4 ['coarse.velocity'] ['coarse']",
        "epoch 1 4 True",
        "step 5 5 ['coarse.velocity'] ['coarse']",
        "epoch 2 5 False",
        "phase one 0 end 5 5",
        "phase two 1 start 5 4",
        "step 7 2 ['refine.all-loss', 'refine.mse'] ['refine']",
        "step 9 4 ['refine.all-loss', 'refine.mse'] ['refine']",
        "epoch 1 9 True",
        "phase two 1 end 9 4",
        "figure all-metric.all-features.n16 None None",
        "figure kid.all-features.n16 None None",
        "figure images-per-second.n16 None None",
        "close",
    ]


def test_a_spec_is_validated_by_the_configs_of_plugins(tmp_path: Path, all_site: Path) -> None:
    data = spec(nonsense=1)
    data["training"]["callbacks"].append({"kind": "no-such-tracker"})
    data["data"]["config"] = {"level": "high"}
    data["training"]["losses"][0]["config"] = {"power": None}
    data["evaluation"]["metrics"] = ["no-such-metric"]
    data["evaluation"]["extractor"] = "all-feature"
    path = tmp_path / "all.json"
    path.write_text(json.dumps(data))
    done = cascadezoo("validate", path, "--json", site=all_site)
    rows = {row["path"]: row for row in json.loads(done.stderr)["error"]["problems"]}
    assert set(rows) == {
        "data.config.level",
        "evaluation.extractor",
        "evaluation.metrics.0",
        "training.callbacks.0.config.nonsense",
        "training.callbacks.1.kind",
        "training.losses.0.config.power",
    }
    assert rows["training.callbacks.1.kind"]["code"] == "lookup"
    assert "'no-such-tracker'" in rows["training.callbacks.1.kind"]["message"]
    assert "'all-features'" in rows["evaluation.extractor"]["hint"]


def test_the_schema_includes_the_configs_of_plugins(all_site: Path) -> None:
    import jsonschema

    schema = json.loads(cascadezoo("schema", site=all_site).stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    valid = jsonschema.Draft202012Validator(schema)
    assert not list(valid.iter_errors(spec(fail="step")))
    assert list(valid.iter_errors(spec(fail=3)))
    bare = json.loads(cascadezoo("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(bare)


def test_a_zoo_is_listed(all_site: Path) -> None:
    rows = json.loads(cascadezoo("zoo", "list", "all*", "--json", site=all_site).stdout)
    assert [row["name"] for row in rows] == ["all-model"]


def test_a_command(all_site: Path) -> None:
    shown = cascadezoo("--help", site=all_site).stdout
    assert "Commands of plugins" in shown
    assert "all-command  prints a word (cascadezoo-all)" in shown
    assert cascadezoo("all-command", "hello", site=all_site).stdout == "hello, and torch is False\n"
    assert "Print a word." in cascadezoo("all-command", "--help", site=all_site).stdout
    wrong = cascadezoo("all-comand", site=all_site)
    assert wrong.returncode == 2
    assert "'all-command'" in wrong.stderr
    assert "'build'" in cascadezoo("biuld", site=all_site).stderr


def test_faulty_commands(tmp_path: Path) -> None:
    site = install(
        tmp_path / "site",
        "cascadezoo-bad",
        "1.0",
        {
            "__init__.py": "from cascadezoo import CommandEntry, hookimpl\n\n@hookimpl\n"
            "def register_commands():\n"
            "    yield CommandEntry(name='none', summary='s', impl='cascadezoo_bad.c:x')\n"
            "    yield CommandEntry(name='gone', summary='\\x1b[31m red', impl='cascadezoo_bad.d:x')\n"
            "    yield CommandEntry(name='build', summary='mine', impl='cascadezoo_bad.c:x')\n",
            "c.py": "x = 3\n",
        },
    )
    for name, code in {"none": "plugin-not-a-command", "gone": "plugin-import-failed"}.items():
        done = cascadezoo(name, "--json", site=site)
        assert done.returncode == 1
        error = json.loads(done.stderr)["error"]
        assert (error["code"], error["fields"]["name"]) == (code, name)
    shown = cascadezoo("--help", site=site)
    assert shown.returncode == 0
    assert "\x1b" not in shown.stdout
    assert "mine" not in shown.stdout
    assert "Usage: cascadezoo build" in cascadezoo("build", "--help", site=site).stdout
    (row,) = json.loads(cascadezoo("plugins", "list", "--json", site=site).stdout)
    problems = {problem["code"]: problem for problem in row["problems"]}
    assert set(problems) == {"command-reserved", "config-unusable"}
    assert "'build'" in problems["command-reserved"]["message"]
    assert problems["command-reserved"]["where"].endswith("cascadezoo_bad/__init__.py:3")
    assert "cascadezoo_bad.d" in problems["config-unusable"]["message"]


@pytest.mark.slow
def test_every_hook_passes_its_checks(tmp_path: Path, all_site: Path, warm_python: str) -> None:
    line = ("plugins", "check", "all", "--skip", "compile", "--skip", "processes")
    done = cascadezoo(*line, site=all_site, python=warm_python)
    results = [line for line in done.stdout.splitlines() if line[:2] == "  "]
    # Parts of this plugin have no docstrings.
    failed = [line for line in results if line.startswith("  failed")]
    assert all(line.split()[1].startswith("docs") for line in failed), done.stdout
    assert len(results) > 30
    for name in ("data", "measure", "loss", "features", "manifest", "command", "callback"):
        assert f"  ok      {name}\n" in done.stdout

"""Each hook does what its documentation says: a plugin with all of them, used from outside."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from plugin_sites import CONFIG, STAGE, cascadezoo, install

from cascadezoo.cli.main import main
from cascadezoo.plugins import get_host

ENTRY = """
from cascadezoo import (
    CallbackEntry, CommandEntry, DataEntry, FeatureEntry, LossEntry, MetricEntry, StageEntry,
    ZooEntry, hookimpl,
)

CASCADEZOO_API = 1
P = "cascadezoo_all"

@hookimpl
def register_stages():
    return [StageEntry(name="all.v1", role="refiner", summary="s", impl=f"{P}.stage:S", config=f"{P}.config:C")]

@hookimpl
def register_datasets():
    return [DataEntry(name="all-data", summary="s", impl=f"{P}.parts:data", config=f"{P}.config:Data")]

@hookimpl
def register_losses():
    yield LossEntry(name="all-loss", summary="s", impl=f"{P}.parts:Loss", config=f"{P}.config:Loss")

@hookimpl
def register_metrics():
    return [MetricEntry(name="all-metric", summary="s", impl=f"{P}.parts:metric")]

@hookimpl
def register_features():
    return [FeatureEntry(name="all-features", summary="s", impl=f"{P}.parts:features")]

@hookimpl
def register_zoos():
    return [ZooEntry(name="all-zoo", summary="s", impl=f"{P}.zoo:load")]

@hookimpl
def register_commands():
    return [CommandEntry(name="all-command", summary="says what it is told", impl=f"{P}.command:say")]

@hookimpl
def register_callbacks():
    return [CallbackEntry(name="all-callback", summary="s", impl=f"{P}.tracker:Tracker", config=f"{P}.config:Tracker")]
"""

CONFIGS = (
    CONFIG.replace("import RefinerConfig", "import DataConfig, DataInfo, Model, RefinerConfig")
    + '''
class Data(DataConfig):
    """Grey levels."""
    level: int = 100
    """How bright."""

    def info(self):
        return DataInfo(size=8, channels=1, num_classes=2, class_names=("dark", "bright"))

class Loss(Model):
    """A loss."""
    power: int = 2
    """Of the difference."""

class Tracker(Model):
    """A tracker."""
    fail: str = ""
    """Where it fails."""
'''
)

PARTS = """
import numpy as np
import torch
from cascadezoo import FeatureExtractor, ImageData, Measured

def data(config, split):
    images = np.full((32, 1, 8, 8), config.level, np.uint8)
    images[::2] //= 2
    if split == "test":
        images += 1
    return ImageData(images, np.arange(32) % 2, split)

class Loss(torch.nn.Module):
    def __init__(self, config, shape):
        super().__init__()
        self.power = config.power
        self.shape = shape

    def forward(self, estimate, target):
        return (estimate - target).abs().pow(self.power).mean()

def metric(config, features):
    return Measured(float(features.generated.mean() - features.real.mean()), std=0.5, unit="dB")

class Features(FeatureExtractor):
    name, version, sha256, num_features, input_size = "all-features", "v1", "0" * 64, 3, 8

    def features(self, images):
        return images.float().mean(dim=(2, 3)) / 255

def features(config, device):
    found = Features()
    found.device = device
    return found
"""

ZOO = """
def load():
    return {"version": 1, "models": [{
        "name": "all-model", "repo": "org/all-model", "commit": "0" * 40, "spec_digest": "0" * 64,
        "files": {"config.json": {"sha256": "0" * 64, "size": 1}}, "size": 8, "parameters": 1,
        "data": "all-data", "license": "mit",
    }]}
"""

COMMAND = '''
import sys
import click

@click.command()
@click.argument("word")
def say(word):
    """Say a word."""
    click.echo(f"{word}, and torch is {'torch' in sys.modules}")
'''

TRACKER = '''
from cascadezoo import Callback

class Tracker(Callback):
    """Writes down what it is told."""

    def __init__(self, config, run):
        super().__init__(config, run)
        self.told("run", f"{run.name} {run.device} {run.precision} {run.spec['seed']}")

    def on_phase(self, event):
        self.told("phase", f"{event.phase} {event.index} {event.state} {event.step} {event.steps}")

    def on_step(self, event):
        self.told("step", f"{event.step} {event.phase_step} {sorted(event.losses)} {sorted(event.lr)}")

    def on_epoch(self, event):
        self.told("epoch", f"{event.epoch} {event.step} {event.whole}")

    def on_figure(self, event):
        self.told("figure", f"{event.figure['name']} {event.phase} {event.step}")

    def close(self):
        self.told("close", "")

    def told(self, what, line):
        with (self.run.folder / "told.txt").open("a") as file:
            file.write(f"{what} {line}".rstrip() + "\\n")
        if self.config.fail == what:
            raise RuntimeError(f"no more {what}")
'''

FILES = {
    "__init__.py": ENTRY,
    "config.py": CONFIGS,
    "stage.py": STAGE,
    "parts.py": PARTS,
    "zoo.py": ZOO,
    "command.py": COMMAND,
    "tracker.py": TRACKER,
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("all") / "site", "cascadezoo-all", "1.0", FILES)


@pytest.fixture
def here(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The plugin is installed in this process, which has imported torch already."""
    monkeypatch.syspath_prepend(str(site))
    get_host.cache_clear()
    yield site
    get_host.cache_clear()
    for name in [name for name in sys.modules if name.startswith("cascadezoo_all")]:
        del sys.modules[name]


def spec(**callback: Any) -> dict[str, Any]:
    return {
        "name": "all",
        "data": {"source": "all-data", "config": {"level": 200}},
        "stages": [
            {"name": "coarse", "kind": "flow.v1", "config": {"channels": 8, "steps": 2}},
            {"name": "refine", "kind": "all.v1"},
        ],
        "training": {
            "batch_size": 8,
            "log_steps": 2,
            "losses": [{"kind": "all-loss", "stage": "refine", "config": {"power": 1}}],
            "callbacks": [{"kind": "all-callback", "config": callback}],
            "phases": [
                {"name": "one", "train": ["coarse"], "steps": 5},
                {"name": "two", "train": ["refine"], "epochs": 1},
            ],
        },
        "evaluation": {
            "metrics": ["all-metric", "kid"],
            "extractor": "all-features",
            "samples": 16,
            "subset_size": 8,
            "subsets": 3,
        },
    }


def build(folder: Path, data: dict[str, Any], *more: str) -> Result:
    folder.mkdir(exist_ok=True)
    path = folder / "all.json"
    path.write_text(json.dumps(data))
    line = ["build", str(path), "-o", str(folder / "run"), "--quiet", *more]
    return CliRunner().invoke(main, line, prog_name="cascadezoo")


def told(tmp_path: Path) -> list[str]:
    return (tmp_path / "run" / "told.txt").read_text().splitlines()


def test_a_build_uses_every_sort(tmp_path: Path, here: Path) -> None:
    done = build(tmp_path, spec())
    assert done.exit_code == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "model" / "metrics.json").read_text())
    figures = {row["name"]: row for row in metrics["figures"]}
    ours = figures["all-metric.all-features.n16"]
    assert (ours["std"], ours["unit"], ours["metric"]) == (0.5, "dB", "all-metric")
    assert -1 <= ours["value"] <= 1
    assert "subsets" not in ours
    assert figures["kid.all-features.n16"]["subset_size"] == 8
    assert "all-metric" in (tmp_path / "run" / "model" / "README.md").read_text()
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert "cascadezoo-all>=1.0" in config["spec"]["requires"]
    events = [json.loads(r) for r in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert any("refine.all-loss" in row.get("losses", {}) for row in events)
    assert told(tmp_path) == [
        "run all cpu fp32 0",
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


def test_callbacks_change_nothing_of_what_is_trained(tmp_path: Path, here: Path) -> None:
    with_one, without = tmp_path / "with", tmp_path / "without"
    plain = spec()
    plain["training"]["callbacks"] = []
    for folder, data in ((with_one, spec()), (without, plain)):
        assert build(folder, data).exit_code == 0
    for name in ("coarse", "refine"):
        place = Path("run", "model", "stages", name, "model.safetensors")
        assert (with_one / place).read_bytes() == (without / place).read_bytes()
    runs = [json.loads((f / "run" / "run.json").read_text()) for f in (with_one, without)]
    assert runs[0]["training_digest"] == runs[1]["training_digest"]


@pytest.mark.parametrize("where", ["step", "epoch", "phase"])
def test_a_callback_that_fails_ends_the_build_after_a_checkpoint(
    where: str, tmp_path: Path, here: Path
) -> None:
    done = build(tmp_path, spec(fail=where))
    assert done.exit_code == 1
    assert (
        f"callback 'all-callback' failed in on_{where}: RuntimeError: no more {where}"
        in done.stderr
    )
    assert "tracker.py:" in done.stderr
    assert "--set 'training.callbacks=[]'" in done.stderr
    assert told(tmp_path)[-1] == "close"
    assert sum(line.startswith(where) for line in told(tmp_path)) == 1  # not told again
    kept = list((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert bool(kept) == (where != "phase")  # a phase that starts has trained nothing yet
    again = build(tmp_path, spec(fail=where), "--set", "training.callbacks=[]")
    assert again.exit_code == 0, again.stderr
    # The same weights as one that was never stopped.
    straight = tmp_path / "straight"
    assert build(straight, spec()).exit_code == 0
    place = Path("run", "model", "stages", "refine", "model.safetensors")
    assert (tmp_path / place).read_bytes() == (straight / place).read_bytes()


@pytest.mark.parametrize("where", ["run", "figure", "close"])
def test_a_callback_that_fails_outside_of_the_training(
    where: str, tmp_path: Path, here: Path
) -> None:
    done = build(tmp_path, spec(fail=where))
    assert done.exit_code == 1
    assert f"RuntimeError: no more {where}" in done.stderr
    made = (tmp_path / "run" / "model" / "config.json").is_file()
    assert made == (where != "run")
    if where == "run":
        assert "failed to start" in done.stderr
        assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_spec_is_held_to_the_plugins_configs(tmp_path: Path, site: Path) -> None:
    data = spec(nonsense=1)
    data["training"]["callbacks"].append({"kind": "no-such-tracker"})
    data["data"]["config"] = {"level": "high"}
    data["training"]["losses"][0]["config"] = {"power": None}
    data["evaluation"]["metrics"] = ["no-such-metric"]
    data["evaluation"]["extractor"] = "all-feature"
    path = tmp_path / "all.json"
    path.write_text(json.dumps(data))
    done = cascadezoo("validate", path, "--json", site=site)
    rows = {row["path"]: row for row in json.loads(done.stderr)["error"]["problems"]}
    assert set(rows) == {
        "data.config.level",
        "evaluation.extractor",
        "evaluation.metrics.0",
        "training.callbacks.0.config.nonsense",
        "training.callbacks.1.kind",
        "training.losses.0.config.power",
    }
    assert rows["training.callbacks.1.kind"]["message"] == "there is no callback 'no-such-tracker'"
    assert "did you mean 'all-features'" in rows["evaluation.extractor"]["hint"]


def test_the_schema_knows_them(site: Path) -> None:
    import jsonschema

    schema = json.loads(cascadezoo("schema", site=site).stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    valid = jsonschema.Draft202012Validator(schema)
    assert not list(valid.iter_errors(spec(fail="step")))
    assert list(valid.iter_errors(spec(fail=3)))
    bare = json.loads(cascadezoo("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(bare)


def test_a_zoo_is_listed(site: Path) -> None:
    rows = json.loads(cascadezoo("zoo", "list", "all*", "--json", site=site).stdout)
    assert [row["name"] for row in rows] == ["all-model"]


def test_a_command(site: Path) -> None:
    shown = cascadezoo("--help", site=site).stdout
    assert "Commands of plugins" in shown
    assert "all-command  says what it is told (cascadezoo-all)" in shown
    assert cascadezoo("all-command", "hello", site=site).stdout == "hello, and torch is False\n"
    assert "Say a word." in cascadezoo("all-command", "--help", site=site).stdout
    wrong = cascadezoo("all-comand", site=site)
    assert wrong.returncode == 2
    assert "did you mean 'all-command'" in wrong.stderr
    assert "did you mean 'build'" in cascadezoo("biuld", site=site).stderr


def test_a_command_that_is_none(tmp_path: Path) -> None:
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
    assert "is not a click.Command" in cascadezoo("none", site=site).stderr
    gone = cascadezoo("gone", site=site)
    assert gone.returncode == 1
    assert "command 'gone' cannot be imported from cascadezoo_bad.d:x" in gone.stderr
    shown = cascadezoo("--help", site=site)
    assert shown.returncode == 0
    assert "\x1b" not in shown.stdout
    assert "mine" not in shown.stdout
    assert "Usage: cascadezoo build" in cascadezoo("build", "--help", site=site).stdout
    listed = cascadezoo("plugins", "list", site=site).stdout
    assert "command 'build' is one of cascadezoo's own, which no plugin replaces" in listed
    assert "cascadezoo_bad/__init__.py:3" in listed
    assert "cascadezoo_bad.d, which is not there" in listed


def test_every_hook_passes_its_checks(tmp_path: Path, site: Path) -> None:
    done = cascadezoo("plugins", "check", "all", "--skip", "compile", site=site)
    found = [line.split(maxsplit=1)[0] for line in done.stdout.splitlines() if line[:2] == "  "]
    # The plugin of this test documents its parts poorly, and is told so.
    bad = [line for line in done.stdout.splitlines() if line.startswith("  failed")]
    assert all(line.split()[1].startswith("docs") for line in bad), done.stdout
    assert len(found) > 30
    for name in ("data", "measure", "loss", "features", "manifest", "command", "callback"):
        assert f"  ok      {name}\n" in done.stdout

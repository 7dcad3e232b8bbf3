"""Config modules of datasets import nothing heavy; entries load."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from cascadezoo.data.folder import FolderConfig
from cascadezoo.data.npz import NpzConfig
from cascadezoo.data.shapes import ShapesConfig
from cascadezoo.plugins.builtin import register_datasets
from cascadezoo.spec.configs import DataConfig

HEAVY = ("torch", "torchvision", "numpy", "PIL", "timm", "filelock")


def test_configs_import_nothing_heavy():
    code = (
        "import json, sys\n"
        "from cascadezoo.plugins.builtin import register_datasets\n"
        "infos = [e.load_config() for e in register_datasets()]\n"
        "names = {'shapes': {}, 'fashion-tiny': {}, 'cifar10': {}, 'mnist': {},"
        " 'fashion-mnist': {}}\n"
        "for e in register_datasets():\n"
        "    if e.name in names: e.load_config()(**names[e.name]).info()\n"
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("entry", register_datasets(), ids=lambda entry: entry.name)
def test_entries_lead_to_config_and_loader(entry):
    config = entry.load_config()
    assert issubclass(config, DataConfig)
    assert callable(entry.load())
    for name, field in config.model_json_schema().get("properties", {}).items():
        assert field.get("description"), f"{config.__name__}.{name} has no description"


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        (ShapesConfig, {"size": 4}),
        (ShapesConfig, {"count": 0}),
        (ShapesConfig, {"count": 8.0}),
        (ShapesConfig, {"classes": 13}),
        (ShapesConfig, {"rotation": 181.0}),
        (ShapesConfig, {"rotation": float("nan")}),
        (ShapesConfig, {"min_width": 0.8, "max_width": 0.5}),
        (ShapesConfig, {"background": "black"}),
        (ShapesConfig, {"colour": "red"}),
        (NpzConfig, {}),
        (NpzConfig, {"path": ""}),
        (NpzConfig, {"path": "a.npz", "limit": 0}),
        (NpzConfig, {"path": "a.npz", "holdout": 1.0}),
        (FolderConfig, {"path": "a", "channels": 4}),
        (FolderConfig, {"path": "a", "test_path": "b", "holdout": 0.1}),
    ],
)
def test_bounds_of_configs(config, keys):
    with pytest.raises(ValidationError):
        config(**keys)


def test_assets_are_small_and_carry_their_notice():
    assets = Path(__file__).parents[2] / "cascadezoo" / "data" / "assets"
    assert sum(file.stat().st_size for file in assets.iterdir()) < 800_000
    notice = (assets / "FASHION-MNIST-NOTICE.txt").read_text(encoding="utf-8")
    assert "Copyright (c) 2017 Zalando SE" in notice
    assert "above copyright notice and this permission notice shall be included" in notice

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cascadezoo import __version__
from cascadezoo.cli.doctor import WEIGHTS
from cascadezoo.evaluate.features.inception import WEIGHTS_FILE


@pytest.fixture
def checks(invoke, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("CASCADEZOO_DATA", str(tmp_path / "data"))

    def look():
        result = invoke("doctor", "--json")
        assert result.exit_code == 0, result.output
        data = json.loads(result.stdout)
        assert data["ok"] is True
        return {(row["part"], row["name"]): row["text"] for row in data["checks"]}

    return look


def test_looks_at_packages_devices_and_folders(checks, tmp_path):
    import torch

    texts = checks()
    assert texts["packages", "cascadezoo"] == __version__
    assert texts["packages", "torch"] == torch.__version__.partition("+")[0]
    assert texts["packages", "torchvision operators"] == "load"
    assert "CPUs" in texts["devices", "cpu"]
    assert "available of" in texts["devices", "cpu"]
    cuda = torch.cuda.device_count()
    assert (("devices", "cuda:0") in texts) == (cuda > 0)
    assert str(tmp_path / "torch") in texts["folders", "TORCH_HOME"]
    assert str(tmp_path / "data") in texts["folders", "CASCADEZOO_DATA"]
    assert texts["plugins", "cascadezoo:builtin"].endswith("loaded")


def test_reports_downloaded_feature_weights(checks, tmp_path):
    assert WEIGHTS["inception"][0] == WEIGHTS_FILE
    before = checks()
    assert before["weights", "vgg16"] != before["weights", "inception"]
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "vgg16-397923af.pth").write_bytes(b"x" * 2048)
    after = checks()
    assert "2.0 KiB" in after["weights", "vgg16"]
    assert after["weights", "inception"] == before["weights", "inception"]


def test_backbone_names_are_those_of_torchvision():
    from torchvision import models

    for name, weights in {
        "vgg16": models.VGG16_Weights,
        "alexnet": models.AlexNet_Weights,
        "squeezenet": models.SqueezeNet1_1_Weights,
    }.items():
        assert weights.IMAGENET1K_V1.url.endswith("/" + WEIGHTS[name][0])


def test_text_is_a_table(invoke):
    result = invoke("doctor")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["STATE", "PART", "NAME", "RESULT"]
    assert all(line.startswith("ok ") for line in lines[1:])


def doctor(site):
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from cascadezoo.cli.main import main\nmain(['doctor', '--json'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout)


def test_missing_and_outdated_packages_are_a_failure(tmp_path):
    info = tmp_path / f"cascadezoo-{__version__}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: cascadezoo\nVersion: {__version__}\n"
        "Requires-Dist: no-such-package>=1\nRequires-Dist: click>=999\n"
        'Requires-Dist: also-not-there; extra == "dev"\n'
    )
    (info / "entry_points.txt").write_text("[cascadezoo]\nbuiltin = cascadezoo.plugins.builtin\n")
    code, data = doctor(tmp_path)
    assert (code, data["ok"]) == (1, False)
    broken = {row["name"]: row for row in data["checks"] if not row["ok"]}
    assert set(broken) == {"no-such-package", "click"}
    assert broken["no-such-package"]["hint"] == "pip install 'no-such-package>=1'"
    assert broken["click"]["hint"] == "pip install --upgrade 'click>=999'"


def test_torchvision_of_another_build_is_a_failure(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    code, data = doctor(tmp_path)
    assert code == 1
    (broken,) = [row for row in data["checks"] if not row["ok"]]
    assert "torchvision::nms does not exist" in broken["text"]
    assert "torch torchvision" in broken["hint"]


@pytest.mark.slow
def test_broken_plugin_is_reported_without_failure(tmp_path, plugin):
    env = plugin("cascadezoo-broken", "import no_such_module\n")
    code, data = doctor(env["PYTHONPATH"])
    assert (code, data["ok"]) == (0, True)
    rows = [row["text"] for row in data["checks"] if row["name"] == "cascadezoo-broken:main"]
    assert rows[0] == "1.0, broken"
    assert "no_such_module" in rows[1]
    assert "cascadezoo_broken.py:1" in rows[1]

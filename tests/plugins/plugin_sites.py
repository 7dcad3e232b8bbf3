"""Plugins installed as pip would, for processes with PYTHONPATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

HOOK = """
from cascadezoo import StageEntry, hookimpl

@hookimpl
def register_stages():
    return [StageEntry(name="{kind}", role="refiner", summary="s", impl="{package}.stage:S", config="{package}.config:C")]
"""

CONFIG = """
from cascadezoo import RefinerConfig

class C(RefinerConfig):
    '''A config.'''
    strength: float = 0.5
"""

STAGE = """
import torch
from cascadezoo import Stage, StageInputs, StageOutput

class S(Stage):
    def __init__(self, config, geometry):
        super().__init__(config, geometry)
        self.shift = torch.nn.Parameter(torch.tensor(config.strength))

    def preprocess(self, target, upstream, context):
        return StageInputs(target, upstream)

    def forward(self, inputs):
        estimate = inputs.upstream + self.shift
        return StageOutput(estimate, {"mse": (estimate - inputs.target).square().mean()})

    def sample(self, upstream, request):
        return (upstream + self.shift).clamp(-1, 1)
"""


def install(
    site: Path, name: str, version: str, files: Mapping[str, str], point: str | None = None
) -> Path:
    """Install a distribution of one package with an entry point ``main``; replaces older versions."""
    package = name.replace("-", "_")
    for old in site.glob(f"{package}-*.dist-info"):
        shutil.rmtree(old)
    shutil.rmtree(site / package, ignore_errors=True)
    for path, text in files.items():
        file = site / package / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    info = site / f"{package}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[cascadezoo]\nmain = {point or package}\n")
    return site


def wave(kind: str = "wave.v1", name: str = "cascadezoo-wave") -> dict[str, str]:
    """The files of a plugin with one refiner."""
    package = name.replace("-", "_")
    return {
        "__init__.py": HOOK.format(kind=kind, package=package),
        "config.py": CONFIG,
        "stage.py": STAGE,
    }


def lay_out(project: Path, site: Path) -> None:
    """Install a project of ``plugins new`` without a build."""
    data = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    package = data["name"].replace("-", "_")
    shutil.copytree(project / package, site / package)
    info = site / f"{package}-{data['version']}.dist-info"
    info.mkdir()
    urls = [f"Project-URL: {label}, {url}\n" for label, url in data.get("urls", {}).items()]
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {data['name']}\nVersion: {data['version']}\n{''.join(urls)}"
    )
    points = data["entry-points"]["cascadezoo"].items()
    rows = "\n".join(f"{key} = {value}" for key, value in points)
    (info / "entry_points.txt").write_text(f"[cascadezoo]\n{rows}\n")


def environment(site: Path | None = None, **more: str) -> dict[str, str]:
    """The environment of a process with the plugins of a folder."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("CASCADEZOO_")}
    env |= {"OMP_NUM_THREADS": "1", **more}
    if site is not None:
        env["PYTHONPATH"] = str(site)
    return env


def cascadezoo(
    *args: object,
    site: Path | None = None,
    cwd: Path | None = None,
    timeout: float = 300,
    python: str = sys.executable,
    **more: str,
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a separate process; ``python`` may be one that starts fast."""
    return subprocess.run(
        [python, "-m", "cascadezoo", *map(str, args)],
        env=environment(site, **more),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )

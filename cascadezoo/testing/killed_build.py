"""A build that is killed and resumed, for the tests of plugins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cascadezoo.cascade.cascade import Cascade

__all__ = ["run"]


def run(spec: Mapping[str, Any], folder: Path, seconds: int) -> Path:
    """Build, kill, resume and compare; see :func:`cascadezoo.testing.assert_survives_kill`."""
    folder.mkdir(parents=True, exist_ok=True)
    training = {**spec.get("training", {}), "checkpoint_seconds": 0}
    file = folder / "spec.json"
    file.write_text(json.dumps({**spec, "training": training}), encoding="utf-8")
    _finish(file, folder / "whole", seconds)
    _kill(file, folder / "killed", seconds)
    _finish(file, folder / "killed", seconds)
    models = [folder / name / "model" for name in ("whole", "killed")]
    for one in sorted(models[0].glob("stages/*/*.safetensors")):
        other = models[1] / one.relative_to(models[0])
        if one.read_bytes() != other.read_bytes():
            raise AssertionError(f"{other} differs after a kill: keep state in persistent buffers")
    first, second = (Cascade.from_pretrained(model).sample(2) for model in models)
    if not torch.equal(first, second):
        raise AssertionError("samples of the resumed model differ from those of the whole build")
    return models[1]


def _start(file: Path, out: Path) -> subprocess.Popen[str]:
    path = os.pathsep.join(str(Path(part).absolute()) for part in sys.path)
    line = ["-m", "cascadezoo", "build", str(file), "-o", str(out), "--device", "cpu", "--quiet"]
    return subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, *line],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(file: Path, out: Path, seconds: int) -> None:
    with _start(file, out) as build:
        try:
            _, text = build.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            build.kill()
            raise AssertionError(f"the build takes more than {seconds} s") from None
    if build.returncode:
        raise AssertionError(f"the build ends with exit code {build.returncode}:\n{text}")


def _kill(file: Path, out: Path, seconds: int) -> None:
    """Start a build, and kill it after its first checkpoint."""
    limit = time.monotonic() + seconds
    with _start(file, out) as build:
        while build.poll() is None and time.monotonic() < limit:
            if any(out.glob("checkpoints/step-*")):
                build.kill()
                break
            time.sleep(0.01)
        build.kill()
        _, text = build.communicate()
    phases = json.loads((out / "spec.json").read_text())["training"]["phases"]
    done = [
        path for path in out.glob("checkpoints/step-*") if path.name.endswith(f"-{len(phases)}")
    ]
    if build.returncode == 0 or done:
        raise AssertionError("the training ended before it was killed: give it more steps")
    if not any(out.glob("checkpoints/step-*")):
        raise AssertionError(f"the build wrote no checkpoint:\n{text}")

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lone_spec import lone_spec

from cascadezoo.cli import errors, lazy
from cascadezoo.cli.main import main

Invoke = Callable[..., Result]
Plugin = Callable[..., dict[str, str]]


@pytest.fixture
def lone() -> dict[str, Any]:
    """A small valid spec that a test may change."""
    return lone_spec()


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run a command line in this process; ``error`` of the result is the reported error or None."""
    monkeypatch.delenv("CASCADEZOO_DEBUG", raising=False)
    reported: list[BaseException] = []

    def report(error: BaseException, *, as_json: bool) -> int:
        reported.append(error)
        return errors.report(error, as_json=as_json)

    monkeypatch.setattr(lazy, "report", report)

    def run(*args: object, stdin: str | bytes | None = None) -> Result:
        reported.clear()
        arguments = [str(a) for a in args]
        result = CliRunner().invoke(main, arguments, input=stdin, prog_name="cascadezoo")
        result.error = reported[-1] if reported else None  # type: ignore[attr-defined]
        return result

    return run


@pytest.fixture
def spec_file(tmp_path: Path) -> Callable[[Any], Path]:
    """Write a spec or any text to a file."""

    def write(content: Any, name: str = "spec.json") -> Path:
        path = tmp_path / name
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    """Install a plugin as pip would, for processes with the returned environment."""

    def install(name: str, code: str, *, version: str = "1.0") -> dict[str, str]:
        site = tmp_path / "site"
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        module = name.replace("-", "_")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[cascadezoo]\nmain = {module}\n")
        (site / f"{module}.py").write_text(code)
        return {"PYTHONPATH": str(site)}

    return install


def cascadezoo(
    *args: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a separate process."""
    return subprocess.run(
        [sys.executable, "-m", "cascadezoo", *args],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(name="cascadezoo")
def _cascadezoo() -> Callable[..., subprocess.CompletedProcess[str]]:
    return cascadezoo


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder; its images are noise that depends on labels, steps and guidance."""
    import torch

    from cascadezoo import Cascade

    cascade = Cascade.from_spec(lone_spec())
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in cascade.parameters():  # an untrained flow is zero and ignores its inputs
            weight.add_(0.2 * torch.randn(weight.shape, generator=random))
    return cascade.save_pretrained(tmp_path_factory.mktemp("lone") / "model")

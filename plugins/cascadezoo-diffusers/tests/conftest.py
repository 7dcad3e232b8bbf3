"""Makes the plugin importable if it is not installed."""

from __future__ import annotations

import sys
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _install() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    try:
        version(project["name"])
    except PackageNotFoundError:
        pass
    else:
        return
    site = Path(tempfile.mkdtemp(prefix="cascadezoo-diffusers-"))
    info = site / f"cascadezoo_diffusers-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = project["entry-points"]["cascadezoo"].items()
    rows = "\n".join(f"{name} = {target}" for name, target in points)
    (info / "entry_points.txt").write_text(f"[cascadezoo]\n{rows}\n")
    sys.path[:0] = [str(site), str(ROOT / "src")]


_install()


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Use a temporary cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CASCADEZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("CASCADEZOO_LOAD_PLUGINS", raising=False)
        yield

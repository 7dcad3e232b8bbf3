"""Built-in entries are registered by their own folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from plugin_sites import CONFIG, STAGE, environment

import cascadezoo
from cascadezoo.plugins import builtin

ENTRY = '''"""``mine.v1``."""

from cascadezoo.plugins.registry import StageEntry

ENTRIES = (
    StageEntry(
        name="mine.v1",
        role="refiner",
        summary="mine",
        config="cascadezoo.stages.mine.config:C",
        impl="cascadezoo.stages.mine.stage:S",
    ),
)
'''

LIST = """
import json, sys
from cascadezoo.plugins.manager import get_host
host = get_host()
row = host.registry.stages.rows.get("mine.v1")
print(json.dumps({
    "file": sys.modules["cascadezoo"].__file__,
    "problems": [str(p) for p in host.problems],
    "origin": row and row.origin.distribution,
    "kinds": host.registry.stages.names(),
    "heavy": sorted({"torch", "numpy", "pydantic"} & set(sys.modules)),
}))
"""


def listed(site: Path) -> dict[str, object]:
    # In the folder of the copy, which python -c puts first on the path.
    done = subprocess.run(
        [sys.executable, "-c", LIST],
        env=environment(site),
        cwd=site,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_new_folder_registers_its_stage(tmp_path: Path) -> None:
    package = Path(cascadezoo.__file__).parent
    skipped = shutil.ignore_patterns("__pycache__", "assets", "models")
    shutil.copytree(package, tmp_path / "cascadezoo", ignore=skipped)
    before = listed(tmp_path)
    folder = tmp_path / "cascadezoo" / "stages" / "mine"
    folder.mkdir()
    (folder / "__init__.py").write_text(ENTRY)
    (folder / "config.py").write_text(CONFIG)
    (folder / "stage.py").write_text(STAGE)
    after = listed(tmp_path)
    assert after["file"] == str(tmp_path / "cascadezoo" / "__init__.py")
    assert after["problems"] == before["problems"] == []
    assert after["origin"] == "cascadezoo"
    assert set(after["kinds"]) - set(before["kinds"]) == {"mine.v1"}
    assert after["heavy"] == []
    # A folder without an entry is reported.
    (folder / "__init__.py").write_text('"""``mine.v1``."""\n')
    (problem,) = listed(tmp_path)["problems"]
    assert "cascadezoo.stages.mine" in problem
    assert "ENTRIES" in problem


def test_every_folder_declares_only_its_own_kinds() -> None:
    entries = list(builtin.register_stages())
    owners = [entry.config.split(".")[2] for entry in entries]
    folders = Path(cascadezoo.__file__).parent / "stages"
    declared = sorted(f.name for f in folders.iterdir() if (f / "config.py").is_file())
    assert list(dict.fromkeys(owners)) == declared
    for entry, owner in zip(entries, owners, strict=True):
        assert entry.impl.startswith(f"cascadezoo.stages.{owner}.stage:")

"""Commands refuse a model that claims huge images, quickly and before they allocate them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = {
    "sample": ["sample", "MODEL", "-n", "1", "-q", "-o", "one.npz"],
    "folder": ["sample", "MODEL", "-n", "1", "-q", "-o", "folder/"],
    "stages": ["sample", "MODEL", "-n", "1", "--stages", "-q", "-o", "s.png"],
    "trajectory": ["sample", "MODEL", "-n", "1", "--trajectory", "-q", "-o", "t.png"],
    "report": ["report", "MODEL", "-n", "1", "-q", "-o", "page.html"],
    "grid": ["report", "MODEL", "--guidance", "1", "-n", "1", "-q", "-o", "grid.png"],
    "evaluate": ["evaluate", "MODEL", "-n", "10", "-q"],
    "tune": ["tune", "MODEL", "--over", "steps", "-n", "10", "-q"],
}
RUN = """
import atexit, re, sys
from pathlib import Path
peak = Path(sys.argv.pop(1))
atexit.register(
    lambda: peak.write_text(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
)
from cascadezoo.cli.main import main
main(prog_name="cascadezoo")
"""
ROOM = 12 << 20
"""Address space of a command in KiB; torch alone reserves several GiB."""


@pytest.mark.skipif(sys.platform != "linux", reason="needs wait4 and ulimit -v")
@pytest.mark.parametrize("size", [8192, pytest.param(65536, marks=pytest.mark.slow)])
@pytest.mark.parametrize("command", COMMANDS)
def test_huge_images_are_refused(command: str, size: int, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    config["spec"]["data"]["size"] = size
    config["spec"]["stages"][0]["config"]["size"] = size
    (folder / "config.json").write_text(json.dumps(config))
    args = [str(folder) if a == "MODEL" else a for a in COMMANDS[command]]
    peak = tmp_path / "peak"
    run = [sys.executable, "-c", RUN, str(peak), *args, "--json", "--device", "cpu"]
    errors = tmp_path / "errors"
    with errors.open("wb") as stream:
        process = subprocess.Popen(
            ["sh", "-c", f'ulimit -v {ROOM}; exec "$@"', "sh", *run],
            stdout=subprocess.DEVNULL,
            stderr=stream,
            cwd=tmp_path,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    error = json.loads(errors.read_text().splitlines()[-1])["error"]
    assert process.returncode == 2, error
    assert error["code"] == "resources-sampling", error
    assert error["fields"]["needed"] > error["fields"]["available"]
    # The peak of a child of a large process counts that process until exec, so read its own.
    assert int(peak.read_text()) * 1024 < 1 << 30
    # A loaded machine counts more CPU time; most of it are imports.
    assert usage.ru_utime + usage.ru_stime < 20
    left = {path.name for path in tmp_path.iterdir()} - {
        "model",
        "errors",
        "peak",
        "folder",
        "runs",
    }
    assert left == set()

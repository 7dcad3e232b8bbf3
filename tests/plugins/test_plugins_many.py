"""Thirty installed plugins cost little time and import only their entry-point modules."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from plugin_sites import environment, install, wave

COUNT = 30
MAX_RATIO = 1.5

COMMAND = """
from cascadezoo import CommandEntry

@hookimpl
def register_commands():
    return [CommandEntry(name="say-{number}", summary="says {number}", impl="{package}.say:say")]
"""

RUN = """
import json, sys
from cascadezoo.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print(json.dumps({"code": code, "loaded": sorted(sys.modules)}), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("many") / "site"
    for number in range(COUNT):
        name = f"cascadezoo-wave{number}"
        files = wave(f"wave{number}.v1", name)
        files["__init__.py"] += COMMAND.format(number=number, package=name.replace("-", "_"))
        install(site, name, "1.0", files)
    return site


@pytest.mark.parametrize("line", ["--help", "stages list", "validate shapes-demo"])
def test_no_implementation_is_imported(line: str, site: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, *line.split()],
        env=environment(site),
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stderr.splitlines()[-1])
    assert result["code"] == 0
    loaded = [name for name in result["loaded"] if name.startswith("cascadezoo_wave")]
    assert len(loaded) == COUNT  # only the module of the entry point
    assert not {"torch", "numpy", "torchvision"} & set(result["loaded"])
    if line == "stages list":
        assert done.stdout.count("wave") >= COUNT
    if line == "--help":
        assert done.stdout.count("says ") == COUNT
        assert "pydantic" not in result["loaded"]


@pytest.mark.slow
@pytest.mark.parametrize("line", ["--help", "stages list"])
def test_the_time_of_commands(line: str, site: Path, tmp_path: Path) -> None:
    compiled = {"PYTHONPYCACHEPREFIX": str(tmp_path)}  # compiled, as after an install with pip
    bare, full = environment(**compiled), environment(site, **compiled)
    for env in (bare, full):
        env.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "cascadezoo", *line.split()]

    def seconds(env: dict[str, str]) -> float:
        # CPU time: on a busy machine wall time would include other processes.
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return used.ru_utime + used.ru_stime

    for env in (bare, full):
        seconds(env)  # compiles
    rows = [(seconds(bare), seconds(full)) for _ in range(11)]
    ratio = statistics.median(b for _, b in rows) / statistics.median(a for a, _ in rows)
    print(f"{line}: {ratio:.2f} times")
    assert ratio <= MAX_RATIO, f"{line}: {ratio:.2f} times"

"""Light commands, which read only specs and plugins: their imports and their time."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

import pytest

HEAVY = [
    "accelerate",
    "huggingface_hub",
    "lpips",
    "matplotlib",
    "numpy",
    "PIL",
    "rich",
    "safetensors",
    "timm",
    "torch",
    "torch_fidelity",
    "torchmetrics",
    "torchvision",
]

LIGHT = [
    "--help",
    "--version",
    "validate shapes-demo",
    "validate paper-baseline --json",
    "specs list",
    "specs show fashion-demo",
    "stages list",
    "stages show vit",
    "schema",
    "schema --kind diffusion",
    "plugins list --all",
    "plugins new --help",
    "plugins check --help",
    "plugins search",
    "plugins search gan --json",
    "build --help",
    "sample --help",
    "upscale --help",
    "refine --help",
    "edit --help",
    "inpaint --help",
    "interpolate --help",
    "demo --help",
    "plan --help",
    "report --help",
    "tune --help",
    "evaluate --help",
    "card --help",
    "schema metrics",
    "sweep --help",
    "sweep --list",
    "doctor --help",
    "publish --help",
    "pull --help",
    "zoo list",
    "zoo list *tiny --json",
    "zoo show shapes-tiny",
    "zoo verify shapes-tiny",
    "zoo add --help",
    "zoo search --help",
]

RUN = """
import json, sys
from cascadezoo.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    code = end.code
loaded = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"code": code, "loaded": loaded}), file=sys.stderr)
"""


@pytest.mark.parametrize("line", LIGHT)
def test_imports_nothing_heavy(line):
    done = subprocess.run(
        [sys.executable, "-c", RUN, *line.split()], capture_output=True, text=True, check=True
    )
    result = json.loads(done.stderr.splitlines()[-1])
    assert result["code"] == 0
    assert done.stdout
    assert sorted(set(result["loaded"]) & set(HEAVY)) == []


def test_help_imports_neither_pydantic_nor_any_command():
    done = subprocess.run(
        [sys.executable, "-c", RUN.replace('.partition(".")[0]', ""), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = json.loads(done.stderr.splitlines()[-1])["loaded"]
    assert not [name for name in loaded if name.startswith(("pydantic", "pluggy"))]
    ours = {name for name in loaded if name.startswith("cascadezoo")}
    assert ours == {
        "cascadezoo",
        "cascadezoo._version",
        "cascadezoo.cli",
        "cascadezoo.cli.errors",
        "cascadezoo.cli.lazy",
        "cascadezoo.cli.main",
        "cascadezoo.cli.output",
        "cascadezoo.errors",
        "cascadezoo.util",
        "cascadezoo.util.text",
    }


@pytest.mark.slow
@pytest.mark.parametrize("line", ["--help", "stages list", "validate shapes-demo"])
def test_takes_less_than_three_times_click_and_pydantic(line, tmp_path):
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(tmp_path)  # compiled, as after an install with pip
    base = [sys.executable, "-c", "import click, pydantic"]
    ours = [sys.executable, "-m", "cascadezoo", *line.split()]

    def seconds(command):
        # CPU time: on a busy machine wall time would include other processes.
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return used.ru_utime + used.ru_stime

    for command in (base, ours):
        seconds(command)  # compiles
    rows = [(seconds(base), seconds(ours)) for _ in range(11)]
    ratio = statistics.median(b for _, b in rows) / statistics.median(a for a, _ in rows)
    print(f"{line}: {ratio:.2f} times")
    assert ratio < 3, f"{line}: {ratio:.2f} times"

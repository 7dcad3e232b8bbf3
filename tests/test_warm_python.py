"""The Python of tests that starts fast behaves like another process."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SHOW = """
import os, sys
print(os.getcwd(), os.environ["WORD"], sys.argv, sys.stdin.read(), "there" in sys.path)
print("torch" in sys.modules, file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


def test_arguments_streams_and_exit_code(warm_python: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [warm_python, "-c", SHOW, "7", "b c"],
        cwd=tmp_path,
        env={"WORD": "x y", "PYTHONPATH": "there"},
        input="in",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{tmp_path} x y ['-c', '7', 'b c'] in True\n"
    assert (done.returncode, done.stderr) == (7, "True\n")


def test_modules_scripts_and_exceptions(warm_python: str, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("import two\nraise SystemExit(two.words())\n")
    (tmp_path / "two.py").write_text("import sys\ndef words(): return ' '.join(sys.argv)\n")
    for words, shown in ((["-m", "one"], tmp_path / "one.py"), (["one.py"], "one.py")):
        done = subprocess.run(
            [warm_python, *words, "a"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (1, f"{shown} a\n")
    done = subprocess.run([warm_python, "-c", "1 / 0"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


WAIT = """
import os, pathlib, signal, sys, time
def end(number, frame):
    sys.exit(5)
signal.signal(signal.SIGTERM, end)
pathlib.Path("pid").write_text(str(os.getpid()))
time.sleep(100)
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 5), (signal.SIGINT, -2), (signal.SIGKILL, -9)]
)
def test_signals(number: int, code: int, warm_python: str, tmp_path: Path) -> None:
    with subprocess.Popen(
        [warm_python, "-c", WAIT], cwd=tmp_path, stderr=subprocess.DEVNULL
    ) as process:
        while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(60) == code
    child = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 60
    while Path(f"/proc/{child}").exists() and time.monotonic() < until:
        time.sleep(0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)

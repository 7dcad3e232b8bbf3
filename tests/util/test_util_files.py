"""Atomic writes and their temporary files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascadezoo.util.files import is_alive, temporary_of, write_atomically


def test_an_atomic_write_removes_temporary_files_of_ended_processes_only(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    running = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    for pid in (gone.pid, running.pid):
        for name in ("one.json", "two.json"):
            (tmp_path / f".{name}.{pid}.tmp").write_bytes(b"part")
    write_atomically(tmp_path / "one.json", b"{}")
    running.communicate(b"\n")
    assert (tmp_path / "one.json").read_bytes() == b"{}"
    left = {path.name for path in tmp_path.iterdir()}
    kept = {f".two.json.{gone.pid}.tmp", f".one.json.{running.pid}.tmp"}
    assert left == {"one.json", *kept, f".two.json.{running.pid}.tmp"}


@pytest.mark.parametrize(
    ("pid", "alive"), [(1, True), (0, False), (-1, False), (10**10 - 1, False)]
)
def test_whether_a_process_runs(pid: int, alive: bool) -> None:
    assert is_alive(pid) is alive
    assert is_alive(os.getpid())


@given(
    st.text(st.characters(blacklist_characters="/\n\0"), min_size=1, max_size=20),
    st.integers(1, 4_194_304),
)
def test_names_of_temporary_files(name: str, pid: int) -> None:
    assert temporary_of(f".{name}.{pid}.tmp") == (name, pid)

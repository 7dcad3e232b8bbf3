"""Full disks for tests: a small tmpfs where mounting is allowed, else a limit of the file size."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount a disk of ``size`` bytes on a new folder; skips the test where that is not allowed."""
    folder.mkdir()
    options = f"size={size},mode=0755"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("the machine has no mount")
    if done.returncode != 0:
        pytest.skip("mounting a tmpfs is not allowed")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def filled(disk: Path, left: int) -> Iterator[None]:
    """Fill a disk up to ``left`` bytes."""
    ballast = disk / ".ballast"
    status = os.statvfs(disk)
    count = status.f_bavail * status.f_frsize - left
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, count))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the kernel refuse files of more than ``size`` bytes. Python ignores its signal."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

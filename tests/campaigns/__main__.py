"""``python -m tests.campaigns [--minutes M | --cases N] [--seed S] [--only CASE] [kind]...``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "CASCADEZOO_LOAD_PLUGINS": "",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def _again() -> None:
    """Start this program again if libraries would read other settings than those above."""
    if all(os.environ.get(name) == value for name, value in SETTINGS.items()):
        return
    os.environ |= SETTINGS
    arguments = [sys.executable, "-m", "tests.campaigns", *sys.argv[1:]]
    os.chdir(TESTS.parent)
    os.execv(sys.executable, arguments)


if __name__ == "__main__":
    _again()
    for place in (str(TESTS / "hub"), str(TESTS)):
        if place not in sys.path:
            sys.path.insert(0, place)
    from campaigns.command_line import main

    sys.exit(main(sys.argv[1:]))

"""One complete build for all tests of builds."""

from __future__ import annotations

from pathlib import Path

import pytest
from build_cases import TINY

from cascadezoo.build.build import build_cascade


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete build, which no test changes."""
    out = tmp_path_factory.mktemp("built") / "run"
    build_cascade(TINY, out, device="cpu")
    return out

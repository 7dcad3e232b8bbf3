from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from all_hooks import FILES
from plugin_sites import install

from cascadezoo.plugins.manager import get_host


@pytest.fixture(scope="module")
def all_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("all") / "site", "cascadezoo-all", "1.0", FILES)


@pytest.fixture
def here(all_site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The plugin is installed in this process, which has already imported torch."""
    monkeypatch.syspath_prepend(str(all_site))
    get_host.cache_clear()
    yield all_site
    get_host.cache_clear()
    for name in [name for name in sys.modules if name.startswith("cascadezoo_all")]:
        del sys.modules[name]

"""Sets one thread, and checks that the plugin is installed."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _installed() -> None:
    points = {point.value for point in entry_points(group="cascadezoo")}
    assert "cascadezoo_tokens" in points, (
        "install the plugin first: pip install plugins/cascadezoo-tokens"
    )
    torch.set_num_threads(1)

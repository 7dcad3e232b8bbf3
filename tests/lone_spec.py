"""The spec of the smallest model that tests build, change, publish and pull: ``lone``."""

from __future__ import annotations

import copy
from typing import Any

__all__ = ["lone_spec"]

_SPEC: dict[str, Any] = {
    "name": "lone",
    "data": {"source": "shapes", "config": {"size": 8, "count": 64, "test_count": 32}},
    "stages": [
        {
            "name": "coarse",
            "kind": "flow.v1",
            "config": {"channels": 8, "multipliers": [1, 1], "steps": 2},
        }
    ],
    "training": {
        "batch_size": 16,
        "losses": [],
        "phases": [{"name": "coarse", "train": ["coarse"], "steps": 4}],
    },
    "evaluation": {"metrics": [], "extractor": "small"},
}


def lone_spec(*, steps: int = 4, evaluation: dict[str, Any] | None = None) -> dict[str, Any]:
    """One small generator of 8x8 shapes.

    Args:
        steps: training steps.
        evaluation: further settings of the evaluation; by default nothing is measured.
    """
    spec = copy.deepcopy(_SPEC)
    spec["training"]["phases"][0]["steps"] = steps
    spec["evaluation"] |= evaluation or {}
    return spec

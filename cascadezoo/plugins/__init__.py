"""Plugins: found by their entry points, and what they register. Free of torch.

Installed distributions enter; a registry of kinds and a list of problems leave. A broken plugin
never takes others down.
"""

from __future__ import annotations

from cascadezoo.plugins.manager import (
    BLOCK_VARIABLE,
    BUILTIN_DISTRIBUTION,
    LIMIT_VARIABLE,
    Plugin,
    PluginHost,
    PluginProblem,
    blame,
    canonical_name,
    get_host,
    get_registry,
)

__all__ = [
    "BLOCK_VARIABLE",
    "BUILTIN_DISTRIBUTION",
    "LIMIT_VARIABLE",
    "Plugin",
    "PluginHost",
    "PluginProblem",
    "blame",
    "canonical_name",
    "get_host",
    "get_registry",
]

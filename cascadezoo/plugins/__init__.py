"""Plugins: loading by entry points, and the registry of their entries. Imports no torch.

Input: installed distributions. Output: a registry of kinds and a list of problems. A broken plugin
does not affect others.
"""

from __future__ import annotations

from cascadezoo.plugins.manager import (
    BLOCK_VARIABLE,
    BUILTIN_DISTRIBUTION,
    LIMIT_VARIABLE,
    Plugin,
    PluginHost,
    PluginProblem,
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
    "canonical_name",
    "get_host",
    "get_registry",
]

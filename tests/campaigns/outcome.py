"""What a case came to: clean, refused with a clear error, or failed with findings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["EXIT_CODES", "KINDS", "Finding", "Outcome", "known_codes"]

ROOT = Path(__file__).resolve().parents[2]
EXIT_CODES = (1, 2, 130)
KINDS = {
    "internal": "an internal error",
    "traceback": "a traceback was printed or the process died",
    "exit": "an exit code or an error code that docs/errors.md does not list",
    "time": "over the time limit",
    "memory": "over the memory limit",
    "opened": "a file outside of the allowed folders was opened",
    "wrong": "a wrong result",
    "harness": "the campaign itself failed",
}
"""The kinds of findings; each of them makes a case fail."""


@dataclass(frozen=True)
class Finding:
    """One thing that a case did and must not do.

    Args:
        kind: one of :data:`KINDS`.
        cause: what groups cases of one cause, such as ``KeyError in cascadezoo/x.py:f``.
        command: the command line, if one was running.
        lines: the last lines of the traceback or of the output.
    """

    kind: str
    cause: str
    command: str = ""
    lines: str = ""


@dataclass
class Outcome:
    """The end of one case.

    Args:
        case: ``campaign:seed:index``.
        title: what the case does, in a line.
        findings: why it failed; empty if it did not.
        refused: whether a command ended with a clear error.
        commands: how many commands ran.
        seconds: wall time.
        peak: bytes of memory above those of the process that it was forked from.
    """

    case: str
    title: str = ""
    findings: list[Finding] = field(default_factory=list)
    refused: bool = False
    commands: int = 0
    seconds: float = 0.0
    peak: int = 0

    @property
    def campaign(self) -> str:
        return self.case.partition(":")[0]

    @property
    def verdict(self) -> str:
        """``failed``, ``refused`` or ``clean``."""
        if self.findings:
            return "failed"
        return "refused" if self.refused else "clean"

    def to_dict(self) -> dict[str, Any]:
        return {
            "case": self.case,
            "title": self.title,
            "verdict": self.verdict,
            "seconds": round(self.seconds, 3),
            "peak": self.peak,
            "findings": [vars(f) for f in self.findings],
        }


@cache
def known_codes() -> frozenset[str]:
    """The error codes of docs/errors.md, and those of errors that are not of cascadezoo."""
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    rows = (line for line in text.splitlines() if re.match(r"\| `\w+Error` \|", line))
    return frozenset(_codes(rows)) | {"usage", "memory", "system"}


def _codes(rows: Iterable[str]) -> Iterable[str]:
    for row in rows:
        yield from re.findall(r"`([a-z][a-z0-9-]*)`", row)

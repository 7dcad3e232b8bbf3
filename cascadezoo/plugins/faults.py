"""Errors in the code of plugins: they become a PluginError that names the plugin and the line."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from cascadezoo.errors import CascadezooError, PluginError
from cascadezoo.plugins.registry import Entry, Origin, Registered, is_builtin
from cascadezoo.plugins.tracebacks import blame, own_definition
from cascadezoo.util.limits import is_out_of_memory

__all__ = ["CODES", "Guard", "Owner"]

CODES = {
    "stage": "plugin-stage-failed",
    "dataset": "plugin-dataset-failed",
    "loss": "plugin-loss-failed",
    "metric": "plugin-metric-failed",
    "feature extractor": "plugin-features-failed",
    "command": "plugin-command-failed",
    "callback": "plugin-callback-failed",
    "zoo": "plugin-zoo-unreadable",
}
"""The codes of exceptions by the type of the entry."""

_PASSED_ON = (errno.ENOSPC, errno.EDQUOT, errno.EPIPE)
"""Faults of the machine, for which no plugin is to blame."""


@dataclass(frozen=True, slots=True)
class Owner:
    """An entry in use, and the distribution that provides it.

    Args:
        entry: the entry.
        origin: its distribution and plugin.
        name: the name of a stage in its cascade; None uses the name of the entry.
    """

    entry: Entry
    origin: Origin
    name: str | None = None

    @classmethod
    def of(cls, registered: Registered[Any]) -> Owner:
        """The owner of a registered entry."""
        return cls(registered.entry, registered.origin)

    @property
    def builtin(self) -> bool:
        """Whether the entry is part of cascadezoo."""
        return is_builtin(self.origin)

    def __str__(self) -> str:
        if self.name is None:
            return f"{self.entry.what} {self.entry.name!r} of {self.origin}"
        return f"{self.entry.what} {self.name!r} ({self.entry.name} of {self.origin})"

    def guard(
        self,
        doing: str,
        function: Any = None,
        *,
        passes: Callable[[BaseException], bool] | None = None,
        exits: bool = False,
    ) -> Guard:
        """A context for a call of the entry's code.

        Args:
            doing: what is called, e.g. ``in forward``.
            function: the called function, whose line is reported if the traceback has no line of
                the plugin.
            passes: returns True for an error that is not to be converted.
            exits: whether the code may end the process by SystemExit, as commands do.
        """
        return Guard(self, doing, function, passes, exits)

    def failure(self, doing: str, error: BaseException, function: Any = None) -> PluginError:
        """The PluginError for an exception of the entry's code."""
        text = (str(error).strip().splitlines() or [""])[0]
        what = f"failed {doing}: {type(error).__name__}{f': {text}' if text else ''}"
        place = blame(error, self.package, own_only=True) or own_definition(function)
        return self.fault(
            what,
            code=CODES.get(self.entry.what, "plugin"),
            where=place or blame(error, self.package),
        )

    def fault(
        self,
        what: str,
        *,
        code: str,
        where: str | None = None,
        hint: str | None = None,
        **fields: object,
    ) -> PluginError:
        """A PluginError that names the entry and its distribution.

        Args:
            what: what is wrong, as the end of a sentence.
            code: the code of the error.
            where: file and line.
            hint: what to do; None refers to the authors of the distribution.
            fields: further values in the message.
        """
        place = "" if where is None else f" [{where}]"
        return PluginError(
            f"{self} {what}{place}",
            hint=hint or self._report_to,
            code=code,
            name=self.name or self.entry.name,
            kind=self.entry.name,
            distribution=self.origin.distribution,
            version=self.origin.version,
            where=where,
            **fields,
        )

    @property
    def package(self) -> str:
        """The top-level package of the implementation."""
        return self.entry.impl.partition(":")[0].partition(".")[0]

    @property
    def _report_to(self) -> str:
        return (
            f"CASCADEZOO_DEBUG=1 shows the traceback; report it to the authors of "
            f"{self.origin.distribution}, or upgrade it"
        )


class Guard:
    """Converts exceptions of a plugin's code to a PluginError; see :meth:`Owner.guard`.

    Errors of cascadezoo's own classes pass unchanged, as do interrupts, missing memory, a full disk
    and every error of a built-in entry.
    """

    __slots__ = ("doing", "exits", "function", "owner", "passes")

    def __init__(
        self,
        owner: Owner | None,
        doing: str,
        function: Any = None,
        passes: Callable[[BaseException], bool] | None = None,
        exits: bool = False,
    ) -> None:
        self.owner = owner
        self.doing = doing
        self.function = function
        self.passes = passes
        self.exits = exits

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> Literal[False]:
        """Convert an exception.

        Raises:
            PluginError: the code of a plugin raised.
        """
        if error is None or self.owner is None or self.owner.builtin or self._passes(error):
            return False
        raise self.owner.failure(self.doing, error, self.function) from error

    def _passes(self, error: BaseException) -> bool:
        if isinstance(error, SystemExit):
            return self.exits
        if not isinstance(error, Exception) or isinstance(error, CascadezooError):
            return True
        if isinstance(error, OSError) and error.errno in _PASSED_ON:
            return True
        return is_out_of_memory(error) or (self.passes is not None and self.passes(error))

"""The click groups: one that imports a command when it is called, and where errors end.

Commands of plugins stand after the built-in ones, and are looked for only where they may matter.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from cascadezoo.cli.errors import report
from cascadezoo.cli.output import clean, echo
from cascadezoo.errors import PluginError

if TYPE_CHECKING:
    from cascadezoo.plugins.manager import PluginHost
    from cascadezoo.plugins.registry import CommandEntry, Registered

__all__ = ["Commands", "LazyGroup"]


class Commands(click.Group):
    """A group that lists its commands in the order they were added, and knows near misses."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments begin with.

        Raises:
            UsageError: there is none of that name; the nearest one is told.
        """
        name = str(args[0])
        found = name.startswith("-") or self.get_command(ctx, name) is not None
        if not found and not ctx.resilient_parsing:
            names = self.list_commands(ctx)
            close = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
            guess = " or ".join(repr(c) for c in close) or ", ".join(names)
            lead = "did you mean" if close else "there are"
            mark = "?" if close else ""
            raise click.UsageError(f"no command {name!r}; {lead} {guess}{mark}", ctx)
        return super().resolve_command(ctx, args)


class LazyGroup(Commands):
    """A group whose commands are imported when they are called.

    Args:
        table: for each command the module that holds it as ``command``, and its one line of help.
    """

    def __init__(self, *, table: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(**options)
        self.table = dict(table)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table, then those of plugins."""
        return [*self.table, *self._of_plugins()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None where there is none of that name.

        Raises:
            PluginError: a plugin's command cannot be imported, or is none.
        """
        row = self.table.get(cmd_name)
        if row is not None:
            command: click.Command = importlib.import_module(row[0]).command
            return command
        plugged = self._of_plugins().get(cmd_name)
        if plugged is None:
            return None
        found = plugged.entry.load()
        if not isinstance(found, click.Command):
            raise PluginError(
                f"{plugged.entry.impl} of the command {cmd_name!r} is not a click.Command",
                hint=f"{plugged.origin} brings it; upgrade or uninstall it",
                code="plugin-not-a-command",
                name=cmd_name,
            )
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from what states them alone, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.table.items()])
        rows = [
            (name, clean(f"{row.entry.summary} ({row.origin.distribution})"))
            for name, row in self._of_plugins().items()
        ]
        if rows:
            with formatter.section("Commands of plugins"):
                formatter.write_dl(rows)

    def reserve(self, host: PluginHost) -> None:
        """Take from plugins the names of built-in commands."""
        host.reserve_commands(self.table)

    def _of_plugins(self) -> dict[str, Registered[CommandEntry]]:
        if not _may_bring_commands():
            return {}
        from cascadezoo.plugins.manager import get_host

        try:
            host = get_host()
        except PluginError:
            return {}  # cascadezoo is not installed, as whatever needs its stages will say
        self.reserve(host)
        return {row.entry.name: row for row in host.registry.commands}

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line; in standalone mode every error is told and becomes an exit code."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        given = sys.argv[1:] if args is None else list(args)
        try:
            with _plain_warnings():
                code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.exit(code if isinstance(code, int) else 0)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(error.exit_code)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the end of the line
            sys.exit(report(error, as_json=_asks_for_json(given)))


def _may_bring_commands() -> bool:
    """Whether any plugin is installed; a quick look, before anything is imported for them."""
    if os.environ.get("CASCADEZOO_LOAD_PLUGINS", "*").strip(" ,") == "":
        return False
    from importlib.metadata import entry_points

    return any(
        point.value != "cascadezoo.plugins.builtin" for point in entry_points(group="cascadezoo")
    )


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Tell what is deprecated in a line of its own, without the place in the source."""
    usual = warnings.showwarning

    def show(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        from cascadezoo.plugins.registry import CascadezooDeprecationWarning

        if issubclass(category, CascadezooDeprecationWarning):
            echo(f"Warning: {message}", err=True)
        else:
            usual(message, category, *place, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = usual


def _asks_for_json(args: Iterable[str]) -> bool:
    # Read from the arguments, since an error may come before they are parsed.
    for arg in args:
        if arg == "--":
            return False
        if arg == "--json":
            return True
    return False

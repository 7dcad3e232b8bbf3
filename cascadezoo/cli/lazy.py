"""The click groups: one that imports a command when it is called, and where errors end."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from cascadezoo.cli.errors import report

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
        names = self.list_commands(ctx)
        if name not in names and not name.startswith("-") and not ctx.resilient_parsing:
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
        """The names, in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None where there is none of that name."""
        row = self.table.get(cmd_name)
        if row is None:
            return None
        command: click.Command = importlib.import_module(row[0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table alone, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.table.items()])

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
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.exit(code if isinstance(code, int) else 0)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(error.exit_code)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the end of the line
            sys.exit(report(error, as_json=_asks_for_json(given)))


def _asks_for_json(args: Iterable[str]) -> bool:
    # Read from the arguments, since an error may come before they are parsed.
    for arg in args:
        if arg == "--":
            return False
        if arg == "--json":
            return True
    return False

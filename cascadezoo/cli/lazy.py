"""The click groups. They import a command when it is called, and report errors.

Commands of plugins are listed after the built-in ones. They are loaded only if needed.
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
    """A group that lists its commands in order of definition and suggests similar names."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments name first.

        Raises:
            UsageError: the command is unknown; the message suggests similar ones.
        """
        name = str(args[0])
        known = name.startswith("-") or self.get_command(ctx, name) is not None
        if not known and not ctx.resilient_parsing:
            names = self.list_commands(ctx)
            close = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
            hint = f"the commands are {', '.join(names)}"
            if close:
                hint = f"did you mean {' or '.join(map(repr, close))}?"
            raise click.UsageError(f"unknown command {name!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)


class LazyGroup(Commands):
    """A group whose commands are imported when they are called.

    Args:
        table: for each command the module that defines it as ``command``, and its one-line help.
    """

    def __init__(self, *, table: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(**options)
        self.table = dict(table)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table, then those of plugins."""
        return [*self.table, *self._of_plugins()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if the name is unknown.

        Raises:
            PluginError: a plugin's command cannot be imported or is not a click command.
        """
        row = self.table.get(cmd_name)
        if row is not None:
            command: click.Command = importlib.import_module(row[0]).command
            return command
        registered = self._of_plugins().get(cmd_name)
        if registered is None:
            return None
        loaded = registered.entry.load()
        if not isinstance(loaded, click.Command):
            raise PluginError(
                f"{registered.entry.impl} of the command {cmd_name!r} is not a click.Command",
                hint=f"{registered.origin} provides it; upgrade or uninstall it",
                code="plugin-not-a-command",
                name=cmd_name,
            )
        return loaded

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command.

        Raises:
            PluginError: a plugin's command raised an exception that is no error of cascadezoo or
                click.
        """
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit, EOFError):
            raise
        except Exception as error:
            name = ctx.invoked_subcommand
            if name is None or name in self.table:
                raise
            registered = self._of_plugins().get(name)
            if registered is None:
                raise
            from cascadezoo.plugins.faults import Owner

            with Owner.of(registered).guard("to run", exits=True):
                raise error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
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
        """Reserve the names of built-in commands against plugins."""
        host.reserve_commands(self.table)

    def _of_plugins(self) -> dict[str, Registered[CommandEntry]]:
        if not _plugins_may_load():
            return {}
        from cascadezoo.plugins.manager import get_host

        try:
            host = get_host()
        except PluginError:
            return {}  # cascadezoo is not installed; commands that need its stages report it
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
        """Run a command line; in standalone mode every error is reported and sets the exit code."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        arguments = sys.argv[1:] if args is None else list(args)
        try:
            with _plain_warnings():
                code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.exit(code if isinstance(code, int) else 0)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(error.exit_code)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the top level
            sys.exit(report(error, as_json=_json_requested(arguments)))


def _plugins_may_load() -> bool:
    """Whether any plugin is installed; a quick check that imports no plugin."""
    if os.environ.get("CASCADEZOO_LOAD_PLUGINS", "*").strip(" ,") == "":
        return False
    from importlib.metadata import entry_points

    return any(
        point.value != "cascadezoo.plugins.builtin" for point in entry_points(group="cascadezoo")
    )


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print deprecations as one line, without the line of source code."""
    default = warnings.showwarning

    def show(message: Any, category: type[Warning], *args: Any, **options: Any) -> None:
        from cascadezoo.plugins.registry import CascadezooDeprecationWarning

        if issubclass(category, CascadezooDeprecationWarning):
            echo(f"Warning: {message}", err=True)
        else:
            default(message, category, *args, **options)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = default


def _json_requested(args: Iterable[str]) -> bool:
    # From the raw arguments, because an error may occur before they are parsed.
    for arg in args:
        if arg == "--":
            return False
        if arg == "--json":
            return True
    return False

"""Reports every error of the command line: ``Error:``, ``Hint:`` and an exit code."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

import click

from cascadezoo.cli.output import clean, echo, echo_json
from cascadezoo.errors import CascadezooError, SpecError

__all__ = ["DEBUG_VARIABLE", "report"]

DEBUG_VARIABLE = "CASCADEZOO_DEBUG"


@dataclass(frozen=True, slots=True)
class _Report:
    exit_code: int
    data: dict[str, object]
    lines: str


def report(error: BaseException, *, as_json: bool) -> int:
    """Print an error to stderr. Of several processes, one prints an error of all.

    Args:
        error: the exception that ended the command.
        as_json: print one line of JSON, ``{"error": {"code": ..., "message": ..., "hint": ...}}``.

    Returns:
        The exit code.
    """
    if os.environ.get(DEBUG_VARIABLE, "") not in ("", "0"):
        import traceback

        echo("".join(traceback.format_exception(error)).rstrip(), err=True)
    result = _describe(error)
    from cascadezoo.util.processes import claim_report

    if not claim_report(error):
        return result.exit_code
    if as_json:
        echo_json({"error": result.data}, err=True, indent=None)
    else:
        echo(result.lines, err=True)
    return result.exit_code


def _describe(error: BaseException) -> _Report:
    if isinstance(error, CascadezooError):
        return _Report(error.exit_code, error.to_dict(), _lines(_message(error), error.hint))
    if isinstance(error, click.ClickException):
        return _usage(error)
    if isinstance(error, (KeyboardInterrupt, EOFError, click.Abort)):
        return _plain(130, "interrupted", "interrupted")
    from cascadezoo.util.limits import is_out_of_memory

    if is_out_of_memory(error):
        what = f"out of memory: {_first_line(error)}"
        hint = "use a smaller batch or cascade; cascadezoo plan SPEC shows the memory it needs"
        return _plain(1, "memory", what, hint)
    if isinstance(error, OSError):
        path = f"{error.filename}: " if error.filename is not None else ""
        what = f"{path}{error.strerror or _first_line(error)}"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return _plain(1, "system", what, "free space on that disk and try again" if full else None)
    return _plain(
        1,
        "internal",
        f"internal error: {type(error).__name__}: {_first_line(error)}",
        f"run again with {DEBUG_VARIABLE}=1 and report the output",
    )


def _message(error: CascadezooError) -> str:
    """The message; text from a spec cannot imitate a line of its own."""
    if isinstance(error, SpecError):
        return "\n".join(
            [clean(error.what.splitlines()[0]), *(f"  {clean(p)}" for p in error.problems)]
        )
    return error.what


def _usage(error: click.ClickException) -> _Report:
    what = error.format_message()
    hint = None
    context = getattr(error, "ctx", None)
    if isinstance(error, click.UsageError) and context is not None:
        hint = f"{context.command_path} --help shows the usage"
        if isinstance(error, click.NoSuchOption) and _takes_settings(context.command):
            hint = f"{_setting_hint(error.option_name)}; {hint}"
    data: dict[str, object] = {"code": "usage", "message": what, "hint": hint}
    return _Report(error.exit_code, data, _lines(what, hint))


def _takes_settings(command: click.Command) -> bool:
    return any(parameter.name == "settings" for parameter in command.params)


def _setting_hint(option: str) -> str:
    """The setting of the spec that an unknown option names."""
    from cascadezoo.spec.faults import setting_paths
    from cascadezoo.spec.models import CascadeSpec

    paths = setting_paths(CascadeSpec, option.lstrip("-"))[:3]
    if not paths:
        return "what a spec states is changed by --set PATH=VALUE"
    return f"set it in the spec: {' or '.join(f'--set {path}=VALUE' for path in paths)}"


def _plain(exit_code: int, code: str, what: str, hint: str | None = None) -> _Report:
    return _Report(exit_code, {"code": code, "message": what, "hint": hint}, _lines(what, hint))


def _lines(what: str, hint: str | None) -> str:
    return f"Error: {what}" if hint is None else f"Error: {what}\nHint: {hint}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

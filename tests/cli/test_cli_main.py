from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from errors_help import check_failed

import cascadezoo
from cascadezoo.cli.lazy import LazyGroup
from cascadezoo.cli.main import COMMANDS, main

HELPERS = {"__init__", "main", "lazy", "errors", "output", "options"}


def command_of(name: str) -> click.Command:
    return importlib.import_module(COMMANDS[name][0]).command


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_has_the_help_of_the_command(name):
    command = command_of(name)
    assert command.name == name
    assert command.get_short_help_str(limit=1000) == COMMANDS[name][1]


def test_every_command_file_is_in_the_table():
    folder = Path(cascadezoo.__path__[0]) / "cli"
    files = {p.stem for p in folder.glob("*.py")} - HELPERS
    modules = {name: importlib.import_module(f"cascadezoo.cli.{name}") for name in files}
    assert {name for name, m in modules.items() if hasattr(m, "command")} == set(COMMANDS)


def leaves(command: click.Command, path: tuple[str, ...]):
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from leaves(inner, (*path, name))
    else:
        yield path, command


ALL = [row for name in COMMANDS for row in leaves(command_of(name), (name,))]


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(p) for p, _ in ALL])
def test_help_has_examples_and_describes_each_option(path, command, invoke):
    result = invoke(*path, "--help")
    assert result.exit_code == 0
    assert f"cascadezoo {' '.join(path)}" in result.stdout.split("Examples:")[1]
    assert max(map(len, result.stdout.splitlines())) <= 100
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{option.opts} has no help"
    assert "--json" in {o for p in command.params for o in p.opts}


def test_help_lists_the_commands_in_order(invoke):
    result = invoke("--help")
    assert result.exit_code == 0
    listed = re.findall(r"^  (\S+)", result.stdout.split("Commands:")[1], re.MULTILINE)
    assert listed[: len(COMMANDS)] == list(COMMANDS)


def test_version(invoke):
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"cascadezoo {cascadezoo.__version__}\n")


@pytest.mark.parametrize("args", [(), ("stages",), ("specs",), ("plugins",)])
def test_no_command_shows_help_and_is_a_usage_error(args, invoke):
    result = invoke(*args)
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: cascadezoo")
    assert "Error" not in result.stderr


@pytest.mark.parametrize(
    ("args", "suggested"),
    [(("biuld",), "'build'"), (("stages", "lst"), "'list'"), (("zzzzzz",), "build, sample")],
)
def test_unknown_command_suggests_similar_ones(args, suggested, invoke):
    result = invoke(*args)
    assert result.exit_code == 2
    check_failed(result, "usage", shown=repr(args[-1]))
    assert suggested in result.stderr
    assert "\nHint: cascadezoo" in result.stderr


@pytest.mark.parametrize(
    "args",
    [
        ("validate",),
        ("validate", "shapes-demo", "--bogus"),
        ("sample", "x", "-n", "0"),
        ("sample", "x", "-n", "many"),
        ("sample", "x", "--seed", "-1"),
        ("sample", "x", "--steps", "2", "--steps", "coarse=3"),
        ("sample", "x", "--guidance", "much"),
        ("build", "x", "--precision", "fp8"),
        ("pull",),
        ("stages", "list", "--role", "painter"),
    ],
)
def test_usage_errors(args, invoke):
    result = invoke(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0].startswith("Error: ")
    assert lines[-1].startswith("Hint: ")
    assert f"cascadezoo {args[0]}" in lines[-1]
    as_json = invoke(*args, "--json")
    assert as_json.exit_code == 2
    error = json.loads(as_json.stderr)["error"]
    assert error["code"] == "usage"
    assert lines[0] == f"Error: {error['message']}"


THROWER = """
import click, errno, os
from cascadezoo.errors import CheckpointError, StoppedError

@click.command("throw")
@click.argument("what")
@click.option("--json", "as_json", is_flag=True)
def command(what, as_json):
    raise {
        "own": CheckpointError("it broke at\\x1b[31m step 3", hint="do this"),
        "interrupt": KeyboardInterrupt(),
        "stopped": StoppedError("stopped by SIGTERM", hint="go on"),
        "full": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x"),
        "denied": PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/x"),
        "memory": MemoryError(),
        "torch": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
        "bug": ZeroDivisionError("division by zero\\nsecond line"),
        "pipe": BrokenPipeError(errno.EPIPE, "Broken pipe"),
    }[what]
"""

# Exit code, code, a value in the message, a value in the hint.
ENDINGS = {
    "own": (1, "checkpoint", "it broke at\\x1b[31m step 3", "do this"),
    "interrupt": (130, "interrupted", "", None),
    "stopped": (130, "interrupted", "stopped by SIGTERM", "go on"),
    "full": (1, "system", "/data/x: No space left on device", ""),
    "denied": (1, "system", "/data/x: Permission denied", None),
    "memory": (1, "memory", "MemoryError", "cascadezoo plan"),
    "torch": (1, "memory", "DefaultCPUAllocator", "cascadezoo plan"),
    "bug": (1, "internal", "ZeroDivisionError: division by zero", "CASCADEZOO_DEBUG=1"),
}


@pytest.fixture
def thrower(tmp_path, monkeypatch):
    (tmp_path / "cascadezoo_thrower.py").write_text(THROWER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("CASCADEZOO_DEBUG", raising=False)
    group = LazyGroup(table={"throw": ("cascadezoo_thrower", "Throw.")}, name="test")

    def run(*args):
        return CliRunner().invoke(group, ["throw", *args])

    yield run
    sys.modules.pop("cascadezoo_thrower", None)


@pytest.mark.parametrize("what", ENDINGS)
def test_every_error_is_reported_in_two_lines_with_a_code(what, thrower):
    code, name, message, hint = ENDINGS[what]
    result = thrower(what)
    assert result.exit_code == code
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line]
    assert lines[0].startswith("Error: ")
    assert message in lines[0]
    assert len(lines) == (1 if hint is None else 2)
    if hint is not None:
        assert lines[1].startswith("Hint: ")
        assert hint in lines[1]
    assert "Traceback" not in result.stderr
    assert "\x1b" not in result.stderr

    as_json = thrower(what, "--json")
    error = json.loads(as_json.stderr.splitlines()[-1])["error"]
    assert as_json.exit_code == code
    assert error["code"] == name
    assert (error["hint"] is None) == (hint is None)


@pytest.mark.parametrize("what", ENDINGS)
def test_debug_shows_the_traceback_and_keeps_the_exit_code(what, thrower, monkeypatch):
    monkeypatch.setenv("CASCADEZOO_DEBUG", "1")
    result = thrower(what)
    assert result.exit_code == ENDINGS[what][0]
    assert "Traceback (most recent call last)" in result.stderr
    assert "cascadezoo_thrower.py" in result.stderr
    assert "\x1b" not in result.stderr
    monkeypatch.setenv("CASCADEZOO_DEBUG", "0")
    assert "Traceback" not in thrower(what).stderr


def test_broken_pipe_is_silent(thrower):
    result = thrower("pipe")
    assert (result.exit_code, result.stderr) == (1, "")


def test_a_closed_stdout_is_silent():
    line = f"{sys.executable} -m cascadezoo schema | head -c 20"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("{")


def test_json_after_double_dash_is_an_argument(invoke):
    result = invoke("validate", "--", "--json")
    assert result.exit_code == 2
    check_failed(result, "lookup-spec", name="--json")
    assert result.stderr.startswith("Error: ")


def test_main_is_callable_without_exiting():
    assert main(["--version"], standalone_mode=False) == 0
    with pytest.raises(click.UsageError):
        main(["nope"], standalone_mode=False)

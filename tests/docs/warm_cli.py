"""A `cascadezoo` command for shells that starts as a fork of a process with torch imported.

Each command of a page would import torch again, which takes longer than most of what they show.
The fork runs the same entry point with the shell's arguments, folder, environment and streams.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLIENT = """#!{python} -ISE
import json, os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
message = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(connection, [len(message).to_bytes(8, "big")], [0, 1, 2])
connection.sendall(message)
sys.exit(int(connection.makefile().read() or 1))
"""


@contextmanager
def warm_commands(folder: Path) -> Iterator[Path]:
    """The folder of a `cascadezoo` executable to put first on the PATH."""
    address = str(folder / "socket")
    server = subprocess.Popen(
        [sys.executable, __file__, address], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == "ready\n"
        command = folder / "cascadezoo"
        command.write_text(CLIENT.format(python=sys.executable, address=address))
        command.chmod(0o755)
        yield folder
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


PRELOADED = (
    "huggingface_hub",
    "scipy.stats",
    "timm",
    "torchmetrics.image",
    "torchvision",
    "cascadezoo.build",
    "cascadezoo.evaluate.evaluate_model",
    "cascadezoo.hub.publish",
    "cascadezoo.report.model_page",
    "cascadezoo.sweep",
    "cascadezoo.tune.tune_model",
)


def serve(address: str) -> None:
    """Answer commands until the process is terminated."""
    for name in PRELOADED:
        importlib.import_module(name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        # The first fork waits for the command, so that commands of one pipeline run together.
        if os.fork() == 0:
            code = _run(connection)
            connection.sendall(str(code).encode())
            os._exit(0)
        connection.close()
        _reap()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _run(connection: socket.socket) -> int:
    """Run the command of a connection in a fork; returns its exit code."""
    size, streams, _, _ = socket.recv_fds(connection, 8, 3)
    rest = connection.makefile("rb").read(int.from_bytes(size, "big"))
    arguments, folder, environment = json.loads(rest)
    child = os.fork()
    if child == 0:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.closerange(3, 256)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["cascadezoo", *arguments]
        _main(arguments)
    for stream in streams:
        os.close(stream)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _main(arguments: list[str]) -> None:
    from cascadezoo.cli.main import main

    code: int | str | None = 1
    try:
        main(arguments, prog_name="cascadezoo")
    except SystemExit as error:
        code = error.code
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    serve(sys.argv[1])

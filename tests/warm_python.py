"""A Python whose processes are forks of one that has imported torch.

Importing torch takes longer than most of what tests let another process do. The fork runs ``-m
MODULE``, ``-c CODE`` or a script with the caller's arguments, folder, environment, paths and
streams. It gets SIGTERM and SIGINT like the process that the caller started, and ends with it.

With ``WARM_CHILDREN`` in the environment, ``sys.executable`` is this Python, so that processes which
the process starts are forks, too. Not for tests of what is imported, of memory, or of what Python
does at its start.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CLIENT = """#!{python} -ISE
import json, os, signal, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
message = json.dumps([{before!r} + sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(connection, [len(message).to_bytes(8, "big")], [0, 1, 2])
connection.sendall(message)
answers = connection.makefile()
child = int(answers.readline())
for number in (signal.SIGTERM, signal.SIGINT):
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, lambda number, frame: os.kill(child, number))
code = int(answers.readline() or 1)
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
    os.kill(os.getpid(), -code)
sys.exit(code)
"""

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


@contextmanager
def warm_processes(folder: Path) -> Iterator[Path]:
    """A folder with the executables ``warm-python`` and ``bin/cascadezoo``."""
    address = str(folder / "socket")
    server = subprocess.Popen(
        [sys.executable, __file__, address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == "ready\n"
        commands: dict[str, list[str]] = {"warm-python": [], "bin/cascadezoo": ["-m", "cascadezoo"]}
        for name, before in commands.items():
            command = folder / name
            command.parent.mkdir(exist_ok=True)
            text = CLIENT.format(python=sys.executable, address=address, before=before)
            command.write_text(text)
            command.chmod(0o755)
        yield folder
    finally:
        server.stdin.close()
        server.wait()
        server.stdout.close()


# --- the server


def serve(address: str) -> None:
    """Start processes until standard input is closed."""
    own = {str(Path(__file__).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    paths = [path for path in sys.path if path not in own]
    for name in PRELOADED:
        importlib.import_module(name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    print("ready", flush=True)
    while listener in select.select([listener, 0], [], [])[0]:
        connection, _ = listener.accept()
        # The first fork waits for its child, so that processes run side by side.
        if os.fork() == 0:
            listener.close()
            _attend(connection, paths)
            os._exit(0)
        connection.close()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    os._exit(0)  # at once: nothing is left to tidy


def _attend(connection: socket.socket, paths: list[str]) -> None:
    """Run the process of a connection in a fork, and answer with its id and its exit code."""
    size, streams, _, _ = socket.recv_fds(connection, 8, 3)
    rest = connection.makefile("rb").read(int.from_bytes(size, "big"))
    arguments, folder, environment = json.loads(rest)
    child = os.fork()
    if child == 0:
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.closerange(3, 256)
        _become(arguments, folder, environment, paths)
    for stream in streams:
        os.close(stream)

    def watch() -> None:
        # The caller's process sends nothing more: its end closes the connection.
        if not connection.recv(1):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    connection.sendall(f"{child}\n".encode())
    threading.Thread(target=watch, daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with suppress(BrokenPipeError):
        connection.sendall(f"{code}\n".encode())


def _become(
    arguments: list[str], folder: str, environment: dict[str, str], paths: list[str]
) -> None:
    """Be the process of a command line of Python; does not return."""
    code: object = 1
    try:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        more = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
        sys.path[:] = [*more, *paths]
        importlib.invalidate_caches()
        _start_again(environment)
        if environment.get("WARM_CHILDREN"):
            sys.executable = str(Path(sys.argv[1]).with_name("warm-python"))
        _run(arguments)
        code = 0
    except SystemExit as error:
        code = error.code
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    if isinstance(code, str):
        print(code, file=sys.stderr)
    with suppress(BaseException):
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _start_again(environment: dict[str, str]) -> None:
    """What differs between a fork and a new process."""
    import numpy as np
    import torch

    random.seed()
    np.random.seed()
    if "OMP_NUM_THREADS" in environment:
        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))


def _run(arguments: list[str]) -> None:
    words = list(arguments)
    while words[0] == "-u":
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
        words.pop(0)
    first, *rest = words
    if first == "-c":
        code, *rest = rest
        sys.argv = ["-c", *rest]
        sys.path.insert(0, "")
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        module, *rest = rest
        sys.argv = [module, *rest]
        sys.path.insert(0, str(Path.cwd()))
        sys.modules.pop(module, None)  # runpy warns of modules that are imported already
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        assert not first.startswith("-"), first
        sys.argv = words
        sys.path.insert(0, str(Path(first).absolute().parent))
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1])

"""The process of one cell: the command line, stopped when whoever started it is gone.

``python -m cascadezoo.sweep.watchdog build SPEC -o RUN``. Standard input is a pipe that the parent
keeps open. When it ends, the build gets SIGTERM: it writes a checkpoint and leaves, so that a
sweep that was killed leaves nothing running behind it.
"""

from __future__ import annotations

import os
import runpy
import signal
import threading


def _watch() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_watch, daemon=True).start()
    runpy.run_module("cascadezoo", run_name="__main__", alter_sys=True)

"""Runs the command line in a cell's process, and stops it when its parent process ends.

``python -m cascadezoo.sweep.watchdog build SPEC -o RUN``. Standard input is a pipe that the parent
keeps open. When it closes, the build gets SIGTERM, writes a checkpoint and exits. So a killed
sweep leaves no process behind.
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

"""What one case sees: its chance, its folders, commands that are run and judged."""

from __future__ import annotations

import io
import json
import os
import random
import shlex
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaigns.outcome import EXIT_CODES, ROOT, Finding, known_codes
from campaigns.watch import Canary, Watch

__all__ = ["SECRET", "Ran", "Trial", "cause_of"]

SECRET = "CANARY-5d1c2f-what-no-command-may-show"
_TAIL = 12


@dataclass(frozen=True)
class Ran:
    """A command that ended.

    Args:
        args: the command line without ``cascadezoo``.
        exit: the exit code; None if it ended with an exception.
        code: the error code, if it reported an error.
        text: what it printed, on both streams.
    """

    args: tuple[str, ...]
    exit: int | None
    code: str | None
    text: str

    @property
    def ok(self) -> bool:
        return self.exit == 0

    def __str__(self) -> str:
        return "cascadezoo " + shlex.join(self.args)


class Trial:
    """A case while it runs, in a process of its own.

    Attributes:
        random: the chance of this case; nothing else may decide what it does.
        index: its number.
        material: what the campaign prepared, shared and read-only.
        folder: the case's own folder, in which ``work`` (the current folder), ``home`` and
            ``outside`` lie. Nothing in ``outside`` may be opened by a command.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        index: int,
        *,
        folder: Path,
        material: Path,
        send: Callable[[dict[str, Any]], None],
        cpu_seconds: float,
        memory: int,
    ) -> None:
        self.random = random.Random(f"{name}:{seed}:{index}")
        self.name, self.seed, self.index = name, seed, index
        self.folder, self.material = folder, material
        self.work, self.home, self.outside = folder / "work", folder / "home", folder / "outside"
        self.output = folder / "output.txt"
        self.cpu_seconds, self.memory = cpu_seconds, memory
        self.running = ""
        self._send = send
        self._known: set[tuple[str, str]] = set()
        self._canary: Canary | None = None
        self.watch = Watch(
            self._opened,
            read=[*_code_folders(), self.material, self.output],
            write=[self.work, self.home],
            never=[self.outside, "/proc/self/environ", "/proc/self/cmdline", "/proc/self/fd"],
        )

    def enter(self) -> None:
        """Make the folders, and the environment of a user who has nothing else."""
        for place in (self.work, self.home, self.outside):
            place.mkdir(parents=True)
        os.chdir(self.work)
        os.environ |= {
            "HOME": str(self.home),
            "TMPDIR": str(self.home / "tmp"),
            "XDG_CACHE_HOME": str(self.home / "xdg"),
            "CASCADEZOO_CACHE": str(self.home / "cascadezoo"),
            "CASCADEZOO_DATA": str(self.home / "data"),
            "TORCH_HOME": str(self.home / "torch"),
            "HF_HOME": str(self.home / "hf"),
            "MPLCONFIGDIR": str(self.home / "matplotlib"),
            "COLUMNS": "100",
        }
        (self.home / "tmp").mkdir()
        import tempfile

        tempfile.tempdir = None
        _move_hub_home(self.home / "hf")
        _be_small(self.memory)
        self.watch.install()

    def say(self, title: str) -> None:
        """State in a line what this case does."""
        self._send({"title": title})

    def find(self, kind: str, cause: str, lines: str = "") -> None:
        """Report a finding; of each cause the first counts."""
        if (kind, cause) in self._known:
            return
        self._known.add((kind, cause))
        self._send({"finding": vars(Finding(kind, cause, self.running, lines))})

    def require(self, true: bool, cause: str, lines: str = "") -> None:
        """Report a wrong result unless ``true``."""
        if not true:
            self.find("wrong", cause, lines)

    def command(self, *args: object) -> Ran:
        """Run a command line in this process, watched, and judge how it ended."""
        argv = tuple(str(a) for a in args)
        title = "cascadezoo " + shlex.join(argv)
        return self.watched(title, lambda: _run(argv, self.output, None))

    def call(self, name: str, function: Callable[[], object]) -> Ran:
        """Run what no command does alone, as if a command of that name did it."""
        return self.watched(name, lambda: _run((name,), self.output, function))

    def watched(self, title: str, action: Callable[[], Ran]) -> Ran:
        """Do what gives a :class:`Ran`, watched, and judge it as a command."""
        self.running = title
        self._send({"running": title})
        self._canary = self._canary or Canary(self.outside)
        self._canary.opened()
        cpu = time.process_time()
        before = _forget_peak()
        self.watch.active = True
        try:
            ran = action()
        finally:
            self.watch.active = False
        cpu = time.process_time() - cpu
        peak = _status("VmHWM") - before
        self._send({"peak": peak})
        self.judge(ran)
        if peak > self.memory:
            cause = f"{ran.args[0]} takes over {self.memory / 2**30:g} GiB"
            self.find("memory", cause, f"{peak / 2**30:.2f} GiB\n{tail(ran.text)}")
        if cpu > self.cpu_seconds:
            self.find("time", f"{ran.args[0]} takes over {self.cpu_seconds:g} s", f"{cpu:.1f} s")
        for name in self._canary.opened():
            self.find("opened", f"{ran.args[0]} opens what lies outside of the model", name)
        self.require(SECRET not in ran.text, f"{ran.args[0]} prints a foreign file", tail(ran.text))
        self._send({"ran": ran.exit, "code": ran.code})
        self.running = ""
        return ran

    def judge(self, ran: Ran) -> None:
        """Report unless a command ended well or with a clear error."""
        lines = tail(ran.text)
        if ran.exit is None or ran.code == "internal":
            self.find("internal", cause_of(ran.text), lines)
        elif ran.code == "memory":
            self.find("memory", f"{ran.args[0]} is out of memory: {cause_of(ran.text)}", lines)
        elif "Traceback (most recent call last)" in ran.text.partition(_MARK)[0]:
            self.find("traceback", cause_of(ran.text), lines)
        elif ran.exit != 0 and (ran.exit not in EXIT_CODES or ran.code is None):
            # `card --check` and the like answer by 1 and print no error
            if not (ran.exit == 1 and "--check" in ran.args):
                self.find("exit", f"{ran.args[0]} ends with {ran.exit} without an error", lines)
        elif ran.code is not None and ran.code not in known_codes():
            self.find("exit", f"the code {ran.code!r} is not in docs/errors.md", lines)

    def _opened(self, line: str) -> None:
        what = line.replace(str(self.folder), "CASE")
        event = what.partition(":")[0]
        self.find("opened", f"{event} at {_caller()}", what)


def _forget_peak() -> int:
    """Let the kernel measure the largest resident size anew; returns the present one."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    """Bytes that the kernel states of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _be_small(memory: int) -> None:
    """Let the machine say that it has no more memory than a case may take.

    A limit that follows from the memory of the machine then means the same on each machine.
    """
    sysconf = os.sysconf
    pages = memory // sysconf("SC_PAGE_SIZE")
    few = {"SC_PHYS_PAGES", "SC_AVPHYS_PAGES"}

    def small(name: Any) -> int:
        return min(sysconf(name), pages) if name in few else sysconf(name)

    os.sysconf = small


_MARK = "\n--- traceback of the reported error\n"


def _run(argv: tuple[str, ...], output: Path, function: Callable[[], object] | None) -> Ran:
    from cascadezoo.cli import errors, lazy
    from cascadezoo.cli.main import main

    reported: list[tuple[str, str]] = []

    def report(error: BaseException, *, as_json: bool) -> int:
        code = errors.report(error, as_json=as_json)
        stderr, sys.stderr = sys.stderr, io.StringIO()
        try:
            errors.report(error, as_json=True)
            data = json.loads(sys.stderr.getvalue())
        finally:
            sys.stderr = stderr
        trace = "".join(traceback.format_exception(error))
        reported.append((data["error"]["code"], trace))
        return code

    lazy.report = report
    start = _size(output)
    exit_code: int | None = None
    trace = ""
    try:
        if function is None:
            main(list(argv), prog_name="cascadezoo")
        else:
            exit_code = _call(function, report)
    except SystemExit as end:
        exit_code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:  # noqa: BLE001 - a finding, whatever it is
        trace = "".join(traceback.format_exception(error))
    sys.stdout.flush()
    sys.stderr.flush()
    with output.open("rb") as file:
        file.seek(start)
        text = file.read(4 << 20).decode(errors="replace")
    code = None
    if reported:
        code, trace = reported[-1]
    if trace and (exit_code is None or code in ("internal", "memory")):
        text += _MARK + trace
    return Ran(argv, exit_code, code, text)


def _call(function: Callable[[], object], report: Callable[..., int]) -> int:
    try:
        function()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - as the command line does
        return report(error, as_json=False)
    return 0


def _size(path: Path) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    return path.stat().st_size


def cause_of(text: str) -> str:
    """What a traceback ends with and the last place of the project in it."""
    place, error = "", ""
    for line in text.splitlines():
        if line.startswith("  File ") and ("/cascadezoo/" in line or "/tests/campaigns/" in line):
            name, _, rest = line.strip().removeprefix('File "').partition('"')
            short = name[name.rfind("/cascadezoo/") + 1 :] if "/cascadezoo/" in name else name
            if "/tests/" not in name:
                place = f"{short}:{rest.rpartition(' in ')[2]}"
        elif line and not line[0].isspace() and ":" in line and "Error" in line.partition(":")[0]:
            error = line.partition(":")[0]
    return f"{error or 'an error'} in {place or 'no file of cascadezoo'}"


def tail(text: str, count: int = _TAIL) -> str:
    """The last lines of a text, each of a bearable length."""
    return "\n".join(line[:300] for line in text.splitlines()[-count:])


def _caller() -> str:
    """The innermost function of cascadezoo that is running."""
    package = str(ROOT / "cascadezoo") + os.sep
    frame = sys._getframe()
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(package):
            return f"{name.removeprefix(str(ROOT) + os.sep)}:{frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "no file of cascadezoo"


def _code_folders() -> list[str]:
    """Where the code lies that this process may import."""
    rows = {sys.prefix, sys.base_prefix, sys.exec_prefix, str(ROOT / "cascadezoo")}
    rows |= {str(ROOT / "tests"), str(ROOT / "docs"), str(ROOT / "zoo_manifest.json")}
    rows |= {p for p in sys.path if p and Path(p).name in ("site-packages", "dist-packages")}
    for name in ("torch", "numpy", "cascadezoo", "huggingface_hub"):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file:
            rows.add(str(Path(file).parents[1]) if name != "cascadezoo" else str(Path(file).parent))
    return sorted(rows)


def _move_hub_home(home: Path) -> None:
    """Let the Hub's client, which read HF_HOME when it was imported, use the case's folder."""
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        constants.HF_HOME = str(home)
        constants.HF_HUB_CACHE = str(home / "hub")
        constants.HF_TOKEN_PATH = str(home / "token")
        constants.HF_STORED_TOKENS_PATH = str(home / "stored_tokens")

"""Forks a process for each case and watches it: time, memory, how it died."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import io
import json
import os
import resource
import selectors
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from campaigns.outcome import Finding, Outcome
from campaigns.trial import Trial, tail

__all__ = ["Campaign", "Case", "die_with_parent", "in_child", "run_cases", "warm_up"]

GRACE = 1.0
"""Seconds in which a case that is about to be killed writes where it is."""
_PROGRESS = 0.02
"""Seconds of CPU time that a process which does not hang has used in the meantime."""
_SLACK = 1 << 30
"""Address space that is reserved but not used: stacks of threads, arenas of malloc."""


class Case(NamedTuple):
    """One case; everything in it follows from these three."""

    campaign: str
    seed: int
    index: int

    def __str__(self) -> str:
        return f"{self.campaign}:{self.seed}:{self.index}"

    @classmethod
    def parse(cls, text: str) -> Case:
        """Read ``campaign:seed:index``; raises ValueError for anything else."""
        name, seed, index = text.split(":")
        return cls(name, int(seed), int(index))


class Campaign:
    """A kind of cases; subclasses say how one is made and judged."""

    name = ""
    seconds = 12.0
    """Wall time without any use of the CPU after which a case counts as hanging."""
    cpu_seconds = 20.0
    """CPU time that a command may take; a case may take three times as much."""
    memory = 2 << 30
    """Bytes that a case may need above those of the process it was forked from."""

    def prepare(self, material: Path) -> None:
        """Make what all cases share, in a process of its own."""

    def run(self, trial: Trial) -> None:
        """Do one case."""
        raise NotImplementedError


def warm_up() -> None:
    """Import what cases need, once; no operation of torch may run before the fork."""
    import importlib
    import pkgutil

    import torch  # noqa: F401

    import cascadezoo

    for module in pkgutil.walk_packages(cascadezoo.__path__, "cascadezoo."):
        if not module.name.endswith(("__main__", "ray_executor", "fused_norm", "demo.page")):
            importlib.import_module(module.name)
    from cascadezoo.plugins.manager import get_host

    _ = get_host().registry
    for name in (
        "matplotlib.font_manager",
        "matplotlib.figure",
        "matplotlib.backends.backend_agg",
        "PIL.PngImagePlugin",
    ):
        importlib.import_module(name)
    from PIL import Image

    Image.init()
    gc.collect()
    gc.freeze()


def in_child(action: Callable[[], object], what: str) -> None:
    """Do something in a forked process; raises RuntimeError if it fails."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException:  # noqa: BLE001 - the end of the process
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"{what} failed")


class _Child:
    """A case that runs."""

    def __init__(self, campaign: Campaign, case: Case, place: Path, material: Path) -> None:
        self.campaign, self.case, self.folder = campaign, case, place
        self.outcome = Outcome(str(case))
        self.started = time.monotonic()
        self.running = ""
        self.done = False
        self.base = 0
        self._rest = b""
        self._cpu, self._moved = 0.0, time.monotonic()
        self._hung = ""
        self._killed = 0.0
        folder = place
        folder.mkdir(parents=True)
        self.pipe, write = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.pipe)
            _case_process(campaign, case, folder, material, write)
        os.close(write)
        os.set_blocking(self.pipe, False)

    def look(self) -> None:
        """Kill the case if it hangs or takes too long; first it writes where it is."""
        now = time.monotonic()
        if self._hung:
            if now - self._killed > GRACE:
                self.kill()
            return
        cpu = _cpu_seconds(self.pid)
        if abs(cpu - self._cpu) > _PROGRESS:  # less after a child was killed
            self._cpu, self._moved = cpu, now
        if cpu > 3 * self.campaign.cpu_seconds:
            self._hung = f"uses {cpu:.0f} s of CPU time"
        elif now - self._moved > self.campaign.seconds:
            self._hung = "waits"
        if self._hung:
            self._killed = now
            os.kill(self.pid, signal.SIGUSR1)

    def kill(self) -> None:
        """End the case and what it started."""
        for end in (os.killpg, os.kill):
            try:
                end(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def read(self) -> bool:
        """Take what arrived; False at the end."""
        try:
            data = os.read(self.pipe, 1 << 16)
        except BlockingIOError:
            return True
        self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            self._take(json.loads(line))
        return bool(data)

    def _take(self, row: dict[str, Any]) -> None:
        out = self.outcome
        if "finding" in row:
            out.findings.append(Finding(**row["finding"]))
        out.title = row.get("title", out.title)
        out.peak = max(out.peak, row.get("peak", 0))
        self.running = row.get("running", self.running)
        self.base = row.get("base", self.base)
        self.done = row.get("done", self.done)
        if "ran" in row:
            out.commands += 1
            out.refused |= row["ran"] != 0
            self.running = ""

    def finish(self) -> Outcome:
        """Reap the process, look at how it died and what it used."""
        os.close(self.pipe)
        self.kill_group_only()
        _, status, usage = os.wait4(self.pid, 0)
        out = self.outcome
        out.seconds = time.monotonic() - self.started
        peak = max(0, usage.ru_maxrss * 1024 - self.base)
        text = _text(self.folder / "output.txt")
        if not self.done and self._hung:
            where = text.rpartition("(most recent call first):")[2]
            verb = "takes too long" if "CPU" in self._hung else "hangs"
            cause = f"{_word(self.running)} {verb} in {_hung_in(where)}"
            lines = "\n".join([self._hung, *where.strip().splitlines()[:8]])
            out.findings.append(Finding("time", cause, self.running, lines))
        elif not self.done:
            cause = f"{_word(self.running)} dies: status {status}"
            if os.WIFSIGNALED(status):
                name = signal.Signals(os.WTERMSIG(status)).name
                cause = f"{_word(self.running)} dies by {name}"
            out.findings.append(Finding("traceback", cause, self.running, tail(text)))
        if not self.done and peak > self.campaign.memory:  # a command that did not end
            out.peak = max(out.peak, peak)
            cause = f"{_word(self.running)} takes over {self.campaign.memory / 2**30:g} GiB"
            out.findings.append(Finding("memory", cause, self.running, f"{peak / 2**30:.2f} GiB"))
        shutil.rmtree(self.folder, ignore_errors=True)
        return out

    def kill_group_only(self) -> None:
        """End what the case started and left behind."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return


def run_cases(
    campaigns: dict[str, Campaign],
    cases: Iterable[Case],
    *,
    place: Path,
    material: Path,
    jobs: int = 1,
) -> Generator[Outcome, None, None]:
    """Run cases, each in a forked process, at most ``jobs`` at a time."""
    waiting = iter(cases)
    running: dict[int, _Child] = {}
    count, more = 0, True
    with selectors.DefaultSelector() as selector:
        try:
            while running or more:
                while more and len(running) < jobs:
                    case = next(waiting, None)
                    if case is None:
                        more = False
                        break
                    count += 1
                    campaign = campaigns[case.campaign]
                    child = _Child(campaign, case, place / f"c{count}", material / case.campaign)
                    running[child.pipe] = child
                    selector.register(child.pipe, selectors.EVENT_READ)
                for key, _ in selector.select(0.5):
                    child = running[key.fd]
                    if not child.read():
                        selector.unregister(child.pipe)
                        del running[child.pipe]
                        yield child.finish()
                for child in running.values():
                    child.look()
        finally:
            for child in running.values():
                child.kill()
                child.finish()


def _case_process(campaign: Campaign, case: Case, folder: Path, material: Path, pipe: int) -> None:
    """The forked process; never returns."""

    def send(row: dict[str, Any]) -> None:
        os.write(pipe, json.dumps(row).encode() + b"\n")

    try:
        os.setsid()
        die_with_parent()
        output = os.open(folder / "output.txt", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8", write_through=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8", write_through=True)
        faulthandler.register(signal.SIGUSR1, file=2, all_threads=False)
        size, resident = _memory()
        send({"base": resident})
        room = size + campaign.memory + _SLACK
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        trial = Trial(
            case.campaign,
            case.seed,
            case.index,
            folder=folder,
            material=material,
            send=send,
            cpu_seconds=campaign.cpu_seconds,
            memory=campaign.memory,
        )
        trial.enter()
        try:
            campaign.run(trial)
        except BaseException as error:  # noqa: BLE001 - a fault of the campaign is reported too
            text = "".join(traceback.format_exception(error))
            trial.find("harness", f"{type(error).__name__} in the campaign", tail(text))
        send({"done": True})
    finally:
        os._exit(0)


def die_with_parent() -> None:
    """Let the kernel kill this process when the one that started it ends, however that ends."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _memory() -> tuple[int, int]:
    """Address space and resident bytes of this process."""
    size, resident = Path("/proc/self/statm").read_text().split()[:2]
    page = os.sysconf("SC_PAGE_SIZE")
    return int(size) * page, int(resident) * page


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process, of the children that it has reaped and of those that run."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    fields = text.rpartition(")")[2].split()
    own = sum(int(n) for n in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return own + sum(_cpu_seconds(int(child)) for child in children)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - (1 << 20)))
        return file.read().decode(errors="replace")


def _word(command: str) -> str:
    words = command.split()
    return words[1] if len(words) > 1 and words[0] == "cascadezoo" else command or "the case"


def _hung_in(trace: str) -> str:
    """The innermost place of cascadezoo in what faulthandler wrote."""
    for line in trace.splitlines():
        if "/cascadezoo/" in line and "/tests/" not in line:
            name, _, rest = line.strip().removeprefix('File "').partition('"')
            return f"{name[name.rfind('/cascadezoo/') + 1 :]}:{rest.rpartition(' in ')[2]}"
    return "no file of cascadezoo"

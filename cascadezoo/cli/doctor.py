"""``cascadezoo doctor``."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cascadezoo._version import __version__
from cascadezoo.cli.options import examples, json_option
from cascadezoo.cli.output import echo, echo_json, table
from cascadezoo.errors import PluginError
from cascadezoo.util.numbers import human_bytes

if TYPE_CHECKING:
    from packaging.requirements import Requirement

WEIGHTS = {
    "inception": ("weights-inception-2015-12-05-6726825d.pth", "KID and FID"),
    "vgg16": ("vgg16-397923af.pth", "LPIPS, net vgg"),
    "alexnet": ("alexnet-owt-7be5be79.pth", "LPIPS, net alex"),
    "squeezenet": ("squeezenet1_1-b8a52dc0.pth", "LPIPS, net squeeze"),
}
"""Files under ``$TORCH_HOME/hub/checkpoints``, and the metrics that need them."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Args:
        part: the group: packages, devices, weights, folders, plugins.
        name: the checked item.
        text: the result.
        ok: False if cascadezoo cannot work with it.
        hint: how to fix it.
    """

    part: str
    name: str
    text: str
    ok: bool = True
    hint: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The finding as ``--json`` prints it."""
        return asdict(self)


@click.command(
    "doctor",
    epilog=examples(
        "cascadezoo doctor",
        "cascadezoo doctor --json",
    ),
)
@json_option
def command(as_json: bool) -> None:
    """Check this machine: packages, devices, weights, caches.

    Exits with 1 if something that cascadezoo itself needs is missing, too old or broken.
    Missing weights are not an error: they are downloaded when needed.
    """
    findings = examine()
    if as_json:
        echo_json({"ok": all(f.ok for f in findings), "checks": [f.to_dict() for f in findings]})
    else:
        rows = [("ok" if f.ok else "BROKEN", f.part, f.name, f.text) for f in findings]
        echo(table(("STATE", "PART", "NAME", "RESULT"), rows))
        for finding in findings:
            if finding.hint is not None:
                echo(f"Hint: {finding.name}: {finding.hint}")
    if not all(finding.ok for finding in findings):
        raise click.exceptions.Exit(1)


def examine() -> list[Finding]:
    """Run all checks; imports torch and torchvision."""
    return [*_packages(), *_devices(), *_weights(), *_folders(), *_plugins()]


def _packages() -> Iterator[Finding]:
    yield Finding("packages", "python", f"{platform.python_version()} on {platform.platform()}")
    yield Finding("packages", "cascadezoo", __version__)
    try:
        lines = metadata.requires("cascadezoo") or []
    except metadata.PackageNotFoundError:
        hint = "pip install . (or pip install -e . in a checkout)"
        yield Finding("packages", "cascadezoo", "is imported but not installed", False, hint)
        return
    from packaging.requirements import Requirement

    for requirement in (Requirement(line) for line in sorted(lines)):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _package(requirement)
    yield _torchvision()


def _package(requirement: Requirement) -> Finding:
    needed = f"{requirement.name}{requirement.specifier}"
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        hint = f"pip install '{needed}'"
        return Finding("packages", requirement.name, "missing", False, hint)
    if requirement.specifier.contains(version, prereleases=True):
        return Finding("packages", requirement.name, version)
    text = f"{version}, but cascadezoo needs {requirement.specifier}"
    return Finding("packages", requirement.name, text, False, f"pip install --upgrade '{needed}'")


def _torchvision() -> Finding:
    """Check that torch and torchvision match: a mixed pair fails at its first operator."""
    try:
        import torch
        import torchvision.ops

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        first = (str(error).splitlines() or [""])[0]
        return Finding(
            "packages",
            "torchvision operators",
            f"do not load: {type(error).__name__}: {first}",
            False,
            "install torch and torchvision from the same index: pip install -U torch torchvision",
        )
    return Finding("packages", "torchvision operators", "load")


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("devices", "torch", f"cannot be imported: {error}", False)
        return
    from cascadezoo.nn.precision import accelerates_bf16

    cpu = f"{os.cpu_count()} CPUs, {torch.get_num_threads()} threads, {_memory()}"
    bf16 = "yes" if accelerates_bf16(torch.device("cpu")) else "no"
    text = f"{cpu}, {torch.backends.cpu.get_cpu_capability()}, bf16 {bf16}"
    yield Finding("devices", "cpu", text)
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        bf16 = "yes" if accelerates_bf16(torch.device("cuda", index)) else "no"
        memory = f"{human_bytes(free)} free of {human_bytes(total)}"
        text = f"{properties.name}, {memory}, bf16 {bf16}"
        yield Finding("devices", f"cuda:{index}", text)
    if not torch.cuda.is_available():
        yield Finding("devices", "cuda", "none")
    if torch.backends.mps.is_available():
        yield Finding("devices", "mps", "available")


def _memory() -> str:
    if not hasattr(os, "sysconf"):
        return "memory unknown"
    page = os.sysconf("SC_PAGE_SIZE")
    total = human_bytes(os.sysconf("SC_PHYS_PAGES") * page)
    if "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return f"{total} of memory"
    free = _available() or os.sysconf("SC_AVPHYS_PAGES") * page
    return f"{human_bytes(free)} available of {total}"


def _available() -> int | None:
    """Memory that Linux can provide without swapping; free pages alone would exclude its caches."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    rows = dict(line.split(":", 1) for line in lines if ":" in line)
    words = rows.get("MemAvailable", "").split()
    return int(words[0]) * 1024 if words else None


def _torch_home() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME") or Path(cache) / "torch").expanduser()


def _weights() -> Iterator[Finding]:
    folder = _torch_home() / "hub" / "checkpoints"
    for name, (file, use) in WEIGHTS.items():
        path = folder / file
        if path.is_file():
            text = f"downloaded, {human_bytes(path.stat().st_size)}"
        else:
            text = f"not downloaded yet; needed for {use}"
        yield Finding("weights", name, text)


def _folders() -> Iterator[Finding]:
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    data = Path(os.environ.get("CASCADEZOO_DATA", "~/.cache/cascadezoo/data")).expanduser()
    folders = {
        "current folder": Path.cwd(),
        "TORCH_HOME": _torch_home(),
        "HF_HOME": home,
        "CASCADEZOO_DATA": data,
    }
    for name, path in folders.items():
        existing = next((p for p in (path, *path.parents) if p.exists()), None)
        if existing is None:
            yield Finding("folders", name, f"{path}: does not exist")
            continue
        free = human_bytes(shutil.disk_usage(existing).free)
        rights = "" if os.access(existing, os.W_OK) else ", not writable"
        absent = "" if path.exists() else ", does not exist yet"
        yield Finding("folders", name, f"{path}: {free} free{rights}{absent}")


def _plugins() -> Iterator[Finding]:
    from cascadezoo.plugins.manager import BUILTIN_DISTRIBUTION, get_host

    try:
        host = get_host()
    except PluginError as error:
        yield Finding("plugins", "cascadezoo", error.what, False, error.hint)
        return
    for plugin in host.plugins:
        yield Finding("plugins", plugin.origin.plugin, f"{plugin.origin.version}, {plugin.state}")
    for problem in host.problems:
        own = problem.origin.distribution == BUILTIN_DISTRIBUTION
        text = f"{problem.message}" + (f" [{problem.where}]" if problem.where else "")
        yield Finding("plugins", problem.origin.plugin, text, ok=not own)

"""That configs and plugins are imported without torch, and how long that takes.

The checks import in a process of their own, where nothing is imported yet.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascadezoo.plugins.import_guard import watch_imports
from cascadezoo.plugins.manager import blame
from cascadezoo.plugins.registry import Entry, StageEntry
from cascadezoo.spec.configs import Model

__all__ = ["Imported", "check_docs", "check_light", "check_summary", "config_fault", "import_apart"]

SLOWEST = 0.5
"""Seconds of processor time that importing a module may take, beyond what cascadezoo imports."""

_CHILD = "from cascadezoo.testing.import_checks import child; child()"


@dataclass(frozen=True, slots=True)
class Imported:
    """What importing a module did, in a process of its own.

    Args:
        seconds: of processor time, beyond what cascadezoo imports itself.
        fault: what is wrong; None where all is well.
        where: file and line of it.
        heavy: whether the fault is a heavy package.
    """

    seconds: float
    fault: str | None = None
    where: str | None = None
    heavy: bool = False

    def __str__(self) -> str:
        return f"{self.fault}{f' [{self.where}]' if self.where else ''}"


def config_fault(entry: Entry) -> tuple[str, str | None, bool] | None:
    """What is wrong with importing an entry's config: the fault, its place, whether it is heavy.

    Heavy packages are refused, so this is for a process that has imported none and ends soon.
    """
    package = entry.config.partition(":")[0].partition(".")[0]
    with watch_imports(package, refuse=True) as heavy:
        fault: tuple[str, str | None, bool] | None = None
        try:
            config = _attribute(entry.config)
            if not (isinstance(config, type) and issubclass(config, Model)):
                what = f"{entry.config} of {entry.name} is no subclass of cascadezoo.Model"
                fault = what, None, False
            elif importlib.util.find_spec(entry.impl.partition(":")[0]) is None:
                module = entry.impl.partition(":")[0]
                fault = (
                    f"{entry.name} has its implementation in {module}, which is not there",
                    None,
                    False,
                )
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's import; told
            what = (
                f"{entry.config} of {entry.name} cannot be imported: {type(error).__name__}: "
                f"{error}"
            )
            fault = what, blame(error, package), False
    if heavy:
        what = f"the config of {entry.name} imports {heavy[0].package}"
        return f"{what}, and whoever validates a spec waits for it", heavy[0].where, True
    return fault


def import_apart(target: str) -> Imported:
    """Import ``module`` or ``module:name`` in a process that refuses heavy packages."""
    path = os.pathsep.join(str(Path(part).absolute()) for part in sys.path)
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(  # noqa: S603 - this interpreter, on a module name
        [sys.executable, "-c", _CHILD, target],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    try:
        return Imported(**json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        return Imported(0.0, f"importing {target} ends Python: {last}")


def child() -> None:
    """What the process of :func:`import_apart` does."""
    importlib.import_module("cascadezoo.plugins.hookspecs")
    importlib.import_module("cascadezoo.spec.configs")
    target = sys.argv[-1]
    package = target.partition(":")[0].partition(".")[0]
    told: dict[str, Any] = {}
    began = time.process_time()
    with watch_imports(package, refuse=True) as heavy:
        try:
            _attribute(target)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's import; told
            told = {
                "fault": f"{target} cannot be imported: {type(error).__name__}: {error}",
                "where": blame(error, package),
            }
    seconds = time.process_time() - began
    if heavy:
        told = {
            "fault": f"{target.partition(':')[0]} imports {heavy[0].package}",
            "where": heavy[0].where,
            "heavy": True,
        }
    print(json.dumps({"seconds": seconds, **told}))


def check_light(imported: Imported) -> str | None:
    """What is wrong with how long an import takes."""
    if imported.fault is None and imported.seconds > SLOWEST:
        return (
            f"takes {imported.seconds:.2f} s of processor time; {SLOWEST} s is the most. "
            "python -X importtime tells which import it is"
        )
    return None


def check_summary(entry: Entry) -> str | None:
    """What is wrong with an entry's summary."""
    text = entry.summary
    if not text.strip() or len(text.splitlines()) != 1 or len(text) > 100:
        return f"the summary {text!r} is not one line of at most 100 characters"
    return None


def check_docs(entry: Entry) -> str | None:
    """What is not documented of an entry: its config, a field of it, or its implementation."""
    problem = check_summary(entry)
    if problem is not None:
        return problem
    config, impl = entry.load_config(), entry.load()
    if not vars(config).get("__doc__"):
        return f"{entry.config} has no docstring"
    schema = config.model_json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        for name, field in part.get("properties", {}).items():
            if not field.get("description"):
                return (
                    f"the field {name!r} of {part.get('title', entry.config)} has no docstring; "
                    "put a string under it: editors and `cascadezoo stages show` show it"
                )
    documented = vars(impl).get("__doc__") if isinstance(impl, type) else impl.__doc__
    if not documented and isinstance(entry, StageEntry):
        return f"{entry.impl} has no docstring"
    return None


def _attribute(target: str) -> Any:
    module, _, name = target.partition(":")
    found = importlib.import_module(module)
    return getattr(found, name) if name else found

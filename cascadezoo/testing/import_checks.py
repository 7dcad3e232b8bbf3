"""Checks that configs and plugins are imported quickly and without torch.

The checks import in a separate process, in which nothing is imported yet.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from cascadezoo.plugins.import_guard import watch_imports
from cascadezoo.plugins.registry import Entry, StageEntry
from cascadezoo.plugins.tracebacks import blame
from cascadezoo.spec.configs import Model
from cascadezoo.spec.faults import problems_of
from cascadezoo.testing.check_report import CheckError

__all__ = [
    "Imported",
    "check_docs",
    "check_light",
    "check_summary",
    "config_fault",
    "import_apart",
    "validated_config",
]

M = TypeVar("M", bound=Model)

SLOWEST = 0.5
"""Maximum of processor seconds to import a module, without the imports of cascadezoo."""

_CHILD = "from cascadezoo.testing.import_checks import child; child()"


@dataclass(frozen=True, slots=True)
class Imported:
    """The result of importing a module in a separate process.

    Args:
        seconds: processor time, without the imports of cascadezoo.
        fault: the fault; None if the import is fine.
        where: file and line of the fault.
        heavy: whether the fault is a heavy package.
    """

    seconds: float
    fault: str | None = None
    where: str | None = None
    heavy: bool = False

    def __str__(self) -> str:
        return f"{self.fault}{f' [{self.where}]' if self.where else ''}"


def config_fault(entry: Entry) -> tuple[str, str | None, bool] | None:
    """The fault of importing an entry's config, its place, and whether it is a heavy package.

    Refuses heavy packages, so call it only in a short-lived process that has imported none.
    """
    package = entry.config.partition(":")[0].partition(".")[0]
    with watch_imports(package, refuse=True) as heavy:
        fault: tuple[str, str | None, bool] | None = None
        try:
            config = _attribute(entry.config)
            if not (isinstance(config, type) and issubclass(config, Model)):
                what = f"{entry.config} of {entry.name} is not a subclass of cascadezoo.Model"
                fault = what, None, False
            elif importlib.util.find_spec(entry.impl.partition(":")[0]) is None:
                module = entry.impl.partition(":")[0]
                fault = (
                    f"the module {module} of {entry.name} does not exist",
                    None,
                    False,
                )
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin code; reported
            what = (
                f"{entry.config} of {entry.name} cannot be imported: {type(error).__name__}: "
                f"{error}"
            )
            fault = what, blame(error, package), False
    if heavy:
        what = f"the config of {entry.name} imports {heavy[0].package}"
        return f"{what}, which slows down every validation of a spec", heavy[0].where, True
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
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return Imported(0.0, f"importing {target} ends the Python process: {last}")


def child() -> None:
    """The process of :func:`import_apart`."""
    importlib.import_module("cascadezoo.plugins.hookspecs")
    importlib.import_module("cascadezoo.spec.configs")
    target = sys.argv[-1]
    package = target.partition(":")[0].partition(".")[0]
    result: dict[str, Any] = {}
    began = time.process_time()
    with watch_imports(package, refuse=True) as heavy:
        try:
            _attribute(target)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin code; reported
            result = {
                "fault": f"{target} cannot be imported: {type(error).__name__}: {error}",
                "where": blame(error, package),
            }
    seconds = time.process_time() - began
    if heavy:
        result = {
            "fault": f"{target.partition(':')[0]} imports {heavy[0].package}",
            "where": heavy[0].where,
            "heavy": True,
        }
    print(json.dumps({"seconds": seconds, **result}))


def validated_config(entry: Entry, settings: Mapping[str, Any], base: type[M]) -> M:
    """The validated config of an entry.

    Raises:
        CheckError: the config has another base class, or the settings do not validate.
    """
    model = entry.load_config()
    if not (isinstance(model, type) and issubclass(model, base)):
        raise CheckError(f"{entry.config} is not a subclass of cascadezoo.{base.__name__}")
    try:
        return model.model_validate(dict(settings))
    except ValidationError as error:
        rows = "; ".join(str(problem) for problem in problems_of(error, settings, ""))
        raise CheckError(f"invalid settings: {rows}; pass config={{...}}") from None


def check_light(imported: Imported) -> str | None:
    """The fault of an import that takes too long; None if it is fast."""
    if imported.fault is None and imported.seconds > SLOWEST:
        return (
            f"takes {imported.seconds:.2f} s of processor time; the limit is {SLOWEST} s. "
            "Run python -X importtime to find the slow import"
        )
    return None


def check_summary(entry: Entry) -> str | None:
    """The fault of an entry's summary; None if it is valid."""
    text = entry.summary
    if not text.strip() or len(text.splitlines()) != 1 or len(text) > 100:
        return f"the summary {text!r} is not one line of at most 100 characters"
    return None


def check_docs(entry: Entry) -> str | None:
    """The first undocumented part of an entry: its config, a field, or its implementation."""
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
                    "add a string below it, which editors and `cascadezoo stages show` display"
                )
    documented = vars(impl).get("__doc__") if isinstance(impl, type) else impl.__doc__
    if not documented and isinstance(entry, StageEntry):
        return f"{entry.impl} has no docstring"
    return None


def _attribute(target: str) -> Any:
    module, _, name = target.partition(":")
    loaded = importlib.import_module(module)
    return getattr(loaded, name) if name else loaded

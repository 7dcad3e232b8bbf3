"""Results of checks, and the runner of checks."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cascadezoo.errors import CascadezooError

__all__ = ["CheckError", "CheckResult", "CheckSkippedError", "Report", "raise_fault", "run_checks"]


class CheckError(Exception):
    """A check failed; the text states the error and the fix."""


class CheckSkippedError(Exception):
    """A check does not apply; the text states the reason."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check.

    Args:
        name: the name of the check.
        ok: whether it passed or was skipped.
        message: the error, or why it was skipped.
        skipped: whether it was skipped.
    """

    name: str
    ok: bool
    message: str = ""
    skipped: bool = False

    @property
    def state(self) -> str:
        """``ok``, ``skipped`` or ``failed``."""
        return "skipped" if self.skipped else "ok" if self.ok else "failed"

    def __str__(self) -> str:
        return f"{self.state:8}{self.name}{f': {self.message}' if self.message else ''}"

    def to_dict(self) -> dict[str, Any]:
        """The result as ``--json`` prints it."""
        return {"check": self.name, "state": self.state, "message": self.message or None}


@dataclass(frozen=True, slots=True)
class Report:
    """The results of all checks of one entry.

    Args:
        subject: the checked entry, for example ``stage wave.v1``.
        results: the results in the order of the checks.
    """

    subject: str
    results: tuple[CheckResult, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The results of the failed checks."""
        return tuple(result for result in self.results if not result.ok)

    def __str__(self) -> str:
        return "\n".join([self.subject, *(f"  {result}" for result in self.results)])

    def require(self) -> None:
        """Raise if any check failed.

        Raises:
            AssertionError: a check failed; the error lists all failures.
        """
        if not self.ok:
            rows = "\n".join(f"  {result}" for result in self.failures)
            count = len(self.failures)
            raise AssertionError(f"{self.subject} fails {count} of its checks:\n{rows}")


def raise_fault(fault: str | None) -> None:
    """Raise a fault, if there is one.

    Raises:
        CheckError: the fault.
    """
    if fault is not None:
        raise CheckError(fault)


def run_checks(
    subject: str, checks: Mapping[str, Callable[[], None]], skip: Collection[str] = ()
) -> Report:
    """Run checks. A check that raises has failed; the others still run.

    Raises:
        ValueError: ``skip`` contains an unknown name.
    """
    unknown = sorted(set(skip) - set(checks))
    if unknown:
        raise ValueError(f"unknown check {unknown[0]!r}; use one of {', '.join(checks)}")
    return Report(
        subject,
        tuple(
            CheckResult(name, ok=True, message="skip requested", skipped=True)
            if name in skip
            else _run(name, check)
            for name, check in checks.items()
        ),
    )


def _run(name: str, check: Callable[[], None]) -> CheckResult:
    try:
        check()
    except CheckSkippedError as reason:
        text = " ".join(str(reason).split())
        return CheckResult(name, ok=True, message=text, skipped=True)
    except CheckError as fault:
        return CheckResult(name, ok=False, message=str(fault))
    except CascadezooError as error:
        hint = f" ({error.hint})" if error.hint else ""
        return CheckResult(name, ok=False, message=" ".join(f"{error.what}{hint}".split()))
    except Exception as error:  # noqa: BLE001 - any error of plugin code is a result
        return CheckResult(name, ok=False, message=describe(error))
    return CheckResult(name, ok=True)


def describe(error: BaseException) -> str:
    """An error in one line, with the place where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" [{frames[-1].filename}:{frames[-1].lineno}]" if frames else ""
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else f"{text[:297]}..."
    return f"{type(error).__name__}: {text}{place}"

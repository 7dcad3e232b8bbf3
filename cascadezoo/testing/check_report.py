"""What checks found, and how they are run one after another."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cascadezoo.errors import CascadezooError

__all__ = ["CheckError", "CheckResult", "CheckSkippedError", "Report", "run_checks"]


class CheckError(Exception):
    """A check found something wrong; the text says what, and what to do."""


class CheckSkippedError(Exception):
    """A check has nothing to look at; the text says why."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found.

    Args:
        name: of the check.
        ok: whether all is well; also where it was left out.
        message: what is wrong, or why it was left out.
        skipped: whether it was left out.
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
        """What ``--json`` prints."""
        return {"check": self.name, "state": self.state, "message": self.message or None}


@dataclass(frozen=True, slots=True)
class Report:
    """What all checks of one entry found.

    Args:
        subject: what was checked, as ``stage wave.v1``.
        results: in the order in which they ran.
    """

    subject: str
    results: tuple[CheckResult, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.failures

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The checks that found something."""
        return tuple(result for result in self.results if not result.ok)

    def __str__(self) -> str:
        return "\n".join([self.subject, *(f"  {result}" for result in self.results)])

    def require(self) -> None:
        """Do nothing where all is well.

        Raises:
            AssertionError: with everything that is wrong.
        """
        if not self.ok:
            rows = "\n".join(f"  {result}" for result in self.failures)
            count = len(self.failures)
            raise AssertionError(f"{self.subject} fails {count} of its checks:\n{rows}")


def run_checks(
    subject: str, checks: Mapping[str, Callable[[], None]], skip: Collection[str] = ()
) -> Report:
    """Run checks; one that raises has failed, and takes none of the others down.

    Raises:
        ValueError: ``skip`` names no check.
    """
    unknown = sorted(set(skip) - set(checks))
    if unknown:
        raise ValueError(f"there is no check {unknown[0]!r}; there are {', '.join(checks)}")
    return Report(
        subject,
        tuple(
            CheckResult(name, ok=True, message="as asked", skipped=True)
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
    except Exception as error:  # noqa: BLE001 - whatever a stranger's code raises is a result
        return CheckResult(name, ok=False, message=describe(error))
    return CheckResult(name, ok=True)


def describe(error: BaseException) -> str:
    """An error in a line, with where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" [{frames[-1].filename}:{frames[-1].lineno}]" if frames else ""
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else f"{text[:297]}..."
    return f"{type(error).__name__}: {text}{place}"

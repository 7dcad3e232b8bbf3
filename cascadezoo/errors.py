"""The errors that cascadezoo raises deliberately.

CascadezooError                  exit code 1
├── InputError                   exit code 2: invalid user input
│   ├── SpecError                a spec is invalid; holds one Problem per error
│   ├── UnknownNameError         a name is unknown (kind, dataset, metric, stage)
│   ├── DataError                a dataset cannot be read
│   ├── ModelError               a model folder is incomplete, damaged or does not match its spec
│   ├── ModelReferenceError      a model reference is malformed or not found
│   ├── RunFolderError           an output folder cannot be used
│   ├── SampleError              a sampling request that the cascade does not support
│   └── ResourceError            the machine has too little memory
├── PluginError                  an installed plugin is broken or conflicts with another
├── WeightsUnavailableError      weights of a feature or perceptual network are unavailable
├── TrainingError                training cannot continue (loss not finite, out of memory)
├── CheckpointError              a checkpoint cannot be written or read
├── DiskFullError                a file cannot be written: the disk or the user's quota is full
├── RunLockedError               another build is writing to the folder
├── HubError                     a request to the Hub or its local cache failed
│   ├── HubUnavailableError      no answer, a server error or too many requests: retry later
│   ├── HubConflictError         someone else changed the repo in the meantime
│   ├── HubRefusedError          the Hub rejects what was sent
│   ├── HubNotFoundError         exit code 2: the repo, revision or file does not exist
│   └── HubDeniedError           exit code 2: the token is missing or lacks rights
├── PublishError                 a build kept its model but could not publish it
└── StoppedError                 exit code 130: stopped by a signal, after a checkpoint

A message states what is wrong and where; ``hint`` states the command or change that fixes it.
Messages may change, so programs read ``code`` and ``fields``: ``code`` begins with the code of the
error's class, and ``fields`` holds the values in the message by name.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = [
    "CascadezooError",
    "CheckpointError",
    "DataError",
    "DiskFullError",
    "HubConflictError",
    "HubDeniedError",
    "HubError",
    "HubNotFoundError",
    "HubRefusedError",
    "HubUnavailableError",
    "InputError",
    "ModelError",
    "ModelReferenceError",
    "PluginError",
    "Problem",
    "PublishError",
    "ResourceError",
    "RunFolderError",
    "RunLockedError",
    "SampleError",
    "SpecError",
    "StoppedError",
    "TrainingError",
    "UnknownNameError",
    "WeightsUnavailableError",
]


class CascadezooError(Exception):
    """Base of all errors that cascadezoo raises deliberately.

    Args:
        what: what is wrong and where, in one or a few lines.
        hint: the command or change that fixes it.
        code: the case within the class, in kebab-case; None uses the code of the class.
        fields: the values in the message by name, e.g. ``path=``, ``kind=``, ``name=``.
    """

    code: str = "error"
    exit_code: ClassVar[int] = 1

    def __init__(
        self, what: str, *, hint: str | None = None, code: str | None = None, **fields: object
    ) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        if code is not None:
            self.code = code
        self.fields: dict[str, Any] = fields

    def __str__(self) -> str:
        return self.what if self.hint is None else f"{self.what}\nHint: {self.hint}"

    def to_dict(self) -> dict[str, object]:
        """The error as ``--json`` prints it: code, message, hint, and fields if it has any."""
        data: dict[str, object] = {"code": self.code, "message": self.what, "hint": self.hint}
        if self.fields:
            data["fields"] = {name: _plain(value) for name, value in self.fields.items()}
        return data


def _plain(value: object) -> object:
    """A field as a JSON value; types that JSON lacks become text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    return str(value)


class InputError(CascadezooError):
    """Invalid user input."""

    code = "input"
    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One error in a spec: its path (``stages.1.config.factor``), a message and a hint.

    ``code`` identifies the error, in kebab-case. For the value of a field it is pydantic's type.
    """

    path: str
    message: str
    hint: str | None = None
    code: str = "invalid"

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}" if self.path else self.message
        return text if self.hint is None else f"{text} ({self.hint})"


class SpecError(InputError):
    """A spec is invalid. ``problems`` holds all its errors."""

    code = "spec"

    def __init__(
        self, problems: Iterable[Problem], *, source: str = "spec", hint: str | None = None
    ) -> None:
        self.problems = tuple(problems)
        self.source = source
        count = len(self.problems)
        head = f"{source} has {count} problem{'' if count == 1 else 's'}:"
        super().__init__("\n".join([head, *(f"  {p}" for p in self.problems)]), hint=hint)

    def to_dict(self) -> dict[str, object]:
        """The error as ``--json`` prints it."""
        rows = [
            {"code": p.code, "path": p.path, "message": p.message, "hint": p.hint}
            for p in self.problems
        ]
        return {**super().to_dict(), "problems": rows}


class UnknownNameError(InputError, KeyError):
    """Nothing is registered under that name."""

    code = "lookup"

    __str__ = InputError.__str__


class DataError(InputError):
    """A dataset is missing, unreadable or does not match its spec."""

    code = "data"


class ModelError(InputError):
    """A model folder is incomplete, damaged, or does not match its own spec."""

    code = "model"


class ModelReferenceError(InputError):
    """A model reference is malformed, ambiguous or not found."""

    code = "reference"


class RunFolderError(InputError):
    """An output folder cannot be written or contains something else."""

    code = "run-folder"


class SampleError(InputError):
    """A sampling request that the cascade does not support."""

    code = "sample"


class ResourceError(InputError):
    """The cascade needs more memory than is available."""

    code = "resources"


class PluginError(CascadezooError):
    """An installed plugin is broken, or two plugins claim the same name."""

    code = "plugin"


class WeightsUnavailableError(CascadezooError):
    """The weights of a pretrained feature or perceptual network are unavailable."""

    code = "weights"


class TrainingError(CascadezooError):
    """Training cannot continue."""

    code = "training"


class CheckpointError(CascadezooError):
    """A checkpoint cannot be written or read."""

    code = "checkpoint"


class DiskFullError(CascadezooError):
    """A file cannot be written: the disk or the user's quota is full."""

    code = "disk-full"


class RunLockedError(CascadezooError):
    """Another process is writing to the folder."""

    code = "locked"


class HubError(CascadezooError):
    """A request to the Hub, or to its cache on this machine, failed."""

    code = "hub"


class HubUnavailableError(HubError):
    """The Hub is unreachable or busy; the same request may work later.

    Args:
        what: see :class:`CascadezooError`.
        hint: see :class:`CascadezooError`.
        code: see :class:`CascadezooError`.
        fields: see :class:`CascadezooError`.
        retry_after: seconds to wait, as the Hub states them; None if it states none.
    """

    code = "hub-unavailable"

    def __init__(
        self,
        what: str,
        *,
        hint: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        **fields: object,
    ) -> None:
        super().__init__(what, hint=hint, code=code, **fields)
        self.retry_after = retry_after


class HubConflictError(HubError):
    """Someone else changed the repo in the meantime."""

    code = "hub-conflict"


class HubRefusedError(HubError):
    """The Hub rejects what was sent."""

    code = "hub-refused"


class HubNotFoundError(HubError):
    """The repo, revision or file does not exist, or the token may not see it."""

    code = "hub-not-found"
    exit_code = 2


class HubDeniedError(HubError):
    """The token is missing, or lacks the rights for the request."""

    code = "hub-denied"
    exit_code = 2


class PublishError(CascadezooError):
    """A build kept its model but could not publish it."""

    code = "publish"


class StoppedError(CascadezooError):
    """Stopped by SIGINT or SIGTERM; a checkpoint holds the training so far."""

    code = "interrupted"
    exit_code = 130


# Former names of the errors and their replacements.
_RENAMED = {
    "HubConflict": "HubConflictError",
    "HubDenied": "HubDeniedError",
    "HubNotFound": "HubNotFoundError",
    "HubRefused": "HubRefusedError",
    "HubUnavailable": "HubUnavailableError",
    "Interrupted": "StoppedError",
    "LookupFailed": "UnknownNameError",
    "PublishFailed": "PublishError",
    "RunLocked": "RunLockedError",
    "WeightsUnavailable": "WeightsUnavailableError",
}


def __getattr__(name: str) -> Any:
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    text = f"{__name__}.{name} is deprecated: use {__name__}.{_RENAMED[name]}"
    warnings.warn(text, DeprecationWarning, stacklevel=2)
    return globals()[_RENAMED[name]]

"""Every error that cascadezoo raises on purpose.

CascadezooError                  exit code 1
├── InputError                   exit code 2: what the user gave cannot be used
│   ├── SpecError                a spec does not validate; carries one Problem per fault
│   ├── UnknownNameError         a name that nothing answers to (kind, dataset, metric, stage)
│   ├── DataError                a dataset cannot be read
│   ├── ModelError               a model folder is incomplete, damaged or does not fit its spec
│   ├── ModelReferenceError      a model reference cannot be understood or found
│   ├── RunFolderError           an output folder cannot be used
│   ├── SampleError              a sampling request that the cascade cannot serve
│   └── ResourceError            more memory than the machine has
├── PluginError                  an installed plugin is broken or claims what another claims
├── WeightsUnavailableError      weights of a feature or perceptual network cannot be had
├── TrainingError                training cannot go on (loss not finite, out of memory)
├── CheckpointError              a checkpoint cannot be written or read
├── RunLockedError               another build is writing to the folder
├── HubError                     the Hub, or its cache here, did not do what was asked
│   ├── HubUnavailableError      no answer, a server error, too many requests: try again later
│   ├── HubConflictError         somebody else changed the repo meanwhile
│   ├── HubRefusedError          the Hub does not take what was sent
│   ├── HubNotFoundError         exit code 2: no such repo, revision or file
│   └── HubDeniedError           exit code 2: no token, or one that may not do this
├── PublishError                 a build's model is made and kept, but could not be published
└── StoppedError                 exit code 130: stopped by a signal, after a checkpoint

A message says what and where; ``hint`` says the command or change that mends it. Messages may
change; ``code`` and ``fields`` are what a program reads: ``code`` begins with the code of the
error's class, and ``fields`` holds the values of the message by name.
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
    """Base of all errors that cascadezoo raises on purpose.

    Args:
        what: what went wrong and where, in one or a few lines.
        hint: the exact command or change that mends it.
        code: which case of the class it is, in kebab-case; None: the class's own code.
        fields: the values of the message by name, e.g. ``path=``, ``kind=``, ``name=``.
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
        """The error as ``--json`` prints it: code, message and hint, and what fields there are."""
        data: dict[str, object] = {"code": self.code, "message": self.what, "hint": self.hint}
        if self.fields:
            data["fields"] = {name: _plain(value) for name, value in self.fields.items()}
        return data


def _plain(value: object) -> object:
    """A field as JSON can hold it; what JSON has no word for becomes text."""
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
    """What the user gave cannot be used."""

    code = "input"
    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a spec: its path (``stages.1.config.factor``), what is wrong, and a hint.

    ``code`` says which fault it is, in kebab-case; that of a field's value is pydantic's type.
    """

    path: str
    message: str
    hint: str | None = None
    code: str = "invalid"

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}" if self.path else self.message
        return text if self.hint is None else f"{text} ({self.hint})"


class SpecError(InputError):
    """A spec does not validate. ``problems`` holds every fault that was found."""

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
    """No registered thing has that name."""

    code = "lookup"

    __str__ = InputError.__str__


class DataError(InputError):
    """A dataset is missing, unreadable or not what its spec says."""

    code = "data"


class ModelError(InputError):
    """A model folder is incomplete, damaged, or does not fit its own spec."""

    code = "model"


class ModelReferenceError(InputError):
    """A model reference cannot be understood, is ambiguous, or leads nowhere."""

    code = "reference"


class RunFolderError(InputError):
    """An output folder cannot be written, or holds something else."""

    code = "run-folder"


class SampleError(InputError):
    """A sampling request that this cascade cannot serve."""

    code = "sample"


class ResourceError(InputError):
    """The cascade needs more memory than there is."""

    code = "resources"


class PluginError(CascadezooError):
    """An installed plugin is broken, or two plugins claim one name."""

    code = "plugin"


class WeightsUnavailableError(CascadezooError):
    """The weights of a pretrained feature or perceptual network cannot be had."""

    code = "weights"


class TrainingError(CascadezooError):
    """Training cannot go on."""

    code = "training"


class CheckpointError(CascadezooError):
    """A checkpoint cannot be written or read."""

    code = "checkpoint"


class RunLockedError(CascadezooError):
    """Another process is building into the folder."""

    code = "locked"


class HubError(CascadezooError):
    """The Hub, or its cache on this machine, did not do what was asked."""

    code = "hub"


class HubUnavailableError(HubError):
    """The Hub cannot be reached or cannot answer now; the same may work later.

    Args:
        what: see :class:`CascadezooError`.
        hint: see :class:`CascadezooError`.
        code: see :class:`CascadezooError`.
        fields: see :class:`CascadezooError`.
        retry_after: seconds after which the Hub asks to try again; None where it does not say.
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
    """The repo was changed by somebody else in the meantime."""

    code = "hub-conflict"


class HubRefusedError(HubError):
    """The Hub does not take what it was sent."""

    code = "hub-refused"


class HubNotFoundError(HubError):
    """The Hub has no such repo, revision or file, or does not show it to this token."""

    code = "hub-not-found"
    exit_code = 2


class HubDeniedError(HubError):
    """There is no token, or this one may not do what was asked."""

    code = "hub-denied"
    exit_code = 2


class PublishError(CascadezooError):
    """A build made its model and kept it, but could not publish it."""

    code = "publish"


class StoppedError(CascadezooError):
    """Stopped by SIGINT or SIGTERM; what was trained is in a checkpoint."""

    code = "interrupted"
    exit_code = 130


# What the errors were called before their names got one form.
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

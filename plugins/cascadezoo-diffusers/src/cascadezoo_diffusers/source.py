"""The source of a model of diffusers: a folder, or a repository on the Hub. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascadezoo.errors import ModelError, ModelReferenceError, WeightsUnavailableError

__all__ = ["CONFIG", "SCHEDULER", "WEIGHTS", "Source", "find", "read_json", "weights_of"]

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
SCHEDULER = "scheduler_config.json"

_INDEX = f"{WEIGHTS}.index.json"
_PICKLES = ("diffusion_pytorch_model.bin", "pytorch_model.bin")


@dataclass(frozen=True, slots=True)
class Source:
    """The location of a model.

    Args:
        text: a folder that diffusers saved, or ``org/name[@revision]`` on the Hub.
        revision: branch, tag or commit on the Hub; None uses that of the text, or ``main``.
    """

    text: str
    revision: str | None = None

    @property
    def folder(self) -> Path | None:
        """The folder of a local source; None for a source on the Hub."""
        try:
            root = Path(self.text).expanduser()
            return root if root.is_dir() else None
        except (RuntimeError, ValueError, OSError):  # an unknown user after ~, NUL, too long
            return None

    @property
    def is_path(self) -> bool:
        """Whether the text can only be a path."""
        name = self.repository
        return name.startswith((".", "/", "~")) or "\\" in name or name.count("/") != 1

    @property
    def repository(self) -> str:
        """The repository on the Hub, without the revision."""
        return self.text.removeprefix("hf://").partition("@")[0]

    def __str__(self) -> str:
        return self.text


def find(source: Source, names: Sequence[str]) -> tuple[str, Path] | None:
    """The first of some files that exists in a source; a file on the Hub is downloaded.

    Args:
        source: the folder or repository.
        names: paths inside the source, in the order of preference.

    Returns:
        The name and the file; None if the source has none of them.

    Raises:
        ModelReferenceError: the folder, repository or revision does not exist, or access is denied.
        WeightsUnavailableError: the Hub cannot be reached, and none of the files is in its cache.
    """
    folder = source.folder
    if folder is not None:
        present = [name for name in names if (folder / name).is_file()]
        return (present[0], folder / present[0]) if present else None
    if source.is_path:
        raise ModelReferenceError(
            f"source {source.text!r} is not a folder",
            hint="give a folder that diffusers saved, or a repository on the Hub as org/name",
            code="reference-source-not-a-folder",
            name=source.text,
        )
    unavailable: WeightsUnavailableError | None = None
    for name in names:
        try:
            path = _download(source, name)
        except WeightsUnavailableError as error:
            unavailable = error
            continue
        if path is not None:
            return name, path
    if unavailable is not None:
        raise unavailable
    return None


def weights_of(source: Source, config: str) -> Path:
    """The weights in the folder of a config.

    Args:
        source: the folder or repository.
        config: the path of the ``config.json`` inside the source.

    Raises:
        ModelError: the weights are missing, a pickle, or in parts.
        ModelReferenceError: the source no longer exists.
        WeightsUnavailableError: the Hub cannot be reached.
    """
    inner = config.removesuffix(CONFIG)
    match = find(source, [inner + WEIGHTS])
    if match is not None:
        return match[1]
    place = f"{source}/{inner}".rstrip("/")
    folder = source.folder
    if folder is not None and (folder / f"{inner}{_INDEX}").is_file():
        raise ModelError(
            f"the weights of {place} are split into parts",
            hint=_save_again(source, inner, "max_shard_size='100GB'"),
            code="model-source-in-parts",
            path=place,
        )
    pickles = [n for n in _PICKLES if folder is not None and (folder / f"{inner}{n}").is_file()]
    if pickles:
        raise ModelError(
            f"the weights of {place} are a pickle ({pickles[0]}), which is rejected because "
            "reading it can run any code",
            hint=_save_again(source, inner),
            code="model-source-pickle",
            path=place,
        )
    hint = f"the folder must contain {CONFIG} and {WEIGHTS}"
    if folder is None:
        hint = "its weights may be a pickle, which is rejected; " + _save_again(source, inner)
    raise ModelError(
        f"{place} has no {WEIGHTS}",
        hint=hint,
        code="model-source-file-missing",
        path=place,
        name=WEIGHTS,
    )


def read_json(path: Path) -> Mapping[str, Any]:
    """Read a JSON object.

    Raises:
        ModelError: the file cannot be read or is not a JSON object.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, f"cannot be read: {error}") from error
    except RecursionError:
        raise _unreadable(path, "is nested too deeply") from None
    if not isinstance(raw, Mapping):
        raise _unreadable(path, "is not a JSON object")
    return raw


def _unreadable(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"{path} {reason}", hint="copy it again", code="model-source-unreadable", path=path
    )


def _download(source: Source, name: str) -> Path | None:
    """Download a file of a repository; None if the repository does not have it."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repo = source.repository
    revision = source.revision or source.text.partition("@")[2] or None
    try:
        return Path(hf_hub_download(repo, name, revision=revision, library_name="cascadezoo"))
    except LocalEntryNotFoundError as error:
        raise _unreachable(source, name, error) from error
    except GatedRepoError as error:
        raise ModelReferenceError(
            f"access to {repo} requires accepting its terms",
            hint=f"accept them at https://huggingface.co/{repo}, then: hf auth login",
            code="reference-source-gated",
            name=repo,
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelReferenceError(
            f"{repo!r} is neither a folder nor a repository on the Hub",
            hint="check the name; for a private repository: hf auth login",
            code="reference-source-not-found",
            name=repo,
        ) from error
    except RevisionNotFoundError as error:
        raise ModelReferenceError(
            f"{repo} has no revision {revision!r}",
            hint=f"its branches and tags are listed at https://huggingface.co/{repo}/tree/main",
            code="reference-source-revision",
            name=repo,
        ) from error
    except EntryNotFoundError:
        return None
    except HFValidationError as error:
        raise ModelReferenceError(
            f"{source.text!r} is neither a folder nor the name of a repository",
            hint="write org/name or org/name@revision",
            code="reference-source-form",
            name=source.text,
        ) from error
    except (OSError, HfHubHTTPError) as error:
        raise _unreachable(source, name, error) from error


def _unreachable(source: Source, name: str, error: BaseException) -> WeightsUnavailableError:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return WeightsUnavailableError(
        f"{name} of {source} is not in the Hub's cache and cannot be downloaded: {first}",
        hint="connect to the Hub, or to a mirror in HF_ENDPOINT, without HF_HUB_OFFLINE; or run "
        f"hf download {source.repository} --local-dir DIR on a connected machine, copy DIR here "
        'and set "source": "DIR"',
        code="weights-unavailable",
        name=source.text,
    )


def _save_again(source: Source, inner: str, options: str = "") -> str:
    model = "AutoencoderKL" if "vae" in inner else "UNet2DModel"
    subfolder = f", subfolder='{inner.rstrip('/')}'" if inner else ""
    extra = f", {options}" if options else ""
    return (
        f'if you trust it, save it again: python -c "from diffusers import {model}; {model}'
        f".from_pretrained('{source}'{subfolder}).save_pretrained('saved'{extra})\", "
        'then set "source": "./saved"'
    )

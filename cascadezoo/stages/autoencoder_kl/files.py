"""The files of a diffusers ``AutoencoderKL``: where they are and what they say. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascadezoo.errors import ModelError, ModelReferenceError, WeightsUnavailableError

__all__ = [
    "CONFIG_FILE",
    "KIND",
    "WEIGHTS_FILE",
    "Source",
    "architecture_of",
    "fetch",
    "local_file",
    "read_architecture",
]

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
KIND = "autoencoder-kl.v1"

_PICKLES = ("diffusion_pytorch_model.bin", "pytorch_model.bin")

# What AutoencoderKL takes where its config.json is silent, as that of Stable Diffusion 1 is.
_DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [64],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}

# What only one value of is implemented, here as in every published AutoencoderKL.
_FIXED = {"act_fn": "silu"}
_BLOCK_TYPES = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a pretrained autoencoder lies.

    Args:
        text: a folder, or ``org/name[@revision]`` on the Hub.
        revision: branch, tag or commit on the Hub; None takes that of the text, or ``main``.
        subfolder: the folder inside that holds the autoencoder's files.
    """

    text: str
    revision: str | None = None
    subfolder: str | None = None

    @property
    def folder(self) -> Path | None:
        """The folder of the files where the source is a local one; None for one on the Hub."""
        try:
            root = Path(self.text).expanduser()
        except RuntimeError:  # ~somebody who is not there
            return None
        if not root.is_dir():
            return None
        return root / self.subfolder if self.subfolder else root

    @property
    def is_path(self) -> bool:
        """Whether the text cannot be anything but a path."""
        name = self.repository
        return name.startswith((".", "/", "~")) or "\\" in name or name.count("/") != 1

    @property
    def repository(self) -> str:
        """What the text names on the Hub, without the revision."""
        return self.text.removeprefix("hf://").partition("@")[0]

    def __str__(self) -> str:
        return f"{self.text}/{self.subfolder}" if self.subfolder else self.text


def local_file(source: Source, name: str) -> Path:
    """A file of a local source.

    Raises:
        ModelReferenceError: the source is written as a path, and there is no such folder.
        ModelError: the file is not in the folder, or only as a pickle.
    """
    folder = source.folder
    if folder is None:
        raise ModelReferenceError(
            f"{KIND}: source {source.text!r} is not a folder",
            hint="give the folder of an AutoencoderKL that diffusers saved, or its repository on "
            "the Hub as org/name",
            code="reference-source-not-a-folder",
            name=source.text,
        )
    path = folder / name
    if path.is_file():
        return path
    pickles = [other for other in _PICKLES if (folder / other).is_file()]
    if name == WEIGHTS_FILE and pickles:
        raise ModelError(
            f"{KIND}: {folder} has its weights as a pickle alone ({pickles[0]}); reading one can "
            "run any code, so it is refused",
            hint=_convert(str(folder)),
            code="model-source-pickle",
            path=folder,
        )
    hint = f"the folder must hold {CONFIG_FILE} and {WEIGHTS_FILE}"
    if not source.subfolder and (folder / "vae" / name).is_file():
        hint = 'it is a whole pipeline: set "subfolder": "vae"'
    raise ModelError(
        f"{KIND}: there is no {name} in {folder}",
        hint=hint,
        code="model-source-file-missing",
        path=folder,
        name=name,
    )


def fetch(source: Source, name: str) -> Path:
    """A file of a source; downloaded into the Hub's cache where it is on the Hub.

    Raises:
        ModelReferenceError: there is no such folder, repository or revision, or no right to it.
        ModelError: the file is not there.
        WeightsUnavailableError: the Hub cannot be reached, and the file is not in its cache.
    """
    if source.is_path or source.folder is not None:
        return local_file(source, name)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        HTTPError,  # that of httpx or its successor, whichever the installed version is made with
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repo = source.repository
    revision = source.revision or source.text.partition("@")[2] or None
    try:
        found = hf_hub_download(
            repo,
            name,
            subfolder=source.subfolder,
            revision=revision,
            library_name="cascadezoo",
        )
    except LocalEntryNotFoundError as error:
        raise _unreachable(source, repo, error) from error
    except GatedRepoError as error:
        raise ModelReferenceError(
            f"{KIND}: {repo} is open only to those who have accepted its terms",
            hint=f"accept them at https://huggingface.co/{repo}, then: hf auth login",
            code="reference-source-gated",
            name=repo,
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelReferenceError(
            f"{KIND}: there is neither a folder nor a repository {repo!r} on the Hub",
            hint="check the name; for a private repository: hf auth login",
            code="reference-source-not-found",
            name=repo,
        ) from error
    except RevisionNotFoundError as error:
        raise ModelReferenceError(
            f"{KIND}: {repo} has no revision {revision!r}",
            hint=f"its branches and tags are listed at https://huggingface.co/{repo}/tree/main",
            code="reference-source-revision",
            name=repo,
        ) from error
    except EntryNotFoundError as error:
        raise _not_in_repository(source, repo, name) from error
    except HFValidationError as error:
        raise ModelReferenceError(
            f"{KIND}: {source.text!r} is neither a folder nor the name of a repository",
            hint="write org/name or org/name@revision",
            code="reference-source-form",
            name=source.text,
        ) from error
    except (OSError, HTTPError) as error:
        raise _unreachable(source, repo, error) from error
    return Path(found)


def read_architecture(path: Path) -> dict[str, Any]:
    """The architecture that a config.json states, with diffusers' defaults written out.

    Raises:
        ModelError: the file cannot be read, or is of another model than an AutoencoderKL.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{KIND}: {path} cannot be read: {error}",
            hint="copy it again",
            code="model-source-unreadable",
            path=path,
        ) from error
    return architecture_of(raw, str(path))


def architecture_of(raw: Any, where: str) -> dict[str, Any]:
    """The fields of an AutoencoderKL's config data that its architecture follows from.

    Raises:
        ModelError: the data are of another model, or of a variant that is not implemented.
    """
    name = raw.get("_class_name") if isinstance(raw, Mapping) else None
    if name != "AutoencoderKL":
        hint = "give the folder or subfolder of an AutoencoderKL"
        if isinstance(name, str) and name.endswith("Pipeline"):
            hint = 'it is a whole pipeline: set "subfolder": "vae"'
        what = f"of {name!r}" if name else "not a diffusers model's"
        raise ModelError(
            f"{KIND}: {where} is {what}, not of an AutoencoderKL",
            hint=hint,
            code="model-source-foreign",
        )
    for field, value in _FIXED.items():
        if raw.get(field, value) != value:
            raise _variant(where, field, raw[field])
    for field, value in _BLOCK_TYPES.items():
        rows = raw.get(field, [value])
        if not isinstance(rows, list) or any(row != value for row in rows):
            raise _variant(where, field, rows)
    return {field: raw.get(field, default) for field, default in _DEFAULTS.items()}


def _variant(where: str, field: str, value: object) -> ModelError:
    return ModelError(
        f"{KIND}: {where} has {field} = {value!r}, a variant that {KIND} does not implement",
        hint="use an AutoencoderKL with plain down and up blocks and act_fn silu",
        code="model-source-variant",
        name=field,
    )


def _convert(folder: str) -> str:
    return (
        'convert it where you trust it: python -c "from diffusers import AutoencoderKL; '
        f"AutoencoderKL.from_pretrained('{folder}').save_pretrained('vae')\", then set "
        '"source": "./vae"'
    )


def _unreachable(source: Source, repo: str, error: BaseException) -> WeightsUnavailableError:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    inner = f"{source.subfolder}/" if source.subfolder else ""
    return WeightsUnavailableError(
        f"{KIND}: the weights of {source} are not in the Hub's cache, and cannot be fetched: "
        f"{first}",
        hint="one of three: connect to the Hub, or to a mirror by HF_ENDPOINT, with HF_HUB_OFFLINE "
        f"not set; on a machine that is connected, hf download {repo} {inner}{CONFIG_FILE} "
        f'{inner}{WEIGHTS_FILE} --local-dir DIR, copy DIR here and set "source": "DIR"; or train '
        "an autoencoder of your own: autoencoder.v1",
        code="weights-unavailable",
        name=source.text,
    )


def _not_in_repository(source: Source, repo: str, name: str) -> ModelError:
    place = f"the folder {source.subfolder} of {repo}" if source.subfolder else repo
    if name == CONFIG_FILE:
        hint = 'for a whole pipeline set "subfolder": "vae"'
    else:
        hint = "it may have its weights as a pickle alone, which is refused; " + _convert(repo)
    return ModelError(
        f"{KIND}: there is no {name} in {place}",
        hint=hint,
        code="model-source-file-missing",
        path=place,
        name=name,
    )

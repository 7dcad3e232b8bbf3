"""The files that a publish sends, each checked before the first request."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from cascadezoo.cards.card_file import address_card, read_card
from cascadezoo.cards.check_card import card_faults
from cascadezoo.cards.render_card import render_plain_card
from cascadezoo.errors import InputError, ModelError
from cascadezoo.hub.cache import git_blob_sha
from cascadezoo.hub.folder_copy import checked_files
from cascadezoo.hub.publish.secrets import check_safetensors, secret_in, secret_names
from cascadezoo.model_folder.files import open_file, read_file
from cascadezoo.model_folder.layout import (
    CARD,
    CONFIG,
    METRICS,
    SAMPLES,
    FileRecord,
    ModelConfig,
    is_snapshot,
    model_name,
    read_config,
    weights_path,
)
from cascadezoo.model_folder.trained_spec import published_spec
from cascadezoo.spec import CascadeSpec

__all__ = ["ModelFile", "Prepared", "check_message", "prepare", "require_card"]


@dataclass(frozen=True)
class ModelFile:
    """A file to publish.

    Args:
        name: its path in the repo.
        size: its size in bytes.
        sha256: sha256 of its content.
        source: the model folder, or the content.
    """

    name: str
    size: int
    sha256: str
    source: Path | bytes

    @classmethod
    def of(cls, name: str, content: bytes) -> ModelFile:
        """A file in memory."""
        return cls(name, len(content), hashlib.sha256(content).hexdigest(), content)

    @property
    def where(self) -> Path:
        """The path of the file in the model folder; of content, its name."""
        return self.source / self.name if isinstance(self.source, Path) else Path(self.name)

    @cached_property
    def git_sha(self) -> str:
        """Git's blob sha1 of the content, for a file outside LFS."""
        with self.open() as file:
            return git_blob_sha(file, self.size)

    def open(self) -> BinaryIO:
        """Open the content and check its size.

        The client always receives the open file: it sends paths and bytes by Xet, which a server
        may lack.

        Raises:
            ModelError: the file has changed.
        """
        if isinstance(self.source, bytes):
            return io.BytesIO(self.source)
        file = open_file(self.source, self.name)
        if os.fstat(file.fileno()).st_size != self.size:
            file.close()
            raise self.changed()
        return file

    def check(self, file: BinaryIO) -> None:
        """Compare an open file with the sha256, then rewind it.

        Raises:
            ModelError: the file has changed.
        """
        if hashlib.file_digest(file, "sha256").hexdigest() != self.sha256:  # type: ignore[arg-type]
            raise self.changed()
        file.seek(0)

    def changed(self) -> ModelError:
        """The error for a file that has changed."""
        return ModelError(
            f"{self.where} changed while it was published",
            hint="nothing was published; run the same command again when nothing writes to the "
            "folder",
            code="model-changed-while-published",
            path=self.where,
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked model, ready to publish.

    Args:
        name: the model's name.
        folder: the model folder.
        config: the config to publish. It records the sha256 of ``card``, so that a later publish
            detects an edit of the card on the Hub.
        card: the card to publish, unless the one on the Hub was edited.
        files: every file by its path, including the card.
    """

    name: str
    folder: Path
    config: ModelConfig
    card: str
    files: Mapping[str, ModelFile]


def prepare(folder: Path, repo_id: str, *, token: str | None = None) -> Prepared:
    """Check every file of a model before it is published.

    Args:
        folder: the model folder.
        repo_id: the destination, which the commands on the card name.
        token: the current token, which no file may contain.

    Raises:
        ModelError: the model is incomplete, its weights are not safetensors, the metadata of its
            card are not valid, or it contains a secret.
    """
    _refuse_secret_names(folder)
    config = read_config(folder)
    names = checked_files(folder, config)
    spec = published_spec(folder, config)
    for stage in spec.stages:
        if weights_path(stage.name) not in names:
            raise ModelError(
                f"{folder} has no weights of its stage {stage.name!r}",
                hint="give the run folder of a finished build",
                code="model-stage-without-weights",
                path=folder,
                name=stage.name,
            )
    card = _card(folder, spec, repo_id, has_card=CARD in names)
    config = _with_card(config, card.encode())
    files = {
        name: ModelFile(name, record.size, record.sha256, folder)
        for name, record in config.files.items()
        if name != CARD
    }
    files[CARD] = ModelFile.of(CARD, card.encode())
    files[CONFIG] = ModelFile.of(CONFIG, _config_bytes(folder, config))
    for model_file in files.values():
        _check_content(model_file, token)
    return Prepared(model_name(config), folder, config, card, dict(sorted(files.items())))


def _refuse_secret_names(folder: Path) -> None:
    if is_snapshot(folder):
        return  # only the files that config.json lists are published
    names = list(secret_names(folder))
    if names:
        raise ModelError(
            f"{folder} contains files that look like secrets: {', '.join(names[:5])}",
            hint="nothing was sent. Move them out of the model folder",
            code="model-secret-file",
            path=folder,
            names=tuple(names),
        )


def _card(folder: Path, spec: CascadeSpec, repo_id: str, *, has_card: bool) -> str:
    text = read_card(folder) if has_card else None
    if text is None:
        text = render_plain_card(spec)
    require_card(text, str(folder / CARD))
    return address_card(text, spec.name, repo_id)


def require_card(text: str, where: str) -> None:
    """Check the metadata of a card without the Hub.

    Raises:
        ModelError: the metadata are not valid; the error lists the faults.
    """
    faults = card_faults(text)
    if faults:
        raise ModelError(
            f"the metadata of {where} are not valid: {'; '.join(faults[:5])}",
            hint="nothing was sent. Correct the lines between the two --- at the top of the card, "
            "or build the model again",
            code="model-card-metadata",
            faults=tuple(faults),
        )


def _with_card(config: ModelConfig, card: bytes) -> ModelConfig:
    record = FileRecord(sha256=hashlib.sha256(card).hexdigest(), size=len(card))
    files = dict(sorted({**config.files, CARD: record}.items()))
    return config.model_copy(update={"files": files})


def _config_bytes(folder: Path, config: ModelConfig) -> bytes:
    if read_config(folder).files == config.files:
        return read_file(folder, CONFIG)
    text = json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False)
    return f"{text}\n".encode()


def _check_content(model_file: ModelFile, token: str | None) -> None:
    with model_file.open() as file:
        if model_file.name.endswith(".safetensors"):
            content = check_safetensors(file, str(model_file.where))
        else:
            content = file.read()
    if model_file.name == SAMPLES and not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ModelError(
            f"{model_file.where} is not a PNG image",
            hint="build the model again",
            code="model-not-png",
            path=model_file.where,
        )
    if model_file.name == METRICS:
        _require_json(model_file, content)
    secret = secret_in(content, token)
    if secret is not None:
        raise ModelError(
            f"{model_file.name} of the model contains {secret}",
            hint="nothing was sent. Remove the secret and build again; if others have seen it, "
            "revoke it",
            code="model-secret",
            name=model_file.name,
        )


def _require_json(model_file: ModelFile, content: bytes) -> None:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        raise ModelError(
            f"{model_file.where} is not JSON",
            hint="build the model again",
            code="model-not-json",
            path=model_file.where,
        ) from None


def check_message(message: str) -> str:
    """Check a commit message and join it to one line.

    Raises:
        InputError: the message is empty, too long, or contains a secret.
    """
    text = " ".join(message.split())
    if not text or len(text) > 500:
        raise InputError(
            "the commit message is empty or longer than 500 characters",
            code="input-commit-message-length",
        )
    secret = secret_in(text.encode())
    if secret is not None:
        raise InputError(
            f"the commit message contains {secret}", code="input-commit-message-secret"
        )
    return text

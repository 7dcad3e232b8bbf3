"""What a publish sends: the files of a model folder, each looked at before anything is asked."""

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

from cascadezoo.cards.card_file import address_card
from cascadezoo.cards.check_card import card_faults
from cascadezoo.cards.render_card import render_plain_card
from cascadezoo.errors import InputError, ModelError
from cascadezoo.hub.folder_copy import whole_files
from cascadezoo.hub.publish.secrets import check_safetensors, secret_in, secret_names
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

__all__ = ["Piece", "Prepared", "check_message", "prepare", "require_card"]


@dataclass(frozen=True)
class Piece:
    """A file as it is to be in the repo.

    Args:
        name: its path there.
        size: in bytes.
        sha256: of its content.
        source: where the content is, or the content itself.
    """

    name: str
    size: int
    sha256: str
    source: Path | bytes

    @classmethod
    def of(cls, name: str, content: bytes) -> Piece:
        """A file that is made in memory."""
        return cls(name, len(content), hashlib.sha256(content).hexdigest(), content)

    @cached_property
    def git_sha(self) -> str:
        """The sha1 that git knows the content by where it is no LFS file."""
        digest = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        with self.open() as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    def open(self) -> BinaryIO:
        """The content as an open file, checked so far as it can change no more unseen.

        It is always handed to the client in this form: by the Xet protocol, which a server may
        lack, the client sends paths and bytes only.

        Raises:
            ModelError: the file is not any more what it was.
        """
        if isinstance(self.source, bytes):
            return io.BytesIO(self.source)
        file = self.source.open("rb")
        if os.fstat(file.fileno()).st_size != self.size:
            file.close()
            raise self.changed()
        return file

    def check(self, file: BinaryIO) -> None:
        """Hold an open file against the sha256 once more, and go back to its beginning.

        Raises:
            ModelError: it is not any more what it was.
        """
        if hashlib.file_digest(file, "sha256").hexdigest() != self.sha256:  # type: ignore[arg-type]
            raise self.changed()
        file.seek(0)

    def changed(self) -> ModelError:
        """The error that says so."""
        return ModelError(
            f"{self.source!s} was changed while it was published",
            hint="nothing was published; run the same command again when nobody writes there",
            code="model-changed-while-published",
            path=self.source,
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model that may be published, and its files.

    Args:
        name: the model's name.
        folder: where it lies.
        config: the config that goes up with it. Its record of the card is that of ``card``, by
            which a later publish sees whether somebody edited the card on the Hub.
        card: the card that goes up where nobody edited the one on the Hub.
        pieces: every file by its path, the card among them.
    """

    name: str
    folder: Path
    config: ModelConfig
    card: str
    pieces: Mapping[str, Piece]


def prepare(folder: Path, repo_id: str, *, token: str | None = None) -> Prepared:
    """Look at every file of a model before it is published.

    Args:
        folder: the model folder.
        repo_id: where it is published to; the commands on its card name it.
        token: the token in use, which must be in none of the files.

    Raises:
        ModelError: it is not whole or is no model, its weights are not safetensors, its card's
            metadata are not valid, or there is a secret in it.
    """
    _refuse_secret_names(folder)
    config = read_config(folder)
    names = whole_files(folder, config)
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
    pieces = {
        name: Piece(name, record.size, record.sha256, folder / name)
        for name, record in config.files.items()
        if name != CARD
    }
    pieces[CARD] = Piece.of(CARD, card.encode())
    pieces[CONFIG] = Piece.of(CONFIG, _config_bytes(folder, config))
    for piece in pieces.values():
        _look_into(piece, token)
    return Prepared(model_name(config), folder, config, card, dict(sorted(pieces.items())))


def _refuse_secret_names(folder: Path) -> None:
    if is_snapshot(folder):
        return  # only what config.json lists is taken of it
    found = list(secret_names(folder))
    if found:
        raise ModelError(
            f"{folder} holds what looks like a secret: {', '.join(found[:5])}",
            hint="nothing was sent. Move it out of the model folder; a model needs no such file",
            code="model-secret-file",
            path=folder,
            names=tuple(found),
        )


def _card(folder: Path, spec: CascadeSpec, repo_id: str, *, has_card: bool) -> str:
    if has_card:
        try:
            text = (folder / CARD).read_bytes().decode()
        except UnicodeDecodeError as error:
            raise ModelError(
                f"{folder / CARD} is not UTF-8 text (byte {error.start})",
                hint="save it as UTF-8",
                code="model-card-not-text",
                path=folder / CARD,
            ) from None
    else:
        text = render_plain_card(spec)
    require_card(text, str(folder / CARD))
    return address_card(text, spec.name, repo_id)


def require_card(text: str, where: str) -> None:
    """Check the metadata of a card without the Hub.

    Raises:
        ModelError: with all that is wrong with them.
    """
    faults = card_faults(text)
    if faults:
        raise ModelError(
            f"the metadata of {where} are not valid: {'; '.join(faults[:5])}",
            hint="nothing was sent. Mend the lines between the two --- at its head, or build again",
            code="model-card-metadata",
            faults=tuple(faults),
        )


def _with_card(config: ModelConfig, card: bytes) -> ModelConfig:
    record = FileRecord(sha256=hashlib.sha256(card).hexdigest(), size=len(card))
    files = dict(sorted({**config.files, CARD: record}.items()))
    return config.model_copy(update={"files": files})


def _config_bytes(folder: Path, config: ModelConfig) -> bytes:
    if read_config(folder).files == config.files:
        return (folder / CONFIG).read_bytes()
    text = json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False)
    return f"{text}\n".encode()


def _look_into(piece: Piece, token: str | None) -> None:
    if piece.name.endswith(".safetensors") and isinstance(piece.source, Path):
        content = check_safetensors(piece.source, str(piece.source))
    else:
        with piece.open() as file:
            content = file.read()
    if piece.name == SAMPLES and not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ModelError(
            f"{piece.source!s} is not a PNG picture",
            hint="build the model again",
            code="model-not-png",
            path=piece.source,
        )
    if piece.name == METRICS:
        _require_json(piece, content)
    found = secret_in(content, token)
    if found is not None:
        raise ModelError(
            f"{piece.name} of the model holds {found}",
            hint="nothing was sent. Take it out and build again; where it was shown to others "
            "already, make a new one and revoke it",
            code="model-secret",
            name=piece.name,
        )


def _require_json(piece: Piece, content: bytes) -> None:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        raise ModelError(
            f"{piece.source!s} is not JSON",
            hint="build the model again",
            code="model-not-json",
            path=piece.source,
        ) from None


def check_message(message: str) -> str:
    """The commit's message, in one line.

    Raises:
        InputError: it is empty, too long, or holds a secret.
    """
    text = " ".join(message.split())
    if not text or len(text) > 500:
        raise InputError(
            "the commit's message is empty or longer than 500 characters",
            code="input-commit-message-length",
        )
    found = secret_in(text.encode())
    if found is not None:
        raise InputError(f"the commit's message holds {found}", code="input-commit-message-secret")
    return text

"""The weights with the best figure during a training, kept beside its checkpoints."""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from cascadezoo.cascade.cascade import Cascade
from cascadezoo.cascade.weights import save_tensors
from cascadezoo.errors import RunFolderError
from cascadezoo.model_folder.figures import Figure
from cascadezoo.util.files import disk_full

__all__ = ["BestWeights"]

_FIGURE = "figure"
_DIGEST = "training_digest"


class BestWeights:
    """One file with the weights of all stages and the figure that they had.

    The lowest value is the best. A file of another training is ignored.

    Args:
        path: the file.
        training_digest: the digest of the training.
    """

    def __init__(self, path: Path, training_digest: str) -> None:
        self.path = path
        self.training_digest = training_digest

    def figure(self) -> Figure | None:
        """The figure of the kept weights; None if none are kept.

        Raises:
            RunFolderError: the file cannot be read.
        """
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
            if metadata.get(_DIGEST) != self.training_digest:
                return None
            return Figure.from_dict(json.loads(metadata[_FIGURE]), source=self.path.name)
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise self._damaged(error) from error

    def offer(self, cascade: Cascade, figure: Figure) -> bool:
        """Keep the weights of a cascade if its figure is the best so far.

        Args:
            cascade: the cascade with the weights that were measured.
            figure: its figure.

        Returns:
            Whether they are kept.

        Raises:
            DiskFullError: the disk is full; the former weights are kept.
            RunFolderError: the file cannot be written or read.
        """
        best = self.figure()
        if best is not None and best.name == figure.name and not figure.value < best.value:
            return False
        metadata = {_FIGURE: json.dumps(figure.to_dict()), _DIGEST: self.training_digest}
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            tensors = {
                name: value.detach().cpu().clone().contiguous()
                for name, value in cascade.stages.state_dict().items()
            }
            save_tensors(tensors, part, metadata)
            part.replace(self.path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise disk_full(error, self.path) or RunFolderError(
                f"cannot write the best weights to {self.path}: {error.strerror or error}",
                hint="make the folder writable, then run the same command again",
                code="run-folder-not-writable",
                path=self.path,
            ) from error
        return True

    def load(self, cascade: Cascade) -> Figure | None:
        """Load the kept weights into a cascade.

        Returns:
            The figure that they had; None if none are kept.

        Raises:
            RunFolderError: the file cannot be read, or has other weights.
        """
        figure = self.figure()
        if figure is None:
            return None
        try:
            cascade.stages.load_state_dict(load_file(self.path))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise self._damaged(error) from error
        return figure

    def _damaged(self, error: Exception) -> RunFolderError:
        return RunFolderError(
            f"the best weights in {self.path} cannot be read: {error}",
            hint="start over with --fresh",
            code="run-folder-best-damaged",
            path=self.path,
        )

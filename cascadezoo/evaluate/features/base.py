"""The contract of feature extractors, and their shared code."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from cascadezoo.data.pixels import check_images, to_uint8
from cascadezoo.errors import InputError, PluginError, WeightsUnavailableError
from cascadezoo.plugins.faults import Guard, Owner
from cascadezoo.plugins.manager import get_registry
from cascadezoo.plugins.tracebacks import own_definition
from cascadezoo.spec.lookup import look_up

__all__ = ["FeatureExtractor", "Precision", "load_extractor", "logits_of", "tensors_digest"]

_REQUIRED = ("name", "version", "sha256", "num_features", "input_size")

Precision = Literal["fp32", "bf16"]


class FeatureExtractor(ABC):
    """Turns images into vectors with meaningful distances.

    A subclass sets the attributes and implements :meth:`features`. Floating-point images are
    rounded to 8 bits first, as if they were published.

    Attributes:
        name: the registry key, part of the name of every figure (``small``).
        version: changes whenever the same image would get different features (``v1``).
        sha256: digest of the weights that compute the features.
        num_features: the length D of a vector.
        input_size: height and width in pixels that images are resized to.
        batch_size: the maximum number of images per forward pass.
        device: the device of the network.
        head_sha256: digest of the classifier's weights if ``sha256`` excludes them; "" if it
            includes them or the extractor has no classifier.
    """

    name: str
    version: str
    sha256: str
    num_features: int
    input_size: int
    batch_size: int = 64
    device: torch.device = torch.device("cpu")
    head_sha256: str = ""
    _owner: Owner | None = None  # set when it is loaded by its name

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Compute the features of one batch.

        Args:
            images: uint8 [N, 3, H, W] in channels_last layout, on :attr:`device`.

        Returns:
            Floating [N, num_features].
        """

    def logits(self, features: Tensor) -> Tensor:
        """Compute the logits of the network's own classifier, for the Inception Score.

        Args:
            features: the features of the images, as returned by the extractor, float32 [N, D].

        Returns:
            Floating [N, classes].

        Raises:
            InputError: the extractor has no classifier that works on its features.
            WeightsUnavailableError: the classifier's weights are missing or damaged.
        """
        raise InputError(
            f"extractor {self.name!r} has no classifier on its features",
            hint='set "evaluation.extractor" to "inception", "small" or "timm:MODEL", or leave '
            '"inception-score" out of "evaluation.metrics"',
            code="input-no-classifier",
            name=self.name,
        )

    def __call__(self, images: Tensor, *, precision: Precision = "fp32") -> Tensor:
        """Compute the features of any number of images.

        Args:
            images: uint8, or floating in [-1, 1]; [N, C, H, W] with 1 or 3 channels, on any
                device. One channel is repeated to three.
            precision: ``bf16`` runs the network under autocast; the names of figures include it.

        Returns:
            float32 [N, num_features], on :attr:`device`.

        Raises:
            InputError: the images have another shape or type, or are not finite.
            PluginError: the implementation fails or does not return [N, num_features].
            WeightsUnavailableError: the features of valid images are not finite: damaged weights.
        """
        if precision not in ("fp32", "bf16"):
            raise InputError(
                f"unknown extractor precision {precision!r}",
                hint="choose fp32 or bf16",
                code="input-precision-unknown",
                name=precision,
            )
        check_images(images)
        rows = [torch.empty(0, self.num_features, device=self.device)]
        with torch.inference_mode(), self._autocast(precision):
            # Chunks of equal size: a small remainder would run slowly.
            for chunk in images.tensor_split(math.ceil(len(images) / self.batch_size) or 1):
                batch = to_uint8(chunk.to(self.device))
                batch = batch.expand(-1, 3, -1, -1)
                batch = batch.contiguous(memory_format=torch.channels_last)
                with Guard(self._owner, "in features", type(self).features):
                    features = self.features(batch)
                rows.append(self._checked(features, len(batch)))
        # Outside inference mode, so that the caller gets an ordinary tensor.
        features = torch.cat(rows)
        if not bool(torch.isfinite(features).all()):
            raise WeightsUnavailableError(
                f"extractor {self.name!r} returned features that are not finite for valid images",
                hint="the weights are damaged: delete their file and download it again",
                code="weights-not-finite",
                name=self.name,
            )
        return features

    def describe(self) -> dict[str, str | int]:
        """The description of the extractor on a metric card."""
        return {
            "name": self.name,
            "version": self.version,
            "sha256": self.sha256,
            "num_features": self.num_features,
            "input_size": self.input_size,
        }

    def _checked(self, features: Any, count: int) -> Tensor:
        if not isinstance(features, Tensor):
            raise PluginError(
                f"extractor {self.name!r} returned a {type(features).__name__}, not a tensor",
                hint="cascadezoo plugins list shows the plugin that provides it",
                code="plugin-output-type",
                name=self.name,
            )
        if features.shape != (count, self.num_features):
            raise PluginError(
                f"extractor {self.name!r} returned features of shape {tuple(features.shape)} for "
                f"{count} images, not ({count}, {self.num_features})",
                hint="cascadezoo plugins list shows the plugin that provides it",
                code="plugin-features-shape",
                name=self.name,
                shape=tuple(features.shape),
            )
        return features.float()

    def _autocast(self, precision: Precision) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16")


def load_extractor(
    name: str, config: Any = None, *, device: torch.device | str = "cpu"
) -> FeatureExtractor:
    """Load a registered extractor.

    Args:
        name: a registry key, with its argument if it takes one: ``inception``, ``small``,
            ``timm:resnet18.a1_in1k``, or the name of a plugin's extractor.
        config: an instance of the entry's config; None makes it from the name.
        device: the device of the network.

    Raises:
        UnknownNameError: the extractor is not registered.
        InputError: the extractor does not accept the argument.
        PluginError: the implementation cannot be imported, fails, or is no extractor.
        WeightsUnavailableError: the weights of the network are unavailable.
    """
    table = get_registry().features
    if config is None:
        row, config = look_up(table, name)
    else:
        row = table.get(name)
    owner, load = Owner.of(row), row.entry.load()
    with owner.guard("to load", load):
        extractor = load(config, torch.device(device))
    if not isinstance(extractor, FeatureExtractor):
        what = f"returned a {type(extractor).__name__}, not a FeatureExtractor"
        raise owner.fault(what, code="plugin-output-type", where=own_definition(load))
    missing = [name for name in _REQUIRED if not hasattr(extractor, name)]
    if missing:
        what = f"returned an extractor without {', '.join(missing)}"
        where = own_definition(type(extractor))
        raise owner.fault(what, code="plugin-features-attributes", where=where, attributes=missing)
    extractor._owner = owner
    return extractor


def logits_of(extractor: FeatureExtractor, features: Tensor) -> Tensor:
    """Call :meth:`FeatureExtractor.logits`, and blame the extractor's plugin for exceptions.

    Raises:
        InputError: the extractor has no classifier.
        PluginError: the implementation fails.
    """
    with Guard(extractor._owner, "in logits", type(extractor).logits):
        return extractor.logits(features)


def tensors_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """The sha256 of the names, types, shapes and bytes of tensors, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda row: row[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(whole.numpy().data)
    return digest.hexdigest()

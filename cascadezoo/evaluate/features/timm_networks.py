"""Any network of timm as a feature extractor: ``timm:resnet18.a1_in1k``."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from cascadezoo.errors import HubError, InputError, UnknownNameError, WeightsUnavailableError
from cascadezoo.evaluate.features.base import FeatureExtractor, tensors_digest

if TYPE_CHECKING:
    from cascadezoo.evaluate.configs import TimmConfig

__all__ = ["TimmExtractor", "load"]

_RESIZES = ("bilinear", "bicubic")
_LARGEST_WEIGHTS = 20 << 30
"""Maximum bytes of a file of weights."""


class TimmExtractor(FeatureExtractor):
    """The pooled features before the classifier.

    The whole image is resized to the network's input size, without cropping. Interpolation, mean
    and standard deviation are those of the training of the weights.

    Args:
        model: timm's name of the network, with the tag of its weights.
        network: the network with its weights.
        data: timm's data config of the network: ``input_size``, ``mean``, ``std``,
            ``interpolation``.
        device: the device of the network.

    Raises:
        InputError: the network does not accept square RGB images, or returns no feature vectors.
    """

    def __init__(
        self, model: str, network: nn.Module, data: Mapping[str, Any], device: torch.device
    ) -> None:
        self.name = f"timm:{model}"
        channels, height, width = data["input_size"]
        self.interpolation = str(data["interpolation"])
        if channels != 3 or height != width or self.interpolation not in _RESIZES:
            raise InputError(
                f"{self.name} needs {channels}x{height}x{width} images with {self.interpolation} "
                "resizing; an extractor needs square RGB images with "
                f"{' or '.join(_RESIZES)} resizing",
                hint="choose another network: timm.list_pretrained() lists them",
                code="input-network-input",
                name=self.name,
            )
        self.version = f"v1-{self.interpolation}"
        self.input_size = int(height)
        self.device = device
        self.mean, self.std = (
            torch.tensor(data[name], device=device).view(1, 3, 1, 1) for name in ("mean", "std")
        )
        # The features depend on the preprocessing as well as on the weights.
        rows = [*network.state_dict().items(), ("data.mean", self.mean), ("data.std", self.std)]
        self.sha256 = tensors_digest(rows)
        network = network.eval().requires_grad_(False)
        self.network = network.to(device).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            pooled = self._pooled(torch.zeros(1, 3, height, width, device=device))
        if pooled.dim() != 2:
            raise InputError(
                f"{self.name} returns features of shape {tuple(pooled.shape)}, not one vector per "
                "image",
                hint="choose another network: timm.list_pretrained() lists them",
                code="input-network-output",
                name=self.name,
                shape=tuple(pooled.shape),
            )
        self.num_features = pooled.shape[1]

    def features(self, images: Tensor) -> Tensor:
        """Pooled features [N, D] of uint8 images [N, 3, H, W]."""
        pixels = images.float() / 255
        size = (self.input_size, self.input_size)
        if pixels.shape[2:] != size:
            pixels = F.interpolate(pixels, size, mode=self.interpolation, antialias=True)
            pixels = pixels.clamp(0, 1)
        return self._pooled((pixels - self.mean) / self.std)

    def logits(self, features: Tensor) -> Tensor:
        """Logits of the network's own classifier; see the base class."""
        head = self.network.get_classifier()  # type: ignore[operator]
        if not isinstance(head, nn.Linear) or head.in_features != self.num_features:
            return super().logits(features)
        with torch.inference_mode():
            logits: Tensor = head(features)
        return logits

    def _pooled(self, pixels: Tensor) -> Tensor:
        maps = self.network.forward_features(pixels)  # type: ignore[operator]
        pooled: Tensor = self.network.forward_head(maps, pre_logits=True)  # type: ignore[operator]
        return pooled


def load(config: TimmConfig, device: torch.device) -> TimmExtractor:
    """Load a timm network with pretrained weights. The first use downloads them to the Hub's cache.

    Raises:
        UnknownNameError: timm does not have the network or the weights.
        InputError: the network cannot be used as an extractor.
        WeightsUnavailableError: the weights are not cached and cannot be downloaded, or the cached
            file is damaged.
    """
    # timm takes seconds to import.
    import timm
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        EntryNotFoundError,
        HTTPError,  # the exception of the HTTP client that the installed version uses
        LocalEntryNotFoundError,
    )

    from cascadezoo.hub.transport import Download, bounded

    model = _resolve(config.model)
    repo = getattr(timm.get_pretrained_cfg(model), "hf_hub_id", None)
    file = Download("model.safetensors", _LARGEST_WEIGHTS)
    try:
        with bounded(f"the weights of timm's {model}", file=file):
            if repo is not None:
                # timm requests one file name after another, and without a network waits for each.
                try:
                    hf_hub_download(repo, file.name, library_name="cascadezoo")
                except LocalEntryNotFoundError:
                    raise
                except EntryNotFoundError:
                    pass  # timm knows other file names
            network = timm.create_model(model, pretrained=True)
    except (
        *(OSError, HTTPError, RuntimeError, HubError),
        *(SafetensorError, pickle.UnpicklingError),
    ) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsUnavailableError(
            f"the weights of timm's {model} are missing or damaged in the Hub's cache and cannot "
            f"be downloaded: {first}",
            hint=f"run hf download {repo or f'timm/{model}'} on a machine with a network and copy "
            'the files to $HF_HOME/hub; or set "evaluation.extractor": "small", which ships with '
            'cascadezoo; or leave the metrics that need it out of "evaluation.metrics"',
            code="weights-unavailable",
            name=model,
        ) from error
    data = timm.data.resolve_model_data_config(network)  # type: ignore[attr-defined,no-untyped-call]
    return TimmExtractor(model, network, data, device)


def _resolve(name: str) -> str:
    """The full name of a network, with the tag of its weights.

    Accepts only names that timm registers. timm itself also accepts a repository or a folder, whose
    weights and settings are not verified.
    """
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise _unknown(f"no network {name!r}", name, [*timm.list_models(), *timm.list_pretrained()])
    weights = sorted(
        {*timm.list_pretrained(f"{architecture}.*"), *timm.list_pretrained(architecture)}
    )
    if not tag:
        tag = getattr(timm.get_pretrained_cfg(architecture), "tag", None) or ""
    full = f"{architecture}.{tag}" if tag else architecture
    if not weights:
        what = f"no pretrained weights of {architecture!r}"
        raise _unknown(what, architecture, timm.list_pretrained())
    if full not in weights:
        raise _unknown(f"no weights {tag!r} of {architecture!r}", full, weights)
    return full


def _unknown(what: str, name: str, known: list[str]) -> UnknownNameError:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    guess = f"did you mean {' or '.join(repr(f'timm:{n}') for n in near)}? " if near else ""
    return UnknownNameError(
        f"timm has {what}",
        hint=f"{guess}timm.list_pretrained() lists all names",
        code="lookup-timm-model",
        name=name,
    )

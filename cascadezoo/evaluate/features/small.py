"""The small extractor for 32x32 images. It ships with the package and needs no download.

Its card, ``assets/small-v1.md``, states the training data and the intended use.
"""

from __future__ import annotations

import hashlib
from importlib import resources

import torch
import torch.nn.functional as F
from safetensors.torch import load as load_tensors
from torch import Tensor

from cascadezoo.data.pixels import to_float
from cascadezoo.errors import WeightsUnavailableError
from cascadezoo.evaluate.features.base import FeatureExtractor
from cascadezoo.evaluate.features.small_network import NUM_FEATURES, SIZE, SmallNet
from cascadezoo.spec.configs import EmptyConfig

__all__ = ["WEIGHTS_SHA256", "SmallExtractor", "load"]

WEIGHTS_SHA256 = "ea838a551a70fd93d4242f9ea2f658efa689210bd125068ae072be6ad71f0965"
"""The digest of ``assets/small-v1.safetensors``."""

_ASSET = "assets/small-v1.safetensors"


class SmallExtractor(FeatureExtractor):
    """256 features: 96 of texture, noise and sharpness, 160 of content.

    Args:
        network: the trained network, with folded normalisation.
        device: the device of the network.
    """

    name = "small"
    version = "v1"
    sha256 = WEIGHTS_SHA256
    num_features = NUM_FEATURES
    input_size = SIZE
    batch_size = 250

    def __init__(self, network: SmallNet, device: torch.device) -> None:
        self.device = device
        self.network = network.eval().to(device).to(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        """Features [N, 256] of uint8 images [N, 3, H, W]."""
        pixels = to_float(images)
        if pixels.shape[2:] != (SIZE, SIZE):
            size = (SIZE, SIZE)
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(-1, 1)
        return self.network.features(pixels)

    def logits(self, features: Tensor) -> Tensor:
        """Logits [N, 10] of the CIFAR-10 classes from features [N, 256]."""
        with torch.inference_mode():
            return self.network.classify(features)


def load(config: EmptyConfig, device: torch.device) -> SmallExtractor:
    """Load the extractor with the bundled weights.

    Raises:
        WeightsUnavailableError: the file is missing or was changed.
    """
    return SmallExtractor(load_network(), device)


def load_network() -> SmallNet:
    """Load the trained network with its CIFAR-10 classifier, float32 on the CPU.

    Raises:
        WeightsUnavailableError: the file is missing or was changed.
    """
    asset = resources.files("cascadezoo.evaluate.features").joinpath(_ASSET)
    hint = "reinstall cascadezoo: pip install --force-reinstall --no-deps cascadezoo"
    try:
        data = asset.read_bytes()
    except OSError as error:
        raise WeightsUnavailableError(
            f"the weights of the small extractor cannot be read from {asset}: {error}",
            hint=hint,
            code="weights-unreadable",
            path=asset,
        ) from error
    if hashlib.sha256(data).hexdigest() != WEIGHTS_SHA256:
        raise WeightsUnavailableError(
            f"the weights of the small extractor in {asset} were changed",
            hint=hint,
            code="weights-changed",
            path=asset,
        )
    network = SmallNet()
    network.load_state_dict({name: value.float() for name, value in load_tensors(data).items()})
    return network.requires_grad_(False)

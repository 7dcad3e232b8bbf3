"""The standard network of FID and KID.

Heusel et al. 2017 (FID) and Binkowski et al. 2018 (KID) use the pool3 features of the Inception
network that TensorFlow published on 2015-12-05. torch-fidelity implements the network and its
resizing. This module downloads and checks the weights.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from cascadezoo.errors import WeightsUnavailableError
from cascadezoo.evaluate.features.base import FeatureExtractor, tensors_digest
from cascadezoo.spec.configs import EmptyConfig

__all__ = ["WEIGHTS_FILE", "InceptionExtractor", "load"]

WEIGHTS_FILE = "weights-inception-2015-12-05-6726825d.pth"
"""The name of the weights file in ``$TORCH_HOME/hub/checkpoints``."""

_LAYER = "2048"
_HEAD = ("fc.weight", "fc.bias")


class InceptionExtractor(FeatureExtractor):
    """The 2,048 features before the classifier, of images resized to 299x299.

    Args:
        network: torch-fidelity's network, with its weights.
        device: the device of the network.
        source: the weights file, for error messages.
    """

    name = "inception"
    version = "2015-12-05"
    num_features = 2048
    input_size = 299
    batch_size = 50

    def __init__(
        self, network: nn.Module, device: torch.device, source: Path | None = None
    ) -> None:
        # The digest excludes the head, which does not affect the features.
        rows = network.state_dict().items()
        self.sha256 = tensors_digest(row for row in rows if row[0] not in _HEAD)
        # The standard Inception Score does not use the bias.
        self._head = network.get_parameter(_HEAD[0])
        self.head_sha256 = tensors_digest([(_HEAD[0], self._head)])
        self._source = source or "the network"
        self.device = device
        self.network = network.eval().to(device).to(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        """pool3 features [N, 2048] of uint8 images [N, 3, H, W]."""
        (features,) = self.network(images)
        return torch.as_tensor(features)

    def logits(self, features: Tensor) -> Tensor:
        """torch-fidelity's ``logits_unbiased`` [N, 1008] of features [N, 2048].

        Raises:
            WeightsUnavailableError: the classifier's weights contain NaN or infinite values.
        """
        if not bool(torch.isfinite(self._head).all()):
            raise WeightsUnavailableError(
                f"the classifier ({_HEAD[0]}) of the Inception weights in {self._source} contains "
                "NaN or infinite values, so the Inception Score is undefined; the features are "
                "valid",
                hint=f"delete {self._source} and run again to download it again; or set "
                '"evaluation.extractor": "small", which has its own classifier; or leave '
                '"inception-score" out of "evaluation.metrics"',
                code="weights-classifier-not-finite",
                path=self._source,
            )
        with torch.inference_mode():
            return features @ self._head.T


def load(config: EmptyConfig, device: torch.device) -> InceptionExtractor:
    """Load the extractor with the published weights. The first use downloads 91 MB.

    Raises:
        WeightsUnavailableError: the weights file is missing and cannot be downloaded, or it is
            damaged.
    """
    # torch-fidelity takes seconds to import.
    from torch_fidelity.feature_extractor_inceptionv3 import (
        URL_INCEPTION_V3,
        FeatureExtractorInceptionV3,
    )

    path = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_FILE
    _fetch(URL_INCEPTION_V3, path)
    try:
        # torch-fidelity unpickles any object, so first verify that the file contains only tensors.
        weights = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        finite = all(
            bool(torch.isfinite(tensor).all())
            for name, tensor in weights.items()
            if name not in _HEAD
        )
        network = FeatureExtractorInceptionV3(  # type: ignore[no-untyped-call]
            "inception-v3-compat", [_LAYER], feature_extractor_weights_path=str(path)
        )
    except (RuntimeError, EOFError, OSError, AttributeError, pickle.UnpicklingError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsUnavailableError(
            f"the Inception weights in {path} cannot be read: {first}",
            hint=_damaged(path),
            code="weights-unreadable",
            path=path,
        ) from error
    if not finite:
        raise WeightsUnavailableError(
            f"the Inception weights in {path} contain NaN or infinite values",
            hint=_damaged(path),
            code="weights-not-finite",
            path=path,
        )
    return InceptionExtractor(network, device, path)


def _fetch(url: str, path: Path) -> None:
    """Download the weights unless the file exists, and check the digest in its name."""
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = path.stem.rpartition("-")[2]
        torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=False)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        raise WeightsUnavailableError(
            f"the Inception weights are missing from {path} and cannot be downloaded from {url}: "
            f"{error}",
            hint=f"put {WEIGHTS_FILE} into $TORCH_HOME/hub/checkpoints (here {path.parent}); or "
            'set "evaluation.extractor": "small", which ships with cascadezoo; or leave "kid" and '
            'other metrics that need it out of "evaluation.metrics"',
            code="weights-unavailable",
            path=path,
        ) from error


def _damaged(path: Path) -> str:
    return f"delete {path} and run again to download it again"

"""The network of the Inception distances, as everyone reports them.

Heusel et al. 2017 (FID) and Binkowski et al. 2018 (KID) measure on the pool3 features of the
Inception network that TensorFlow published on 2015-12-05. torch-fidelity holds that network
and its way of resizing; this module gets the weights, checks them and hands images over.
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
"""The file name under ``$TORCH_HOME/hub/checkpoints``."""

_LAYER = "2048"
_HEAD = ("fc.weight", "fc.bias")


class InceptionExtractor(FeatureExtractor):
    """The 2,048 features before the classifier, of images resized to 299x299.

    Args:
        network: torch-fidelity's network, with its weights.
        device: where it shall be.
        source: where the weights were read from, to be told where they are damaged.
    """

    name = "inception"
    version = "2015-12-05"
    num_features = 2048
    input_size = 299
    batch_size = 50

    def __init__(
        self, network: nn.Module, device: torch.device, source: Path | None = None
    ) -> None:
        # The head makes no features, so it is no part of what identifies them.
        rows = network.state_dict().items()
        self.sha256 = tensors_digest(row for row in rows if row[0] not in _HEAD)
        # Its weights alone: as everyone reports the Inception Score, the bias is left out.
        self._head = network.get_parameter(_HEAD[0])
        self.head_sha256 = tensors_digest([(_HEAD[0], self._head)])
        self._source = source or "the network"
        self.device = device
        self.network = network.eval().to(device).to(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        """pool3 features [N, 2048] of uint8 images [N, 3, H, W]."""
        (found,) = self.network(images)
        return torch.as_tensor(found)

    def logits(self, features: Tensor) -> Tensor:
        """torch-fidelity's ``logits_unbiased`` [N, 1008] of features [N, 2048].

        Raises:
            WeightsUnavailableError: the weights of the classifier hold NaN or infinite values.
        """
        if not bool(torch.isfinite(self._head).all()):
            raise WeightsUnavailableError(
                f"the classifier ({_HEAD[0]}) of the Inception weights in {self._source} holds NaN "
                "or infinite values, so there is no Inception Score from it; the features are "
                "sound",
                hint=f"one of: delete {self._source} and run again, so that it is fetched anew; "
                'set "evaluation.extractor": "small", which has a classifier of its own; or leave '
                '"inception-score" out of "evaluation.metrics"',
                code="weights-classifier-not-finite",
                path=self._source,
            )
        with torch.inference_mode():
            return features @ self._head.T


def load(config: EmptyConfig, device: torch.device) -> InceptionExtractor:
    """The extractor with its genuine weights; fetched on first use, 91 MB.

    Raises:
        WeightsUnavailableError: the weights are neither on the disk nor to be fetched, or the file
            that is there is damaged.
    """
    # torch-fidelity takes seconds to import.
    from torch_fidelity.feature_extractor_inceptionv3 import (
        URL_INCEPTION_V3,
        FeatureExtractorInceptionV3,
    )

    path = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_FILE
    _fetch(URL_INCEPTION_V3, path)
    try:
        # torch-fidelity unpickles anything, so the file is first held to tensors alone.
        weights = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        sound = all(
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
    if not sound:
        raise WeightsUnavailableError(
            f"the Inception weights in {path} hold NaN or infinite values",
            hint=_damaged(path),
            code="weights-not-finite",
            path=path,
        )
    return InceptionExtractor(network, device, path)


def _fetch(url: str, path: Path) -> None:
    """Download the weights, unless they are there, and hold them to the digest in their name."""
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = path.stem.rpartition("-")[2]
        torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=False)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        raise WeightsUnavailableError(
            f"the Inception weights are not in {path} and cannot be fetched from {url}: {error}",
            hint=f"one of: place {WEIGHTS_FILE} in $TORCH_HOME/hub/checkpoints (here "
            f'{path.parent}); set "evaluation.extractor": "small", which ships with cascadezoo; '
            'or leave "kid" and what else needs it out of "evaluation.metrics"',
            code="weights-unavailable",
            path=path,
        ) from error


def _damaged(path: Path) -> str:
    return f"delete {path} and run again, so that it is fetched anew"

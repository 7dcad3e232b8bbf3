"""dae.v1: a denoising autoencoder, sampled by iterated denoising."""

from __future__ import annotations

from cascadezoo.plugins.registry import StageEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    StageEntry(
        name="dae.v1",
        role="generator",
        summary="denoising autoencoder, sampled by alternate reconstruction and corruption",
        config="cascadezoo.stages.dae.config:DAEConfig",
        impl="cascadezoo.stages.dae.stage:DenoisingAutoencoder",
    ),
)

"""dae.v1: a denoising autoencoder, sampled by iterated denoising."""

from __future__ import annotations

from cascadezoo.plugins.registry import StageEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    StageEntry(
        name="dae.v1",
        role="generator",
        summary="denoising autoencoder, sampled by reconstructing and corrupting in turn",
        config="cascadezoo.stages.dae.config:DAEConfig",
        impl="cascadezoo.stages.dae.stage:DenoisingAutoencoder",
    ),
)

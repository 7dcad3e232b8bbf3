"""autoencoder.v1: a variational autoencoder whose latents other stages learn to generate."""

from __future__ import annotations

from cascadezoo.plugins.registry import StageEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    StageEntry(
        name="autoencoder.v1",
        role="decoder",
        summary="variational autoencoder; the generator draws its latents",
        config="cascadezoo.stages.autoencoder.config:AutoencoderConfig",
        impl="cascadezoo.stages.autoencoder.stage:Autoencoder",
    ),
)

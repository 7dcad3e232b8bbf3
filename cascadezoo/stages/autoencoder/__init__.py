"""autoencoder.v1: a variational autoencoder whose latents other stages learn to make."""

from __future__ import annotations

from cascadezoo.plugins.registry import StageEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    StageEntry(
        name="autoencoder.v1",
        role="decoder",
        summary="variational autoencoder: its latents are what the generator draws",
        config="cascadezoo.stages.autoencoder.config:AutoencoderConfig",
        impl="cascadezoo.stages.autoencoder.stage:Autoencoder",
    ),
)

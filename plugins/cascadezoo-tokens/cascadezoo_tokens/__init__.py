"""Discrete latents for cascadezoo: images as tokens, and a prior that draws tokens."""

from __future__ import annotations

from collections.abc import Iterable

from cascadezoo import SpecEntry, StageEntry, hookimpl


@hookimpl
def register_stages() -> Iterable[StageEntry]:
    """The stages of this plugin."""
    return [
        StageEntry(
            name="vq-autoencoder.v1",
            role="decoder",
            summary="autoencoder with a codebook that follows its latents (VQ-VAE)",
            config="cascadezoo_tokens.config:VqAutoencoderConfig",
            impl="cascadezoo_tokens.autoencoder:VqAutoencoder",
        ),
        StageEntry(
            name="ar-prior.v1",
            role="generator",
            summary="class-conditional transformer that draws tokens one after another",
            config="cascadezoo_tokens.config:ArPriorConfig",
            impl="cascadezoo_tokens.prior:ArPrior",
        ),
    ]


@hookimpl
def register_specs() -> Iterable[SpecEntry]:
    """The specs of this plugin."""
    return [
        SpecEntry(name=name, summary=summary, impl=f"cascadezoo_tokens.specs:{name}.json")
        for name, summary in (
            ("mnist-tokens", "MNIST digits from 7x7 tokens"),
            ("shapes-tokens", "shapes from 4x4 tokens, in seconds"),
        )
    ]

"""The entries of the built-in feature extractors. Does not import torch or numpy."""

from __future__ import annotations

from cascadezoo.plugins.registry import FeatureEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    FeatureEntry(
        name="inception",
        summary="the FID Inception network (2015-12-05), 2048 features at 299x299",
        config="cascadezoo.evaluate.configs:InceptionConfig",
        impl="cascadezoo.evaluate.features.inception:load",
    ),
    FeatureEntry(
        name="timm",
        summary="any network of timm by name, for example timm:resnet18.a1_in1k",
        config="cascadezoo.evaluate.configs:TimmConfig",
        impl="cascadezoo.evaluate.features.timm_networks:load",
    ),
    FeatureEntry(
        name="small",
        summary="small network that ships with the package, for offline and in-loop use",
        config="cascadezoo.evaluate.configs:SmallConfig",
        impl="cascadezoo.evaluate.features.small:load",
    ),
)

"""``dit.v1`` and ``dit-sr.v1``: the flows of ``flow.v1`` and ``flow-sr.v2`` on a transformer."""

from __future__ import annotations

from cascadezoo.nn.dit import DiT
from cascadezoo.stages.base import StageGeometry
from cascadezoo.stages.dit.config import DiTConfig, DiTFields, DiTSRConfig
from cascadezoo.stages.flow_stage import FlowStage
from cascadezoo.stages.residual_flow import ResidualFlow

__all__ = ["DiTGenerator", "DiTUpsampler"]


class DiTGenerator(FlowStage):
    """Rectified flow (Liu et al. 2023) on a diffusion transformer (Peebles & Xie 2023)."""

    Config = DiTConfig
    config: DiTConfig

    def __init__(self, config: DiTConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        self.network = _network(config, geometry, self.num_classes)


class DiTUpsampler(ResidualFlow):
    """Rectified flow of the residual to the enlarged image, on a diffusion transformer."""

    Config = DiTSRConfig
    config: DiTSRConfig

    def __init__(self, config: DiTSRConfig, geometry: StageGeometry) -> None:
        super().__init__(config, geometry)
        self.network = _network(
            config,
            geometry,
            self.num_classes,
            condition=geometry.output.channels,
            levels=self.levels,
        )


def _network(
    config: DiTFields,
    geometry: StageGeometry,
    num_classes: int | None,
    *,
    condition: int = 0,
    levels: int = 0,
) -> DiT:
    return DiT(
        geometry.output.channels,
        size=geometry.output.size,
        patch=config.patch_size,
        features=config.features,
        blocks=config.blocks,
        heads=config.heads,
        mlp_ratio=config.mlp_ratio,
        dropout=config.dropout,
        num_classes=num_classes,
        condition=condition,
        levels=levels,
    )

"""A spec after late validation: its stages with their configs and their places."""

from __future__ import annotations

from dataclasses import dataclass

from cascadezoo.plugins.registry import Origin, StageEntry
from cascadezoo.spec.configs import DataConfig, DataInfo, ImageShape, StageConfig
from cascadezoo.spec.models import CascadeSpec

__all__ = ["ResolvedSpec", "ResolvedStage"]


@dataclass(frozen=True, slots=True)
class ResolvedStage:
    """A stage with its validated config and its place in the chain of sizes."""

    name: str
    kind: str
    entry: StageEntry
    origin: Origin
    config: StageConfig
    output: ImageShape
    input: ImageShape | None


@dataclass(frozen=True, slots=True)
class ResolvedSpec:
    """A validated spec, with the kinds of this machine.

    Args:
        spec: the spec with every default written out and kinds with their versions.
        stages: its stages, from the generator on.
        data_config: the dataset's config; None when resolved for sampling only.
        data_info: information about the dataset.
    """

    spec: CascadeSpec
    stages: tuple[ResolvedStage, ...]
    data_config: DataConfig | None
    data_info: DataInfo

    @property
    def image(self) -> ImageShape:
        """The images that the cascade makes."""
        return self.stages[-1].output

    @property
    def num_classes(self) -> int | None:
        """Number of labels; None without labels."""
        return self.spec.data.num_classes or None

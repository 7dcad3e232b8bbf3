"""The config of ``transposed.v1``. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from cascadezoo.nn.sizes import factor_steps
from cascadezoo.spec.configs import ConfigError, ImageShape, UpsamplerConfig, Width
from cascadezoo.stages.shared_config import Dropout

__all__ = ["TransposedConfig"]


class TransposedConfig(UpsamplerConfig):
    """Residual blocks, then strided transposed convolutions (Zeiler et al. 2010): a baseline.

    The study includes it for its checkerboards: if the stride does not divide the kernel, some
    pixels are sums of more products than their neighbours (Odena et al. 2016). The last layer is
    a transposed convolution, so no later layer smooths them.
    """

    widths: ClassVar[tuple[str, ...]] = ("hidden",)
    repeated: ClassVar[Mapping[str, int]] = {"blocks": 1}

    hidden: Width = 64
    """Width at the upstream resolution; half of it after the first of several enlargements."""

    blocks: Annotated[int, Field(ge=0, le=256)] = 2
    """Residual blocks, all at the upstream resolution."""

    kernel: Annotated[int, Field(ge=2, le=128)] = 3
    """Height and width of the kernels. Each prime factor of `factor` is the stride of one
    transposed convolution. At a factor of 2, 3 shows the checkerboard and 4 hides it. The kernel
    must be at least the largest prime factor."""

    output: Literal["residual", "pixels"] = "residual"
    """Predict the residual to an interpolation, and start as that interpolation; or predict pixels,
    as in the original use of the layer, which then must also learn the interpolation."""

    interpolation: Literal["bicubic", "bilinear", "nearest"] = "bicubic"
    """`residual`: the fixed interpolation that the network's output is added to."""

    dropout: Dropout = 0.0
    """Dropout in every residual block."""

    def fit(self, output: ImageShape) -> Self:
        """Check that the kernels overlap without gaps.

        Raises:
            ConfigError: ``kernel`` is less than a stride.
        """
        stride = factor_steps(self.factor)[-1]
        if self.kernel < stride:
            raise ConfigError(
                "kernel",
                f"is {self.kernel}, which leaves gaps at a stride of {stride}",
                code="gaps",
            )
        return super().fit(output)

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterable[str]:
        """Warn about checkerboards."""
        yield from super().advice(output, num_classes)
        uneven = [stride for stride in factor_steps(self.factor) if self.kernel % stride]
        if uneven:
            yield (
                f"kernels of {self.kernel} overlap unevenly at a stride of {uneven[0]}, which "
                "causes the checkerboard of this baseline; to avoid it, use a kernel of "
                f"{2 * uneven[0]}, or resnet-upsampler.v1"
            )

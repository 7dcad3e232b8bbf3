"""The config of ``mean-flow.v1``. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cascadezoo.spec.configs import ImageShape, Probability
from cascadezoo.stages.shared_config import ConditionalGeneratorConfig, Guidance, UNetConfig

__all__ = ["MeanFlowConfig"]


class MeanFlowConfig(UNetConfig, ConditionalGeneratorConfig):
    """MeanFlow (Geng et al. 2025) on a small U-Net, conditioned on labels if available."""

    reflows: ClassVar[bool] = True
    stops: ClassVar[bool] = True

    flow_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = 0.75
    """Share of the training images whose two times are equal, rounded to a thousandth. They train
    the velocity, the others its average. 1 is plain flow matching; the paper uses 0.75."""

    time_sampling: Literal["logit-normal", "uniform"] = "logit-normal"
    """Distribution of the two training times, of which the later one is t."""

    time_mean: Annotated[float, Field(ge=-10.0, le=10.0)] = -0.4
    """`logit-normal`: mean of the logit; above 0 favours noise, below 0 data."""

    time_deviation: Annotated[float, Field(gt=0.0, le=10.0)] = 1.0
    """`logit-normal`: standard deviation of the logit; a larger value moves times to both ends."""

    time_scale: Annotated[float, Field(gt=0.0, le=10_000.0)] = 10.0
    """Factor of the times in [0, 1] before their sinusoidal embedding. The derivative by the time,
    which is in the target, grows with it."""

    power: Annotated[float, Field(ge=0.0, le=2.0)] = 1.0
    """Power p of the adaptive weights 1 / (error + floor)^p of the squared error; 0 is none."""

    floor: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-3
    """The floor of the adaptive weights."""

    omega: Annotated[float, Field(ge=0.0, le=1000.0)] = 1.0
    """Guidance that is trained into the network and costs nothing in sampling: the weight of the
    true velocity. The scale of guidance is omega / (1 - kappa); 1 with a kappa of 0 is none. No
    effect on data without labels."""

    kappa: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """The weight of the network's own velocity with the label in the trained guidance."""

    steps: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Number of sampling steps."""

    guidance: Guidance = 1.0
    """Scale of classifier-free guidance in sampling: 1 is none, 0 ignores the label. It doubles the
    cost, and guided averages are only approximate; see `omega`."""

    guidance_interval: Annotated[list[Probability], Field(min_length=2, max_length=2)] = [0.0, 1.0]
    """Lowest and highest noise level at the start of a step with guidance in sampling: 0 is the
    clean image, 1 is pure noise."""

    @property
    def trains_guidance(self) -> bool:
        """Whether guidance is part of the training target."""
        return (self.omega, self.kappa) != (1.0, 0.0)

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterable[str]:
        """Warn about guidance that cannot be trained or is applied twice."""
        yield from super().advice(output, num_classes)
        if not (self.conditional and num_classes is not None and self.trains_guidance):
            return
        if self.label_drop == 0:
            yield (
                f"omega is {self.omega:g} and kappa {self.kappa:g} but label_drop is 0, so the "
                "unconditional velocity that guidance needs is never trained; set label_drop to 0.1"
            )
        if self.guidance != 1:
            yield (
                f"guidance is {self.guidance:g}, but omega and kappa already train guidance of "
                f"{self.omega / (1 - self.kappa):g} into the network; set guidance to 1"
            )

"""Config fields that several stages share. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from cascadezoo.configs import GeneratorConfig, ImageShape, Probability

__all__ = ["ConditionalGeneratorConfig", "Count", "Dropout", "Guidance", "ResidualScale"]

Count = Annotated[int, Field(ge=1, le=256)]
Dropout = Annotated[float, Field(ge=0.0, lt=1.0)]
Guidance = Annotated[float, Field(ge=0.0, le=1000.0)]
ResidualScale = Annotated[float, Field(gt=0.0, le=100.0)]


class ConditionalGeneratorConfig(GeneratorConfig):
    """Base config of a generator that draws an image of a label, where the data have labels."""

    conditional: bool = True
    """Whether labels are used where the data have them."""

    label_drop: Probability = 0.1
    """Share of the training images whose label is hidden, so that guidance has an unconditional
    prediction to start from."""

    guidance: Guidance = 1.0
    """Scale of classifier-free guidance in sampling: 1 is none, 0 ignores the label, more follows
    it more closely at the cost of variety. Has no effect on data without labels."""

    def advice(self, output: ImageShape, num_classes: int | None) -> Iterable[str]:
        """Warn of guidance that starts from a prediction that is never trained."""
        yield from super().advice(output, num_classes)
        labelled = self.conditional and num_classes is not None
        if labelled and self.guidance != 1 and self.label_drop == 0:
            yield (
                f"guidance is {self.guidance:g} but label_drop is 0: the unconditional prediction "
                "that guidance starts from is never trained; set label_drop to 0.1 or guidance to 1"
            )

"""The extra losses of a spec, ``training.losses``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cascadezoo.errors import PluginError
from cascadezoo.plugins.faults import Guard, Owner
from cascadezoo.plugins.manager import get_registry
from cascadezoo.plugins.tracebacks import own_definition
from cascadezoo.spec import ResolvedSpec
from cascadezoo.spec.phases import taking_part

__all__ = ["ExtraLoss", "load_losses"]


@dataclass(frozen=True, slots=True)
class ExtraLoss:
    """A loss from ``training.losses`` of the spec."""

    stage: str
    name: str
    weight: float
    module: nn.Module
    owner: Owner | None = None

    def __call__(self, estimate: Tensor, target: Tensor) -> Tensor:
        """The weighted loss, a scalar.

        Raises:
            PluginError: the code of a plugin fails, or does not return a scalar tensor.
        """
        function = getattr(type(self.module), "forward", None)
        with Guard(self.owner, f"on stage {self.stage!r}", function):
            value = self.module(estimate, target)
        if not isinstance(value, Tensor) or value.shape != () or not value.is_floating_point():
            form = type(value).__name__
            if isinstance(value, Tensor):
                form = f"{value.dtype} {list(value.shape)}"
            what = f"returned {form} on stage {self.stage!r}, not a scalar tensor"
            where = own_definition(function)
            if self.owner is not None:
                raise self.owner.fault(
                    what, code="plugin-output-type", where=where, stage=self.stage
                )
            raise PluginError(
                f"the loss {self.name!r} {what}", code="plugin-output-type", name=self.name
            )
        return self.weight * value


def load_losses(resolved: ResolvedSpec, device: torch.device) -> list[ExtraLoss]:
    """Load the losses that have an effect: a weight, and a stage that they train.

    Args:
        resolved: the spec.
        device: the training device.

    Raises:
        WeightsUnavailableError: the weights of a loss's network are not available.
        PluginError: a loss cannot be imported or made.
    """
    outputs = {stage.name: stage.output for stage in resolved.stages}
    losses = []
    for loss in resolved.spec.training.losses or ():
        if loss.weight == 0.0 or not _trains(resolved, loss.stage):
            continue
        row = get_registry().losses.get(loss.kind)
        config = row.entry.load_config().model_validate(loss.config)
        owner, make = Owner.of(row), row.entry.load()
        with owner.guard("to be made", make):
            module = make(config, outputs[loss.stage]).to(device)
        losses.append(ExtraLoss(loss.stage, loss.kind, loss.weight, module, owner))
    return losses


def _trains(resolved: ResolvedSpec, name: str) -> bool:
    """Whether a loss on a stage's estimate trains this stage or an earlier one.

    A stage without parameters passes gradients on only in joint phases.
    """
    index = [stage.name for stage in resolved.stages].index(name)
    bare = [stage.config.parameterless for stage in resolved.stages]
    if not bare[index]:
        return True
    for phase in resolved.spec.training.phases or ():
        named = [stage.name in phase.train for stage in resolved.stages]
        if phase.joint and taking_part(named, bare, joint=True)[index]:
            return True
    return False

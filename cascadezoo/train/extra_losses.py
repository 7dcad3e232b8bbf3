"""The extra losses of a spec, ``training.losses``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from cascadezoo.plugins.manager import get_registry
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


def load_losses(resolved: ResolvedSpec, device: torch.device) -> list[ExtraLoss]:
    """Load the losses that have an effect: a weight, and a stage that they train.

    Args:
        resolved: the spec.
        device: the training device.

    Raises:
        WeightsUnavailableError: the weights of a loss's network are not available.
        PluginError: a loss cannot be imported.
    """
    outputs = {stage.name: stage.output for stage in resolved.stages}
    losses = []
    for loss in resolved.spec.training.losses or ():
        if loss.weight == 0.0 or not _trains(resolved, loss.stage):
            continue
        entry = get_registry().losses.get(loss.kind).entry
        config = entry.load_config().model_validate(loss.config)
        module = entry.load()(config, outputs[loss.stage]).to(device)
        losses.append(ExtraLoss(loss.stage, loss.kind, loss.weight, module))
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

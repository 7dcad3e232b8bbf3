"""The losses that ``training.losses`` of a spec names, loaded."""

from __future__ import annotations

import torch

from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec import ResolvedSpec
from cascadezoo.spec.phases import taking_part
from cascadezoo.train.step import ExtraLoss

__all__ = ["load_losses"]


def load_losses(resolved: ResolvedSpec, device: torch.device) -> list[ExtraLoss]:
    """Load those that count for anything: that have a weight, and somebody to train.

    Args:
        resolved: the spec that names them.
        device: where they are computed.

    Raises:
        WeightsUnavailableError: a loss has a network whose weights cannot be had.
        PluginError: a loss cannot be imported.
    """
    outputs = {stage.name: stage.output for stage in resolved.stages}
    made = []
    for loss in resolved.spec.training.losses or ():
        if loss.weight == 0.0 or not _counts(resolved, loss.stage):
            continue
        entry = get_registry().losses.get(loss.kind).entry
        config = entry.load_config().model_validate(loss.config)
        module = entry.load()(config, outputs[loss.stage]).to(device)
        made.append(ExtraLoss(loss.stage, loss.kind, loss.weight, module))
    return made


def _counts(resolved: ResolvedSpec, name: str) -> bool:
    """Whether a loss on a stage's estimate trains anything: itself, or what stands before it.

    A stage that has no parameters hands gradients on in joint phases alone.
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

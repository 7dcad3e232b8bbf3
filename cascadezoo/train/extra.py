"""The losses that ``training.losses`` of a spec names, loaded."""

from __future__ import annotations

import torch

from cascadezoo.plugins import get_registry
from cascadezoo.spec import ResolvedSpec
from cascadezoo.train.step import ExtraLoss

__all__ = ["load_losses"]


def load_losses(resolved: ResolvedSpec, device: torch.device) -> list[ExtraLoss]:
    """Load those that count for anything.

    Args:
        resolved: the spec that names them.
        device: where they are computed.

    Raises:
        WeightsUnavailable: a loss has a network whose weights cannot be had.
        PluginError: a loss cannot be imported.
    """
    outputs = {stage.name: stage.output for stage in resolved.stages}
    made = []
    for loss in resolved.spec.training.losses or ():
        if loss.weight == 0.0:
            continue
        entry = get_registry().losses.get(loss.kind).entry
        config = entry.load_config().model_validate(loss.config)
        module = entry.load()(config, outputs[loss.stage]).to(device)
        made.append(ExtraLoss(loss.stage, loss.kind, loss.weight, module))
    return made

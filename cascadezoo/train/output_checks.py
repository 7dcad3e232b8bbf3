"""Checks of what stages return in training: fully in the first step of a phase, briefly later.

No check waits for the device: whether an estimate is finite is read together with the losses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cascadezoo.cascade.assemble import unsaved_buffers
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.cascade.stage_calls import require_tensor, stage_fault
from cascadezoo.errors import TrainingError
from cascadezoo.stages.base import GROUP, Loss, Stage, StageOutput

__all__ = ["OutputChecks"]


class OutputChecks:
    """The checks of one phase.

    Args:
        cascade: the cascade; the parameters that the phase trains require gradients.
        phase: the name of the phase.
    """

    def __init__(self, cascade: Cascade, phase: str) -> None:
        self.cascade = cascade
        self.phase = phase
        self.flags: dict[str, Tensor] = {}
        """Whether the first estimate of each stage is finite, by stage; until it is read."""
        self._checked: set[str] = set()
        self._running: set[str] = set()
        self._learning = {
            name: {
                group
                for group, parameters in stage.parameter_groups().items()
                if any(p.requires_grad for p in parameters)
            }
            for name, stage in cascade.named_stages()
        }
        self._unsaved: dict[str, dict[str, tuple[Tensor, int]]] = {}

    def first(self, name: str) -> bool:
        """Whether a stage has not run in this phase, apart from the current step."""
        return name not in self._checked

    def begin(self, name: str, stage: Stage) -> None:
        """Note the buffers that checkpoints do not hold, before a stage first runs."""
        if name not in self._running:
            self._running.add(name)
            self._unsaved[name] = {key: (b, b._version) for key, b in unsaved_buffers(stage)}

    def output(self, name: str, stage: Stage, output: Any, target: Tensor) -> StageOutput:
        """Check the type, and in the first step also the estimate, the losses and the figures.

        Raises:
            PluginError: the output has another type, shape, dtype or device.
        """
        if not isinstance(output, StageOutput):
            form = type(output).__name__
            what = f"returned a {form}, not a StageOutput"
            raise stage_fault(stage, "forward", what, code="plugin-output-type")
        if not self.first(name):
            return output
        require_tensor(
            stage,
            "forward",
            "the estimate",
            output.estimate,
            shape=tuple(target.shape),
            device=target.device,
        )
        self.flags[name] = torch.isfinite(output.estimate.detach()).all()
        for what, rows in (("loss", output.losses), ("figure", output.figures)):
            for key, row in rows.items():
                value = row.value if isinstance(row, Loss) else row
                require_tensor(
                    stage,
                    "forward",
                    f"the {what} {key!r}",
                    value,
                    shape=(),
                    device=target.device,
                    dtype=None,
                )
        for key, value in output.statistics.items():
            if not isinstance(value, Tensor):
                what = f"returned a {type(value).__name__} as the statistic {key!r}, not a tensor"
                raise stage_fault(stage, "forward", what, code="plugin-output-type")
        return output

    def passes_gradients(
        self, stage: Stage, estimate: Tensor, upstream: Tensor | None, need: str
    ) -> None:
        """Check an estimate through which gradients must reach earlier stages or this one.

        Args:
            stage: the stage.
            estimate: its estimate.
            upstream: its input.
            need: what needs the gradients, for messages.

        Raises:
            PluginError: it is detached from the stage's parameters and its upstream image.
        """
        if stage.geometry.output.tokens is not None:
            return  # gradients end at tokens
        learns = any(p.requires_grad for p in stage.parameters())
        if estimate.requires_grad or not (
            learns or (upstream is not None and upstream.requires_grad)
        ):
            return
        raise stage_fault(
            stage,
            "forward",
            f"returned an estimate without a gradient, which {need}: do not detach it",
            code="plugin-estimate-detached",
        )

    def loss(self, name: str, stage: Stage, key: str, group: str, value: Tensor) -> None:
        """Check that a loss has a gradient if its group learns.

        Raises:
            PluginError: it has none, so it would train nothing.
        """
        if value.requires_grad or group not in self._learning[name]:
            return
        raise stage_fault(
            stage,
            "forward",
            f"returned the loss {key!r} without a gradient, so it trains nothing: compute it from "
            "the parameters, leave it out in steps without it, or return it in "
            "StageOutput.figures",
            code="plugin-loss-without-gradient",
            loss=key,
            group=group,
        )

    def end(
        self,
        losses: Mapping[str, float | Tensor],
        groups: Iterable[tuple[str, str, Sequence[nn.Parameter]]],
    ) -> None:
        """Check a step after its backward pass, if a stage ran for the first time.

        Args:
            losses: the losses by ``stage.loss``.
            groups: stage, group, and the parameters that learn in this step.

        Raises:
            PluginError: no parameter of a group has a gradient, or the step changed a buffer that
                checkpoints do not hold.
        """
        if len(self._running) == len(self._checked):
            return
        new = self._running - self._checked
        self._checked |= self._running
        for name in new:
            self._check_buffers(name)
        having = {key.partition(".")[0] for key in losses}
        for name, group, parameters in groups:
            if name not in new & having:
                continue
            if parameters and all(p.grad is None for p in parameters):
                which = "" if group == GROUP else f" of the group {group!r}"
                raise stage_fault(
                    self.cascade.stage(name),
                    "forward",
                    f"returned losses that depend on no parameter{which}",
                    code="plugin-loss-without-gradient",
                    group=group,
                )

    def _check_buffers(self, name: str) -> None:
        stage, before = self.cascade.stage(name), self._unsaved.pop(name)
        for key, buffer in unsaved_buffers(stage):
            kept, version = before.get(key, (None, 0))
            if kept is not buffer or buffer._version != version:
                raise stage_fault(
                    stage,
                    "forward",
                    f"changes the buffer {key!r}, which checkpoints and models do not contain: "
                    "register it with persistent=True",
                    code="plugin-state-unsaved",
                    buffer=key,
                )

    def take_flags(self) -> dict[str, Tensor]:
        """Return the flags, and keep none."""
        flags, self.flags = self.flags, {}
        return flags

    def read(self, finite: Mapping[str, float]) -> None:
        """Check flags that were read from the device together with losses.

        Args:
            finite: the flags by stage; zero for an estimate that is not finite.

        Raises:
            PluginError: an estimate of a plugin's stage is not finite.
            TrainingError: an estimate of a built-in stage is not finite.
        """
        for name, flag in finite.items():
            if flag:
                continue
            stage = self.cascade.stage(name)
            owner = stage._owner
            where = f"in the first step of phase {self.phase!r}"
            if owner is None or not owner.builtin:
                what = f"returned an estimate that is not finite {where}"
                raise stage_fault(stage, "forward", what, code="plugin-estimate-not-finite")
            raise TrainingError(
                f"the estimate of stage {name!r} is not finite {where}",
                hint="use --precision fp32, or check the weights and images that it starts from",
                code="training-estimate-not-finite",
                name=name,
            )

"""The state of stages beside their trained parameters: moved after a step, equal in all processes.

The rules are in docs/state.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cascadezoo.cascade.assemble import unsaved_buffers
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.cascade.stage_calls import guard, stage_fault
from cascadezoo.errors import PluginError
from cascadezoo.stages.base import Stage, StepContext
from cascadezoo.util.rng import Draw

__all__ = ["StageState", "averaged_buffers", "check_declarations", "moves_state"]

Statistics = Mapping[str, Mapping[str, Tensor]]

_MODES = (None, "mean", "broadcast")
_HINT = (
    'declare sync_buffers = "mean" or "broadcast" on the stage class, or change it only in '
    "after_step, from context.mean and context.sum"
)


def moves_state(stage: Stage) -> bool:
    """Whether a stage overrides ``after_step``."""
    return type(stage).after_step is not Stage.after_step


def check_declarations(stages: Iterable[Stage]) -> None:
    """Check ``sync_buffers`` and ``averaged_buffers`` before a training.

    Raises:
        PluginError: a value or the name of a buffer is unknown.
    """
    for stage in stages:
        if stage.sync_buffers not in _MODES:
            raise stage_fault(
                stage,
                "__init__",
                f"declares sync_buffers = {stage.sync_buffers!r}; use 'mean', 'broadcast' or None",
                code="plugin-state-declaration",
            )
        averaged_buffers(stage)


def averaged_buffers(stage: Stage) -> dict[str, Tensor]:
    """The buffers that ``training.ema`` averages, by name.

    Raises:
        PluginError: a name is not that of a floating persistent buffer.
    """
    if not stage.averaged_buffers:
        return {}
    saved = {name: module._buffers[key] for name, module, key in _buffer_places(stage)}
    found: dict[str, Tensor] = {}
    for name in stage.averaged_buffers:
        buffer = saved.get(name)
        if buffer is None or not buffer.is_floating_point():
            raise stage_fault(
                stage,
                "__init__",
                f"declares the averaged buffer {name!r}, but has no floating persistent buffer of "
                "this name",
                code="plugin-state-declaration",
                buffer=name,
            )
        found[name] = buffer
    return found


class StageState:
    """The state of the stages that a phase trains.

    Args:
        cascade: the cascade.
        names: the stages that the phase trains.
        phase: the name of the phase.
        total: its number of steps.
        seed: the training's seed.
        parameters: whether parameters that no optimizer trains are compared too; False if they are
            divided among the processes.
    """

    def __init__(
        self,
        cascade: Cascade,
        names: Iterable[str],
        *,
        phase: str,
        total: int,
        seed: int,
        parameters: bool = True,
    ) -> None:
        self.stages = {name: cascade.stage(name) for name in names}
        self.phase = phase
        self.total = total
        self.seed = seed
        self.device = cascade.device
        self.parameters = parameters
        self.world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        self._moved = {name: s for name, s in self.stages.items() if moves_state(s)}
        self._places = {name: _buffer_places(stage) for name, stage in self.stages.items()}
        self._declared = {name: s for name, s in self.stages.items() if s.sync_buffers is not None}
        self._averaged = {name: averaged_buffers(stage) for name, stage in self.stages.items()}
        self._checked = False

    def versions(self) -> list[tuple[int, int]]:
        """Identity and version of all persistent buffers; empty for a single process."""
        if self.world == 1:
            return []
        rows = (self._buffers(name).values() for name in self.stages)
        return [(id(buffer), buffer._version) for buffers in rows for buffer in buffers]

    @torch.no_grad()
    def finish_step(self, step: int, statistics: Statistics) -> None:
        """Share what the step changed, and call ``after_step`` of each stage.

        Args:
            step: the step within the phase, from 0.
            statistics: what the stages returned for it.

        Raises:
            PluginError: ``after_step`` fails, or the state differs between processes after the
                first step.
        """
        self._synchronise()
        first = not self._checked
        for name, stage in self._moved.items():
            unsaved = _versions(stage) if first else {}
            context = StepContext(
                draw=Draw(self.seed, self.phase, step, name, "after_step", device=self.device),
                statistics=statistics.get(name, {}),
                progress=(step + 1) / self.total,
                step=step,
                phase=self.phase,
            )
            with guard(stage, "after_step"):
                stage.after_step(context)
            if first and unsaved != _versions(stage):
                changed = dict(set(_versions(stage).items()) - set(unsaved.items()))
                key = next(iter(changed or unsaved))
                raise stage_fault(
                    stage,
                    "after_step",
                    f"changes the buffer {key!r}, which checkpoints and models do not contain: "
                    "register it with persistent=True",
                    code="plugin-state-unsaved",
                    buffer=key,
                )
        if first:
            self._checked = True
            self._check_averaged()
            self.check()

    @torch.no_grad()
    def check(self) -> None:
        """Compare the state of all processes; give all of them the first one's batch statistics.

        The running statistics of batch normalisation are those of a process's own images. If their
        stage declares nothing, the first process's are kept.

        Raises:
            PluginError: a buffer, or a parameter that no optimizer trains, differs. All processes
                raise the same error.
        """
        if self.world == 1:
            return
        rows = list(self._compared())
        flags = torch.zeros(len(rows) + 1, dtype=torch.int32, device=self.device)
        for index, (_, _, tensor) in enumerate(rows):
            own = _bits(tensor)
            first = own.clone()
            dist.broadcast(first, src=0)
            flags[index] = (own != first).any()
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        for (stage, key, tensor), flag in zip(rows, flags.tolist(), strict=False):
            if flag:
                raise self._difference(stage, key, tensor)
        self.share_batch_statistics()

    @torch.no_grad()
    def share_batch_statistics(self) -> None:
        """Give all processes the first one's statistics of batch normalisation.

        They are those of a process's own images if their stage declares nothing. The average of
        the weights may contain them, so they are shared again after it replaces the weights.
        """
        if self.world == 1:
            return
        for name, stage in self.stages.items():
            if stage.sync_buffers is None:
                buffers = self._buffers(name)
                for key in _batch_statistics(stage):
                    if key in buffers:
                        _broadcast(buffers[key])

    @torch.no_grad()
    def broadcast(self, names: Iterable[str]) -> None:
        """Give all processes the persistent buffers of the first, for these stages."""
        if self.world > 1:
            for name in names:
                for buffer in self._buffers(name).values():
                    _broadcast(buffer)

    def _buffers(self, name: str) -> dict[str, Tensor]:
        """The persistent buffers of a stage by name, as they are now."""
        rows = ((path, module._buffers[key]) for path, module, key in self._places[name])
        return {path: buffer for path, buffer in rows if buffer is not None}

    def _synchronise(self) -> None:
        """Share the buffers of stages that declare how."""
        for name, stage in self._declared.items() if self.world > 1 else ():
            for buffer in self._buffers(name).values():
                # Whole numbers have no mean that is whole.
                if stage.sync_buffers == "mean" and buffer.is_floating_point():
                    total = buffer.clone(memory_format=torch.contiguous_format)
                    dist.all_reduce(total)
                    buffer.copy_(total / self.world)
                else:
                    _broadcast(buffer)

    def _compared(self) -> Iterable[tuple[Stage, str, Tensor]]:
        for name, stage in self.stages.items():
            passed = set(_batch_statistics(stage)) if stage.sync_buffers is None else set()
            for key, buffer in self._buffers(name).items():
                if key not in passed:
                    yield stage, key, buffer
            if self.parameters:
                for key, parameter in stage.named_parameters():
                    if not parameter.requires_grad:
                        yield stage, key, parameter

    def _difference(self, stage: Stage, key: str, tensor: Tensor) -> PluginError:
        what, advice = "buffer", _HINT
        if isinstance(tensor, nn.Parameter):
            what = "parameter"
            advice = "change it only in after_step, from other parameters or context.mean"
        return stage_fault(
            stage,
            "after_step" if moves_state(stage) else "forward",
            f"has a {what} {key!r} that differs between the {self.world} processes: {advice}",
            code="plugin-state-differs",
            buffer=key,
        )

    def _check_averaged(self) -> None:
        """Check that averaged buffers are changed in place: the average refers to the tensor."""
        for name, before in self._averaged.items():
            stage = self.stages[name]
            for key, buffer in averaged_buffers(stage).items():
                if buffer is not before[key]:
                    raise stage_fault(
                        stage,
                        "after_step" if moves_state(stage) else "forward",
                        f"replaces the averaged buffer {key!r}: change it in place, for example "
                        "with copy_ or lerp_",
                        code="plugin-state-declaration",
                        buffer=key,
                    )


def _buffer_places(stage: nn.Module) -> list[tuple[str, nn.Module, str]]:
    """Name, module and key of the buffers that ``state_dict`` contains."""
    return [
        (f"{prefix}.{key}" if prefix else key, module, key)
        for prefix, module in stage.named_modules()
        for key in module._buffers
        if key not in module._non_persistent_buffers_set
    ]


def _batch_statistics(stage: nn.Module) -> list[str]:
    """The names of the buffers of batch normalisation."""
    return [
        f"{prefix}.{key}" if prefix else key
        for prefix, module in stage.named_modules()
        if isinstance(module, nn.modules.batchnorm._NormBase)
        for key in module._buffers
    ]


def _versions(stage: nn.Module) -> dict[str, tuple[int, int]]:
    """Identity and version of each buffer that checkpoints leave out."""
    return {name: (id(b), b._version) for name, b in unsaved_buffers(stage)}


def _broadcast(buffer: Tensor) -> None:
    """Copy the first process's buffer to all."""
    whole = buffer.contiguous()
    dist.broadcast(whole, src=0)
    if whole is not buffer:
        buffer.copy_(whole)


def _bits(tensor: Tensor) -> Tensor:
    """The bytes of a tensor, in which equal numbers that are not numbers are equal too."""
    return tensor.detach().contiguous().flatten().view(torch.uint8)

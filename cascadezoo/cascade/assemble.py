"""Building one stage of a cascade."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cascadezoo.errors import PluginError, ResourceError
from cascadezoo.plugins.faults import Owner
from cascadezoo.spec import ResolvedStage
from cascadezoo.stages.base import Stage, StageGeometry
from cascadezoo.util.rng import derive_seed, seed_global

__all__ = ["adopt_buffers", "build_stage", "unsaved_buffers"]


def build_stage(
    stage: ResolvedStage, num_classes: int | None, device: torch.device | str, seed: int
) -> Stage:
    """Build a stage with its initial weights.

    Args:
        stage: the stage's config and place.
        num_classes: number of labels; None without labels.
        device: the device of the weights; ``meta`` allocates none.
        seed: seed of the initial weights.

    Raises:
        PluginError: the implementation cannot be imported, is not a stage, or fails.
        ResourceError: the stage is larger than any possible memory.
    """
    owner = Owner(stage.entry, stage.origin, stage.name)
    with owner.guard("to be imported"):
        impl = stage.entry.load()
    if not (isinstance(impl, type) and issubclass(impl, Stage)):
        raise PluginError(
            f"{stage.entry.impl} of {stage.kind} is not a cascadezoo.Stage",
            code="plugin-not-a-stage",
            kind=stage.kind,
        )
    geometry = StageGeometry(stage.output, stage.input, num_classes)
    # On the CPU first, so that the initial weights do not depend on the device.
    home = "meta" if torch.device(device).type == "meta" else "cpu"
    with torch.random.fork_rng(devices=[]), torch.device(home), _initialisation(home):
        seed_global(derive_seed(seed, "init", stage.name))
        try:
            with owner.guard("in __init__", impl.__init__, passes=_is_too_large):
                built = impl(stage.config, geometry)
            built._owner = owner
            if home == "cpu":
                method = impl.load_initial_weights
                with owner.guard("in load_initial_weights", method, passes=_is_too_large):
                    built.load_initial_weights()
        except (RuntimeError, OverflowError, MemoryError) as error:
            if _is_too_large(error):
                raise ResourceError(
                    f"stage {stage.name!r} ({stage.kind}) cannot be built: {_first(error)}; "
                    "one of its tensors needs more memory than is possible (8 EiB)",
                    hint=f"choose a smaller config: cascadezoo stages show {stage.kind}",
                    code="resources-tensor-too-large",
                    name=stage.name,
                    kind=stage.kind,
                ) from error
            raise
    twin = built if home == "meta" else None
    if home == "cpu" and not owner.builtin and next(unsaved_buffers(built), None) is not None:
        on_meta = owner.guard("in __init__ on the meta device", impl.__init__)
        with (
            torch.random.fork_rng(devices=[]),
            torch.device("meta"),
            _initialisation("meta"),
            on_meta,
        ):
            twin = impl(stage.config, geometry)
    if twin is not None:
        adopt_buffers(built, twin)
    # Tensors that a meta stage made on the CPU stay there: they are neither saved nor loaded.
    return built if home == "meta" else built.to(device)


def adopt_buffers(built: Stage, twin: Stage) -> None:
    """Make those unsaved buffers persistent that a loaded stage could not compute.

    A model is loaded into a stage on the meta device, where a buffer has no values unless
    ``__init__`` names another device. Modules of other packages have such buffers, e.g. the
    position indices of timm's Swin.

    Args:
        built: the stage, changed in place.
        twin: the same stage on the meta device.
    """
    own = {name for name, _ in unsaved_buffers(built)}
    for name, buffer in list(unsaved_buffers(twin)):
        if buffer.is_meta and name in own:
            path, _, key = name.rpartition(".")
            built.get_submodule(path)._non_persistent_buffers_set.discard(key)


def unsaved_buffers(stage: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The buffers that ``state_dict`` leaves out, with their names."""
    for prefix, module in stage.named_modules():
        for key in module._non_persistent_buffers_set:
            buffer = module._buffers.get(key)
            if buffer is not None:
                yield f"{prefix}.{key}" if prefix else key, buffer


def _initialisation(device: str) -> AbstractContextManager[object]:
    """Of the weights in the block: none on the meta device, where they have no values."""
    return _NoInitialisation() if device == "meta" else nullcontext()


class _NoInitialisation(TorchFunctionMode):
    """Leaves out ``torch.nn.init``: on the meta device it changes nothing, but imports a compiler.

    That import takes longer than loading a small model.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        tensor = args[0] if args else kwargs.get("tensor")
        if (
            getattr(func, "__module__", None) == nn.init.__name__
            and isinstance(tensor, Tensor)
            and tensor.is_meta
        ):
            return tensor
        return func(*args, **kwargs)


def _is_too_large(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, OverflowError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "overflow" in text.lower() or "allocate memory" in text or "out of memory" in text
    )


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

"""Building one stage of a cascade."""

from __future__ import annotations

import torch

from cascadezoo.errors import PluginError, ResourceError
from cascadezoo.spec import ResolvedStage
from cascadezoo.stages.base import Stage, StageGeometry
from cascadezoo.util.rng import derive_seed, seed_global

__all__ = ["build_stage"]


def build_stage(
    stage: ResolvedStage, num_classes: int | None, device: torch.device | str, seed: int
) -> Stage:
    """Build a stage; on a real device, with the weights that its training starts from.

    Args:
        stage: its config and place.
        num_classes: how many labels the data have; None where they have none.
        device: where the weights are made; ``meta`` makes none.
        seed: of the initial weights.

    Raises:
        PluginError: the implementation cannot be imported or is no stage.
        ResourceError: it is larger than any memory can be.
    """
    impl = stage.entry.load()
    if not (isinstance(impl, type) and issubclass(impl, Stage)):
        raise PluginError(
            f"{stage.entry.impl} of {stage.kind} is not a cascadezoo.Stage",
            code="plugin-not-a-stage",
            kind=stage.kind,
        )
    geometry = StageGeometry(stage.output, stage.input, num_classes)
    # On the CPU first, so that initial weights do not depend on the device.
    home = "meta" if torch.device(device).type == "meta" else "cpu"
    with torch.random.fork_rng(devices=[]), torch.device(home):
        seed_global(derive_seed(seed, "init", stage.name))
        try:
            built = impl(stage.config, geometry)
            if home == "cpu":
                built.load_initial_weights()
        except (RuntimeError, OverflowError, MemoryError) as error:
            if isinstance(error, (MemoryError, OverflowError)) or _is_too_large(error):
                raise ResourceError(
                    f"stage {stage.name!r} ({stage.kind}) cannot be built: {_first(error)}; "
                    "one of its tensors alone needs more memory than there can be (8 EiB)",
                    hint=f"make its config smaller: cascadezoo stages show {stage.kind}",
                    code="resources-tensor-too-large",
                    name=stage.name,
                    kind=stage.kind,
                ) from error
            raise
    # On the meta device, what a stage made on the CPU stays: it is not saved, so not loaded either.
    return built if home == "meta" else built.to(device)


def _is_too_large(error: BaseException) -> bool:
    text = str(error)
    return "overflow" in text.lower() or "allocate memory" in text or "out of memory" in text


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

"""Warnings about a spec that need no network."""

from __future__ import annotations

from collections.abc import Iterator

from cascadezoo.plugins.faults import Owner
from cascadezoo.plugins.manager import get_registry
from cascadezoo.spec.resolution import ResolvedSpec, ResolvedStage

__all__ = ["size_warnings", "spec_warnings"]

LARGE = 128
"""Images above this size need stages that enlarge or decode them, or much memory."""


def size_warnings(resolved: ResolvedSpec) -> Iterator[str]:
    """Warn about a generator of large images.

    >>> from cascadezoo import load_spec
    >>> list(size_warnings(load_spec("shapes-demo")))
    []
    """
    first = resolved.stages[0]
    shape, size = first.output, resolved.image.size
    if shape.latent or shape.size <= LARGE:
        return
    reason = ""
    if resolved.data_info.size == size:
        reason = f"; {size}x{size} is the size of the dataset's images"
    yield (
        f"{first.name} ({first.kind}): generates {shape.size}x{shape.size} pixels in one stage, "
        f"which needs much memory and time{reason}; set data.size to a smaller size such as 64, or "
        "add upsamplers or a decoder"
    )


def spec_warnings(resolved: ResolvedSpec) -> Iterator[str]:
    """Warn about settings that are valid but likely mistakes.

    They concern the stages (noise schedules that sampling does not match, and others of
    :meth:`~cascadezoo.spec.configs.StageConfig.advice`), phases, losses, and large images.

    >>> from cascadezoo import load_spec
    >>> list(spec_warnings(load_spec("shapes-demo")))
    []
    """
    yield from size_warnings(resolved)
    for stage in resolved.stages:
        owner, advice = Owner(stage.entry, stage.origin, stage.name), stage.config.advice
        with owner.guard("in advice of its config", advice):
            texts = list(advice(stage.output, resolved.num_classes))
        yield from (f"{stage.name} ({stage.kind}): {text}" for text in texts)
    yield from _data_warnings(resolved)
    training = resolved.spec.training
    outputs = {stage.name: stage.output for stage in resolved.stages}
    for phase in (training.phases or [])[-1:]:
        affected = any(s.name in phase.train and _needs_estimates(s) for s in resolved.stages[1:])
        # The estimates of a GAN belong to no target, so later stages cannot learn from them.
        affected = affected and all(s.config.paired for s in resolved.stages)
        if phase.teacher_forcing.end > 0.0 and affected:
            yield (
                f"phase {phase.name}: teacher forcing ends at {phase.teacher_forcing.end:g}, so "
                "its end still differs from sampling, where no stage receives true images"
            )
    trained = {name for phase in training.phases or [] for name in phase.train}
    for stage in resolved.stages:
        config = stage.config
        if stage.name not in trained and not (config.frozen or config.parameterless):
            yield f"{stage.name}: no phase trains this stage"
    yield from _moved_latents(resolved)
    for loss in training.losses or []:
        size = outputs[loss.stage].size
        if loss.kind == "lpips" and loss.weight > 0 and size < 32:
            yield (
                f"{loss.stage}: {size}x{size} images are much smaller than the 64x64 patches that "
                "LPIPS was calibrated on"
            )


def _data_warnings(resolved: ResolvedSpec) -> list[str]:
    config, row = resolved.data_config, get_registry().datasets.rows.get(resolved.spec.data.source)
    if config is None or row is None:
        return []
    with Owner.of(row).guard("in advice of its config", config.advice):
        return list(config.advice())


def _needs_estimates(stage: ResolvedStage) -> bool:
    """Whether training on true upstream images alone makes the stage fail on estimates.

    A decoder learns from its own latents; conditioning augmentation (Ho et al. 2021) serves the
    same purpose as teacher forcing.
    """
    augmented = getattr(stage.config, "augmentation", "none") != "none"
    return stage.entry.role != "decoder" and not augmented


def _moved_latents(resolved: ResolvedSpec) -> Iterator[str]:
    """Yield warnings about phases that train a decoder after earlier stages learned its latents."""
    trained: set[str] = set()
    for phase in resolved.spec.training.phases or []:
        for place, stage in enumerate(resolved.stages):
            if stage.entry.role != "decoder" or stage.name not in phase.train:
                continue
            rest = trained.difference(phase.train)
            before = [s.name for s in resolved.stages[:place] if s.name in rest]
            if before:
                yield (
                    f"phase {phase.name}: trains the decoder {stage.name} and changes its latents, "
                    f"which {', '.join(before)} learned in an earlier phase"
                )
        trained.update(phase.train)

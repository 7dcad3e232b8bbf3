"""Phases of a training: the default phases, checks of a spec's phases, and who takes part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from cascadezoo.errors import Problem
from cascadezoo.spec.configs import StageConfig
from cascadezoo.spec.faults import problems_of
from cascadezoo.spec.models import (
    LossSpec,
    OptimizerSpec,
    PhaseSpec,
    ReflowSpec,
    ScheduleSpec,
    TeacherForcing,
    TrainingSpec,
)

__all__ = ["Trainee", "check_phases", "default_phases", "override", "taking_part", "unknown"]


@dataclass(frozen=True, slots=True)
class Trainee:
    """The properties of a stage that matter for its training.

    Args:
        name: the stage's name.
        role: its role; "" if its kind is unknown.
        config: its config; None if it is invalid.
    """

    name: str
    role: str = ""
    config: StageConfig | None = None

    @property
    def frozen(self) -> bool:
        """Whether the weights are never trained."""
        return self.config is not None and self.config.frozen

    @property
    def parameterless(self) -> bool:
        """Whether the stage has nothing to train."""
        return self.config is not None and self.config.parameterless

    @property
    def paired(self) -> bool:
        """Whether the estimate predicts the stage's own target."""
        return self.config is None or self.config.paired

    @property
    def heeds_paired(self) -> bool:
        """Whether the stage can learn from upstream images that do not belong to its targets."""
        return self.config is not None and self.config.heeds_paired

    @property
    def decodes(self) -> bool:
        """Whether the stages before it learn latents, which it must learn first."""
        return self.role == "decoder" and self.config is not None and not self.frozen


def default_phases(stages: Sequence[Trainee], losses: Sequence[LossSpec] = ()) -> list[PhaseSpec]:
    """The study's three phases; a single generator only has the first.

    Decoders are trained before, each in a separate phase and the last of the cascade first, because
    the latents of a decoder are the target of the stages before it. Frozen stages and stages
    without parameters are left out, as are phases that would train nothing. If a stage cannot learn
    from estimates that do not predict the targets, such as those of a GAN, it always receives the
    real images, and there is no joint phase.
    """
    phases = []
    for number, stage in enumerate((s for s in reversed(stages) if s.decodes), start=1):
        name = "autoencoder" if number == 1 else f"autoencoder-{number}"
        phases.append(PhaseSpec(name=name, train=[stage.name], epochs=35))
    rest = [s.name for s in stages if s.role != "decoder" and not (s.frozen or s.parameterless)]
    first = [name for name in rest if name == stages[0].name]
    later = [name for name in rest if name not in first]
    if first:
        phases.append(PhaseSpec(name="coarse", train=first, epochs=35))
    if later and any(_unpaired_source(stages, name, losses) for name in later):
        phases.append(PhaseSpec(name="cascade", train=later, epochs=35))
    elif later:
        cascade_forcing = TeacherForcing(start=0.9, end=0.1)
        joint_forcing = TeacherForcing(start=0.1, end=0.0)
        phases += [
            PhaseSpec(name="cascade", train=later, epochs=35, teacher_forcing=cascade_forcing),
            PhaseSpec(
                name="joint", train=rest, epochs=30, joint=True, teacher_forcing=joint_forcing
            ),
        ]
    return phases


def check_phases(
    training: TrainingSpec, stages: Sequence[Trainee], num_classes: int | None
) -> Iterator[Problem]:
    """The problems of the phases of a training.

    Args:
        training: the training with its phases.
        stages: the stages of the cascade, from the generator.
        num_classes: number of labels; None if it is unknown.
    """
    known = {stage.name: stage for stage in stages}
    names = list(known)
    learned: set[str] = set()
    for index, phase in enumerate(training.phases or []):
        path = f"training.phases.{index}"
        for place, name in enumerate(phase.train):
            yield from unknown(f"{path}.train.{place}", name, names)
            if name in phase.train[:place]:
                yield Problem(f"{path}.train.{place}", f"{name!r} is repeated", code="twice")
            if name in known and known[name].frozen:
                yield Problem(
                    f"{path}.train.{place}",
                    f"the weights of {name!r} are never trained",
                    f"remove {name!r}",
                    code="never-trained",
                )
        for name in phase.stages:
            yield from unknown(f"{path}.stages.{name}", name, phase.train, "trained in this phase")
        # Stages without parameters have no effect here.
        learning = [n for n in phase.train if not (n in known and known[n].parameterless)]
        if not learning:
            listed = " and ".join(repr(name) for name in phase.train)
            yield Problem(
                f"{path}.train",
                f"trains nothing: {listed} has no parameters",
                "remove the phase, or add a stage with parameters",
                code="trains-nothing",
            )
            continue
        phase = phase.model_copy(update={"train": learning})
        yield from _latents(path, phase, stages, learned)
        yield from _pairing(path, phase, stages, training.losses or [])
        if phase.reflow is not None:
            yield from _reflow(path, phase, phase.reflow, training, stages, learned)
            if num_classes == 0 and phase.reflow.guidance is not None:
                yield Problem(
                    f"{path}.reflow.guidance",
                    "guidance needs labels, but data.num_classes is 0",
                    "remove guidance",
                    code="guidance-needs-labels",
                )
        learned.update(phase.train)


def unknown(path: str, name: str, names: Sequence[str], what: str = "a stage") -> Iterator[Problem]:
    """A problem if ``name`` is not one of ``names``."""
    if name not in names:
        listed = ", ".join(repr(n) for n in names)
        yield Problem(path, f"{name!r} is not {what}", f"use one of {listed}", code="unknown-name")


def _latents(
    path: str, phase: PhaseSpec, stages: Sequence[Trainee], learned: set[str]
) -> Iterator[Problem]:
    """Check that a decoder is trained before the stages that learn its latents."""
    for place, decoder in enumerate(stages):
        if not decoder.decodes:
            continue
        before = [s.name for s in stages[:place] if s.name in phase.train]
        if not before:
            continue
        listed = ", ".join(repr(name) for name in before)
        if decoder.name in phase.train:
            if not phase.joint:
                yield Problem(
                    f"{path}.train",
                    f"trains the decoder {decoder.name!r} together with {listed}, whose targets "
                    "are its latents and would change",
                    f"train {decoder.name!r} in a phase before this one, or set joint",
                    code="decoder-with-latents",
                )
        elif decoder.name not in learned:
            yield Problem(
                f"{path}.train",
                f"{listed} would learn the latents of the decoder {decoder.name!r}, which no "
                "earlier phase trains",
                f"add an earlier phase that trains {decoder.name!r}",
                code="latents-untrained",
            )


def _unpaired_source(
    stages: Sequence[Trainee], name: str, losses: Sequence[LossSpec]
) -> Trainee | None:
    """The stage with unpaired estimates from which ``name`` cannot learn; None if there is none.

    Losses of the spec compare every estimate with its target, even if the stage itself does not.
    """
    place = next(i for i, stage in enumerate(stages) if stage.name == name)
    compared = any(loss.stage == name and loss.weight > 0 for loss in losses)
    if stages[place].heeds_paired and not compared:
        return None
    return next((stage for stage in stages[:place] if not stage.paired), None)


def _pairing(
    path: str, phase: PhaseSpec, stages: Sequence[Trainee], losses: Sequence[LossSpec]
) -> Iterator[Problem]:
    """Check that no stage compares its estimate with the target of another image."""
    forcing = phase.teacher_forcing
    if forcing.start >= 1.0 and forcing.end >= 1.0:
        return
    trained = [stage.name in phase.train for stage in stages]
    parts = taking_part(trained, [s.parameterless for s in stages], joint=phase.joint)
    for stage, part in zip(stages, parts, strict=True):
        # A decoder learns from the image that it encodes itself, and the losses of a stage without
        # parameters only matter for gradients upstream.
        upstream_only = stage.role == "decoder" or stage.parameterless
        if not part or (upstream_only and not phase.joint):
            continue
        source = _unpaired_source(stages, stage.name, losses)
        if source is not None:
            yield Problem(
                f"{path}.teacher_forcing",
                f"{stage.name!r} would learn from estimates of {source.name!r}, which do not "
                "belong to its targets",
                'set {"start": 1, "end": 1}',
                code="estimates-unpaired",
            )


def _reflow(
    path: str,
    phase: PhaseSpec,
    reflow: ReflowSpec,
    training: TrainingSpec,
    stages: Sequence[Trainee],
    learned: set[str],
) -> Iterator[Problem]:
    first = stages[0] if stages else None
    if first is None or first.config is None or first.role != "generator":
        return  # reported already
    if phase.train != [first.name]:
        yield Problem(
            f"{path}.reflow",
            f"only the generator learns from pairs, but the phase trains {', '.join(phase.train)}",
            f'set train to ["{first.name}"]',
            code="reflow-others",
        )
    if not first.config.reflows:
        yield Problem(
            f"{path}.reflow",
            f"the kind of {first.name!r} does not support reflow",
            "use a rectified flow, such as flow.v1",
            code="reflow-kind",
        )
    elif first.name not in learned:
        yield Problem(
            f"{path}.reflow",
            f"makes pairs with {first.name!r}, which no earlier phase trains",
            f"add an earlier phase that trains {first.name!r}",
            code="reflow-untrained",
        )
    batch_size = phase.batch_size or training.batch_size
    if reflow.pairs < batch_size:
        yield Problem(
            f"{path}.reflow.pairs",
            f"is {reflow.pairs}, less than a batch of {batch_size}",
            "raise it, or lower training.batch_size",
            code="reflow-pairs",
        )
    # The generator's config validates the settings.
    settings = reflow.settings()
    raw = {**first.config.model_dump(mode="json"), **settings}
    try:
        type(first.config).model_validate(raw)
    except ValidationError as error:
        for problem in problems_of(error, raw, f"{path}.reflow"):
            if problem.path.removeprefix(f"{path}.reflow.") in settings:
                yield problem


S = TypeVar("S", OptimizerSpec, ScheduleSpec)


def override(base: S, differing: S | None) -> S:
    """``base`` with the fields that the spec sets in ``differing``."""
    if differing is None:
        return base
    changed = {name: getattr(differing, name) for name in differing.model_fields_set}
    return base.model_copy(update=changed)


def taking_part(
    trained: Sequence[bool], parameterless: Sequence[bool], *, joint: bool
) -> list[bool]:
    """Whether each stage takes part in a phase, from the generator.

    A stage without parameters has nothing to train, so it makes no difference whether a phase names
    it. It takes part if a later stage is trained, and draws the same teacher forcing as a trained
    stage in its place. In a joint phase it also takes part if the stage before it does, so that
    losses on its estimate train the stages before it.

    Args:
        trained: which stages the phase names.
        parameterless: which stages have no parameters.
        joint: whether gradients flow from stage to stage.
    """
    learns = [named and not bare for named, bare in zip(trained, parameterless, strict=True)]
    parts = list(learns)
    for index, bare in enumerate(parameterless):
        if bare:
            follows = joint and index > 0 and parts[index - 1]
            parts[index] = follows or any(learns[index + 1 :])
    return parts

"""Phases: those that a spec gets when it names none, and what is wrong with those it names."""

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
from cascadezoo.spec.participants import taking_part

__all__ = ["Trainee", "check_phases", "default_phases", "override", "unknown"]


@dataclass(frozen=True, slots=True)
class Trainee:
    """A stage as its training sees it.

    Args:
        name: the stage's name.
        role: its role; "" where its kind is not known.
        config: its config; None where that is at fault.
    """

    name: str
    role: str = ""
    config: StageConfig | None = None

    @property
    def frozen(self) -> bool:
        """Whether its weights are never trained."""
        return self.config is not None and self.config.frozen

    @property
    def parameterless(self) -> bool:
        """Whether it has nothing to train."""
        return self.config is not None and self.config.parameterless

    @property
    def paired(self) -> bool:
        """Whether its estimate is of its own target."""
        return self.config is None or self.config.paired

    @property
    def heeds_paired(self) -> bool:
        """Whether it can learn from upstream images that are not of its targets."""
        return self.config is not None and self.config.heeds_paired

    @property
    def decodes(self) -> bool:
        """Whether the stages before it learn latents that it must have learned to make."""
        return self.role == "decoder" and self.config is not None and not self.frozen


def default_phases(stages: Sequence[Trainee], losses: Sequence[LossSpec] = ()) -> list[PhaseSpec]:
    """The study's three phases; a lone generator has only the first.

    Decoders come before them, each in a phase of its own, the last of the cascade first, since a
    decoder's latents are the target of what stands before it. Frozen stages and those without
    parameters are left out, and phases that would train nothing. Where estimates are not of the
    targets, as a GAN's, stages that cannot learn from such get the truth throughout, and there is
    no joint phase.
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
    if later and any(_misled(stages, name, losses) for name in later):
        phases.append(PhaseSpec(name="cascade", train=later, epochs=35))
    elif later:
        falling = TeacherForcing(start=0.9, end=0.1)
        ending = TeacherForcing(start=0.1, end=0.0)
        phases += [
            PhaseSpec(name="cascade", train=later, epochs=35, teacher_forcing=falling),
            PhaseSpec(name="joint", train=rest, epochs=30, joint=True, teacher_forcing=ending),
        ]
    return phases


def check_phases(
    training: TrainingSpec, stages: Sequence[Trainee], num_classes: int | None
) -> Iterator[Problem]:
    """What is wrong with the phases of a training.

    Args:
        training: with phases, its own or the default ones.
        stages: the stages of the cascade, from the generator on.
        num_classes: how many labels there are; None where that is not known.
    """
    known = {stage.name: stage for stage in stages}
    names = list(known)
    learned: set[str] = set()
    for index, phase in enumerate(training.phases or []):
        path = f"training.phases.{index}"
        for place, name in enumerate(phase.train):
            yield from unknown(f"{path}.train.{place}", name, names)
            if name in phase.train[:place]:
                yield Problem(f"{path}.train.{place}", f"{name!r} is there twice", code="twice")
            if name in known and known[name].frozen:
                yield Problem(
                    f"{path}.train.{place}",
                    f"the weights of {name!r} are never trained",
                    f"leave {name!r} out",
                    code="never-trained",
                )
        for name in phase.stages:
            yield from unknown(f"{path}.stages.{name}", name, phase.train, "trained in this phase")
        # To name a stage without parameters is to say nothing.
        learning = [n for n in phase.train if not (n in known and known[n].parameterless)]
        if not learning:
            listed = " and ".join(repr(name) for name in phase.train)
            yield Problem(
                f"{path}.train",
                f"trains nothing: {listed} has no parameters",
                "leave the phase out, or name a stage that learns",
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
                    "guidance needs labels, and data.num_classes is 0",
                    "leave guidance out",
                    code="guidance-needs-labels",
                )
        learned.update(phase.train)


def unknown(path: str, name: str, names: Sequence[str], what: str = "a stage") -> Iterator[Problem]:
    """A problem where ``name`` is not one of ``names``."""
    if name not in names:
        listed = ", ".join(repr(n) for n in names)
        yield Problem(path, f"{name!r} is not {what}", f"there are {listed}", code="unknown-name")


def _latents(
    path: str, phase: PhaseSpec, stages: Sequence[Trainee], learned: set[str]
) -> Iterator[Problem]:
    """Stages before a decoder learn its latents, which must not move under them."""
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
                    f"trains the decoder {decoder.name!r} and what learns its latents, {listed}, "
                    "whose targets would move",
                    f"train {decoder.name!r} in a phase before this one, or set joint",
                    code="decoder-with-latents",
                )
        elif decoder.name not in learned:
            yield Problem(
                f"{path}.train",
                f"{listed} would learn the latents of {decoder.name!r}, a decoder that no phase "
                "before this one trains",
                f"put a phase that trains {decoder.name!r} before it",
                code="latents-untrained",
            )


def _misled(stages: Sequence[Trainee], name: str, losses: Sequence[LossSpec]) -> Trainee | None:
    """The stage whose estimates ``name`` would take for its targets; None where there is none.

    Losses of the spec compare every estimate with its target, whatever the stage itself heeds.
    """
    place = next(i for i, stage in enumerate(stages) if stage.name == name)
    compared = any(loss.stage == name and loss.weight > 0 for loss in losses)
    if stages[place].heeds_paired and not compared:
        return None
    return next((stage for stage in stages[:place] if not stage.paired), None)


def _pairing(
    path: str, phase: PhaseSpec, stages: Sequence[Trainee], losses: Sequence[LossSpec]
) -> Iterator[Problem]:
    """Stages that compare their estimate with a target of another image learn nothing good."""
    forcing = phase.teacher_forcing
    if forcing.start >= 1.0 and forcing.end >= 1.0:
        return
    trained = [stage.name in phase.train for stage in stages]
    parts = taking_part(trained, [s.parameterless for s in stages], joint=phase.joint)
    for stage, part in zip(stages, parts, strict=True):
        # A decoder learns from the image that it encodes itself, and a stage without parameters has
        # losses, where gradients go upstream only.
        upstream_alone = stage.role == "decoder" or stage.parameterless
        if not part or (upstream_alone and not phase.joint):
            continue
        source = _misled(stages, stage.name, losses)
        if source is not None:
            yield Problem(
                f"{path}.teacher_forcing",
                f"{stage.name!r} would learn from estimates of {source.name!r}, which are not of "
                "the images that it is to make",
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
            f"pairs are the generator's own, and the phase trains {', '.join(phase.train)}",
            f'train ["{first.name}"] alone',
            code="reflow-others",
        )
    if not first.config.reflows:
        yield Problem(
            f"{path}.reflow",
            f"the kind of {first.name!r} cannot be trained on pairs of its own",
            "use a rectified flow, such as flow.v1",
            code="reflow-kind",
        )
    elif first.name not in learned:
        yield Problem(
            f"{path}.reflow",
            f"makes pairs of {first.name!r} before any phase has trained it",
            f"put a phase that trains {first.name!r} before it",
            code="reflow-untrained",
        )
    if reflow.pairs < training.batch_size:
        yield Problem(
            f"{path}.reflow.pairs",
            f"is {reflow.pairs}, less than a batch of {training.batch_size}",
            "raise it, or lower training.batch_size",
            code="reflow-pairs",
        )
    # The generator's own config knows which settings there are and what they may be.
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
    """``base`` with what the spec writes out in ``differing``."""
    if differing is None:
        return base
    changed = {name: getattr(differing, name) for name in differing.model_fields_set}
    return base.model_copy(update=changed)

"""Late validation: kinds, their configs, sizes, phases. Finds every fault before it raises."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cascadezoo.errors import CascadezooError, PluginError, Problem, SpecError, UnknownNameError
from cascadezoo.plugins.manager import canonical_name, get_registry
from cascadezoo.plugins.registry import Entry, Origin, Registered, Registry, StageEntry, Table
from cascadezoo.spec import lookup as named
from cascadezoo.spec.configs import (
    ConfigError,
    DataConfig,
    DataInfo,
    ImageShape,
    Model,
    StageConfig,
)
from cascadezoo.spec.faults import against_role, problems_of
from cascadezoo.spec.files import apply_settings, read_spec
from cascadezoo.spec.models import (
    CallbackSpec,
    CascadeSpec,
    DataSpec,
    LossSpec,
    StageSpec,
    TrainingSpec,
)
from cascadezoo.spec.phases import Trainee, check_phases, default_phases, override, unknown
from cascadezoo.spec.requires import (
    changed_since,
    check_requires,
    derive_requires,
    where_from,
)
from cascadezoo.spec.resolved import ResolvedSpec, ResolvedStage

__all__ = ["ResolvedSpec", "ResolvedStage", "load_spec", "resolve"]

M = TypeVar("M", bound=BaseModel)
E = TypeVar("E", bound=Entry)
P = TypeVar("P", LossSpec, CallbackSpec)


def resolve(
    spec: CascadeSpec | Mapping[str, Any],
    *,
    source: str = "spec",
    for_training: bool = True,
    registry: Registry | None = None,
) -> ResolvedSpec:
    """Validate a spec wholly and write out its defaults.

    A resolved spec resolves to itself.

    Args:
        spec: a spec or its JSON data.
        source: how error messages name it.
        for_training: False asks only for what sampling needs: the stages, not the dataset, the
            losses or the metrics, which may come from plugins that are not installed here.
        registry: what the names are looked up in; None is what is installed.

    Raises:
        SpecError: with every fault that was found.
    """
    raw: Any = spec.to_dict() if isinstance(spec, CascadeSpec) else spec
    return _Resolver(registry or get_registry(), for_training).run(raw, source)


def load_spec(
    source: CascadeSpec | Mapping[str, Any] | str | Path, *, settings: Iterable[str] = ()
) -> ResolvedSpec:
    """Read a spec and resolve it.

    Args:
        source: a spec, its JSON data, a file, ``-``, or the name of a shipped spec.
        settings: ``path=value`` changes, as for ``cascadezoo build --set``.

    Raises:
        SpecError: the spec is invalid; the error lists all problems.
        UnknownNameError: no file and no shipped spec has this name.
    """
    name = "spec"
    if isinstance(source, (str, Path)):
        data, name = read_spec(source)
    elif isinstance(source, CascadeSpec):
        data = source.to_dict()
    else:
        data = dict(source)
    return resolve(apply_settings(data, settings), source=name)


class _Resolver:
    def __init__(self, registry: Registry, for_training: bool) -> None:
        self.registry = registry
        self.for_training = for_training
        self.problems: list[Problem] = []
        self.origins: list[Origin] = []
        self.requires: list[str] = []

    def run(self, raw: Any, source: str) -> ResolvedSpec:
        if not isinstance(raw, Mapping):
            raise SpecError(
                [Problem("", "is not a JSON object", code="not-an-object")], source=source
            )
        envelope = self.validate(CascadeSpec, raw, "")
        stated = raw.get("requires")
        self.requires = (
            [t for t in stated if isinstance(t, str)] if isinstance(stated, list) else []
        )
        # Parts are looked at one by one, so that a fault in one does not hide those of the others.
        rows = raw.get("stages")
        stages = self.parts(StageSpec, rows) if isinstance(rows, list) else []
        found = [self.stage_config(i, s) if s else None for i, s in enumerate(stages)]
        data_spec = self.quiet(DataSpec, raw.get("data"))
        data, data_config, info = self.data(data_spec) if data_spec else (None, None, DataInfo())
        self.names(stages, found)
        placed = self.chain(stages, found, data)
        training = self.quiet(TrainingSpec, raw.get("training", {}))
        if training:
            latents = {p.name for p in placed or () if p.output.latent}
            training = self.training(training, stages, found, data, latents)
        if envelope and self.for_training:
            self.evaluation(envelope)
        used = None
        if not self.for_training:
            used = frozenset(canonical_name(o.distribution) for o in self.origins)
        self.problems += check_requires(self.requires, used)
        if self.problems or not (envelope and data and placed and training):
            raise SpecError(_unique(self.problems), source=source)
        update = {
            "data": data,
            "stages": [
                s.model_copy(update={"kind": p.kind, "config": p.config.model_dump(mode="json")})
                for s, p in zip(envelope.stages, placed, strict=True)
            ],
            "training": training,
            "requires": derive_requires(self.origins, self.requires),
        }
        return ResolvedSpec(envelope.model_copy(update=update), tuple(placed), data_config, info)

    # --- single parts

    def validate(self, model: type[M], raw: Any, path: str) -> M | None:
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            self.problems += problems_of(error, raw, path)
        except RecursionError:
            self.problems.append(Problem(path, "is nested too deeply", code="nested"))
        return None

    def quiet(self, model: type[M], raw: Any) -> M | None:
        """Validate a part whose faults the envelope has reported already.

        Keys at fault are left out, so that what stands beside them is looked at all the same.
        """
        try:
            return model.model_validate(raw)
        except RecursionError:
            return None
        except ValidationError as error:
            faulty = {row["loc"][0] for row in error.errors() if row["loc"]}
        if not faulty or not isinstance(raw, Mapping):
            return None
        rest = {key: value for key, value in raw.items() if key not in faulty}
        return self.quiet(model, rest) if len(rest) < len(raw) else None

    def parts(self, model: type[M], rows: Iterable[Any]) -> list[M | None]:
        return [self.quiet(model, row) for row in rows]

    def look_up(self, table: Table[E], name: str, path: str) -> Registered[E] | None:
        try:
            found = table.get(name)
        except UnknownNameError as error:
            hint = where_from(self.requires) or error.hint
            self.problems.append(Problem(path, error.what, hint, code=error.code))
            return None
        except PluginError as error:
            self.problems.append(Problem(path, error.what, error.hint, code=error.code))
            return None
        self.origins.append(found.origin)
        return found

    def config_of(
        self, found: Registered[E], raw: dict[str, Any], path: str, base: type[M]
    ) -> M | None:
        try:
            model = found.entry.load_config()
        except PluginError as error:
            self.problems.append(Problem(path, error.what, error.hint, code=error.code))
            return None
        if not (isinstance(model, type) and issubclass(model, base)):
            message = f"{found.entry.config} is not a {base.__name__}; {found.origin} is at fault"
            self.problems.append(Problem(path, message, code="not-a-config"))
            return None
        before = len(self.problems)
        config = self.validate(model, raw, path)
        self.changed(found, before)
        return config

    def changed(self, found: Registered[E], before: int) -> None:
        """Where a config does not validate, say whether another version of its plugin wrote it."""
        hint = changed_since(self.requires, found.entry.name, found.origin)
        rows = self.problems[before:]
        self.problems[before:] = [
            Problem(p.path, p.message, p.hint or hint, code=p.code) for p in rows
        ]

    def stage_config(
        self, index: int, stage: StageSpec
    ) -> tuple[Registered[StageEntry], StageConfig | None] | None:
        found = self.look_up(self.registry.stages, stage.kind, f"stages.{index}.kind")
        if found is None:
            return None
        config = self.config_of(found, stage.config, f"stages.{index}.config", StageConfig)
        return found, config

    def data(self, spec: DataSpec) -> tuple[DataSpec | None, DataConfig | None, DataInfo]:
        known = None not in (spec.size, spec.channels, spec.num_classes)
        if not self.for_training and known:
            return spec, None, DataInfo()
        found = self.look_up(self.registry.datasets, spec.source, "data.source")
        config = self.config_of(found, spec.config, "data.config", DataConfig) if found else None
        if config is None:
            return (spec if known else None), None, DataInfo()
        try:
            info = config.info()
        except CascadezooError as error:
            if not known:
                self.problems.append(
                    Problem("data.config", error.what, error.hint, code=error.code)
                )
                return None, config, DataInfo()
            info = DataInfo(spec.size, spec.channels, spec.num_classes)
        update = {"config": config.model_dump(mode="json")}
        for name in ("size", "channels", "num_classes"):
            value = getattr(spec, name)
            value = getattr(info, name) if value is None else value
            if name == "num_classes" and value is None:
                value = 0
            if value is None:
                message = "the dataset does not tell it; write it into the spec"
                self.problems.append(Problem(f"data.{name}", message, code="not-given"))
                return None, config, info
            update[name] = value
        return spec.model_copy(update=update), config, info

    # --- how parts go together

    def names(self, stages: list[StageSpec | None], found: list[Any]) -> None:
        self.duplicates("stages", [s.name if s else None for s in stages])
        for index, row in enumerate(found):
            if row is None:
                continue
            role = row[0].entry.role
            if index == 0 and role != "generator":
                message = f"a cascade starts with a generator; {row[0].entry.name} is a {role}"
            elif index > 0 and role == "generator":
                message = f"only the first stage is a generator; {row[0].entry.name} is one too"
            else:
                continue
            self.problems.append(Problem(f"stages.{index}.kind", message, code="role-order"))

    def duplicates(self, path: str, names: list[str | None]) -> None:
        seen: Counter[str] = Counter()
        for index, name in enumerate(names):
            if name is None:
                continue
            if seen[name]:
                message = f"{name!r} is the name of another of the {path} already"
                self.problems.append(Problem(f"{path}.{index}.name", message, code="name-taken"))
            seen[name] += 1

    def chain(
        self,
        stages: list[StageSpec | None],
        found: list[tuple[Registered[StageEntry], StageConfig | None] | None],
        data: DataSpec | None,
    ) -> list[ResolvedStage] | None:
        if data is None or data.size is None or data.channels is None or not stages:
            return None
        output = ImageShape(data.channels, data.size)
        placed: list[ResolvedStage] = []
        for index in reversed(range(len(stages))):
            stage, row = stages[index], found[index]
            if stage is None or row is None:
                return None
            registered, config = row
            if config is None:
                return None
            upstream: ImageShape | None
            try:
                config = config.fit(output)
                upstream = config.upstream_shape(output)
            except ConfigError as error:
                before = len(self.problems)
                self.misfit(index, error)
                self.changed(registered, before)
                return None
            entry = registered.entry
            placed.insert(
                0,
                ResolvedStage(
                    stage.name, entry.name, entry, registered.origin, config, output, upstream
                ),
            )
            fault = against_role(entry.role, upstream)
            if fault is not None:
                message = f"the config of {entry.name} contradicts its role, {entry.role}: {fault}"
                problem = Problem(f"stages.{index}.kind", message, code="role-contradicted")
                self.problems.append(problem)
                return None
            if upstream is None:
                return self.neighbours(placed) if index == 0 else None
            output = upstream
        return None

    def neighbours(self, placed: list[ResolvedStage]) -> list[ResolvedStage]:
        for index, (before, stage) in enumerate(itertools.pairwise(placed), start=1):
            try:
                stage.config.check_upstream(before.config)
            except ConfigError as error:
                self.misfit(index, error)
        return placed

    def misfit(self, index: int, error: ConfigError) -> None:
        path = ".".join(p for p in (f"stages.{index}.config", error.field) if p)
        self.problems.append(Problem(path, error.message, code=error.code))

    def training(
        self,
        training: TrainingSpec,
        stages: list[StageSpec | None],
        found: list[Any],
        data: DataSpec | None,
        latents: set[str],
    ) -> TrainingSpec:
        trainees = [
            Trainee(s.name, *((row[0].entry.role, row[1]) if row else ()))
            for s, row in zip(stages, found, strict=True)
            if s is not None
        ]
        losses = training.losses
        if losses is None:
            refiners = [t.name for t in trainees if t.role == "refiner" and t.name not in latents]
            losses = [LossSpec(stage=name) for name in refiners]
        callbacks = training.callbacks
        if self.for_training:
            table = self.registry.losses
            names = [t.name for t in trainees]
            for index, loss in enumerate(losses):
                self.problems += unknown(f"training.losses.{index}.stage", loss.stage, names)
            rows = enumerate(losses)
            losses = [self.part(table, loss, f"training.losses.{i}") for i, loss in rows]
            others = self.registry.callbacks
            callbacks = [
                self.part(others, c, f"training.callbacks.{i}") for i, c in enumerate(callbacks)
            ]
        phases = training.phases
        if phases is None:
            phases = default_phases(trainees, losses)
        else:
            self.duplicates("training.phases", [p.name for p in phases])
        phases = [
            phase.model_copy(
                update={
                    "optimizer": override(training.optimizer, phase.optimizer),
                    "schedule": override(training.schedule, phase.schedule),
                }
            )
            for phase in phases
        ]
        update = {"losses": losses, "phases": phases, "callbacks": callbacks}
        training = training.model_copy(update=update)
        self.problems += check_phases(training, trainees, data.num_classes if data else None)
        return training

    def part(self, table: Table[Any], part: P, path: str) -> P:
        """A loss or a callback with its config written out."""
        found = self.look_up(table, part.kind, f"{path}.kind")
        config = self.config_of(found, part.config, f"{path}.config", Model) if found else None
        if config is None:
            return part
        return part.model_copy(update={"config": config.model_dump(mode="json")})

    def evaluation(self, spec: CascadeSpec) -> None:
        evaluation = spec.evaluation
        for index, name in enumerate(evaluation.metrics):
            self.named(self.registry.metrics, name, f"evaluation.metrics.{index}")
        self.named(self.registry.features, evaluation.extractor, "evaluation.extractor")
        if evaluation.in_loop:
            path = "evaluation.in_loop.extractor"
            self.named(self.registry.features, evaluation.in_loop.extractor, path)

    def named(self, table: Table[E], text: str, path: str) -> None:
        """A name with an argument, of something that is loaded only where it is measured."""
        found = self.look_up(table, text.partition(":")[0], path)
        if found is None:
            return
        try:
            named.look_up(table, text)
        except CascadezooError as error:
            self.problems.append(Problem(path, error.what, error.hint, code=error.code))


def _unique(problems: list[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems)) or [
        Problem("", "does not hold together", code="inconsistent")
    ]

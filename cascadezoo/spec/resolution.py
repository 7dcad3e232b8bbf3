"""Late validation: kinds, their configs, sizes, phases. Collects all problems before it raises."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cascadezoo.errors import CascadezooError, PluginError, Problem, SpecError, UnknownNameError
from cascadezoo.plugins.faults import Owner
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
from cascadezoo.spec.faults import problems_of, role_problem
from cascadezoo.spec.files import apply_settings, read_spec
from cascadezoo.spec.models import (
    FROM_DATA,
    MOST_NAMES,
    CallbackSpec,
    CascadeSpec,
    DataSpec,
    LossSpec,
    StageSpec,
    TrainingSpec,
)
from cascadezoo.spec.phases import Trainee, check_phases, default_phases, override, unknown
from cascadezoo.spec.requires import (
    absent_packages,
    changed_since,
    check_requires,
    derive_requires,
    derive_urls,
    install_hint,
    install_line,
    stated_urls,
)
from cascadezoo.spec.typed import ConfigKindError, json_data

__all__ = ["ResolvedSpec", "ResolvedStage", "load_spec", "resolve", "spec_data"]

_UNRESOLVED = "is missing, but the spec of a trained model must state it"

M = TypeVar("M", bound=BaseModel)
E = TypeVar("E", bound=Entry)
P = TypeVar("P", LossSpec, CallbackSpec)


@dataclass(frozen=True, slots=True)
class ResolvedStage:
    """A stage with its validated config and its place in the chain of sizes."""

    name: str
    kind: str
    entry: StageEntry
    origin: Origin
    config: StageConfig
    output: ImageShape
    input: ImageShape | None


@dataclass(frozen=True, slots=True)
class ResolvedSpec:
    """A validated spec, with the kinds that are installed here.

    Args:
        spec: the spec with all defaults, and with the versions of kinds.
        stages: its stages, from the generator.
        data_config: the dataset's config; None when resolved for sampling only.
        data_info: information about the dataset.
    """

    spec: CascadeSpec
    stages: tuple[ResolvedStage, ...]
    data_config: DataConfig | None
    data_info: DataInfo

    @property
    def image(self) -> ImageShape:
        """The shape of the cascade's images."""
        return self.stages[-1].output

    @property
    def num_classes(self) -> int | None:
        """Number of labels; None without labels."""
        return self.spec.data.num_classes or None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the labels, from label 0 on; None if they are unknown."""
        names = self.spec.data.class_names or self.data_info.class_names
        return tuple(names) if names and len(names) == self.num_classes else None


def resolve(
    spec: CascadeSpec | Mapping[str, Any],
    *,
    source: str = "spec",
    for_training: bool = True,
    registry: Registry | None = None,
) -> ResolvedSpec:
    """Validate a complete spec and fill in its defaults.

    A resolved spec resolves to itself.

    Args:
        spec: a spec or its JSON data.
        source: its name in error messages.
        for_training: False is for the spec of a trained model, which may come from anyone. It only
            validates the parts that sampling needs: the stages, but not the dataset, losses and
            metrics, whose plugins may not be installed. It reads no file that the spec names, so
            a spec that is not complete is invalid.
        registry: the registered names; None uses the installed ones.

    Raises:
        SpecError: with all problems.
    """
    raw: Any = spec_data(spec) if isinstance(spec, (CascadeSpec, dict)) else spec
    return _Resolver(registry or get_registry(), for_training).run(raw, source)


def load_spec(
    source: CascadeSpec | Mapping[str, Any] | str | Path, *, settings: Iterable[str] = ()
) -> ResolvedSpec:
    """Read a spec and resolve it.

    Args:
        source: a spec, its JSON data (in which configs may be objects, such as ``FlowConfig``), a
            file, ``-``, or the name of a shipped spec.
        settings: ``path=value`` changes, as for ``cascadezoo build --set``.

    Raises:
        SpecError: the spec is invalid; the error lists all problems.
        UnknownNameError: no file and no shipped spec has this name.
    """
    name = "spec"
    if isinstance(source, (str, Path)):
        data, name = read_spec(source)
    else:
        data = spec_data(source)
    return resolve(apply_settings(data, settings), source=name)


def spec_data(spec: CascadeSpec | Mapping[str, Any]) -> dict[str, Any]:
    """The JSON data of a spec; typed configs in it are converted.

    Raises:
        SpecError: a config belongs to another kind.
    """
    if isinstance(spec, CascadeSpec):
        return spec.to_dict()
    try:
        data: dict[str, Any] = json_data(spec)
    except ConfigKindError as error:
        raise SpecError([error.problem], source="spec") from None
    return data


class _Resolver:
    def __init__(self, registry: Registry, for_training: bool) -> None:
        self.registry = registry
        self.for_training = for_training
        self.problems: list[Problem] = []
        self.origins: list[Origin] = []
        self.requires: list[str] = []
        self.urls: dict[str, str] = {}

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
        self.urls = stated_urls(raw.get("project_urls"))
        # Parts are validated one by one, so that a problem in one does not hide those of others.
        rows = raw.get("stages")
        stages = self.parts(StageSpec, rows) if isinstance(rows, list) else []
        kinds = [self.stage_config(i, s) if s else None for i, s in enumerate(stages)]
        data_spec = self.quiet(DataSpec, raw.get("data"))
        data, data_config, info = self.data(data_spec) if data_spec else (None, None, DataInfo())
        self.names(stages, kinds)
        placed = self.chain(stages, kinds, data)
        training = self.quiet(TrainingSpec, raw.get("training", {}))
        if training:
            latents = {p.name for p in placed or () if p.output.latent}
            training = self.training(training, stages, kinds, data, latents)
        if envelope and self.for_training:
            self.evaluation(envelope)
        used = None
        if not self.for_training:
            used = frozenset(canonical_name(o.distribution) for o in self.origins)
        self.problems += check_requires(self.requires, used, self.urls)
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
            # Those of a trained model are what it was published with.
            "project_urls": derive_urls(self.origins if self.for_training else (), self.urls),
        }
        return ResolvedSpec(envelope.model_copy(update=update), tuple(placed), data_config, info)

    # --- single parts

    def validate(self, model: type[M], raw: Any, path: str) -> M | None:
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            self.problems += problems_of(error, raw, path, model)
        except RecursionError:
            self.problems.append(Problem(path, "is nested too deeply", code="nested"))
        return None

    def quiet(self, model: type[M], raw: Any) -> M | None:
        """Validate a part whose problems the envelope has already reported.

        Invalid keys are left out, so that the others are still checked.
        """
        try:
            return model.model_validate(raw)
        except RecursionError:
            return None
        except ValidationError as error:
            invalid = {row["loc"][0] for row in error.errors() if row["loc"]}
        if not invalid or not isinstance(raw, Mapping):
            return None
        rest = {key: value for key, value in raw.items() if key not in invalid}
        return self.quiet(model, rest) if len(rest) < len(raw) else None

    def parts(self, model: type[M], rows: Iterable[Any]) -> list[M | None]:
        return [self.quiet(model, row) for row in rows]

    def look_up(self, table: Table[E], name: str, path: str) -> Registered[E] | None:
        try:
            registered = table.get(name)
        except UnknownNameError as error:
            hint = install_hint(self.requires, self.urls) or error.hint
            self.problems.append(Problem(path, error.what, hint, code=error.code))
            return None
        except PluginError as error:
            self.problems.append(Problem(path, error.what, error.hint, code=error.code))
            return None
        self.origins.append(registered.origin)
        return registered

    def config_of(
        self, registered: Registered[E], raw: dict[str, Any], path: str, base: type[M]
    ) -> M | None:
        try:
            model = registered.entry.load_config()
        except PluginError as error:
            self.problems.append(Problem(path, error.what, error.hint, code=error.code))
            return None
        if not (isinstance(model, type) and issubclass(model, base)):
            message = f"{registered.entry.config} of {registered.origin} is not a {base.__name__}"
            self.problems.append(Problem(path, message, code="not-a-config"))
            return None
        before = len(self.problems)
        with Owner.of(registered).guard("to validate its config", model):
            config = self.validate(model, raw, path)
        self.changed(registered, before)
        return config

    def changed(self, registered: Registered[E], before: int) -> None:
        """Add a hint to the problems of a config if another version of its plugin wrote it."""
        hint = changed_since(self.requires, registered.entry.name, registered.origin)
        rows = self.problems[before:]
        self.problems[before:] = [
            Problem(p.path, p.message, p.hint or hint, code=p.code) for p in rows
        ]

    def stage_config(
        self, index: int, stage: StageSpec
    ) -> tuple[Registered[StageEntry], StageConfig | None] | None:
        registered = self.look_up(self.registry.stages, stage.kind, f"stages.{index}.kind")
        if registered is None:
            return None
        config = self.config_of(registered, stage.config, f"stages.{index}.config", StageConfig)
        return registered, config

    def data(self, spec: DataSpec) -> tuple[DataSpec | None, DataConfig | None, DataInfo]:
        stated = {name: getattr(spec, name) for name in FROM_DATA}
        known = None not in stated.values()
        if not self.for_training:
            missing = [f"data.{name}" for name, value in stated.items() if value is None]
            self.problems += [Problem(path, _UNRESOLVED, code="unresolved") for path in missing]
            self.class_names(spec)
            return (spec if known else None), None, self.names_without_files(spec)
        registered = self.look_up(self.registry.datasets, spec.source, "data.source")
        config = None
        if registered is not None:
            config = self.config_of(registered, spec.config, "data.config", DataConfig)
        if registered is not None and spec.streaming is True and registered.entry.source is None:
            self.problems.append(self.not_streamable(spec.source))
        if registered is None or config is None:
            return (spec if known else None), None, DataInfo()
        owner = Owner.of(registered)
        try:
            with owner.guard("in info() of its config", config.info):
                info = config.info()
        except CascadezooError as error:
            if isinstance(error, PluginError):
                raise
            if not known:
                self.problems.append(
                    Problem("data.config", error.what, error.hint, code=error.code)
                )
                return None, config, DataInfo()
            info = DataInfo(spec.size, spec.channels, spec.num_classes)
        update: dict[str, Any] = {"config": config.model_dump(mode="json")}
        for name, value in stated.items():
            value = getattr(info, name) if value is None else value
            if name == "num_classes" and value is None:
                value = 0
            if value is None:
                message = "the dataset does not define it; set it in the spec"
                self.problems.append(Problem(f"data.{name}", message, code="not-given"))
                return None, config, info
            update[name] = value
        names = info.class_names
        if spec.class_names is None and names and len(names) == update["num_classes"]:
            recordable = len(names) <= MOST_NAMES and all(0 < len(name) <= 200 for name in names)
            update["class_names"] = list(names) if recordable else None
        # The dataset may state a size that no spec can.
        whole = self.validate(DataSpec, {**spec.model_dump(mode="json"), **update}, "data")
        if whole is not None:
            self.class_names(whole)
            self.labels(whole, info)
        return whole, config, info

    def class_names(self, spec: DataSpec) -> None:
        names, classes = spec.class_names, spec.num_classes
        if names is not None and classes is not None and len(names) != classes:
            message = f"has {len(names)} names, but data.num_classes is {classes}"
            self.problems.append(Problem("data.class_names", message, code="class-names-count"))

    def labels(self, spec: DataSpec, info: DataInfo) -> None:
        """Compare the stated number of labels with that of the dataset, as far as it is known."""
        stated, actual = spec.num_classes or 0, info.num_classes
        if actual is None or not stated or stated >= actual > 0:
            return
        if actual == 0:
            message, hint = "the dataset has no labels", "set it to 0 to train without labels"
        else:
            message = f"the dataset has {actual} classes, but num_classes is {stated}"
            hint = f"set it to {actual}, or to 0 to train without labels"
        self.problems.append(Problem("data.num_classes", message, hint, code="too-few-classes"))

    def names_without_files(self, spec: DataSpec) -> DataInfo:
        """The class names of a trained model's dataset, if that reads no file; else nothing."""
        row = self.registry.datasets.rows.get(spec.source)
        if row is None or spec.class_names is not None or not spec.num_classes:
            return DataInfo()
        try:
            model = row.entry.load_config()
            paths = getattr(model, "paths", None)
            if paths is None or any(spec.config.get(name) is not None for name in paths):
                return DataInfo()
            return DataInfo(class_names=model(**spec.config).info().class_names)
        except (CascadezooError, ValidationError):
            return DataInfo()

    def not_streamable(self, name: str) -> Problem:
        rows = self.registry.datasets.rows.values()
        able = sorted(row.entry.name for row in rows if row.entry.source is not None)
        return Problem(
            "data.streaming",
            f"is true, but the dataset {name} cannot be streamed",
            f"use auto or false; {', '.join(able)} can be streamed",
            code="not-streamable",
        )

    # --- the parts together

    def names(self, stages: list[StageSpec | None], kinds: list[Any]) -> None:
        self.duplicates("stages", [s.name if s else None for s in stages])
        for index, row in enumerate(kinds):
            if row is None:
                continue
            role = row[0].entry.role
            if index == 0 and role != "generator":
                message = f"the first stage must be a generator; {row[0].entry.name} is a {role}"
            elif index > 0 and role == "generator":
                message = f"only the first stage can be a generator, such as {row[0].entry.name}"
            else:
                continue
            self.problems.append(Problem(f"stages.{index}.kind", message, code="role-order"))

    def duplicates(self, path: str, names: list[str | None]) -> None:
        seen: Counter[str] = Counter()
        for index, name in enumerate(names):
            if name is None:
                continue
            if seen[name]:
                message = f"another of the {path} already has the name {name!r}"
                self.problems.append(Problem(f"{path}.{index}.name", message, code="name-taken"))
            seen[name] += 1

    def chain(
        self,
        stages: list[StageSpec | None],
        kinds: list[tuple[Registered[StageEntry], StageConfig | None] | None],
        data: DataSpec | None,
    ) -> list[ResolvedStage] | None:
        if data is None or data.size is None or data.channels is None or not stages:
            return None
        output = ImageShape(data.channels, data.size)
        placed: list[ResolvedStage] = []
        for index in reversed(range(len(stages))):
            stage, row = stages[index], kinds[index]
            if stage is None or row is None:
                return None
            registered, config = row
            if config is None:
                return None
            upstream: ImageShape | None
            owner = Owner(registered.entry, registered.origin, stage.name)
            missing = []
            if not self.for_training:
                with owner.guard("in unresolved() of its config", config.unresolved):
                    missing = list(config.unresolved())
            if missing:
                rows = [f"stages.{index}.config.{name}" for name in missing]
                self.problems += [Problem(path, _UNRESOLVED, code="unresolved") for path in rows]
                return None
            if config.makes_tokens != (output.tokens is not None):
                kind, last = registered.entry.name, index == len(stages) - 1
                self.problems.append(_token_problem(index, kind, config, output, last=last))
                return None
            try:
                with owner.guard("to fit its config", config.fit, passes=_is_misfit):
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
            reason = role_problem(entry.role, upstream)
            if reason is not None:
                message = f"the config of {entry.name} contradicts its role, {entry.role}: {reason}"
                problem = Problem(f"stages.{index}.kind", message, code="role-contradicted")
                self.problems.append(problem)
                return None
            if upstream is None:
                return self.neighbours(placed) if index == 0 else None
            output = upstream
        return None

    def neighbours(self, placed: list[ResolvedStage]) -> list[ResolvedStage]:
        for index, (before, stage) in enumerate(itertools.pairwise(placed), start=1):
            self.neighbour(index, stage, "check_upstream", before.config)
            self.neighbour(index - 1, before, "check_downstream", stage.config)
        return placed

    def neighbour(self, index: int, stage: ResolvedStage, method: str, other: StageConfig) -> None:
        """Let a stage check the config of the one beside it."""
        owner = Owner(stage.entry, stage.origin, stage.name)
        check = getattr(stage.config, method)
        try:
            with owner.guard(f"in {method} of its config", check, passes=_is_misfit):
                check(other)
        except ConfigError as error:
            self.misfit(index, error)

    def misfit(self, index: int, error: ConfigError) -> None:
        path = ".".join(p for p in (f"stages.{index}.config", error.field) if p)
        self.problems.append(Problem(path, error.message, code=error.code))

    def training(
        self,
        training: TrainingSpec,
        stages: list[StageSpec | None],
        kinds: list[Any],
        data: DataSpec | None,
        latents: set[str],
    ) -> TrainingSpec:
        trainees = [
            Trainee(s.name, *((row[0].entry.role, row[1]) if row else ()))
            for s, row in zip(stages, kinds, strict=True)
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
        """A loss or a callback with its complete config."""
        registered = self.look_up(table, part.kind, f"{path}.kind")
        config = None
        if registered is not None:
            config = self.config_of(registered, part.config, f"{path}.config", Model)
        if config is None:
            return part
        if absent := absent_packages(config):
            names = ", ".join(absent)
            message = f"{part.kind} needs a package that is not installed: {names}"
            hint = install_line(absent)
            self.problems.append(Problem(f"{path}.kind", message, hint, code="package-missing"))
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
        """Check a name with an argument, without loading its implementation."""
        if self.look_up(table, text.partition(":")[0], path) is None:
            return
        try:
            named.look_up(table, text)
        except CascadezooError as error:
            self.problems.append(Problem(path, error.what, error.hint, code=error.code))


def _token_problem(
    index: int, kind: str, config: StageConfig, output: ImageShape, *, last: bool
) -> Problem:
    """The problem of a stage that makes tokens where none are needed, or the reverse."""
    need = f"the cascade makes {output}" if last else f"the next stage needs {output}"
    what = "makes tokens" if config.makes_tokens else "makes no tokens"
    hint = "choose a kind that makes tokens"
    if config.makes_tokens:
        hint = "put a stage that decodes tokens after it"
    return Problem(f"stages.{index}.kind", f"{kind} {what}, but {need}", hint, code="tokens")


def _is_misfit(error: BaseException) -> bool:
    return isinstance(error, ConfigError)


def _unique(problems: list[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems)) or [Problem("", "is inconsistent", code="inconsistent")]

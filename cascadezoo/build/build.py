"""The main job: turns a spec into a trained, evaluated, loadable cascade."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from cascadezoo._version import __version__
from cascadezoo.build.best_weights import BestWeights
from cascadezoo.build.converged import (
    SAMPLES,
    falling_losses,
    noiseless_stages,
    worse_without_noise,
)
from cascadezoo.build.plan import Plan, check_activations, check_memory, make_plan
from cascadezoo.build.run_folder import RunFolder, RunState
from cascadezoo.build.write_model import read_built, write_model
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.cascade.reload_check import check_reload
from cascadezoo.data.base import ImageData, Split
from cascadezoo.data.loader import BatchLoader
from cascadezoo.data.pixels import to_uint8
from cascadezoo.data.python_data import DataInput, GivenData
from cascadezoo.data.python_spec import load_spec_with, recorded
from cascadezoo.data.split import load_split
from cascadezoo.data.stream_loader import StreamLoader, make_loader
from cascadezoo.data.streamed import StreamedData
from cascadezoo.errors import DataError, InputError, RunFolderError, SampleError, StoppedError
from cascadezoo.evaluate.bench import LazyExtractor
from cascadezoo.evaluate.evaluate_metrics import Subject, evaluate_metrics
from cascadezoo.evaluate.evaluate_sampler import evaluate_kid, measure_sampling
from cascadezoo.evaluate.features.base import FeatureExtractor, load_extractor
from cascadezoo.evaluate.metrics.base import Metric, load_metric
from cascadezoo.evaluate.metrics.kid import default_subset_size
from cascadezoo.evaluate.options import EvaluationOptions, evaluation_options
from cascadezoo.evaluate.samples import SampleFn
from cascadezoo.evaluate.shared_sampling import SharedSampling
from cascadezoo.hub.publish.publish_model import check_publish, publish_built
from cascadezoo.model_folder.data_trust import record_built
from cascadezoo.model_folder.figures import Figure
from cascadezoo.model_folder.layout import CARD, read_config
from cascadezoo.model_folder.metrics_file import read_metrics
from cascadezoo.nn.recompute import recompute_blocks
from cascadezoo.report.course import read_course
from cascadezoo.report.epoch_pictures import draw_epoch_pictures
from cascadezoo.spec import CascadeSpec, ResolvedSpec
from cascadezoo.spec.measurable import require_measurable
from cascadezoo.train.callbacks import (
    Callback,
    Callbacks,
    FigureEvent,
    ModelEvent,
    TrainingRun,
    check_callbacks,
    load_callbacks,
)
from cascadezoo.train.checkpoint import CheckpointStore
from cascadezoo.train.compilation import CompileChoice, choose_compilation
from cascadezoo.train.engine import (
    Precision,
    describe_device,
    make_accelerator,
    pick_device,
    pick_precision,
    tune_backends,
)
from cascadezoo.train.events import EventLog, read_event_rows
from cascadezoo.train.extra_losses import load_losses
from cascadezoo.train.phase_end import finish_phase, stages_to_finish
from cascadezoo.train.progress import Progress, QuietProgress
from cascadezoo.train.skipped import describe_stream, record_skipped, share_skipped
from cascadezoo.train.stop_signals import StopSignals
from cascadezoo.train.trainer import Trainer
from cascadezoo.util.processes import (
    gather_values,
    is_restart,
    lost_peers,
    process_count,
    process_rank,
)

__all__ = ["BuildResult", "build_cascade"]

Stop = Callable[[], str | None]


@dataclass(frozen=True, slots=True)
class BuildResult:
    """The result of a build.

    Args:
        run: the run folder.
        model: its model folder.
        figures: the measured figures.
        seconds: duration of this call.
        already_done: whether nothing was left to do.
        published: the folder or Hub address of the published model; None if not published.
        commit: the commit of the repo on the Hub.
        warnings: what the checks after the training found.
    """

    run: Path
    model: Path
    figures: list[Figure]
    seconds: float
    already_done: bool = False
    published: str | None = None
    commit: str | None = None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The result as ``--json`` prints it."""
        return {
            "run": str(self.run),
            "model": str(self.model),
            "figures": [figure.to_dict() for figure in self.figures],
            "seconds": round(self.seconds, 3),
            "already_done": self.already_done,
            "published": self.published,
            "commit": self.commit,
            "warnings": list(self.warnings),
        }


def build_cascade(
    spec: CascadeSpec | Mapping[str, Any] | str | Path,
    out: str | Path | None = None,
    *,
    settings: Iterable[str] = (),
    seed: int | None = None,
    device: str = "auto",
    precision: str | None = None,
    resume: bool | None = None,
    progress: Progress | None = None,
    data: DataInput | None = None,
    callbacks: Iterable[Callback] = (),
) -> BuildResult:
    """Assemble, train, evaluate, write and publish a cascade.

    Errors in spec, data, weights, memory or folder are raised before training starts. A stopped
    build resumes from its newest checkpoint.

    Args:
        spec: a spec, its JSON data, a file, ``-``, or the name of a shipped spec.
        out: the run folder; None is ``runs/NAME``.
        settings: ``path=value`` changes to the spec.
        seed: overrides the spec's seed.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: overrides the spec's precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        resume: None resumes if the folder contains a build; True requires one; False starts over.
        progress: the progress display.
        data: images that replace the spec's dataset: a map-style dataset (``torch.utils.data``), a
            Hugging Face ``datasets.Dataset``, arrays or tensors, or the pair ``(images, labels)``
            of them, an :class:`~cascadezoo.ImageData`, an :class:`~cascadezoo.ImageSource`; or
            ``{"train": ..., "test": ...}``; or the config of a registered dataset. The images are
            not saved: the spec records their number, size and digest, and a build resumes only
            with the same ones.
        callbacks: objects that receive the events of the training, in addition to those that the
            spec names. They do not change the training.

    Raises:
        InputError: invalid spec, data or folder, or too little memory; exit code 2.
        PublishError: the model is built and kept, but could not be published.
        CascadezooError: any other expected failure.
    """
    began = time.monotonic()
    changes = list(settings)
    if seed is not None:
        changes.append(f"seed={seed}")
    if precision is not None:
        changes.append(f"training.precision={json.dumps(precision)}")
    show = progress or QuietProgress()
    objects = check_callbacks(callbacks)
    try:
        resolved, given = load_spec_with(spec, data, changes)
        run = RunFolder(Path(out) if out is not None else Path("runs") / resolved.spec.name)
        require_measurable(resolved)
        home = pick_device(device)
        plan = make_plan(resolved, home)
        # Processes on CPUs share the memory of the host.
        alone = home.type != "cuda"
        own = 1 if alone else process_count()
        divided = not alone and resolved.spec.training.parallel == "fsdp"
        check_memory(plan, processes=own, divided=divided)
        check_activations(plan, processes=own, divided=divided)
        # Processes of torchrun share one run folder; the first one writes it.
        with run.locked() if process_rank() == 0 else nullcontext(), StopSignals() as stop:
            try:
                with lost_peers():
                    build = _Build(resolved, run, home, show, stop.requested, plan, resume)
                    build.given, build.objects = given, objects
                    return build.run_all(resume, began)
            except StoppedError as error:
                raise StoppedError(
                    error.what,
                    hint=_resume_hint(run, device, given),
                    code=error.code,
                    **error.fields,
                ) from None
    finally:
        show.close()


def _resume_hint(run: RunFolder, device: str, given: GivenData | None) -> str:
    if given is not None:
        return f"resume with: build_cascade({str(run.spec)!r}, {str(run.path)!r}, data=...)"
    option = "" if device == "auto" else f" --device {shlex.quote(device)}"
    command = f"cascadezoo build {shlex.quote(str(run.spec))} -o {shlex.quote(str(run.path))}"
    return f"resume with: {command}{option}"


class _Build:
    def __init__(
        self,
        resolved: ResolvedSpec,
        run: RunFolder,
        device: torch.device,
        progress: Progress,
        stop: Stop,
        plan: Plan,
        resume: bool | None,
    ) -> None:
        self.given: GivenData | None = None
        self.objects: list[Callback] = []
        self.resolved = resolved
        self.plan = plan
        self.spec = resolved.spec
        self.run = run
        self.device = device
        self.progress = progress
        self.stop = stop
        self.precision = self._precision(resume)
        tune_backends(device, self.precision)
        self.accelerator = make_accelerator(device, self.precision)
        self.main = self.accelerator.is_main_process
        self.data: dict[str, ImageData] = {}
        self.trained_seconds = 0.0
        self.warnings: tuple[str, ...] = ()
        self.trained_steps = 0

    def run_all(self, resume: bool | None, began: float) -> BuildResult:
        if self.main:
            state = self._begin(resume)
        self.accelerator.wait_for_everyone()
        if not self.main:
            state = self.run.state() or _no_run_file(self.run)
        if self.main and (warning := check_publish(self.spec.publish, self.spec.name)):
            self.progress.say(warning)
        self._agree_on("spec", self.spec.training_digest())
        self._agree_on("version of cascadezoo", __version__)
        if state.state == "done" and state.spec_digest == self.spec.digest():
            built = read_built(self.run.model)
            self.warnings = tuple(built.training.warnings)
            self._record()
            return self._result(built.figures, began, already_done=True)
        self._load_data()
        for split, data in self.data.items():
            self._agree_on(f"{split} images", data.digest)
        extractors = self._load_extractors()
        with self._load_callbacks() as callbacks:
            cascade = self._train(extractors, callbacks, trained=state.state != "training")
            self._choose_weights(cascade)
            if not self.main:
                if self._evaluates():
                    SharedSampling.serve(lambda first, n: self._sample(cascade, first, n))
                return self._result([], began)
            state = replace(state, state="trained", spec_digest=self.spec.digest())
            self.run.write_state(state)
            figures = self._evaluate(cascade, extractors)
            self.warnings = tuple(self._unconverged(cascade, extractors))
            for warning in self.warnings:
                self.progress.say(f"warning: {warning}")
            write_model(
                self.run,
                cascade,
                figures,
                self.data["train"],
                self.precision,
                self.trained_seconds,
                self.warnings,
            )
            self.run.write_state(replace(state, state="done"))
            for figure in figures:
                callbacks.send(FigureEvent(figure.to_dict()))
            callbacks.send(_model_event(self.run.model, self.trained_steps))
            return self._result(figures, began)

    def _agree_on(self, what: str, value: str) -> None:
        """Check that all processes have the same value.

        Raises:
            InputError: they differ; every process raises it.
        """
        values = gather_values(value)
        others = [str(rank) for rank, other in enumerate(values) if other != values[0]]
        if others:
            raise InputError(
                f"the processes disagree on the {what}: process 0 has another one than "
                f"{'process' if len(others) == 1 else 'processes'} {', '.join(others)}",
                hint="start every process with the same command, files and packages",
                code="input-processes-differ",
                subject=what,
                ranks=", ".join(others),
            )

    def _result(
        self, figures: list[Figure], began: float, *, already_done: bool = False
    ) -> BuildResult:
        # Runs for a finished build too: what is already published is not sent again.
        published = publish_built(self.run.model, self.spec.publish) if self.main else None
        return BuildResult(
            run=self.run.path,
            model=self.run.model,
            figures=figures,
            seconds=time.monotonic() - began,
            already_done=already_done,
            published=None if published is None else str(published),
            commit=getattr(published, "commit", None),
            warnings=self.warnings,
        )

    def _record(self) -> None:
        """Record a finished model again: its record may be of another machine or version."""
        config = read_config(self.run.model)
        if self.main and config.spec == self.spec.to_dict():
            record_built(config)

    # --- before training

    def _precision(self, resume: bool | None) -> Precision:
        """The precision of the training; ``auto`` keeps that of a build that goes on."""
        requested = self.spec.training.precision
        state = None if resume is False or requested != "auto" else self.run.state()
        if state is not None and state.training_digest == self.spec.training_digest():
            return pick_precision(state.precision or requested, self.device)
        return pick_precision(requested, self.device)

    def _begin(self, resume: bool | None) -> RunState:
        # torchrun repeats the command after a failure; only its first start begins anew.
        state = None if resume is False and not is_restart() else self.run.state()
        if state is None:
            if resume:
                raise RunFolderError(
                    f"{self.run.path} contains no build to resume",
                    hint="leave out --resume",
                    code="run-folder-nothing-to-resume",
                    path=self.run.path,
                )
            self.run.clear(keep_state=True)
            state = RunState(
                name=self.spec.name,
                training_digest=self.spec.training_digest(),
                spec_digest=self.spec.digest(),
                state="training",
                cascadezoo_version=__version__,
                device=describe_device(self.device),
                precision=self.precision,
            )
        elif state.training_digest != self.spec.training_digest():
            self._refuse_other_images()
            raise RunFolderError(
                f"{self.run.path} contains a build of {state.name!r} from another spec",
                hint="choose another folder with -o DIR, or start over with --fresh",
                code="run-folder-other-spec",
                path=self.run.path,
                name=state.name,
            )
        if state.state != "done" or state.spec_digest != self.spec.digest():
            self.run.write_spec(self.spec)
            self.run.write_state(state)
        return state

    def _refuse_other_images(self) -> None:
        """Raise a more specific error if the spec of the folder's build has other given images."""
        former = self.run.read_spec()
        if self.given is None or former is None or former.data.source != self.spec.data.source:
            return
        config = recorded(former.data.config, str(self.run.spec))
        given, needed = (
            [split for split in get_args(Split) if split in splits]
            for splits in (self.given.splits, config.model_dump(exclude_none=True))
        )
        if given != needed:
            raise RunFolderError(
                f"{self.run.path} contains a build on {' and '.join(needed)} images, but "
                f"{' and '.join(given)} images are given",
                hint="pass the same splits; choose another folder, or start over with resume=False",
                code="run-folder-other-images",
                path=self.run.path,
            )
        try:
            self.given.require(config)
        except DataError as error:
            raise RunFolderError(
                f"{self.run.path} contains a build on other images: {error.what}",
                hint="pass the same images in the same order, without random transforms; choose "
                "another folder, or start over with resume=False",
                code="run-folder-other-images",
                path=self.run.path,
            ) from error

    def _load_data(self) -> None:
        self._split("train")
        evaluation = self.spec.evaluation
        if self._evaluates() or evaluation.in_loop is not None:
            self._split(evaluation.split)
        for metric in self._metrics():
            for split in getattr(metric.config, "splits", ()):
                self._split(split)

    def _split(self, split: Split) -> ImageData:
        if split not in self.data:
            given = self.given
            if given is None:
                data = load_split(self.resolved, split)
            else:
                data = given.split(self.resolved, split)
            self.data[split] = data
            if isinstance(data, StreamedData):
                self.progress.say(f"{describe_stream(data)} ({split})")
        return self.data[split]

    def _evaluates(self) -> bool:
        return bool(self.spec.evaluation.metrics)

    def _load_extractors(self) -> dict[str, FeatureExtractor]:
        """Load the extractors before training, so that missing weights do not waste a training."""
        evaluation, in_loop = self.spec.evaluation, self.spec.evaluation.in_loop
        named = {evaluation.extractor} if self._evaluates() else set()
        used = {evaluation.extractor} if self._uses_extractor() else set()
        if in_loop is not None:
            named.add(in_loop.extractor)
            used.add(in_loop.extractor)
        counts = {split: len(data) for split, data in self.data.items()}
        require_measurable(self.resolved, counts)
        loaded: dict[str, FeatureExtractor] = {}
        for name in sorted(named):
            load = load_extractor if name in used else LazyExtractor
            loaded[name] = load(name, device=self.device)
        if self._uses_extractor():
            features = loaded[evaluation.extractor].num_features
            require_measurable(self.resolved, counts, num_features=features)
        for metric in self._metrics():
            if self.main:
                metric.prepare(loaded[evaluation.extractor], self.resolved.image.size)
        return loaded

    def _metrics(self) -> list[Metric]:
        return [load_metric(name) for name in self.spec.evaluation.metrics]

    def _uses_extractor(self) -> bool:
        return any(metric.entry.extractor for metric in self._metrics())

    def _load_callbacks(self) -> Callbacks:
        """Start the callbacks before training, only on the first process."""
        run = TrainingRun(
            self.spec.name, self.spec.to_dict(), self.run.path, str(self.device), self.precision
        )
        if not self.main:
            return load_callbacks((), run)
        return load_callbacks(self.spec.training.callbacks, run, self.objects)

    # --- training

    def _train(
        self, extractors: dict[str, FeatureExtractor], callbacks: Callbacks, trained: bool
    ) -> Cascade:
        store = CheckpointStore(self.run.checkpoints)
        if trained:
            newest = store.newest()
            if newest is None:
                raise RunFolderError(
                    f"the last checkpoint of the trained run {self.run.path} is missing",
                    hint="start over with --fresh",
                    code="run-folder-checkpoint-gone",
                    path=self.run.path,
                )
            # The last checkpoint may be damaged; an older one is before the end.
            trained = newest.position.phase >= len(self.spec.training.phases or [])
        losses = [] if trained else load_losses(self.resolved, self.device)
        accelerator = self.accelerator
        cascade = Cascade.from_spec(self.resolved, device=self.device)
        if not trained:
            check_reload(cascade)
        spec = self.spec
        data = self.data["train"]
        loader = make_loader(
            data,
            batch_size=spec.training.batch_size,
            seed=spec.seed,
            flip=spec.data.flip,
            device=self.device,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
        )
        in_loop = spec.evaluation.in_loop
        # The first process has the callbacks; the others take part in its sampling.
        shown = int(gather_values(str(callbacks.samples))[0])
        events = EventLog(self.run.events if self.main else None)
        graphs = False
        if isinstance(data, StreamedData) and self.main:
            record_skipped(events, data)
        if not trained:
            choice = self._compilation(loader)
            events.write("compilation", scope=choice.scope, reason=choice.reason)
            graphs = choice.scope == "graphs"
            if choice.scope == "blocks" or choice.scope == "network":
                self.progress.say(f"compiling each {choice.scope}: {choice.reason}")
                cascade.compile(choice.scope)
            if spec.training.recompute:
                blocks = sum(recompute_blocks(stage) for _, stage in cascade.named_stages())
                events.write("recompute", blocks=blocks)
        try:
            trainer = Trainer(
                cascade,
                loader,
                accelerator,
                data=data,
                losses=losses,
                store=store,
                events=events,
                progress=self.progress,
                figures=lambda c: self._in_loop(c, extractors, trainer.position.phase),
                figures_every=in_loop.every_epochs if in_loop else None,
                pictures=self._draw if in_loop and in_loop.pictures and self.main else None,
                stop=self.stop,
                callbacks=callbacks,
                samples=(lambda c: self._samples(c, shown)) if shown else None,
                graphs=graphs,
            )
            trainer.run()
            if isinstance(data, StreamedData):
                share_skipped(data, accelerator.num_processes)
        finally:
            if isinstance(loader, StreamLoader):
                loader.close()
            events.close()
        self.trained_seconds = trainer.position.seconds
        self.trained_steps = trainer.position.global_step
        return cascade

    def _samples(self, cascade: Cascade, count: int) -> dict[str, NDArray[np.uint8]]:
        """Images for the callbacks by stage; none if they cannot be sampled."""
        try:
            images = cascade.sample(count, seed=self.spec.evaluation.seed, return_stages=True)
        except SampleError as error:  # for example of a network that diverges
            self.progress.say(f"no samples for the callbacks: {error.what}")
            return {}
        stages = [stage.name for stage in cascade.resolved.stages if not stage.output.latent]
        return {name: to_uint8(images[name]).permute(0, 2, 3, 1).cpu().numpy() for name in stages}

    def _compilation(self, loader: BatchLoader) -> CompileChoice:
        flops = self.plan.training_flops(self.spec.training.batch_size, loader.steps_per_epoch)
        phases = self.spec.training.phases or []
        networks = len({name for phase in phases for name in phase.train})
        return choose_compilation(self.spec.training, self.device, flops, networks)

    def _in_loop(
        self, cascade: Cascade, extractors: dict[str, FeatureExtractor], phase: int
    ) -> list[dict[str, Any]]:
        options = self._in_loop_options()
        if options is None:
            return []

        def sample(first: int, count: int) -> torch.Tensor:
            return self._sample(cascade, first, count)

        if not self.main:
            SharedSampling.serve(sample)
            return []
        with SharedSampling(sample, options.n, options.batch_size) as shared:
            figure = self._in_loop_figure(cascade, shared, options, extractors[options.extractor])
        # Before the last phase, other stages are not trained yet.
        best = self._best() if phase + 1 == len(self.spec.training.phases or []) else None
        kept = best is not None and best.offer(cascade, figure)
        self.progress.say(f"{figure}{', the best so far' if kept else ''}")
        return [figure.to_dict()]

    def _draw(self, cascade: Cascade, index: int, phase: str, epoch: int) -> None:
        """Draw samples and reconstructions during the training."""
        evaluation = self.spec.evaluation
        if evaluation.in_loop is None:
            return
        for picture in draw_epoch_pictures(
            cascade,
            self.data[evaluation.split],
            evaluation.in_loop.pictures,
            seed=evaluation.seed,
            index=index,
            phase=phase,
            epoch=epoch,
        ):
            self.run.write_picture(picture.file, picture.image)

    def _in_loop_figure(
        self,
        cascade: Cascade,
        sample: SampleFn,
        options: EvaluationOptions,
        extractor: FeatureExtractor,
    ) -> Figure:
        spec, real, note = self.spec.evaluation.in_loop, self.data[options.split], "during training"
        if spec is None or spec.metric == "kid":
            return evaluate_kid(sample, real, options, extractor=extractor, note=note)
        subject = Subject(cascade=cascade, real=real, split=self._split, sample=sample)
        figure, *_ = evaluate_metrics([spec.metric], subject, options, extractor=extractor)
        return figure.model_copy(update={"note": note})

    def _best(self) -> BestWeights | None:
        """The weights with the best figure, if the model shall have them."""
        in_loop = self.spec.evaluation.in_loop
        if in_loop is None or in_loop.keep == "last":
            return None
        return BestWeights(self.run.best, self.spec.training_digest())

    def _choose_weights(self, cascade: Cascade) -> None:
        """Give the trained cascade the weights with the best figure, if the spec says so."""
        best = self._best()
        # The first process wrote the file before all processes ended the training.
        if best is None:
            return
        figure = best.load(cascade)
        if figure is None:
            raise RunFolderError(
                f"the weights with the best figure of the trained run {self.run.path} are missing: "
                f"{best.path.name} is gone, or belongs to another training",
                hint="start over with --fresh",
                code="run-folder-best-gone",
                path=best.path,
            )
        phase = (self.spec.training.phases or [])[-1]
        if names := stages_to_finish(cascade, phase.train):
            finish_phase(
                cascade,
                names,
                self.data["train"],
                phase=phase.name,
                batch_size=self.spec.training.batch_size,
                progress=self.progress,
            )
        if self.main:
            self.progress.say(f"the model has the weights of the best figure: {figure}")

    def _in_loop_options(self) -> EvaluationOptions | None:
        spec = self.spec.evaluation.in_loop
        if spec is None:
            return None
        return evaluation_options(
            self.spec.evaluation,
            extractor=spec.extractor,
            n=spec.samples,
            subsets=spec.subsets,
            subset_size=spec.subset_size,
            precision="fp32",
        )

    # --- after training

    def _evaluate(self, cascade: Cascade, extractors: dict[str, FeatureExtractor]) -> list[Figure]:
        options = evaluation_options(self.spec.evaluation)
        if self._evaluates():
            self.progress.task(f"sampling {options.n} images", options.n)

            def sample(first: int, count: int) -> torch.Tensor:
                reason = self.stop()
                if reason is not None:
                    raise StoppedError(
                        f"stopped by {reason} during the evaluation; the trained weights are kept",
                        code="interrupted-evaluating",
                        reason=reason,
                    )
                images = shared(first, count)
                self.progress.advance(first + count)
                return images

            with SharedSampling(
                lambda first, n: self._sample(cascade, first, n), options.n, options.batch_size
            ) as shared:
                return evaluate_metrics(
                    self.spec.evaluation.metrics,
                    Subject(
                        cascade=cascade,
                        real=self.data[options.split],
                        split=self._split,
                        sample=sample,
                    ),
                    options,
                    extractor=extractors[options.extractor],
                )
        return [measure_sampling(lambda first, count: self._sample(cascade, first, count), n=64)]

    def _unconverged(
        self, cascade: Cascade, extractors: dict[str, FeatureExtractor]
    ) -> Iterator[str]:
        """Warn about stages that sample without noise and were not trained for long enough."""
        stages = noiseless_stages(self.resolved)
        if not stages:
            return
        yield from falling_losses(read_course(read_event_rows(self.run.events).rows), [*stages])
        if not self._uses_extractor():
            return
        spec = self.spec.evaluation
        n = min(SAMPLES, spec.samples)
        real = self.data[spec.split]
        options = evaluation_options(
            spec, n=n, subset_size=default_subset_size(n, min(n, len(real)))
        )
        self.progress.task(f"comparing samplers on {n} images", 2 * n)
        drawn = 0

        def draw(first: int, count: int, request: Mapping[str, Any]) -> torch.Tensor:
            nonlocal drawn
            reason = self.stop()
            if reason is not None:
                raise StoppedError(
                    f"stopped by {reason} during the evaluation; the trained weights are kept",
                    code="interrupted-evaluating",
                    reason=reason,
                )
            images: torch.Tensor = cascade.sample(
                count, first=first, seed=spec.seed, batch_size=count, **request
            )
            drawn += count
            self.progress.advance(drawn)
            return images

        warning = worse_without_noise(draw, stages, real, options, extractors[spec.extractor])
        if warning is not None:
            yield warning

    def _sample(self, cascade: Cascade, first: int, count: int) -> torch.Tensor:
        seed = self.spec.evaluation.seed
        return cascade.sample(count, first=first, seed=seed, batch_size=count)


def _model_event(folder: Path, step: int) -> ModelEvent:
    card = (folder / CARD).read_text(encoding="utf-8")
    return ModelEvent(folder, card, read_metrics(folder).to_dict(), step)


def _no_run_file(run: RunFolder) -> RunState:
    raise RunFolderError(
        f"{run.path} has no run.json from the first process",
        code="run-folder-no-run-file",
        path=run.path,
    )

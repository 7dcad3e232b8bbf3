"""Cascade: assembles stages, samples from them, saves and loads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack, overload

import torch
from torch import Tensor, nn

from cascadezoo._version import __version__
from cascadezoo.cascade.assemble import build_stage
from cascadezoo.cascade.sampling import Precision, SampleOptions, SamplingRun, Watch, autocast
from cascadezoo.cascade.sampling_memory import fitting_batch
from cascadezoo.cascade.stage_calls import upstream_target
from cascadezoo.cascade.weights import (
    HALVES,
    bounded_build,
    check_room,
    check_whole,
    load_state,
    save_state,
)
from cascadezoo.errors import InputError, SampleError
from cascadezoo.hub.locate import locate
from cascadezoo.model_folder.change import new_version
from cascadezoo.model_folder.files import open_file, stat_file
from cascadezoo.model_folder.integrity import check_files, refuse_bundled, seal
from cascadezoo.model_folder.layout import CONFIG, read_config, weights_path
from cascadezoo.nn.compiled import CompileScope, compile_network, compiler_problem
from cascadezoo.spec import CascadeSpec, ResolvedSpec, load_spec, resolve
from cascadezoo.spec.requires import changed_since
from cascadezoo.stages.base import Stage
from cascadezoo.util.files import writing_to

__all__ = ["Cascade", "channels_last"]


class Cascade(nn.Module):
    """An image generator built from stages, from coarse to fine.

    Args:
        resolved: the spec that the stages were built from.
        stages: the stages, from the generator on.
    """

    def __init__(self, resolved: ResolvedSpec, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.resolved = resolved
        self.stages = nn.ModuleList(stages)

    # --- building and loading

    @classmethod
    def from_spec(
        cls,
        spec: CascadeSpec | ResolvedSpec | Mapping[str, Any] | str | Path,
        *,
        device: torch.device | str = "cpu",
        seed: int | None = None,
    ) -> Cascade:
        """Build an untrained cascade.

        Args:
            spec: a spec, its JSON data, a file, or the name of a shipped spec.
            device: the device of the weights; ``meta`` allocates none.
            seed: seed of the initial weights; None uses the spec's.

        Raises:
            SpecError: the spec does not validate.
            ResourceError: a stage is larger than any possible memory.
            PluginError: a stage's implementation cannot be imported or built.
        """
        resolved = spec if isinstance(spec, ResolvedSpec) else load_spec(spec)
        seed = resolved.spec.seed if seed is None else seed
        stages = [build_stage(s, resolved.num_classes, device, seed) for s in resolved.stages]
        return cls(resolved, stages)

    @classmethod
    def from_pretrained(
        cls,
        reference: str | Path,
        *,
        revision: str | None = None,
        offline: bool | None = None,
        device: torch.device | str = "cpu",
    ) -> Cascade:
        """Load a trained cascade, ready to sample from. Models on the Hub are pulled first.

        Args:
            reference: a model folder, the run folder of a finished build, the name of a zoo model,
                or ``[hf://]org/name[@revision]``.
            revision: branch, tag or commit of a repo on the Hub; None is ``main``.
            offline: True sends no request; None follows ``HF_HUB_OFFLINE``.
            device: the device of the weights.

        Raises:
            ModelReferenceError: the model was not found, or the reference is ambiguous.
            HubError: the repo does not exist or is not accessible, or the Hub is unreachable.
            ModelError: a file is missing, was changed, or does not fit the spec.
            SpecError: a kind that the model needs is not installed.
            ResourceError: the weights need more memory than is available.
        """
        folder = locate(reference, revision, offline)
        config = read_config(folder)
        resolved = resolve(config.spec, source=str(folder / CONFIG), for_training=False)
        weights = [weights_path(stage.name) for stage in resolved.stages]
        check_files(folder, config, weights, trust_verified=True)
        with bounded_build(resolved.spec.name):
            cascade = cls.from_spec(resolved, device="meta")
        size = sum(stat_file(folder, name).st_size for name in weights)
        check_room(size, resolved.spec.name, device)
        for (name, stage), part in zip(cascade.named_stages(), resolved.stages, strict=True):
            stage.drop_training_only()
            hint = changed_since(resolved.spec.requires, part.kind, part.origin)
            path = weights_path(name)
            load_state(stage, folder / path, device, hint=hint, opened=open_file(folder, path))
            check_whole(stage, name, resolved.spec.name)
        # Tensors that a stage made on the CPU move to the device of the weights.
        placed = cascade if torch.device(device).type == "cpu" else cascade.to(device)
        return channels_last(placed).eval()

    def compile(  # type: ignore[override]
        self, scope: CompileScope = "blocks", *, stages: Sequence[str] | None = None, **options: Any
    ) -> Cascade:
        """Compile the stages' networks by ``torch.compile``, in place.

        They are compiled when they first run. The names of the weights stay as they are. A block
        that cannot be compiled runs uncompiled, after a warning.

        Args:
            scope: ``blocks`` compiles each kind of block, which is quick; ``network`` each network
                as one, which takes longer and runs faster.
            stages: the stages to compile; None compiles all.
            options: of ``torch.compile``, such as ``mode="reduce-overhead"``.

        Returns:
            The cascade itself.

        Raises:
            InputError: compilation is not possible for this device.
            KeyError: the cascade has no such stage.
        """
        problem = compiler_problem(self.device)
        if problem is not None:
            raise InputError(
                f"cannot compile: {problem}",
                hint="leave compilation out",
                code="input-compile-impossible",
                device=self.device.type,
            )
        for name in self.names if stages is None else stages:
            stage = self.stage(name)
            network = getattr(stage, "network", None)
            if isinstance(network, nn.Module):
                compile_network(network, f"{id(self):x}_{name}", scope, **options)
        return self

    def save_pretrained(
        self, folder: str | Path, *, weights: Literal["bf16", "fp16"] | None = None
    ) -> Path:
        """Write config.json and the weights of every stage as safetensors, in one step.

        Args:
            folder: created if it is missing; model files in it are replaced.
            weights: store float32 weights in half precision, which halves the files. Loading
                converts them back to float32; the rounding stays. None stores them unchanged.

        Returns:
            The folder.

        Raises:
            InputError: the folder is inside a model that ships with a distribution, the precision
                is unknown, or a weight is too large for it.
            DiskFullError: the disk is full; the former weights are kept.
            ModelError: the folder contains files that are not part of a model; it is unchanged.
            RunFolderError: the folder cannot be written.
        """
        if weights is not None and weights not in HALVES:
            raise InputError(
                f"cannot store weights in {weights!r}",
                hint="choose bf16 or fp16, or leave it out",
                code="input-weights-precision",
                name=weights,
            )
        dtype = None if weights is None else HALVES[weights]
        for name, tensor in self.state_dict().items() if dtype is not None else ():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor.to(dtype)).all()):
                raise InputError(
                    f"{name} has values that are too large for {weights}",
                    hint="choose bf16",
                    code="input-weights-overflow",
                    name=name,
                )
        folder = Path(folder)
        refuse_bundled(folder)
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with new_version(folder) as new:
                for name, stage in self.named_stages():
                    save_state(stage.saved_state(), new / weights_path(name), dtype)
                seal(folder, self.spec, __version__, new=new)
        return folder

    # --- properties

    @property
    def spec(self) -> CascadeSpec:
        """The resolved spec."""
        return self.resolved.spec

    @property
    def names(self) -> list[str]:
        """The names of the stages, from the generator on."""
        return [s.name for s in self.resolved.stages]

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def stage(self, name: str) -> Stage:
        """The stage with this name.

        Raises:
            KeyError: the cascade has no such stage.
        """
        if name not in self.names:
            raise KeyError(f"{name!r} is not a stage of {self.spec.name}: {', '.join(self.names)}")
        stage: Stage = self.stages[self.names.index(name)]  # type: ignore[assignment]
        return stage

    def named_stages(self) -> Iterator[tuple[str, Stage]]:
        """Names and stages, from the generator on."""
        for name in self.names:
            yield name, self.stage(name)

    def targets(self, images: Tensor) -> list[Tensor]:
        """Compute the training target of each stage for these images.

        Args:
            images: [N, C, H, W] in [-1, 1], in the size of the last stage's output.

        Returns:
            One tensor per stage, from the generator on.
        """
        rows = [images]
        for name in reversed(self.names[1:]):
            rows.insert(0, upstream_target(self.stage(name), rows[0]))
        return rows

    # --- sampling

    @overload
    def sample(
        self, n: int = ..., *, return_stages: Literal[False] = ..., **rest: Unpack[SampleOptions]
    ) -> Tensor: ...

    @overload
    def sample(
        self, n: int = ..., *, return_stages: Literal[True], **rest: Unpack[SampleOptions]
    ) -> dict[str, Tensor]: ...

    def sample(
        self,
        n: int = 16,
        *,
        seed: int = 0,
        labels: int | Sequence[int] | Tensor | None = None,
        steps: int | Mapping[str, int] | None = None,
        guidance: float | Mapping[str, float] | None = None,
        sampler: str | Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        first: int = 0,
        batch_size: int = 64,
        precision: Precision = "fp32",
        return_stages: bool = False,
        watch: Watch | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Sample images.

        Image ``i`` depends only on the seed and ``i``. The same seed gives the same images (up to
        rounding) for any batch size. Use ``first`` to continue where another call ended.

        The memory is estimated first. Batches that do not fit are made smaller, with a log message.

        Args:
            n: number of images.
            seed: seed of all randomness.
            labels: one for all images, or one per image; None gives image ``i`` the label
                ``i % num_classes``.
            steps: steps of iterative stages: a number for all, or numbers by stage name; None uses
                each stage's default.
            guidance: the scale of classifier-free guidance, given like ``steps``.
            sampler: the name of the sampler, given like ``steps``.
            options: further options by name. A value applies to all stages that support the
                option, or is given by stage name. The built-in stages support ``s`` (noise level
                of conditioning augmentation), ``truncated`` (whether the previous stage stops at
                ``s``), ``eta``, ``negative_label`` and ``guidance_interval`` (low and high noise
                level).
            first: the number of the first image.
            batch_size: number of images per batch.
            precision: of the networks' arithmetic: ``fp32``, ``bf16`` or, on CUDA, ``fp16``. The
                weights and the sampler's state stay float32.
            return_stages: also return the output of the stages before the last.
            watch: called with a stage's name and its image, [batch, C, H, W], after each step of
                an iterative stage. The image is reused: copy it to keep it.
            progress: called with the number of finished images.

        Returns:
            The images, [n, C, H, W] in [-1, 1] on the cascade's device; with ``return_stages`` a
            dict of images by stage name.

        Raises:
            SampleError: a number is out of range, the cascade does not have a label, no stage
                supports an option, or images are not finite.
            ResourceError: the memory does not suffice for one image at a time.
            PluginError: a stage of a plugin fails, or its images are not finite or have another
                shape.
        """
        return self._sample(
            self.names,
            None,
            n,
            return_stages,
            seed=seed,
            labels=labels,
            steps=steps,
            guidance=guidance,
            sampler=sampler,
            options=options,
            first=first,
            batch_size=batch_size,
            precision=precision,
            watch=watch,
            progress=progress,
        )

    @overload
    def sample_from(
        self,
        stage: str,
        upstream: Tensor,
        *,
        return_stages: Literal[False] = ...,
        **rest: Unpack[SampleOptions],
    ) -> Tensor: ...

    @overload
    def sample_from(
        self,
        stage: str,
        upstream: Tensor,
        *,
        return_stages: Literal[True],
        **rest: Unpack[SampleOptions],
    ) -> dict[str, Tensor]: ...

    def sample_from(
        self,
        stage: str,
        upstream: Tensor,
        *,
        seed: int = 0,
        labels: int | Sequence[int] | Tensor | None = None,
        steps: int | Mapping[str, int] | None = None,
        guidance: float | Mapping[str, float] | None = None,
        sampler: str | Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        first: int = 0,
        batch_size: int = 64,
        precision: Precision = "fp32",
        return_stages: bool = False,
        watch: Watch | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Run a stage and all later stages on existing images.

        If ``upstream`` is the output of :meth:`sample` for the stage before, with the same seed
        and options, the results equal those of :meth:`sample`. A stage with conditioning
        augmentation adds noise to the images itself. The images are clean, so it is never
        truncated here.

        Args:
            stage: the name of the first stage to run.
            upstream: its input, floating [n, C, H, W] of its input's shape, on any device: images
                in [-1, 1], or latents; real or sampled.
            seed: see :meth:`sample`.
            labels: see :meth:`sample`.
            steps: see :meth:`sample`.
            guidance: see :meth:`sample`.
            sampler: see :meth:`sample`.
            options: see :meth:`sample`.
            first: see :meth:`sample`.
            batch_size: see :meth:`sample`.
            precision: see :meth:`sample`.
            return_stages: see :meth:`sample`.
            watch: see :meth:`sample`.
            progress: see :meth:`sample`.

        Returns:
            As for :meth:`sample`, for the stages that were run.

        Raises:
            SampleError: the stage does not exist or is the generator, the images do not fit it,
                or :meth:`sample` would refuse the arguments.
        """
        if stage not in self.names[1:]:
            what = "is the generator" if stage == self.names[0] else "is not a stage"
            listed = ", ".join(self.names[1:])
            hint = f"choose one of {listed}" if listed else "use sample() for a single generator"
            raise SampleError(
                f"{stage!r} {what} of {self.spec.name}",
                hint=hint,
                code="sample-stage-unusable",
                name=stage,
            )
        shape = self.stage(stage).geometry.input
        expected = None if shape is None else (shape.channels, shape.size, shape.size)
        actual = tuple(upstream.shape)
        if not upstream.is_floating_point() or upstream.ndim != 4 or actual[1:] != expected:
            raise SampleError(
                f"stage {stage!r} needs floating [n, {', '.join(map(str, expected or ()))}], not "
                f"{upstream.dtype} {list(actual)}",
                hint="images are in [-1, 1]; cascade.targets(images) makes them from real images",
                code="sample-upstream-shape",
                name=stage,
                shape=actual,
            )
        return self._sample(
            self.names[self.names.index(stage) :],
            upstream,
            len(upstream),
            return_stages,
            seed=seed,
            labels=labels,
            steps=steps,
            guidance=guidance,
            sampler=sampler,
            options=options,
            first=first,
            batch_size=batch_size,
            precision=precision,
            watch=watch,
            progress=progress,
        )

    @torch.no_grad()
    def _sample(
        self,
        names: Sequence[str],
        upstream: Tensor | None,
        n: int,
        return_stages: bool,
        **request: Unpack[SampleOptions],
    ) -> Tensor | dict[str, Tensor]:
        first, batch_size = request["first"], request["batch_size"]
        if n < 1 or batch_size < 1 or first < 0:
            raise SampleError(
                f"cannot sample n={n} images from number {first} in batches of {batch_size}",
                code="sample-count",
                n=n,
                batch_size=batch_size,
            )
        stages = {name: self.stage(name) for name in names}
        request["batch_size"] = self._fitting_batch(stages, n, batch_size, keep=return_stages)
        run = SamplingRun(
            self.spec.name,
            stages,
            self.resolved.num_classes,
            self.device,
            n=n,
            from_images=upstream is not None,
            **request,
        )
        training = self.training
        self.eval()
        try:
            with autocast(self.device, request["precision"]):
                images = run.run(upstream=upstream, keep=return_stages)
        finally:
            self.train(training)
        return images if return_stages else images[names[-1]]

    def require_memory(self) -> None:
        """Check that the memory suffices to sample one image.

        Raises:
            ResourceError: it does not.
        """
        self._fitting_batch(dict(self.named_stages()), 1, 1, keep=False)

    def _fitting_batch(
        self, stages: Mapping[str, Stage], n: int, batch_size: int, *, keep: bool
    ) -> int:
        """The requested batch size, or a smaller one that fits into the memory."""
        places = {place.name: place for place in self.resolved.stages}
        return fitting_batch(
            self.spec.name,
            {name: (places[name], stage) for name, stage in stages.items()},
            self.resolved.num_classes,
            self.device,
            n=n,
            batch_size=batch_size,
            keep=keep,
        )


def channels_last(cascade: Cascade) -> Cascade:
    """Convert a cascade on CUDA to the layout ``torch.channels_last``, in place."""
    if cascade.device.type == "cuda":
        cascade.to(memory_format=torch.channels_last)
    return cascade

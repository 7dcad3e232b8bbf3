"""Cascade: assembles stages, samples from them, saves and loads them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from cascadezoo._version import __version__
from cascadezoo.cascade.assemble import build_stage
from cascadezoo.cascade.labels import Labels, labels_count
from cascadezoo.cascade.outputs import OutputType, converted, require_output_type
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
from cascadezoo.nn.precision import DTYPES
from cascadezoo.spec import CascadeSpec, ResolvedSpec, load_spec, resolve
from cascadezoo.spec.requires import changed_since
from cascadezoo.stages.base import Stage
from cascadezoo.util.devices import existing_device
from cascadezoo.util.files import writing_to

if TYPE_CHECKING:
    from cascadezoo.hub.publish.result import Published

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
        self.folder: Path | None = None
        """The model folder that the cascade was loaded from; None if it was built."""

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
            device: the device of the weights, or ``auto``; ``meta`` allocates none.
            seed: seed of the initial weights; None uses the spec's.

        Raises:
            SpecError: the spec does not validate.
            InputError: the machine lacks the device.
            ResourceError: a stage is larger than any possible memory.
            PluginError: a stage's implementation cannot be imported or built.
        """
        device = existing_device(device)
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
        dtype: torch.dtype | Precision | None = None,
    ) -> Cascade:
        """Load a trained cascade, ready to sample from. Models on the Hub are pulled first.

        Args:
            reference: a model folder, the run folder of a finished build, the name of a zoo model,
                or ``[hf://]org/name[@revision]``.
            revision: branch, tag or commit of a repo on the Hub; None is ``main``.
            offline: True sends no request; None follows ``HF_HUB_OFFLINE``.
            device: the device of the weights: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
            dtype: the type of the weights, ``torch.bfloat16`` or ``"bf16"`` and so on; None is
                float32. In half precision the weights need half of the memory, and the cascade
                samples in that precision. Biases, norms and buffers stay float32.

        Raises:
            InputError: the machine lacks the device; the type is none of these, or a weight is too
                large for it.
            ModelReferenceError: the model was not found, or the reference is ambiguous.
            HubError: the repo does not exist or is not accessible, or the Hub is unreachable.
            ModelError: a file is missing, was changed, or does not fit the spec.
            SpecError: a kind that the model needs is not installed.
            ResourceError: the weights need more memory than is available.
        """
        device = existing_device(device)
        converted = _dtype(dtype)
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
            opened = open_file(folder, path)
            load_state(stage, folder / path, device, hint=hint, opened=opened, dtype=converted)
            check_whole(stage, name, resolved.spec.name)
        # Tensors that a stage made on the CPU move to the device of the weights.
        placed = cascade if device.type == "cpu" else cascade.to(device)
        placed.folder = folder
        return channels_last(placed).eval()

    def compile(  # type: ignore[override]
        self, scope: CompileScope = "blocks", *, stages: Sequence[str] | None = None, **options: Any
    ) -> Cascade:
        """Compile the stages' networks by ``torch.compile``, in place.

        They are compiled when they first run. The names of the weights stay as they are. A block
        that cannot be compiled runs uncompiled, after one warning for its stage. So does a stage
        with weights whose network is not its module ``network``.

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
            elif next(stage.parameters(), None) is not None:
                warnings.warn(
                    f"stage {name!r} runs uncompiled: it has no module `network`",
                    RuntimeWarning,
                    stacklevel=2,
                )
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

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        revision: str | None = None,
        create_pr: bool = False,
        tag: str | None = None,
        commit_message: str | None = None,
        weights: Literal["bf16", "fp16"] | None = None,
    ) -> Published:
        """Publish the spec and the weights to the Hub, as one commit.

        The weights may have changed since figures were measured, so none are sent.
        ``cascadezoo publish RUN`` publishes a build with its figures, card and samples.

        Args:
            repo_id: ``org/name``; the repo is created if it does not exist.
            private: create a private repo. An existing public repo is an error.
            revision: the branch; None is ``main``.
            create_pr: open a pull request and do not change the branch.
            tag: a tag for the commit.
            commit_message: the commit's first line.
            weights: see :meth:`save_pretrained`.

        Returns:
            The commit and what it changed.

        Raises:
            InputError: the repo id or an option is not valid.
            HubError: the Hub rejects the model or cannot be reached.
        """
        from cascadezoo.hub.publish.commit import publish_hub

        with TemporaryDirectory(prefix="cascadezoo-") as folder:
            return publish_hub(
                self.save_pretrained(Path(folder) / self.spec.name, weights=weights),
                repo_id,
                private=private,
                revision=revision,
                create_pr=create_pr,
                tag=tag,
                message=commit_message,
            )

    def _repr_html_(self) -> str:
        """The cascade in a notebook: its spec, its sizes and samples."""
        from cascadezoo.cascade.notebook import cascade_html

        return cascade_html(self)

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

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights; a half-precision type if any stage's weights have it."""
        types = [p.dtype for p in self.parameters() if p.is_floating_point()]
        return next((t for t in types if t in HALVES.values()), torch.float32)

    def stage(self, name: str) -> Stage:
        """The stage with this name.

        Raises:
            KeyError: the cascade has no such stage.
        """
        if name not in self.names:
            raise KeyError(f"{name!r} is not a stage of {self.spec.name}: {', '.join(self.names)}")
        stage: Stage = self.stages[self.names.index(name)]  # type: ignore[assignment]
        return stage

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the labels, from label 0 on; None if they are unknown."""
        return self.resolved.class_names

    def __getitem__(self, name: str) -> Stage:
        """The stage with this name: ``cascade["up"]``."""
        return self.stage(name)

    def __contains__(self, name: object) -> bool:
        """Whether the cascade has a stage with this name."""
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        """The names of the stages, from the generator on."""
        return iter(self.names)

    def __len__(self) -> int:
        """The number of stages."""
        return len(self.names)

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
        self,
        n: int | None = ...,
        *,
        return_stages: Literal[False] = ...,
        output_type: Literal["pt"] = ...,
        **rest: Unpack[SampleOptions],
    ) -> Tensor: ...

    @overload
    def sample(
        self,
        n: int | None = ...,
        *,
        return_stages: Literal[True],
        output_type: Literal["pt"] = ...,
        **rest: Unpack[SampleOptions],
    ) -> dict[str, Tensor]: ...

    @overload
    def sample(
        self,
        n: int | None = ...,
        *,
        return_stages: Literal[False] = ...,
        output_type: Literal["np"],
        **rest: Unpack[SampleOptions],
    ) -> NDArray[Any]: ...

    @overload
    def sample(
        self,
        n: int | None = ...,
        *,
        return_stages: Literal[True],
        output_type: Literal["np"],
        **rest: Unpack[SampleOptions],
    ) -> dict[str, NDArray[Any]]: ...

    @overload
    def sample(
        self,
        n: int | None = ...,
        *,
        return_stages: Literal[False] = ...,
        output_type: Literal["pil"],
        **rest: Unpack[SampleOptions],
    ) -> list[Image.Image]: ...

    @overload
    def sample(
        self,
        n: int | None = ...,
        *,
        return_stages: Literal[True],
        output_type: Literal["pil"],
        **rest: Unpack[SampleOptions],
    ) -> dict[str, list[Image.Image]]: ...

    def sample(
        self,
        n: int | None = None,
        *,
        seed: int | None = 0,
        generator: torch.Generator | None = None,
        labels: Labels = None,
        steps: int | Mapping[str, int] | None = None,
        guidance: float | Mapping[str, float] | None = None,
        sampler: str | Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        first: int = 0,
        batch_size: int = 64,
        precision: Precision | None = None,
        return_stages: bool = False,
        output_type: OutputType = "pt",
        watch: Watch | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Any:
        """Sample images.

        Image ``i`` depends only on the seed and ``i``. The same seed gives the same images (up to
        rounding) for any batch size. Use ``first`` to continue where another call ended.

        The memory is estimated first. Batches that do not fit are made smaller, with a log message.

        Args:
            n: number of images; None uses the number of ``labels``, or 16.
            seed: seed of all randomness, 0 to 2^63 - 1; None draws one, so that every call gives
                other images.
            generator: draws the seed instead, and moves on: the next call gives other images.
            labels: one for all images, or one per image, as numbers or class names; None gives
                image ``i`` the label ``i % num_classes``.
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
            precision: of the networks' arithmetic: ``fp32``, ``bf16`` or, on CUDA, ``fp16``; None
                is that of the weights. The sampler's state is float32 in any case.
            return_stages: also return the output of the stages before the last.
            output_type: ``pt``: a tensor; ``np``: an array, uint8 [n, H, W, C]; ``pil``: a list of
                pictures of mode ``L`` or ``RGB``. Latents can only be tensors.
            watch: called with a stage's name and its image, [batch, C, H, W], after each step of
                an iterative stage. The image is reused: copy it to keep it.
            progress: called with the number of finished images.

        Returns:
            The images, [n, C, H, W] in [-1, 1] on the cascade's device, or in the format of
            ``output_type``; with ``return_stages`` a dict of images by stage name.

        Raises:
            SampleError: a number is out of range, the cascade does not have a label, no stage
                supports an option, the device does not support the precision, or images are not
                finite.
            ResourceError: the memory does not suffice for one image at a time.
            PluginError: a stage of a plugin fails, or its images are not finite or have another
                shape.
        """
        if n is None:
            n = 16 if (count := labels_count(labels)) is None else count
        return self._sample(
            self.names,
            None,
            n,
            return_stages,
            output_type,
            seed=seed,
            generator=generator,
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
        output_type: Literal["pt"] = ...,
        **rest: Unpack[SampleOptions],
    ) -> Tensor: ...

    @overload
    def sample_from(
        self,
        stage: str,
        upstream: Tensor,
        *,
        return_stages: Literal[True],
        output_type: Literal["pt"] = ...,
        **rest: Unpack[SampleOptions],
    ) -> dict[str, Tensor]: ...

    @overload
    def sample_from(
        self,
        stage: str,
        upstream: Tensor,
        *,
        return_stages: Literal[False] = ...,
        output_type: Literal["np"],
        **rest: Unpack[SampleOptions],
    ) -> NDArray[Any]: ...

    @overload
    def sample_from(
        self,
        stage: str,
        upstream: Tensor,
        *,
        return_stages: Literal[True],
        output_type: Literal["np"],
        **rest: Unpack[SampleOptions],
    ) -> dict[str, NDArray[Any]]: ...

    @overload
    def sample_from(
        self,
        stage: str,
        upstream: Tensor,
        *,
        return_stages: Literal[False] = ...,
        output_type: Literal["pil"],
        **rest: Unpack[SampleOptions],
    ) -> list[Image.Image]: ...

    @overload
    def sample_from(
        self,
        stage: str,
        upstream: Tensor,
        *,
        return_stages: Literal[True],
        output_type: Literal["pil"],
        **rest: Unpack[SampleOptions],
    ) -> dict[str, list[Image.Image]]: ...

    def sample_from(
        self,
        stage: str,
        upstream: Tensor,
        *,
        seed: int | None = 0,
        generator: torch.Generator | None = None,
        labels: Labels = None,
        steps: int | Mapping[str, int] | None = None,
        guidance: float | Mapping[str, float] | None = None,
        sampler: str | Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        first: int = 0,
        batch_size: int = 64,
        precision: Precision | None = None,
        return_stages: bool = False,
        output_type: OutputType = "pt",
        watch: Watch | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Any:
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
            generator: see :meth:`sample`.
            labels: see :meth:`sample`.
            steps: see :meth:`sample`.
            guidance: see :meth:`sample`.
            sampler: see :meth:`sample`.
            options: see :meth:`sample`.
            first: see :meth:`sample`.
            batch_size: see :meth:`sample`.
            precision: see :meth:`sample`.
            return_stages: see :meth:`sample`.
            output_type: see :meth:`sample`.
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
            output_type,
            seed=seed,
            generator=generator,
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
        output_type: OutputType,
        **request: Unpack[SampleOptions],
    ) -> Any:
        first, batch_size = request["first"], request["batch_size"]
        if n < 1 or batch_size < 1 or first < 0:
            raise SampleError(
                f"cannot sample n={n} images from number {first} in batches of {batch_size}",
                code="sample-count",
                n=n,
                batch_size=batch_size,
            )
        require_output_type(output_type)
        stages = {name: self.stage(name) for name in names}
        latent = [s.name for s in self.resolved.stages if s.name in stages and s.output.latent]
        if latent and output_type != "pt" and (return_stages or latent[-1] == names[-1]):
            raise SampleError(
                f"the output of stage {latent[0]!r} is latents, not pictures",
                hint='use output_type="pt"',
                code="sample-latents-as-pictures",
                name=latent[0],
            )
        request["batch_size"] = self._fitting_batch(stages, n, batch_size, keep=return_stages)
        run = SamplingRun(
            self.spec.name,
            stages,
            self.resolved.num_classes,
            self.device,
            n=n,
            class_names=self.class_names,
            from_images=upstream is not None,
            **request,
        )
        training = self.training
        self.eval()
        try:
            with autocast(self.device, request["precision"], self.dtype):
                images = run.run(upstream=upstream, keep=return_stages)
        finally:
            self.train(training)
        outputs = {name: converted(part, output_type) for name, part in images.items()}
        return outputs if return_stages else outputs[names[-1]]

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


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """The half-precision type of a name or type; None for float32."""
    chosen = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen not in (None, *DTYPES.values()) or (chosen is None and dtype is not None):
        raise InputError(
            f"cannot load weights in {dtype if isinstance(dtype, str) else str(dtype)!r}",
            hint="choose fp32, bf16 or fp16",
            code="input-weights-precision",
            name=str(dtype),
        )
    return None if chosen == torch.float32 else chosen

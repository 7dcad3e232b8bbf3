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
from cascadezoo.cascade.editing import (
    EditRun,
    InterpolationRun,
    check_edit,
    read_mask,
    read_originals,
)
from cascadezoo.cascade.labels import Labels, labels_count
from cascadezoo.cascade.pictures import PictureOptions, picture_stages, run_on_pictures
from cascadezoo.cascade.sampling import (
    ImageOptions,
    Precision,
    SampleOptions,
    SamplingRun,
    Watch,
    autocast,
)
from cascadezoo.cascade.sampling_memory import fitting_batch
from cascadezoo.cascade.seeds import chosen_seed
from cascadezoo.cascade.stage_calls import upstream_target
from cascadezoo.cascade.weights import (
    HALVES,
    bounded_build,
    check_room,
    check_whole,
    load_state,
    save_state,
)
from cascadezoo.data.pictures import (
    OutputType,
    PictureInput,
    converted,
    fitted,
    read_pictures,
    require_output_type,
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


_DEFAULTS: SampleOptions = {
    "seed": 0,
    "generator": None,
    "labels": None,
    "steps": None,
    "guidance": None,
    "sampler": None,
    "options": None,
    "first": 0,
    "batch_size": 64,
    "precision": None,
    "watch": None,
    "progress": None,
}

_PICTURE_DEFAULTS: PictureOptions = {
    "seed": 0,
    "generator": None,
    "labels": None,
    "steps": None,
    "guidance": None,
    "sampler": None,
    "options": None,
    "batch_size": 64,
    "precision": None,
    "progress": None,
}


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

        Raises:
            InputError: the images have another type or shape.
        """
        shape = (self.resolved.image.channels, *[self.resolved.image.size] * 2)
        if not isinstance(images, Tensor) or not images.is_floating_point():
            kind = str(images.dtype) if isinstance(images, Tensor) else type(images).__name__
            raise InputError(
                f"images are {kind}, not a floating tensor",
                hint="cascadezoo.data.pixels.to_float(torch.from_numpy(images)) converts bytes",
                code="input-images-dtype",
                dtype=kind,
            )
        if images.dim() != 4 or images.shape[1:] != shape:
            raise InputError(
                f"images have the shape {tuple(images.shape)}, not {('N', *shape)}",
                hint="pass images in the size of the last stage's output",
                code="input-images-shape",
                shape=tuple(images.shape),
            )
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
        upstream: Tensor | PictureInput | Sequence[PictureInput],
        *,
        return_stages: Literal[False] = ...,
        output_type: Literal["pt"] = ...,
        **rest: Unpack[SampleOptions],
    ) -> Tensor: ...

    @overload
    def sample_from(
        self,
        stage: str,
        upstream: Tensor | PictureInput | Sequence[PictureInput],
        *,
        return_stages: Literal[True],
        output_type: Literal["pt"] = ...,
        **rest: Unpack[SampleOptions],
    ) -> dict[str, Tensor]: ...

    @overload
    def sample_from(
        self,
        stage: str,
        upstream: Tensor | PictureInput | Sequence[PictureInput],
        *,
        return_stages: Literal[False] = ...,
        output_type: Literal["np"],
        **rest: Unpack[SampleOptions],
    ) -> NDArray[Any]: ...

    @overload
    def sample_from(
        self,
        stage: str,
        upstream: Tensor | PictureInput | Sequence[PictureInput],
        *,
        return_stages: Literal[True],
        output_type: Literal["np"],
        **rest: Unpack[SampleOptions],
    ) -> dict[str, NDArray[Any]]: ...

    @overload
    def sample_from(
        self,
        stage: str,
        upstream: Tensor | PictureInput | Sequence[PictureInput],
        *,
        return_stages: Literal[False] = ...,
        output_type: Literal["pil"],
        **rest: Unpack[SampleOptions],
    ) -> list[Image.Image]: ...

    @overload
    def sample_from(
        self,
        stage: str,
        upstream: Tensor | PictureInput | Sequence[PictureInput],
        *,
        return_stages: Literal[True],
        output_type: Literal["pil"],
        **rest: Unpack[SampleOptions],
    ) -> dict[str, list[Image.Image]]: ...

    def sample_from(
        self,
        stage: str,
        upstream: Tensor | PictureInput | Sequence[PictureInput],
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
                in [-1, 1], or latents; real or sampled. Or pictures (PIL images, paths, arrays,
                tensors) whose sides are half to twice as long as those of the input: they are
                cropped to their centre square and resized; transparent ones are put on white.
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
        upstream = self._as_upstream(stage, upstream)
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

    def _as_upstream(
        self, stage: str, upstream: Tensor | PictureInput | Sequence[PictureInput]
    ) -> Tensor:
        """The input of a stage, floating [n, C, H, W] of its shape.

        Raises:
            SampleError: the stage takes latents, and this is none.
            InputError: this is not a picture, or contains NaN.
            DataError: a picture cannot be read, or is too small or too large.
        """
        shape = self.stage(stage).geometry.input
        expected = None if shape is None else (shape.channels, shape.size, shape.size)
        batch = isinstance(upstream, Tensor) and upstream.ndim == 4
        if isinstance(upstream, Tensor) and batch and upstream.is_floating_point():
            if tuple(upstream.shape[1:]) == expected:
                return upstream
            pixels = upstream.shape[1] in (1, 3)
        else:
            pixels = True
        if shape is None or shape.latent or not pixels:
            kind = type(upstream).__name__
            actual = tuple(upstream.shape) if isinstance(upstream, Tensor) else None
            raise SampleError(
                f"stage {stage!r} needs floating [n, {', '.join(map(str, expected or ()))}], not "
                f"{kind if actual is None else list(actual)}",
                hint="cascade.targets(images) makes them from real images",
                code="sample-upstream-shape",
                name=stage,
                shape=actual,
            )
        rows = [fitted(p, shape.size, shape.channels) for p in read_pictures(upstream)]
        return torch.stack(rows)

    # --- pictures of any size

    def upscale(
        self,
        images: PictureInput | Sequence[PictureInput],
        *,
        stage: str | None = None,
        tile: int | None = None,
        output_type: OutputType = "pil",
        **rest: Unpack[PictureOptions],
    ) -> list[Any]:
        """Enlarge pictures of any size and aspect by the cascade's upsamplers.

        A stage without attention maps a picture as a whole, up to 1024 pixels in each direction;
        larger pictures, and the others' inputs, are cut into tiles that overlap and are blended.
        Overlapping tiles share their noise. Each of picture and result must fit into memory, which
        is estimated first.

        Args:
            images: one picture, a list, or a batch: PIL images, paths, arrays uint8 or in [-1, 1]
                of shape [H, W, C], tensors [C, H, W].
            stage: the upsampler to begin with; all later stages run too. None is the first.
            tile: height and width of the tiles in the upstream picture; None chooses them.
            output_type: ``pil`` for PIL images in the mode of the original, with its transparency;
                ``pt`` for float tensors [C, H, W] in [-1, 1]; ``np`` for uint8 arrays [H, W, C].
            rest: ``seed`` (default 0), ``generator``, ``labels`` (default: no label), ``steps``,
                ``guidance``, ``sampler``, ``options``, ``batch_size`` (of tiles), ``precision``
                and ``progress``, as for :meth:`sample`.

        Returns:
            One result per picture.

        Raises:
            SampleError: the cascade has no upsampler of pictures, or an argument is invalid.
            InputError: something is not a picture.
            DataError: a file is missing, damaged, too large, or of an unsupported type.
            ResourceError: a picture and its result do not fit into memory.
        """
        names = picture_stages(self, "upsampler", stage)
        request: PictureOptions = {**_PICTURE_DEFAULTS, **rest}
        return run_on_pictures(self, names, images, output_type, tile, **request)

    def refine(
        self,
        images: PictureInput | Sequence[PictureInput],
        *,
        stage: str | None = None,
        tile: int | None = None,
        output_type: OutputType = "pil",
        **rest: Unpack[PictureOptions],
    ) -> list[Any]:
        """Refine pictures of any size and aspect; their size stays.

        Args:
            images: see :meth:`upscale`.
            stage: the refiner to begin with; the refiners that follow it directly run too. None is
                the first.
            tile: see :meth:`upscale`.
            output_type: see :meth:`upscale`.
            rest: see :meth:`upscale`.

        Returns:
            One result per picture.

        Raises:
            SampleError: the cascade has no refiner of pictures, or an argument is invalid.
            InputError: something is not a picture.
            DataError: a file is missing, damaged, too large, or of an unsupported type.
            ResourceError: a picture and its result do not fit into memory.
        """
        names = picture_stages(self, "refiner", stage)
        request: PictureOptions = {**_PICTURE_DEFAULTS, **rest}
        return run_on_pictures(self, names, images, output_type, tile, **request)

    # --- editing

    def edit(
        self,
        images: PictureInput | Sequence[PictureInput],
        *,
        strength: float = 0.5,
        n: int | None = None,
        output_type: OutputType = "pil",
        **rest: Unpack[SampleOptions],
    ) -> Any:
        """Change images: noise is added and removed again (SDEdit, Meng et al. 2022).

        Every stage edits its own part: the coarse image first, then the detail of the stages after
        it. Stages without diffusion keep the detail of the original, weighted by ``1 - strength``.

        Args:
            images: see :meth:`upscale`. A picture of another size is cropped to its centre square
                and resized to the cascade's size; its sides must be at least half of that.
            strength: 0 returns the images, 1 equals :meth:`sample`.
            n: number of variants of a single image; None is one for each image.
            output_type: ``pil``: a list; ``pt``: a tensor [n, C, H, W] in [-1, 1]; ``np``: an
                array uint8 [n, H, W, C].
            rest: the other keywords of :meth:`sample`. ``labels`` defaults to no label.

        Returns:
            The edited images in the cascade's size, of ``output_type``.

        Raises:
            SampleError: the generator is not a diffusion or a flow, or an argument is invalid.
            InputError: something is not a picture.
            DataError: a picture cannot be read or is too small.
            ResourceError: the memory does not suffice.
        """
        self._check_output_type(output_type, self.names[-1:])
        check_edit(self, strength, 1)
        originals = read_originals(self, images, n)
        return converted(self._edit(originals, strength, None, 1, rest), output_type)

    def inpaint(
        self,
        images: PictureInput | Sequence[PictureInput],
        mask: PictureInput | Sequence[PictureInput],
        *,
        strength: float = 1.0,
        resamplings: int = 4,
        n: int | None = None,
        output_type: OutputType = "pil",
        **rest: Unpack[SampleOptions],
    ) -> Any:
        """Redraw a part of images (RePaint, Lugmayr et al. 2022); all other pixels stay the same.

        Args:
            images: see :meth:`edit`.
            mask: white pixels are redrawn, black ones are kept; of the size of its image. One for
                all images, or one for each.
            strength: below 1, the redrawn part starts from the image; see :meth:`edit`.
            resamplings: how often each step is repeated; more fit the new part better to the rest
                and take longer.
            n: number of variants of a single image; None is one for each image.
            output_type: see :meth:`edit`.
            rest: see :meth:`edit`.

        Returns:
            The images in the cascade's size. Their pixels outside of the mask equal those of the
            images (cropped and resized if their size differs).

        Raises:
            SampleError: mask and image differ in size, the mask is empty, or as for :meth:`edit`.
            InputError: something is not a picture.
            DataError: a picture cannot be read or is too small.
            ResourceError: the memory does not suffice.
        """
        self._check_output_type(output_type, self.names[-1:])
        check_edit(self, strength, resamplings)
        originals = read_originals(self, images, n)
        white = read_mask(self, mask, images).expand(len(originals), -1, -1, -1)
        return converted(self._edit(originals, strength, white, resamplings, rest), output_type)

    @torch.no_grad()
    def _edit(
        self,
        originals: Tensor,
        strength: float,
        mask: Tensor | None,
        resamplings: int,
        rest: SampleOptions,
    ) -> Tensor:
        request: SampleOptions = {**_DEFAULTS, **rest}
        n = len(originals)
        _check_count(n, request)
        stages = dict(self.named_stages())
        request["batch_size"] = self._fitting_batch(stages, n, request["batch_size"], keep=True)
        targets = dict(zip(self.names, self.targets(originals), strict=True))
        run = EditRun(
            targets,
            strength,
            mask,
            resamplings,
            self.spec.name,
            stages,
            self.resolved.num_classes,
            self.device,
            n=n,
            class_names=self.class_names,
            **request,
        )
        if strength == 0:
            return originals
        labelled = run.labels is not None or self.resolved.num_classes is None
        if strength == 1 and mask is None and labelled:
            request["seed"], request["generator"] = run.seed, None  # drawn by the run
            images: Tensor = self._sample(self.names, None, n, False, "pt", **request)
            return images
        return self._evaluated(run, request)[self.names[-1]]

    def interpolate(
        self,
        seeds: tuple[int | None, int | None] | int | None = 0,
        *,
        labels: tuple[int | str, int | str] | int | str | None = None,
        n: int = 9,
        output_type: OutputType = "pil",
        **rest: Unpack[ImageOptions],
    ) -> Any:
        """Sample images between two seeds, two labels, or both.

        The noise of every stage is mixed on the sphere (Song et al. 2021), so this works with every
        generator. Between labels, the predictions of diffusion and flow stages are mixed (Liu et
        al. 2022); other stages use the nearer label.

        Args:
            seeds: the two seeds, or one for both ends; None draws one.
            labels: the two labels, or one for both ends, as numbers or class names; None is label 0
                (or no label).
            n: number of images including both ends, at least 2.
            output_type: see :meth:`edit`.
            rest: the other keywords of :meth:`sample`, without ``seed`` and ``generator``.

        Returns:
            The images. The first equals ``sample(1, seed=seeds[0], labels=labels[0])``, the last
            ``sample(1, seed=seeds[1], labels=labels[1])``, up to rounding.

        Raises:
            SampleError: a number is out of range, or :meth:`sample` would refuse the arguments.
            ResourceError: the memory does not suffice.
        """
        self._check_output_type(output_type, self.names[-1:])
        ends = tuple(seeds) if isinstance(seeds, Sequence) else (chosen_seed(seeds, None),) * 2
        at = (labels, labels) if isinstance(labels, (int, str)) else labels
        odd = len(ends) != 2 or (at is not None and len(at) != 2) or n < 2
        if odd or not rest.keys().isdisjoint(("seed", "generator")):
            raise SampleError(
                "an interpolation needs two ends, and at least 2 images",
                hint="interpolate(seeds=(0, 1), labels=(3, 5), n=9)",
                code="sample-interpolation-ends",
                n=n,
            )
        request: SampleOptions = {**_DEFAULTS, **rest}
        request["labels"] = None if at is None else at[0]
        if at is None and self.resolved.num_classes is not None:
            request["labels"] = 0
        _check_count(n, request)
        stages = dict(self.named_stages())
        request["batch_size"] = self._fitting_batch(stages, n, request["batch_size"], keep=False)
        run = InterpolationRun(
            (chosen_seed(ends[0], None), chosen_seed(ends[1], None)),
            None if at is None or at[0] == at[1] else at[1],
            torch.linspace(0, 1, n),
            self.spec.name,
            stages,
            self.resolved.num_classes,
            self.device,
            n=n,
            class_names=self.class_names,
            **request,
        )
        return converted(self._evaluated(run, request)[self.names[-1]], output_type)

    @torch.no_grad()
    def _evaluated(
        self,
        run: SamplingRun,
        request: SampleOptions,
        *,
        upstream: Tensor | None = None,
        keep: bool = False,
    ) -> dict[str, Tensor]:
        """Run in evaluation mode and in the requested precision."""
        training = self.training
        self.eval()
        try:
            with autocast(self.device, request["precision"], self.dtype):
                return run.run(upstream=upstream, keep=keep)
        finally:
            self.train(training)

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
        _check_count(n, request)
        batch_size = request["batch_size"]
        self._check_output_type(output_type, names if return_stages else names[-1:])
        stages = {name: self.stage(name) for name in names}
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
        images = self._evaluated(run, request, upstream=upstream, keep=return_stages)
        outputs = {name: converted(part, output_type) for name, part in images.items()}
        return outputs if return_stages else outputs[names[-1]]

    def _check_output_type(self, output_type: OutputType, names: Sequence[str]) -> None:
        """Check the format of the output of the stages ``names``.

        Raises:
            SampleError: it is unknown, or a stage's output is latents.
        """
        require_output_type(output_type)
        latent = [s.name for s in self.resolved.stages if s.name in names and s.output.latent]
        if latent and output_type != "pt":
            raise SampleError(
                f"the output of stage {latent[0]!r} is latents, not pictures",
                hint='use output_type="pt"',
                code="sample-latents-as-pictures",
                name=latent[0],
            )

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


def _check_count(n: int, request: SampleOptions) -> None:
    first, batch_size = request["first"], request["batch_size"]
    if n < 1 or batch_size < 1 or first < 0:
        raise SampleError(
            f"cannot sample n={n} images from number {first} in batches of {batch_size}",
            code="sample-count",
            n=n,
            batch_size=batch_size,
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

"""Cascade: assembles stages, samples from them, saves and loads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack, overload

import torch
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


_DEFAULTS: SampleOptions = {
    "seed": 0,
    "labels": None,
    "steps": None,
    "guidance": None,
    "sampler": None,
    "options": None,
    "first": 0,
    "batch_size": 64,
    "precision": "fp32",
    "watch": None,
    "progress": None,
}

_PICTURE_DEFAULTS: PictureOptions = {
    "seed": 0,
    "labels": None,
    "steps": None,
    "guidance": None,
    "sampler": None,
    "options": None,
    "batch_size": 64,
    "precision": "fp32",
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
            rows.insert(0, self.stage(name).upstream_target(rows[0]))
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
            SampleError: a number is out of range, the cascade does not have a label, or no stage
                supports an option.
            ResourceError: the memory does not suffice for one image at a time.
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
        upstream: Tensor | PictureInput | Sequence[PictureInput],
        *,
        return_stages: Literal[False] = ...,
        **rest: Unpack[SampleOptions],
    ) -> Tensor: ...

    @overload
    def sample_from(
        self,
        stage: str,
        upstream: Tensor | PictureInput | Sequence[PictureInput],
        *,
        return_stages: Literal[True],
        **rest: Unpack[SampleOptions],
    ) -> dict[str, Tensor]: ...

    def sample_from(
        self,
        stage: str,
        upstream: Tensor | PictureInput | Sequence[PictureInput],
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
                in [-1, 1], or latents; real or sampled. Or pictures (PIL images, paths, arrays,
                tensors) whose sides are half to twice as long as those of the input: they are
                cropped to their centre square and resized; transparent ones are put on white.
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
        upstream = self._as_upstream(stage, upstream)
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
            rest: ``seed`` (default 0), ``labels`` (default: no label), ``steps``, ``guidance``,
                ``sampler``, ``options``, ``batch_size`` (of tiles), ``precision`` and ``progress``,
                as for :meth:`sample`.

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
            **request,
        )
        if strength == 0:
            return originals
        labelled = run.labels is not None or self.resolved.num_classes is None
        if strength == 1 and mask is None and labelled:
            return self._sample(self.names, None, n, False, **request)  # type: ignore[return-value]
        return self._evaluated(run, request)[self.names[-1]]

    def interpolate(
        self,
        seeds: tuple[int, int] | int = 0,
        *,
        labels: tuple[int, int] | int | None = None,
        n: int = 9,
        output_type: OutputType = "pil",
        **rest: Unpack[ImageOptions],
    ) -> Any:
        """Sample images between two seeds, two labels, or both.

        The noise of every stage is mixed on the sphere (Song et al. 2021), so this works with every
        generator. Between labels, the predictions of diffusion and flow stages are mixed (Liu et
        al. 2022); other stages use the nearer label.

        Args:
            seeds: the two seeds, or one for both ends.
            labels: the two labels, or one for both ends; None is label 0 (or no label).
            n: number of images including both ends, at least 2.
            output_type: see :meth:`edit`.
            rest: the other keywords of :meth:`sample`, without ``seed``.

        Returns:
            The images. The first equals ``sample(1, seed=seeds[0], labels=labels[0])``, the last
            ``sample(1, seed=seeds[1], labels=labels[1])``, up to rounding.

        Raises:
            SampleError: a number is out of range, or :meth:`sample` would refuse the arguments.
            ResourceError: the memory does not suffice.
        """
        ends = (seeds, seeds) if isinstance(seeds, int) else tuple(seeds)
        at = (labels, labels) if isinstance(labels, int) else labels
        if len(ends) != 2 or (at is not None and len(at) != 2) or n < 2 or "seed" in rest:
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
            (int(ends[0]), int(ends[1])),
            None if at is None or at[0] == at[1] else at[1],
            torch.linspace(0, 1, n),
            self.spec.name,
            stages,
            self.resolved.num_classes,
            self.device,
            n=n,
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
            with autocast(self.device, request["precision"]):
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
        **request: Unpack[SampleOptions],
    ) -> Tensor | dict[str, Tensor]:
        _check_count(n, request)
        batch_size = request["batch_size"]
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
        images = self._evaluated(run, request, upstream=upstream, keep=return_stages)
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

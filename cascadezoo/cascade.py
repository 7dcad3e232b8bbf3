"""Cascade: stages put together, sampled from, saved and loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from cascadezoo import __version__
from cascadezoo.draws import ImageDraw, derive_seed, seed_global
from cascadezoo.errors import PluginError, ResourceError, SampleError
from cascadezoo.hub.layout import CONFIG, check_files, read_config, seal, weights_path
from cascadezoo.hub.refs import locate
from cascadezoo.spec import CascadeSpec, ResolvedSpec, ResolvedStage, load_spec, resolve
from cascadezoo.stages.base import SampleRequest, Stage, StageGeometry
from cascadezoo.weights import check_whole, load_state, save_state

__all__ = ["Cascade"]


class Cascade(nn.Module):
    """An image generator made of stages, from coarse to fine.

    Args:
        resolved: the spec that the stages were built from.
        stages: the stages, from the generator on.
    """

    def __init__(self, resolved: ResolvedSpec, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.resolved = resolved
        self.stages = nn.ModuleList(stages)

    # --- making one

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
            device: where the weights are made; ``meta`` makes none.
            seed: of the initial weights; None takes the spec's.

        Raises:
            SpecError: the spec does not validate.
            ResourceError: a stage is larger than any memory can be.
            PluginError: a stage's implementation cannot be imported or built.
        """
        resolved = spec if isinstance(spec, ResolvedSpec) else load_spec(spec)
        seed = resolved.spec.seed if seed is None else seed
        stages = [_build(s, resolved.num_classes, device, seed) for s in resolved.stages]
        return cls(resolved, stages)

    @classmethod
    def from_pretrained(
        cls, reference: str | Path, *, device: torch.device | str = "cpu"
    ) -> Cascade:
        """Load a trained cascade, ready to sample from.

        Args:
            reference: a model folder or the run folder of a finished build.
            device: where the weights go.

        Raises:
            ModelReferenceError: the reference leads nowhere.
            ModelError: a file is missing, was changed, or does not fit the spec.
            SpecError: a kind that the model needs is not installed.
        """
        folder = locate(reference)
        config = read_config(folder)
        resolved = resolve(config.spec, source=str(folder / CONFIG), for_training=False)
        weights = [weights_path(stage.name) for stage in resolved.stages]
        check_files(folder, config, weights, trust_verified=True)
        cascade = cls.from_spec(resolved, device="meta")
        for name, stage in cascade.named_stages():
            load_state(stage, folder / weights_path(name), device)
            check_whole(stage, name, resolved.spec.name)
        # What a stage made for itself on the CPU goes where the weights are.
        return (cascade if torch.device(device).type == "cpu" else cascade.to(device)).eval()

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write config.json and the weights of every stage as safetensors.

        Args:
            folder: made if it is not there; files of a model in it are replaced.

        Returns:
            The folder.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, stage in self.named_stages():
            save_state(stage.state_dict(), folder / weights_path(name))
        seal(folder, self.spec, __version__)
        return folder

    # --- looking at it

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
        """Where the weights are."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def stage(self, name: str) -> Stage:
        """The stage of that name.

        Raises:
            KeyError: there is none.
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
        """What each stage must learn to produce for these images.

        Args:
            images: [N, C, H, W] in [-1, 1], of the size that the last stage makes.

        Returns:
            One tensor a stage, from the generator on.
        """
        rows = [images]
        for name in reversed(self.names[1:]):
            rows.insert(0, self.stage(name).upstream_target(rows[0]))
        return rows

    # --- sampling

    @overload
    def sample(
        self,
        n: int = ...,
        *,
        return_stages: Literal[False] = ...,
        seed: int = ...,
        labels: int | Sequence[int] | Tensor | None = ...,
        steps: int | Mapping[str, int] | None = ...,
        guidance: float | Mapping[str, float] | None = ...,
        sampler: str | Mapping[str, str] | None = ...,
        first: int = ...,
        batch_size: int = ...,
        progress: Callable[[int], None] | None = ...,
    ) -> Tensor: ...

    @overload
    def sample(
        self,
        n: int = ...,
        *,
        return_stages: Literal[True],
        seed: int = ...,
        labels: int | Sequence[int] | Tensor | None = ...,
        steps: int | Mapping[str, int] | None = ...,
        guidance: float | Mapping[str, float] | None = ...,
        sampler: str | Mapping[str, str] | None = ...,
        first: int = ...,
        batch_size: int = ...,
        progress: Callable[[int], None] | None = ...,
    ) -> dict[str, Tensor]: ...

    @torch.no_grad()
    def sample(
        self,
        n: int = 16,
        *,
        seed: int = 0,
        labels: int | Sequence[int] | Tensor | None = None,
        steps: int | Mapping[str, int] | None = None,
        guidance: float | Mapping[str, float] | None = None,
        sampler: str | Mapping[str, str] | None = None,
        first: int = 0,
        batch_size: int = 64,
        return_stages: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Draw images.

        Image ``i`` follows from the seed and ``i`` alone: the same seed gives the same images
        (up to rounding) whatever the batch size, and ``first`` goes on where another call ended.

        Args:
            n: how many images.
            seed: of all randomness.
            labels: one for all, or one an image; None gives image ``i`` the label
                ``i % num_classes``.
            steps: of iterative stages: a number for all, or one by stage name; None takes each
                stage's own.
            guidance: the scale of classifier-free guidance, likewise.
            sampler: the name of the sampler, likewise.
            first: the number of the first image.
            batch_size: how many images are sampled at a time.
            return_stages: also give what each stage before the last made.
            progress: called with the number of images done.

        Returns:
            The images, [n, C, H, W] in [-1, 1] on the cascade's device; with ``return_stages`` a
            dict of each stage's images by its name.

        Raises:
            SampleError: a number out of range, labels that the cascade does not know, or an
                option that none of its stages heeds.
        """
        if n < 1 or batch_size < 1 or first < 0:
            raise SampleError(f"cannot sample n={n} images from {first} on, {batch_size} at a time")
        given = {"steps": steps, "guidance": guidance, "sampler": sampler}
        options = {name: self._options(name, given) for name in self.names}
        every = self._labels(labels, n, first)
        training = self.training
        self.eval()
        try:
            rows = []
            for start in range(0, n, batch_size):
                count = min(batch_size, n - start)
                batch = None if every is None else every[start : start + count]
                rows.append(
                    self._sample_batch(seed, first + start, count, batch, options, return_stages)
                )
                if progress is not None:
                    progress(start + count)
        finally:
            self.train(training)
        stages = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        return stages if return_stages else stages[self.names[-1]]

    def _sample_batch(
        self,
        seed: int,
        first: int,
        count: int,
        labels: Tensor | None,
        options: Mapping[str, Mapping[str, Any]],
        keep: bool,
    ) -> dict[str, Tensor]:
        requests: dict[str, SampleRequest] = {}
        below: tuple[Stage, SampleRequest] | None = None
        for name in reversed(self.names):
            draw = ImageDraw(seed, name, first, count, self.device)
            request = SampleRequest(count, draw, labels, **options[name])
            if below is not None:
                request = _passed_on(*below, request)
            requests[name] = request
            below = (self.stage(name), request)
        made: dict[str, Tensor] = {}
        image: Tensor | None = None
        for name, stage in self.named_stages():
            image = stage.sample(image, requests[name]).float()
            if keep or name == self.names[-1]:
                made[name] = image
        return made

    def _options(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        options = {}
        for key, value in given.items():
            heeding = [n for n, s in self.named_stages() if key in s.sampling_options]
            if isinstance(value, Mapping):
                for other in value:
                    if other not in heeding:
                        raise SampleError(
                            f"{key} cannot be set for stage {other!r}",
                            hint=f"stages that heed it: {', '.join(heeding) or 'none'}",
                        )
                value = value.get(name)
            elif value is not None and not heeding:
                raise SampleError(f"no stage of {self.spec.name} heeds {key}")
            if key == "guidance" and value is not None and self.resolved.num_classes is None:
                raise SampleError(
                    f"guidance needs labels, and {self.spec.name} was trained without",
                    hint="leave guidance out",
                )
            options[key] = value if name in heeding else None
        return options

    def _labels(
        self, labels: int | Sequence[int] | Tensor | None, n: int, first: int
    ) -> Tensor | None:
        classes = self.resolved.num_classes
        if classes is None:
            if labels is not None:
                raise SampleError(
                    f"{self.spec.name} was trained without labels", hint="leave labels out"
                )
            return None
        if labels is None:
            rows = [(first + i) % classes for i in range(n)]
        elif isinstance(labels, int):
            rows = [labels] * n
        else:
            rows = [int(label) for label in labels]
        if len(rows) != n:
            raise SampleError(f"{len(rows)} labels were given for {n} images")
        wrong = [label for label in rows if not 0 <= label < classes]
        if wrong:
            raise SampleError(
                f"label {wrong[0]} is out of range", hint=f"labels go from 0 to {classes - 1}"
            )
        return torch.tensor(rows, dtype=torch.int64, device=self.device)


def _build(
    stage: ResolvedStage, num_classes: int | None, device: torch.device | str, seed: int
) -> Stage:
    impl = stage.entry.load()
    if not (isinstance(impl, type) and issubclass(impl, Stage)):
        raise PluginError(f"{stage.entry.impl} of {stage.kind} is not a cascadezoo.Stage")
    geometry = StageGeometry(stage.output, stage.input, num_classes)
    # On the CPU first, so that initial weights do not depend on the device.
    home = "meta" if torch.device(device).type == "meta" else "cpu"
    with torch.random.fork_rng(devices=[]), torch.device(home):
        seed_global(derive_seed(seed, "init", stage.name))
        try:
            built = impl(stage.config, geometry)
        except (RuntimeError, OverflowError, MemoryError) as error:
            if isinstance(error, (MemoryError, OverflowError)) or _is_too_large(error):
                raise ResourceError(
                    f"stage {stage.name!r} ({stage.kind}) cannot be built: {_first(error)}; "
                    "one of its tensors alone needs more memory than there can be (8 EiB)",
                    hint=f"make its config smaller: cascadezoo stages show {stage.kind}",
                ) from error
            raise
    # On the meta device, what a stage made on the CPU stays: it is not saved, so not loaded either.
    return built if home == "meta" else built.to(device)


def _is_too_large(error: BaseException) -> bool:
    text = str(error)
    return "overflow" in text.lower() or "allocate memory" in text or "out of memory" in text


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _passed_on(stage: Stage, request: SampleRequest, base: SampleRequest) -> SampleRequest:
    """``base`` with whatever ``stage.upstream_request`` changes of its own request."""
    passed = stage.upstream_request(request)
    if passed is request:
        return base
    changed = {
        field.name: getattr(passed, field.name)
        for field in dataclasses.fields(SampleRequest)
        if field.name not in ("count", "draw", "labels")
        and getattr(passed, field.name) != getattr(request, field.name)
    }
    return dataclasses.replace(base, **changed)

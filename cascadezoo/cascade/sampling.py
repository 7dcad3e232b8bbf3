"""Turns a call of ``Cascade.sample`` into requests to its stages: labels, options, batches."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal, TypedDict, Unpack

import torch
from torch import Tensor

from cascadezoo.cascade import stage_calls
from cascadezoo.cascade.labels import Labels, label_numbers
from cascadezoo.cascade.seeds import chosen_seed
from cascadezoo.errors import SampleError
from cascadezoo.nn.precision import DTYPES, supports_bf16
from cascadezoo.spec.labels import label_number
from cascadezoo.stages.base import SampleRequest, Stage
from cascadezoo.util.rng import ImageDraw

__all__ = [
    "ImageOptions",
    "Precision",
    "SampleOptions",
    "SamplingRun",
    "Watch",
    "autocast",
    "truncates",
]

Watch = Callable[[str, Tensor], None]
Precision = Literal["fp32", "bf16", "fp16"]

_FIELDS: tuple[Literal["steps", "guidance", "sampler"], ...] = ("steps", "guidance", "sampler")
_NUMBERS: dict[str, tuple[type, str]] = {
    "steps": (numbers.Integral, "a whole number"),
    "guidance": (numbers.Real, "a number"),
}
_NEED_LABELS = ("guidance", "guidance_interval", "negative_label")


class ImageOptions(TypedDict, total=False):
    """The keywords that all methods share that sample images of a cascade."""

    steps: int | Mapping[str, int] | None
    guidance: float | Mapping[str, float] | None
    sampler: str | Mapping[str, str] | None
    options: Mapping[str, Any] | None
    first: int
    batch_size: int
    precision: Precision | None
    watch: Watch | None
    progress: Callable[[int], None] | None


class SampleOptions(ImageOptions, total=False):
    """The keywords that ``Cascade.sample`` and ``sample_from`` share."""

    seed: int | None
    generator: torch.Generator | None
    labels: Labels


def autocast(
    device: torch.device, precision: Precision | None, weights: torch.dtype = torch.float32
) -> AbstractContextManager[None]:
    """The autocast context for a precision.

    Args:
        device: the device of the networks.
        precision: the precision; None takes that of the weights.
        weights: the type of the weights.

    Raises:
        SampleError: the precision is unknown, the device does not support it, or it is float32 and
            the weights are in half precision.
    """
    own = next((name for name, dtype in DTYPES.items() if dtype == weights), "fp32")
    name: str = precision or own
    if name not in DTYPES:
        raise SampleError(
            f"unknown precision {name!r}",
            hint="choose fp32, bf16 or fp16",
            code="sample-precision-unknown",
            name=name,
        )
    if name == "fp32" and own != "fp32":
        raise SampleError(
            f"cannot sample in fp32: the weights are in {own}",
            hint='load the model again with dtype="fp32"',
            code="sample-weights-half",
            name=own,
        )
    if name == "fp32":
        return nullcontext()
    if name == "fp16" and device.type == "cpu":
        raise SampleError(
            "fp16 is not supported on CPUs", hint="choose bf16 or fp32", code="sample-fp16-on-cpu"
        )
    if name == "bf16" and not supports_bf16(device):
        raise SampleError(
            f"{device.type} does not support bf16 here",
            hint="choose fp32",
            code="sample-bf16-unsupported",
            name=device.type,
        )
    return torch.autocast(device.type, DTYPES[name])


def truncates(stage: Stage, requested: bool | None) -> bool:
    """Whether a stage requests that the stage before it stops at a noise level.

    Args:
        stage: any stage.
        requested: the option ``truncated`` of the call; None uses the config's.
    """
    if "truncated" not in stage.sampling_options:
        return False
    return bool(getattr(stage.config, "truncated", False)) if requested is None else requested


class SamplingRun:
    """One sampling call. All arguments are checked before a stage runs.

    Args:
        model: the cascade's name, for messages.
        stages: the stages to run, in order. The first is a generator, or receives images.
        num_classes: number of labels; None without labels.
        device: the device of the stages.
        n: number of images.
        class_names: the names of the labels; None if they are unknown.
        from_images: whether the first stage receives images of the caller.
        whole: whether every stage receives a finished image, so that none is truncated.
        unlabelled: whether images have no label if the caller gives none.
        request: all keywords of ``Cascade.sample``.

    Raises:
        SampleError: an argument is invalid.
    """

    def __init__(
        self,
        model: str,
        stages: Mapping[str, Stage],
        num_classes: int | None,
        device: torch.device,
        *,
        n: int,
        class_names: Sequence[str] | None = None,
        from_images: bool = False,
        whole: bool = False,
        unlabelled: bool = False,
        **request: Unpack[SampleOptions],
    ) -> None:
        self.model = model
        self.stages = stages
        self.num_classes = num_classes
        self.device = device
        self.n = n
        self.first = request["first"]
        self.class_names = class_names
        self.seed = chosen_seed(request["seed"], request["generator"])
        self.batch_size = request["batch_size"]
        self.watch = request["watch"]
        self._raised: BaseException | None = None
        self._finite = stage_calls.FiniteChecks()
        self.progress = request["progress"]
        none = unlabelled and request["labels"] is None
        self.labels = None if none else self._checked_labels(request["labels"])
        if none:
            self._check_unlabelled()
        requested = {key: request[key] for key in _FIELDS} | self._checked(request["options"])
        self.options: dict[str, dict[str, Any]] = {name: {} for name in stages}
        for key, value in requested.items():
            if value is not None:
                self._assign(key, value)
        for name in stages if whole else [next(iter(stages))] if from_images else []:
            self._not_truncated(name)

    def run(
        self,
        *,
        upstream: Tensor | None = None,
        keep: bool = False,
    ) -> dict[str, Tensor]:
        """Sample all batches.

        Args:
            upstream: the input of the first stage, [n, C, H, W]; None for a generator.
            keep: also return the output of the stages before the last; it is discarded otherwise.

        Returns:
            float32 [n, C, H, W] by stage; only the last stage unless ``keep``.
        """
        outputs: dict[str, Tensor] = {}
        for start in range(0, self.n, self.batch_size):
            stop = min(start + self.batch_size, self.n)
            part = None if upstream is None else upstream[start:stop].to(self.device).float()
            batch = self._batch(start, stop, part, keep)
            if stop - start == self.n:
                outputs = batch
            else:
                for name, images in batch.items():
                    if name not in outputs:
                        outputs[name] = images.new_empty((self.n, *images.shape[1:]))
                    outputs[name][start:stop] = images
            if self.progress is not None:
                self.progress(stop)
        self._finite.require()
        return outputs

    def _batch(
        self, start: int, stop: int, upstream: Tensor | None, keep: bool
    ) -> dict[str, Tensor]:
        requests = self._requests(start, stop)
        outputs: dict[str, Tensor] = {}
        image, last = upstream, list(self.stages)[-1]
        for name, stage in self.stages.items():
            image = stage_calls.sample(
                stage, image, requests[name], passes=self._of_caller, checks=self._finite
            )
            if keep or name == last:
                outputs[name] = image
        return outputs

    def _watch(self, name: str, image: Tensor) -> None:
        """Call the caller's ``watch``, and note its error, for which no stage is to blame."""
        try:
            if self.watch is not None:
                self.watch(name, image)
        except BaseException as error:
            self._raised = error
            raise

    def _of_caller(self, error: BaseException) -> bool:
        return error is self._raised

    def request(
        self, name: str, count: int, draw: ImageDraw, labels: Tensor | None
    ) -> SampleRequest:
        """A request to a stage with the options of the call.

        Args:
            name: the name of the stage.
            count: number of images.
            draw: their random numbers.
            labels: int64 [count], or None.
        """
        options = self.options[name]
        return SampleRequest(
            count,
            draw,
            labels,
            **{key: options[key] for key in _FIELDS if key in options},
            options={key: value for key, value in options.items() if key not in _FIELDS},
            watch=None if self.watch is None else partial(self._watch, name),
        )

    def _requests(self, start: int, stop: int) -> dict[str, SampleRequest]:
        """The request to each stage, from the last on: a stage may change that of its input."""
        labels = None if self.labels is None else self.labels[start:stop]
        requests: dict[str, SampleRequest] = {}
        after: str | None = None
        for name in reversed(list(self.stages)):
            draw = ImageDraw(self.seed, name, self.first + start, stop - start, self.device)
            request = self.request(name, stop - start, draw, labels)
            if after is not None:
                request = self._passed_on(after, requests[after], name, request)
            requests[name] = request
            after = name
        return requests

    def _passed_on(
        self, after: str, request: SampleRequest, name: str, base: SampleRequest
    ) -> SampleRequest:
        """``base`` with the changes that the next stage makes to its own request."""
        passed = stage_calls.upstream_request(self.stages[after], request)
        if passed is request:
            return base
        changed: dict[str, Any] = {
            key: getattr(passed, key)
            for key in _FIELDS
            if getattr(passed, key) != getattr(request, key)
        }
        options = {
            key: value
            for key, value in passed.options.items()
            if key not in request.options or request.options[key] != value
        }
        supported = self.stages[name].sampling_options
        unsupported = sorted(key for key in {**changed, **options} if key not in supported)
        if unsupported:
            raise SampleError(
                f"stage {after!r} requests {', '.join(map(repr, unsupported))}, which the stage "
                f"{name!r} before it does not support",
                hint="sample with truncated=False (--no-truncated)"
                if "stop" in unsupported
                else f"{name!r} supports {', '.join(sorted(supported)) or 'no options'}",
                code="sample-option-unheeded-upstream",
                name=after,
                upstream=name,
                options=unsupported,
            )
        return dataclasses.replace(base, **changed, options={**base.options, **options})

    def _checked(self, options: Mapping[str, Any] | None) -> dict[str, Any]:
        checked = dict(options or {})
        reserved = [key for key in checked if key in _FIELDS]
        if reserved:
            raise SampleError(
                f"{reserved[0]} is an argument of its own, not one of the further options",
                hint=f"pass it as {reserved[0]}=...",
                code="sample-option-reserved",
                name=reserved[0],
            )
        if "stop" in checked:
            raise SampleError(
                "the stop of a stage cannot be set directly: the next stage sets it",
                hint="set s and truncated=True of the next stage",
                code="sample-stop-reserved",
            )
        return checked

    def _assign(self, key: str, value: Any) -> None:
        """Set an option of the stages that it applies to."""
        supporting = [n for n, stage in self.stages.items() if key in stage.sampling_options]
        listed = ", ".join(supporting) or "none"
        if not isinstance(value, Mapping):
            if not supporting:
                known = sorted({o for s in self.stages.values() for o in s.sampling_options})
                shown = ", ".join(o for o in known if o != "stop")
                raise SampleError(
                    f"no stage of {self.model} supports {key}",
                    hint=f"its stages support {shown}" if shown else "leave it out",
                    code="sample-option-unheeded",
                    option=key,
                )
            value = dict.fromkeys(supporting, value)
        if key == "sampler":
            self._check_samplers(value)
        for name, setting in value.items():
            if name not in supporting:
                raise SampleError(
                    f"cannot set {key} for stage {name!r}",
                    hint=f"stages that support it: {listed}",
                    code="sample-option-unheeded-stage",
                    name=name,
                    option=key,
                )
            if setting is None:
                continue
            self._check_label_option(key, setting)
            self._check_option(name, key, setting)
            if key == "negative_label" and isinstance(setting, str):
                setting = label_number(setting, self.num_classes or 0, self.class_names)
            self.options[name][key] = setting

    def _check_option(self, name: str, key: str, value: Any) -> None:
        """Check the type of steps and guidance, and an option that the stage's config declares."""
        kind, form = _NUMBERS.get(key, (object, ""))
        if not isinstance(value, kind) or (form and isinstance(value, bool)):
            raise SampleError(
                f"{key} of stage {name!r} cannot be {value!r}",
                hint=f"it is {form}",
                code="sample-option-invalid",
                name=name,
                option=key,
                value=value,
            )
        config = getattr(self.stages[name], "config", None)
        option = getattr(config, "sampling_options", {}).get(key)
        if option is not None and not option.allows(value):
            raise SampleError(
                f"{key} of stage {name!r} cannot be {value!r}",
                hint=f"it is a {option}{f': {option.help}' if option.help else ''}",
                code="sample-option-invalid",
                name=name,
                option=key,
                value=value,
            )

    def _check_samplers(self, requested: Mapping[str, Any]) -> None:
        """Refuse a sampler that a stage does not have, before any stage runs."""
        known = {name: sorted(stage.samplers) for name, stage in self.stages.items()}
        for name, sampler in requested.items():
            if sampler is None or not known.get(name) or sampler in known[name]:
                continue
            rows = [f"{row}: {', '.join(names)}" for row, names in known.items() if names]
            having = [row for row, names in known.items() if sampler in names]
            advice = f"; for one stage, {having[0]}={sampler}" if having else ""
            raise SampleError(
                f"stage {name!r} has no sampler {sampler!r}",
                hint=f"the samplers are {'; '.join(rows)}{advice}",
                code="sample-sampler-unknown",
                name=sampler,
                stage=name,
            )

    def _check_label_option(self, key: str, value: Any) -> None:
        if key not in _NEED_LABELS:
            return
        if self.num_classes is None:
            raise SampleError(
                f"{key} needs labels, but {self.model} was trained without labels",
                hint=f"leave {key} out",
                code="sample-option-needs-labels",
                option=key,
            )
        if (
            key == "negative_label"
            and not isinstance(value, str)
            and (
                isinstance(value, bool)
                or not isinstance(value, int)
                or not 0 <= value < self.num_classes
            )
        ):
            raise SampleError(
                f"negative label {value} is out of range",
                hint=f"use a label from 0 to {self.num_classes - 1}",
                code="sample-negative-label-out-of-range",
                label=value,
            )

    def _not_truncated(self, name: str) -> None:
        """Turn off truncation of the first stage, because the caller's images are clean."""
        if "truncated" not in self.stages[name].sampling_options:
            return
        if self.options[name].get("truncated"):
            raise SampleError(
                f"stage {name!r} cannot be truncated: its input images are given, not sampled",
                hint=f'use truncated={{"{name}": False}}, which adds noise to them',
                code="sample-truncated-given",
                name=name,
            )
        self.options[name]["truncated"] = False

    def _check_unlabelled(self) -> None:
        """Refuse images without a label if a stage was trained with labels only."""
        for name, stage in self.stages.items() if self.num_classes is not None else ():
            config = stage.config
            if getattr(config, "conditional", False) and getattr(config, "label_drop", 1) == 0:
                raise SampleError(
                    f"stage {name!r} needs a label: it was trained with labels only",
                    hint="give the label of the image",
                    code="sample-label-missing",
                    name=name,
                )

    def _checked_labels(self, labels: Labels) -> Tensor | None:
        classes = self.num_classes
        if classes is None:
            if labels is not None:
                raise SampleError(
                    f"{self.model} was trained without labels",
                    hint="leave labels out",
                    code="sample-no-labels",
                )
            return None
        rows = label_numbers(labels, self.n, classes, self.class_names, self.first)
        return torch.tensor(rows, dtype=torch.int64, device=self.device)

"""From a call of ``Cascade.sample`` to what its stages are asked for: labels, options, batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal, TypedDict, Unpack

import torch
from torch import Tensor

from cascadezoo.errors import SampleError
from cascadezoo.stages.base import SampleRequest, Stage
from cascadezoo.util.rng import ImageDraw

__all__ = ["Precision", "SampleOptions", "SamplingRun", "Watch", "autocast", "truncates"]

Labels = int | Sequence[int] | Tensor | None
Watch = Callable[[str, Tensor], None]
Precision = Literal["fp32", "bf16", "fp16"]

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

_FIELDS: tuple[Literal["steps", "guidance", "sampler"], ...] = ("steps", "guidance", "sampler")
_NEED_LABELS = ("guidance", "guidance_interval", "negative_label")


class SampleOptions(TypedDict, total=False):
    """The keywords that ``sample`` and ``sample_from`` of a cascade share."""

    seed: int
    labels: Labels
    steps: int | Mapping[str, int] | None
    guidance: float | Mapping[str, float] | None
    sampler: str | Mapping[str, str] | None
    options: Mapping[str, Any] | None
    first: int
    batch_size: int
    precision: Precision
    watch: Watch | None
    progress: Callable[[int], None] | None


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """The context in which a sampling's networks compute.

    Raises:
        SampleError: there is no such precision, or the device does not compute in it.
    """
    if precision == "fp32":
        return nullcontext()
    if precision not in _DTYPES:
        raise SampleError(
            f"there is no precision {precision!r}",
            hint="choose one of fp32, bf16 and fp16",
            code="sample-precision-unknown",
            name=precision,
        )
    if precision == "fp16" and device.type == "cpu":
        raise SampleError(
            "fp16 is not for CPUs", hint="choose bf16 or fp32", code="sample-fp16-on-cpu"
        )
    return torch.autocast(device.type, _DTYPES[precision])


def truncates(stage: Stage, asked: bool | None) -> bool:
    """Whether a stage asks the one before it to stop at a noise level.

    Args:
        stage: any stage.
        asked: the option ``truncated`` of the call; None is the config's.
    """
    if "truncated" not in stage.sampling_options:
        return False
    return bool(getattr(stage.config, "truncated", False)) if asked is None else asked


class SamplingRun:
    """One call: what each stage is asked for, checked before any of them runs.

    Args:
        model: the cascade's name, for messages.
        stages: the stages to run, in their order. The first is a generator, or is given upstream
            images.
        num_classes: how many labels the model knows; None where it knows none.
        device: where the stages are.
        n: how many images.
        given: upstream images are given to the first stage.
        request: the keywords of ``Cascade.sample``, all of them.

    Raises:
        SampleError: the call cannot be served.
    """

    def __init__(
        self,
        model: str,
        stages: Mapping[str, Stage],
        num_classes: int | None,
        device: torch.device,
        *,
        n: int,
        given: bool = False,
        **request: Unpack[SampleOptions],
    ) -> None:
        self.model = model
        self.stages = stages
        self.num_classes = num_classes
        self.device = device
        self.n = n
        self.first = request["first"]
        self.seed = request["seed"]
        self.batch_size = request["batch_size"]
        self.watch = request["watch"]
        self.progress = request["progress"]
        self.labels = self._checked_labels(request["labels"])
        asked = {key: request[key] for key in _FIELDS} | self._known(request["options"])
        self.asked: dict[str, dict[str, Any]] = {name: {} for name in stages}
        for key, value in asked.items():
            if value is not None:
                self._spread(key, value)
        if given:
            self._not_truncated(next(iter(stages)))

    def run(
        self,
        *,
        upstream: Tensor | None = None,
        keep: bool = False,
    ) -> dict[str, Tensor]:
        """Sample batch after batch.

        Args:
            upstream: what the first stage receives, [n, C, H, W]; None for a generator.
            keep: also give what each stage before the last made; nothing of it is kept otherwise.

        Returns:
            float32 [n, C, H, W] by stage; of the last stage alone unless ``keep``.
        """
        made: dict[str, Tensor] = {}
        for start in range(0, self.n, self.batch_size):
            stop = min(start + self.batch_size, self.n)
            part = None if upstream is None else upstream[start:stop].to(self.device).float()
            batch = self._batch(start, stop, part, keep)
            if stop - start == self.n:
                made = batch
            else:
                for name, images in batch.items():
                    if name not in made:
                        made[name] = images.new_empty((self.n, *images.shape[1:]))
                    made[name][start:stop] = images
            if self.progress is not None:
                self.progress(stop)
        return made

    def _batch(
        self, start: int, stop: int, upstream: Tensor | None, keep: bool
    ) -> dict[str, Tensor]:
        requests = self._requests(start, stop)
        made: dict[str, Tensor] = {}
        image, last = upstream, list(self.stages)[-1]
        for name, stage in self.stages.items():
            image = stage.sample(image, requests[name]).float()
            if keep or name == last:
                made[name] = image
        return made

    def _requests(self, start: int, stop: int) -> dict[str, SampleRequest]:
        """What each stage is asked for, made from the last on: a stage may say how it is fed."""
        labels = None if self.labels is None else self.labels[start:stop]
        requests: dict[str, SampleRequest] = {}
        after: str | None = None
        for name in reversed(list(self.stages)):
            draw = ImageDraw(self.seed, name, self.first + start, stop - start, self.device)
            asked = self.asked[name]
            request = SampleRequest(
                stop - start,
                draw,
                labels,
                **{key: asked[key] for key in _FIELDS if key in asked},
                options={key: value for key, value in asked.items() if key not in _FIELDS},
                watch=None if self.watch is None else partial(self.watch, name),
            )
            if after is not None:
                request = self._passed_on(after, requests[after], name, request)
            requests[name] = request
            after = name
        return requests

    def _passed_on(
        self, after: str, request: SampleRequest, name: str, base: SampleRequest
    ) -> SampleRequest:
        """``base`` with whatever the stage after it changes of its own request."""
        passed = self.stages[after].upstream_request(request)
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
        heeded = self.stages[name].sampling_options
        unheeded = sorted(key for key in {**changed, **options} if key not in heeded)
        if unheeded:
            raise SampleError(
                f"stage {after!r} asks for {', '.join(map(repr, unheeded))}, which stage {name!r} "
                "before it does not heed",
                hint="sample with truncated=False (--no-truncated)"
                if "stop" in unheeded
                else f"{name!r} heeds {', '.join(sorted(heeded)) or 'no options'}",
                code="sample-option-unheeded-upstream",
                name=after,
                upstream=name,
                options=unheeded,
            )
        return dataclasses.replace(base, **changed, options={**base.options, **options})

    def _known(self, options: Mapping[str, Any] | None) -> dict[str, Any]:
        known = dict(options or {})
        twice = [key for key in known if key in _FIELDS]
        if twice:
            raise SampleError(
                f"{twice[0]} is no further option",
                hint=f"give it as {twice[0]}=... itself",
                code="sample-option-reserved",
                name=twice[0],
            )
        if "stop" in known:
            raise SampleError(
                "where a stage stops is for the stage after it to say",
                hint="choose its noise level s and truncated=True",
                code="sample-stop-reserved",
            )
        return known

    def _spread(self, key: str, value: Any) -> None:
        """Give an option to the stages that shall have it."""
        heeding = [n for n, stage in self.stages.items() if key in stage.sampling_options]
        listed = ", ".join(heeding) or "none"
        if not isinstance(value, Mapping):
            if not heeding:
                known = sorted({o for s in self.stages.values() for o in s.sampling_options})
                shown = ", ".join(o for o in known if o != "stop")
                raise SampleError(
                    f"no stage of {self.model} heeds {key}",
                    hint=f"its stages heed {shown}" if shown else "leave it out",
                    code="sample-option-unheeded",
                    option=key,
                )
            value = dict.fromkeys(heeding, value)
        for name, one in value.items():
            if name not in heeding:
                raise SampleError(
                    f"{key} cannot be set for stage {name!r}",
                    hint=f"stages that heed it: {listed}",
                    code="sample-option-unheeded-stage",
                    name=name,
                    option=key,
                )
            if one is None:
                continue
            self._check_labelled(key, one)
            self.asked[name][key] = one

    def _check_labelled(self, key: str, value: Any) -> None:
        if key not in _NEED_LABELS:
            return
        if self.num_classes is None:
            raise SampleError(
                f"{key} needs labels, and {self.model} was trained without",
                hint=f"leave {key} out",
                code="sample-option-needs-labels",
                option=key,
            )
        if key == "negative_label" and (
            isinstance(value, bool)
            or not isinstance(value, int)
            or not 0 <= value < self.num_classes
        ):
            raise SampleError(
                f"negative label {value} is out of range",
                hint=f"labels go from 0 to {self.num_classes - 1}",
                code="sample-negative-label-out-of-range",
                label=value,
            )

    def _not_truncated(self, name: str) -> None:
        """Images that are given are clean: a stage that wants them half-made must be told so."""
        if "truncated" not in self.stages[name].sampling_options:
            return
        if self.asked[name].get("truncated"):
            raise SampleError(
                f"stage {name!r} cannot be truncated: the images before it are given, not sampled",
                hint=f'use truncated={{"{name}": False}}, which re-noises them',
                code="sample-truncated-given",
                name=name,
            )
        self.asked[name]["truncated"] = False

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
        if labels is None:
            rows = [(self.first + i) % classes for i in range(self.n)]
        elif isinstance(labels, int):
            rows = [labels] * self.n
        else:
            listed = labels.tolist() if isinstance(labels, Tensor) else labels
            rows = [int(label) for label in listed]
        if len(rows) != self.n:
            raise SampleError(
                f"{len(rows)} labels were given for {self.n} images",
                code="sample-label-count",
                labels=len(rows),
                n=self.n,
            )
        wrong = [label for label in rows if not 0 <= label < classes]
        if wrong:
            raise SampleError(
                f"label {wrong[0]} is out of range",
                hint=f"labels go from 0 to {classes - 1}",
                code="sample-label-out-of-range",
                label=wrong[0],
            )
        return torch.tensor(rows, dtype=torch.int64, device=self.device)

"""Requests of a cascade to its stages: options, requests between stages, sample_from."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from importlib.metadata import entry_points
from typing import Any

import pytest
import torch
from errors_help import raises
from torch import Tensor, nn

from cascadezoo import Cascade
from cascadezoo.errors import SampleError
from cascadezoo.plugins.manager import PluginHost
from cascadezoo.plugins.registry import Origin, Registry, StageEntry
from cascadezoo.spec import resolve
from cascadezoo.spec.configs import GeneratorConfig, UpsamplerConfig
from cascadezoo.stages.base import SampleRequest, Stage


class StartConfig(GeneratorConfig):
    pass


class EnlargeConfig(UpsamplerConfig):
    truncated: bool = False


class Recording(Stage):
    """Records its requests, weak references to its images, and calls of load_initial_weights."""

    def __init__(self, config: Any, geometry: Any) -> None:
        super().__init__(config, geometry)
        self.weight = nn.Parameter(torch.ones(1))
        self.requests: list[SampleRequest] = []
        self.images: list[weakref.ref[Tensor]] = []
        self.initial = 0

    def load_initial_weights(self) -> None:
        assert not self.weight.is_meta
        self.initial += 1
        with torch.no_grad():
            self.weight.fill_(3.0)

    def preprocess(self, *args: Any) -> Any:
        raise NotImplementedError

    def forward(self, inputs: Any) -> Any:
        raise NotImplementedError

    def keep(self, image: Tensor, request: SampleRequest) -> Tensor:
        self.requests.append(request)
        self.images.append(weakref.ref(image))
        return image


class Start(Recording):
    Config = StartConfig
    sampling_options = frozenset({"steps", "guidance", "sampler", "eta", "stop", "negative_label"})

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        size = self.geometry.output.size
        image = request.draw.randn(request.count, self.geometry.output.channels, size, size)
        for _ in range(request.steps or 2):
            image = image * 0.5
            if request.watch is not None:
                request.watch(image)
        return self.keep(image, request)


class Enlarge(Recording):
    Config = EnlargeConfig
    sampling_options = frozenset({"s", "truncated", "guidance"})

    def sample(self, upstream: Tensor | None, request: SampleRequest) -> Tensor:
        assert upstream is not None
        image = upstream.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return self.keep(image + 0.1 * request.draw.randn(*image.shape), request)

    def upstream_request(self, request: SampleRequest) -> SampleRequest:
        requested = request.options.get("truncated")
        if not (self.config.truncated if requested is None else requested):
            return request
        options = {**request.options, "stop": 1 - request.options.get("s", 0.0)}
        return dataclasses.replace(request, steps=7, options=options)


def registry() -> Registry:
    points = [
        p for p in entry_points(group="cascadezoo") if p.value == "cascadezoo.plugins.builtin"
    ]
    built_in = PluginHost(points).registry
    for role, name in (("generator", "Start"), ("upsampler", "Enlarge")):
        entry = StageEntry(
            name=f"test-{name.lower()}.v1",
            role=role,
            summary="",
            config=f"{__name__}:{name}Config",
            impl=f"{__name__}:{name}",
        )
        built_in.stages.add(entry, Origin("pluggy", "1.0", "tests"))
    return built_in


def spec(stages: int = 2, classes: int | None = None, **enlarge: Any) -> Any:
    rows = [{"name": "coarse", "kind": "test-start.v1"}]
    for number in range(1, stages):
        rows.append({"name": f"up{number}", "kind": "test-enlarge.v1", "config": enlarge})
    data: dict[str, Any] = {"source": "shapes", "config": {"size": 16, "count": 64}}
    if classes is not None:
        data["num_classes"] = classes
    phases = [{"name": "p", "train": ["coarse"], "steps": 1}]
    training = {"losses": [], "phases": phases}
    return resolve(
        {"name": "toy", "data": data, "stages": rows, "training": training}, registry=registry()
    )


def build(stages: int = 2, **rest: Any) -> Cascade:
    return Cascade.from_spec(spec(stages, **rest))


def last_request(cascade: Cascade, name: str) -> SampleRequest:
    stage = cascade.stage(name)
    assert isinstance(stage, Recording)
    return stage.requests[-1]


def test_options_reach_the_stages_that_support_them() -> None:
    cascade = build(3)
    cascade.sample(2, guidance=2.0, options={"s": {"up2": 0.25}, "eta": 0.5, "negative_label": 3})
    coarse, up1, up2 = (last_request(cascade, name) for name in cascade.names)
    assert coarse.options == {"eta": 0.5, "negative_label": 3}
    assert up1.options == {}
    assert up2.options == {"s": 0.25}
    assert (coarse.guidance, up1.guidance, up2.guidance) == (2.0, 2.0, 2.0)
    cascade.sample(2, options={"s": 0.5})
    assert [last_request(cascade, n).options for n in cascade.names] == [{}, {"s": 0.5}, {"s": 0.5}]


def test_the_request_to_the_previous_stage_is_merged_key_by_key() -> None:
    cascade = build()
    options = {"s": 0.25, "truncated": True, "eta": 0.5}
    cascade.sample(2, guidance={"coarse": 3.0}, options=options)
    coarse, up = last_request(cascade, "coarse"), last_request(cascade, "up1")
    assert coarse.options == {"eta": 0.5, "stop": 0.75}
    assert (coarse.steps, coarse.guidance) == (7, 3.0)
    assert up.options == {"s": 0.25, "truncated": True}
    assert (up.steps, up.guidance) == (None, None)
    cascade.sample(2, options={"s": 0.25, "truncated": False})
    assert last_request(cascade, "coarse").options == {}


def test_a_request_that_the_previous_stage_does_not_support() -> None:
    with raises(
        SampleError,
        "sample-option-unheeded-upstream",
        name="up2",
        options=("steps", "stop"),
        upstream="up1",
    ) as caught:
        build(3).sample(1, options={"truncated": {"up2": True}})
    assert "--no-truncated" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("arguments", "error", "shown"),
    [
        (
            {"options": {"magic": 1}},
            {"code": "sample-option-unheeded", "option": "magic"},
            "eta, guidance, negative_label",
        ),
        (
            {"options": {"s": {"coarse": 0.1}}},
            {"code": "sample-option-unheeded-stage", "name": "coarse", "option": "s"},
            "up1",
        ),
        (
            {"options": {"eta": {"nobody": 1}}},
            {"code": "sample-option-unheeded-stage", "name": "nobody", "option": "eta"},
            "coarse",
        ),
        (
            {"options": {"steps": 3}},
            {"code": "sample-option-reserved", "name": "steps"},
            "steps=",
        ),
        ({"options": {"stop": 0.5}}, {"code": "sample-stop-reserved"}, "truncated=True"),
        (
            {"options": {"negative_label": 8}},
            {"code": "sample-negative-label-out-of-range", "label": 8},
            "7",
        ),
        (
            {"options": {"negative_label": -1}},
            {"code": "sample-negative-label-out-of-range", "label": -1},
            "7",
        ),
        (
            {"options": {"negative_label": 1.5}},
            {"code": "sample-negative-label-out-of-range", "label": 1.5},
            "7",
        ),
    ],
)
def test_invalid_options(arguments: Any, error: dict[str, object], shown: str) -> None:
    cascade = build()
    with raises(SampleError, **error) as caught:
        cascade.sample(2, **arguments)
    assert shown in str(caught.value.hint)
    stage = cascade.stage("coarse")
    assert isinstance(stage, Recording)
    assert stage.requests == []


def test_a_negative_label_without_labels() -> None:
    with raises(SampleError, "sample-option-needs-labels", option="negative_label"):
        build(classes=0).sample(1, options={"negative_label": 0})


def test_sampling_from_sampled_images_equals_sampling() -> None:
    cascade = build(3)
    whole = cascade.sample(5, seed=4, first=2, return_stages=True, options={"s": 0.3})
    for index, name in enumerate(cascade.names[1:]):
        upstream = whole[cascade.names[index]]
        again = cascade.sample_from(
            name, upstream, seed=4, first=2, batch_size=2, return_stages=True, options={"s": 0.3}
        )
        assert list(again) == cascade.names[index + 1 :]
        for key, images in again.items():
            assert torch.equal(images, whole[key])
    assert torch.equal(cascade.sample_from("up2", whole["up1"], seed=4, first=2), whole["up2"])


def test_existing_images_are_never_truncated() -> None:
    cascade = build(truncated=True)
    upstream = torch.zeros(2, 3, 8, 8)
    cascade.sample_from("up1", upstream)
    assert last_request(cascade, "up1").options == {"truncated": False}
    with raises(SampleError, "sample-truncated-given", name="up1"):
        cascade.sample_from("up1", upstream, options={"truncated": True})


@pytest.mark.parametrize(
    ("stage", "upstream", "error"),
    [
        ("coarse", torch.zeros(2, 3, 8, 8), {"code": "sample-stage-unusable", "name": "coarse"}),
        ("nobody", torch.zeros(2, 3, 8, 8), {"code": "sample-stage-unusable", "name": "nobody"}),
        ("up1", torch.zeros(2, 5, 8, 8), {"code": "sample-upstream-shape"}),
        ("up1", torch.zeros(2, 4, 16, 16), {"code": "sample-upstream-shape"}),
        ("up1", torch.zeros(0, 3, 8, 8), {"code": "sample-count", "n": 0}),
    ],
)
def test_invalid_input_images(stage: str, upstream: Tensor, error: dict[str, object]) -> None:
    with raises(SampleError, **error):
        build().sample_from(stage, upstream)


def test_watch_is_called_after_every_step_of_every_batch() -> None:
    calls: list[tuple[str, tuple[int, ...], float]] = []
    images = build().sample(
        3,
        steps=4,
        batch_size=2,
        watch=lambda name, x: calls.append((name, tuple(x.shape), float(x.abs().mean()))),
    )
    assert len(images) == 3
    assert [(name, shape[0]) for name, shape, _ in calls] == [("coarse", 2)] * 4 + [
        ("coarse", 1)
    ] * 4
    assert calls[1][2] == pytest.approx(calls[0][2] / 2)


@pytest.mark.parametrize("keep", [False, True])
def test_outputs_of_earlier_stages_are_kept_only_on_request(keep: bool) -> None:
    cascade = build(3)
    result = cascade.sample(4, batch_size=4, return_stages=keep)
    gc.collect()
    assert len(result) in (3, 4)
    alive = [
        stage.images[0]() is not None
        for _, stage in cascade.named_stages()
        if isinstance(stage, Recording)
    ]
    assert alive == [keep, keep, True]


def test_initial_weights_are_loaded_once_and_not_on_the_meta_device() -> None:
    cascade = build()
    for _, stage in cascade.named_stages():
        assert isinstance(stage, Recording)
        assert stage.initial == 1
        assert float(stage.weight.detach()) == 3.0
    empty = Cascade.from_spec(spec(), device="meta")
    assert [stage.initial for _, stage in empty.named_stages()] == [0, 0]  # type: ignore[attr-defined]

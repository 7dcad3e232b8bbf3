"""The study's other upsamplers and refiners: the property of each, measured."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from errors_help import raises_config
from pydantic import ValidationError
from stage_cases import ENTRIES, SMALL, Case, request, train

from cascadezoo.data.shapes import ShapesConfig, load
from cascadezoo.nn.upsample import ResizeUp, TransposedUp
from cascadezoo.plugins.registry import StageEntry
from cascadezoo.spec.configs import ImageShape, RefinerConfig
from cascadezoo.stages.base import TrainContext, downsample
from cascadezoo.stages.residual_stage import MappingStage
from cascadezoo.testing import check_stage
from cascadezoo.util.rng import Draw

LEARNED = ["resnet-upsampler.v1", "transposed.v1"]


# --- upsamplers


@pytest.mark.parametrize("mode", ["bicubic", "bilinear", "nearest"])
@pytest.mark.parametrize("factor", [2, 3, 7, 64])
def test_interpolate_is_the_interpolation(factor: int, mode: str) -> None:
    case = Case("interpolate.v1", {"factor": factor, "interpolation": mode}, size=2 * factor)
    stage, upstream = case.stage(), case.upstream(2)
    assert upstream is not None
    wanted = F.interpolate(3 * upstream, scale_factor=factor, mode=mode)
    images = stage.sample(3 * upstream, request(case, 0, 2))
    assert torch.equal(images, wanted.clamp(-1, 1))
    assert torch.equal(train(stage, case, count=2, upstream=3 * upstream).estimate, wanted)
    assert stage.state_dict() == {}


def test_identity_is_the_image_bit_for_bit() -> None:
    case = SMALL["identity.v1"]
    stage, upstream = case.stage(), case.upstream(2)
    assert upstream is not None
    assert torch.equal(stage.sample(upstream, request(case, 0, 2)), upstream)
    output = train(stage, case, count=2)
    assert torch.equal(output.estimate, upstream)
    assert torch.equal(output.losses["mse"], F.mse_loss(upstream, case.target(2)))


@pytest.mark.parametrize("kind", LEARNED)
@pytest.mark.parametrize("factor", [2, 3, 6, 8])
def test_any_factor_starts_as_the_interpolation(kind: str, factor: int) -> None:
    case = Case(kind, {"hidden": 8, "blocks": 1, "factor": factor}, size=24)
    stage, upstream = case.stage(fresh=True), case.upstream(2)
    assert upstream is not None
    wanted = F.interpolate(upstream, scale_factor=factor, mode="bicubic")
    assert torch.equal(train(stage, case, count=2).estimate, wanted)


@pytest.mark.parametrize(("factor", "kernel"), [(2, 2), (2, 3), (2, 4), (3, 3), (3, 4), (5, 8)])
def test_a_transposed_convolution_is_a_sum_of_shifted_kernels(factor: int, kernel: int) -> None:
    torch.manual_seed(0)
    layer = TransposedUp(1, 1, factor, kernel)
    x = torch.randn(1, 1, 4, 5)
    rows = torch.zeros(4 * factor + 2 * kernel, 5 * factor + 2 * kernel)
    shift = kernel - layer.padding[0]
    for row in range(4):
        for column in range(5):
            top, left = row * factor + shift, column * factor + shift
            weight = layer.weight[0, 0]
            rows[top : top + kernel, left : left + kernel] += x[0, 0, row, column] * weight
    wanted = rows[kernel : kernel + 4 * factor, kernel : kernel + 5 * factor] + layer.bias
    made = layer(x)[0, 0]
    assert made.shape == (4 * factor, 5 * factor)
    assert torch.allclose(made, wanted, rtol=0, atol=1e-5)


def test_a_transposed_kernel_with_gaps_is_rejected() -> None:
    with pytest.raises(ValueError, match="3"):
        TransposedUp(1, 1, 3, 2)
    config = ENTRIES["transposed.v1"].load_config()
    with raises_config("kernel", "gaps"):
        config(factor=14).fit(ImageShape(3, 28))
    assert "checkerboard" in next(iter(config().advice(ImageShape(3, 32), None)))
    assert list(config(kernel=4).advice(ImageShape(3, 32), None)) == []


def checkerboard(images: torch.Tensor) -> float:
    """Energy at half the sampling rate relative to the energy of the images."""
    inner = images[..., 8:-8, 8:-8]
    spectrum = torch.fft.fft2(inner).abs().square()
    size = inner.shape[-1]
    half = spectrum[..., size // 2, :].sum() + spectrum[..., :, size // 2].sum()
    return float(half / spectrum.sum())


def test_transposed_convolutions_have_checkerboards_and_resized_ones_have_not() -> None:
    """On an even image, away from its border, with every weight at random (Odena et al. 2016)."""
    grey = torch.full((2, 3, 16, 16), 0.5)
    found: dict[str, float] = {}
    for name, kind, settings in (
        ("kernel 3", "transposed.v1", {"output": "pixels"}),
        ("kernel 4", "transposed.v1", {"output": "pixels", "kernel": 4}),
        ("resize", "resnet-upsampler.v1", {}),
    ):
        case = Case(kind, {"hidden": 16, "blocks": 0, **settings}, size=32)
        stage = case.stage()
        found[name] = checkerboard(train(stage, case, count=2, upstream=grey).estimate.detach())
    assert found["resize"] < 1e-9
    # A kernel of 4 has as many products everywhere, though not the same ones.
    assert found["kernel 3"] > 1e-3
    assert found["kernel 3"] > 1e5 * found["resize"]


def test_overlaps_of_kernel_three_are_uneven_and_of_four_even() -> None:
    def products(kernel: int) -> set[int]:
        layer = TransposedUp(1, 1, 2, kernel)
        with torch.no_grad():
            layer.weight.fill_(1.0)
            layer.bias.zero_()
        inner = layer(torch.ones(1, 1, 6, 6))[0, 0, 3:-3, 3:-3]
        return {round(value) for value in inner.flatten().tolist()}

    assert products(3) == {1, 2, 4}
    assert products(4) == {4}
    resize = ResizeUp(1, 1, 2)
    torch.nn.init.ones_(resize.conv.weight)
    torch.nn.init.zeros_(resize.conv.bias)
    made = resize(torch.ones(1, 1, 6, 6))[0, 0, 2:-2, 2:-2]
    assert {round(value) for value in made.flatten().tolist()} == {9}


@pytest.fixture(scope="module")
def shapes() -> torch.Tensor:
    """Real shapes at 16x16, the first half to train on."""
    images = load(ShapesConfig(size=16, count=512), "train").images
    return torch.from_numpy(images).float() / 127.5 - 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("pixelshuffle.v1", {"hidden": 32}),
        ("resnet-upsampler.v1", {"hidden": 16}),
        ("transposed.v1", {"hidden": 32}),
        ("conv-refiner.v1", {"hidden": 16}),
        ("resnet-refiner.v1", {"hidden": 16, "blocks": 2}),
    ],
)
def test_a_short_training_beats_bicubic(
    kind: str, settings: dict[str, Any], shapes: torch.Tensor
) -> None:
    case = Case(kind, settings, size=16, num_classes=None)
    stage = case.stage(fresh=True)
    optimizer = torch.optim.AdamW(stage.parameters(), lr=3e-3)

    def upstream(images: torch.Tensor) -> torch.Tensor:
        coarse = downsample(images, 8)
        if case.role == "upsampler":
            return coarse
        return F.interpolate(coarse, scale_factor=2, mode="bicubic")

    for step in range(120):
        target = shapes[Draw("pick", step).randint(0, 256, 16)]
        inputs = stage.preprocess(target, upstream(target), TrainContext(Draw(0, step)))
        optimizer.zero_grad()
        stage(inputs).losses["mse"].backward()
        optimizer.step()
    unseen = shapes[256:]
    with torch.no_grad():
        made = stage.eval().sample(upstream(unseen), request(case, 0, len(unseen)))
    bicubic = F.interpolate(downsample(unseen, 8), scale_factor=2, mode="bicubic").clamp(-1, 1)
    assert F.mse_loss(made, unseen) < 0.7 * F.mse_loss(bicubic, unseen)


def test_predicting_pixels_does_not_start_as_the_interpolation() -> None:
    case = Case("transposed.v1", {"hidden": 8, "output": "pixels"}, size=16)
    stage, upstream = case.stage(fresh=True), case.upstream(2)
    assert upstream is not None
    estimate = train(stage, case, count=2).estimate
    assert (estimate - F.interpolate(upstream, scale_factor=2)).abs().mean() > 0.1


# --- refiners


@pytest.mark.parametrize("kind", ["conv-refiner.v1", "resnet-refiner.v1"])
def test_an_untrained_refiner_changes_nothing(kind: str) -> None:
    case = SMALL[kind]
    stage, upstream = case.stage(fresh=True), case.upstream(2)
    assert upstream is not None
    assert torch.equal(stage.sample(upstream, request(case, 0, 2)), upstream)


def test_plain_convolutions_keep_the_scale_of_the_signal() -> None:
    """With PyTorch's default initialisation, eight layers without norms lose the signal."""
    case = Case("conv-refiner.v1", {"hidden": 32, "layers": 8}, size=16)

    def left(usual: bool) -> float:
        stage: Any = case.stage(fresh=True)
        first, *middle = stage.network.layers[:-1]
        h = first(case.upstream(8))
        before = h.std()
        for layer in middle:
            if usual:
                layer.reset_parameters()
            h = layer(F.silu(h)) - layer.bias[:, None, None]
        return float(h.std() / before)

    with torch.no_grad():
        assert left(usual=False) > 0.1
        assert left(usual=True) < 0.01


@pytest.mark.parametrize(
    ("kind", "settings", "path", "kind_of_error"),
    [
        ("dae.v1", {"sigma": 0.0}, "sigma", "greater_than"),
        ("dae.v1", {"levels": 0}, "levels", "greater_than_equal"),
        ("dae.v1", {"renoise": 1.5}, "renoise", "less_than_equal"),
        ("resnet.v1", {"candidates": 0}, "candidates", "greater_than_equal"),
        ("resnet.v1", {"halvings": 9}, "halvings", "less_than_equal"),
        ("resnet-upsampler.v1", {"factor": 65}, "factor", "less_than_equal"),
        ("transposed.v1", {"kernel": 1}, "kernel", "greater_than_equal"),
        ("transposed.v1", {"output": "image"}, "output", "literal_error"),
        ("interpolate.v1", {"factor": 1}, "factor", "greater_than_equal"),
        ("interpolate.v1", {"interpolation": "area"}, "interpolation", "literal_error"),
        ("conv-refiner.v1", {"layers": 1}, "layers", "greater_than_equal"),
        ("conv-refiner.v1", {"kernel": 4}, "kernel", "value_error"),
        ("resnet-refiner.v1", {"blocks": 0}, "blocks", "greater_than_equal"),
        ("identity.v1", {"scale": 1}, "scale", "extra_forbidden"),
    ],
)
def test_invalid_settings_are_rejected_with_their_path(
    kind: str, settings: dict[str, Any], path: str, kind_of_error: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        ENTRIES[kind].load_config().model_validate(settings)
    (error,) = caught.value.errors()
    assert ".".join(map(str, error["loc"])) == path
    assert error["type"] == kind_of_error


# --- stages without parameters


class LiarConfig(RefinerConfig):
    """A config that claims to have no parameters."""

    parameterless: ClassVar[bool] = True


class Liar(MappingStage):
    """A stage with one parameter."""

    Config = LiarConfig

    def __init__(self, config: Any, geometry: Any) -> None:
        super().__init__(config, geometry)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def predict(self, upstream: torch.Tensor) -> torch.Tensor:
        return self.scale * upstream


def test_the_check_finds_parameters_of_a_parameterless_kind() -> None:
    entry = StageEntry(
        name="liar.v1",
        role="refiner",
        summary="says that it has no parameters",
        config=f"{__name__}:LiarConfig",
        impl=f"{__name__}:Liar",
    )
    trained = ("joint-training", "resume", "round-trip", "processes")
    left_out = ("config-without-torch", "import-cost", "docs", "compile", *trained)
    report = check_stage(entry, size=8, skip=left_out)
    (fault,) = report.failures
    assert fault.name == "gradients"
    assert "scale" in fault.message

"""Pictures of users: every form and size, upscaled, refined, or as the input of a stage."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from errors_help import raises
from PIL import Image

from cascadezoo import Cascade
from cascadezoo.data.pictures import read_picture
from cascadezoo.errors import DataError, InputError, ResourceError, SampleError

SPEC: dict[str, Any] = {
    "name": "plain",
    "data": {"source": "shapes", "config": {"size": 16, "count": 64, "test_count": 32}},
    "stages": [
        {"name": "coarse", "kind": "flow.v1", "config": {"channels": 8, "multipliers": [1, 1]}},
        {"name": "up", "kind": "interpolate.v1", "config": {"factor": 2}},
        {"name": "refine", "kind": "conv-refiner.v1", "config": {"hidden": 8, "layers": 2}},
    ],
    "training": {
        "batch_size": 16,
        "phases": [{"name": "all", "train": ["coarse", "refine"], "steps": 2}],
    },
    "evaluation": {"metrics": []},
}


def build(**stages: dict[str, Any]) -> Cascade:
    """A cascade with other stages in the place of those of :data:`SPEC`; weights are not zero."""
    rows = [{**row, **stages.get(row["name"], {})} for row in SPEC["stages"]]
    cascade = Cascade.from_spec({**SPEC, "stages": rows})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in cascade.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return cascade


@pytest.fixture(scope="module")
def plain() -> Cascade:
    return build()


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    rows = torch.rand(3, 6, 9, generator=torch.Generator().manual_seed(1))
    wide = torch.nn.functional.interpolate(rows[None], (53, 81), mode="bicubic").clamp(0, 1)[0]
    return Image.fromarray((wide * 255).byte().permute(1, 2, 0).numpy())


def test_any_size_and_aspect(plain: Cascade) -> None:
    for size in ((1, 1), (3, 50), (50, 3), (8, 8), (33, 65)):
        (large,) = plain.upscale(Image.new("RGB", size, (200, 30, 60)))
        assert large.size == (2 * size[0], 2 * size[1])
        (same,) = plain.refine(Image.new("RGB", size, (200, 30, 60)))
        assert same.size == size


def test_whole_and_tiles_agree(plain: Cascade, photo: Image.Image) -> None:
    (whole,) = plain.upscale(photo, output_type="pt")
    (tiled,) = plain.upscale(photo, output_type="pt", tile=24)
    assert whole.shape == (3, 106, 162)
    # Only the pixels near a tile's border see less of the picture.
    assert (whole - tiled).abs().mean() < 0.01
    assert (whole - tiled).abs().max() < 0.2


def test_stages_of_one_size_get_blended_tiles(photo: Image.Image) -> None:
    cascade = build(refine={"kind": "vit.v1", "config": {"features": 16, "heads": 2, "blocks": 1}})
    assert not cascade.stage("refine").any_size
    (result,) = cascade.upscale(photo)
    assert result.size == (162, 106)
    with raises(SampleError, "sample-tile-size", name="refine"):
        cascade.upscale(photo, tile=40)


@pytest.mark.parametrize("kind", ["flow-sr.v2", "diffusion-sr.v1"])
def test_stages_with_noise(kind: str, photo: Image.Image) -> None:
    steps = {"timesteps": 4} if kind.startswith("diffusion") else {"steps": 2}
    sr = {"kind": kind, "config": {"channels": 8, "multipliers": [1, 1], "s": 0.1, **steps}}
    cascade = build(up=sr)
    assert cascade.stage("up").any_size
    (first,) = cascade.upscale(photo, seed=1, output_type="np")
    (again,) = cascade.upscale(photo, seed=1, output_type="np")
    (other,) = cascade.upscale(photo, seed=2, output_type="np")
    assert (first == again).all()
    assert (first != other).any()
    (tiled,) = cascade.upscale(photo, seed=1, tile=16, batch_size=2, output_type="pt")
    (batch,) = cascade.upscale(photo, seed=1, tile=16, batch_size=64, output_type="pt")
    assert (tiled - batch).abs().max() < 1e-4
    attention = {"kind": kind, "config": {**sr["config"], "middle_attention": True}}
    assert not build(up=attention).stage("up").any_size


def test_a_picture_of_the_trained_size_equals_sample_from() -> None:
    cascade = build(up={"kind": "flow-sr.v2", "config": {"channels": 8, "steps": 2}})
    image = torch.rand(1, 3, 8, 8) * 2 - 1
    (large,) = cascade.upscale(image, seed=5, labels=3, output_type="pt")
    assert (large - cascade.sample_from("up", image, seed=5, labels=3)[0]).abs().max() < 1e-6


def test_every_form_of_a_picture(plain: Cascade, photo: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    photo.save(path)
    array = np.asarray(photo)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    forms = [photo, path, str(path), array, tensor, tensor.float() / 127.5 - 1]
    results = plain.upscale(forms)
    assert all(np.array_equal(np.asarray(r), np.asarray(results[0])) for r in results)
    batch = plain.upscale(torch.stack([tensor, tensor]), output_type="np")
    assert [b.shape for b in batch] == [(106, 162, 3)] * 2


def test_orientation_alpha_grey_and_palettes(photo: Image.Image, tmp_path: Path) -> None:
    plain = build(refine={"kind": "identity.v1", "config": {}})
    turned = photo.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    (upright,) = plain.upscale(tmp_path / "turned.png")
    assert upright.size == (162, 106)
    assert np.array_equal(np.asarray(upright), np.asarray(plain.upscale(photo)[0]))

    clear = photo.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(photo.size))
    clear.save(tmp_path / "clear.png")
    (result,) = plain.upscale(tmp_path / "clear.png")
    assert (result.mode, result.size) == ("RGBA", (162, 106))
    assert np.asarray(result.getchannel("A"))[0].mean() < 5
    assert np.asarray(result.getchannel("A"))[-1].mean() > 250

    palette = photo.quantize(16)
    for image, mode in [
        (photo.convert("L"), "L"),
        (photo.convert("1"), "L"),
        (palette, "RGB"),
        (photo.convert("LA"), "LA"),
        (photo.convert("CMYK"), "RGB"),
    ]:
        (result,) = plain.upscale(image)
        assert (result.mode, result.size) == (mode, (162, 106)), image.mode
    deep = Image.fromarray(np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16))
    assert deep.mode == "I;16"
    pixels = read_picture(deep).pixels
    assert (float(pixels.min()), float(pixels.max())) == (-1.0, 1.0)


def test_a_model_of_grey_images_enlarges_each_channel(photo: Image.Image) -> None:
    grey = Cascade.from_spec({**SPEC, "data": {**SPEC["data"], "channels": 1}})
    colour = Cascade.from_spec(SPEC)
    (a,), (b,) = grey.upscale(photo), colour.upscale(photo)
    assert np.abs(np.asarray(a).astype(int) - np.asarray(b)).max() <= 1


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")


def test_bad_files(plain: Cascade, photo: Image.Image, tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    photo.save(good)
    cases = {
        "text.png": (b"hello", "data-image-unreadable"),
        "cut.png": (good.read_bytes()[:200], "data-image-unreadable"),
        "empty.png": (b"", "data-image-unreadable"),
        "bomb.png": (png(60_000, 60_000), "data-image-too-large"),
    }
    for name, (content, code) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        with raises(DataError, code, path=path):
            plain.upscale(path)
    with raises(DataError, "data-file-missing"):
        plain.upscale(tmp_path / "none.png")
    with pytest.raises(DataError):
        plain.upscale(tmp_path)


def test_bad_values(plain: Cascade, photo: Image.Image) -> None:
    with raises(InputError, "input-picture-range"):
        plain.upscale(np.full((8, 8, 3), 7.0))
    with raises(InputError, "input-not-a-picture", type="int"):
        plain.upscale([3])  # type: ignore[list-item]
    with raises(InputError, "input-not-a-picture"):
        plain.upscale(3)  # type: ignore[arg-type]
    with raises(InputError, "input-no-pictures"):
        plain.upscale([])
    with raises(InputError, "input-picture-mode", mode="F"):
        plain.upscale(photo.convert("F"))
    with raises(InputError, "input-images-not-finite"):
        plain.upscale(torch.full((3, 8, 8), torch.nan))
    with raises(SampleError, "sample-output-type-unknown", name="jpg"):
        plain.upscale(photo, output_type="jpg")  # type: ignore[arg-type]
    with raises(SampleError, "sample-picture-stage", name="refine"):
        plain.upscale(photo, stage="refine")
    with raises(SampleError, "sample-picture-stage", name="nobody"):
        plain.refine(photo, stage="nobody")
    lone = Cascade.from_spec(
        {
            **SPEC,
            "stages": SPEC["stages"][:1],
            "training": {
                "batch_size": 16,
                "phases": [{"name": "all", "train": ["coarse"], "steps": 2}],
            },
        }
    )
    with raises(SampleError, "sample-no-picture-stage", role="upsampler"):
        lone.upscale(photo)


def test_results_that_do_not_fit_into_memory_are_refused() -> None:
    spec = {
        **SPEC,
        "data": {"source": "shapes", "config": {"size": 64, "count": 64, "test_count": 32}},
        "stages": [
            {"name": "coarse", "kind": "flow.v1", "config": {"channels": 8, "multipliers": [1]}},
            {"name": "up", "kind": "interpolate.v1", "config": {"factor": 64}},
        ],
        "training": {
            "batch_size": 16,
            "phases": [{"name": "all", "train": ["coarse"], "steps": 2}],
        },
    }
    with raises(ResourceError, "resources-picture") as caught:
        Cascade.from_spec(spec).upscale(Image.new("RGB", (4000, 4000)))
    assert caught.value.fields["needed"] > 1 << 40


def test_the_input_of_a_stage_may_be_pictures(plain: Cascade, photo: Image.Image) -> None:
    assert plain.sample_from("up", photo.resize((8, 8))).shape == (1, 3, 16, 16)
    assert plain.sample_from("up", [photo.resize((9, 16)), photo.resize((4, 4))]).shape[0] == 2
    exact = torch.rand(2, 3, 8, 8) * 2 - 1
    pictures = [
        Image.fromarray(((e + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()) for e in exact
    ]
    difference = plain.sample_from("up", exact) - plain.sample_from("up", pictures)
    assert difference.abs().max() < 0.02
    for size in ((17, 8), (8, 3), (100, 100)):
        with raises(DataError, "data-picture-size", size=8):
            plain.sample_from("up", photo.resize(size))
    with raises(InputError, "input-not-a-picture"):
        plain.sample_from("up", 3)  # type: ignore[arg-type]

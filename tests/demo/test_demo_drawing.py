"""What the page draws, without a browser and without Gradio."""

from __future__ import annotations

import io

import numpy as np
import pytest
from errors_help import raises
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cascadezoo import Cascade, read_recipe
from cascadezoo.demo.drawing import (
    DemoModel,
    DrawSettings,
    draw_samples,
    draw_trajectory,
    inpaint_picture,
    sample_for_editing,
    upscale_picture,
)
from cascadezoo.errors import InputError, ModelError, SampleError
from cascadezoo.report.images import grid


@pytest.fixture(scope="module")
def model() -> DemoModel:
    return DemoModel("shapes-tiny")


def test_samples_are_those_of_the_model_and_state_how_they_were_made(model, tmp_path):
    settings = DrawSettings(label="star", n=4, seed=3, steps=3)
    picture, strip = draw_samples(model, settings)
    images = Cascade.from_pretrained("shapes-tiny").sample(4, seed=3, labels="star", steps=3)
    assert (np.asarray(picture) == np.asarray(grid(images, names=["star"] * 4))).all()
    assert strip.height > strip.width, "four rows of three stages"
    info = PngInfo()
    for key, value in picture.info.items():
        info.add_text(key, value)
    file = io.BytesIO()
    picture.save(file, format="PNG", pnginfo=info)
    (tmp_path / "a.png").write_bytes(file.getvalue())
    recipe = read_recipe(tmp_path / "a.png")
    assert (recipe.reference, recipe.seed) == ("zoo:shapes-tiny", 3)
    again = Cascade.from_pretrained("shapes-tiny").sample(**recipe.arguments())
    assert (again == images).all()
    assert recipe.sample_settings().captions


def test_classes_come_in_turn_and_are_listed(model):
    assert model.labels[:3] == ["circle", "square", "triangle"]
    assert "heun" in model.samplers
    assert model.iterative == ["coarse"]
    picture, _ = draw_samples(model, DrawSettings(n=3, steps=2))
    images = Cascade.from_pretrained("shapes-tiny").sample(3, steps=2)
    assert (np.asarray(picture) == np.asarray(grid(images, names=model.labels[:3]))).all()


def test_a_class_whose_name_is_the_number_of_another(tmp_path):
    cascade = Cascade.from_pretrained("shapes-tiny")
    names = ["0", "1", "10", "11", "2", "3", "4", "5"]  # folders of images, sorted by name
    spec = cascade.spec.model_copy(
        update={"data": cascade.spec.data.model_copy(update={"class_names": names})}
    )
    named = Cascade.from_spec(spec)
    named.load_state_dict(cascade.state_dict())
    model = DemoModel(str(named.save_pretrained(tmp_path / "named")))
    assert model.labels == names
    picture, _ = draw_samples(model, DrawSettings(label="10", n=1, steps=2))
    images = cascade.sample(1, labels=[2], steps=2)
    assert (np.asarray(picture) == np.asarray(grid(images, names=["10"]))).all()


def test_a_trajectory_and_errors_of_the_cascade(model):
    (picture,) = draw_trajectory(model, DrawSettings(n=2, steps=3))
    assert picture.width > picture.height
    with raises(SampleError, "sample-no-course", name="up"):
        draw_trajectory(model, DrawSettings(n=2), "up")
    with raises(SampleError, "sample-class-unknown"):
        draw_samples(model, DrawSettings(label="zebra"))
    with raises(InputError, "input-demo-images", n=37):
        draw_samples(model, DrawSettings(n=37))
    with raises(SampleError, "sample-sampler-unknown"):
        draw_samples(model, DrawSettings(sampler="none"))


def test_a_sampler_applies_to_the_stages_that_have_it(model):
    settings = DrawSettings(n=1, steps=2, sampler="heun")
    by_heun, _ = draw_samples(model, settings)
    by_default, _ = draw_samples(model, DrawSettings(n=1, steps=2))
    assert (np.asarray(by_heun) != np.asarray(by_default)).any()
    # The upsampler has no sampler: the same setting does not disturb it.
    picture = Image.new("RGB", (16, 16), "white")
    with raises(SampleError, "sample-option-unheeded"):
        upscale_picture(model, settings, picture)


def test_upscaling(model):
    picture = Image.new("RGB", (20, 12), "teal")
    (large,) = upscale_picture(model, DrawSettings(), picture)
    assert large.size == (40, 24)
    with raises(InputError, "input-demo-no-picture"):
        upscale_picture(model, DrawSettings(), None)
    with raises(InputError, "input-demo-picture-large", width=300, height=300):
        upscale_picture(model, DrawSettings(), Image.new("RGB", (300, 300)))


def test_inpainting_keeps_what_is_not_painted(model):
    settings = DrawSettings(label="star", n=1, seed=1, steps=3)
    picture = sample_for_editing(model, settings)
    assert picture.size == (256, 256)
    layer = Image.new("RGBA", picture.size)
    layer.paste((255, 255, 255, 255), (128, 0, 256, 256))
    (drawn,) = inpaint_picture(model, settings, picture, [layer])
    pixels = np.asarray(drawn)[2:98:3, 2:98:3]
    before = np.asarray(picture)[::8, ::8]
    assert (pixels[:, :16] == before[:, :16]).all()
    assert (pixels[:, 16:] != before[:, 16:]).any()
    with raises(InputError, "input-demo-no-picture"):
        inpaint_picture(model, settings, None, [])
    with raises(InputError, "input-demo-picture-large", width=5000, height=4000):
        inpaint_picture(model, settings, Image.new("L", (5000, 4000)), [])
    with raises(InputError, "input-demo-no-mask"):
        inpaint_picture(model, settings, picture, [Image.new("RGBA", picture.size)])


def test_a_model_of_another_digest_is_refused(model):
    assert DemoModel("shapes-tiny", digest=model.digest).name == "shapes-tiny"
    with raises(ModelError, "model-not-of-digest", name="shapes-tiny", digest=model.digest):
        DemoModel("shapes-tiny", digest="0" * 64)

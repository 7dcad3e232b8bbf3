"""Phases with their own batch size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import toy_cascade

from cascadezoo.build.plan import make_plan
from cascadezoo.cascade.cascade import Cascade
from cascadezoo.data.base import ImageData
from cascadezoo.data.loader import DeviceLoader
from cascadezoo.errors import DataError
from cascadezoo.spec import apply_settings, load_spec, read_spec
from cascadezoo.train.engine import make_accelerator
from cascadezoo.train.trainer import Trainer

TINY = "diffusion-pixelshuffle-vit-tiny"
PHASE = {"train": ["up", "refine"], "steps": 5}


def loader(batch_size: int, world: int = 1) -> DeviceLoader:
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 8, 8), dtype=np.uint8)
    data = ImageData(images, np.arange(64) % 8, "train")
    return DeviceLoader(data, batch_size=batch_size, seed=0, flip=True, world=world, device="cpu")


def trained(cascade: Cascade, batch_size: int) -> dict[str, float]:
    accelerator = make_accelerator(torch.device("cpu"), "fp32")
    Trainer(cascade, loader(batch_size), accelerator).run()
    return {name: p.item() for name, p in cascade.stages.named_parameters()}


def test_a_phase_trains_on_its_own_batch_size() -> None:
    own = trained(toy_cascade({**PHASE, "batch_size": 16}), 8)
    assert own == trained(toy_cascade(PHASE), 16)
    assert own != trained(toy_cascade(PHASE), 8)


def test_a_loader_of_another_batch_size_is_as_a_new_one() -> None:
    first = loader(8)
    first.batch(0, 3)
    other, fresh = first.with_batch_size(32), loader(32)
    assert (other.batch_size, other.local_batch_size, other.steps_per_epoch) == (32, 32, 2)
    for epoch in (0, 1):
        images, labels = other.batch(epoch, 1)
        wanted, wanted_labels = fresh.batch(epoch, 1)
        assert torch.equal(images, wanted)
        assert labels is not None
        assert wanted_labels is not None
        assert torch.equal(labels, wanted_labels)
    # The first loader continues where it was.
    assert first.batch_size == 8
    assert torch.equal(first.batch(0, 3)[0], loader(8).batch(0, 3)[0])


def test_a_batch_that_processes_cannot_split_is_rejected() -> None:
    with pytest.raises(DataError) as caught:
        loader(8, world=2).with_batch_size(5)
    assert caught.value.code == "data-batch-uneven"


def test_the_plan_counts_the_batches_of_a_phase() -> None:
    data, _ = read_spec(TINY)
    data["training"]["phases"] = [{"name": "one", "train": ["coarse"], "steps": 10}]
    plain = make_plan(load_spec(data), "cpu")
    own = make_plan(load_spec(apply_settings(data, ["training.phases.one.batch_size=64"])), "cpu")
    flops = plain.training_flops(32, 1)
    assert flops is not None
    assert own.training_flops(32, 1) == pytest.approx(2 * flops)
    assert plain.phases[0]["batch_size"] is None
    activations = plain.stages[0].activation_bytes
    assert activations is not None
    assert own.phases[0]["bytes"] == plain.phases[0]["bytes"] + 32 * activations


def test_epochs_are_the_same_number_of_images() -> None:
    data, _ = read_spec(TINY)
    data["training"]["phases"] = [
        {"name": "one", "train": ["coarse"], "epochs": 2, "batch_size": 64}
    ]
    plan = make_plan(load_spec(data), "cpu")
    forward = plan.stages[0].flops_forward
    assert forward is not None
    assert plan.training_flops(32, 8) == pytest.approx(3 * forward * 2 * 8 * 32)


@pytest.mark.parametrize(
    ("spec", "path", "value"),
    [
        (TINY, "training.phases.0.batch_size", 64),
        ("mnist-ddpm", "stages.draw.config.pad_to", 64),
        ("mnist-latent-flow", "stages.decode.config.halve_last", True),
    ],
)
def test_digests_of_specs_without_the_later_fields_do_not_change(
    spec: str, path: str, value: object
) -> None:
    resolved = load_spec(spec).spec
    data = resolved.to_dict()
    *parents, last = path.split(".")
    part = data
    for key in parents:
        names = [row.get("name") for row in part] if isinstance(part, list) else []
        part = part[names.index(key) if key in names else int(key) if names else key]
    del part[last]
    before = resolved.model_validate(data)
    assert before.digest() == resolved.digest()
    assert before.training_digest() == resolved.training_digest()
    other = resolved.model_validate(apply_settings(data, [f"{path}={str(value).lower()}"]))
    assert other.training_digest() != resolved.training_digest()

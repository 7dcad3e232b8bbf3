"""timm:MODEL with checkpoints in the layout of the Hub's cache; no request is sent."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from errors_help import raises
from PIL import Image
from safetensors.torch import save_file

from cascadezoo.data.base import ImageData
from cascadezoo.errors import InputError, UnknownNameError, WeightsUnavailableError
from cascadezoo.evaluate.evaluate_sampler import evaluate_kid
from cascadezoo.evaluate.features.base import load_extractor
from cascadezoo.evaluate.metrics.base import MetricFeatures
from cascadezoo.evaluate.metrics.inception_score import measure
from cascadezoo.evaluate.options import EvaluationOptions
from cascadezoo.spec.configs import EmptyConfig

MODEL = "test_resnet.r160_in1k"
COMMIT = "0" * 40


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the Hub, in offline mode."""
    from huggingface_hub import constants

    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


@pytest.fixture
def network(cache):
    return keep(cache, MODEL)


def keep(cache, model):
    """Store a timm network with random weights in the cache, as a download would."""
    import timm

    torch.manual_seed(0)
    network = timm.create_model(model, pretrained=False).eval()
    for module in network.modules():  # as after training
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    repository = cache / f"models--timm--{model}"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    save_file(network.state_dict(), snapshot / "model.safetensors")
    return network


def images(count=6, size=32):
    return torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    )


def test_equals_the_features_of_timm_s_pipeline(network):
    """timm's eval transform on PIL images, without its crop."""
    from timm.data import create_transform, resolve_model_data_config

    extractor = load_extractor(f"timm:{MODEL}")
    pixels = images(size=200)
    features = extractor(pixels)
    settings = {**resolve_model_data_config(network), "crop_pct": 1.0}
    transform = create_transform(**settings, is_training=False)
    pictures = [Image.fromarray(row.permute(1, 2, 0).numpy()) for row in pixels]
    with torch.inference_mode():
        maps = network.forward_features(torch.stack([transform(one) for one in pictures]))
        theirs = network.forward_head(maps, pre_logits=True)
    # PIL rounds to 8 bits after resizing.
    torch.testing.assert_close(features, theirs, rtol=0.01, atol=0.01 * float(theirs.abs().max()))
    assert features.shape == (6, network.num_features)


def test_images_of_the_input_size_are_not_resized(network):
    from timm.data import resolve_model_data_config

    data = resolve_model_data_config(network)
    pixels = images(size=data["input_size"][1])
    mean, std = (torch.tensor(data[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        maps = network.forward_features((pixels / 255 - mean) / std)
        theirs = network.forward_head(maps, pre_logits=True)
    features = load_extractor(f"timm:{MODEL}")(pixels)
    torch.testing.assert_close(features, theirs, rtol=1e-4, atol=1e-5)


def test_logits_are_the_network_s(network):
    extractor = load_extractor(f"timm:{MODEL}")
    pixels = images(count=40, size=extractor.input_size)
    features = extractor(pixels)
    with torch.inference_mode():
        theirs = network((pixels / 255 - extractor.mean) / extractor.std)
    torch.testing.assert_close(extractor.logits(features), theirs, rtol=1e-4, atol=1e-4)
    score = measure(
        EmptyConfig(), MetricFeatures(generated=features, real=features, extractor=extractor)
    )
    assert score.settings["classes"] == 1000


@pytest.mark.parametrize("model", ["test_vit", "test_convnext", "test_efficientnet", "test_nfnet"])
def test_other_architectures(cache, model):
    import timm

    full = f"{model}.{timm.get_pretrained_cfg(model).tag}"
    network = keep(cache, full)
    extractor = load_extractor(f"timm:{model}")
    assert extractor.name == f"timm:{full}"
    pixels = images(count=3, size=extractor.input_size)
    features = extractor(pixels)
    assert features.shape == (3, extractor.num_features)
    with torch.inference_mode():
        theirs = network((pixels / 255 - extractor.mean) / extractor.std)
    torch.testing.assert_close(extractor.logits(features), theirs, rtol=1e-3, atol=1e-3)


def test_the_name_of_a_figure_contains_the_tag_of_the_weights(network, tmp_path):
    extractor = load_extractor(f"timm:{MODEL.partition('.')[0]}")
    assert extractor.describe() == {
        "name": f"timm:{MODEL}",
        "version": "v1-bilinear",
        "sha256": extractor.sha256,
        "num_features": network.num_features,
        "input_size": 160,
    }
    real = ImageData(images(24).numpy(), None, "train")
    floats = images(20).float() / 127.5 - 1
    for _ in range(2):
        figure = evaluate_kid(
            lambda first, count: floats[first : first + count],
            real,
            EvaluationOptions(n=20, subsets=2, precision="bf16", cache=tmp_path / "features"),
            extractor=extractor,
        )
        assert figure.name == f"kid.timm:{MODEL}-bf16.n20"
    (folder,) = (tmp_path / "features").iterdir()
    assert folder.name.startswith(f"timm-{MODEL}-")


def test_different_weights_have_a_different_digest(network, cache):
    before = load_extractor(f"timm:{MODEL}").sha256
    (path,) = cache.glob("*/snapshots/*/model.safetensors")
    state = {name: value.clone() for name, value in network.state_dict().items()}
    state["conv1.weight" if "conv1.weight" in state else next(iter(state))].mul_(1.5)
    save_file(state, path)
    assert load_extractor(f"timm:{MODEL}").sha256 != before


def test_without_weights_and_network_the_hint_names_three_solutions(cache):
    with raises(WeightsUnavailableError, "weights-unavailable", name="resnet18.a1_in1k") as caught:
        load_extractor("timm:resnet18")
    hint = str(caught.value.hint)
    assert "hf download timm/resnet18.a1_in1k" in hint
    assert '"evaluation.extractor": "small"' in hint
    assert '"evaluation.metrics"' in hint


@pytest.mark.parametrize("content", [b"", b"torn", b"\x10\0\0\0\0\0\0\0{"])
def test_a_damaged_file(network, cache, content):
    (path,) = cache.glob("*/snapshots/*/model.safetensors")
    path.write_bytes(content)
    with raises(WeightsUnavailableError, "weights-unavailable"):
        load_extractor(f"timm:{MODEL}")


def test_weights_of_a_different_network(network, cache):
    keep(cache, "test_convnext.r160_in1k")
    paths = {path.parts[-4]: path for path in cache.glob("*/snapshots/*/model.safetensors")}
    shutil.copy(paths["models--timm--test_convnext.r160_in1k"], paths[f"models--timm--{MODEL}"])
    with raises(WeightsUnavailableError, "weights-unavailable"):
        load_extractor(f"timm:{MODEL}")


@pytest.mark.parametrize(
    ("name", "shown", "hint"),
    [
        ("resnet81", "'resnet81'", "'timm:resnet18'"),
        ("resnet18.a9_in1k", "'a9_in1k'", "'timm:resnet18.a1_in1k'"),
        ("hf_hub:org/model", "hf_hub:org/model", "list_pretrained"),
        ("local-dir:/tmp", "local-dir:/tmp", "list_pretrained"),
        ("../model", "../model", "list_pretrained"),
    ],
)
def test_unknown_names(name, shown, hint):
    with raises(UnknownNameError, "lookup-timm-model") as caught:
        load_extractor(f"timm:{name}")
    assert shown in caught.value.what
    assert hint in str(caught.value.hint)


def test_a_network_without_weights():
    import timm

    pretrained = {name.partition(".")[0] for name in timm.list_pretrained()}
    name = next(name for name in timm.list_models() if name not in pretrained)
    with raises(UnknownNameError, "lookup-timm-model", name=name):
        load_extractor(f"timm:{name}")


def test_a_missing_name():
    with raises(InputError, "input-argument-invalid", name="timm") as caught:
        load_extractor("timm")
    assert "timm:MODEL" in str(caught.value.hint)


def test_networks_with_unsupported_input(network):
    from cascadezoo.evaluate.features.timm_networks import TimmExtractor

    data = {"input_size": (3, 160, 160), "mean": (0, 0, 0), "std": (1, 1, 1)}
    for change in ({"input_size": (1, 160, 160)}, {"input_size": (3, 160, 96)}, {}):
        settings = {**data, "interpolation": "lanczos" if not change else "bicubic", **change}
        with raises(InputError, "input-network-input"):
            TimmExtractor(MODEL, network, settings, torch.device("cpu"))


def test_networks_without_feature_vectors(network):
    from cascadezoo.evaluate.features.timm_networks import TimmExtractor

    network.reset_classifier(10, global_pool="")
    data = {"input_size": (3, 64, 64), "mean": (0, 0, 0), "std": (1, 1, 1)}
    with raises(InputError, "input-network-output"):
        TimmExtractor(MODEL, network, {**data, "interpolation": "bicubic"}, torch.device("cpu"))


def test_a_network_with_two_heads_has_no_classifier(cache):
    """The logits of a distilled network do not follow from its pooled features."""
    import timm

    model = "deit_tiny_distilled_patch16_224"
    keep(cache, f"{model}.{timm.get_pretrained_cfg(model).tag}")
    extractor = load_extractor(f"timm:{model}")
    features = extractor(images(2))
    with raises(InputError, "input-no-classifier"):
        extractor.logits(features)

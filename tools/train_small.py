"""Train the small feature extractor anew.

``python tools/train_small.py NPZ OUT``

The data are CIFAR-10 as one .npz: train_images uint8 [50000, 32, 32, 3], train_labels,
test_images, test_labels. About ten minutes on one core that knows bfloat16.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from cascadezoo.data.pixels import to_float
from cascadezoo.evaluate.features.small_network import SIZE, SmallNet

__all__ = ["augment", "main", "train"]

BATCH = 256
PEAK_RATE = 0.4
WARM_UP = 0.15
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
SHIFT = 4
JITTER = 0.15
GRAYSCALE = 0.15
ZOOM = 0.75
CLOSEST = 0.5
CALIBRATION = 5000
LUMA = (0.299, 0.587, 0.114)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip, shift or enlarge a part, change brightness and contrast, drop the colour of some.

    Args:
        images: float [N, 3, H, W] in [-1, 1].
        generator: where the draws come from.

    Returns:
        New images [N, 3, H, W], about in [-1, 1].
    """
    count, _, height, width = images.shape

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, 1, 1, 1, generator=generator) * (high - low) + low

    images = torch.where(uniform(0, 1) < 0.5, images.flip(-1), images)
    whole = images
    padded = F.pad(images, [SHIFT] * 4, mode="reflect")
    across = torch.randint(0, 2 * SHIFT + 1, (count, 1), generator=generator) + torch.arange(width)
    down = torch.randint(0, 2 * SHIFT + 1, (count, 1), generator=generator) + torch.arange(height)
    rows = torch.arange(count)[:, None, None]
    images = padded.permute(0, 2, 3, 1)[rows, down[:, :, None], across[:, None, :]]
    images = torch.where(
        uniform(0, 1) < ZOOM, _enlarge(whole, generator), images.permute(0, 3, 1, 2)
    )
    luma = (images * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    images = torch.where(uniform(0, 1) < GRAYSCALE, luma.expand_as(images), images)
    return images * uniform(1 - JITTER, 1 + JITTER) + uniform(-JITTER, JITTER)


def _enlarge(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random part of each image, at least half as wide, enlarged to the whole."""
    share = torch.rand(len(images), generator=generator) * (1 - CLOSEST) + CLOSEST
    places = (torch.rand(len(images), 2, generator=generator) * 2 - 1) * (1 - share[:, None])
    parts = torch.cat([torch.diag_embed(share[:, None].expand(-1, 2)), places[:, :, None]], dim=2)
    where = F.affine_grid(parts, list(images.shape), align_corners=False)
    return F.grid_sample(images, where, padding_mode="reflection", align_corners=False)


def train(
    images: Tensor, labels: Tensor, *, epochs: int, seed: int, progress: bool = True
) -> SmallNet:
    """Train the network by SGD with a one-cycle rate.

    Args:
        images: uint8 [N, 3, 32, 32].
        labels: int64 [N].
        epochs: how often each image is seen.
        seed: of weights, order and augmentation.
        progress: tell loss and time of each epoch on stderr.

    Returns:
        The network with its normalisation folded in and its features calibrated, for use.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = SmallNet(norm=True).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        net.parameters(), PEAK_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    total = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / (WARM_UP * total), (total - step) / ((1 - WARM_UP) * total)),
    )
    start = time.perf_counter()
    for epoch in range(epochs):
        losses = []
        order = torch.randperm(len(images), generator=generator)
        for rows in torch.split(order[: len(order) // BATCH * BATCH], BATCH):
            batch = augment(to_float(images[rows]), generator)
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(batch.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        if progress:
            mean = torch.stack(losses).mean().item()
            print(
                f"epoch {epoch + 1}: {mean:.4f}, {time.perf_counter() - start:.0f} s",
                file=sys.stderr,
            )
    net.fold()
    net.calibrate(to_float(images[:CALIBRATION]))
    return net


def accuracy(net: SmallNet, images: Tensor, labels: Tensor) -> float:
    """The share of uint8 images [N, 3, 32, 32] whose class the network finds."""
    with torch.inference_mode():
        found = [net(to_float(batch)).argmax(dim=1) for batch in torch.split(images, 1000)]
    return float((torch.cat(found) == labels).double().mean())


def main(arguments: list[str] | None = None) -> None:
    """Train, measure and write OUT, a safetensors file with half-precision weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="CIFAR-10 as .npz")
    parser.add_argument("out", type=Path, help="the .safetensors file to write")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    with np.load(options.data) as arrays:
        names = [f"{split}_{what}" for split in ("train", "test") for what in ("images", "labels")]
        parts = {name: torch.from_numpy(arrays[name]) for name in names}
    for name, part in parts.items():
        images = name.endswith("images")
        parts[name] = part.permute(0, 3, 1, 2).contiguous() if images else part.long()

    start = time.process_time()
    net = train(
        parts["train_images"], parts["train_labels"], epochs=options.epochs, seed=options.seed
    )
    seconds = time.process_time() - start
    weights = {name: value.half().contiguous() for name, value in net.state_dict().items()}
    net.load_state_dict({name: value.float() for name, value in weights.items()})
    facts = {
        "name": "small",
        "version": "v1",
        "data": f"CIFAR-10, {len(parts['train_images'])} training images at {SIZE}x{SIZE}",
        "epochs": str(options.epochs),
        "seed": str(options.seed),
        "processor_seconds": f"{seconds:.0f}",
        "test_accuracy": f"{accuracy(net, parts['test_images'], parts['test_labels']):.4f}",
        "torch": str(torch.__version__),
    }
    save_file(weights, options.out, metadata=facts)
    print(json.dumps({**facts, "bytes": options.out.stat().st_size}, indent=2))


if __name__ == "__main__":
    main()

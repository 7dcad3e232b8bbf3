"""fashion-tiny: the pinned bytes, balanced, split."""

import numpy as np

from cascadezoo.data.fashion_tiny import FashionTinyConfig, load


def test_bytes_are_the_packed_ones():
    """Digests taken when the images were packed, after comparing them with the original files."""
    train = load(FashionTinyConfig(), "train")
    test = load(FashionTinyConfig(), "test")
    assert train.digest == "6a1d404a16911409f28a139a0e6ad3f6e387a119421d5a650047546c9661e280"
    assert test.digest == "c860fa334b7c37ea4e3c7c5a5c05cebd4b7a89c36ac69c271259b7e6d85dd50d"


def test_splits_are_balanced_and_disjoint():
    train = load(FashionTinyConfig(), "train")
    test = load(FashionTinyConfig(), "test")
    assert train.images.shape == (1600, 1, 28, 28)
    assert test.images.shape == (400, 1, 28, 28)
    assert np.bincount(train.labels).tolist() == [160] * 10
    assert np.bincount(test.labels).tolist() == [40] * 10
    both = np.concatenate([train.images, test.images]).reshape(2000, -1)
    assert len(np.unique(both, axis=0)) == 2000


def test_labels_fit_the_images():
    """Nearest mean of the training classes: far above the 10 % that wrong labels would give."""
    train, test = load(FashionTinyConfig(), "train"), load(FashionTinyConfig(), "test")
    flat = train.images.reshape(1600, -1).astype(np.float64)
    means = np.stack([flat[train.labels == label].mean(0) for label in range(10)])
    pixels = test.images.reshape(400, -1).astype(np.float64)
    nearest = ((pixels[:, None] - means[None]) ** 2).sum(-1).argmin(1)
    assert (nearest == test.labels).mean() > 0.6


def test_info():
    info = FashionTinyConfig().info()
    assert (info.size, info.channels, info.num_classes, info.license) == (28, 1, 10, "MIT")
    assert info.class_names is not None
    assert info.class_names[8] == "Bag"

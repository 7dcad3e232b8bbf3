"""DeviceLoader: each image once an epoch, any batch at any time, the same for any world size."""

import time

import numpy as np
import pytest
import torch
from errors_help import raises
from hypothesis import given, settings
from hypothesis import strategies as st

from cascadezoo.data.base import ImageData
from cascadezoo.data.loader import DeviceLoader, iterate, to_floats
from cascadezoo.data.pixels import to_uint8
from cascadezoo.errors import DataError


def numbered(count, channels=3, size=4, labels=True):
    """Images with their number in the first two pixels, which are not symmetric."""
    images = np.zeros((count, channels, size, size), np.uint8)
    images[:, 0, 0, 0] = np.arange(count) % 256
    images[:, 0, 0, 1] = np.arange(count) // 256
    images[:, :, 1:, 0] = 255
    return ImageData(images, np.arange(count, dtype=np.int64) if labels else None, "train")


def unmirrored(bytes_):
    """The images turned back, and which of them were mirrored."""
    mirrored = bytes_[:, 0, 1, 0] == 0
    return torch.where(mirrored[:, None, None, None], bytes_.flip(3), bytes_), mirrored


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 300),
    batch_size=st.integers(1, 70),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 5),
    flip=st.booleans(),
)
def test_an_epoch_shows_each_image_once(count, batch_size, seed, epoch, flip):
    data = numbered(count)
    loader = DeviceLoader(data, batch_size=batch_size, seed=seed, flip=flip)
    seen = []
    for index in range(loader.steps_per_epoch):
        images, labels = loader.batch(epoch, index)
        assert images.shape == (batch_size, 3, 4, 4)
        assert images.dtype == torch.float32
        assert labels.dtype == torch.int64
        back, mirrored = unmirrored(to_uint8(images))
        assert torch.equal(back, torch.from_numpy(data.images)[labels])
        assert flip or not mirrored.any()
        seen += labels.tolist()
    if count >= batch_size:
        assert len(seen) == len(set(seen)) == count // batch_size * batch_size
    else:  # goes round: no image is seen twice more often than another
        counts = np.bincount(seen, minlength=count)
        assert counts.max() - counts.min() <= 1


@settings(max_examples=25, deadline=None)
@given(
    world=st.sampled_from([2, 3, 4]),
    share=st.integers(1, 9),
    count=st.integers(1, 200),
    flip=st.booleans(),
)
def test_processes_share_one_batch(world, share, count, flip):
    data = numbered(count)
    keys = {"batch_size": world * share, "seed": 5, "flip": flip}
    one = DeviceLoader(data, **keys)
    ranks = [DeviceLoader(data, **keys, rank=rank, world=world) for rank in range(world)]
    for index in range(one.steps_per_epoch):
        images, labels = one.batch(2, index)
        parts = [loader.batch(2, index) for loader in ranks]
        assert torch.equal(torch.cat([part[0] for part in parts]), images)
        assert torch.equal(torch.cat([part[1] for part in parts]), labels)


def test_any_batch_at_any_time():
    """A resumed run gets the same batches as an uninterrupted one."""
    data = numbered(100)
    keys = {"batch_size": 8, "seed": 1, "flip": True}
    whole = DeviceLoader(data, **keys)
    stream = {(e, i): whole.batch(e, i) for e in range(3) for i in range(whole.steps_per_epoch)}
    for place in [(2, 7), (0, 3), (2, 8), (1, 0), (0, 0)]:
        images, labels = DeviceLoader(data, **keys).batch(*place)
        assert torch.equal(images, stream[place][0])
        assert torch.equal(labels, stream[place][1])
        images, _ = whole.batch(*place)
        assert torch.equal(images, stream[place][0])


def test_epochs_and_seeds_differ_and_flips_are_even():
    data = numbered(4000)
    orders, turns = set(), set()
    for seed, epoch in [(0, 0), (0, 1), (1, 0)]:
        loader = DeviceLoader(data, batch_size=4000, seed=seed, flip=True)
        images, labels = loader.batch(epoch, 0)
        orders.add(tuple(labels.tolist()))
        mirrored = unmirrored(to_uint8(images))[1]
        turns.add(tuple(mirrored.tolist()))
        share = mirrored.float().mean()
        assert abs(share - 0.5) < 4 * 0.5 / 4000**0.5
    assert len(orders) == len(turns) == 3


def test_order_is_fair():
    """Every image comes at every place: mean place of each over many epochs is the middle."""
    data = numbered(16)
    loader = DeviceLoader(data, batch_size=16, seed=0)
    places = np.stack([np.argsort(loader.batch(e, 0)[1].numpy()) for e in range(400)])
    assert np.abs(places.mean(0) - 7.5).max() < 4 * 4.61 / 400**0.5


def test_values():
    every = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    images, labels = DeviceLoader(ImageData(every, None, "train"), batch_size=1, seed=0).batch(0, 0)
    assert labels is None
    exact = torch.arange(256, dtype=torch.float64).reshape(1, 1, 16, 16) / 127.5 - 1
    assert (images.double() - exact).abs().max() < 1e-7
    assert images.min().item() == -1.0
    assert images.max().item() == 1.0
    assert torch.equal(to_uint8(images), torch.from_numpy(every))
    outside = torch.tensor([-9.0, -1.004, 1.004, 9.0]).view(1, 1, 2, 2)
    assert to_uint8(outside).flatten().tolist() == [0, 0, 255, 255]


def test_channels_last():
    data = numbered(16, size=8)
    plain = DeviceLoader(data, batch_size=8, seed=3, flip=True).batch(0, 1)[0]
    last = DeviceLoader(data, batch_size=8, seed=3, flip=True, channels_last=True).batch(0, 1)[0]
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert plain.is_contiguous()
    assert torch.equal(plain, last)


def test_the_data_are_not_modified():
    data = numbered(16)
    before = data.images.copy()
    DeviceLoader(data, batch_size=4, seed=0, flip=True).batch(0, 0)[0].fill_(0)
    for images, _ in iterate(data, 4):
        images.fill_(0)
    assert (data.images == before).all()


def test_arrays_that_are_views():
    """Read-only and mirrored arrays, which torch does not accept."""
    data = numbered(10)
    view = data.images[::-1, :, :, ::-1]
    view.flags.writeable = False
    loader = DeviceLoader(ImageData(view, data.labels, "train"), batch_size=10, seed=0)
    images, rows = loader.batch(0, 0)
    assert (to_uint8(images).numpy() == view[rows.numpy()]).all()


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
def test_iterate_goes_through_in_order(scaled, channels_last):
    data = numbered(23)
    parts = list(iterate(data, 8, scaled=scaled, channels_last=channels_last))
    assert [len(images) for images, _ in parts] == [8, 8, 7]
    images = torch.cat([images for images, _ in parts])
    assert images.dtype == (torch.float32 if scaled else torch.uint8)
    assert torch.equal(to_uint8(images) if scaled else images, torch.from_numpy(data.images))
    assert torch.cat([labels for _, labels in parts]).tolist() == list(range(23))
    assert [labels for _, labels in iterate(numbered(3, labels=False), 2)] == [None, None]
    with pytest.raises(ValueError, match="batch_size"):
        next(iterate(data, 0))


@pytest.mark.parametrize(("batch_size", "world"), [(10, 4), (0, 1), (3, 0)])
def test_batches_that_processes_cannot_split_are_rejected(batch_size, world):
    with raises(DataError, "data-batch-uneven", batch_size=batch_size):
        DeviceLoader(numbered(20), batch_size=batch_size, seed=0, world=world)


def test_missing_batches_and_ranks_are_rejected():
    loader = DeviceLoader(numbered(20), batch_size=8, seed=0)
    assert loader.steps_per_epoch == 2
    for place in [(0, 2), (0, -1), (-1, 0)]:
        with pytest.raises(IndexError):
            loader.batch(*place)
    with pytest.raises(ValueError, match="rank 2"):
        DeviceLoader(numbered(20), batch_size=8, seed=0, rank=2, world=2)


def test_shapes_on_the_meta_device_stay_in_host_memory_when_over_budget():
    """On other devices the budget decides; the meta device replaces a missing one."""
    data = numbered(20)
    near = DeviceLoader(data, batch_size=4, seed=0, device="meta")
    far = DeviceLoader(
        data, batch_size=4, seed=0, device="meta", budget_bytes=data.images.nbytes - 1
    )
    assert near._images.is_meta
    assert not far._images.is_meta
    for loader in (near, far):
        images, labels = loader.batch(0, 0)
        assert images.device.type == labels.device.type == "meta"
        assert images.shape == (4, 3, 4, 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("budget", [None, 0])
def test_a_gpu_gets_the_same_batches_without_waiting(budget):
    data = numbered(100, size=8)
    keys = {"batch_size": 16, "seed": 9, "flip": True}
    host = DeviceLoader(data, **keys)
    loader = DeviceLoader(data, **keys, device="cuda", budget_bytes=budget)
    assert loader._images.is_cuda is (budget is None)
    loader.batch(0, 0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches = [loader.batch(e, i) for e in range(2) for i in range(loader.steps_per_epoch)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    wanted = [host.batch(e, i) for e in range(2) for i in range(host.steps_per_epoch)]
    for (images, labels), (images_, labels_) in zip(batches, wanted, strict=True):
        assert torch.equal(images.cpu(), images_)
        assert torch.equal(labels.cpu(), labels_)


def test_a_batch_costs_little():
    """128 images of 3x32x32: under 1 ms on a quiet core; the bound is loose for a busy one."""
    data = ImageData(np.zeros((2000, 3, 32, 32), np.uint8), np.zeros(2000, np.int64), "train")
    loader = DeviceLoader(data, batch_size=128, seed=0, flip=True)
    loader.batch(0, 0)
    start = time.process_time()
    for _ in range(50):
        loader.batch(0, 3)
    assert (time.process_time() - start) / 50 < 0.01


def test_to_floats_makes_new_memory():
    source = torch.arange(6, dtype=torch.uint8)
    to_floats(source).zero_()
    assert source.tolist() == list(range(6))

"""The entries of the built-in datasets. Free of torch and numpy."""

from __future__ import annotations

from cascadezoo.plugins.registry import DataEntry

__all__ = ["ENTRIES"]

ENTRIES = (
    DataEntry(
        name="shapes",
        summary="procedural shapes on plain backgrounds, any size, no download",
        config="cascadezoo.data.shapes:ShapesConfig",
        impl="cascadezoo.data.shapes:load",
    ),
    DataEntry(
        name="fashion-tiny",
        summary="2,000 real Fashion-MNIST images that ship with the package",
        config="cascadezoo.data.fashion_tiny:FashionTinyConfig",
        impl="cascadezoo.data.fashion_tiny:load",
    ),
    DataEntry(
        name="cifar10",
        summary="CIFAR-10 through torchvision",
        config="cascadezoo.data.torchvision_sets:Cifar10Config",
        impl="cascadezoo.data.torchvision_sets:load",
    ),
    DataEntry(
        name="mnist",
        summary="MNIST through torchvision",
        config="cascadezoo.data.torchvision_sets:MnistConfig",
        impl="cascadezoo.data.torchvision_sets:load",
    ),
    DataEntry(
        name="fashion-mnist",
        summary="Fashion-MNIST through torchvision",
        config="cascadezoo.data.torchvision_sets:FashionMnistConfig",
        impl="cascadezoo.data.torchvision_sets:load",
    ),
    DataEntry(
        name="npz",
        summary="uint8 arrays in an .npz file",
        config="cascadezoo.data.npz:NpzConfig",
        impl="cascadezoo.data.npz:load",
    ),
    DataEntry(
        name="folder",
        summary="image files in a folder, optionally with one subfolder per class",
        config="cascadezoo.data.folder:FolderConfig",
        impl="cascadezoo.data.folder:load",
        source="cascadezoo.data.folder:open_source",
    ),
    DataEntry(
        name="webdataset",
        summary="images in tar files, the shards of a WebDataset",
        config="cascadezoo.data.webdataset:WebDatasetConfig",
        impl="cascadezoo.data.webdataset:load",
        source="cascadezoo.data.webdataset:open_source",
    ),
    DataEntry(
        name="huggingface",
        summary="a dataset of the library datasets: from the Hub, saved, or as a stream",
        config="cascadezoo.data.huggingface:HuggingFaceConfig",
        impl="cascadezoo.data.huggingface:load",
        source="cascadezoo.data.huggingface:open_source",
    ),
    DataEntry(
        name="python",
        summary="images passed to build_cascade(spec, data=...); no file contains them",
        config="cascadezoo.data.python_config:PythonConfig",
        impl="cascadezoo.data.python_config:load",
        source="cascadezoo.data.python_config:open_source",
    ),
)

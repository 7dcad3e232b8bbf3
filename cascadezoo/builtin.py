"""What cascadezoo itself registers, through the same entry-point group as any plugin."""

from __future__ import annotations

from collections.abc import Iterable

from cascadezoo.hookspecs import hookimpl
from cascadezoo.registry import (
    DataEntry,
    FeatureEntry,
    LossEntry,
    MetricEntry,
    StageEntry,
    ZooEntry,
)


@hookimpl
def register_stages() -> Iterable[StageEntry]:
    """The built-in stage kinds."""
    return [
        StageEntry(
            name="flow.v1",
            role="generator",
            summary="rectified flow on a class-conditional U-Net",
            config="cascadezoo.stages.flow.config:FlowConfig",
            impl="cascadezoo.stages.flow.stage:FlowGenerator",
        ),
        StageEntry(
            name="diffusion.v1",
            role="generator",
            summary="shallow wide diffusion model of the cascade study, DDPM and DDIM sampling",
            config="cascadezoo.stages.diffusion.config:DiffusionConfig",
            impl="cascadezoo.stages.diffusion.stage:DiffusionGenerator",
        ),
        StageEntry(
            name="unet-diffusion.v1",
            role="generator",
            summary="denoising diffusion on a U-Net: DDPM, DDIM, DPM-Solver++, Heun; guidance",
            config="cascadezoo.stages.unet_diffusion.config:UNetDiffusionConfig",
            impl="cascadezoo.stages.unet_diffusion.stage:UNetDiffusionGenerator",
        ),
        StageEntry(
            name="diffusion-sr.v1",
            role="upsampler",
            summary="super-resolution diffusion with conditioning augmentation (CDM)",
            config="cascadezoo.stages.diffusion_sr.config:DiffusionSRConfig",
            impl="cascadezoo.stages.diffusion_sr.stage:DiffusionUpsampler",
        ),
        StageEntry(
            name="flow-sr.v1",
            role="upsampler",
            summary="super-resolution by rectified flow with conditioning augmentation",
            config="cascadezoo.stages.flow_sr.config:FlowSRConfig",
            impl="cascadezoo.stages.flow_sr.stage:FlowUpsampler",
        ),
        StageEntry(
            name="autoencoder.v1",
            role="decoder",
            summary="variational autoencoder: its latents are what the generator draws",
            config="cascadezoo.stages.autoencoder.config:AutoencoderConfig",
            impl="cascadezoo.stages.autoencoder.stage:Autoencoder",
        ),
        StageEntry(
            name="autoencoder-kl.v1",
            role="decoder",
            summary="a pretrained AutoencoderKL of diffusers, frozen",
            config="cascadezoo.stages.autoencoder_kl.config:AutoencoderKLConfig",
            impl="cascadezoo.stages.autoencoder_kl.stage:AutoencoderKL",
        ),
        StageEntry(
            name="pixelshuffle.v1",
            role="upsampler",
            summary="residual blocks and sub-pixel convolution over an interpolation",
            config="cascadezoo.stages.pixelshuffle.config:PixelShuffleConfig",
            impl="cascadezoo.stages.pixelshuffle.stage:PixelShuffleUpsampler",
        ),
        StageEntry(
            name="vit.v1",
            role="refiner",
            summary="transformer blocks on patches, residual output",
            config="cascadezoo.stages.vit.config:ViTConfig",
            impl="cascadezoo.stages.vit.stage:ViTRefiner",
        ),
    ]


@hookimpl
def register_datasets() -> Iterable[DataEntry]:
    """The built-in datasets."""
    return [
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
            summary="image files in a folder, one subfolder a class if there are any",
            config="cascadezoo.data.folder:FolderConfig",
            impl="cascadezoo.data.folder:load",
        ),
    ]


@hookimpl
def register_losses() -> Iterable[LossEntry]:
    """The built-in extra losses."""
    return [
        LossEntry(
            name="lpips",
            summary="learned perceptual distance (Zhang et al. 2018) on VGG, AlexNet or SqueezeNet",
            config="cascadezoo.train.losses:LpipsConfig",
            impl="cascadezoo.train.lpips:LpipsLoss",
        ),
    ]


@hookimpl
def register_metrics() -> Iterable[MetricEntry]:
    """The built-in metrics."""
    return [
        MetricEntry(
            name="kid",
            summary="Kernel Inception Distance (Binkowski et al. 2018), mean and spread",
            impl="cascadezoo.evaluate.kid:measure",
        ),
    ]


@hookimpl
def register_features() -> Iterable[FeatureEntry]:
    """The built-in feature extractors."""
    return [
        FeatureEntry(
            name="inception",
            summary="the FID Inception network (2015-12-05), 2048 features at 299x299",
            impl="cascadezoo.evaluate.inception:load",
        ),
        FeatureEntry(
            name="small",
            summary="small network that ships with the package, for offline and in-loop use",
            impl="cascadezoo.evaluate.small:load",
        ),
    ]


@hookimpl
def register_zoos() -> Iterable[ZooEntry]:
    """The zoo that ships with the package."""
    return [
        ZooEntry(
            name="cascadezoo",
            summary="zoo_manifest.json: the models of the cascadezoo project",
            impl="cascadezoo.hub.manifest:load",
        ),
    ]

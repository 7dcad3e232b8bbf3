"""What cascadezoo itself registers, through the same entry-point group as any plugin."""

from __future__ import annotations

from collections.abc import Iterable

from cascadezoo.plugins.hookspecs import hookimpl
from cascadezoo.plugins.registry import (
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
            name="dae.v1",
            role="generator",
            summary="denoising autoencoder, sampled by reconstructing and corrupting in turn",
            config="cascadezoo.stages.dae.config:DAEConfig",
            impl="cascadezoo.stages.dae.stage:DenoisingAutoencoder",
        ),
        StageEntry(
            name="resnet.v1",
            role="generator",
            summary="residual network from a noise image in one pass, without adversary (IMLE)",
            config="cascadezoo.stages.resnet.config:ResNetConfig",
            impl="cascadezoo.stages.resnet.stage:ResNetGenerator",
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
            name="flow-sr.v2",
            role="upsampler",
            summary="super-resolution by rectified flow of the scaled residual",
            config="cascadezoo.stages.flow_sr.config:FlowResidualSRConfig",
            impl="cascadezoo.stages.flow_sr.stage:FlowResidualUpsampler",
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
            name="resnet-upsampler.v1",
            role="upsampler",
            summary="residual blocks and resize convolutions over an interpolation",
            config="cascadezoo.stages.resnet_upsampler.config:ResNetUpsamplerConfig",
            impl="cascadezoo.stages.resnet_upsampler.stage:ResNetUpsampler",
        ),
        StageEntry(
            name="transposed.v1",
            role="upsampler",
            summary="transposed convolutions, the baseline with checkerboards",
            config="cascadezoo.stages.transposed.config:TransposedConfig",
            impl="cascadezoo.stages.transposed.stage:TransposedUpsampler",
        ),
        StageEntry(
            name="interpolate.v1",
            role="upsampler",
            summary="bicubic, bilinear or nearest interpolation, no parameters",
            config="cascadezoo.stages.interpolate.config:InterpolateConfig",
            impl="cascadezoo.stages.interpolate.stage:Interpolation",
        ),
        StageEntry(
            name="vit.v1",
            role="refiner",
            summary="transformer blocks on patches, residual output",
            config="cascadezoo.stages.vit.config:ViTConfig",
            impl="cascadezoo.stages.vit.stage:ViTRefiner",
        ),
        StageEntry(
            name="conv-refiner.v1",
            role="refiner",
            summary="plain convolutions, residual output",
            config="cascadezoo.stages.conv_refiner.config:ConvRefinerConfig",
            impl="cascadezoo.stages.conv_refiner.stage:ConvRefiner",
        ),
        StageEntry(
            name="resnet-refiner.v1",
            role="refiner",
            summary="residual blocks with normalisation, residual output",
            config="cascadezoo.stages.resnet_refiner.config:ResNetRefinerConfig",
            impl="cascadezoo.stages.resnet_refiner.stage:ResNetRefiner",
        ),
        StageEntry(
            name="identity.v1",
            role="refiner",
            summary="the upstream image as it is, no parameters",
            config="cascadezoo.stages.identity.config:IdentityConfig",
            impl="cascadezoo.stages.identity.stage:Identity",
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
            config="cascadezoo.train.loss_configs:LpipsConfig",
            impl="cascadezoo.train.lpips_loss:LpipsLoss",
        ),
    ]


@hookimpl
def register_metrics() -> Iterable[MetricEntry]:
    """The built-in metrics."""
    return [
        MetricEntry(
            name="kid",
            title="Kernel Inception Distance",
            summary="Kernel Inception Distance (Binkowski et al. 2018), mean and spread",
            impl="cascadezoo.evaluate.metrics.kid:measure",
            better="lower",
            scale=1000.0,
        ),
        MetricEntry(
            name="fid",
            title="Frechet Inception Distance",
            summary="Frechet Inception Distance (Heusel et al. 2017) to all images of the split",
            impl="cascadezoo.evaluate.metrics.fid:measure",
            real="all",
            better="lower",
        ),
        MetricEntry(
            name="inception-score",
            title="Inception Score",
            summary="Inception Score (Salimans et al. 2016), for extractors that classify",
            impl="cascadezoo.evaluate.metrics.inception_score:measure",
            needs_data=False,
            better="higher",
        ),
        MetricEntry(
            name="precision",
            title="Precision",
            summary="improved precision (Kynkaanniemi et al. 2019): samples that look real",
            impl="cascadezoo.evaluate.metrics.precision_recall:measure_precision",
            better="higher",
        ),
        MetricEntry(
            name="recall",
            title="Recall",
            summary="improved recall (Kynkaanniemi et al. 2019): real images that it could make",
            impl="cascadezoo.evaluate.metrics.precision_recall:measure_recall",
            better="higher",
        ),
        MetricEntry(
            name="lpips",
            title="LPIPS to the real image",
            summary="perceptual distance of real images made small and enlarged by the cascade",
            config="cascadezoo.evaluate.configs:LpipsMetricConfig",
            impl="cascadezoo.evaluate.metrics.reconstruction:measure_lpips",
            takes="cascade",
            better="lower",
        ),
        MetricEntry(
            name="psnr",
            title="PSNR on real images",
            summary="peak signal-to-noise ratio of each upsampler and refiner on real images",
            impl="cascadezoo.evaluate.metrics.reconstruction:measure_psnr",
            takes="cascade",
            better="higher",
        ),
        MetricEntry(
            name="ssim",
            title="SSIM on real images",
            summary="structural similarity of each upsampler and refiner on real images",
            impl="cascadezoo.evaluate.metrics.reconstruction:measure_ssim",
            takes="cascade",
            better="higher",
        ),
        MetricEntry(
            name="cas",
            title="Classification Accuracy Score",
            summary="accuracy on real images of a classifier trained on samples (Ravuri 2019)",
            config="cascadezoo.evaluate.configs:ClassifierMetricConfig",
            impl="cascadezoo.evaluate.metrics.classifier_scores:measure_cas",
            takes="cascade",
            better="higher",
        ),
        MetricEntry(
            name="label-agreement",
            title="Label agreement",
            summary="share of samples that a classifier of real images takes for their label",
            config="cascadezoo.evaluate.configs:ClassifierMetricConfig",
            impl="cascadezoo.evaluate.metrics.classifier_scores:measure_agreement",
            takes="cascade",
            better="higher",
        ),
        MetricEntry(
            name="diversity",
            title="Diversity",
            summary="mean LPIPS between samples",
            config="cascadezoo.evaluate.configs:LpipsMetricConfig",
            impl="cascadezoo.evaluate.metrics.diversity:measure",
            takes="cascade",
            needs_data=False,
        ),
        MetricEntry(
            name="memorisation",
            title="Nearer to training than to test images",
            summary="whether samples lie nearer to training images than real test images do",
            impl="cascadezoo.evaluate.metrics.memorisation:measure",
            takes="cascade",
        ),
    ]


@hookimpl
def register_features() -> Iterable[FeatureEntry]:
    """The built-in feature extractors."""
    return [
        FeatureEntry(
            name="inception",
            summary="the FID Inception network (2015-12-05), 2048 features at 299x299",
            impl="cascadezoo.evaluate.features.inception:load",
        ),
        FeatureEntry(
            name="timm",
            summary="any network of timm by its name, as timm:resnet18.a1_in1k",
            config="cascadezoo.evaluate.configs:TimmConfig",
            impl="cascadezoo.evaluate.features.timm_networks:load",
        ),
        FeatureEntry(
            name="small",
            summary="small network that ships with the package, for offline and in-loop use",
            impl="cascadezoo.evaluate.features.small:load",
        ),
    ]


@hookimpl
def register_zoos() -> Iterable[ZooEntry]:
    """The zoo that ships with the package."""
    return [
        ZooEntry(
            name="cascadezoo",
            summary="zoo_manifest.json: the models of the cascadezoo project",
            impl="cascadezoo.zoo.manifest:load",
            folder="cascadezoo/zoo/models",
        ),
    ]

"""The configs of built-in metrics and feature extractors. Does not import torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cascadezoo.spec.configs import ConfigError, MeasurementPlan, MetricConfig, Model

__all__ = [
    "ClassifierMetricConfig",
    "DiversityConfig",
    "FidConfig",
    "InceptionConfig",
    "InceptionScoreConfig",
    "KidConfig",
    "LpipsMetricConfig",
    "LpipsNetConfig",
    "MemorisationConfig",
    "NeighboursConfig",
    "PsnrConfig",
    "ReconstructionConfig",
    "ResNetScoreConfig",
    "SmallConfig",
    "SsimConfig",
    "TimmConfig",
]

INCEPTION_SPLITS = 10
"""Number of parts that the images are split into, as in Salimans et al. 2016."""

NEIGHBOURS = 3
"""The ball around a vector reaches to this neighbour, as in Kynkaanniemi et al. 2019."""

MIN_SSIM_SIZE = 11
MIN_VGG_SIZE = 16


class KidConfig(MetricConfig):
    """Kernel Inception Distance."""

    def check(self, plan: MeasurementPlan) -> None:
        """Refuse subsets that are larger than the number of images."""
        for which, count in (("sampled", plan.n), ("real", plan.real)):
            if count is not None and count < plan.subset_size:
                raise ConfigError(
                    "subset_size",
                    f"kid in subsets of {plan.subset_size} cannot be measured on {count} {which} "
                    f"images: set subset_size to at most {count}",
                    code="too-few-images",
                )


class FidConfig(MetricConfig):
    """Frechet Inception Distance."""

    def check(self, plan: MeasurementPlan) -> None:
        """Refuse numbers of images for which a covariance is singular."""
        if plan.num_features is None:
            return
        needed = plan.num_features + 1
        for which, count in (("sampled", plan.n), ("real", plan.real)):
            if count is not None and count < needed:
                sampled = which == "sampled"
                change = f"set samples to at least {needed}" if sampled else "leave it out"
                raise ConfigError(
                    "samples" if sampled else "metrics",
                    f"fid on {plan.num_features} features needs at least {needed} {which} images, "
                    f"not {count}: {change}, or measure kid, which is unbiased for any number",
                    code="too-few-images",
                )


class InceptionScoreConfig(MetricConfig):
    """Inception Score."""

    preparation: ClassVar[str] = "cascadezoo.evaluate.metrics.inception_score:prepare"

    def check(self, plan: MeasurementPlan) -> None:
        """Refuse fewer than two images for each split."""
        if plan.n < 2 * INCEPTION_SPLITS:
            raise ConfigError(
                "samples",
                f"inception-score over {INCEPTION_SPLITS} splits needs at least "
                f"{2 * INCEPTION_SPLITS} images, not {plan.n}",
                code="too-few-images",
            )


class NeighboursConfig(MetricConfig):
    """Improved precision and recall."""

    def check(self, plan: MeasurementPlan) -> None:
        """Refuse fewer images than neighbours."""
        for which, count in (("sampled", plan.n), ("real", plan.real)):
            if count is not None and count <= NEIGHBOURS:
                raise ConfigError(
                    "metrics",
                    f"precision and recall with {NEIGHBOURS} neighbours need at least "
                    f"{NEIGHBOURS + 1} {which} images, not {count}",
                    code="too-few-images",
                )


def _require_test(plan: MeasurementPlan, metric: str) -> None:
    if plan.test == 0:
        raise ConfigError(
            "metrics",
            f"{metric} needs test images, and the dataset has none: leave {metric} out, or set "
            "data.config.holdout if the dataset has it",
            code="no-test-images",
        )


class MemorisationConfig(MetricConfig):
    """The data-copying test."""

    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    def check(self, plan: MeasurementPlan) -> None:
        """Refuse a dataset without test images."""
        _require_test(plan, "memorisation")


class ReconstructionConfig(MetricConfig):
    """A metric of the stages after the generator on real images."""

    def check(self, plan: MeasurementPlan) -> None:
        """Refuse a cascade of a generator alone."""
        if plan.stages < 2:
            raise ConfigError(
                "metrics",
                "lpips, psnr and ssim measure the stages after the generator, but there are none",
                code="generator-alone",
            )


class PsnrConfig(ReconstructionConfig):
    """Peak signal-to-noise ratio."""


class SsimConfig(ReconstructionConfig):
    """Structural similarity."""

    def check(self, plan: MeasurementPlan) -> None:
        """Refuse images that are smaller than the window, too."""
        super().check(plan)
        if plan.size < MIN_SSIM_SIZE:
            raise ConfigError(
                "metrics",
                f"ssim needs images of at least {MIN_SSIM_SIZE}x{MIN_SSIM_SIZE} pixels, not "
                f"{plan.size}x{plan.size}: measure psnr instead",
                code="images-too-small",
            )


class LpipsNetConfig(MetricConfig):
    """Learned Perceptual Image Patch Similarity, version 0.1 (Zhang et al. 2018)."""

    preparation: ClassVar[str] = "cascadezoo.evaluate.metrics.lpips_distance:prepare"

    argument: ClassVar[str] = "net"
    """The field that the part of a name after the colon sets: ``lpips:alex``."""

    net: Literal["vgg", "alex", "squeeze"] = "vgg"
    """The backbone; its ImageNet weights come through torchvision (TORCH_HOME)."""

    def check(self, plan: MeasurementPlan) -> None:
        """Refuse images that are too small for the backbone."""
        if self.net == "vgg" and plan.size < MIN_VGG_SIZE:
            raise ConfigError(
                "metrics",
                f"LPIPS with vgg needs images of at least {MIN_VGG_SIZE}x{MIN_VGG_SIZE} pixels, "
                f"not {plan.size}x{plan.size}",
                code="images-too-small",
            )


class LpipsMetricConfig(LpipsNetConfig, ReconstructionConfig):
    """LPIPS between real images and their reconstruction."""

    def check(self, plan: MeasurementPlan) -> None:
        """Refuse a generator alone, and images that are too small."""
        ReconstructionConfig.check(self, plan)
        LpipsNetConfig.check(self, plan)


class DiversityConfig(LpipsNetConfig):
    """LPIPS between samples."""

    def check(self, plan: MeasurementPlan) -> None:
        """Refuse a single image, and images that are too small."""
        if plan.n < 2:
            raise ConfigError(
                "samples", f"diversity needs at least 2 images, not {plan.n}", code="too-few-images"
            )
        super().check(plan)


class ClassifierMetricConfig(MetricConfig):
    """The classifier that the metric trains."""

    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 14
    """Number of epochs; more if the training images are few."""

    real_images: Annotated[int, Field(ge=1, le=2**31 - 1)] = 10_000
    """Maximum number of real images to train the classifier of label agreement. CAS uses as many
    as there are samples."""

    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """Seed of its weights, data order and augmentation."""

    def check(self, plan: MeasurementPlan) -> None:
        """Refuse data without labels or test images."""
        if plan.num_classes is None:
            raise ConfigError(
                "metrics",
                "cas and label-agreement need labels, but data.num_classes is 0",
                code="needs-labels",
            )
        _require_test(plan, "the metric")


class ResNetScoreConfig(MetricConfig):
    """The ResNet-50 that CAS trains by torchvision's recipe."""

    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    argument: ClassVar[str] = "epochs"
    """The field that the part of a name after the colon sets: ``cas-resnet50:30``."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 90
    """Number of epochs; the rate falls to a tenth after each third of them."""

    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """Seed of its weights, data order and augmentation."""

    def check(self, plan: MeasurementPlan) -> None:
        """Refuse data without labels or test images, and a single image."""
        if plan.num_classes is None:
            raise ConfigError(
                "metrics",
                "cas-resnet50 needs labels, but data.num_classes is 0",
                code="needs-labels",
            )
        if plan.n < 2:
            raise ConfigError(
                "samples",
                f"cas-resnet50 needs at least 2 images, not {plan.n}",
                code="too-few-images",
            )
        _require_test(plan, "cas-resnet50")


class InceptionConfig(Model):
    """The FID Inception network; no settings."""

    num_features: ClassVar[int] = 2048
    """The length of a vector, known before the network is loaded."""


class SmallConfig(Model):
    """The small network that ships with the package; no settings."""

    num_features: ClassVar[int] = 256
    """The length of a vector, known before the network is loaded."""


class TimmConfig(Model):
    """A network of timm."""

    argument: ClassVar[str] = "model"
    """The field that the part of a name after the colon sets: ``timm:resnet18.a1_in1k``."""

    model: Annotated[str, Field(min_length=1, max_length=100)]
    """Name of the network in timm, with the tag of its weights."""

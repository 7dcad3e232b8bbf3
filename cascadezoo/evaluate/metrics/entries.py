"""The entries of the built-in metrics. Does not import torch or numpy."""

from __future__ import annotations

from cascadezoo.plugins.registry import MetricEntry

__all__ = ["ENTRIES"]

ENTRIES = (
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
        summary="improved precision (Kynkaanniemi et al. 2019): share of samples that look real",
        impl="cascadezoo.evaluate.metrics.precision_recall:measure_precision",
        better="higher",
    ),
    MetricEntry(
        name="recall",
        title="Recall",
        summary="improved recall (Kynkaanniemi et al. 2019): share of real images it covers",
        impl="cascadezoo.evaluate.metrics.precision_recall:measure_recall",
        better="higher",
    ),
    MetricEntry(
        name="lpips",
        title="LPIPS to the real image",
        summary="perceptual distance of real images, shrunk and enlarged again by the cascade",
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
        summary="share of samples whose label a classifier of real images predicts",
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
        summary="whether samples are nearer to training images than real test images are",
        impl="cascadezoo.evaluate.metrics.memorisation:measure",
        takes="cascade",
    ),
)

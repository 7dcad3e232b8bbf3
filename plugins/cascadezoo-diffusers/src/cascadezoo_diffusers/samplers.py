"""The samplers by name and their schedulers of diffusers. Free of torch and diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

__all__ = ["SAMPLERS", "Sampler", "SamplerName", "sampler_of"]

SamplerName = Literal[
    "ddpm",
    "ddim",
    "pndm",
    "dpmpp-2m",
    "dpmpp-3m",
    "dpmpp-2m-sde",
    "dpmpp-2s",
    "heun",
    "euler",
    "euler-ancestral",
    "kdpm2",
    "kdpm2-ancestral",
    "unipc",
    "deis",
]

_ALL = frozenset({"epsilon", "v_prediction", "sample"})
_NOT_SAMPLE = _ALL - {"sample"}


@dataclass(frozen=True, slots=True)
class Sampler:
    """A scheduler of diffusers and its capabilities.

    Args:
        scheduler: the name of its class.
        settings: the arguments of this sampler.
        predictions: the supported prediction types.
        zero_snr: whether it supports schedules with zero terminal SNR.
        least: the minimum number of steps.
        spare: the maximum number of steps is this much lower than the number of timesteps. Some
            samplers otherwise divide by the difference of two equal noise levels.
        default_steps: the default number of steps; None uses all timesteps.
        spacing: the spacing of timesteps if ``scheduler_config.json`` does not define it.
    """

    scheduler: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    predictions: frozenset[str] = _ALL
    zero_snr: bool = False
    least: int = 1
    spare: int = 0
    default_steps: int | None = 50
    spacing: str = "linspace"

    def most(self, timesteps: int) -> int:
        """The maximum number of steps for this number of timesteps."""
        return max(timesteps - self.spare, self.least)

    def steps(self, timesteps: int) -> int:
        """The default number of steps for this number of timesteps."""
        steps = self.default_steps or timesteps
        return max(min(steps, self.most(timesteps)), self.least)

    def unsupported(self, prediction: str, zero_snr: bool) -> str | None:
        """The reason why it cannot sample from a model; None if it can."""
        if prediction not in self.predictions:
            supported = " or ".join(sorted(self.predictions))
            return f"needs models that predict {supported}, but this model predicts {prediction}"
        if zero_snr and not self.zero_snr:
            return "does not support zero terminal SNR, with which this model was trained"
        return None


def _multistep(**settings: Any) -> Sampler:
    return Sampler("DPMSolverMultistepScheduler", settings, zero_snr=True, spare=1)


SAMPLERS: dict[str, Sampler] = {
    "ddpm": Sampler("DDPMScheduler", zero_snr=True, default_steps=None, spacing="leading"),
    "ddim": Sampler("DDIMScheduler", zero_snr=True, spacing="leading"),
    "pndm": Sampler("PNDMScheduler", predictions=_NOT_SAMPLE, least=4, spacing="leading"),
    "dpmpp-2m": _multistep(algorithm_type="dpmsolver++", solver_order=2),
    "dpmpp-3m": _multistep(algorithm_type="dpmsolver++", solver_order=3),
    "dpmpp-2m-sde": _multistep(algorithm_type="sde-dpmsolver++", solver_order=2),
    "dpmpp-2s": Sampler(
        "DPMSolverSinglestepScheduler",
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "lower_order_final": True},
        spare=1,
    ),
    "heun": Sampler("HeunDiscreteScheduler"),
    "euler": Sampler("EulerDiscreteScheduler", zero_snr=True),
    "euler-ancestral": Sampler(
        "EulerAncestralDiscreteScheduler", predictions=_NOT_SAMPLE, zero_snr=True
    ),
    "kdpm2": Sampler("KDPM2DiscreteScheduler", predictions=_NOT_SAMPLE),
    "kdpm2-ancestral": Sampler("KDPM2AncestralDiscreteScheduler", predictions=_NOT_SAMPLE, least=3),
    "unipc": Sampler("UniPCMultistepScheduler", {"solver_order": 2}, zero_snr=True, spare=1),
    "deis": Sampler(
        "DEISMultistepScheduler", {"algorithm_type": "deis", "solver_order": 2}, spare=1
    ),
}


def sampler_of(raw: Mapping[str, Any]) -> str | None:
    """The sampler of a ``scheduler_config.json``; None if it is not supported.

    Settings that are missing in the file are assumed to be those of the sampler.
    """
    for name in get_args(SamplerName):
        sampler = SAMPLERS[name]
        if raw.get("_class_name") != sampler.scheduler:
            continue
        settings = {key: value for key, value in sampler.settings.items() if key in raw}
        # The scheduler corrects this setting itself.
        settings.pop("lower_order_final", None)
        if all(raw[key] == value for key, value in settings.items()):
            return str(name)
    return None

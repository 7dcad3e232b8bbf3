"""The samplers by name: which scheduler of diffusers each one is. Free of torch and diffusers."""

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
    """A scheduler of diffusers, and what it can do.

    Args:
        scheduler: the name of its class.
        settings: arguments that make it this sampler.
        predictions: the prediction types that it takes.
        zero_snr: whether it can start from a schedule with zero terminal SNR.
        least: the fewest steps it can take.
        spare: how many steps fewer than there are timesteps it must take; some divide by the
            difference of two noise levels that are the same otherwise.
        default_steps: steps where nobody says how many; None takes all timesteps.
        spacing: the spacing of timesteps of a ``scheduler_config.json`` that does not tell.
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
        """The most steps that it can take of a schedule with so many timesteps."""
        return max(timesteps - self.spare, self.least)

    def steps(self, timesteps: int) -> int:
        """How many steps it takes where nobody says."""
        wanted = self.default_steps or timesteps
        return max(min(wanted, self.most(timesteps)), self.least)

    def refusal(self, prediction: str, zero_snr: bool) -> str | None:
        """Why it cannot sample from such a model; None where it can."""
        if prediction not in self.predictions:
            known = " or ".join(sorted(self.predictions))
            return f"takes models that predict {known}, and this one predicts {prediction}"
        if zero_snr and not self.zero_snr:
            return "cannot start from zero terminal SNR, which this model was trained with"
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
    """The sampler that a ``scheduler_config.json`` describes; None where there is none.

    What the file does not tell is taken to be what makes the sampler.
    """
    for name in get_args(SamplerName):
        sampler = SAMPLERS[name]
        if raw.get("_class_name") != sampler.scheduler:
            continue
        # What a scheduler corrects by itself makes no other sampler of it.
        asked = {key: value for key, value in sampler.settings.items() if key in raw}
        asked.pop("lower_order_final", None)
        if all(raw[key] == value for key, value in asked.items()):
            return str(name)
    return None

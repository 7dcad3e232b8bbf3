"""Every prediction, schedule, spacing, sampler and clipping draws two modes in their shares.

The data are constant images of two values, 70 % and 30 %. What a sampler does wrong shows at once:
a wrong start or a multiplied error puts samples between or far from the modes.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from itertools import product

import pytest
import torch
from stage_cases import Case
from torch import Tensor

from cascadezoo.plugins.builtin import register_stages
from cascadezoo.spec.configs import ImageShape
from cascadezoo.stages.base import SampleRequest, Stage, StageGeometry, TrainContext
from cascadezoo.stages.process_config import PURE_NOISE, ProcessConfig
from cascadezoo.util.rng import Draw, ImageDraw

# Mean 0; at twice this scale the standard deviation is 1, as of latents.
MODES = (-math.sqrt(3 / 7) / 2, math.sqrt(7 / 3) / 2)
FIRST = 0.7
COUNT = 500
STEPS = 50
# A small network is not exact: a few samples in a thousand lie between the modes.
ASTRAY = COUNT // 100
DAY = datetime.now(tz=UTC).toordinal()

SCHEDULES: dict[str, dict[str, object]] = {
    "linear": {"schedule": "linear"},
    "cosine": {"schedule": "cosine"},
    "zero-terminal": {"schedule": "cosine", "zero_terminal_snr": True},
}
TRAININGS = [
    (prediction, schedule)
    for prediction, schedule in product(("eps", "x0", "v"), SCHEDULES)
    if (prediction, schedule) != ("eps", "zero-terminal")
]


def make(prediction: str, schedule: str, **settings: object) -> Stage:
    fields: dict[str, object] = {
        "channels": 32,
        "latent": 64,
        "layers": 2,
        "timesteps": 1000,
        "dropout": 0.0,
    }
    case = Case(
        "diffusion.v1",
        {**fields, "prediction": prediction, **SCHEDULES[schedule], **settings},
        size=1,
        channels=1,
        num_classes=None,
    )
    return case.stage(fresh=True)


def images(draw: Draw, count: int) -> Tensor:
    first = draw.rand(count) < FIRST
    low, high = (torch.full((count,), mode) for mode in MODES)
    return torch.where(first, low, high).view(-1, 1, 1, 1)


@pytest.fixture(scope="module", params=TRAININGS, ids="-".join)
def trained(request: pytest.FixtureRequest) -> tuple[str, str, dict[str, Tensor]]:
    """The weights after 750 steps."""
    prediction, schedule = request.param
    stage = make(prediction, schedule)
    steps, batch = 750, 256
    optimizer = torch.optim.AdamW(stage.parameters(), lr=4e-3, fused=True)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        draw = Draw(0, "modes", step)
        inputs = stage.preprocess(images(draw, batch), None, TrainContext(draw))
        loss = stage(inputs).losses["mse"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return prediction, schedule, stage.state_dict()


SAMPLERS = (("ddpm", 0.0), ("ddim", 0.0), ("ddim", 1.0), ("dpmpp-2m", 0.0), ("heun", 0.0))
# The sampler that ends farthest from the modes where noise is predicted from pure noise.
WORST = (False, "trailing", ("ddim", 0.0))


def samplings(number: int) -> list[tuple[bool, str, tuple[str, float]]]:
    """Half of all combinations, the other half for the next number; the worst one each time."""
    every = product((True, False), ("trailing", "leading", "linspace"), SAMPLERS)
    return [row for n, row in enumerate(every) if (n + number) % 2 == 0 or row == WORST]


def test_two_days_have_all_combinations() -> None:
    assert len({*samplings(7), *samplings(8)}) == 30
    assert all(WORST in samplings(number) for number in (7, 8))


@pytest.mark.slow
@torch.no_grad()
def test_modes_keep_their_shares(trained: tuple[str, str, dict[str, Tensor]]) -> None:
    prediction, schedule, weights = trained
    faults = []
    for clip, spacing, (sampler, eta) in samplings(DAY + TRAININGS.index((prediction, schedule))):
        stage = make(
            prediction, schedule, clip_x0=clip, spacing=spacing, sampler=sampler, eta=eta
        ).eval()
        stage.load_state_dict(weights)
        drawn = stage.sample(
            None, SampleRequest(COUNT, ImageDraw(1, "modes", 0, COUNT), steps=STEPS)
        )
        values = drawn.mean((1, 2, 3))
        nearest = torch.stack([(values - mode).abs() for mode in MODES])
        astray = int((nearest.amin(0) > 0.25).sum())
        share = float((nearest[0] < nearest[1]).float().mean())
        if astray > ASTRAY or abs(share - FIRST) > 3 * math.sqrt(FIRST * (1 - FIRST) / COUNT):
            faults.append((clip, spacing, sampler, eta, astray, round(share, 3)))
    assert not faults


def config(**settings: object) -> ProcessConfig:
    entry = next(entry for entry in register_stages() if entry.name == "diffusion.v1")
    made = entry.load_config().model_validate({"timesteps": 1000, **settings})
    assert isinstance(made, ProcessConfig)
    return made


PIXELS, LATENTS = ImageShape(3, 8), ImageShape(4, 8, latent=True)


def test_only_unclipped_noise_predictions_start_later() -> None:
    cosine = config(schedule="cosine")
    assert cosine.usable_timesteps(PIXELS) == 1000
    assert cosine.usable_timesteps(LATENTS) == 995
    assert config(schedule="cosine", clip_x0=False).usable_timesteps(PIXELS) == 995
    assert config(schedule="cosine", prediction="v").usable_timesteps(LATENTS) == 1000
    assert config(schedule="linear").usable_timesteps(LATENTS) == 1000


@pytest.mark.parametrize("steps", [1, 10, 50, 995, 1000])
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_a_path_of_latents_never_multiplies_errors_without_bound(steps: int, spacing: str) -> None:
    made = config(schedule="cosine", spacing=spacing)
    entry = next(entry for entry in register_stages() if entry.name == "diffusion.v1")
    stage = entry.load()(made, StageGeometry(LATENTS, None, None))
    path = stage._path(steps, 1.0)
    assert max(level.sigma / level.alpha for level in path) < 159
    assert len(path) - 1 == min(steps, 995)


def test_a_start_far_from_pure_noise_is_advised_against() -> None:
    far = list(config(schedule="cosine", spacing="leading", steps=4).advice(PIXELS, None))
    assert len(far) == 1
    assert "leading" in far[0]
    assert config(schedule="cosine", spacing="leading", steps=4).first_signal(PIXELS) > PURE_NOISE
    assert not list(config(schedule="cosine", steps=4).advice(PIXELS, None))

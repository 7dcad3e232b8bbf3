"""Specs of typed configs: their JSON data, and configs of other kinds."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from errors_help import raises
from pydantic import ValidationError

from cascadezoo import CascadeSpec, configs
from cascadezoo.configs import (
    CallbackSpec,
    DataSpec,
    DiffusionConfig,
    FlowConfig,
    FlowResidualSRConfig,
    FlowSRConfig,
    LossSpec,
    LpipsConfig,
    PixelShuffleConfig,
    ShapesConfig,
    StageSpec,
    TensorBoardConfig,
)
from cascadezoo.errors import SpecError, UnknownNameError
from cascadezoo.plugins.manager import get_registry
from cascadezoo.plugins.registry import is_builtin
from cascadezoo.spec import load_spec

COARSE = StageSpec(name="coarse", kind="flow.v1", config=FlowConfig(channels=16))
SPEC = CascadeSpec(
    name="typed",
    data=DataSpec(source="shapes", config=ShapesConfig(size=16)),
    stages=[COARSE, StageSpec(name="up", kind="pixelshuffle", config=PixelShuffleConfig())],
)


def test_a_typed_spec_equals_its_json() -> None:
    data = {
        "name": "typed",
        "data": {"source": "shapes", "config": {"size": 16}},
        "stages": [
            {"name": "coarse", "kind": "flow.v1", "config": {"channels": 16}},
            {"name": "up", "kind": "pixelshuffle", "config": {}},
        ],
    }
    assert CascadeSpec.model_validate(data) == SPEC
    resolved = load_spec(SPEC)
    assert resolved.spec == load_spec(data).spec
    assert load_spec(resolved.spec.to_dict()).spec == resolved.spec
    first = resolved.stages[0].config
    assert isinstance(first, FlowConfig)
    # The config of a resolved stage can be used again.
    again = SPEC.with_stage(StageSpec(name="coarse", kind="flow.v1", config=first))
    assert load_spec(again).spec == resolved.spec


def test_config_objects_in_json_data() -> None:
    data: dict[str, Any] = {
        "name": "typed",
        "data": {"source": "shapes", "config": ShapesConfig(size=16)},
        "stages": [
            {"name": "coarse", "kind": "flow.v1", "config": FlowConfig(channels=16)},
            StageSpec(name="up", kind="pixelshuffle", config=PixelShuffleConfig()),
        ],
    }
    assert load_spec(data).spec == load_spec(SPEC).spec
    data["stages"][0]["config"] = DiffusionConfig()
    with raises(SpecError, "spec", problems={"stages.0.config": "config-of-other-kind"}):
        load_spec(data)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: StageSpec(name="coarse", kind="flow", config=DiffusionConfig()),
            "is a DiffusionConfig of diffusion.v1, but flow.v1 takes a FlowConfig",
        ),
        (
            # flow-sr.v2 derives its config from that of flow-sr.v1.
            lambda: StageSpec(name="up", kind="flow-sr.v1", config=FlowResidualSRConfig()),
            "is a FlowResidualSRConfig of flow-sr.v2, but flow-sr.v1 takes a FlowSRConfig",
        ),
        (
            lambda: DataSpec(source="npz", config=ShapesConfig()),
            "is a ShapesConfig of shapes, but npz takes a NpzConfig",
        ),
        (
            lambda: LossSpec(kind="lpips", stage="up", config=TensorBoardConfig()),
            "is a TensorBoardConfig, but lpips takes a LpipsConfig",
        ),
        (
            lambda: CallbackSpec(kind="tensorboard", config=LpipsConfig()),
            "is a LpipsConfig, but tensorboard takes a TensorBoardConfig",
        ),
    ],
)
def test_a_config_of_another_kind(make: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make()
    (row,) = caught.value.errors()
    assert row["loc"] == ("config",)
    assert message in row["msg"]


def test_a_config_of_an_unknown_kind_is_reported_with_the_spec() -> None:
    stage = StageSpec(name="coarse", kind="flwo.v1", config=FlowSRConfig())
    with raises(SpecError, "spec", problems={"stages.0.kind": "lookup"}):
        load_spec(CascadeSpec(name="typed", data=SPEC.data, stages=[stage]))


def test_a_stage_that_the_spec_does_not_have() -> None:
    with raises(UnknownNameError, "lookup-stage", name="refine"):
        SPEC.with_stage(StageSpec(name="refine", kind="identity.v1"))


def test_every_config_is_public() -> None:
    registry = get_registry()
    names = set()
    for table in (registry.stages, registry.datasets, registry.losses, registry.callbacks):
        for row in table:
            if is_builtin(row.origin):
                config = row.entry.load_config()
                if config.model_fields or table in (registry.stages, registry.datasets):
                    assert getattr(configs, config.__name__) is config
                    names.add(config.__name__)
    assert names == {name for name in configs.__all__ if name.endswith("Config")}
    assert all(getattr(configs, name).__name__ == name for name in configs.__all__)
    assert sorted(configs.__all__) == configs.__all__
    assert set(configs.__all__) <= set(dir(configs))
    with pytest.raises(AttributeError, match="nonsense"):
        configs.nonsense  # noqa: B018


def test_configs_import_no_torch() -> None:
    code = (
        "import sys\n"
        "from cascadezoo import configs\n"
        "print('pydantic' in sys.modules)\n"
        "[getattr(configs, name) for name in configs.__all__]\n"
        "heavy = {'torch', 'torchvision', 'timm', 'numpy', 'accelerate', 'wandb', 'tensorboard'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["False", "[]"]

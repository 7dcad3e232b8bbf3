"""PyTorch's compiler is imported when something is compiled."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from cascadezoo.nn.late_compiler import import_compiler_late


def test_functions_run_without_the_compiler_until_it_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def original(x: int) -> int:
        return x + torch.compiler.is_dynamo_compiling()

    compiler = pytest.importorskip("torch._dynamo")
    function = torch._disable_dynamo(original)
    import_compiler_late(function, original)
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "torch._dynamo")
        assert function(3) == 3
        assert "torch._dynamo" not in sys.modules
    assert sys.modules["torch._dynamo"] is compiler
    assert function(3) == 3
    # It is excluded from compilation as before: as a part of the graph, it would return 4.
    compiled = torch.compile(lambda x: x + function(3), backend="eager")
    assert compiled(torch.ones(())) == 4


RUN = """
import sys
import torch
from cascadezoo.build.plan import make_plan
from cascadezoo.cascade.sampling_memory import sampling_bytes
from cascadezoo.plugins.manager import get_registry
from cascadezoo.testing.joint_training import make_cascade, make_trainer
from cascadezoo.testing.stage_place import find_place

entry = get_registry().stages.get("pixelshuffle.v1").entry
options = {"size": 16, "channels": 3, "num_classes": None}
place = find_place(entry, {"hidden": 4}, **options)
cascade = make_cascade(place)
make_trainer(cascade).run()
print("training", "torch._dynamo" in sys.modules)
cascade.sample(1)
for row in cascade.resolved.stages:
    sampling_bytes(row, cascade.stage(row.name), None)
print("sampling", "torch._dynamo" in sys.modules)
make_plan(cascade.resolved, "cpu")
print("plan", "torch._dynamo" in sys.modules)
torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1))
make_trainer(cascade).run()
print("compilation", "torch._dynamo" in sys.modules)
"""


@pytest.mark.slow
def test_only_compilation_imports_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True)
    imported = [line.split()[0] for line in done.stdout.splitlines() if line.endswith("True")]
    assert imported == ["compilation"], done.stdout + done.stderr

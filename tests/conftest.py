"""Fixtures of all tests: caches of real data and networks, and plugins."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path

import pytest
from warm_python import warm_processes

CACHE = Path.home() / ".cache" / "cascadezoo-dev"


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests away from the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CASCADEZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove environment variables of the developer that would change a test."""
    for name in ("CASCADEZOO_DEBUG", "CASCADEZOO_LOAD_PLUGINS", "CASCADEZOO_BLOCK_PLUGINS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with executables that start fast; see warm_python.py."""
    with warm_processes(tmp_path_factory.mktemp("warm")) as folder:
        yield folder


@pytest.fixture(scope="session")
def warm_python(warm: Path) -> str:
    """In the place of ``sys.executable``: a Python in which torch is imported already."""
    return str(warm / "warm-python")


@pytest.fixture(scope="session")
def real_cifar10() -> Path:
    """The real CIFAR-10 as .npz; skips the test if it is not downloaded."""
    path = CACHE / "cifar10.npz"
    if not path.is_file():
        pytest.skip("real CIFAR-10 is not in the development cache")
    return path


@pytest.fixture(scope="session")
def real_mnist() -> Path:
    """The real MNIST as .npz; skips the test if it is not downloaded."""
    path = CACHE / "mnist.npz"
    if not path.is_file():
        pytest.skip("real MNIST is not in the development cache")
    return path


@pytest.fixture
def real_networks(monkeypatch: pytest.MonkeyPatch) -> Path:
    """TORCH_HOME with the real Inception, VGG16 and AlexNet; skips the test if it is missing."""
    path = CACHE / "torch_home"
    if not (path / "hub" / "checkpoints").is_dir():
        pytest.skip("the real feature networks are not in the development cache")
    monkeypatch.setenv("TORCH_HOME", str(path))
    return path


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., EntryPoint]]:
    """Installs a distribution with one module and one entry point, importable in this process.

    ``plugin("name", "1.0", source)`` writes the module and the metadata that pip would write.
    """
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def make(
        name: str,
        version: str,
        source: str,
        *,
        target: str | None = None,
        requires: tuple[str, ...] = (),
        **modules: str,
    ) -> EntryPoint:
        module = name.replace("-", "_")
        (site / f"{module}.py").write_text(source)
        importlib.invalidate_caches()
        for other, text in modules.items():
            (site / f"{other}.py").write_text(text)
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        rows = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        rows += [f"Requires-Dist: {row}" for row in requires]
        (info / "METADATA").write_text("\n".join(rows) + "\n")
        (info / "entry_points.txt").write_text(f"[cascadezoo]\nmain = {target or module}\n")
        (point,) = Distribution.at(info).entry_points
        return point

    yield make
    for name in [n for n, m in sys.modules.items() if _is_in(m, site)]:
        del sys.modules[name]


def _is_in(module: object, site: Path) -> bool:
    return str(getattr(module, "__file__", None) or "").startswith(str(site))


# Files whose slow tests take the longest, in this order. They start first, so that no process of
# pytest-xdist ends alone with one of them: `-n 2 --dist loadfile --no-loadscope-reorder`.
LONGEST = (
    "docs/test_docs.py",
    "model_folder/test_model_change.py",
    "plugins/test_plugins_new.py",
    "gpu/test_gpu_kinds.py",
    "stages/test_stages_two_modes.py",
    "docs/test_docs_gallery.py",
    "testing/test_testing_stages.py",
    "stages/test_stages_contract.py",
    "cli/test_cli_evaluate.py",
    "evaluate/metrics/test_evaluate_classified.py",
    "campaigns/test_campaigns.py",
    "evaluate/test_evaluate_stream.py",
    "train/test_train_full_disk.py",
    "cli/test_cli_torchrun.py",
    "evaluate/features/test_evaluate_inception.py",
    "cascade/test_cascade_memory.py",
    "cli/test_cli_memory.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Collect the longest files first."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_configure() -> None:
    """Restore SIGINT, which a shell ignores for tests in the background.

    Child processes inherit an ignored signal, and some tests interrupt their child processes.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)

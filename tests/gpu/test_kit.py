"""The kit on the CPU at small size: unpacked data are exact, and damage is named."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import kit
import numpy as np
import pytest
import torch

MISSING = Path("no-such-file.npz")


def run(*arguments: str | Path) -> None:
    assert kit.main([str(word) for word in arguments]) == 0


def fails(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    capsys.readouterr()
    assert kit.main([str(word) for word in arguments]) == 2
    return capsys.readouterr().err


def flip_a_byte(path: Path, place: int = -20) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x55
    path.write_bytes(data)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    run("pack", tmp_path / "packed", "--small", "--cifar", MISSING)
    return tmp_path / "packed"


def only(packed: Path, folder: Path, *names: str) -> Path:
    """A transfer of only these pieces."""
    folder.mkdir()
    for name in names:
        (packed / name).rename(folder / name)
    return folder


def test_unpacked_images_are_exact(packed: Path, tmp_path: Path) -> None:
    run("unpack", packed, "--to", tmp_path / "to", "--complete")
    expected = kit._arrays(MISSING, small=True)
    with np.load(tmp_path / "to" / "cifar10.npz") as file:
        assert sorted(file.files) == sorted(expected)
        for name, values in expected.items():
            assert file[name].dtype == values.dtype
            np.testing.assert_array_equal(file[name], values)


def test_unpacked_real_images_are_exact(real_cifar10: Path, tmp_path: Path) -> None:
    run("pack", tmp_path / "packed", "--small", "--cifar", real_cifar10)
    run("unpack", tmp_path / "packed", "--to", tmp_path / "to")
    with np.load(real_cifar10) as expected, np.load(tmp_path / "to" / "cifar10.npz") as file:
        assert sorted(file.files) == sorted(expected.files)
        np.testing.assert_array_equal(file["train_images"], expected["train_images"][:150])
        np.testing.assert_array_equal(file["test_labels"], expected["test_labels"][:50])


def test_parts_may_arrive_in_any_order_and_are_decoded_once(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "to"
    late = only(packed, tmp_path / "late", "data-1", "data-test")
    error = fails(capsys, "unpack", packed, "--to", to, "--complete")
    assert "90 of 150" in error
    assert "0 of 50" in error
    with np.load(to / "cifar10.npz") as file:
        assert len(file["train_images"]) == 90
        assert "test_images" not in file
    run("unpack", late, "--to", to, "--complete")
    with np.load(to / "cifar10.npz") as file:
        expected = kit._arrays(MISSING, small=True)
        np.testing.assert_array_equal(file["train_images"], expected["train_images"])
    written = (to / "cifar10.npz").stat().st_mtime_ns
    capsys.readouterr()
    run("unpack", late, "--to", to, "--complete")
    assert "decoded" not in capsys.readouterr().out
    assert (to / "cifar10.npz").stat().st_mtime_ns == written


def test_a_decoded_part_that_was_damaged_is_decoded_again(packed: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    run("unpack", packed, "--to", to)
    flip_a_byte(to / "parts" / "data-2.npy")
    (to / "parts" / "data-1.labels.npy").write_bytes(b"")
    run("unpack", packed, "--to", to, "--complete")


@pytest.mark.parametrize("file", ["000.webp", "labels.bin", "part.json"])
def test_a_damaged_part_is_named(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    path = packed / "data-2" / file
    path.write_bytes(path.read_bytes()[:-40])
    assert "data-2" in fails(capsys, "unpack", packed, "--to", tmp_path / "to")


def test_parts_of_different_data_are_refused(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("unpack", only(packed, tmp_path / "first", "data-1"), "--to", tmp_path / "to")
    arrays = kit._arrays(MISSING, small=True)
    arrays["train_images"][0, 0, 0, 0] ^= 1
    kit.pack_data(tmp_path / "other", arrays, small=True)
    other = only(tmp_path / "other", tmp_path / "second", "data-2")
    assert "parts" in fails(capsys, "unpack", other, "--to", tmp_path / "to")


def test_the_checkout_runs_from_the_kit(packed: Path, tmp_path: Path) -> None:
    """In a separate Python that finds cascadezoo only by the kit's environment."""
    to = tmp_path / "to"
    run("unpack", packed, "--to", to)
    where = "import cascadezoo; print(cascadezoo.__file__)"
    script = (
        f". {to}/env.sh && cd {tmp_path} && {sys.executable} -c '{where}'"
        " && cascadezoo validate paper-baseline $KIT_DATA --set evaluation.subset_size=100"
        " --set evaluation.samples=100 --set evaluation.in_loop=null"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    place, _, answer = done.stdout.partition("\n")
    assert Path(place) == kit.REPO / "cascadezoo" / "__init__.py"
    assert answer.startswith("paper-baseline ")


def test_the_metadata_have_the_entry_points_and_requirements_of_the_checkout(
    tmp_path: Path,
) -> None:
    kit.write_metadata(tmp_path)
    (row,) = importlib.metadata.distributions(path=[str(tmp_path)])
    assert row.name == "cascadezoo"
    points = {(point.group, point.name): point.value for point in row.entry_points}
    assert points["cascadezoo", "builtin"] == "cascadezoo.plugins.builtin"
    assert points["console_scripts", "cascadezoo"] == "cascadezoo.cli.main:main"
    assert any(text.startswith("pydantic") for text in row.requires or ())


def test_unmet_requirements_are_listed(tmp_path: Path) -> None:
    info = tmp_path / "needy-1.0.dist-info"
    info.mkdir()
    text = "Metadata-Version: 2.1\nName: needy\nVersion: 1.0\n"
    text += "Requires-Dist: numpy>=1\nRequires-Dist: numpy>=999\nRequires-Dist: no-such-package\n"
    (info / "METADATA").write_text(text + 'Requires-Dist: other; extra == "more"\n')
    lines = list(kit.unmet(tmp_path))
    assert len(lines) == 2
    assert "numpy>=999" in lines[0]
    assert "no-such-package" in lines[1]


def test_the_target_must_be_outside_the_checkout(
    packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--to" in fails(capsys, "unpack", packed, "--to", kit.REPO / "runs" / "kit")
    assert not (kit.REPO / "runs" / "kit").exists()


@pytest.fixture
def network(tmp_path: Path) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = {
        "a.conv.weight": torch.randn(8, 3, 3, 3),
        "a.bn.running_mean": torch.randn(8),
        "a.bn.num_batches_tracked": torch.tensor(0),
        "b.conv.weight": torch.randn(4, 8, 1, 7) * 1e-3,
        "fc.weight": torch.full((1,), float("nan")).expand(10, 4),
    }
    checkpoints = tmp_path / "home" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    torch.save(state, checkpoints / kit.NETWORKS["inception"])
    return state


def test_an_unpacked_network_has_kernels_rounded_to_fp16(
    network: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, to = tmp_path / "packed", tmp_path / "to"
    run("pack", folder, "--part", "inception", "--torch-home", tmp_path / "home")
    run("unpack", folder, "--to", to)
    path = to / "torch_home" / "hub" / "checkpoints" / kit.NETWORKS["inception"]
    loaded = torch.load(path, weights_only=True)
    assert list(loaded) == list(network)
    for name, tensor in network.items():
        expected = tensor.half().float() if tensor.dim() == 4 else tensor
        torch.testing.assert_close(loaded[name], expected, rtol=0, atol=0, equal_nan=True)
    assert not any(loaded["fc.weight"].stride())
    written = path.stat().st_mtime_ns
    run("unpack", folder, "--to", to)
    assert path.stat().st_mtime_ns == written

    path.unlink()
    flip_a_byte(folder / "inception" / "low.bin")
    assert "inception" in fails(capsys, "unpack", folder, "--to", to)
    assert not path.exists()


def test_numbers_out_of_the_range_of_fp16_are_refused(
    network: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "home" / "hub" / "checkpoints" / kit.NETWORKS["inception"]
    torch.save(network | {"a.conv.weight": torch.full((2, 1, 1, 1), 1e6)}, path)
    home = tmp_path / "home"
    error = fails(capsys, "pack", tmp_path / "p", "--part", "inception", "--torch-home", home)
    assert "a.conv.weight" in error


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit, "RESULT_PART_BYTES", 50_000)
    monkeypatch.setattr(kit, "RESULT_BYTES", 300_000)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "weights.bin").write_bytes(np.random.default_rng(0).bytes(120_000))
    (folder / "empty.txt").write_text("")
    return folder


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("compress", [False, True])
def test_results_are_split_and_joined(run_folder: Path, tmp_path: Path, compress: bool) -> None:
    log, out = tmp_path / "log.txt", tmp_path / "out"
    log.write_text("a line\n" * 1000)
    words = ["--compress"] if compress else []
    run("results", "save", run_folder, log, "--out", out, *words)
    files = list(out.iterdir())
    assert len(files) <= kit.RESULT_FILES
    assert max(path.stat().st_size for path in files) == kit.RESULT_PART_BYTES
    run("results", "join", out, "--to", tmp_path / "back")
    for path in (log, run_folder / "model" / "weights.bin", run_folder / "empty.txt"):
        back = tmp_path / "back" / path.relative_to(tmp_path)
        assert back.read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("small_parts")
def test_saving_again_replaces_the_parts(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("results", "save", run_folder, "--out", out)
    (run_folder / "model" / "weights.bin").write_bytes(b"short")
    run("results", "save", run_folder, "--out", out)
    assert sorted(p.name for p in out.iterdir()) == ["results.00.part", "results.manifest.json"]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    ("harm", "shown"),
    [
        (flip_a_byte, "sha256"),
        (Path.unlink, "missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "50,000"),
    ],
    ids=["changed", "missing", "short"],
)
def test_a_damaged_result_is_named(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], harm, shown: str
) -> None:
    out = tmp_path / "out"
    run("results", "save", run_folder, "--out", out)
    harm(out / "results.01.part")
    error = fails(capsys, "results", "join", out, "--to", tmp_path / "back")
    assert "results.01.part" in error
    assert shown in error
    assert not (tmp_path / "back").exists()


@pytest.mark.usefixtures("small_parts")
def test_results_that_are_too_large_leave_no_parts(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (run_folder / "more.bin").write_bytes(bytes(200_000))
    assert "MiB" in fails(capsys, "results", "save", run_folder, "--out", out)
    assert not list(out.iterdir())


@pytest.mark.usefixtures("small_parts")
def test_existing_files_count_too(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for number in range(6):
        (out / f"{number}.log").write_text("")
    assert "1 parts" in fails(capsys, "results", "save", run_folder, "--out", out)
    assert len(list(out.iterdir())) == 6


def test_results_need_a_folder(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OUT", raising=False)
    assert "--out" in fails(capsys, "results", "save", run_folder)
    monkeypatch.setenv("OUT", str(run_folder.parent / "out"))
    run("results", "save", run_folder)


def test_the_wheels_meet_their_mutual_requirements() -> None:
    """Reads the requirements of the installed packages, if their versions are the same."""
    for name in ("pydantic", "pydantic-core", "importlib-metadata"):
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if installed != kit.WHEELS[name]:
            pytest.skip(f"{name} {installed} is installed, not {kit.WHEELS[name]}")
        for text in importlib.metadata.requires(name) or ():
            need = kit.Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                pinned = kit.WHEELS.get(kit.canonicalize_name(need.name))
                if pinned:
                    assert need.specifier.contains(pinned), text

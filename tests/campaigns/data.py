"""The campaign ``data``: hostile .npz files and folders of images, checked and loaded."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaigns.engine import Campaign
from campaigns.folders import png
from campaigns.material import spec_file
from campaigns.trial import Trial
from lone_spec import lone_spec

__all__ = ["Data"]


class Data(Campaign):
    """Whatever lies where the data should be: it is loaded or refused within the limits."""

    name = "data"
    cpu_seconds = 15.0

    def run(self, trial: Trial) -> None:
        random = trial.random
        if random.random() < 0.55:
            name = random.choice(sorted(NPZ))
            path = trial.work / "data.npz"
            detail = NPZ[name](trial, path)
            data: dict[str, Any] = {"source": "npz", "config": {"path": "data.npz"}}
            if random.random() < 0.2:
                data["config"]["limit"] = random.choice([1, 20, 10**9])
            if random.random() < 0.1:
                data["config"]["holdout"] = 0.25
        else:
            name = random.choice(sorted(FOLDERS))
            path = trial.work / "data"
            path.mkdir()
            _images(path, trial)
            detail = FOLDERS[name](trial, path)
            data = {"source": "folder", "config": {"path": "data"}}
            if random.random() < 0.5:
                data["config"]["resize"] = random.choice([8, 16])
            if random.random() < 0.2:
                data["config"]["labels"] = random.choice([True, False])
        trial.say(f"{data['source']} {name} {detail or ''}")
        # Without figures, for which the images could be too few.
        spec_file(trial.work, {**lone_spec(), "data": data})
        checked = trial.command("validate", "spec.json")
        loaded = trial.call("load", lambda: _load("spec.json", trial))
        if loaded.ok:
            trial.require(checked.ok, "data are loaded that validate refuses", checked.text)


def _load(spec: str, trial: Trial) -> None:
    """What a build does before it trains."""
    from cascadezoo.data.split import load_split
    from cascadezoo.spec import load_spec

    resolved = load_spec(spec)
    data = load_split(resolved, "train")
    size, channels = resolved.image.size, resolved.image.channels
    trial.require(data.images.shape[1:] == (channels, size, size), "images of a wrong shape")
    trial.require(str(data.images.dtype) == "uint8", "images that are not uint8")
    if resolved.num_classes is not None and data.labels is not None:
        low, high = int(data.labels.min()), int(data.labels.max())
        trial.require(0 <= low <= high < resolved.num_classes, "labels out of range")


def made(trial: Trial, name: str) -> Path:
    """A file that takes long to make; the first case that needs it makes it for all."""
    path = trial.material / name
    if not path.exists():
        part = trial.material / f"{os.getpid()}-{name}"
        _MADE[name](part)
        part.replace(path)
    return path


def _picture(path: Path) -> None:
    from PIL import Image

    Image.new("L", (9400, 9400), 200).save(path, quality=5)


def _frames(path: Path) -> None:
    from PIL import Image

    frames = [Image.new("P", (2000, 2000), n) for n in range(10)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def _sound_npz(path: Path) -> None:
    _zip(path, _sound())


# --- npz ------------------------------------------------------------------------------------------


def npy(descr: str, shape: str, body: bytes = b"", *, version: int = 1, head: bytes = b"") -> bytes:
    """An .npy member with any header."""
    text = head or f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    size = struct.pack("<H", len(text) & 0xFFFF) if version == 1 else struct.pack("<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + body


def _zip(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, content in members.items():
            row = zipfile.ZipInfo(name)  # with a date that is always the same
            file.writestr(row, content, zipfile.ZIP_DEFLATED, 1)


def _write_bomb(path: Path, size: int = 3 << 30) -> None:
    """Zeros of so many bytes, in the form of images."""
    block = 1 << 26
    count, blocks = size // 192, size // block
    head = npy("'|u1'", f"({count}, 8, 8, 3)")
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush nothing refers to what was before, so that the same bytes may follow again.
    packed = start + zeros * blocks + packer.flush()
    checksum = zlib.crc32(head)
    for _ in range(blocks):
        checksum = zlib.crc32(bytes(block), checksum)
    total = len(head) + blocks * block
    name = b"images.npy"
    common = struct.pack("<HHHHHLLLHH", 20, 0, 8, 0, 0, checksum, len(packed), total, len(name), 0)
    local = b"PK\3\4" + common + name + packed
    central = (
        b"PK\1\2" + struct.pack("<H", 20) + common + struct.pack("<HHHLL", 0, 0, 0, 0, 0) + name
    )
    end = b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 1, 1, len(central), len(local), 0)
    path.write_bytes(local + central + end)


def _sound() -> dict[str, bytes]:
    import numpy as np

    rows = {"images": np.zeros((64, 8, 8, 3), np.uint8), "labels": np.arange(64) % 4}
    members = {}
    for name, array in rows.items():
        file = io.BytesIO()
        np.save(file, array)
        members[f"{name}.npy"] = file.getvalue()
    return members


def bomb(trial: Trial, path: Path) -> str:
    path.symlink_to(made(trial, "bomb.npz"))
    return "of 3 GiB"


def class_names(trial: Trial, path: Path) -> str:
    random = trial.random
    width = random.choice([0, 1, 1000, 1_000_000, 10_000_000, 2**29])
    count = random.choice([0, 1, 4, 10, 300, 100_000])
    kind = random.choice(["<U", ">U", "|S"])
    size = width * count * (1 if kind == "|S" else 4)
    names = npy(f"'{kind}{width}'", f"({count},)", bytes(min(size, 400 << 20)))
    _zip(path, {**_sound(), "class_names.npy": names})
    return f"{count} of {kind}{width}"


def dtype(trial: Trial, path: Path) -> str:
    random = trial.random
    descr = random.choice(
        [
            "'|O'",
            "'<f4'",
            "'<c16'",
            "'|b1'",
            "'<i8'",
            "'>u2'",
            "'<M8[s]'",
            "'|V8'",
            "'<U4'",
            "'|S0'",
            "[('a', '|u1')]",
            "[('a', '|u1', (10000, 10000))]",
            "'x'",
            "None",
            "1",
            "'|u1,|u1'",
            "'" + "|u1," * 5000 + "|u1'",
        ]
    )
    name = random.choice(["images", "labels", "class_names", "test_images"])
    shape = random.choice(["(64, 8, 8, 3)", "(64,)", "(4,)", "()"])
    _zip(path, {**_sound(), f"{name}.npy": npy(descr, shape, bytes(64 * 192 * 16))})
    return f"{name} {descr[:40]} {shape}"


def shape(trial: Trial, path: Path) -> str:
    random = trial.random
    text = random.choice(
        [
            f"({10**9}, 8, 8, 3)",
            f"({2**63}, 8, 8, 3)",
            f"({10**30}, 8, 8, 3)",
            "(-1, 8, 8, 3)",
            "(64, 100000, 100000, 3)",
            "(1, 46000, 46000, 1)",
            "(0, 8, 8, 3)",
            "()",
            "(64,)",
            "(64, 8, 8, 3)" * 2,
            "(64.0, 8, 8, 3)",
            "(True, 8, 8, 3)",
            "64",
            "(64, 8, 8, 0)",
            "(" + "1, " * 100000 + ")",
            "(64, 0, 0, 3)",
            "(64, 8, 9, 3)",
            "(64, 3, 8, 3)",
            "None",
        ]
    )
    name = random.choice(["images", "images", "labels", "test_images", "class_names"])
    body = bytes(random.choice([0, 64 * 192, 10_000_000]))
    descr = "'<U4'" if name == "class_names" else "'|u1'"
    _zip(path, {**_sound(), f"{name}.npy": npy(descr, text, body)})
    return f"{name} {text[:40]}"


def head(trial: Trial, path: Path) -> str:
    random = trial.random
    text = random.choice(
        [
            b"(" * 100000,
            b"{" * 1000,
            b"{'descr': __import__('os').getcwd(), }",
            b"\x00" * 100,
            b"{'descr': '|u1'}",
            b"[" * 90 + b"]" * 90,
            b"9" * 60000,
            b"x" * 20000000,
            b"'" * 9,
            b"{" + b"'a': 1, " * 100000 + b"}",
            b"-" * 5000 + b"1",
            b"\xff" * 50,
        ]
    )
    version = random.choice([1, 2, 3, 4, 255])
    name = random.choice(["images", "labels", "class_names"])
    _zip(path, {**_sound(), f"{name}.npy": npy("", "", version=version, head=text)})
    return f"{name} version {version} {text[:10]!r} of {len(text)}"


def labels(trial: Trial, path: Path) -> str:
    import numpy as np

    random = trial.random
    big = random.choice([2**62, -1, 10**6, 2**31, -(2**63), 65536])
    array = random.choice(
        [
            np.full(64, big, np.int64),
            np.full(64, 2**64 - 1, np.uint64),
            np.full(64, random.choice([np.nan, np.inf, 0.5, 1e300]), np.float64),
            np.zeros((64, 2), np.int64),
            np.zeros(63, np.int64),
            np.zeros(0, np.int64),
            np.array(3),
            np.array([str(n) for n in range(64)]),
        ]
    )
    file = io.BytesIO()
    np.save(file, array)
    _zip(path, {**_sound(), "labels.npy": file.getvalue()})
    return f"{array.dtype} {array.shape} {array.flat[0] if array.size else ''}"


def members(trial: Trial, path: Path) -> str:
    random = trial.random
    how = random.choice(["many", "names", "double", "none", "deep", "objects"])
    rows = _sound()
    if how == "many":
        rows |= {f"m{n}.npy": b"" for n in range(random.choice([1000, 60_000]))}
    elif how == "names":
        bad = ["../x.npy", "/abs.npy", "a\0b.npy", "x" * 60_000 + ".npy", "images.npy/", "é.npy"]
        rows |= dict.fromkeys(bad, b"x")
    elif how == "double":
        _zip(path, rows)
        with zipfile.ZipFile(path, "a") as file:
            import warnings

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                file.writestr("images.npy", b"other")
        return how
    elif how == "none":
        rows = {}
    elif how == "deep":
        rows["images.npy"] = made(trial, "sound.npz").read_bytes()
    else:
        import pickle

        rows["class_names.npy"] = npy("'|O'", "(4,)", pickle.dumps(["a"] * 4))
    _zip(path, rows)
    return how


def damage(trial: Trial, path: Path) -> str:
    random = trial.random
    data = bytearray(made(trial, "sound.npz").read_bytes())
    how = random.choice(["flip", "flip", "cut", "fields", "fields", "noise", "empty", "prefix"])
    if how == "flip":
        for _ in range(random.choice([1, 1, 2, 8])):
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    elif how == "cut":
        del data[random.randrange(len(data)) :]
    elif how == "fields":  # numbers of the central directory
        at = data.rfind(b"PK\x01\x02") + random.randrange(4, 46)
        data[at : at + 4] = random.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
    elif how == "noise":
        data[:] = random.randbytes(random.choice([10, 100_000]))
    elif how == "empty":
        data.clear()
    else:
        data[:0] = random.randbytes(1000)
    path.write_bytes(data)
    return how


def special(trial: Trial, path: Path) -> str:
    how = trial.random.choice(["fifo", "folder", "zero", "loop", "socket", "sparse", "stdin"])
    if how == "fifo":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how == "socket":
        os.mknod(path, 0o600 | stat.S_IFSOCK)
    elif how == "sparse":
        path.touch()
        os.truncate(path, 1 << 40)
    else:
        path.symlink_to({"zero": "/dev/zero", "loop": "data.npz", "stdin": "/dev/null"}[how])
        trial.watch.read += ("/dev/zero",)  # the user's own path
    return how


NPZ: dict[str, Callable[[Trial, Path], str]] = {
    f.__name__: f for f in (bomb, class_names, dtype, shape, head, labels, members, damage, special)
}


# --- folders --------------------------------------------------------------------------------------


def _images(folder: Path, trial: Trial) -> None:
    """A few sound images, in two classes or in none."""
    from PIL import Image

    classes = trial.random.choice([("",), ("a", "b")])
    for name in classes:
        (folder / name).mkdir(exist_ok=True)
        for number in range(3):
            color = (80 * number, 10, 200)
            Image.new("RGB", (8, 8), color).save(folder / name / f"{number}.png")


def loops(trial: Trial, folder: Path) -> str:
    random = trial.random
    how = random.choice(["self", "tree", "tree", "pair", "root", "deep"])
    if how == "self":
        (folder / "c").symlink_to(".")
    elif how == "tree":  # 2 ** levels ways through the same folders
        levels, wide = random.choice([(8, 2), (16, 2), (24, 2), (30, 3)])
        for level in range(levels):
            place = folder / f"t{level}"
            place.mkdir()
            for branch in range(wide):
                target = f"../t{level + 1}" if level + 1 < levels else "../a"
                (place / f"l{branch}").symlink_to(target)
        return f"{how} {levels} {wide}"
    elif how == "pair":
        (folder / "x").mkdir()
        (folder / "y").mkdir()
        (folder / "x" / "l").symlink_to("../y")
        (folder / "y" / "l").symlink_to("../x")
    elif how == "root":
        trial.watch.read += ("/",)
        (folder / "r").symlink_to(random.choice(["/proc/self", "/dev"]))
    else:
        place = folder
        # The watch resolves each path, which takes time by the square of the depth.
        for _ in range(random.choice([100, 400])):
            place = place / "d"
            try:
                place.mkdir()
            except OSError:
                break
    return how


def strange(trial: Trial, folder: Path) -> str:
    random = trial.random
    path = folder / random.choice(["x.png", "x.jpg", "a.gif", "0.png"])
    path.unlink(missing_ok=True)
    how = random.choice(["fifo", "zero", "socket", "folder", "broken", "sparse", "hidden", "null"])
    if how == "fifo":
        os.mkfifo(path)
    elif how == "socket":
        os.mknod(path, 0o600 | stat.S_IFSOCK)
    elif how == "folder":
        path.mkdir()
    elif how == "sparse":
        path.touch()
        os.truncate(path, 1 << 40)
    elif how == "hidden":
        os.mkfifo(folder / ".x.png")
    else:
        trial.watch.read += ("/dev/zero",)
        path.symlink_to({"zero": "/dev/zero", "broken": "nowhere", "null": "/dev/null"}[how])
    return f"{path.name} is {how}"


def large(trial: Trial, folder: Path) -> str:
    random = trial.random
    name = random.choice(["large.png", "large.png", "large.jpg", "frames.gif"])
    count = random.choice([1, 4, 8])
    for number in range(count):
        (folder / f"l{number}{Path(name).suffix}").symlink_to(made(trial, name))
    return f"{count} of {name}"


def claims(trial: Trial, folder: Path) -> str:
    count = trial.random.choice([1, 3])
    for number in range(count):
        (folder / f"c{number}.png").write_bytes(png(trial.random))
    return f"{count}"


def broken(trial: Trial, folder: Path) -> str:
    """Images of all formats, with other bits."""
    from PIL import Image

    random = trial.random
    ending = random.choice(["png", "jpg", "webp", "tiff", "bmp", "gif", "ppm"])
    mode = random.choice(["L", "RGB", "RGBA", "P", "1", "I;16", "CMYK", "LA"])
    file = io.BytesIO()
    form = {"jpg": "JPEG"}.get(ending, ending.upper())
    try:
        Image.new(mode, (8, 8)).save(file, form)
    except (OSError, ValueError):
        mode = "RGB"
        file = io.BytesIO()
        Image.new(mode, (8, 8), 1).save(file, form)
    data = bytearray(file.getvalue())
    how = random.choice(["flip", "flip", "flip", "cut", "fix", "grow", "other"])
    if how == "flip":
        for _ in range(random.choice([1, 2, 6, 30])):
            data[random.randrange(len(data))] = random.randrange(256)
    elif how == "cut":
        del data[random.randrange(len(data)) :]
    elif how == "fix" and ending == "png":  # the checksum of the header fits
        data[16 + random.randrange(13)] = random.randrange(256)
        data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    elif how == "grow":
        data += random.randbytes(1000)
    else:
        ending = random.choice(["png", "jpg", "gif", "tif"])
    (folder / f"0b.{ending}").write_bytes(data)
    return f"{form} {mode} {how}"


def names(trial: Trial, folder: Path) -> str:
    random = trial.random
    name = random.choice(
        [
            "a\nb.png",
            "\x1b[31m.png",
            "�.png",
            "x" * 251 + ".png",
            " .png",
            "x.PNG",
            "x.svg",
            "x",
            "x.exe",
            "-rf.png",
            "README",
            "x.npz",
            "\u202e.png",
            ".png",
            "x.png.",
            "CON.png",
        ]
    )
    (folder / name).write_bytes((folder.rglob("0.png").__next__()).read_bytes())
    return repr(name)


def classes(trial: Trial, folder: Path) -> str:
    random = trial.random
    count = random.choice([3, 300, 3000])
    content = next(folder.rglob("0.png")).read_bytes()
    for number in range(count):
        place = folder / f"{random.choice(['k', chr(27), 'ü', ' '])}{number}"
        place.mkdir()
        (place / "i.png").write_bytes(content)
    return f"{count}"


def nothing(trial: Trial, folder: Path) -> str:
    import shutil

    shutil.rmtree(folder)
    how = trial.random.choice(["gone", "file", "fifo", "empty", "loop", "npz"])
    if how == "file":
        folder.write_text("x")
    elif how == "fifo":
        os.mkfifo(folder)
    elif how == "empty":
        folder.mkdir()
    elif how == "loop":
        folder.symlink_to("data")
    elif how == "npz":
        folder.symlink_to(made(trial, "sound.npz"))
    return how


FOLDERS: dict[str, Callable[[Trial, Path], str]] = {
    f.__name__: f for f in (loops, strange, large, claims, broken, names, classes, nothing)
}
_MADE: dict[str, Callable[[Path], None]] = {
    "bomb.npz": _write_bomb,
    "sound.npz": _sound_npz,
    "large.png": _picture,
    "large.jpg": _picture,
    "frames.gif": _frames,
}

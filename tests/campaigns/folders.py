"""The campaign ``folders``: model folders as a stranger may send them, given to commands that read."""

from __future__ import annotations

import hashlib
import json
import os
import random as chance
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaigns.engine import Campaign
from campaigns.material import lone_model, published_model, reseal, safetensors
from campaigns.mutate import change, to_json, words
from campaigns.trial import SECRET, Trial

__all__ = ["Folders"]

LARGEST_COPY = 64 << 20


class Folders(Campaign):
    """Whatever a model folder holds: it is used or refused, and nothing else is opened."""

    name = "folders"
    cpu_seconds = 20.0

    def prepare(self, material: Path) -> None:
        lone_model(material)
        shutil.rmtree(material / "made")
        published_model(material)

    def run(self, trial: Trial) -> None:
        random = trial.random
        (trial.outside / "secret.txt").write_text(SECRET + "\n")
        model = _place(trial)
        source = trial.material / random.choice(["lone", "lone", "tiny"])
        shutil.copytree(source, model, dirs_exist_ok=True)
        spoil = random.choices([row[0] for row in SPOILERS], [row[1] for row in SPOILERS])[0]
        trial.say(f"{source.name}: {spoil(trial, model)}")
        before = _state(trial.outside)
        shown = os.path.relpath(model, trial.work)
        shown = shown if "/" in shown else f"./{shown}"
        for use in random.sample(USES, random.choice([1, 2, 3])):
            use(trial, shown, model)
        trial.require(_state(trial.outside) == before, "what lies outside was changed")


def _place(trial: Trial) -> Path:
    """Where the model lies: a folder, or one that is shaped like a snapshot of the Hub's cache."""
    if trial.random.random() < 0.25:
        repo = trial.work / "models--a--b"
        (repo / "blobs").mkdir(parents=True)
        place = repo / "snapshots" / ("0123456789" * 4)
    else:
        place = trial.work / "model"
    place.mkdir(parents=True)
    return place


def _files(model: Path) -> list[Path]:
    return sorted(p for p in model.rglob("*") if p.is_file() and not p.is_symlink())


def _config(model: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((model / "config.json").read_text())
    return data


# --- what is done to a folder ---------------------------------------------------------------------


def link(trial: Trial, model: Path) -> str:
    """A file becomes a link, a FIFO, a folder or a socket."""
    random = trial.random
    path = random.choice(_files(model))
    content = path.read_bytes()
    path.unlink()
    (trial.outside / "folder").mkdir()
    (trial.outside / "copy").write_bytes(content)
    os.mkfifo(trial.outside / "fifo")
    how = random.choice(
        [
            "secret",
            "copy",
            "zero",
            "fifo",
            "own-fifo",
            "folder",
            "own-folder",
            "relative",
            "broken",
            "loop",
            "proc",
            "chain",
            "socket",
            "hard",
            "blobs",
            "beyond-blobs",
        ]
    )
    targets: dict[str, str | Path] = {
        "secret": trial.outside / "secret.txt",
        "copy": trial.outside / "copy",
        "zero": "/dev/zero",
        "fifo": trial.outside / "fifo",
        "folder": trial.outside / "folder",
        "relative": os.path.relpath(trial.outside / "secret.txt", path.parent),
        "broken": "nowhere",
        "loop": path.name,
        "proc": "/proc/self/environ",
    }
    if how in targets:
        path.symlink_to(targets[how])
    elif how == "chain":
        (model.parent / "step").symlink_to(trial.outside / "copy")
        path.symlink_to(model.parent / "step")
    elif how == "own-fifo":
        os.mkfifo(path)
    elif how == "own-folder":
        path.mkdir()
    elif how == "socket":
        os.mknod(path, 0o600 | stat.S_IFSOCK)
    elif how == "hard":
        path.hardlink_to(trial.outside / "copy")
    else:  # as in the Hub's cache, whose links lead into blobs
        blobs = model.parent.parent / "blobs"
        blobs.mkdir(exist_ok=True)
        if how == "blobs":
            (blobs / "x").write_bytes(content)
        else:
            (blobs / "x").symlink_to(random.choice([trial.outside / "secret.txt", "/dev/zero"]))
        path.symlink_to(os.path.relpath(blobs / "x", path.parent))
    if random.random() < 0.4 and how in ("secret", "copy", "relative", "chain"):
        _claim(model, path, path.read_bytes())
    return f"{path.name} is {how}"


def _claim(model: Path, path: Path, content: bytes) -> None:
    """Let config.json vouch for what a link leads to."""
    if path.name == "config.json":
        return
    config = _config(model)
    digest = hashlib.sha256(content).hexdigest()
    name = path.relative_to(model).as_posix()
    config["files"][name] = {"sha256": digest, "size": len(content)}
    (model / "config.json").write_text(json.dumps(config))


def folder_link(trial: Trial, model: Path) -> str:
    """A folder of the model, or the model itself, is a link."""
    random = trial.random
    path = random.choice([p for p in model.rglob("*") if p.is_dir()])
    shutil.move(path, trial.outside / "moved")
    target = random.choice([trial.outside / "moved", model, Path("/dev"), Path(), Path("/")])
    path.symlink_to(target, target_is_directory=True)
    return f"{path.name} leads to {target.name or target}"


def more_files(trial: Trial, model: Path) -> str:
    """Something more lies in the folder."""
    random = trial.random
    name = random.choice(
        [
            "x.py",
            ".git",
            "stages/x/model.safetensors",
            "stages/coarse/x.bin",
            "pytorch_model.bin",
            ".token",
            "stages/../x",
            "a\nb",
            "\x1b[31mred",
            "x" * 200,
            "README.md~",
            ".x.1.tmp",
            ".config.json.123.tmp",
            "optimizer.pt",
            "�",
        ]
    )
    path = model / name
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = random.choice(["file", "fifo", "link", "folder"])
    if kind == "file":
        path.write_bytes(b"x" * random.choice([0, 10, 100_000]))
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(trial.outside / "secret.txt")
    else:
        path.mkdir()
    return f"{kind} {name!r} besides"


def bytes_changed(trial: Trial, model: Path) -> str:
    """Bits flip, a file is cut or grows; sometimes config.json vouches for it."""
    random = trial.random
    path = random.choice(_files(model))
    data = bytearray(path.read_bytes())
    how = random.choice(["flip", "flip", "cut", "empty", "grow", "noise", "sparse", "zeros"])
    if how == "flip" and data:
        for _ in range(random.choice([1, 1, 3, 20])):
            at = random.randrange(min(len(data), random.choice([200, 10**9])))
            data[at] ^= 1 << random.randrange(8)
    elif how == "cut":
        del data[random.randrange(len(data) + 1) :]
    elif how == "empty":
        data.clear()
    elif how == "grow":
        data += random.randbytes(random.choice([1, 100, 5_000_000]))
    elif how == "noise":
        data[:] = random.randbytes(random.choice([10, 1000, len(data)]))
    elif how == "zeros":
        data[:] = bytes(len(data))
    path.write_bytes(data)
    size = 0
    if how == "sparse":
        size = random.choice([1 << 31, 1 << 35, 1 << 42])
        os.truncate(path, size)
    sealed = random.random() < 0.5 and path.name != "config.json"
    if sealed:
        config = _config(model)
        reseal(model, config)
        if size:
            config["files"][path.relative_to(model).as_posix()]["size"] = size
            (model / "config.json").write_text(json.dumps(config))
    return f"{path.name}: {how}{', sealed' if sealed else ''}"


def header(trial: Trial, model: Path) -> str:
    """The header of weights claims what it likes; config.json vouches for it."""
    random = trial.random
    path = random.choice([p for p in _files(model) if p.suffix == ".safetensors"])
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    head, body = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    names = [n for n in head if n != "__metadata__"]
    row = head[random.choice(names)]
    how = random.choice(
        [
            "length",
            "shape",
            "dtype",
            "offsets",
            "many",
            "deep",
            "names",
            "metadata",
            "value",
            "drop",
        ]
    )
    length = None
    if how == "length":
        length = random.choice([0, 1, 2**20, 2**27, 2**31, 2**40, 2**63, 2**64 - 1, size - 1])
    elif how == "shape":
        row["shape"] = random.choice([[2**40], [2**32, 2**32], [0], [], [-1], [1] * 5000, [2**63]])
    elif how == "dtype":
        row["dtype"] = random.choice(["F64", "I8", "BOOL", "F8_E4M3", "nope", "", None, "U64"])
    elif how == "offsets":
        row["data_offsets"] = random.choice([[0, 0], [0, 2**62], [5, 1], [0], [-4, 0], ["0", "4"]])
    elif how == "many":
        count = random.choice([1000, 50_000, 200_000])
        empty = {"dtype": "F32", "shape": [0], "data_offsets": [len(body), len(body)]}
        head |= {f"t{n}": empty for n in range(count)}
    elif how == "names":
        bad = random.choice(["\0", "x" * 100_000, "../x", "\x1b[31m", "", "a.b.c", "__metadata__ "])
        head[bad] = head.pop(random.choice(names))
    elif how == "metadata":
        head["__metadata__"] = random.choice([{"x": "y" * 1_000_000}, {"x": 1}, [], None, {"": ""}])
    elif how == "value":
        change(random, head)
    elif how == "drop":
        del head[random.choice(names)]
    text = json.dumps(head)
    if how == "deep":
        text = text[:-1] + ',"x":' + "[" * 100_000 + "]" * 100_000 + "}"
    path.write_bytes(safetensors(text.encode("utf-8", "replace"), body, length))
    reseal(model, _config(model))
    return f"{path.parent.name}: header {how}"


def config_value(trial: Trial, model: Path) -> str:
    """Values of config.json; its seals fit."""
    random = trial.random
    config = _config(model)
    how = random.random()
    if how < 0.15:
        text = words(random, (model / "config.json").read_text())
        (model / "config.json").write_text(text, encoding="utf-8", errors="surrogatepass")
        return "config.json as text"
    under = () if how < 0.4 else ("spec",) if how < 0.7 else ("spec", "stages")
    title = change(random, config, under=under)
    text = to_json(random, config)
    if len(text) < 1 << 20 and "\\u0000nested" not in json.dumps(config):
        try:
            reseal(model, config)
        except (AttributeError, TypeError, RecursionError):
            (model / "config.json").write_text(text)  # no files that could be sealed
    else:
        (model / "config.json").write_text(text)
    return title


def data_path(trial: Trial, model: Path) -> str:
    """The data of the spec lie where loading must not look."""
    random = trial.random
    config = _config(model)
    os.mkfifo(trial.outside / "fifo")
    (trial.outside / "images").mkdir()
    (trial.outside / "images" / "a.png").write_bytes(b"\x89PNG")
    places = [
        *("/dev/zero", "/dev/stdin", "/proc/self/environ", "\0", "a\0b", "~nobody", "~nobody/x"),
        *(str(trial.outside / "fifo"), str(trial.outside / "images"), "../outside/secret.txt"),
        *(str(trial.outside / "secret.txt"), "x" * 5000, "nowhere", "", ".", "/"),
    ]
    path = random.choice(places)
    data = config["spec"]["data"]
    old = {k: data.get(k) for k in ("size", "channels", "num_classes")}
    source = random.choice(["npz", "folder", "npz", "folder", "mnist", "shapes"])
    inner: dict[str, Any] = {"path": path}
    if source == "folder" and random.random() < 0.3:
        inner["test_path"] = random.choice(places)
    if source == "mnist":
        inner = {"root": path} if random.random() < 0.5 else {}
    data |= {"source": source, "config": inner}
    for key in old:
        if random.random() < 0.5:
            data[key] = random.choice([None, old[key]])
    reseal(model, config)
    sizes = {k: data[k] for k in old}
    return f"data {source} {inner} {sizes}".replace(str(trial.folder), "CASE")


def _steps(count: int) -> int:
    """A model may have up to 10,000 steps, and sampling then takes its time."""
    return count if count > 10_000 else min(count, 64)


def sizes(trial: Trial, model: Path) -> str:
    """Sizes that need no more weights and much more memory."""
    random = trial.random
    config = _config(model)
    stages = config["spec"]["stages"]
    big = random.choice([512, 2048, 4096, 8192, 16384, 65536, 2**31, 10**12])
    how = random.choice(["size", "size", "interpolate", "source", "upscale", "width", "steps"])
    done = f"{how} {big}"
    if how == "size":
        stages[0]["config"]["size"] = big
        if random.random() < 0.5:
            config["spec"]["data"]["size"] = big * random.choice([1, 2])
    elif how == "steps":
        stages[0]["config"]["steps"] = _steps(min(big, 10**6))
    elif how == "width":
        stage = random.choice(stages)
        names = [
            k for k, v in stage["config"].items() if isinstance(v, int) and not isinstance(v, bool)
        ]
        name = random.choice(names)
        stage["config"][name] = _steps(big) if name == "steps" else big
        done = f"{stage['name']}.{name} = {big}"
    elif how == "source":
        place = random.choice(
            [trial.outside, Path("/"), Path("~nobody"), Path("\0"), Path("org/x")]
        )
        kind = random.choice(["autoencoder-kl.v1", "autoencoder-kl.v1", "autoencoder.v1"])
        stages.append({"name": "decode", "kind": kind, "config": {"source": str(place)}})
        done = f"{kind} of {place.name or place}"
    else:
        kind = "interpolate.v1" if how == "interpolate" else "pixelshuffle.v1"
        factor = random.choice([2, 16, 128, 1024, 4096, 65536])
        inner = {"size": factor * 8} if how == "interpolate" else {"factor": factor}
        stages.append({"name": "more", "kind": kind, "config": inner})
        done = f"{kind} {inner}"
    reseal(model, config)
    return done


def metrics(trial: Trial, model: Path) -> str:
    """Figures that are no figures."""
    random = trial.random
    path = model / "metrics.json"
    data = json.loads(path.read_text())
    if random.random() < 0.2:
        text, title = words(random, json.dumps(data)), "as text"
    elif random.random() < 0.2:
        data["figures"] = data.get("figures", []) * random.choice([0, 100, 3000])
        text, title = json.dumps(data), "many figures"
    else:
        title = change(random, data)
        text = to_json(random, data)
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    reseal(model, _config(model))
    return f"metrics.json: {title}"


def card(trial: Trial, model: Path) -> str:
    """A card with hostile front matter or text."""
    random = trial.random
    path = model / "README.md"
    old = path.read_text()
    body = old.rpartition("\n---\n")[2]
    front = random.choice(
        [
            "a: &a [x,x,x,x,x,x,x,x,x]\n"
            + "".join(
                f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n"
                for n in range(12)
            ),
            "x: !!python/object/apply:os.system ['touch hacked']",
            "x: " + "[" * 10_000,
            "model-index: " + "x" * 100_000,
            "tags: {a: 1}\nlicense: [1, 2]",
            "datasets: 2001-01-01\nmodel-index: .nan",
            "\0: 1",
            "a: 1\na: 2",
            "x: " + "9" * 10_000,
        ]
    )
    text = random.choice(
        [
            f"---\n{front}\n---\n{body}",
            old + "\x1b[2J\x07" + "\u202e" * 1000,
            old.replace("<!-- cascadezoo:begin", "<!-- cascadezoo:begin" * 1000),
            old.replace("cascadezoo:end", "cascadezoo:eend"),
            "<!-- cascadezoo:begin x -->" * 20_000,
            "x" * 5_000_000,
            "[" * 100_000 + "](" * 100_000,
            "\n" * 1_000_000,
            "",
        ]
    )
    path.write_text(text, encoding="utf-8", errors="replace")
    if random.random() < 0.3:
        path.write_bytes(path.read_bytes() + b"\xff\xfe\x00")
    reseal(model, _config(model))
    return f"README.md of {len(text)} characters"


def picture(trial: Trial, model: Path) -> str:
    """A samples.png that claims to be huge or is none."""
    random = trial.random
    (model / "samples.png").write_bytes(png(random))
    reseal(model, _config(model))
    return "samples.png"


def png(random: chance.Random) -> bytes:
    """A PNG of any claimed size, whole or not."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    width = random.choice([0, 1, 8, 9400, 50_000, 2**31 - 1, 2**32 - 1])
    height = random.choice([0, 1, 8, 9400, 50_000, 2**31 - 1])
    depth, color = random.choice([(8, 2), (8, 0), (16, 6), (1, 3), (3, 9)])
    raw = zlib.compress(bytes(random.choice([0, 1000, 50_000_000])), 9)
    rows = [
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)),
        chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(60_000_000)))
        if random.random() < 0.2
        else b"",
        chunk(b"IDAT", raw),
        chunk(b"IEND", b""),
    ]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(rows)
    if random.random() < 0.3:
        data = data[: random.randrange(len(data))]
    return data


SPOILERS: tuple[tuple[Callable[[Trial, Path], str], int], ...] = (
    (link, 20),
    (folder_link, 4),
    (more_files, 5),
    (bytes_changed, 16),
    (header, 12),
    (config_value, 16),
    (data_path, 14),
    (sizes, 14),
    (metrics, 8),
    (card, 6),
    (picture, 4),
)


# --- what is done with it --------------------------------------------------------------------------


def sample(trial: Trial, shown: str, model: Path) -> None:
    trial.command("sample", shown, "-n", 1, "-o", "one.png", "--quiet", "--device", "cpu")


def show_card(trial: Trial, shown: str, model: Path) -> None:
    trial.command("card", shown, trial.random.choice(["--print", "--print", "--check"]))


def report(trial: Trial, shown: str, model: Path) -> None:
    trial.command("report", shown, "-o", "page.html", "--quiet", "-n", 1, "--device", "cpu")
    _no_secret(trial, trial.work / "page.html", "report")


def pull_copy(trial: Trial, shown: str, model: Path) -> None:
    if trial.command("pull", shown, "--to", "copy").ok:
        _check_copy(trial, trial.work / "copy", "pull --to")
    _left_over(trial, "pull")


def publish_copy(trial: Trial, shown: str, model: Path) -> None:
    if trial.command("publish", shown, "./published").ok:
        _check_copy(trial, trial.work / "published", "publish")
    _left_over(trial, "publish")


def pull_only(trial: Trial, shown: str, model: Path) -> None:
    trial.command("pull", shown)


USES = (sample, show_card, report, pull_copy, publish_copy, pull_only)


def _check_copy(trial: Trial, copy: Path, command: str) -> None:
    """A copy holds plain files only, each as config.json says."""
    files = [p for p in copy.rglob("*") if not p.is_dir() or p.is_symlink()]
    plain = all(stat.S_ISREG(os.lstat(p).st_mode) for p in files)
    trial.require(plain, f"{command} copies what is not a file")
    if not plain or not (copy / "config.json").is_file():
        trial.require(plain, f"{command} ends well without a config.json")
        return
    config = _config(copy)
    for name, row in config["files"].items():
        path = copy / name
        if name == "README.md":
            continue  # people edit it
        same = path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
        trial.require(same, f"{command} ends well with a wrong {name}")
    for path in files:
        _no_secret(trial, path, command)


def _left_over(trial: Trial, command: str) -> None:
    names = [p.name for p in trial.work.iterdir() if p.name.startswith(".") or "tmp" in p.name]
    trial.require(not names, f"{command} leaves temporary files", ", ".join(names))


def _no_secret(trial: Trial, path: Path, command: str) -> None:
    if path.is_file() and path.stat().st_size < LARGEST_COPY:
        shown = SECRET.encode() in path.read_bytes()
        trial.require(not shown, f"{command} copies a foreign file into {path.name}")


def _state(folder: Path) -> list[tuple[str, int, int]]:
    return [(str(p), p.lstat().st_size, p.lstat().st_mtime_ns) for p in sorted(folder.rglob("*"))]

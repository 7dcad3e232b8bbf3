"""The campaign ``hub``: an honest Hub that is busy, cut off or slow, and then well again."""

from __future__ import annotations

import shutil
from pathlib import Path

from campaigns.engine import Campaign
from campaigns.local_hub import (
    REPO,
    check_token,
    command,
    local_hub,
    prepare_models,
    read_files,
)
from campaigns.trial import Trial, tail
from hub_state import Fault

__all__ = ["Hub"]

MATCHES = (
    *("", "GET", "HEAD", "resolve", "cdn", "/api/models/", "config.json", "safetensors", "README"),
    *("POST", "PUT", "commit", "preupload", "batch", "/lfs/", "whoami", "create", "verify", "refs"),
)
PULLS = (
    ("pull", REPO),
    ("pull", REPO, "--to", "copy"),
    ("sample", REPO, "-n", "1", "-o", "one.png"),
)


class Hub(Campaign):
    """A fault of the Hub is an error that says so; nothing half or wrong stays; then all is well."""

    name = "hub"
    seconds = 20.0
    memory = 512 << 20

    def prepare(self, material: Path) -> None:
        prepare_models(material)

    def run(self, trial: Trial) -> None:
        random = trial.random
        old, new = (read_files(trial.material / name) for name in ("old", "new"))
        publishes = random.random() < 0.45
        with local_hub(trial) as (hub, clock):
            started = random.random() < 0.6 or not publishes
            if started:
                hub.make_repo(REPO, old)
            args: tuple[object, ...] = random.choice(PULLS)
            if publishes:
                shutil.copytree(trial.material / "new", "model")
                args = ("publish", "./model", REPO)
                args += random.choice([(), (), () if started else ("--private",), ("--tag", "v1")])
            faults = [_fault(trial) for _ in range(random.choice([1, 1, 2, 3, 5]))]
            for fault in faults:
                hub.fail(fault)
            shown = "; ".join(
                f"{f.kind} {f.status if f.kind == 'status' else f.after_bytes} "
                f"{f.match or 'any'} x{f.times}"
                for f in faults
            )
            trial.say(f"{args[0]}: {shown}")
            ran = command(trial, clock, *args)
            check_token(trial, ran, hub.token)
            heads = (
                {p: c for p, c in hub.repos[REPO].head().files.items() if p in new}
                if REPO in hub.repos
                else {}
            )
            if publishes:
                whole = set(heads) in (set(), set(new)) and (not ran.ok or set(heads) == set(new))
                trial.require(whole, "publish leaves half a model", ", ".join(heads))
            elif ran.ok and Path("copy").is_dir():
                trial.require(read_files(Path("copy")) == old, "pull ends well with wrong bytes")
            hub.heal()
            again = command(trial, clock, *args)
            cause = f"{args[0]} after a fault of the Hub ends with {again.code}"
            trial.require(again.ok, cause, tail(again.text))
            if again.ok and Path("copy").is_dir():
                trial.require(
                    read_files(Path("copy")) == old, "pull after a fault gives wrong bytes"
                )
            if publishes and again.ok:
                files = hub.repos[REPO].head().files
                sent = all(files.get(n) == c for n, c in new.items() if n.endswith("safetensors"))
                trial.require(sent, "publish after a fault sends wrong bytes")


def _fault(trial: Trial) -> Fault:
    random = trial.random
    kind = random.choice(
        ["status", "status", "status", "cut", "cut", "flip", "lost-answer", "slow", "refuse-lfs"]
    )
    status = random.choice(
        [
            429,
            429,
            500,
            502,
            503,
            503,
            504,
            408,
            400,
            401,
            403,
            404,
            409,
            412,
            416,
            418,
            451,
            200,
            204,
            302,
        ]
    )
    headers = {}
    if status in (429, 503) and random.random() < 0.6:
        headers["Retry-After"] = random.choice(
            ["0", "1", "5", "3600", "-1", "x", "1e99", "9" * 400, "Wed, 21 Oct 2099 07:28:00 GMT"]
        )
    if random.random() < 0.2:
        name = random.choice(
            ["RateLimit", "X-Error-Message", "X-Error-Code", "Location", "x-request-id"]
        )
        headers[name] = random.choice(
            ["x", "", "r;t=99999", "RepoNotFound", "\x1b[31m", "/", "y" * 5000]
        )
    body = random.choice(
        [None, None, b"", b"<html>", b"{", b"[]", b"null", b'{"error": {"a": []}}', b"\xff\xfe"]
    )
    return Fault(
        kind,
        random.choice(MATCHES),
        times=random.choice([1, 1, 1, 2, 4, 10_000]),
        status=status,
        headers=headers,
        after_bytes=random.choice([0, 1, 10, 500, 5000]),
        seconds=random.choice([0.1, 3.0]),
        body=body,
    )

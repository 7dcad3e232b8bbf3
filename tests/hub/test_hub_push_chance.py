"""A hundred faults by chance, in the midst of publishing one version over the other."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from hub_server import Commit, Fault, LocalHub
from push_cases import COMMIT, EVER, PUT, REPO, WEIGHTS, holds, model_in, new, old, published

from cascadezoo.errors import CascadezooError
from cascadezoo.hub.publish.commit import publish_hub

KINDS = [
    *[("status", status) for status in (429, 500, 502, 503, 504, 403, 404, 400)],
    *[(kind, 503) for kind in ("cut", "lost-answer", "lost-answer", "slow", "flip")],
    ("refuse-lfs", 422),
]
PLACES = [
    *("whoami", "GET /api/models/", "validate-yaml", "preupload", "objects/batch", PUT, "/verify"),
    *(COMMIT, COMMIT, COMMIT, "/resolve/", "POST .*/tag/", "/refs", "."),
]


def chance(random_: random.Random) -> Fault:
    kind, status = random_.choice(KINDS)
    return Fault(
        kind,  # type: ignore[arg-type]
        random_.choice(PLACES),
        times=random_.choice([1, 1, 2, 5, EVER]),
        status=status,
        headers={"Retry-After": "1"} if status == 429 else {},
        after_bytes=random_.choice([0, 1, 40, 1000]),
        seconds=0.05,
    )


@pytest.mark.slow
def test_a_hundred_faults_and_never_half_a_model(
    there: LocalHub, model: Path, newer: Path, waits: list[float]
) -> None:
    """Whatever fails, the branch holds one of the two versions, each commit of it is whole."""
    repo, random_ = there.repos[REPO], random.Random(4)
    versions = [(model, old()), (newer, new())]
    counts = {"published": 0, "failed": 0, "raised otherwise": 0, "half": 0, "fired": 0}
    injected = 0
    for turn in range(60):
        folder, files = versions[(turn + 1) % 2]
        faults = [chance(random_) for _ in range(random_.choice([1, 2, 3]))]
        injected += len(faults)
        for fault in faults:
            there.fail(fault)
        before = len(repo.commits)
        try:
            publish_hub(folder, REPO, tag=f"t{turn}" if turn % 3 == 0 else None)
            counts["published"] += 1
            assert holds(repo, files)
        except CascadezooError as error:
            counts["failed"] += 1
            assert error.hint, error.what
            assert "hf_" not in str(error)
        except Exception as error:  # noqa: BLE001 - it is this that is counted
            counts["raised otherwise"] += 1
            print(repr(error), faults)
        counts["fired"] += bool(there.fired)
        there.heal()
        there.clear()
        assert len(repo.commits) - before <= 1
        publish_hub(folder, REPO)  # run again, it always gets there, and never makes a third
        assert len(repo.commits) - before <= 1
        assert holds(repo, files)
        there.clear()
    shas = [model_in(c)[WEIGHTS] for c in repo.commits[1:]]
    assert all(one != other for one, other in pairwise(shas))
    for commit in repo.commits[1:]:
        version = old() if commit.files[WEIGHTS] == old()[WEIGHTS] else new()
        counts["half"] += not _whole(commit, version)
    print(counts, injected)
    assert injected >= 100
    assert (counts["half"], counts["raised otherwise"]) == (0, 0), counts
    assert counts["published"] >= 15
    assert counts["failed"] >= 15
    assert counts["fired"] >= 40


def _whole(commit: Commit, files: Mapping[str, bytes]) -> bool:
    found, wanted = commit.files, published(files)
    names = set(found) - {".gitattributes"} == set(wanted)
    return names and all(found[n] == wanted[n] for n in wanted if n != "config.json")

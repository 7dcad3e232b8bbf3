"""A hundred random faults while one version of a model is published over another."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from hub_server import Commit, Fault, LocalHub
from push_cases import ALWAYS, COMMIT, PUT, REPO, WEIGHTS, holds, model_in, new, old, published

from cascadezoo.errors import CascadezooError
from cascadezoo.hub.publish.commit import publish_hub

KINDS = [
    *[("status", status) for status in (429, 500, 502, 503, 504, 403, 404, 400)],
    *[(kind, 503) for kind in ("cut", "lost-response", "lost-response", "slow", "flip")],
    ("refuse-lfs", 422),
]
PLACES = [
    *("whoami", "GET /api/models/", "validate-yaml", "preupload", "objects/batch", PUT, "/verify"),
    *(COMMIT, COMMIT, COMMIT, "/resolve/", "POST .*/tag/", "/refs", "."),
]


def random_fault(random_: random.Random) -> Fault:
    kind, status = random_.choice(KINDS)
    return Fault(
        kind,  # type: ignore[arg-type]
        random_.choice(PLACES),
        times=random_.choice([1, 1, 2, 5, ALWAYS]),
        status=status,
        headers={"Retry-After": "1"} if status == 429 else {},
        after_bytes=random_.choice([0, 1, 40, 1000]),
        seconds=0.05,
    )


@pytest.mark.slow
def test_hundred_faults_never_leave_a_partial_model(
    hub_with_model: LocalHub, model: Path, newer: Path, waits: list[float]
) -> None:
    """After any failure, the branch holds one of the two versions; every commit is complete."""
    repo, random_ = hub_with_model.repos[REPO], random.Random(4)
    versions = [(model, old()), (newer, new())]
    counts = {"published": 0, "failed": 0, "raised otherwise": 0, "half": 0, "fired": 0}
    injected = 0
    for turn in range(60):
        folder, files = versions[(turn + 1) % 2]
        faults = [random_fault(random_) for _ in range(random_.choice([1, 2, 3]))]
        injected += len(faults)
        for fault in faults:
            hub_with_model.fail(fault)
        before = len(repo.commits)
        try:
            publish_hub(folder, REPO, tag=f"t{turn}" if turn % 3 == 0 else None)
            counts["published"] += 1
            assert holds(repo, files)
        except CascadezooError as error:
            counts["failed"] += 1
            assert error.hint, error.what
            assert "hf_" not in str(error)
        except Exception as error:  # noqa: BLE001 - the test counts these
            counts["raised otherwise"] += 1
            print(repr(error), faults)
        counts["fired"] += bool(hub_with_model.fired)
        hub_with_model.heal()
        hub_with_model.clear()
        assert len(repo.commits) - before <= 1
        publish_hub(folder, REPO)  # the next run always succeeds, and never makes a third commit
        assert len(repo.commits) - before <= 1
        assert holds(repo, files)
        hub_with_model.clear()
    shas = [model_in(c)[WEIGHTS] for c in repo.commits[1:]]
    assert all(one != other for one, other in pairwise(shas))
    for commit in repo.commits[1:]:
        version = old() if commit.files[WEIGHTS] == old()[WEIGHTS] else new()
        counts["half"] += not _is_complete(commit, version)
    print(counts, injected)
    assert injected >= 100
    assert (counts["half"], counts["raised otherwise"]) == (0, 0), counts
    assert counts["published"] >= 15
    assert counts["failed"] >= 15
    assert counts["fired"] >= 40


def _is_complete(commit: Commit, files: Mapping[str, bytes]) -> bool:
    actual, expected = commit.files, published(files)
    names = set(actual) - {".gitattributes"} == set(expected)
    return names and all(actual[n] == expected[n] for n in expected if n != "config.json")

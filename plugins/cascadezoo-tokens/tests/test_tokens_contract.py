"""Both kinds follow the contract; `cascadezoo plugins check` runs the remaining checks in CI."""

from __future__ import annotations

from token_cases import PRIOR, TOKENS, VQ

from cascadezoo.testing import assert_stage

# They take seconds, and `plugins check` runs them.
LONG = (
    "processes",
    "compile",
    "config-without-torch",
    "import-cost",
    "joint-training",
    "resume",
    "round-trip",
)


def test_the_autoencoder_follows_the_contract() -> None:
    neighbour = {"kind": "ar-prior.v1", "config": PRIOR}
    assert_stage("vq-autoencoder.v1", VQ, size=8, neighbour=neighbour, skip=LONG)


def test_the_prior_follows_the_contract() -> None:
    neighbour = {"kind": "vq-autoencoder.v1", "config": VQ}
    assert_stage("ar-prior.v1", PRIOR, output=TOKENS, neighbour=neighbour, skip=LONG)

"""The prior: causality, its loss, its cache, and sampling."""

from __future__ import annotations

import math

import pytest
import torch
from cascadezoo_tokens.config import ArPriorConfig
from cascadezoo_tokens.prior import draw_token
from token_cases import CLASSES, TOKENS, context, prior, request, tokens

from cascadezoo import ConfigError, ImageShape
from cascadezoo.errors import SampleError


def test_a_later_token_changes_no_earlier_logit() -> None:
    stage = prior()
    numbers = tokens(2).flatten(1).long()
    labels = torch.tensor([0, 1])
    logits = stage.network(numbers, labels)
    for place in range(stage.length):
        changed = numbers.clone()
        changed[:, place] = (changed[:, place] + 1) % 6
        other = stage.network(changed, labels)
        # The logits of a position depend only on the tokens before it.
        torch.testing.assert_close(other[:, : place + 1], logits[:, : place + 1])
        if place + 1 < stage.length:
            assert (other[:, place + 1 :] - logits[:, place + 1 :]).abs().max() > 1e-3
    assert (stage.network(numbers, labels + 1) - logits)[:, 0].abs().max() > 1e-3


def test_the_loss_is_the_mean_log_likelihood() -> None:
    stage = prior(label_drop=0.0)
    target = tokens()
    output = stage(stage.preprocess(target, None, context()))
    logits = stage.network(target.flatten(1).long(), context().labels).detach().double()
    total = 0.0
    for image in range(5):
        for place, token in enumerate(target[image].flatten().tolist()):
            row = logits[image, place]
            total -= float(row[int(token)] - torch.log(row.exp().sum()))
    assert float(output.losses["nll"].detach()) == pytest.approx(total / target.numel(), rel=1e-5)
    guesses = logits.argmax(-1).view(target.shape)
    assert torch.equal(output.estimate, guesses.float())
    assert float(output.figures["accuracy"]) == pytest.approx(
        float((guesses == target).float().mean())
    )
    assert not output.estimate.requires_grad


def test_the_cache_gives_the_logits_of_the_whole_sequence() -> None:
    stage = prior().eval()
    numbers, labels = tokens(3).flatten(1).long(), torch.tensor([0, 1, CLASSES])
    whole = stage.network(numbers, labels)
    entry, cache = stage.network.labels(labels), []
    for place in range(stage.length):
        row = stage.network.advance(entry, place, cache)
        torch.testing.assert_close(row, whole[:, place], rtol=1e-4, atol=1e-5)
        entry = stage.network.tokens(numbers[:, place])


def test_labels_are_dropped_at_the_rate() -> None:
    stage = prior(label_drop=0.5)
    many = tokens(400)
    labels = stage.preprocess(many, None, context(400)).labels
    share = float((labels == CLASSES).float().mean())
    assert 0.4 < share < 0.6
    assert torch.equal(labels[labels < CLASSES], context(400).labels[labels < CLASSES])
    assert not prior(None).preprocess(many, None, context(400)).labels.any()


@torch.no_grad()
def test_samples_follow_the_seed_and_not_the_batch() -> None:
    stage = prior().eval()
    whole = stage.sample(None, request(0, 6))
    assert whole.shape == (6, 1, 4, 4)
    assert torch.equal(whole, whole.round())
    assert whole.min() >= 0
    assert whole.max() <= 5
    parts = [stage.sample(None, request(first, 2)) for first in (0, 2, 4)]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(whole, stage.sample(None, request(0, 6)))
    assert not torch.equal(whole, stage.sample(None, request(0, 6, seed=8)))


@torch.no_grad()
def test_the_sampled_first_token_has_its_probability() -> None:
    stage = prior(None).eval()
    logits = stage.network(torch.zeros(1, 16, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    expected = logits[0, 0].softmax(0)
    many = stage.sample(None, request(0, 3000))[:, 0, 0, 0].long()
    shares = torch.bincount(many, minlength=6) / 3000
    assert (shares - expected).abs().max() < 5 * math.sqrt(0.25 / 3000)


@torch.no_grad()
def test_options() -> None:
    stage = prior(label_drop=0.1).eval()
    greedy = stage.sample(None, request(options={"top_k": 1}))
    cold = stage.sample(None, request(seed=9, options={"temperature": 0.001}))
    assert torch.equal(greedy, cold)
    logits = stage.network(greedy.flatten(1).long(), request().labels)
    assert torch.equal(logits.argmax(-1).float(), greedy.flatten(1))
    plain = stage.sample(None, request(guidance=1.0))
    assert torch.equal(plain, stage.sample(None, request()))
    assert not torch.equal(plain, stage.sample(None, request(guidance=8.0)))
    assert stage.sampling_options == {"guidance", "temperature", "top_k"}
    with pytest.raises(SampleError, match="guidance"):
        prior(label_drop=0.0).sample(None, request(guidance=2.0))
    with pytest.raises(SampleError, match="no labels"):
        prior(None).sample(None, request(guidance=2.0))


def test_draws_by_inversion() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log().repeat(5, 1)
    drawn = draw_token(logits, torch.tensor([0.0, 0.49, 0.51, 0.76, 0.9999999]))
    assert drawn.tolist() == [0, 0, 1, 2, 2]
    logits = torch.tensor([[-math.inf, 0.0, 0.0]])
    assert draw_token(logits, torch.zeros(1)).tolist() == [1]
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    assert draw_token(logits, torch.zeros(1), top_k=2).tolist() == [1]


def test_what_the_config_refuses() -> None:
    with pytest.raises(ConfigError, match="does not divide"):
        ArPriorConfig(width=6, heads=4).fit(TOKENS)
    with pytest.raises(ConfigError, match="tokens"):
        ArPriorConfig().fit(ImageShape(1, 256, latent=True, tokens=4))
    with pytest.raises(ConfigError, match="label_drop"):
        ArPriorConfig(guidance=2.0, label_drop=0.0).fit(TOKENS)
    with pytest.raises(ConfigError, match="next stage"):
        ArPriorConfig(size=8).fit(TOKENS)

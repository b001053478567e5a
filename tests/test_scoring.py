"""Scoring: entropy from the definition, chunked equals whole, micro-batches cover each row once."""

import pytest
import torch

from small_world import requests, small_config, tiny
from strategies import METHODS
from suite import log_probs as log_probs_module
from suite.parts import scored
from suite.sampling import SamplingSettings, TransformersSampler
from suite.scoring import hidden_states, micro_batches, pack, score_and_entropy
from suite.trainer import build_learner


@pytest.fixture(scope="module")
def world() -> tuple:
    model, tokenizer = tiny()
    return model, TransformersSampler(model, tokenizer).sample(requests(tokenizer, 16, samples=2), SamplingSettings(24))


def test_entropy_is_minus_the_sum_of_p_log_p(world: tuple) -> None:
    model, rollouts = world
    _, entropy = score_and_entropy(model, pack(rollouts, [0], "cpu"))
    r = rollouts[0]
    logits = model(torch.tensor([r.prompt_ids + r.response_ids])).logits[0, len(r.prompt_ids) - 1 : -1].double()
    p = torch.softmax(logits, dim=-1)
    torch.testing.assert_close(entropy[0].double(), -(p * p.log()).sum(dim=-1), rtol=0, atol=1e-5)
    assert not entropy.requires_grad


def test_chunks_of_the_head_change_neither_value_nor_gradient(world: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rollouts = world
    batch = pack(rollouts, range(8), "cpu")
    results = []
    for limit in (2**25, 5 * model.config.vocab_size):
        monkeypatch.setitem(log_probs_module.LOGITS_AT_ONCE, "cpu", limit)
        model.zero_grad()
        log_probs, entropy = score_and_entropy(model, batch)
        (log_probs * torch.arange(log_probs.numel()).view_as(log_probs)).sum().backward()
        results.append([log_probs.detach(), entropy, *(p.grad.clone() for p in model.parameters())])
    for whole, chunked in zip(*results, strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-5 * float(whole.abs().max()))


@pytest.mark.parametrize("budget", [1, 40, 200, 10_000])
def test_micro_batches_hold_every_row_once_within_the_budget(world: tuple, budget: int) -> None:
    _, rollouts = world
    rows = [3, 1, 8, 20, 11, 5, 2]
    parts = micro_batches(rollouts, rows, budget, "cpu")
    assert sorted(i for part in parts for i in part.rows) == sorted(rows)
    assert all(part.input_ids.numel() <= budget or len(part.rows) == 1 for part in parts)
    for part in parts:
        counted = part.targets.split(part.response_mask.sum(dim=1).tolist())
        assert [tuple(ids.tolist()) for ids in counted] == [rollouts[i].response_ids for i in part.rows]
        assert torch.equal(part.padded(part.targets)[part.response_mask], part.targets)


def test_a_head_in_float32_is_that_for_new_old_and_start_model_alike(world: tuple) -> None:
    """What train.float32_head says: the body's bfloat16 states, a float32 product, log_softmax."""
    model, rollouts = world
    batch = pack(rollouts, range(8), "cpu")
    half = small_config(precision="bfloat16")
    learner = build_learner(model, METHODS["fspo"], small_config(precision="bfloat16", float32_head=True))
    with torch.no_grad(), learner.arithmetic():
        hidden = hidden_states(model.base_model, batch)
        plain = build_learner(model, METHODS["fspo"], half).score(batch)
    logits = torch.nn.functional.linear(hidden.double(), model.get_output_embeddings().weight.double())
    chosen = torch.log_softmax(logits, dim=-1).gather(1, batch.targets[:, None])[:, 0]
    new = learner.score(batch).detach()
    torch.testing.assert_close(new[batch.response_mask].double(), chosen.detach(), rtol=0, atol=2e-6)
    assert (plain - new).abs().max() > 1e-4
    part = scored(learner, batch, rollouts, start_model=model)
    assert torch.equal(part.batch.old_log_probs, new)
    assert part.batch.ref_log_probs is not None
    assert torch.equal(part.batch.ref_log_probs, new)

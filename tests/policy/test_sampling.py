"""The in-process sampler: batching changes nothing, log-probs are the model's own, ends and limits are noticed."""

import dataclasses
from typing import Any

import pytest
import torch
import transformers

from small_world import SHAPE, requests, tiny
from suite.policy import packed_attention, sampling
from suite.policy.packed_attention import can_keep_a_start_apart
from suite.policy.sampling import SampleRequest, SamplingSettings, TransformersSampler, half_copy
from suite.policy.scoring import pack, score
from suite.types import FinishReason, UserError


@pytest.fixture(scope="module")
def sampler() -> TransformersSampler:
    return TransformersSampler(*tiny())


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batch_size_and_composition_do_not_change_a_text(sampler: TransformersSampler, batch_size: int) -> None:
    asked = requests(sampler.tokenizer, 16, samples=4)
    together = sampler.sample(asked, SamplingSettings(24, batch_size=64))
    apart = sampler.sample(asked[::-1], SamplingSettings(24, batch_size=batch_size))[::-1]
    assert [r.response_ids for r in apart] == [r.response_ids for r in together]
    assert [r.problem_id for r in together] == [r.problem_id for r in asked]
    gaps = [
        abs(a - b)
        for x, y in zip(apart, together, strict=True)
        for a, b in zip(x.sampler_log_probs, y.sampler_log_probs, strict=True)
    ]
    assert max(gaps) < 1e-5


def test_sampler_log_probs_are_those_of_a_plain_forward_pass(sampler: TransformersSampler) -> None:
    for r in sampler.sample(requests(sampler.tokenizer, 6), SamplingSettings(24)):
        ids = torch.tensor([r.prompt_ids + r.response_ids])
        with torch.no_grad():
            log_probs = torch.log_softmax(sampler.model(ids).logits[0].double(), dim=-1)
        start = len(r.prompt_ids) - 1
        expected = [float(log_probs[start + t, token]) for t, token in enumerate(r.response_ids)]
        assert r.sampler_log_probs == pytest.approx(expected, abs=1e-5)


def test_responses_end_with_the_end_token_or_at_the_limit(sampler: TransformersSampler) -> None:
    rollouts = sampler.sample(requests(sampler.tokenizer, 16, samples=4), SamplingSettings(24))
    end = sampler.tokenizer.eos_token_id
    stopped = [r for r in rollouts if r.finish_reason == FinishReason.STOP]
    cut = [r for r in rollouts if r.finish_reason == FinishReason.LENGTH]
    assert stopped
    assert cut
    assert all(r.response_ids[-1] == end and end not in r.response_ids[:-1] for r in stopped)
    assert all(len(r.response_ids) == 24 and end not in r.response_ids for r in cut)


def test_a_stop_text_ends_a_response_and_is_kept(sampler: TransformersSampler) -> None:
    asked = requests(sampler.tokenizer, 16)
    free = sampler.sample(asked, SamplingSettings(24))
    stopped = sampler.sample(asked, SamplingSettings(24, stop=("7",)))
    seven = sampler.tokenizer("7").input_ids[0]
    hits = 0
    for a, b in zip(free, stopped, strict=True):
        end = a.response_ids.index(seven) + 1 if seven in a.response_ids else len(a.response_ids)
        assert b.response_ids == a.response_ids[:end]
        hits += seven in a.response_ids
    assert hits > 0


def test_temperature_zero_is_greedy(sampler: TransformersSampler) -> None:
    asked = requests(sampler.tokenizer, 4)
    other = [dataclasses.replace(r, seed=r.seed ^ 1) for r in asked]
    greedy = [sampler.sample(x, SamplingSettings(8, temperature=0)) for x in (asked, other)]
    assert [r.response_ids for r in greedy[0]] == [r.response_ids for r in greedy[1]]


def test_a_prompt_longer_than_the_context_is_one_clear_error(sampler: TransformersSampler) -> None:
    long = SampleRequest("p/9", 0, 0, (5,) * (SHAPE.max_positions - 10))
    with pytest.raises(
        UserError, match=r"problem p/9: its prompt of 86 tokens plus max_new_tokens 24 exceeds .* of 96"
    ):
        sampler.sample([*requests(sampler.tokenizer, 2), long], SamplingSettings(24))


@pytest.mark.parametrize(
    "wrong",
    [
        *({"temperature": x} for x in (-1.0, 1e-40, 0.009, 101.0, float("inf"), float("nan"))),
        {"stop": ("", "x")},
        {"max_new_tokens": 0},
        {"batch_size": 0},
    ],
    ids=str,
)
def test_settings_that_would_draw_something_else_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"SamplingSettings\.{next(iter(wrong))} = "):
        SamplingSettings(**{"max_new_tokens": 4} | wrong)


def test_nothing_asked_is_nothing_drawn_and_an_empty_prompt_is_refused(sampler: TransformersSampler) -> None:
    assert sampler.sample([], SamplingSettings(4)) == []
    with pytest.raises(UserError, match="problem p/7: its prompt is empty"):
        sampler.sample([*requests(sampler.tokenizer, 2), SampleRequest("p/7", 0, 0, ())], SamplingSettings(4))


def test_scores_equal_the_sampler_whatever_the_padding(sampler: TransformersSampler) -> None:
    rollouts = sampler.sample(requests(sampler.tokenizer, 12), SamplingSettings(24))
    with torch.no_grad():
        together = score(sampler.model, pack(rollouts, range(12), "cpu"))
        for i, r in enumerate(rollouts):
            n = len(r.response_ids)
            alone = score(sampler.model, pack(rollouts, [i], "cpu"))
            torch.testing.assert_close(together[i, :n], alone[0, :n], rtol=0, atol=1e-5)
            torch.testing.assert_close(alone[0, :n], torch.tensor(r.sampler_log_probs), rtol=0, atol=1e-5)
            assert together[i, n:].abs().sum() == 0


def test_a_common_start_of_the_prompts_is_prefilled_once_and_changes_nothing(
    sampler: TransformersSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tuple(sampler.tokenizer("12+34=46").input_ids) * 5
    asked = [
        dataclasses.replace(r, prompt_ids=start + r.prompt_ids) for r in requests(sampler.tokenizer, 12, samples=2)
    ]
    assert len(start) >= sampling.WORTH_SHARING
    shared = sampler.sample(asked, SamplingSettings(24))
    monkeypatch.setattr(sampling, "can_keep_a_start_apart", lambda config: False)
    in_every_row = sampler.sample(asked, SamplingSettings(24))
    monkeypatch.setattr(sampling, "WORTH_SHARING", 10**9)
    alone = sampler.sample(asked, SamplingSettings(24))
    for other in (in_every_row, alone):
        assert [r.response_ids for r in shared] == [r.response_ids for r in other]
        for a, b in zip(shared, other, strict=True):
            assert a.sampler_log_probs == pytest.approx(b.sampler_log_probs, abs=1e-5)


def test_a_common_start_is_kept_once_and_not_in_the_rows(
    sampler: TransformersSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tuple(sampler.tokenizer("12+34=46").input_ids) * 5
    seen: list[tuple[int, int]] = []
    whole = packed_attention._one_token_after_start

    def counted(query: Any, key: Any, value: Any, mask: Any, start_key: Any, *rest: Any) -> Any:
        seen.append((key.shape[2], start_key.shape[1]))
        return whole(query, key, value, mask, start_key, *rest)

    monkeypatch.setattr(packed_attention, "_one_token_after_start", counted)
    asked = [dataclasses.replace(r, prompt_ids=start + r.prompt_ids) for r in requests(sampler.tokenizer, 4, samples=2)]
    sampler.sample(asked, SamplingSettings(6))
    own = max(len(r.prompt_ids) for r in asked) - len(start)
    assert seen
    assert all(kept >= len(start) and rows <= own + 6 for rows, kept in seen)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_behind_a_start_is_that_over_all_keys(groups: int, padded: bool) -> None:
    draw = torch.Generator().manual_seed(groups)
    rows, heads, width, tokens, own = 5, 4, 8, 11, 7

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    query, key, value = numbers(rows, heads, 1, width), *(numbers(rows, groups, own, width) for _ in "kv")
    start_key, start_value = (numbers(groups, tokens, width) for _ in "kv")
    mask = torch.ones(rows, 1, 1, own, dtype=torch.bool)
    if padded:
        for i in range(rows):
            mask[i, ..., :i] = False
    found = packed_attention._one_token_after_start(
        query, key, value, mask if padded else None, start_key, start_value, None
    )
    every_key, every_value = (
        torch.cat([x.expand(rows, -1, -1, -1), y], dim=2) for x, y in ((start_key, key), (start_value, value))
    )
    seen = torch.cat([torch.ones(rows, 1, 1, tokens, dtype=torch.bool), mask], dim=-1)
    for head in range(heads):
        k, v = every_key[:, head * groups // heads], every_value[:, head * groups // heads]
        scores = (query[:, head] @ k.transpose(1, 2)) / width**0.5
        weights = scores.masked_fill(~seen[:, 0], -torch.inf).softmax(dim=-1)
        torch.testing.assert_close(found[:, :, head], weights @ v, rtol=1e-12, atol=1e-12)


def test_a_start_is_kept_apart_only_where_attention_is_plain() -> None:
    plain = transformers.LlamaConfig()
    assert can_keep_a_start_apart(plain)
    assert can_keep_a_start_apart(transformers.Qwen2Config(use_sliding_window=False))
    assert not can_keep_a_start_apart(transformers.MistralConfig(sliding_window=64))
    assert not can_keep_a_start_apart(transformers.Qwen2Config(use_sliding_window=True, sliding_window=64))
    assert not can_keep_a_start_apart(transformers.Gemma2Config())
    assert not can_keep_a_start_apart(transformers.GptOssConfig())
    assert not can_keep_a_start_apart(transformers.DeepseekV3Config())
    assert not can_keep_a_start_apart(transformers.Gemma3Config())


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_a_few_rows_at_a_time_are_drawn_as_all_at_once(
    sampler: TransformersSampler, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    asked, settings = requests(sampler.tokenizer, 12), SamplingSettings(16, temperature=temperature)
    found = sampler.sample(asked, settings)
    monkeypatch.setattr(sampling, "DRAWN_AT_ONCE", {"cpu": 40})
    assert sampler.sample(asked, settings) == found


@pytest.mark.parametrize("stop", [(), ("7",), ("=1", "+3")])
@pytest.mark.parametrize("every", [2, 5, 16, 100])
def test_looking_seldom_changes_no_response(
    sampler: TransformersSampler, monkeypatch: pytest.MonkeyPatch, every: int, stop: tuple[str, ...]
) -> None:
    """As on a GPU: rows that ended go on drawing until the next look, and what they draw is cut off."""
    asked = requests(sampler.tokenizer, 16, samples=3)
    at_once = sampler.sample(asked, SamplingSettings(24, stop=stop))
    monkeypatch.setitem(sampling.LOOK_EVERY, "cpu", every)
    seldom = sampler.sample(asked, SamplingSettings(24, stop=stop))
    for a, b in zip(at_once, seldom, strict=True):
        assert (a.response_ids, a.finish_reason) == (b.response_ids, b.finish_reason)
        assert a.sampler_log_probs == pytest.approx(b.sampler_log_probs, abs=1e-5)
    assert {r.finish_reason for r in seldom} == set(FinishReason)


def test_a_half_copy_shares_nothing_and_keeps_its_rotary_frequencies() -> None:
    model, _ = tiny()
    half = half_copy(model)
    for mine, theirs in zip(half.parameters(), model.parameters(), strict=True):
        assert mine.dtype == torch.bfloat16
        assert not mine.requires_grad
        assert torch.equal(mine, theirs.to(torch.bfloat16))
    for (name, mine), theirs in zip(half.named_buffers(), model.buffers(), strict=True):
        assert torch.equal(mine, theirs), name
        assert mine.data_ptr() != theirs.data_ptr()
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert (half.get_output_embeddings().weight is half.get_input_embeddings().weight) == tied

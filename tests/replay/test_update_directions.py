"""Directions of updates and the bound on their cosine, against loops, separate backward passes and AdamW itself."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import methods.fspo
import methods.gspo
import suite.policy.vocabulary_tiles
import suite.training.update
from methods import step_gradient
from small_world import requests, tiny
from strategies import METHODS, rows_of
from suite.arithmetic import divisor_count
from suite.methods.trial_batches import batch_from_log_ratios, gradient, random_batch, with_hyper
from suite.policy.sampling import SamplingSettings, TransformersSampler
from suite.policy.scoring import micro_batches, score, score_and_entropy
from suite.records.update_log import UpdateLog
from suite.replay.fairness import length_reweighting_error
from suite.replay.one_method import policy_batch, replay
from suite.replay.update_directions import (
    OWN,
    Adam,
    Directions,
    LengthUpdates,
    LogProbSpace,
    ParameterSpace,
    cosine_summary,
    cosines,
    directions,
    length_statement,
    log_prob_bounds,
    log_prob_cosines,
    per_length_updates,
)
from suite.training.update import Learner, optimizer_step
from suite.training.whole_batch import ScoredBatch, whole_lengths
from suite.types import Divisor, Method, PolicyBatch

FIVE = {name: METHODS[name] for name in ("fspo", "gspo", "grpo", "rloo", "no_clip")}
NARROW = {name: m.scaled(0.1) if hasattr(m.hyper, "scaled") else m for name, m in FIVE.items()}
LIMIT = 24


def sequence_batch(sums: Sequence[float], lengths: Sequence[int], advantages: Sequence[float]) -> PolicyBatch:
    """Responses with given log ratios S, spread evenly over their tokens; float64."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    even = torch.tensor(sums, dtype=torch.float64)[:, None] / torch.tensor(lengths)[:, None] * mask
    return batch_from_log_ratios(even, torch.tensor(advantages, dtype=torch.float64)[:, None], mask, old=-5.0)


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    def dot(x: Sequence[float], y: Sequence[float]) -> float:
        return math.fsum(i * j for i, j in zip(x, y, strict=True))

    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def value(frame: pd.DataFrame, method: str, against: str = OWN) -> float:
    (found,) = frame.loc[(frame["method"] == method) & (frame["against"] == against), "cosine"]
    return found


# --- log-prob space -------------------------------------------------------------------------------


def test_cosines_of_three_responses_are_those_of_loops_over_tokens() -> None:
    # e^S A on every token of a response; FSPO's band is +-.03 sqrt(L): it cuts the second (A > 0, above) and keeps the
    # third, which is as far out on the side that the min does not make active.
    sums, lengths, advantages = (0.01, 0.3, 0.4), (2, 3, 1), (1.0, 0.5, -0.5)
    batch = sequence_batch(sums, lengths, advantages)
    methods = {"fspo": METHODS["fspo"], "no_clip": METHODS["no_clip"], "per_token": METHODS["fspo_per_token"]}
    frame = cosines(directions(LogProbSpace(batch), methods, {}, max_new_tokens=LIMIT))
    true, clipped, scaled = [], [], []
    for s, n, a, keep in zip(sums, lengths, advantages, (1, 0, 1), strict=True):
        true += [math.exp(s) * a] * n
        clipped += [keep * math.exp(s) * a] * n
        scaled += [keep * math.exp(s) * a / n] * n
    assert list(frame.columns) == ["method", "against", "cosine"]
    assert len(frame) == 3 * 3
    assert value(frame, "fspo") == pytest.approx(cosine(clipped, true), rel=1e-12)
    assert value(frame, "no_clip") == pytest.approx(1, rel=1e-12)
    assert value(frame, "fspo", "no_clip") == pytest.approx(cosine(clipped, true), rel=1e-12)
    assert value(frame, "per_token", "fspo") == pytest.approx(cosine(scaled, clipped), rel=1e-12)
    assert value(frame, "fspo", "per_token") == value(frame, "per_token", "fspo")


@pytest.mark.parametrize(("name", "oracle"), [("fspo", methods.fspo), ("gspo", methods.gspo)])
def test_log_prob_directions_are_finite_differences_of_the_step_loss(name: str, oracle) -> None:
    batch = random_batch(4, spread=0.03)
    found = directions(LogProbSpace(batch), {name: METHODS[name]}, {}, max_new_tokens=LIMIT)
    slopes = step_gradient(oracle.response, oracle.DIVISOR, rows_of(batch), METHODS[name].hyper, {})
    # Central differences with h = 1e-6 are good to about 1e-9.
    torch.testing.assert_close(
        found.clipped[0], -torch.tensor(slopes, dtype=torch.float64)[batch.response_mask], rtol=1e-7, atol=1e-9
    )


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_its_gradient_over_its_own_count(name: str) -> None:
    method, batch = METHODS[name], random_batch(5, spread=0.3)
    found = directions(LogProbSpace(batch), {name: method}, {}, max_new_tokens=LIMIT)
    count = {
        Divisor.RESPONSES: len(batch.lengths),
        Divisor.TOKENS: int(batch.response_mask.sum()),
        Divisor.CONSTANT: LIMIT * len(batch.lengths),
    }[method.surrogate(batch, method.hyper, {}).divisor]
    for column, vectors in (("objective", found.clipped), ("unclipped", found.unclipped)):
        expected = gradient(method, batch, column=column)[batch.response_mask] / count
        torch.testing.assert_close(vectors[0], expected, rtol=1e-12, atol=0)


def test_zero_vectors_have_no_cosine() -> None:
    outside = sequence_batch((3.0, 3.0), (2, 3), (1.0, 1.0))
    frame = cosines(directions(LogProbSpace(outside), FIVE, {}, max_new_tokens=LIMIT))
    assert math.isnan(value(frame, "fspo"))
    assert math.isnan(value(frame, "no_clip", "fspo"))
    assert value(frame, "no_clip") == pytest.approx(1, rel=1e-12)
    pair = Directions(("a", "b"), torch.tensor([[3.0, 4.0], [0.0, 0.0]]), None)
    assert cosines(pair)["cosine"].isna().all()
    assert len(cosines(pair)) == 2


def make_log(seed: int = 0, runs: int = 2, steps: int = 2, updates: int = 3, rows: int = 8) -> UpdateLog:
    """A log in shuffled order; at update 0 every ratio is 1."""
    rng = np.random.default_rng(seed)
    parts = []
    for run, step, update in np.ndindex(runs, steps, updates):
        lengths = rng.integers(1, 40, rows)
        ratios = np.concatenate([rng.normal(-0.002, 0.05, n) if update else np.zeros(n) for n in lengths])
        parts.append(
            UpdateLog(
                problem_ids=np.arange(rows),
                seed=run,
                step=step,
                update=update,
                reward=np.zeros(rows),
                advantage=rng.choice([-0.5, 0.0, 0.5], rows),
                truncated=rng.random(rows) < 0.2,
                lengths=lengths,
                log_probs=ratios,
                old_log_probs=np.zeros_like(ratios),
                cells="c",
            )
        )
    log = UpdateLog.concat(parts)
    return log.rows(rng.permutation(len(log)))


LOGGED = {
    "fspo": with_hyper(METHODS["fspo"], drift="ema", target_clip_rate=0.3),
    "batch": with_hyper(METHODS["fspo"], drift="batch"),
    "no_clip": METHODS["no_clip"],
}


def test_a_log_is_taken_step_by_step_with_the_states_that_the_replay_has() -> None:
    log = make_log()
    frame = log_prob_cosines(LOGGED, log, {})
    keys = frame[["seed", "step", "update"]].drop_duplicates().to_numpy().tolist()
    assert keys == [[r, s, u] for r in range(2) for s in range(2) for u in (1, 2)]
    assert set(frame["cell"]) == {"c"}
    replayed = {name: replay(method, log, {}) for name, method in LOGGED.items()}
    # A sequence ratio keeps e^S A on L tokens or drops the response, so the cosine follows from the replay's flags.
    for key in keys:
        here = frame[(frame[["seed", "step", "update"]] == key).all(axis=1)]
        assert len(here) == 3 * 3
        for name, table in replayed.items():
            rows = table[(table[["seed", "step", "update"]] == key).all(axis=1)]
            power = rows["sign"].abs() * np.exp(2 * rows["log_ratio"]) * rows["length"]
            kept = math.sqrt((power * (1 - rows["clipped"])).sum() / power.sum())
            assert value(here, name) == pytest.approx(kept, rel=1e-5)
    assert value(frame[:9], "fspo") < 1
    assert log_prob_cosines(LOGGED, log.rows(log.update == 0), {}).empty


def test_a_summary_is_over_steps() -> None:
    frame = pd.DataFrame({"method": "m", "against": OWN, "cosine": [0.5, np.nan, 0.9, 0.7]})
    (row,) = cosine_summary(frame, (0.25, 0.5)).to_dict("records")
    assert row == pytest.approx({"method": "m", "against": OWN, "steps": 3, "mean": 0.7, "q0.25": 0.6, "q0.5": 0.7})


# --- parameter space ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored() -> tuple[object, list[ScoredBatch]]:
    """A tiny model a little away from the policy that sampled, and its responses in micro-batches."""
    model, tokenizer = tiny(0)
    rollouts = TransformersSampler(model, tokenizer).sample(requests(tokenizer, 6, 2), SamplingSettings(LIMIT))
    torch.manual_seed(1)
    parts = []
    for micro in micro_batches(rollouts, range(len(rollouts)), 80, "cpu"):
        with torch.no_grad():
            old, entropy = score_and_entropy(model, micro)
        signs = torch.tensor([[(-1.0) ** row * (1 + row / 7)] for row in micro.rows])
        parts.append(ScoredBatch(micro, PolicyBatch(old, old, signs, micro.response_mask, micro.lengths), entropy))
    with torch.no_grad():
        for p in model.parameters():
            p += 3e-3 * torch.randn_like(p)
    assert len(parts) > 2
    return model, parts


def separate_backward(model, parts: Sequence[ScoredBatch], method: Method, column: str) -> Tensor:
    """One method's gradient by its own forward and backward passes."""
    model.zero_grad(set_to_none=True)
    for part in parts:
        surrogate = method.surrogate(
            dataclasses.replace(part.batch, log_probs=score(model, part.micro)), method.hyper, {}
        )
        count = divisor_count(surrogate.divisor, whole_lengths(parts), LIMIT)
        (getattr(surrogate, column).sum() / count).backward()
    flat = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad(set_to_none=True)
    return flat


def test_parameter_directions_are_separate_backward_passes(scored) -> None:
    model, parts = scored
    found = directions(ParameterSpace(model, parts), NARROW, {}, max_new_tokens=LIMIT)
    assert all(p.grad is None for p in model.parameters())
    for i, method in enumerate(NARROW.values()):
        for column, vectors in (("objective", found.clipped), ("unclipped", found.unclipped)):
            alone = separate_backward(model, parts, method, column)
            # float32: the same sums, but scaled by the count after the backward pass and not before
            torch.testing.assert_close(vectors[i], alone, rtol=1e-4, atol=1e-6 * float(alone.abs().max()))
    frame = cosines(found)
    assert value(frame, "no_clip") == pytest.approx(1, abs=1e-12)
    assert value(frame, "fspo") < 0.999
    double = [x.double() for x in (found.clipped[0], found.unclipped[0])]
    assert value(frame, "fspo") == pytest.approx(float(torch.cosine_similarity(*double, dim=0)), abs=1e-12)


def test_k_methods_cost_one_forward_pass_and_a_backward_each(scored, monkeypatch) -> None:
    model, parts = scored
    forwards, backwards, grad = [], [], torch.autograd.grad

    def counted(outputs, inputs, *rest, **options):
        backwards.append(isinstance(inputs, list))
        return grad(outputs, inputs, *rest, **options)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    with monkeypatch.context() as patch:
        patch.setattr("suite.replay.update_directions.score", lambda *a, **k: forwards.append(1) or score(*a, **k))
        directions(ParameterSpace(model, parts), FIVE, {}, max_new_tokens=LIMIT, unclipped=False)
    assert len(forwards) == len(parts)
    assert sum(backwards) <= len(FIVE) * len(parts)


def test_logits_that_are_computed_in_pieces_change_nothing(scored, monkeypatch) -> None:
    model, parts = scored
    space, two = ParameterSpace(model, parts), {name: NARROW[name] for name in ("fspo", "no_clip")}
    whole = directions(space, two, {}, max_new_tokens=LIMIT)
    monkeypatch.setitem(
        suite.policy.vocabulary_tiles.LOGITS_AT_ONCE, "cpu", 10 * model.get_output_embeddings().weight.shape[0]
    )
    pieces = directions(space, two, {}, max_new_tokens=LIMIT)
    torch.testing.assert_close(pieces.clipped, whole.clipped, rtol=1e-4, atol=1e-6 * float(whole.clipped.abs().max()))


def test_frozen_and_unused_parameters_take_no_part(scored) -> None:
    model, parts = copy.deepcopy(scored[0]), scored[1]
    whole = directions(ParameterSpace(model, parts), FIVE, {}, max_new_tokens=LIMIT, unclipped=False)
    assert whole.unclipped is None
    assert OWN not in set(cosines(whole)["against"])
    first = next(iter(model.parameters()))
    first.requires_grad_(False)
    model.unused = torch.nn.Parameter(torch.ones(3))
    rest = directions(ParameterSpace(model, parts), FIVE, {}, max_new_tokens=LIMIT, unclipped=False)
    # `unused` belongs to the model itself, and those come first.
    assert rest.clipped.shape[1] == whole.clipped.shape[1] - first.numel() + 3
    assert rest.clipped[:, :3].eq(0).all()
    torch.testing.assert_close(rest.clipped[:, 3:], whole.clipped[:, first.numel() :], rtol=1e-4, atol=1e-7)


# --- after Adam -----------------------------------------------------------------------------------


def test_adam_direction_is_what_adamw_does() -> None:
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (5, 7)]
    optimizer = torch.optim.AdamW(parameters, lr=1.0, weight_decay=0.0, betas=(0.8, 0.95), eps=1e-3)
    for cut in (math.inf, 0.5, 100.0):
        ascent = torch.randn(12)
        expected = Adam.of(optimizer, cut).direction(ascent[None])[0]
        for p, g in zip(parameters, ascent.split([5, 7]), strict=True):
            p.data.zero_()
            p.grad = -g
        torch.nn.utils.clip_grad_norm_(parameters, cut)
        optimizer.step()
        torch.testing.assert_close(expected, torch.cat([p.data for p in parameters]), rtol=1e-6, atol=1e-6)


def test_adam_turns_a_first_direction_into_its_sign() -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(3))], lr=0.1)
    pair = Directions(("a", "b"), torch.tensor([[1.0, 2.0, 9.0], [5.0, -0.1, 3.0]]), None)
    after = Adam.of(optimizer).after(pair)
    torch.testing.assert_close(after.clipped, pair.clipped.sign())
    assert value(cosines(after), "a", "b") == pytest.approx(1 / 3, rel=1e-6)


def test_unequal_steps_of_adam_are_refused() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    optimizer = torch.optim.AdamW(parameters)
    parameters[0].grad = torch.ones(2)
    optimizer.step()
    with pytest.raises(ValueError):
        Adam.of(optimizer)


def test_the_predicted_step_is_the_step_that_the_trainer_takes(scored) -> None:
    model, parts, rate = copy.deepcopy(scored[0]), scored[1], 1e-3
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    learner = Learner(model, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0), 0.05, 0.0)
    for name in ("no_clip", "fspo", "grpo"):
        space = ParameterSpace(model, parts)
        found = Adam.of(optimizer, 0.05).after(directions(space, {name: NARROW[name]}, {}, max_new_tokens=LIMIT))
        before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        optimizer_step(learner, NARROW[name], parts, {}, LIMIT)
        moved = (torch.nn.utils.parameters_to_vector(model.parameters()).detach() - before) / rate
        # Parameters near 1 move by multiples of 6e-8, and entries near eps are ratios of rounding errors.
        assert float((found.clipped[0] - moved).norm() / moved.norm()) < 1e-3


# --- the bound ------------------------------------------------------------------------------------


def statement(shares: np.ndarray, acceptance: np.ndarray, updates: np.ndarray) -> dict[str, float]:
    """Of an update that only scales lengths."""
    scaled = torch.from_numpy((shares * acceptance) @ updates)
    return length_statement(LengthUpdates(shares, acceptance, torch.from_numpy(shares[:, None] * updates), scaled))


@given(st.integers(0, 10_000), st.integers(1, 8), st.floats(-1.0, 2.0), st.floats(0.0, 1.0))
def test_scaling_lengths_never_turns_an_update_beyond_the_bound(
    seed: int, bins: int, agreement: float, unfairness: float
) -> None:
    rng = np.random.default_rng(seed)
    shares, updates = rng.dirichlet(np.ones(bins)), rng.normal(agreement, 1.0, (bins, 6))
    acceptance = 0.5 * (1 + unfairness * rng.uniform(-1, 1, bins))
    found = statement(shares, acceptance, updates)
    lre = length_reweighting_error(acceptance, shares)[0]
    concentration = shares @ np.linalg.norm(updates, axis=1) / np.linalg.norm(shares @ updates)
    assert found["lre"] == pytest.approx(lre, abs=1e-12)
    assert found["concentration"] == pytest.approx(concentration, rel=1e-6)
    error = concentration * lre
    assert found["bound"] == pytest.approx(math.sqrt(1 - error**2) if error < 1 else math.nan, abs=1e-6, nan_ok=True)
    assert math.isnan(found["bound"]) or found["scaled"] >= found["bound"] - 1e-9
    assert found["cosine"] == pytest.approx(found["scaled"], abs=1e-9)
    assert found["departure"] < 1e-6
    assert found["violated"] == pytest.approx(0 if error < 1 else math.nan, abs=0, nan_ok=True)


@given(st.integers(0, 10_000), st.integers(1, 8), st.floats(0.0, 1.0))
def test_without_shared_tokens_lre_alone_is_the_bound(seed: int, bins: int, unfairness: float) -> None:
    rng = np.random.default_rng(seed)
    shares, lengths = rng.dirichlet(np.ones(bins)), rng.integers(1, 4, bins)
    owner = np.repeat(np.arange(bins), lengths)
    updates = np.where(np.arange(bins)[:, None] == owner, rng.normal(size=len(owner)), 0.0)
    found = statement(shares, 0.5 * (1 + unfairness * rng.uniform(-1, 1, bins)), updates)
    assert 1 - 1e-12 <= found["concentration"] <= math.sqrt(bins) + 1e-12
    assert math.isnan(found["bound"]) or found["bound"] <= found["orthogonal_bound"] + 1e-12
    assert math.isnan(found["orthogonal_bound"]) or found["scaled"] >= found["orthogonal_bound"] - 1e-9


def test_bins_of_equal_norm_have_the_largest_concentration() -> None:
    found = statement(np.full(4, 0.25), np.array([0.2, 0.8, 0.8, 0.8]), np.eye(4))
    assert found["concentration"] == pytest.approx(2)
    assert found["lre"] == pytest.approx(1 - 0.2 / 0.65)
    assert math.isnan(found["bound"])
    assert found["orthogonal_bound"] == pytest.approx(math.sqrt(1 - found["lre"] ** 2))


def test_updates_that_point_one_way_do_not_cancel_and_opposite_ones_do() -> None:
    halves, fair = np.full(2, 0.5), np.full(2, 0.75)
    along = statement(halves, fair, np.ones((2, 3)))
    assert (along["concentration"], along["bound"]) == (pytest.approx(1), pytest.approx(1))
    assert statement(halves, fair, np.array([[1.0], [-1.0]]))["concentration"] == math.inf


def test_a_real_clip_breaks_the_bound_although_it_is_fair() -> None:
    # Two short and two long responses, one of each beyond FSPO's band: LRE is 0 and promises that nothing turns. But
    # within a length the clip drops the larger ratio, which no scaling of that length can do.
    sums, lengths = (0.0, 0.2, 0.0, 0.4), (4, 4, 16, 16)
    space = LogProbSpace(sequence_batch(sums, lengths, (1.0, 1.0, 1.0, 1.0)))
    updates = per_length_updates(space, METHODS["fspo"], {}, torch.tensor([0, 0, 1, 1]))
    found = length_statement(updates)
    assert updates.responses.tolist() == [2, 2]
    assert updates.acceptance.tolist() == [0.5, 0.5]
    assert (found["lre"], found["bound"], found["scaled"]) == pytest.approx((0, 1, 1))
    power = [math.exp(2 * s) * n for s, n in zip(sums, lengths, strict=True)]
    assert found["cosine"] == pytest.approx(math.sqrt((power[0] + power[2]) / sum(power)))
    assert found["departure"] > 0.5
    assert found["violated"] == 1


def test_where_a_clip_takes_whole_lengths_the_assumption_holds() -> None:
    space = LogProbSpace(sequence_batch((0.0, 0.01, 0.4, 0.5, 0.0), (4, 4, 16, 16, 9), (1.0, -1.0, 1.0, 1.0, 0.0)))
    bins = torch.tensor([0, 0, 2, 2, 3])
    cut = per_length_updates(space, METHODS["fspo"], {}, bins)
    assert cut.responses.tolist() == [2, 0, 2, 0]
    np.testing.assert_array_equal(cut.acceptance, [1, np.nan, 0, np.nan])
    found = length_statement(cut)
    assert (found["lre"], found["departure"]) == pytest.approx((1, 0), abs=1e-7)
    assert math.isnan(found["violated"]), "K LRE is 1 or more: there is no bound to lie below"
    assert found["cosine"] == pytest.approx(found["scaled"])
    free = length_statement(per_length_updates(space, METHODS["no_clip"], {}, bins))
    assert [free[k] for k in ("lre", "bound", "cosine", "departure")] == pytest.approx([0, 1, 1, 0], abs=1e-7)


def test_nothing_that_teaches_or_nothing_kept_leaves_no_statement() -> None:
    for space in (
        LogProbSpace(sequence_batch((0.1, 0.2), (2, 3), (0.0, 0.0))),
        LogProbSpace(sequence_batch((3.0, 4.0), (2, 3), (1.0, 1.0))),
    ):
        found = length_statement(per_length_updates(space, METHODS["fspo"], {}, torch.tensor([0, 1])))
        assert all(math.isnan(found[key]) for key in ("lre", "bound", "scaled", "cosine", "violated"))


def test_length_updates_of_parameters_are_backward_passes_of_their_responses(scored) -> None:
    model, parts = scored
    method, rows = METHODS["dapo"].scaled(0.02), [row for part in parts for row in part.micro.rows]
    bins = torch.arange(len(rows)) % 3
    found = per_length_updates(ParameterSpace(model, parts), method, {}, bins)
    whole = directions(ParameterSpace(model, parts), {"m": method}, {}, max_new_tokens=LIMIT)
    count = divisor_count(Divisor.TOKENS, torch.cat([part.batch.lengths for part in parts]), LIMIT)
    assert count == divisor_count(Divisor.TOKENS, whole_lengths(parts), LIMIT)
    scale = 1e-5 * float(found.clipped.abs().max())
    torch.testing.assert_close(found.clipped / count, whole.clipped[0], rtol=1e-4, atol=scale / count)
    torch.testing.assert_close(found.unclipped.sum(0) / count, whole.unclipped[0], rtol=1e-4, atol=scale / count)
    kept = torch.zeros(3)
    for i in range(3):
        masks = [torch.tensor([bins[row] == i for row in part.micro.rows])[:, None] for part in parts]
        mine = [
            dataclasses.replace(part, batch=dataclasses.replace(part.batch, advantages=part.batch.advantages * mask))
            for part, mask in zip(parts, masks, strict=True)
        ]
        alone = separate_backward(model, mine, method, "unclipped")
        torch.testing.assert_close(found.unclipped[i] / count, alone, rtol=1e-4, atol=scale / count)
        for part in mine:
            with torch.no_grad():
                batch = dataclasses.replace(part.batch, log_probs=score(model, part.micro))
            flags = method.surrogate(batch, method.hyper, {}).clipped
            kept[i] += ((1 - flags.sum(1) / batch.lengths) * (batch.advantages[:, 0] != 0)).sum()
    assert found.responses.tolist() == np.bincount(bins).tolist()
    assert found.acceptance * found.responses == pytest.approx(kept.numpy(), rel=1e-5)
    stated = length_statement(found)
    assert math.isnan(stated["bound"]) or stated["scaled"] >= stated["bound"] - 1e-6


def test_bounds_of_a_log_hold_for_what_they_are_about() -> None:
    log, edges = make_log(rows=40), np.array([1, 10, 20, 40])
    frame = log_prob_bounds(LOGGED, log, {}, edges)
    assert len(frame) == 2 * 2 * 2 * len(LOGGED)
    defined = frame[frame["bound"].notna()]
    assert (defined["scaled"] >= defined["bound"] - 1e-6).all()
    assert (frame["scaled"] >= frame["orthogonal_bound"] - 1e-6)[frame["orthogonal_bound"].notna()].all()
    assert frame["concentration"].between(1, 2).all()
    measured = log_prob_cosines(LOGGED, log, {})
    own = measured[measured["against"] == OWN]["cosine"]
    np.testing.assert_allclose(frame["cosine"], own, rtol=1e-5)
    assert frame.loc[frame["method"] == "no_clip", "violated"].eq(0).all()
    assert frame.loc[frame["method"] == "fspo", "violated"].any()
    # Truncated responses have a bin of their own, whatever their length.
    first = log.rows((log.seed == 0) & (log.step == 0) & (log.update == 1))
    apart = torch.from_numpy(np.where(first.truncated, 3, np.digitize(first.lengths, edges) - 1))
    space = LogProbSpace(policy_batch(first, np.arange(len(first))))
    updates = per_length_updates(space, METHODS["gspo"], {}, apart)
    assert updates.responses[3] > 0
    (row,) = log_prob_bounds({"gspo": METHODS["gspo"]}, first, {}, edges)[list(frame.columns[5:])].to_dict("records")
    assert row == pytest.approx(length_statement(updates), nan_ok=True)
    with pytest.raises(ValueError, match="do not cover"):
        log_prob_bounds(LOGGED, log, {}, np.array([2, 10]))

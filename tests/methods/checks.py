"""The judges: does a method say what its oracle says? Each returns the first disagreement as a sentence, or None."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

from methods import step_gradient, step_loss
from strategies import METHODS, rows_of
from suite.methods.trial_batches import batch_for, random_credit_input, with_hyper
from suite.types import Divisor, Level, Method, PolicyBatch, Surrogate

ORACLES: Mapping[str, ModuleType] = {name: import_module(f"methods.{name}") for name in METHODS}
MAX_NEW_TOKENS = 16
"""The run's token limit that a constant divisor is made of."""

RATIO_VARIANTS: list[dict[str, Any]] = [{}, {"clip_low": 1e-4, "clip_high": 1e-3}, {"clip_low": 0.3, "clip_high": 0.05}]
DUAL_VARIANTS: list[dict[str, Any]] = [{"dual_clip": 1.3}, {"dual_clip": 2.0, "clip_low": 0.1}]
ROOT_VARIANTS: list[dict[str, Any]] = [{}, {"c_low": 0.003, "c_high": 0.1}, {"c_low": 0.2, "c_high": 0.004}]
VARIANTS: Mapping[str, list[tuple[dict[str, Any], dict[str, float]]]] = {
    "ppo": [(changes, {}) for changes in RATIO_VARIANTS + DUAL_VARIANTS],
    "grpo": [(changes, {}) for changes in RATIO_VARIANTS + DUAL_VARIANTS],
    "rloo": [(changes, {}) for changes in RATIO_VARIANTS],
    "gspo": [(changes, {}) for changes in RATIO_VARIANTS],
    "gspo_wide": [(changes, {}) for changes in RATIO_VARIANTS],
    "gspo_token": [(changes, {}) for changes in RATIO_VARIANTS],
    "luspo": [(changes, {}) for changes in RATIO_VARIANTS],
    "dr_grpo": [(changes, {}) for changes in RATIO_VARIANTS + DUAL_VARIANTS],
    "dapo": [(changes, {}) for changes in RATIO_VARIANTS + DUAL_VARIANTS],
    "gspo_sqrt": [(changes, {}) for changes in ROOT_VARIANTS],
    "gmpo": [({}, {}), ({"log_low": 0.01, "log_high": 0.2}, {}), ({"log_low": 0.1, "log_high": 0.02}, {})],
    "cispo": [({}, {}), ({"max_weight": 1.05}, {}), ({"max_weight": 1.5}, {})],
    "sapo": [({}, {}), ({"tau_pos": 0.3, "tau_neg": 2.1}, {})],
    "vespo": [({}, {}), ({"k_pos": 1.3, "lambda_pos": 0.7, "k_neg": 0.2, "lambda_neg": 4.1}, {})],
    "dppo_tv": [({}, {}), ({"delta": 0.01}, {}), ({"delta": 0.003, "max_weight": 1.1}, {})],
    "dppo_kl": [({}, {}), ({"delta": 0.002}, {}), ({"delta": 0.0003, "max_weight": 1.1}, {})],
    "ctpo": [(changes, {}) for changes in [*ROOT_VARIANTS, {"c_dual": None}, {"c_dual": 0.3, "c_high": 0.2}]],
    "reinforce": [({}, {})],
    "no_clip": [({}, {})],
    "fspo_per_token": [({}, {}), ({"c_low": 0.01, "drift": "batch", "c_dual": 0.1}, {"drift": 0.03, "sigma": 0.4})],
    "fspo": [
        ({}, {}),
        ({"c_low": 0.01, "c_high": 0.2}, {"drift": 0.5, "sigma": 2.0}),
        ({"c_dual": 0.06}, {}),
        ({"drift": "batch"}, {}),
        ({"drift": "batch", "c_dual": 0.1}, {"drift": 0.03, "sigma": 0.4}),
        ({"drift": "ema", "c_high": 0.05}, {"drift": -0.02, "sigma": 0.4}),
        ({"drift": 0.01}, {"drift": -0.9}),
        ({"target_clip_rate": 0.1}, {}),
        ({"target_clip_rate": 0.3, "drift": "ema"}, {"drift": 0.01, "sigma": 0.02}),
    ],
}
"""(hyper-parameter changes, state) under which every method is compared with its oracle."""


def close(ours: float, theirs: float, rtol: float, atol: float) -> bool:
    """Equal within a tolerance; NaN never is."""
    return ours == theirs or math.isclose(ours, theirs, rel_tol=rtol, abs_tol=atol)


def examples(method: Method) -> Iterator[tuple[str, Method, PolicyBatch, dict[str, float]]]:
    """(label, method with changed hyper-parameters, batch, state): mixed, single-token, far off-policy, on-policy."""
    for changes, state in VARIANTS[method.name]:
        changed = with_hyper(method, **changes)
        for seed in range(4):
            yield f"{changes} {state} mixed seed={seed}", changed, batch_for(method, seed), state
        single = batch_for(method, 11, tokens=1)
        yield f"{changes} {state} one token", changed, single, state
        far = batch_for(method, 12, rows=4, spread=0.8)
        yield f"{changes} {state} far off-policy", changed, far, state
        on_policy = dataclasses.replace(batch_for(method, 13), old_log_probs=batch_for(method, 13).log_probs)
        yield f"{changes} {state} on-policy", changed, on_policy, state


def compare_values(
    method: Method, batch: PolicyBatch, state: Mapping[str, float], *, rtol: float = 1e-11, atol: float = 1e-13
) -> str | None:
    """Objectives, weights, flags, divisor and step loss against the oracle."""
    oracle = ORACLES[method.name]
    surrogate = method.surrogate(batch, method.hyper, state)
    count, width = batch.response_mask.shape
    shape = (count, width if method.level == Level.TOKEN else 1)
    if surrogate.divisor != Divisor(oracle.DIVISOR):
        return f"divisor {surrogate.divisor}, expected {oracle.DIVISOR}"
    for name in ("objective", "unclipped"):
        if getattr(surrogate, name).shape != (count,):
            return f"{name} has shape {tuple(getattr(surrogate, name).shape)}, expected {(count,)}"
    for name in ("log_weight", "outside_band", "clipped"):
        if getattr(surrogate, name).shape != shape:
            return f"{name} has shape {tuple(getattr(surrogate, name).shape)}, expected {shape}"
    rows = rows_of(batch)
    for i, row in enumerate(rows):
        expected = oracle.response(row, method.hyper, state)
        counted = [t for t in range(shape[1]) if shape[1] == 1 or row.mask[t]]
        pairs = [("objective", surrogate.objective[i], expected.objective)]
        pairs += [("unclipped", surrogate.unclipped[i], expected.unclipped)]
        pairs += [(f"log_weight[{t}]", surrogate.log_weight[i, t], expected.log_weight[t]) for t in counted]
        for name, got, want in pairs:
            if not close(got.item(), want, rtol, atol):
                return f"row {i}: {name} is {got.item()!r}, expected {want!r}"
        for name, got, want in (
            ("outside_band", surrogate.outside_band, expected.outside),
            ("clipped", surrogate.clipped, expected.clipped),
        ):
            if got[i].tolist() != want:
                return f"row {i}: {name} is {got[i].tolist()}, expected {want}"
    loss = loss_of(surrogate, batch).item()
    want = step_loss(oracle.response, oracle.DIVISOR, rows, method.hyper, state, max_new_tokens=MAX_NEW_TOKENS)
    return None if close(loss, want, rtol, atol) else f"step loss is {loss!r}, expected {want!r}"


def loss_of(surrogate: Surrogate, batch: PolicyBatch) -> torch.Tensor:
    """What a trainer makes of a surrogate in one step."""
    responses, tokens = len(batch.lengths), int(batch.response_mask.sum())
    counts = {
        Divisor.RESPONSES: responses,
        Divisor.TOKENS: max(tokens, 1),
        Divisor.CONSTANT: responses * MAX_NEW_TOKENS,
    }
    return -surrogate.objective.sum() / counts[surrogate.divisor]


def compare_gradient(method: Method, batch: PolicyBatch, state: Mapping[str, float]) -> str | None:
    """d step loss / d log_probs against finite differences of the oracle, except in rows next to a kink."""
    oracle = ORACLES[method.name]
    log_probs = batch.log_probs.detach().clone().requires_grad_(True)
    surrogate = method.surrogate(dataclasses.replace(batch, log_probs=log_probs), method.hyper, state)
    if not surrogate.objective.requires_grad:
        return "the objective carries no gradient"
    (got,) = torch.autograd.grad(loss_of(surrogate, batch), log_probs)
    rows = rows_of(batch)
    want = step_gradient(oracle.response, oracle.DIVISOR, rows, method.hyper, state, max_new_tokens=MAX_NEW_TOKENS)
    for i, row in enumerate(rows):
        if oracle.response(row, method.hyper, state).margin < 5e-6:
            continue
        for t in range(len(row.mask)):
            if not close(got[i, t].item(), want[i][t], rtol=1e-6, atol=1e-8):
                return f"row {i}: gradient[{t}] is {got[i, t].item()!r}, expected {want[i][t]!r}"
    return None


def check_against_oracle(method: Method) -> str | None:
    """The first example on which the method's surrogate and its oracle disagree, or None."""
    for label, changed, batch, state in examples(method):
        failure = compare_values(changed, batch, state) or compare_gradient(changed, batch, state)
        if failure:
            return f"{method.name} {label}: {failure}"
    return None


STANDARDISED: list[dict[str, Any]] = [{}, {"std_ddof": 0, "std_eps": 1e-6}, {"std_eps": 0.0}]
CREDIT_VARIANTS: Mapping[str, list[dict[str, Any]]] = {
    **{name: STANDARDISED if hasattr(method.hyper, "std_ddof") else [{}] for name, method in METHODS.items()},
    "ppo": [{}, {"gamma": 0.9, "gae_lambda": 0.8}, {"gae_lambda": 0.95, "whiten": False}],
}


def check_credit_against_oracle(method: Method, *, holes: bool = False) -> str | None:
    """The first step on which the method's advantages or returns differ from the oracle's, or None."""
    oracle = ORACLES[method.name]
    for changes in CREDIT_VARIANTS[method.name]:
        changed = with_hyper(method, **changes)
        for seed in range(6):
            given = random_credit_input(seed, holes=holes)
            assert given.values is not None
            masks, groups = given.response_mask.tolist(), given.group_ids.tolist()
            advantages, returns = oracle.credit(
                given.rewards.tolist(), groups, masks, given.values.tolist(), changed.hyper
            )
            credit = changed.credit(given, changed.hyper)
            columns: list[tuple[str, torch.Tensor | None, list[list[float]]]] = [
                ("advantages", credit.advantages, advantages)
            ]
            if returns is not None:
                columns.append(("returns", credit.returns, returns))
            for name, got, want in columns:
                if got is None or got.shape != (len(want), len(want[0])):
                    return f"{method.name} {changes} seed={seed}: {name} has the wrong shape"
                for i, row in enumerate(want):
                    for t, number in enumerate(row):
                        counts = len(row) == 1 or masks[i][t]
                        if counts and not close(got[i, t].item(), number, rtol=1e-10, atol=1e-12):
                            return f"{method.name} {changes} seed={seed}: {name}[{i}, {t}] {got[i, t].item()} {number}"
    return None

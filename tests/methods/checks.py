"""The judges: does a method say what its oracle says? Each returns the first disagreement as a sentence, or None."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

from methods import step_gradient, step_loss
from methods.facts import FACTS
from strategies import rows_of
from suite.methods.trial_batches import batch_for, random_credit_input, with_hyper
from suite.types import Divisor, Level, Method, PolicyBatch, Surrogate


@cache
def oracle_of(name: str) -> ModuleType:
    """The module of tests/methods that holds a method's equation and facts.

    AssertionError where it is missing or lacks a fact: one sentence that says what belongs where.
    """
    place = f"tests/methods/{name}.py"
    if find_spec(f"methods.{name}") is None:
        raise AssertionError(
            f"{place} is missing: it holds the equation of {name} as loops over floats, and as its facts "
            f"{', '.join(FACTS)} (tests/methods/facts.py says what each of them is)"
        )
    module = import_module(f"methods.{name}")
    missing = [fact for fact in FACTS if not hasattr(module, fact)]
    if "PAIRINGS" in missing and getattr(module, "WITHOUT_PEER", ""):
        missing.remove("PAIRINGS")
    if missing:
        raise AssertionError(f"{place} lacks " + "; ".join(f"{fact}: {FACTS[fact]}" for fact in missing))
    return module


def stated(name: str, fact: str) -> list[Any]:
    """A list that a method's module states, to parametrize tests by; empty where the module or the list is missing.

    What is missing fails in `test_every_method_states_its_facts`, and in every test that asks `oracle_of`.
    """
    return getattr(import_module(f"methods.{name}"), fact, []) if find_spec(f"methods.{name}") else []


MAX_NEW_TOKENS = 16
"""The run's token limit that a constant divisor is made of."""


def close(ours: float, theirs: float, rtol: float, atol: float) -> bool:
    """Equal within a tolerance; NaN never is."""
    return ours == theirs or math.isclose(ours, theirs, rel_tol=rtol, abs_tol=atol)


def examples(method: Method) -> Iterator[tuple[str, Method, PolicyBatch, dict[str, float]]]:
    """(label, method with changed hyper-parameters, batch, state): mixed, single-token, far off-policy, on-policy."""
    for changes, state in oracle_of(method.name).VARIANTS:
        changed = with_hyper(method, **changes)
        for seed in range(4):
            yield f"{changes} {state} mixed seed={seed}", changed, batch_for(method, seed), state
        single = batch_for(method, 11, tokens=1)
        yield f"{changes} {state} one token", changed, single, state
        far = batch_for(method, 12, rows=4, spread=0.8)
        yield f"{changes} {state} far off-policy", changed, far, state
        on_policy = dataclasses.replace(batch_for(method, 13), old_log_probs=batch_for(method, 13).log_probs)
        yield f"{changes} {state} on-policy", changed, on_policy, state
        certain = dataclasses.replace(far, old_log_probs=torch.zeros_like(far.old_log_probs))
        yield f"{changes} {state} old probability of exactly 1", changed, certain, state


def compare_values(
    method: Method, batch: PolicyBatch, state: Mapping[str, float], *, rtol: float = 1e-11, atol: float = 1e-13
) -> str | None:
    """Objectives, weights, flags, divisor and step loss against the oracle."""
    oracle = oracle_of(method.name)
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
    oracle = oracle_of(method.name)
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


def check_credit_against_oracle(method: Method, *, holes: bool = False) -> str | None:
    """The first step on which the method's advantages or returns differ from the oracle's, or None."""
    oracle = oracle_of(method.name)
    for changes in oracle.CREDIT_VARIANTS:
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


def check_defaults(method: Method) -> str | None:
    """The hyper-parameters whose default is not the stated one, or None."""
    found, want = dataclasses.asdict(method.hyper), oracle_of(method.name).DEFAULTS
    return None if found == want else f"{method.name}: defaults {found}, stated are {want}"


def check_value_loss(method: Method) -> str | None:
    """The first batch on which the value loss is not the oracle's `value_loss(row, hyper)`, or None."""
    if method.value_loss is None:
        return None
    if not hasattr(oracle_of(method.name), "value_loss"):
        return f"tests/methods/{method.name}.py lacks value_loss(row, hyper) of one response: the method has one"
    for seed in range(3):
        batch = batch_for(method, seed)
        got = method.value_loss(batch, method.hyper).tolist()
        want = [oracle_of(method.name).value_loss(row, method.hyper) for row in rows_of(batch)]
        if not all(close(a, b, rtol=1e-12, atol=0) for a, b in zip(got, want, strict=True)):
            return f"{method.name} seed={seed}: value loss {got}, expected {want}"
    return None


def check_estimates(method: Method) -> str | None:
    """The first batch after which the running estimates are not those of the oracle's `observe`, or None."""
    if method.observe is None:
        return None
    if not hasattr(oracle_of(method.name), "observe"):
        return f"tests/methods/{method.name}.py lacks observe(rows, hyper, state): the method has running estimates"
    for label, changed, batch, state in examples(method):
        assert changed.observe is not None
        got = changed.observe(batch, changed.hyper, state)
        want = oracle_of(method.name).observe(rows_of(batch), changed.hyper, state)
        if got.keys() != want.keys() or not all(close(got[key], want[key], rtol=1e-10, atol=1e-12) for key in want):
            return f"{method.name} {label}: estimates {dict(got)}, expected {want}"
    return None


def disagreement(method: Method) -> str | None:
    """The first thing in which a method is not what its module in tests/methods states, or None."""
    checks: tuple[Callable[[Method], str | None], ...] = (
        check_defaults,
        check_against_oracle,
        check_credit_against_oracle,
        partial(check_credit_against_oracle, holes=True),
        check_value_loss,
        check_estimates,
    )
    return next((failure for check in checks if (failure := check(method))), None)

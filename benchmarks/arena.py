"""What many methods on the same rollouts cost, as ratios of two programs that are timed in turn.

    python -m benchmarks.arena --out results/bench/arena.json [--bank BANK] [--rounds 15] [--quick]

replay: one no-grad forward over all responses and 17 surrogates on its log-probs, against the forward alone.
gradients: parameter-space gradients of 5 methods from one forward, against 5 separate forward-backward passes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from benchmarks.clock import Measurement, table, timed
from benchmarks.ratios import Ratio
from suite.arithmetic import divisor_count
from suite.commands.console import complaints, console, say
from suite.config import TrainConfig, plain_data
from suite.experiments.names import METHODS
from suite.experiments.recipe_book import FIVE
from suite.experiments.recipes import recipe
from suite.experiments.start import load, source_of
from suite.findings.bank_model import LabModel
from suite.methods.trial_batches import gradient, judged
from suite.policy.scoring import score
from suite.records.bank import Bank
from suite.records.files import write_atomically
from suite.records.provenance import machine, versions
from suite.replay.update_directions import ParameterSpace, directions
from suite.report.terminal import show
from suite.training.step_batches import credited, mini_batches, scored
from suite.training.trainer import build_learner
from suite.training.update import optimizer_step
from suite.training.whole_batch import ScoredBatch, whole_batch, whole_lengths
from suite.types import Method, Rollout, Surrogate, UserError

SCHEMA = "fspo-bench-1"
REPLAYED = (
    "rloo",
    "reinforce",
    "grpo",
    "dr_grpo",
    "dapo",
    "cispo",
    "sapo",
    "gspo",
    "gspo_wide",
    "gspo_token",
    "luspo",
    "gmpo",
    "vespo",
    "dppo_tv",
    "dppo_kl",
    "ctpo",
    "fspo",
)
"""The methods of the first measurement: fixed, so that a ratio means the same in a year. No PPO, no controls."""
REPLAY_LIMIT = 1.3
GRADIENT_SLACK = 1.1
LEAST_ROUNDS = 7
DRIVER = "no_clip"
SMALL_STEP = 1e-6
"""Rate of the one optimizer step before the clock: ratios differ from 1, but no micro-batch is clipped as a whole,
whose backward a shared forward would save."""
AGREEMENT = 1e-4
"""Largest relative difference between the two programs' gradients (float32, summed in another order)."""


@dataclass(frozen=True)
class Material:
    """One policy a few steps after its rollouts, and these rollouts as one large optimizer step."""

    model: Any
    parts: Sequence[ScoredBatch]
    max_new_tokens: int
    facts: Mapping[str, Any]


def gradient_limit(methods: int) -> float:
    """(1 + 2k) / (3k) and a tenth more: a backward takes two forwards, and k separate passes k of each.

    >>> round(gradient_limit(5), 3)
    0.807
    """
    return GRADIENT_SLACK * (1 + 2 * methods) / (3 * methods)


# --- what is measured on --------------------------------------------------------------------------


def recorded_here(quick: bool) -> tuple[Any, Sequence[Rollout], TrainConfig, int, str]:
    """Model, rollouts, config, token limit and digest of the demo's first step, sampled in this process."""
    demo = recipe("demo")
    if quick:
        demo = replace(demo, train=replace(demo.train, problems_per_step=4, samples_per_problem=4, max_new_tokens=48))
    loaded, sampler = load(demo.train)
    source = source_of(demo, loaded, sampler, 0)
    recorded = source.record(0)
    return loaded.model, recorded.rollouts, demo.train, source.settings.max_new_tokens, recorded.digest


def from_bank(folder: Path) -> tuple[Any, Sequence[Rollout], TrainConfig, int, str]:
    """The same of a bank's first recording and its start model; UserError where that model is not here."""
    found = LabModel(Bank.open(folder), {}, 0, print)
    limit = int(found.first.header["sampling"]["max_new_tokens"])
    return found.loaded.model, found.first.rollouts, found.config, limit, found.first.digest


def prepared(
    model: Any, rollouts: Sequence[Rollout], config: TrainConfig, max_new_tokens: int, digest: str
) -> Material:
    """Old log-probs and advantages of all responses in one mini-batch; then the policy takes one small step on them."""
    config = replace(
        config, mini_batches=1, epochs=1, kl_coefficient=0.0, learning_rate=SMALL_STEP, schedule="constant"
    )
    learner = build_learner(model, METHODS[DRIVER], config)
    minis = mini_batches(rollouts, config, 0, 0, model.device)
    (parts,) = credited(METHODS[DRIVER], [[scored(learner, micro, rollouts) for micro in minis[0]]], rollouts)
    optimizer_step(learner, METHODS[DRIVER], parts, {}, max_new_tokens)
    learner.optimizer.zero_grad(set_to_none=True)
    facts = {
        "rollouts": digest,
        "responses": len(rollouts),
        "response_tokens": sum(len(r.response_ids) for r in rollouts),
        "prompt_tokens": sum(len(r.prompt_ids) for r in rollouts),
        "micro_batches": len(parts),
        "parameters": sum(p.numel() for p in model.parameters()),
        "config": plain_data(config),
    }
    return Material(model, parts, max_new_tokens, facts)


# --- the programs ---------------------------------------------------------------------------------


@torch.no_grad()
def forward(material: Material) -> list[Tensor]:
    """Log-probs of all responses under the policy."""
    return [score(material.model, part.micro) for part in material.parts]


@torch.no_grad()
def forward_and_methods(material: Material, methods: Mapping[str, Method]) -> dict[str, Surrogate]:
    """The same forward, then every method's surrogate of all responses at once, as a replay has them."""
    batch = whole_batch(material.parts, forward(material))
    return {name: judged(method, batch) for name, method in methods.items()}


def shared_gradients(material: Material, methods: Mapping[str, Method]) -> Tensor:
    """Update directions of all methods from one forward, [k, P]."""
    space = ParameterSpace(material.model, material.parts)
    return directions(space, methods, {}, max_new_tokens=material.max_new_tokens, unclipped=False).clipped


def separate_gradients(material: Material, methods: Mapping[str, Method]) -> Tensor:
    """The same, a forward and a backward for each method, as a training step takes them."""
    parameters = [p for p in material.model.parameters() if p.requires_grad]
    rows = []
    for method in methods.values():
        material.model.zero_grad(set_to_none=True)
        for part in material.parts:
            batch = replace(part.batch, log_probs=score(material.model, part.micro))
            surrogate = judged(method, batch)
            count = divisor_count(surrogate.divisor, whole_lengths(material.parts), material.max_new_tokens)
            (surrogate.objective.sum() / count).backward()
        rows.append(
            torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])
        )
    material.model.zero_grad(set_to_none=True)
    return torch.stack(rows)


def checked(material: Material, replayed: Mapping[str, Method], five: Mapping[str, Method]) -> dict[str, float]:
    """What says that the programs did their work; UserError where they did not, for their times would mean nothing."""
    found = forward_and_methods(material, replayed)
    for name, surrogate in found.items():
        if not bool(torch.isfinite(surrogate.objective).all()):
            raise UserError(f"{name}: its objective is not finite on these rollouts; take others with --bank")
    one, other = shared_gradients(material, five), separate_gradients(material, five)
    norms = other.norm(dim=1)
    if not bool((norms > 0).all()):
        names = ", ".join(name for name, norm in zip(five, norms.tolist(), strict=True) if not norm > 0)
        raise UserError(f"gradients: {names}: none on these rollouts (all rewards equal, or all clipped?); take others")
    gap = float(((one - other).norm(dim=1) / norms).max())
    if not gap <= AGREEMENT:
        raise UserError(f"gradients: the two programs differ by {gap:.1e} of the gradient; take others with --bank")
    return {
        "gradient_difference": gap,
        "largest_log_ratio": float(found["fspo"].log_weight.abs().max()),
        "backwards_skipped": _skipped(material, five),
    }


def _skipped(material: Material, methods: Mapping[str, Method]) -> float:
    """Share of the backward passes that the shared forward saves because all responses of a micro-batch are clipped."""
    batches = [replace(p.batch, log_probs=x) for p, x in zip(material.parts, forward(material), strict=True)]
    empty = [not bool(gradient(method, batch).any()) for method in methods.values() for batch in batches]
    return sum(empty) / len(empty)


def measurements(
    material: Material, replayed: Mapping[str, Method], five: Mapping[str, Method]
) -> tuple[Measurement, ...]:
    """The two comparisons with their limits."""
    return (
        Measurement(
            "replay",
            f"a forward and {len(replayed)} methods / a forward",
            REPLAY_LIMIT,
            ("forward and methods", lambda: forward_and_methods(material, replayed)),
            ("forward", lambda: forward(material)),
        ),
        Measurement(
            "gradients",
            f"{len(five)} gradients from one forward / {len(five)} passes",
            gradient_limit(len(five)),
            ("shared forward", lambda: shared_gradients(material, five)),
            ("separate passes", lambda: separate_gradients(material, five)),
        ),
    )


def run(out: Path, bank: Path | None = None, rounds: int = 15, quick: bool = False) -> None:
    """Time what many methods on the same rollouts cost, print the ratios and write everything as JSON.

    Args:
        out: The JSON file.
        bank: Take the first rollouts and the start model of this bank instead of the demo's.
        rounds: Rounds in which both programs of a ratio run in turn.
        quick: Two rounds on a few short responses: tries the script, measures nothing.
    """
    if rounds < LEAST_ROUNDS:
        raise UserError(f"--rounds {rounds}: at least {LEAST_ROUNDS}; to try the script, --quick")
    rounds = 2 if quick else rounds
    load_before = os.getloadavg()
    material = prepared(*(recorded_here(quick) if bank is None else from_bank(bank)))
    replayed, five = ({name: METHODS[name] for name in names} for names in (REPLAYED, FIVE))
    checks = checked(material, replayed, five)
    found = [timed(one, rounds) for one in measurements(material, replayed, five)]
    content = {
        "schema": SCHEMA,
        "command": ["python", "-m", "benchmarks.arena", *sys.argv[1:]],
        "quick": quick,
        "rounds": rounds,
        "environment": {**versions(), **machine()},
        "load_average": {"before": load_before, "after": os.getloadavg()},
        "material": material.facts,
        "methods": {"replay": REPLAYED, "gradients": FIVE},
        "checks": checks,
        "measurements": found,
        "ratios": [
            asdict(Ratio(one["name"], one["what"], one["ratio_of_medians"], one["limit"], "lower")) for one in found
        ],
    }
    write_atomically(out, json.dumps(content, indent=1) + "\n")
    show(table(found), f"{rounds} rounds in turn, {material.facts['responses']} responses", console)
    say([f"load average {load_before[0]:.2f} before, {os.getloadavg()[0]:.2f} after; all times: {out}"])


if __name__ == "__main__":
    try:
        tyro.cli(run, prog="python -m benchmarks.arena")
    except UserError as error:
        complaints.print(f"benchmarks.arena: error: {error}", markup=False)
        sys.exit(2)

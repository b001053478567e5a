"""The same optimizer steps of every method, by one process or by several: what `test_many_processes` compares.

Started by torchrun as a program, it writes what its leading process saw to the folder it is given, with a checkpoint
(many.safetensors) and what it read from that of one process (one.safetensors).
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from exact_model import with_exact_norms
from small_world import small_config, tiny
from suite.experiments.names import METHODS
from suite.methods.trial_batches import with_hyper
from suite.policy.ranks import ALONE, Ranks, full_tensor, leave, ranks_here
from suite.training.checkpoint import load_checkpoint, save_checkpoint
from suite.training.sharding import sharded_copy
from suite.training.step_batches import credited, mini_batches, scored_step
from suite.training.trainer import build_learner
from suite.training.update import Learner, critic_step, optimizer_step
from suite.types import FinishReason, Rollout, Verdict

LENGTHS = (1, 24, 2, 3, 24, 17, 1, 9, 5, 6, 2)
LIMIT = 24
DTYPES = {"float64": torch.float64, "float32": torch.float32}
CHECKPOINTED = "grpo, activations computed twice"
TREES = ("fspo, few-shot prompts", "ppo, few-shot prompts")
"""Prompts that begin alike, so that micro-batches are trees."""
FEW_SHOT = tuple(range(1, 12)) * 3
VARIANTS = {
    **METHODS,
    "fspo, batch drift": with_hyper(METHODS["fspo"], drift="batch"),
    CHECKPOINTED: METHODS["grpo"],
    **{name: METHODS[name.partition(",")[0]] for name in TREES},
    "fspo, target rate": with_hyper(METHODS["fspo"], drift="ema", target_clip_rate=0.2),
}


def uneven_rollouts(start: tuple[int, ...] = ()) -> list[Rollout]:
    """Eleven responses of 1 to 24 tokens to three problems, none of whose groups is all right or all wrong."""
    rng = random.Random(0)
    return [
        Rollout(
            problem_id=f"p{i % 3}",
            sample_index=i // 3,
            seed=i,
            prompt_ids=(*start, *(rng.randrange(1, 12) for _ in range(2 + i % 3))),
            response_ids=tuple(rng.randrange(1, 12) for _ in range(length)),
            sampler_log_probs=(-1.0,) * length,
            finish_reason=FinishReason.STOP,
            verdict=Verdict.CORRECT if i % 2 else Verdict.WRONG,
            reward=float(i % 2),
        )
        for i, length in enumerate(LENGTHS)
    ]


def exact(model: Any, name: str, dtype: str) -> Any:
    """The model, in float64 throughout for trees: processes share a tree otherwise than one, and round otherwise."""
    return with_exact_norms(model) if name in TREES and dtype == "float64" else model


def learner_parts(learner: Learner) -> dict[str, Any]:
    """What is trained, by name."""
    return {"policy": learner.model} | ({} if learner.critic is None else {"critic": learner.critic})


def steps_of(name: str, dtype: str, ranks: Ranks) -> dict[str, Tensor]:
    """Two epochs of two optimizer steps: losses, norms and whole gradients of each, log-ratios, weights at the end.

    Five or six responses a step in micro-batches of at most 40 tokens: processes have different numbers of them.
    """
    method, rollouts = VARIANTS[name], uneven_rollouts(FEW_SHOT if name in TREES else ())
    model = exact(tiny()[0].to(DTYPES[dtype]), name, dtype)
    settings = {"kl_coefficient": 0.05, "activation_checkpointing": name == CHECKPOINTED}
    config = small_config(mini_batches=2, tokens_per_micro_batch=70 if name in TREES else 40, **settings)
    start = sharded_copy(model, ranks.count) if ranks.sharded else exact(tiny()[0].to(DTYPES[dtype]), name, dtype)
    learner = build_learner(model, method, config, 0, ranks)
    minis = mini_batches(rollouts, config, 0, 0, "cpu", ranks)
    assert all((micro.packing.paths is not None) == (name in TREES) for mini in minis for micro in mini)
    parts = credited(method, scored_step(learner, minis, rollouts, start), rollouts, ranks)
    for mini in parts:
        critic_step(learner, method, mini, clip_to_old=False)
    parts = credited(method, scored_step(learner, minis, rollouts, start), rollouts, ranks)
    found: dict[str, Tensor] = {}
    state = {}
    for update, mini in enumerate([*parts, *parts]):
        report, state = optimizer_step(learner, method, mini, state, LIMIT)
        numbers = (report.objective, report.grad_norm, report.kl_to_start, report.value_loss, *state.values())
        found[f"{update} losses"] = torch.tensor([x or 0.0 for x in numbers], dtype=torch.float64)
        found[f"{update} rows"] = torch.tensor(report.rows)
        found[f"{update} log ratios"] = report.token_log_ratios
        found[f"{update} log weights"] = report.log_weights
        found[f"{update} clipped"] = torch.stack([report.outside_share, report.clipped_share])
        for part, module in learner_parts(learner).items():
            gradients = [
                torch.zeros_like(full_tensor(p)) if p.grad is None else full_tensor(p.grad) for p in module.parameters()
            ]
            found[f"{update} {part} gradient"] = torch.cat([x.flatten() for x in gradients])
    for part, module in learner_parts(learner).items():
        found[f"{part} weights"] = torch.cat([full_tensor(p.detach()).flatten() for p in module.parameters()])
    return found


def moments_of(learner: Learner) -> dict[str, Tensor]:
    """Whole weights and moments of the policy and the critic."""
    found: dict[str, Tensor] = {}
    optimizers = {"policy": learner.optimizer, "critic": learner.critic_optimizer}
    for part, module in learner_parts(learner).items():
        optimizer = optimizers[part]
        assert optimizer is not None
        for i, p in enumerate(module.parameters()):
            found[f"{part} {i}"] = full_tensor(p.detach())
            found |= {f"{part} {i} {name}": full_tensor(x) for name, x in optimizer.state[p].items()}
    return found


def trained_learner(ranks: Ranks, steps: int) -> Learner:
    """PPO's policy and critic after some optimizer steps on the uneven responses."""
    method, rollouts = METHODS["ppo"], uneven_rollouts()
    config = small_config(mini_batches=2, tokens_per_micro_batch=40)
    learner = build_learner(tiny()[0], method, config, 0, ranks)
    minis = mini_batches(rollouts, config, 0, 0, "cpu", ranks)
    for mini in credited(method, scored_step(learner, minis, rollouts), rollouts, ranks)[:steps]:
        optimizer_step(learner, method, mini, {}, LIMIT)
    return learner


def save_learner(path: Path, learner: Learner, writes: bool) -> None:
    """A checkpoint of `trained_learner`."""
    assert learner.critic_optimizer is not None
    optimizers = {"optimizer": learner.optimizer, "critic_optimizer": learner.critic_optimizer}
    save_checkpoint(path, learner_parts(learner), optimizers, {"steps": 2}, writes=writes)


def loaded_learner(path: Path, ranks: Ranks) -> dict[str, Tensor]:
    """What a learner that was elsewhere holds after reading a checkpoint."""
    learner = trained_learner(ranks, 1)
    assert learner.critic_optimizer is not None
    optimizers = {"optimizer": learner.optimizer, "critic_optimizer": learner.critic_optimizer}
    assert load_checkpoint(path, learner_parts(learner), optimizers) == {"steps": 2}
    return moments_of(learner)


def all_steps(ranks: Ranks) -> dict[str, Tensor]:
    """`steps_of` every method and precision."""
    return {
        f"{name}/{dtype}/{what}": x.contiguous()
        for name in VARIANTS
        for dtype in DTYPES
        for what, x in steps_of(name, dtype, ranks).items()
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    ranks = ranks_here()
    assert ranks != ALONE
    folder = Path(sys.argv[1])
    found = all_steps(ranks)
    save_learner(folder / "many.safetensors", trained_learner(ranks, 2), ranks.is_leader)
    read = loaded_learner(folder / "one.safetensors", ranks)
    if ranks.is_leader:
        save_file(found, folder / "steps.safetensors")
        save_file({name: x.contiguous() for name, x in read.items()}, folder / "read.safetensors")
    leave(ranks)

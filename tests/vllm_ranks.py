"""Two processes with an engine each: what `test_vllm_processes` looks at. Started by torchrun as a program.

vllm_ranks.py texts FOLDER      draw, change the weights, draw again; FOLDER/found.json says what came of it
vllm_ranks.py die RANK          the engine of that process is killed between two draws
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from suite.config import VllmConfig
from suite.experiments.names import EMBEDDED_MODEL, EMBEDDED_TASKS, tasks_named
from suite.policy import vllm_sampler
from suite.policy.loading import load_model
from suite.policy.prompting import encode
from suite.policy.ranks import leave, ranks_here
from suite.policy.revisions import following
from suite.policy.sampling import SampleRequest, SamplingSettings, awake
from suite.policy.scoring import pack, score
from suite.policy.vllm_sampler import VllmSampler
from suite.seeds import derive
from suite.training.sharding import let_go
from suite.training.shared_sampling import leader_only, sampler_of_ranks
from suite.types import Rollout

CONFIG = VllmConfig(kv_cache_gib=1)
GREEDY, SEEDED = SamplingSettings(24, temperature=0), SamplingSettings(24)


def asked_of(tokenizer: Any, count: int = 12) -> list[SampleRequest]:
    """Prompts of the embedded evaluation sets, of several lengths."""
    each = count // len(EMBEDDED_TASKS)
    return [
        SampleRequest(p.id, 0, derive(0, "processes", p.id), encode(tokenizer, task, p))
        for task in tasks_named(EMBEDDED_TASKS)
        for p in task.load("eval", None)[:each]
    ]


@torch.no_grad()
def move(model: Any, seed: int) -> None:
    """Shift every weight at random, relative to its tensor's spread; nobody is told."""
    noise = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.data.add_(torch.randn(p.shape, generator=noise) * 0.05 * p.std())


@torch.no_grad()
def largest_gap(model: Any, rollouts: list[Rollout]) -> float:
    """The largest |sampler's log-prob - model's log-prob| of a response token."""
    batch = pack(rollouts, range(len(rollouts)), "cpu")
    drawn = torch.tensor([x for r in rollouts for x in r.sampler_log_probs])
    return float((score(model, batch)[batch.response_mask] - drawn).abs().max())


def norms_of_engine(worker: Any) -> list[float]:
    """Runs in the engine's own process: weights that it keeps as they are, and numbers of the first embedding."""
    model = worker.model_runner.get_model().model
    found = [model.norm.weight, *(layer.input_layernorm.weight for layer in model.layers)]
    return torch.cat([x.detach().float().flatten() for x in (*found, model.embed_tokens.weight[3])]).tolist()


def norms_of_model(model: Any) -> list[float]:
    """The same numbers of the model in this process."""
    found = [model.model.norm.weight, *(layer.input_layernorm.weight for layer in model.model.layers)]
    return torch.cat([x.detach().float().flatten() for x in (*found, model.model.embed_tokens.weight[3])]).tolist()


def plain_texts(rollouts: list[Rollout]) -> list[list[int]]:
    """Token ids of each response."""
    return [list(r.response_ids) for r in rollouts]


def texts(folder: Path) -> None:
    """Draw before and after a change of the leading process's weights, which the other process does not have."""
    ranks = ranks_here()
    loaded = load_model("embedded", dtype=torch.float32, device="cpu", embedded_folder=EMBEDDED_MODEL)
    model: Any = loaded.model
    if not ranks.is_leader:
        let_go(model)
    sampler = sampler_of_ranks(VllmSampler(model, loaded.tokenizer, CONFIG, ranks), ranks)
    found: dict[str, Any] = {"pids": [int(pid) for pid in ranks.texts(str(os.getpid()))]}
    with leader_only(sampler) as leads:
        if leads:
            asked = asked_of(loaded.tokenizer)
            found["greedy"] = plain_texts(sampler.sample(asked, GREEDY))
            found["seeded"] = plain_texts(sampler.sample(asked, SEEDED))
            found["one alone"] = plain_texts(sampler.sample(asked[:1], SEEDED))
            for seed in (1, 2):
                move(model, seed)
                drawn = sampler.sample(asked, SEEDED)
                found[f"moved {seed}"], found[f"gap {seed}"] = plain_texts(drawn), largest_gap(model, drawn)
            with awake(sampler), following(model):
                sampler.sample(asked, SEEDED)
                move(model, 3)
                drawn = sampler.sample(asked, GREEDY)
                found["awake"], found["gap 3"] = plain_texts(drawn), largest_gap(model, drawn)
    running = vllm_sampler._running
    assert running is not None
    held = json.dumps(running.llm.collective_rpc(norms_of_engine)[0])
    found["engines"] = [json.loads(text) for text in ranks.texts(held)]
    found["names"] = ranks.texts(str(running.weights))
    if ranks.is_leader:
        found["model"] = norms_of_model(model)
        (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")
    leave(ranks)


def die(who: int) -> None:
    """Draw, lose the engine of one process, change the weights, draw again."""
    ranks = ranks_here()
    loaded = load_model("embedded", dtype=torch.float32, device="cpu", embedded_folder=EMBEDDED_MODEL)
    sampler = sampler_of_ranks(VllmSampler(loaded.model, loaded.tokenizer, CONFIG, ranks), ranks)
    asked = asked_of(loaded.tokenizer)
    print(f"pid {os.getpid()}", flush=True)
    for attempt in range(2):
        with leader_only(sampler) as leads:
            if leads:
                sampler.sample(asked, SEEDED)
        if attempt == 0 and ranks.rank == who:
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)
        if ranks.is_leader:
            move(loaded.model, 1)
    raise AssertionError("an engine that is dead has drawn")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "texts":
        texts(Path(sys.argv[2]))
    else:
        die(int(sys.argv[2]))

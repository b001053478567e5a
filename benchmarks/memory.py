"""Peak memory of sampling and of updates beside what `fspo plan` predicts, each case in a fresh process on a CPU.

    python -m benchmarks.memory --out results/bench/memory.json

A case is a model, a phase, a length of prompts and responses and a micro-batch. Its process loads the model as a cell
does, makes rollouts of random tokens (or draws responses to random prompts), and reports its largest resident memory.
Two optimizer steps are taken, each of several micro-batches, so that gradients and AdamW's states stand beside the
activations. Nothing is timed: other work on the machine does not matter, but it needs the memory that is predicted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from suite.experiments.recipe_book import TRAINED
from suite.experiments.settings import method_with
from suite.planning.memory_model import KEPT, Load, sampling, total_gib, updating
from suite.planning.model_shapes import model_shape
from suite.policy.ranks import leave, ranks_here
from suite.records.costs import GIB
from suite.records.files import write_atomically
from suite.records.provenance import machine, versions
from suite.types import UserError

MOST_GIB = 5.0
"""Cases that are predicted to need more are refused: the machine is shared."""


@dataclass(frozen=True)
class Case:
    """One process, or several that share an update. rows: rollouts of the step, or responses drawn side by side."""

    model: str
    phase: str
    prompt: int
    response: int
    rows: int
    micro_tokens: int = 1024
    mini_batches: int = 2
    method: str = "grpo"
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpointed: bool = False
    processes: int = 1

    @property
    def load(self) -> Load:
        """The case as the memory model sees it."""
        return Load(
            prompt=self.prompt,
            response=self.response,
            rows=self.rows if self.phase == "update" else 0,
            mini_batches=self.mini_batches,
            micro_tokens=self.micro_tokens,
            side_by_side=self.rows,
            distinct_prompts=self.rows // 4,
            precision=self.precision,
            checkpointed=self.checkpointed,
            critic="values" in method_with(self.method, ()).needs,
            processes=self.processes,
        )

    def predicted_gib(self) -> float:
        """The memory model's answer; for several processes without what their allocator keeps, see `measured`."""
        shape = model_shape(self.model)
        found = updating(shape, self.load) if self.phase == "update" else sampling(shape, self.load, trained=False)
        return total_gib([term for term in found if term.name != KEPT or self.processes == 1])


CASES = (
    *(Case("embedded", "update", 40, 88, 128, micro) for micro in (1024, 4096, 8192)),
    Case("embedded", "update", 40, 88, 128, 4096, method="ppo"),
    Case("embedded", "update", 40, 88, 128, 4096, precision="bfloat16"),
    *(Case("embedded", "sample", 40, 88, rows) for rows in (128, 512, 2048)),
    *(Case("smollm2", "update", 128, 128, 8, micro) for micro in (256, 512, 1024)),
    Case("smollm2", "update", 128, 128, 8, 1024, precision="bfloat16"),
    Case("smollm2", "update", 128, 128, 8, 1024, checkpointed=True),
    *(Case("smollm2", "sample", 256, 32, rows) for rows in (16, 64)),
    Case("smollm2", "sample", 256, 32, 64, precision="bfloat16"),
)
QUICK = (Case("embedded", "update", 40, 88, 32, 1024), Case("embedded", "sample", 40, 8, 32))


def measured(case: Case) -> Mapping[str, float]:
    """Peak resident memory of the case in a fresh process, in GiB, and what libraries and the model took of it.

    Several processes gather and free a layer after the other, of which glibc keeps half a model in pieces. That is no
    device's allocator, so theirs gives every freed block back: what is measured is what is held.

    UserError when more than MOST_GIB is predicted, or the process fails.
    """
    if (expected := case.predicted_gib()) > MOST_GIB:
        raise UserError(f"{case}: {expected:.1f} GiB predicted, {MOST_GIB} allowed; take a smaller micro-batch")
    several = ["-m", "torch.distributed.run", "--nproc-per-node", str(case.processes)] if case.processes > 1 else []
    command = [sys.executable, *several, "-m", "benchmarks.memory", "--case", json.dumps(asdict(case))]
    settings = {"OMP_NUM_THREADS": "1"}  # each thread of the allocator keeps memory of its own
    settings |= {"MALLOC_MMAP_THRESHOLD_": str(2**17)} if several else {}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **settings}, check=False)
    if done.returncode:
        raise UserError(f"{case}: the process failed ({done.stderr.strip()[-300:]})")
    return json.loads(done.stdout.splitlines()[-1])


def run_case(case: Case) -> dict[str, float]:
    """Do the work of a case in this process."""
    from suite.config import TrainConfig
    from suite.experiments.start import load
    from suite.records.costs import peak_bytes

    config = TrainConfig(
        TRAINED,
        model=case.model,
        mini_batches=case.mini_batches,
        problems_per_step=max(1, case.rows // 4),
        samples_per_problem=4,
        sampling_batch_size=case.rows,
        tokens_per_micro_batch=case.micro_tokens,
        precision=case.precision,
        activation_checkpointing=case.checkpointed,
    )
    peaks = {"libraries": peak_bytes() / GIB}
    loaded, sampler = load(config)
    peaks["loaded"] = peak_bytes() / GIB
    (_update if case.phase == "update" else _sample)(case, config, loaded, sampler)
    return peaks | {"peak": peak_bytes() / GIB}


def _prompts(case: Case, vocabulary: int) -> list[tuple[int, ...]]:
    import torch

    found = torch.randint(
        5, vocabulary, (max(1, case.rows // 4), case.prompt), generator=torch.Generator().manual_seed(0)
    )
    return [tuple(row) for row in found.tolist()]


def _update(case: Case, config: Any, loaded: Any, sampler: Any) -> None:
    """Score a step of random rollouts and take one epoch of updates on it, as the trainer does."""
    import torch

    from suite.training.step_batches import credited, mini_batches, scored_step
    from suite.training.trainer import build_learner
    from suite.training.update import optimizer_step
    from suite.types import FinishReason, Rollout

    vocabulary, method = loaded.model.config.vocab_size, method_with(case.method, ())
    responses = torch.randint(5, vocabulary, (case.rows, case.response), generator=torch.Generator().manual_seed(1))
    rollouts = [
        Rollout(
            problem_id=str(i // 4),
            sample_index=i % 4,
            seed=i,
            prompt_ids=_prompts(case, vocabulary)[i // 4],
            response_ids=tuple(response),
            sampler_log_probs=(-1.0,) * case.response,
            finish_reason=FinishReason.STOP,
            reward=float(i % 2),
        )
        for i, response in enumerate(responses.tolist())
    ]
    ranks = ranks_here()
    learner = build_learner(loaded.model, method, config, ranks=ranks)
    parts = scored_step(learner, mini_batches(rollouts, config, 0, 0, loaded.model.device, ranks), rollouts)
    state: Any = {}
    for mini in credited(method, parts, rollouts, ranks):
        state = optimizer_step(learner, method, mini, state, case.response)[1]


def _sample(case: Case, config: Any, loaded: Any, sampler: Any) -> None:
    """Draw responses to random prompts, four to a prompt. No token ends one: all go up to the limit, as predicted."""
    import suite.policy.sampling
    from suite.policy.sampling import SampleRequest, SamplingSettings

    suite.policy.sampling.end_token_ids = lambda model, tokenizer: [-1]
    prompts = _prompts(case, loaded.model.config.vocab_size)
    requests = [SampleRequest(str(i // 4), i % 4, i, prompts[i // 4]) for i in range(case.rows)]
    sampler.sample(requests, SamplingSettings(case.response, batch_size=case.rows))


def compared(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Every case with predicted and measured GiB, and their ratio."""
    rows = []
    for case in cases:
        peaks, predicted = measured(case), case.predicted_gib()
        rows.append(asdict(case) | {"predicted_gib": predicted, "measured_gib": peaks["peak"], "parts_gib": peaks})
        rows[-1]["predicted_over_measured"] = predicted / peaks["peak"]
        print(f"{predicted:6.3f} / {peaks['peak']:6.3f} = {predicted / peaks['peak']:.2f}  {case}", file=sys.stderr)
    return rows


def main() -> None:
    """Measures and writes one JSON file; with --case, does the work of one case and prints its peaks."""
    parser = argparse.ArgumentParser(description="Peak memory beside its prediction.")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--model", help="only the cases of this model")
    parser.add_argument("--quick", action="store_true", help="two small cases: shows that it runs")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.case:
        peaks = json.dumps(run_case(Case(**json.loads(chosen.case))))
        if ranks_here().is_leader:
            print(peaks)
        leave(ranks_here())
        return
    if chosen.out is None:
        parser.error("--out is needed")
    cases = [case for case in (QUICK if chosen.quick else CASES) if chosen.model in (None, case.model)]
    try:
        rows = compared(cases)
    except UserError as error:
        sys.exit(f"error: {error}")
    content = {
        "benchmark": "memory",
        "command": ["python", "-m", "benchmarks.memory", *sys.argv[1:]],
        "cases": rows,
        "worst_ratio": max((row["predicted_over_measured"] for row in rows), key=lambda ratio: abs(ratio - 1)),
        "versions": versions(),
        "machine": machine(),
    }
    write_atomically(chosen.out, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""The whole pipeline on one GPU: sample, train (first scoring and updates), evaluate; speed, MFU, memory, noise.

    python -m benchmarks.gpu [--out results/h100] [--models smollm2,Qwen/Qwen3-0.6B,Qwen/Qwen3-1.7B]
    python -m benchmarks.gpu --device cpu --quick --out FOLDER     # does the script run?

smollm2 has its real weights, where `fspo fetch smollm2` brought them; the shapes of Qwen3 get random weights, whose
responses end nowhere and are cut to lengths from an eighth of the limit to all of it. Weights are float32, products
bfloat16 (autocast), as in training; the in-process sampler draws with a bfloat16 copy, vLLM where it is installed. A
decoding step is timed alone, too, with a growing and with a static cache (benchmarks/decoding.py).
Each phase runs once before the clock. What does not run is named with the reason.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from benchmarks.decoding import decoding
from benchmarks.gpu_text import FLOPS, operations, peak_of, text
from benchmarks.ratios import write
from suite import packed_attention
from suite.config import EvalConfig, TrainConfig
from suite.costs import PEAK, SECONDS, Clock
from suite.devices import Device
from suite.engines import sampler_for
from suite.fetch import cache_folder, is_fetched
from suite.files import write_atomically
from suite.model_shapes import PUBLISHED, ModelShape, model_shape
from suite.models import load_model
from suite.null_update import PRECISIONS, noise_table, null_update
from suite.parts import credited, mini_batches, scored
from suite.recipe_book import TRAINED
from suite.recipes import EMBEDDED_MODEL, METHODS, tasks_named
from suite.rollouts import RolloutSource
from suite.trainer import build_learner
from suite.types import Rollout, State, UserError
from suite.update import optimizer_step

MODELS = "smollm2,Qwen/Qwen3-0.6B,Qwen/Qwen3-1.7B"
MISSING = (ImportError, UserError)


@dataclass(frozen=True)
class Work:
    """How much of everything."""

    problems: int = 32
    samples: int = 8
    max_new_tokens: int = 512
    micro_tokens: int = 16384
    mini_batches: int = 4
    eval_problems: int = 32
    decoded: int = 128
    """Tokens of a prompt, and tokens behind it, where a decoding step is timed alone."""
    rounds: int = 3


QUICK = Work(2, 2, 16, 512, 2, 2, 8, 1)


# --- the models -----------------------------------------------------------------------------------


def model_of(reference: str, device: str) -> tuple[Any, Any, bool]:
    """(model in float32, tokenizer, whether its weights are random); UserError where smollm2 was not fetched."""
    if reference == "smollm2" and not is_fetched(cache_folder() / "smollm2"):
        raise UserError("smollm2 is not here: fspo fetch smollm2")
    if reference not in PUBLISHED:
        where = str(cache_folder() / "smollm2") if reference == "smollm2" else reference
        loaded = load_model(where, dtype=torch.float32, device=device, embedded_folder=EMBEDDED_MODEL)
        return loaded.model, loaded.tokenizer, False
    kind, sizes, _ = PUBLISHED[reference]
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_MODEL, local_files_only=True)
    config = AutoConfig.for_model(kind, **sizes, pad_token_id=tokenizer.pad_token_id)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation=packed_attention.PACKED
        )
    return model.eval(), tokenizer, True


def ragged(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Responses cut to an eighth, two eighths ... all of their length, in turn."""
    found = []
    for i, r in enumerate(rollouts):
        keep = max(1, len(r.response_ids) * (i % 8 + 1) // 8)
        found.append(
            replace(r, response_ids=r.response_ids[:keep], sampler_log_probs=r.sampler_log_probs[:keep],
                    reward=float(i % 2))
        )  # fmt: skip
    return found


# --- the phases -----------------------------------------------------------------------------------


def lap(run: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Median seconds and largest GiB of a phase, after one run unseen."""
    clocks = []
    for _ in range(rounds + 1):
        clock = Clock()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        clock.lap("phase")
        clocks.append(clock.costs)
    seen = clocks[1:]
    return {
        "seconds": statistics.median(one[f"{SECONDS}phase"] for one in seen),
        "peak_gib": max(one[f"{PEAK}phase"] for one in seen),
    }


def sampling(engine: str, source: RolloutSource, rounds: int) -> tuple[dict[str, Any], Sequence[Rollout]]:
    """Drawing and grading a step: tokens a second, memory; and the rollouts."""
    drawn: list[Sequence[Rollout]] = []
    found = lap(lambda: drawn.append(source.record(0).rollouts), rounds)
    tokens = sum(len(r.response_ids) for r in drawn[-1])
    name = source.sampler.engine
    return {"phase": f"sample, {engine}", "engine": name, **_speed(found, tokens)}, drawn[-1]


def _speed(found: dict[str, float], tokens: int) -> dict[str, float]:
    return {**found, "tokens": tokens, "tokens_per_second": tokens / found["seconds"]}


def training(
    model: Any, rollouts: Sequence[Rollout], config: TrainConfig, shape: ModelShape, work: Work, device: Device | None
) -> list[dict[str, Any]]:
    """First scoring, and the updates on it: tokens (prompts too) a second, MFU, memory."""
    method = METHODS["fspo"]
    learner = build_learner(model, method, config)
    minis = mini_batches(rollouts, config, 0, 0, model.device)
    kept: list[Any] = []

    def first() -> None:
        parts = [[scored(learner, micro, rollouts) for micro in mini] for mini in minis]
        kept[:] = credited(method, parts, rollouts)

    def update() -> None:
        state: State = {}
        for mini in kept:
            state = optimizer_step(learner, method, mini, state, work.max_new_tokens)[1]

    tokens = sum(len(r.prompt_ids) + len(r.response_ids) for r in rollouts)
    rows = []
    for name, run, passes in (("first scoring", first, 1), ("update", update, 3)):
        found = _speed(lap(run, work.rounds), tokens)
        row: dict[str, Any] = {"phase": name, **found}
        for share, whole in (("mfu", True), ("mfu_done", False)):
            rate = passes * operations(shape, rollouts, whole) / found["seconds"]
            row[share] = rate / device.peak(config.precision) if device else None
            row[f"flops_{share}"] = rate
        rows.append(row)
    return rows


def evaluation(sampler: Any, tokenizer: Any, work: Work) -> dict[str, Any]:
    """An evaluation of the model as it is after its updates: response tokens a second, memory."""
    evaluate = importlib.import_module("suite.evaluate").evaluate
    config = EvalConfig(TRAINED, samples=2, limit=work.eval_problems, max_new_tokens=work.max_new_tokens)
    results: list[Any] = []
    found = lap(lambda: results.append(evaluate(sampler, tokenizer, tasks_named(TRAINED), config, None)), 1)
    tokens = sum(sum(map(sum, result.lengths)) for result in results[-1])
    return {"phase": "evaluate", **_speed(found, tokens)}


def kernel_check(device: str) -> dict[str, Any]:
    """`compared`, where a kernel can run."""
    return compared(device) if device == "cuda" else {"ran": False, "reason": "the kernel needs a CUDA device"}


def compared(device: str) -> dict[str, Any]:
    """The kernel for many lengths against one call a sequence, outputs and gradients, both in bfloat16 against float32.

    The kernel passes where it is at most twice as far from float32 as the other, relative to the largest value.
    """
    sizes = (5, 130, 64, 257, 64, 1)
    noise = torch.Generator(device).manual_seed(0)
    exact = [torch.randn(1, heads, sum(sizes), 64, generator=noise, device=device) for heads in (8, 2, 2)]
    rounded = [x.bfloat16() for x in exact]
    found = {}
    for name, path, states in (
        ("exact", packed_attention._by_sequence, [x.float() for x in rounded]),
        ("by_sequence", packed_attention._by_sequence, rounded),
        ("by_kernel", packed_attention._by_kernel, rounded),
    ):
        given = [x.clone().requires_grad_() for x in states]
        out = path(given[0], given[1], given[2], sizes, None)
        slopes = torch.randn(out.shape, generator=torch.Generator(device).manual_seed(1), device=device)
        out.backward(slopes.to(out.dtype))
        found[name] = [out.detach(), *(x.grad for x in given)]
    errors = {
        name: max(
            float((x.float() - y).abs().max() / y.abs().max()) for x, y in zip(found[name], found["exact"], strict=True)
        )
        for name in ("by_sequence", "by_kernel")
    }
    return {"ran": True, "errors": errors, "equal": errors["by_kernel"] <= 2 * errors["by_sequence"]}


# --- all of it ------------------------------------------------------------------------------------


def measured(reference: str, device: str, work: Work, precision: Any, peak: Device | None) -> dict[str, Any]:
    """Every phase of one model, and the noise of unchanged weights."""
    model, tokenizer, is_random = model_of(reference, device)
    shape = model_shape(reference, EMBEDDED_MODEL)
    config = TrainConfig(
        TRAINED, problems_per_step=work.problems, samples_per_problem=work.samples, mini_batches=work.mini_batches,
        max_new_tokens=work.max_new_tokens, tokens_per_micro_batch=work.micro_tokens, learning_rate=1e-6,
        precision=precision,
    )  # fmt: skip
    phases, skipped, rollouts, sampler = [], {}, [], None
    for engine in ("transformers", "vllm"):
        try:
            drawing = sampler_for(engine, model, tokenizer, precision, config.sampling_batch_size)
            source = RolloutSource.of(model, tokenizer, drawing, tasks_named(TRAINED), config, 0, {})
            row, drawn = sampling(engine, source, work.rounds)
        except MISSING as error:
            skipped[f"sample, {engine}"] = str(error)
            continue
        phases.append(row)
        if sampler is None:
            sampler, rollouts = drawing, drawn
    phases += decoding(model, work.problems * work.samples, work.decoded, work.decoded)
    rollouts = ragged(rollouts) if is_random else rollouts
    noise = null_update(model, rollouts, config, 0, PRECISIONS)
    phases += training(model, rollouts, config, shape, work, peak)
    try:
        phases.append(evaluation(sampler, tokenizer, work))
    except MISSING as error:
        skipped["evaluate"] = str(error)
    noises = noise_table(noise).to_dict(orient="records")
    facts = {"random_weights": is_random, "shape": shape.facts, "work": asdict(work), "precision": precision}
    return {"model": reference, **facts, "phases": phases, "did_not_run": skipped, "null_update": noises}


def run(out: Path, models: Sequence[str], device: str, quick: bool) -> None:
    """Measure every model and write gpu.json and gpu.md into the folder; UserError without the device asked for."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("no CUDA device here; --device cpu --quick tries the script")
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    peak = peak_of(name)
    print(f"device {name}; {f'peak of {peak.name}: {peak.source}' if peak else 'no peak known, so no MFU'}\n{FLOPS}")
    kernel, found = kernel_check(device), []
    work = QUICK if quick else Work()
    for reference in models:
        print(f"{reference} ...", file=sys.stderr)
        try:
            found.append(measured(reference, device, work, "bfloat16", peak))
        except UserError as error:
            reason = {"everything": str(error)}
            found.append({"model": reference, "phases": [], "did_not_run": reason, "null_update": []})
        if device == "cuda":
            torch.cuda.empty_cache()
    write(out / "gpu.json", "gpu", quick, [], device=name, flops=FLOPS, kernel=kernel, models=found)
    write_atomically(out / "gpu.md", text(found, name, kernel))
    print(text(found, name, kernel))


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="The whole pipeline on one GPU.")
    parser.add_argument("--out", type=Path, default=Path("results/h100"))
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="the embedded model and a few short responses")
    chosen = parser.parse_args()
    models = "embedded" if chosen.quick and chosen.models == MODELS else chosen.models
    try:
        run(chosen.out, models.split(","), chosen.device, chosen.quick)
    except UserError as error:
        sys.exit(f"benchmarks.gpu: error: {error}")


if __name__ == "__main__":
    main()

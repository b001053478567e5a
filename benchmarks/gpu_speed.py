"""Phases of the benchmark on a GPU that a model runs: training, sampling, noise, decoding, evaluation.

Weights are float32 and products bfloat16 (autocast) in training; the in-process sampler draws with a bfloat16 copy.
Training and decoding take random tokens of fixed lengths, so that their speed is not a matter of what a model says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks.decoding import decoding
from benchmarks.gpu_context import Context, head_tile, invented, ragged, requests
from benchmarks.gpu_phases import Row, error_of
from benchmarks.gpu_text import operations
from suite.experiments.names import METHODS, tasks_named
from suite.experiments.recipe_book import TRAINED
from suite.policy.engines import sampler_for
from suite.policy.sampling import SampleRequest, SamplingSettings
from suite.training.step_batches import Parts, credited, mini_batches, scored
from suite.training.trainer import build_learner
from suite.training.update import Learner, optimizer_step
from suite.types import Rollout, State, UserError

HALVINGS = 3
"""Sizes of a micro-batch that are tried where memory runs out: all, a half, a quarter."""


def learning(context: Context, rollouts: Sequence[Rollout], **changes: Any) -> tuple[Learner, list[Any]]:
    """A learner of the context's model for FSPO, and the rollouts' micro-batches."""
    config = context.config(**changes)
    model = context.loaded().model
    return build_learner(model, METHODS["fspo"], config), mini_batches(rollouts, config, 0, 0, model.device)


def first_scoring(learner: Learner, minis: Sequence[Any], rollouts: Sequence[Rollout]) -> Parts:
    """Old log-probs and advantages: what updates start from."""
    return credited(METHODS["fspo"], [[scored(learner, micro, rollouts) for micro in mini] for mini in minis], rollouts)


def updates(learner: Learner, parts: Parts, limit: int) -> None:
    """One optimizer step a mini-batch."""
    state: State = {}
    for mini in parts:
        state = optimizer_step(learner, METHODS["fspo"], mini, state, limit)[1]


def of_work(context: Context) -> list[Rollout]:
    """The work's rollouts of random tokens for the context's model."""
    work = context.work
    return invented(context.loaded().shape.vocabulary, work.problems, work.samples, work.prompt, work.response)


def training(context: Context) -> list[Row]:
    """First scoring, and the updates on it: tokens (prompts too) a second, MFU, memory.

    Where memory runs out, this is a row, and micro-batches of half the tokens are tried.
    """
    return _as_large_as_fits(context)


def checkpointed(context: Context) -> list[Row]:
    """The same with activations computed twice: what its memory costs in time."""
    return _as_large_as_fits(context, activation_checkpointing=True)


def _as_large_as_fits(context: Context, **changes: Any) -> list[Row]:
    rows: list[Row] = []
    for halving in range(HALVINGS):
        tokens = context.work.micro_tokens >> halving
        try:
            return rows + _trained(context, tokens_per_micro_batch=tokens, **changes)
        except torch.OutOfMemoryError as error:
            rows.append({"phase": "update", "micro_tokens": tokens, "out_of_memory": error_of(error)["message"][:200]})
            if halving + 1 == HALVINGS:
                raise
        finally:
            context.drop()  # the weights have moved, and their gradients take memory
    return rows


def _trained(context: Context, **changes: Any) -> list[Row]:
    rollouts, shape = of_work(context), context.loaded().shape
    learner, minis = learning(context, rollouts, **changes)
    kept: list[Parts] = []

    def first() -> None:
        kept[:] = [first_scoring(learner, minis, rollouts)]

    tokens, rows = sum(len(r.prompt_ids) + len(r.response_ids) for r in rollouts), []
    limit = context.work.response
    for name, run, passes in (("first scoring", first, 1), ("update", lambda: updates(learner, kept[0], limit), 3)):
        found = speed(context.lap(run), tokens)
        row: Row = {"phase": name, **found}
        for share, whole in (("mfu", True), ("mfu_done", False)):
            flops = passes * operations(shape, rollouts, whole)
            row[share], row[f"flops_{share}"] = context.mfu(flops, found["seconds"]), flops / found["seconds"]
        rows.append(
            row
            | {
                "micro_tokens": changes["tokens_per_micro_batch"],
                "micro_batches": sum(map(len, minis)),
                "head_tile": head_tile(context.device),
                "checkpointed": changes.get("activation_checkpointing", False),
            }
        )
    return rows


def speed(found: dict[str, float], tokens: int) -> dict[str, float]:
    """What `lap` found, with tokens and tokens a second."""
    return {**found, "tokens": tokens, "tokens_per_second": tokens / found["seconds"]}


# --- sampling -------------------------------------------------------------------------------------


def sampling(context: Context) -> list[Row]:
    """Responses of the in-process sampler: response tokens a second, milliseconds a step, memory."""
    return [_drawn(context, "transformers")]


def sampling_vllm(context: Context) -> list[Row]:
    """The same by vLLM; its first call, unseen, starts the engine."""
    return [_drawn(context, "vllm")]


def _drawn(context: Context, engine: str) -> Row:
    work, loaded = context.work, context.loaded()
    sampler = sampler_for(engine, loaded.model, loaded.tokenizer, context.precision, work.problems * work.samples)
    asked = requests(loaded.tokenizer, work.problems, work.samples)
    settings = SamplingSettings(work.drawn, batch_size=len(asked))
    kept: list[list[Rollout]] = []

    def draw() -> None:
        kept[:] = [sampler.sample(asked, settings)]

    found = context.lap(draw, 1)
    lengths = [len(r.response_ids) for r in kept[0]]
    graded = [replace(r, reward=float(i % 2)) for i, r in enumerate(kept[0])]  # speed and noise ask for no truth
    context.drawn.setdefault(context.reference or "", ragged(graded) if loaded.is_random else graded)
    per_step = 1e3 * found["seconds"] / max(lengths)
    return {
        "phase": f"sample, {engine}",
        "engine": sampler.engine,
        "responses": len(lengths),
        **speed(found, sum(lengths)),
        "longest": max(lengths),
        "milliseconds_per_step": per_step,
    }


def evaluation(context: Context) -> list[Row]:
    """An evaluation, drawn and graded: response tokens a second, memory."""
    from suite.config import EvalConfig
    from suite.evaluation.evaluate import evaluate

    work, loaded = context.work, context.loaded()
    sampler = sampler_for("transformers", loaded.model, loaded.tokenizer, context.precision, 256)
    config = EvalConfig(TRAINED, samples=2, limit=work.eval_problems, max_new_tokens=work.drawn)
    kept: list[Any] = []

    def run() -> None:
        kept[:] = evaluate(sampler, loaded.tokenizer, tasks_named(TRAINED), config, None)

    found = context.lap(run, 1)
    return [{"phase": "evaluate", **speed(found, sum(sum(map(sum, result.lengths)) for result in kept))}]


def decode(context: Context) -> list[Row]:
    """A decoding step alone: the sampler's loop with and without cuDNN's attention, a growing and a static cache."""
    work, loaded = context.work, context.loaded()
    sampler = sampler_for("transformers", loaded.model, loaded.tokenizer, context.precision, 256)
    noise = torch.Generator().manual_seed(0)
    count = work.problems * work.samples
    prompts = torch.randint(loaded.shape.vocabulary, (count, work.prompt), generator=noise).tolist()
    asked = [SampleRequest(f"p{i}", 0, i, tuple(ids[: work.prompt - i % 7])) for i, ids in enumerate(prompts)]
    rows = []
    for is_on in (True, False) if context.device == "cuda" else (True,):
        if context.device == "cuda":
            torch.backends.cuda.enable_cudnn_sdp(is_on)
        kept: list[int] = []

        def draw(kept: list[int] = kept) -> None:
            drawn = sampler.sample(asked, SamplingSettings(work.decoded, batch_size=count))
            kept[:] = [len(r.response_ids) for r in drawn]

        try:
            found = context.lap(draw, 1)
        finally:
            if context.device == "cuda":
                torch.backends.cuda.enable_cudnn_sdp(True)
        per_step = 1e3 * found["seconds"] / max(kept)
        rows.append(
            {
                "phase": f"sampler's loop, cuDNN attention {'allowed' if is_on else 'off'}",
                **speed(found, sum(kept)),
                "milliseconds_per_step": per_step,
            }
        )
    return rows + decoding(loaded.model, count, work.decoded, work.decoded)


# --- noise ----------------------------------------------------------------------------------------


def noise(context: Context) -> list[Row]:
    """The null update: what arithmetic alone does to log ratios, by precision and layout, in nats.

    Rollouts are those that the sampler drew in this process; without them random tokens, which no sampler scored.
    """
    from suite.replay.null_update import PRECISIONS, SAMPLER, noise_by_change, null_update

    rollouts = context.drawn.get(context.reference or "")
    log = null_update(context.loaded().model, rollouts or of_work(context), context.config(), 0, PRECISIONS)
    rows = [{str(name): value for name, value in row.items()} for row in noise_by_change(log).to_dict(orient="records")]
    if not rows:
        raise UserError("the null update scored nothing")
    return [row for row in rows if rollouts or row["change"] != SAMPLER]

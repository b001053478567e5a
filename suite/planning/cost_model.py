"""Tokens, operations and hours of a comparison before anything starts, with the formulas they come from.

Per token a forward pass is 2 N operations and 2 l q T more for attention over T tokens (half of them on average under a
causal mask); an update is three forward passes. Drawing reads all weights and every cached key and value once a token.
Source: 6 N per trained token, arXiv 2001.08361; the rest is counted from `suite.policy.scoring` and
`suite.policy.sampling` (ours).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from suite.config import CompareConfig
from suite.planning.devices import DECODING_SHARE, TRAINING_SHARE, Device
from suite.planning.memory_model import LIBRARIES, Load
from suite.planning.model_shapes import ModelShape
from suite.planning.shared_starts import Batch, expected_problems
from suite.records.costs import GIB

HOUR = 3600.0


@dataclass(frozen=True)
class Lengths:
    """Tokens of a text: the mean and the longest prompt, the mean response and its limit, and where they come from;
    `common` are those that all prompts begin with.
    """

    prompt: float
    longest_prompt: int
    response: float
    limit: int
    source: str
    common: int = 0


@dataclass(frozen=True)
class PlanLine:
    """One phase of a cell: its tokens and seconds, and the formula of the seconds."""

    phase: str
    tokens: float
    seconds: float
    formula: str


def forward_operations(shape: ModelShape, tokens: float, context: float) -> float:
    """Operations of one forward pass over `tokens` in texts of `context` tokens: tokens (2 N + 2 l q T)."""
    return tokens * (2 * shape.parameters + 2 * shape.layers * shape.queries * context)


def decoding_seconds(
    shape: ModelShape, device: Device, precision: str, responses: float, together: int, lengths: Lengths, fast: bool
) -> float:
    """Seconds to draw responses, `together` at a time.

        batches x limit x max(bytes / (share x bandwidth), operations / (share x peak), layers x launch)
        bytes = (2 or 4) (N + rows x T/2 x 2 l k)

    Every batch decodes up to its longest response, taken to be the limit; `fast`: an engine that keeps its rows full
    and spends nothing on launches (vLLM), so that only the mean length counts.
    """
    if not responses:
        return 0.0
    size = 2 if precision == "bfloat16" else 4
    rows = min(together, responses)
    batches = responses / rows
    steps = lengths.response if fast else lengths.limit
    context = lengths.prompt + lengths.response / 2
    rows_alive = rows if fast else rows * lengths.response / lengths.limit
    read = size * (shape.parameters + rows_alive * context * 2 * shape.layers * shape.keys)
    bandwidth = read / (DECODING_SHARE * device.bandwidth)
    operations = forward_operations(shape, rows_alive, context) / (TRAINING_SHARE * device.peak(precision))
    launch = 0.0 if fast else shape.layers * device.launch_seconds
    return batches * steps * max(bandwidth, operations, launch)


def cell_lines(
    config: CompareConfig,
    shape: ModelShape,
    device: Device,
    lengths: Lengths,
    questions: int,
    critic: bool,
    processes: int = 1,
) -> list[PlanLine]:
    """The phases of one cell: sample, score, update, evaluate. `questions`: problems of all evaluation sets.

    Processes that share the cell divide its responses, each with a device; what they send each other is left out.
    """
    train, evaluation = config.train, config.evaluation
    fast, speed = train.sampler == "vllm", TRAINING_SHARE * device.peak(train.precision)
    step = train.problems_per_step * train.samples_per_problem
    text = lengths.prompt + lengths.response
    drawn = train.steps * step
    tokens = computed_tokens(config, lengths, processes)
    forward = forward_operations(shape, tokens, text) / speed / processes
    words = f" / {processes}" if processes > 1 else ""

    def draw(responses: float, together: int) -> float:
        own = responses / processes
        return decoding_seconds(shape, device, train.precision, own, together, lengths, fast)

    together = min(math.ceil(step / processes), train.sampling_batch_size)
    asked = questions * evaluation.samples
    models = 1 + critic + (train.kl_coefficient > 0)
    decoding = f"tokens a row x max(read / (share x bandwidth), 2 N B / (share x peak), l x launch){words}"
    return [
        PlanLine("sample", drawn * lengths.response, draw(drawn, together), decoding),
        PlanLine("score", tokens, models * forward, f"{models} x tokens (2 N + 2 l q T) / (share x peak){words}"),
        PlanLine(
            "update",
            tokens * train.epochs,
            3 * forward * train.epochs * (1 + critic),
            f"{1 + critic} x 3 x tokens x epochs (2 N + 2 l q T) / (share x peak){words}",
        ),
        PlanLine("evaluate", asked * lengths.response, draw(asked, evaluation.batch_size), decoding),
    ]


def computed_tokens(config: CompareConfig, lengths: Lengths, processes: int = 1) -> float:
    """Tokens of all steps that scoring, or one epoch of updates, computes: common starts once a micro-batch.

    Old log-probs are scored in the micro-batches of the updates. Processes that share the cell each have a part of
    these, and so compute the start each.
    """
    train = config.train
    problems, samples = train.problems_per_step, train.samples_per_problem
    rows = problems * samples / train.mini_batches / processes
    met = expected_problems(problems, samples, rows)
    batch = Batch(lengths.common, lengths.prompt, lengths.response, met, rows)
    return train.steps * train.mini_batches * processes * batch.computed(train.tokens_per_micro_batch)


def hours(lines: Sequence[PlanLine]) -> float:
    """Their sum in hours."""
    return sum(line.seconds for line in lines) / HOUR


def vllm_gib(config: CompareConfig, shape: ModelShape, device: Device) -> tuple[float, float]:
    """What vLLM takes of a device while it draws, and what it keeps while the policy is trained; 0 where others draw.

    On a GPU its share of the memory, and asleep the context of its process; on a CPU its weights and cache, always.
    """
    train = config.train
    if train.sampler != "vllm":
        return 0.0, 0.0
    if device.is_gpu:
        share = train.vllm.gpu_memory_utilization * device.memory_gib
        return share, share if train.vllm.sleep is False else min(share, LIBRARIES[True])
    here = _number_bytes(config) * shape.parameters / GIB + train.vllm.kv_cache_gib
    return here, here


def vllm_room(config: CompareConfig, shape: ModelShape, lengths: Lengths) -> float:
    """GiB that an engine needs of each of its devices at least: its weights, and the cache of one longest response."""
    size, each = _number_bytes(config), config.train.vllm.tensor_parallel_size
    cache = (lengths.longest_prompt + lengths.limit) * shape.layers * 2 * shape.keys
    return size * (shape.parameters + cache) / each / GIB


def _number_bytes(config: CompareConfig) -> int:
    return 2 if config.train.precision == "bfloat16" else 4


def load_of(
    config: CompareConfig, shape: ModelShape, device: Device, lengths: Lengths, critic: bool, processes: int = 1
) -> Load:
    """What a cell of the comparison asks of memory when prompts and responses are as long as they may be."""
    train = config.train
    rows = train.problems_per_step * train.samples_per_problem
    drawing, training = vllm_gib(config, shape, device)
    return Load(
        prompt=lengths.longest_prompt,
        response=lengths.limit,
        common=lengths.common,
        problems=train.problems_per_step,
        rows=rows,
        mini_batches=train.mini_batches,
        micro_tokens=train.tokens_per_micro_batch,
        side_by_side=min(train.sampling_batch_size, math.ceil(rows / processes)),
        distinct_prompts=min(math.ceil(train.problems_per_step / processes), train.sampling_batch_size),
        precision=train.precision,
        critic=critic,
        start_model=train.kl_coefficient > 0,
        lora_rank=train.lora_rank,
        checkpointed=train.activation_checkpointing,
        gpu=device.is_gpu,
        processes=processes,
        vllm_gib=drawing,
        vllm_kept_gib=training,
    )

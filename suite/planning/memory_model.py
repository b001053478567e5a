"""Peak memory of one cell before it starts: term by term, each with its formula, for sampling and for updates.

Letters: N parameters, A trained ones (N, or a LoRA's), l layers, d hidden size, q and k heads and key-value heads times
the head size, h and g their counts, f feed-forward size, V vocabulary; n tokens of a micro-batch, K those
of its responses, B responses drawn side by side, T tokens of prompt and response. Weights are float32, bfloat16 is
autocast; updates keep all activations unless layers are checkpointed, and logits for at most 2^25 / V tokens.

P processes that share a run (torchrun) divide trained weights, gradients and states. Not divided are what draws, the
activations of a process's own rows, and what a pass gathers: FSDP's root group of the R parameters outside the layers,
whole from the forward pass to the end of the backward pass, and two layers at a time.

Source: ours; what autograd keeps was read off transformers' Llama and Qwen3 (tests count it again), and the whole is
held against measured peaks by `benchmarks/memory.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from suite.planning.model_shapes import ModelShape
from suite.planning.shared_starts import Batch
from suite.policy.kv_cache import SPARE
from suite.policy.vocabulary_tiles import LOGITS_AT_ONCE, TILE
from suite.records.costs import GIB

LIBRARIES = {False: 0.5, True: 0.5}
"""GiB before any weight: on a CPU the interpreter with its libraries, on a GPU (assumed) context and kernels."""
KEPT_FREE = 0.12
"""Share that allocators keep in pieces while updates free and take: measured on a CPU with glibc, assumed on a GPU."""
GRADIENTS, KEPT = "gradients", "kept by the allocator"
RECORD_BYTES = 100
"""Bytes that a rollout step keeps for a token of its responses: ids, masks, places, log-probs, and Python's lists."""


@dataclass(frozen=True)
class Term:
    """One addend: what it is, its formula, its bytes on one device, and whether the processes of a run divide it."""

    name: str
    formula: str
    bytes: float
    sharded: bool = False

    @property
    def gib(self) -> float:
        """The size in GiB."""
        return self.bytes / GIB


@dataclass(frozen=True)
class Load:
    """What a cell asks of memory, apart from the model's shape.

    prompt and response are tokens of the longest rows, common those that all prompts begin with, problems the distinct
    prompts of a step. rows and mini_batches shape an update; side_by_side and
    distinct_prompts a call of the sampler. critic, start_model and lora_rank say what is held beside the policy,
    checkpointed that of activations only the layers' inputs are.
    processes share the run, each with its share of an update's rows. vllm_gib is what an engine of vLLM takes while it
    draws, 0 where this process draws, and vllm_kept_gib what it keeps of that while the policy is trained.
    """

    prompt: int
    response: int
    rows: int
    mini_batches: int
    micro_tokens: int
    side_by_side: int
    distinct_prompts: int
    precision: str = "float32"
    critic: bool = False
    start_model: bool = False
    lora_rank: int = 0
    checkpointed: bool = False
    gpu: bool = False
    vllm_gib: float = 0.0
    vllm_kept_gib: float = 0.0
    processes: int = 1
    common: int = 0
    problems: int = 0

    @property
    def update_rows(self) -> int:
        """Rows of an optimizer step in the process that has most of them."""
        return math.ceil(math.ceil(self.rows / self.mini_batches) / self.processes)

    def _batch(self, rows: int) -> Batch:
        """So many of the longest rows, of as many problems as there are."""
        return Batch(self.common, self.prompt, self.response, self.problems or self.rows, rows)

    @property
    def micro_rows(self) -> int:
        """Rows of the largest micro-batch: as many of the longest as the token budget takes, at least one.

        Where a tree computes common starts once, they may all be of one problem.
        """
        each = self.prompt + self.response
        if self._batch(self.update_rows).is_tree:
            return max(1, min(self.update_rows, (self.micro_tokens - self.prompt) // self.response))
        return max(1, min(self.update_rows, self.micro_tokens // each))

    @property
    def micro_batch_tokens(self) -> int:
        """Tokens of the largest micro-batch: the budget, or a whole update's where that is less; one row at least."""
        each = self.prompt + self.response
        if self._batch(self.update_rows).is_tree:
            return max(each, min(self.micro_tokens, math.ceil(self._batch(self.update_rows).tree)))
        return self.micro_rows * each

    @property
    def several(self) -> bool:
        """Whether an update has more than one micro-batch, so that gradients stand beside activations."""
        whole = self._batch(self.update_rows)
        return whole.tree > self.micro_tokens if whole.is_tree else self.update_rows > self.micro_rows

    @property
    def shared(self) -> bool:
        """Whether several processes share the run, so that each trains a part of the model."""
        return self.processes > 1

    @property
    def whole_on_device(self) -> bool:
        """Whether the whole float32 model stands where several processes train: it draws there, or nothing but a CPU is
        there. One that hands weights to vLLM or to a bfloat16 copy has left the GPU.
        """
        return self.shared and not (self.gpu and (self.precision == "bfloat16" or self.vllm_gib > 0))


def total_gib(terms: Sequence[Term]) -> float:
    """The sum in GiB a device."""
    return sum(term.gib for term in terms)


def critic_body(shape: ModelShape) -> int:
    """Parameters of a critic: the model's without an output head of its own."""
    return shape.parameters - (0 if shape.tied else shape.vocabulary * shape.hidden)


def trained_numbers(shape: ModelShape, load: Load) -> tuple[int, str]:
    """Trained parameters of the policy, and their letter: A of adapters, else N."""
    return (load.lora_rank * shape.adapted, "A") if load.lora_rank else (shape.parameters, "N")


def _divided(name: str, formula: str, size: float, load: Load) -> Term:
    """A term that the processes of a run share evenly."""
    return Term(name, f"{formula} / {load.processes}" if load.shared else formula, size / load.processes, True)


def standing(shape: ModelShape, load: Load, *, trained: bool) -> list[Term]:
    """What is held in every phase; with `trained`, also what the first update leaves behind until the end."""
    n, body = shape.parameters, critic_body(shape)
    moving, letter = trained_numbers(shape, load)
    terms = [
        Term("libraries", "measured constant", LIBRARIES[load.gpu] * GIB),
        _divided("weights", "4 N", 4 * n, load),
    ]
    if load.whole_on_device:
        terms.append(Term("whole model beside its part", "4 N", 4 * n))
    if load.lora_rank:
        terms.append(_divided("adapters", "4 A, A = rank x (inputs + outputs)", 4 * moving, load))
    if load.precision == "bfloat16" and not load.vllm_gib:
        terms.append(Term("sampler's copy", "2 N", 2 * n))
    if load.start_model and (load.shared or not load.lora_rank):  # beside adapters it shares the frozen weights
        terms.append(_divided("start model", "4 N", 4 * n, load))
    if load.critic:
        terms.append(_divided("critic", "4 N (its body)", 4 * body, load))
    if trained:
        terms.append(_divided(GRADIENTS, f"4 {letter}", 4 * moving, load))
        terms.append(_divided("AdamW states", f"8 {letter}", 8 * moving, load))
        if load.critic:
            terms.append(_divided("critic's gradients and states", "12 N (its body)", 12 * body, load))
    terms.append(
        Term(
            "records",
            f"{RECORD_BYTES} bytes a token of a step",
            RECORD_BYTES * load.rows * (load.prompt + load.response),
        )
    )
    return terms


def activations_per_token(shape: ModelShape, precision: str, checkpointed: bool = False) -> tuple[int, str]:
    """Bytes that autograd keeps for one token of a micro-batch, without logits, and their formula.

    Checkpointed layers keep their input; one at a time has its activations, while they are computed again.
    """
    d, q, k, f = shape.hidden, shape.queries, shape.keys, shape.feed_forward
    h, g = shape.heads, shape.key_value_heads
    if precision == "bfloat16":
        layer, formula = 26 * d + 4 * q + 4 * k + 8 * f + 4 * h + 8, "26d + 4q + 4k + 8f + 4h + 8"
        extra, more = 6 * (q + k) + 4 * (h + g), " + 6(q + k) + 4(h + g)"
    else:
        layer, formula = 4 * (6 * d + 2 * q + 2 * k + 4 * f + h + 2), "4(6d + 2q + 2k + 4f + h + 2)"
        extra, more = 4 * (2 * q + 2 * k + h + g), " + 4(2q + 2k + h + g)"
    if shape.query_norm:
        layer, formula = layer + extra, formula + more
    if checkpointed:
        return shape.layers * 4 * d + layer + 12 * d + 12, f"l 4d + {formula} + 12d + 12"
    return shape.layers * layer + 12 * d + 12, f"l ({formula}) + 12d + 12"


def updating(shape: ModelShape, load: Load) -> list[Term]:
    """The peak of an optimizer step, from the second on: the largest micro-batch, or AdamW's own step on a GPU.

    With one micro-batch an update, gradients appear while activations go: the larger of the two counts. What several
    processes divide is divided before anything is compared.
    """
    terms, passing = [*standing(shape, load, trained=True), *_left_whole(shape, load)], _passing(shape, load)
    gradients = next(term for term in terms if term.name == GRADIENTS)
    without = [term for term in terms if term is not gradients]
    peaks = [terms + passing if load.several else without + max(passing, [gradients], key=total_gib)]
    if load.gpu:
        step = Term("AdamW's step", f"{gradients.formula}: all parameters at once", gradients.bytes, True)
        peaks.append([*terms, step])
    terms = max(peaks, key=total_gib)
    kept = KEPT_FREE * sum(term.bytes for term in terms)
    return [*terms, Term(KEPT, f"{KEPT_FREE:g} of these", kept), *engine(load, load.vllm_kept_gib)]


def _passing(shape: ModelShape, load: Load) -> list[Term]:
    """What the forward and backward pass of the largest micro-batch hold at their peak, all of it in each process."""
    each, formula = activations_per_token(shape, load.precision, load.checkpointed)
    n, k = load.micro_batch_tokens, load.micro_rows * load.response
    logits, logits_formula = _logits(shape, load, k)
    layer = 12 * n * shape.feed_forward
    passing = [Term("activations", f"n ({formula}), n = {n:,}", n * each)]
    if logits > layer:
        passing.append(Term("logits", f"{logits_formula}, K = {k:,}", logits))
    else:
        passing.append(Term("backward of a layer", "12 n f", layer))
    if load.precision == "bfloat16":
        passing.append(Term("weights of products in bfloat16", "2 bytes each", 2 * shape.linear))
    if not load.lora_rank:
        embedding = 4 * shape.vocabulary * shape.hidden
        passing.append(Term("gradient of the head", "4 V d, until it is added", embedding))
    if not load.shared:
        return passing
    root = Term("root group, gathered", "4 R, R outside the layers", 4 * shape.outside_layers)
    one = (shape.parameters - shape.outside_layers) / shape.layers
    copies, words = (2, "4 x 2 layers") if load.lora_rank else (4, "4 x 2 layers, and the gradients of one twice")
    passing.append(Term("layers, gathered", words, 4 * copies * one))
    ending = Term("gradients of the root group", "8 R: whole, and on their way to the others", 8 * shape.outside_layers)
    if not load.lora_rank and ending.bytes > sum(term.bytes for term in passing):
        return [root, ending]  # the end of the backward pass, when activations are gone
    return [root, *passing]


def _logits(shape: ModelShape, load: Load, k: int) -> tuple[float, str]:
    """Bytes of the K x V logits of a micro-batch, and their formula: those that are kept, and a tile's working memory.

    On a CPU a tile is small, and 20 bytes a kept logit were measured to cover both.
    """
    kept = LOGITS_AT_ONCE["cuda" if load.gpu else "cpu"]
    if not load.gpu:
        return 20 * min(k, max(1, kept // shape.vocabulary)) * shape.vocabulary, "20 V min(K, 2^25 / V)"
    size = 2 if load.precision == "bfloat16" else 4
    return size * min(k * shape.vocabulary, kept) + 20 * TILE["cuda"], f"{size} min(K V, 2^28) + 20 x 2^26"


def _left_whole(shape: ModelShape, load: Load) -> list[Term]:
    """Root groups that scoring has gathered, which stay so while the policy is updated."""
    left = []
    if load.shared and load.start_model:
        left.append(Term("root group of the start model", "4 R", 4 * shape.outside_layers))
    if load.shared and load.critic:
        outside = shape.outside_layers - (shape.parameters - critic_body(shape))
        left.append(Term("root group of the critic", "4 R without a head", 4 * outside))
    return left


def engine(load: Load, size: float) -> list[Term]:
    """What vLLM holds, where it draws."""
    if not load.vllm_gib:
        return []
    if not load.gpu:
        return [Term("vLLM", "its weights, and room for keys and values", size * GIB)]
    asleep = size < load.vllm_gib
    formula = "assumed: context and kernels of its process" if asleep else "its share of the device"
    return [Term("vLLM, asleep" if asleep else "vLLM", formula, size * GIB)]


def sampling(shape: ModelShape, load: Load, *, trained: bool = True) -> list[Term]:
    """The peak of drawing responses, all of them up to the limit; `trained` as in `standing`.

    Processes that share a run first hand weights over to what draws, a whole parameter at a time.
    """
    terms = standing(shape, load, trained=trained)
    work = drawing(shape, load)
    if not load.shared:
        return terms + work
    handing = [
        Term("largest parameter, gathered", "4 bytes each", 4 * shape.largest),
        *engine(load, load.vllm_kept_gib),
    ]
    return terms + max(work, handing, key=total_gib)


def drawing(shape: ModelShape, load: Load) -> list[Term]:
    """What drawing itself holds."""
    if load.vllm_gib:
        return engine(load, load.vllm_gib)
    size = 2 if load.precision == "bfloat16" else 4
    total, rows = load.prompt + load.response, load.side_by_side
    cache = rows * (total + SPARE) * shape.layers * 2 * shape.keys * size
    noise = 40 if load.gpu else 20
    step = noise * rows * shape.vocabulary
    if shape.heads != shape.key_value_heads:
        step = max(step, 2 * rows * total * shape.queries * size)
    prefill = load.distinct_prompts * load.prompt * (4 * shape.feed_forward + 4 * shape.hidden) * size
    if prefill > step + cache:
        return [Term("prefill", f"prompts x tokens (4f + 4d) {size}", prefill)]
    return [
        Term("key-value cache", f"B (T + {SPARE}) 2 l k {size}, B = {rows}, T = {total:,}", cache),
        Term("a decoding step", f"max({noise} B V, 2 B T q {size} where keys are shared)", step),
    ]
